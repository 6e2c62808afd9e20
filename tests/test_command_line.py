"""Errors in a command are one line with the nearest name, before JAX is imported."""

from pathlib import Path

import pytest
from helpers import commands

from experiments import command_line, config_arguments
from jaxsparse import config, launchers
from jaxsparse.data import tfds_folders

TRAIN = "experiments/train.py"
SWEEP, REPRODUCE = "experiments/sweep.py", "experiments/reproduce.py"
REPORT, BENCHMARK = "experiments/report.py", "experiments/benchmark.py"
SCORE, EXPORT = "experiments/score_data.py", "experiments/export.py"
ONE_SHOT = "experiments/one_shot.py"
INFERENCE, COMPACTION = "experiments/inference.py", "experiments/compaction.py"
PAGE_ONLY = ["--page_only", "--out=/nowhere/x"]
ONNX = ["--format=onnx", "--out=a.onnx"]
EL2N = ["--score=el2n", "--out=x.npz"]
DIGITS = "--config=configs/lth_digits.py"
RANGE = "--sparsities: expected numbers"

MISTAKES = [
    ([TRAIN], "--config: missing; give one as --config=lth_digits"),
    ([TRAIN, "--config=lth_digit"], "--config: no file 'lth_digit'; did you mean conf"),
    ([TRAIN, f"{DIGITS}:quik"], "--config: lth_digits has no preset 'quik'; did you "),
    ([TRAIN, DIGITS, "bare"], "expected flags only, got 'bare'"),
    ([TRAIN, DIGITS, "--workdri=x"], "--workdri: no such flag; did you mean --workdir"),
    ([TRAIN, DIGITS, "--workdir=~nosuchuser/x"], "--workdir: expected a folder or fil"),
    ([TRAIN, DIGITS, "--workdir=/a[x]"], "/a[x]: has '[' in its path, which Orbax r"),
    ([SWEEP, DIGITS, "--workdir=/a*"], "/a*: has '*' in its path, which Orbax reads "),
    ([REPRODUCE, "--study=tost", "--workdir=/a?"], "/a?: has '?' in its path, which"),
    ([TRAIN, DIGITS, "--data_dir=/nowhere"], "--data_dir: expected a folder of prepar"),
    ([TRAIN, DIGITS, "--seeds=0"], "--seeds: expected a positive integer, got '0'"),
    ([TRAIN, DIGITS, "--config.lr=1"], "config.lr: no such field; did you mean schedu"),
    (
        [TRAIN, "--config=lth_digits", "--config.sparse.method=snip"],
        "config.sparse.method: expected a known name, got 'snip'; it is a score; set -",
    ),
    (
        [TRAIN, DIGITS, "--config.sparse=3"],
        "config.sparse: expected a field, got a section of fields",
    ),
    (
        [TRAIN, DIGITS, "--config.sparse.sparsity=abc"],
        "config.sparse.sparsity: expected a number like 0.9, got 'abc'",
    ),
    (
        [TRAIN, DIGITS, "--config.replicates=1.5"],
        "config.replicates: expected a whole number like 1, got '1.5'",
    ),
    (
        [TRAIN, DIGITS, "--config.training.duration=5"],
        "config.training.duration: expected a duration in steps or epochs, such as '50",
    ),
    (
        [TRAIN, DIGITS, "--config.data.name=digts"],
        "config.data.name: expected a known dataset or one in",
    ),
    (
        [SWEEP, "--workdir=x", DIGITS, "--set=data.name=cifar_10"],
        "config.data.name: expected a known dataset or one in",
    ),
    ([SWEEP, "--config=lth_digits"], "--workdir: missing; give a folder"),
    (
        [SWEEP, "--workdir=x", "--seeds=0"],
        "--seeds: expected a positive integer, got '0'",
    ),
    ([SWEEP, "--workdir=x", "--config=lth_digit"], "--config: no file 'lth_digit'"),
    (
        [SWEEP, "--workdir=x", "--config=lth_digits", "--vary=lr=1,2"],
        "config.lr: no such field; did you mean schedule.learning_rate",
    ),
    ([SWEEP, "--workdir=x", "--data_dir=/nowhere"], "--data_dir: expected a folder"),
    ([SWEEP, "--workdir=~nosuchuser/x"], "--workdir: expected a folder or file, got "),
    ([REPRODUCE], "--study: missing; expected one of all, stable_imp, data_diet, "),
    ([REPRODUCE, "--study=tosst"], "--study: unknown 'tosst'; did you mean tost"),
    ([REPRODUCE, "--study=tost", "--scale=huge"], "--scale: unknown 'huge'; did you"),
    (
        [REPRODUCE, "--study=tost", "--data_dir=/nowhere"],
        "--data_dir: expected a folder of prepared datasets, got /nowhere",
    ),
    (
        [REPRODUCE, "--study=tost", "--hours=-1"],
        "--hours: expected a non-negative number, got",
    ),
    ([REPORT], "expected folders of runs, got none"),
    ([REPORT, "/nowhere"], "/nowhere: not a run; expected the folder of a run"),
    ([REPORT, "a", "b"], "--out: missing with 2 runs; give --out=DIR"),
    ([BENCHMARK, "--only=mnits"], "--only: unknown 'mnits'; did you mean mnist?"),
    ([BENCHMARK, "--page=x"], "--against: missing; give the page to compare --page wi"),
    ([BENCHMARK, "--against=/nowhere"], "--against: expected a saved page, got /nowhe"),
    ([BENCHMARK, "--against=README.md"], "--against: expected a saved page, got /"),
    ([BENCHMARK, "--save=maybe"], "--save: expected true or false, got 'maybe'"),
    ([SCORE, "--score=eln2"], "--score: unknown 'eln2'; did you mean el2n?"),
    ([SCORE, "--score=el2n"], "--run: missing; see --help"),
    ([SCORE, "--run=/nowhere", *EL2N], "--run: expected a run directory of experimen"),
    ([SCORE, "--run=x", *EL2N, "--batch_norm=btch"], "--batch_norm: unknown 'btch'; d"),
    ([SCORE, "--run=x", *EL2N, "--until=1ep"], "--until: expected one of ['--checkpoi"),
    ([EXPORT, *ONNX], "expected one run directory, got 0"),
    ([ONE_SHOT], "expected one run directory, got 0"),
    ([ONE_SHOT, "/nowhere"], "folder of a run: expected a run directory of exper"),
    ([ONE_SHOT, "x", "--methods=alps,wnda"], "--methods: expected some of ['magnitude"),
    ([ONE_SHOT, "x", "--methods="], "--methods: expected some of ['magnitude"),
    ([ONE_SHOT, "x", "--sparsities="], "--sparsities: expected numbers from 0 on"),
    ([ONE_SHOT, "x", "--sparsities=0.5,1"], "--sparsities: expected numbers from 0 on"),
    (
        [ONE_SHOT, "x", "--sparsities=1/2"],
        f"{RANGE} from 0 on and below 1, got ['1/2']",
    ),
    ([EXPORT, "x"], "--format: missing"),
    (
        [EXPORT, "x", "--format=onnx", "--out=a.pt"],
        "--out: expected a file ending in .",
    ),
    ([EXPORT, "x", *ONNX, "--masks"], "--masks: expected only with --format=torch"),
    ([INFERENCE, *PAGE_ONLY], "--page_only: no file /nowhere/x.csv; call without"),
    ([INFERENCE, "--sparsities=1.5"], f"{RANGE} in [0, 1), got ['1.5']"),
    ([INFERENCE, "--sparsities=0.5,x"], f"{RANGE} in [0, 1), got ['0.5', 'x']"),
    ([INFERENCE, "--batches=1,0"], "--batches: expected whole numbers of 1 or more, "),
    ([INFERENCE, "--batches="], "--batches: expected whole numbers of 1 or more, got "),
    ([COMPACTION, *PAGE_ONLY], "--page_only: no file /nowhere/x.csv; call without"),
    ([EXPORT, "/nowhere", *ONNX], "folder of a run: expected a run directory of exper"),
]


def test_a_mistake_is_one_line_before_jax_is_imported(root: Path) -> None:
    found = commands.run_all(root, [words for words, _ in MISTAKES])
    for (words, message), (lines, code) in zip(MISTAKES, found, strict=True):
        assert code == 1, (words, lines)
        assert len(lines) == 1, (words, lines)
        assert lines[0].startswith(f"error: {message}"), (words, lines)


@pytest.mark.parametrize("number", [None, "0", "1"])
def test_the_first_process_says_what_it_runs_before_jax_is_imported(
    number: str | None, root: Path
) -> None:
    variables = {"JAX_PLATFORMS": "cpu"}
    if number is not None:
        values = ("10.0.0.1:1234", "2", number)
        variables |= dict(zip(launchers.BY_HAND, values, strict=True))
    command = [TRAIN, f"{DIGITS}:quick", "--workdir=/nowhere/it"]
    [(lines, code)] = commands.run_all(root, [command], **variables)
    assert code == 99
    first = [] if number == "1" else ["lth_digits_quick: run in /nowhere/it"]
    assert lines == [*first, "imported JAX"]


def test_each_remedy_for_a_missing_dataset_has_a_line(tmp_path: Path) -> None:
    assert command_line.join_lines("no such\nfolder;\n\n  do so\n") == (
        "no such folder; do so"
    )
    with pytest.raises(ValueError, match="mnist") as caught:
        tfds_folders.find("mnist", data_dir=str(tmp_path))
    first, *remedies = command_line.join_lines(str(caught.value)).splitlines()
    assert first.startswith("config.data.name: expected the dataset 'mnist'")
    assert first.endswith("Do one of these:")
    assert len(remedies) == 4
    assert all(line.startswith("  - ") for line in remedies)


PROGRAMS = [TRAIN, SWEEP, REPRODUCE, BENCHMARK, SCORE]


def test_help_is_no_error(root: Path) -> None:
    found = commands.run_all(root, [[name, "--help"] for name in PROGRAMS])
    for name, (lines, code) in zip(PROGRAMS, found, strict=True):
        assert code == 0, (name, lines)
        assert any("--data_dir: folder of prepared datasets" in line for line in lines)


@pytest.mark.parametrize(
    "name",
    ["lth_digits", "lth_digits.py", "configs/lth_digits", "configs/lth_digits.py"],
)
def test_a_recipe_is_found_by_its_name(name: str, root: Path) -> None:
    path, _, preset = config_arguments.resolve(f"{name}:quick").partition(":")
    assert Path(path).samefile(root / "configs" / "lth_digits.py")
    assert preset == "quick"


OWN = """
import jaxsparse
from jaxsparse import config, launchers

@jaxsparse.register_score("own_score", options={"own_power": 2.0, "own_flag": False})
class Own:
    pass

def get_config(preset=""):
    return config.default()
"""


def test_options_of_what_a_config_file_registers_are_fields(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    given = ["train.py", f"--config={path}", "--config.sparse.own_power=3.0"]
    assert (
        config_arguments.arguments([*given, "--noconfig.sparse.own_flag"])[2]
        == given[2]
    )
    assert "own_score" not in config.SCORES  # the flags library registers it
    with pytest.raises(ValueError, match=r"own_power: expected a number like 2\.0, go"):
        config_arguments.arguments([*given[:2], "--config.sparse.own_power=much"])
    with pytest.raises(ValueError, match=r"own_powr: no such .*mean sparse\.own_power"):
        config_arguments.arguments([*given[:2], "--config.sparse.own_powr=3.0"])
    path.write_text("1 / 0")
    with pytest.raises(ValueError, match="the file cannot be run: ZeroDivisionError"):
        config_arguments.arguments(given)
