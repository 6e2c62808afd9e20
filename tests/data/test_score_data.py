"""experiments/score_data.py on a whole run, and its errors."""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from absl import flags
from helpers import tiny
from ml_collections import ConfigDict

from experiments import command_line, score_data, scoring
from jaxsparse import config as config_lib
from jaxsparse import factory
from jaxsparse.config import names
from jaxsparse.data.data_pruning import score_files
from jaxsparse.data.data_pruning import scores as scores_lib
from jaxsparse.data.data_pruning import subsets as subsets_lib
from jaxsparse.factory import example_scores
from jaxsparse.runner import run as run_lib
from jaxsparse.training import checkpoints

FIELDS = {
    "lottery.levels": 0,
    "model.features": (8,),
    "instability.copies": 2,
    "instability.start_steps": ("0step", "4step"),
    "instability.points": 3,
}
END = "level_00/ticket/last"
CHILDREN = "level_00/children_000000000"
LATER = "level_00/children_000000004"


def launch(commands: list[list[str]]) -> list[tuple[str, str]]:
    """Runs the script; what each command wrote to stdout, with its code, and stderr."""
    done, handlers = [], logging.root.handlers
    for words in commands:
        flags.FLAGS.unparse_flags()
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.setattr(sys, "argv", ["score_data", *words])
            patch.setattr(logging.root, "handlers", [*handlers])
            with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
                command_line.run(score_data.main)
            print("code", ended.value.code)
        done.append((out.getvalue(), err.getvalue()))
    return done


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Calls a function of one run, and what else it is given, once for all tests."""
    known: dict[str, Any] = {}

    def call(*given: Any, **options: Any) -> Any:
        configs = [each.to_json() for each in given if isinstance(each, ConfigDict)]
        folders = [each for each in given if isinstance(each, Path)]
        key = repr((options, configs, folders))
        if key not in known:
            known[key] = function(*given, **options)
        return known[key]

    return call


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    """Commands and tests share the opened run, its programs, and the training again."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("open_run", "make_eval_fns", "count_forgetting"):
            patch.setattr(factory, name, once(getattr(factory, name)))
        yield


@pytest.fixture(scope="module")
def run(shared: None, tmp_path_factory: pytest.TempPathFactory) -> factory.TrainedRun:
    folder = tmp_path_factory.mktemp("scored")
    c = tiny.config(FIELDS)
    made = factory.make_experiment(c, factory.load_data(c), folder)
    run_lib.run(made, tiny.desk(folder))
    (folder / "config.json").write_text(c.to_json())
    return factory.open_run(folder, data_dir="")


class Done(NamedTuple):
    """What the commands did: the folder of their files, and what each wrote."""

    folder: Path
    right: list[tuple[str, str]]
    wrong: dict[str, tuple[str, str]]
    changed: list[str]


@pytest.fixture(scope="module")
def done(run: factory.TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Runs all commands: those that are right, after those that are wrong."""
    folder = tmp_path_factory.mktemp("scores")
    right, wrong = right_commands(run, folder), wrong_commands(run, folder)
    before = {path: path.read_bytes() for path in files_in(run.folder, folder)}
    wrong_said = launch([*wrong.values(), *right])
    after = {path: path.read_bytes() for path in files_in(run.folder, folder)}
    changed = [str(p) for p, content in before.items() if after.get(p) != content]
    changed += [
        str(p) for p in after if p.is_relative_to(run.folder) and p not in before
    ]
    said = dict(zip(wrong, wrong_said, strict=False))
    return Done(folder, wrong_said[len(wrong) :], said, changed)


def files_in(*folders: Path) -> list[Path]:
    return [path for each in folders for path in each.rglob("*") if path.is_file()]


def right_commands(run: factory.TrainedRun, folder: Path) -> list[list[str]]:
    def command(score: str, *flags: str, out: str = "") -> list[str]:
        path = folder / f"{out or score}.npz"
        return [f"--run={run.folder}", f"--score={score}", f"--out={path}", *flags]

    by_class = folder / "new" / "classes.json"
    return [
        command("el2n", "--batch_size=50"),
        # Again, with what is usual said aloud: the same file.
        command("el2n", "--batch_size=50", f"--checkpoint={END}"),
        command("margin", "--checkpoint=init"),
        command("loss", f"--checkpoint={CHILDREN}/last"),
        command("grand", "--block_size=7"),
        command("forgetting"),
        command("barrier", f"--copies={CHILDREN}", f"--by_class={by_class}"),
        command(
            *("barrier", f"--copies={CHILDREN}", "--pairs=copies", "--at=maximum"),
            out="apart",
        ),
        command("barrier", f"--copies={LATER}", "--pairs=copies", out="later"),
    ]


def wrong_commands(run: factory.TrainedRun, tmp_path: Path) -> dict[str, list[str]]:
    """Commands by a part of the message of each."""
    out = tmp_path / "a.npz"
    (tmp_path / "taken.npz").write_text("something else")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "classes.json").write_text("{}")
    other = score_files.describe(
        run.dataset.train.labels,
        score="el2n",
        dataset="digits",
        split="train",
        replicates=2,
        step=12,
        config="another",
    )
    score_files.save(tmp_path / "other.npz", np.zeros(120), provenance=other)
    barrier = ("--score=barrier", f"--copies={CHILDREN}")

    def command(*flags: str) -> list[str]:
        return [f"--run={run.folder}", f"--out={out}", *flags]

    return {
        "--score: missing": command(),
        "--run: expected a run directory": command("--score=el2n", f"--run={tmp_path}"),
        "got 'lst', which is missing or corrupt": command(
            "--score=el2n", "--checkpoint=lst"
        ),
        "a network with BatchNorm, got lenet_300_100; remove the": command(
            "--score=el2n", "--batch_norm=evaluation"
        ),
        "--batch_norm: expected 'evaluation' with --score=grand": command(
            "--score=grand", "--batch_norm=batch"
        ),
        "--out: expected a file ending in .npz, got a.csv": command(
            "--score=el2n", "--out=a.csv"
        ),
        "--score=el2n, which does not read --until; remove it": command(
            "--score=el2n", "--until=1ep"
        ),
        "until: expected 1 to 12 updates, those of the dense training, got": command(
            "--score=forgetting", "--until=99step"
        ),
        "--copies: missing; give a stage": command("--score=barrier"),
        f"got '{END}' of a run with": command("--score=barrier", f"--copies={END}"),
        "children_000000003/last', which is missing": command(
            "--score=barrier", "--copies=level_00/children_000000003"
        ),
        "got 'triple' for copies that start at step 4": command(
            "--score=barrier", f"--copies={LATER}"
        ),
        # All of these are known before anything is computed.
        "taken.npz: expected a score file": command(
            "--score=forgetting", f"--out={tmp_path}/taken.npz"
        ),
        "folder.npz: expected the name of a file to write, got a folder": command(
            "--score=forgetting", f"--out={tmp_path}/folder.npz"
        ),
        "file'": command(  # a file where a folder must be
            "--score=forgetting", f"--out={tmp_path}/file/a.npz"
        ),
        "other score ('el2n', now 'forgetting'), config": (
            command("--score=forgetting", f"--out={tmp_path}/other.npz")
        ),
        "--by_class: expected a file ending in .json, got a.npz": command(
            *barrier, "--by_class=a.npz"
        ),
        "classes.json, which exists; move it": command(
            *barrier, f"--by_class={tmp_path}/classes.json"
        ),
    }


def read(run: factory.TrainedRun, path: Path, **said: Any) -> np.ndarray:
    """Reads scores, and checks what they say that they are of."""
    found = score_files.load(path, labels=run.dataset.train.labels)
    wanted = {
        "dataset": "digits",
        "split": "train",
        "examples": 120,
        "replicates": 2,
        "step": 12,
        "config": config_lib.digest(run.config),
    }
    for name, value in (wanted | said).items():
        assert getattr(found.provenance, name) == value, name
    return found.scores


def test_every_score_of_a_run(run: factory.TrainedRun, done: Done) -> None:
    for out, err in done.right:
        assert "code 0" in out, err
        assert str(done.folder) in out
    assert "gave the same weights, bit for bit" in done.right[5][0]
    networks = example_scores.weights(factory.load_state(run, END))
    functions = factory.make_eval_fns(run.config, run.dataset, {})
    given = {"batch_size": 50, "how": "map"}
    el2n = example_scores.score_logits(
        functions, networks, run.dataset.train, score="el2n", **given
    )
    saved = read(run, done.folder / "el2n.npz", score="el2n")
    wanted = scores_lib.mean_over_replicates(el2n)
    np.testing.assert_allclose(saved, wanted, rtol=1e-5, atol=1e-6)
    margin = read(
        *(run, done.folder / "margin.npz"),
        score="negative_margin checkpoint=init",
        step=0,
    )
    assert np.all(np.abs(margin) <= 1) and margin.mean() > 0  # before training
    name = f"loss checkpoint={CHILDREN}/last"
    loss = read(run, done.folder / "loss.npz", score=name, replicates=4)
    assert np.corrcoef(loss, saved)[0, 1] > 0.5
    assert np.all(read(run, done.folder / "grand.npz", score="grand") > 0)
    counted = read(run, done.folder / "forgetting.npz", score="forgetting")
    events = factory.count_forgetting(run, until="")
    np.testing.assert_array_equal(counted, events.counts.mean(axis=0))
    check_barriers(run, functions, done.folder, done.folder / "new" / "classes.json")
    check_usable(done.folder / "el2n.npz", saved)


def check_barriers(
    run: factory.TrainedRun, functions: factory.EvalFns, folder: Path, by_class: Path
) -> None:
    parent = example_scores.weights(factory.load_state(run, END))
    copies = example_scores.weights(factory.load_state(run, f"{CHILDREN}/last"))
    triples, pairs = [], []
    for r in range(2):
        ends = [
            ({k: {n: w[row] for n, w in v.items()} for k, v in of.params.items()}, {})
            for of, row in ((parent, r), (copies, 2 * r), (copies, 2 * r + 1))
        ]
        given = {"examples": run.dataset.train, "batch_size": 1000}
        triples.append(example_scores.example_barriers(functions, ends, **given))
        pairs.append(
            example_scores.example_barriers(functions, ends[1:], at="maximum", **given)
        )
    name = f"barrier children={CHILDREN}"
    found = read(run, folder / "barrier.npz", score=name)
    assert len(triples[0]) == 3
    np.testing.assert_allclose(found, np.mean(triples, axis=(0, 1)), atol=1e-6)
    apart = read(
        *(run, folder / "apart.npz"), score=f"{name} pairs=children at=maximum"
    )
    np.testing.assert_allclose(apart, np.mean(pairs, axis=(0, 1)), atol=1e-6)
    rows = json.loads(by_class.read_text())
    assert sum(rows["examples"]) == 120 and len(rows["mean_barrier"]) == 10
    for threshold in ("0.0", "0.5"):
        whole = np.dot(rows["examples"], rows[f"connected_at_{threshold}"]) / 120
        # Of each pair, not of means over pairs.
        wanted = np.mean(np.asarray(triples) <= float(threshold))
        assert whole == pytest.approx(wanted, abs=1e-3)
    states = [f"{CHILDREN}/last", END]
    hashes = [checkpoints.recorded_hash(run.folder / "checkpoints", n) for n in states]
    saved = score_files.load(folder / "barrier.npz", labels=run.dataset.train.labels)
    assert saved.provenance.weights == ",".join(hashes)


def check_usable(path: Path, saved: np.ndarray) -> None:
    """The easiest examples are what pre-training begins with."""
    fields = {
        "lottery.levels": 1,
        "lottery.rewind": "4step",
        "pretraining.subset": "easiest",
        "pretraining.size": 30,
        "pretraining.scores": str(path),
    }
    c = tiny.config(fields)
    made = factory.make_experiment(c, factory.load_data(c), path.parent)
    seen = np.unique(np.asarray(made.pretrainer.feed.make_order(made.seeds.data, 0)))
    wanted = subsets_lib.choose(saved, 30, how="easiest")
    np.testing.assert_array_equal(seen, wanted)


def test_the_flags_know_the_names_that_the_scores_have() -> None:
    assert tuple(example_scores.LOGIT_SCORES) == names.LOGIT_SCORES
    assert example_scores.BATCH_NORM == names.BATCH_NORM


def saved_as(path: Path, run: factory.TrainedRun, **fields: Any) -> None:
    """Writes a file of scores, with the provenance of a run's where nothing is said."""
    of = {"dataset": "digits", "split": "train", "replicates": 2, "step": 12}
    of |= {"config": config_lib.digest(run.config)}
    made = score_files.describe(run.dataset.train.labels, **(of | fields))
    score_files.save(path, np.zeros(120), provenance=made)


@pytest.mark.parametrize(
    ("score", "options", "saved", "message"),
    [
        ("forgetting", {}, {"step": 4}, r"other step \(4, now 12\)"),
        ("forgetting", {"until": "1ep"}, {}, r"other step \(12, now 6\)"),
        ("el2n", {}, {"weights": "x"}, r"other weights \('x', now"),
        (
            *("el2n", {"checkpoint": "init"}, {}),
            r"other score \('el2n', now 'el2n checkpoint=init'\)",
        ),
        ("el2n", {}, {"config": "c"}, r"other config \('c', now"),
    ],
)
def test_a_file_of_other_scores_is_refused_before_they_are_computed(
    run: factory.TrainedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    score: str,
    options: dict[str, str],
    saved: dict[str, Any],
    message: str,
) -> None:
    def compute(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("computed")

    monkeypatch.setattr(factory, "count_forgetting", compute)
    monkeypatch.setattr(factory, "load_state", compute)
    out = tmp_path / "a.npz"
    saved_as(out, run, score=score, **saved)
    asked = scoring.Options(**options)
    request = scoring.Request(run.folder, out, score, asked)
    for refuse in (scoring.check, scoring.save):
        with pytest.raises(ValueError, match=rf"{message}.*move the file"):
            refuse(request)


def test_a_file_of_the_same_scores_is_accepted(
    run: factory.TrainedRun, tmp_path: Path
) -> None:
    weights = checkpoints.recorded_hash(run.folder / "checkpoints", END)
    for name, fields in {
        "a": {"score": "el2n", "weights": weights},
        "b": {"score": "el2n"},  # of a version that did not record them
        "c": {"score": "forgetting", "step": 6},
    }.items():
        out = tmp_path / f"{name}.npz"
        saved_as(out, run, **fields)
        asked = scoring.Options(until="6step" if "step" in fields else "")
        scoring.check(scoring.Request(run.folder, out, fields["score"], asked))


def test_whatever_is_wrong_is_one_line(done: Done) -> None:
    for message, (said, errors) in done.wrong.items():
        assert "code 1" in said, message
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and message in lines[0], errors
        assert "Traceback" not in errors
    assert not (done.folder / "a.npz").exists()
    assert done.changed == []
