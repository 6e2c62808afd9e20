"""Laws of the benchmark's sections on devices, input, launches, peers, accelerators."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from experiments.benchmarks import (
    accelerator,
    fixtures,
    launch,
    other_libraries,
    pipeline,
    scaling,
    startup,
    timing,
)
from experiments.benchmarks.scaling import Case
from experiments.benchmarks.timing import Job

BRIEF = {"seconds": 0.0, "repetitions": 2}
TALLY = 12  # bytes: a loss, and counts of correct and of all examples
LENET = "lenet_300_100"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pytorch", "torch_prune", "jax_pruner"):
        monkeypatch.delitem(
            sys.modules, f"experiments.benchmarks.{name}", raising=False
        )
    for name in ("torch", "jaxpruner"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return scaling.read(Case(LENET, "strong", 1, 128))


def test_data_parallel_steps_exchange_gradients_once_and_share_the_work(
    alone: dict[str, Any],
) -> None:
    assert alone["counts"] == {} and alone["bytes"] == 0
    facts = scaling.read(Case(LENET, "strong", 4, 128))
    assert set(facts["counts"]) == {"all-reduce"} and facts["unknown"] == 0
    assert facts["bytes"] == facts["params"] + TALLY
    assert facts["sent"] == 2 * 3 / 4 * facts["bytes"]
    # What is done on every weight is done on every device, hence the tolerance.
    assert facts["flops"] == pytest.approx(alone["flops"] / 4, rel=0.05)
    assert facts["flops"] > alone["flops"] / 4


@pytest.mark.parametrize("way", ["weak", "replicates"])
def test_more_devices_with_as_much_each_do_as_much_each(
    way: str, alone: dict[str, Any]
) -> None:
    facts = scaling.read(Case(LENET, way, 2, 128))
    assert facts["flops"] == pytest.approx(alone["flops"], rel=0.01)
    assert facts["params"] == alone["params"]
    assert facts["bytes"] == (alone["params"] + TALLY if way == "weak" else 0)


def test_ways_compare_what_is_there() -> None:
    found = {way: compared for _, way, compared in scaling.cases((LENET,), 8, 4)}
    assert [case.devices for case in found["strong"]] == [1, 2, 4]
    assert [case.examples for case in found["strong"]] == [8, 8, 8]
    assert [case.examples for case in found["weak"]] == [8, 16, 32]
    assert [case.devices for case in found["replicates"]] == [1, 4]


def test_one_device_asks_a_process_that_shows_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def run(command: list[str], **how: Any) -> Any:
        asked.update(how["env"], command=command)
        said = json.dumps([["t", ["devices"], [["8"]], "Read.", {}]])
        return subprocess.CompletedProcess(command, 0, f"words\n{said}\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    (table,) = scaling.measure(**BRIEF, networks=(LENET,), size=16)
    assert asked["NPROC"] == "32"
    assert asked["XLA_FLAGS"].endswith("device_count=8")
    assert asked["command"][-2:] == ["16", LENET]
    assert table.rows == [("8",)] and "no times worth quoting" in table.note


def test_a_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **how: Any) -> Any:
        del how
        return subprocess.CompletedProcess(command, 1, "", "no room")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(RuntimeError, match="no room"):
        scaling._elsewhere((LENET,), 8)
    with pytest.raises(RuntimeError, match="no room"):
        startup.launch(Path("a"), Path("b"), "")


def test_times_are_of_examples_of_all_devices() -> None:
    cases = [Case(LENET, "weak", n, 4) for n in (1, 2)]
    table = scaling._times(LENET, "weak", cases, **BRIEF, steps=2)
    assert [row[0] for row in table.rows] == ["1", "2"]
    assert table.rows[0][2].startswith("1.00")


@pytest.mark.usefixtures("nothing_installed")
def test_pipeline_rows_without_torch() -> None:
    sizes = {"batch_size": 8, "steps": 2, "examples": 64, "workers": (0,)}
    training, alone = pipeline.measure(**BRIEF, **sizes)
    ours = [pipeline.RESIDENT, pipeline.STREAMED, pipeline.LIBRARY]
    assert [row[0] for row in training.rows] == [*ours, pipeline.LOADER]
    ours = [pipeline.GATHER, pipeline.SERVE, pipeline.INDEX]
    assert [row[0] for row in alone.rows] == [*ours, pipeline.LOADER]
    for table in (training, alone):
        assert "not installed" in table.rows[-1][1]


def test_a_launch_ends_after_its_first_step(tmp_path: Path) -> None:
    said = launch.main(tmp_path / "run", "quick")
    assert said["imported"] < said["built"] < said["began"] < said["stepped"]
    assert said["programs"] > 0
    assert (tmp_path / "run" / "checkpoints").is_dir()


def test_parts_of_a_launch_add_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def run(command: list[str], **how: Any) -> Any:
        seen.append(how["env"]["JAX_COMPILATION_CACHE_DIR"])
        ends = {"imported": 1e10, "built": 1e10 + 2, "began": 1e10 + 3}
        said = ends | {"stepped": 1e10 + 7, "compiling": 1.5, "programs": 4}
        return subprocess.CompletedProcess(command, 0, json.dumps(said), "")

    monkeypatch.setattr(subprocess, "run", run)
    found = startup.launch(tmp_path, tmp_path / "cache", "")
    assert found["total"] == pytest.approx(sum(found[p] for p in startup.PARTS))
    assert (found["build"], found["first step"], found["programs"]) == (2, 4, 4)
    (table,) = startup.measure(**BRIEF)
    assert [row[0] for row in table.rows] == ["cold cache", "warm cache"]
    # Of two pairs, each has a cache of its own, which its second launch finds.
    assert seen[1] == seen[2] and seen[3] == seen[4] and seen[2] != seen[3]


@pytest.mark.usefixtures("nothing_installed")
def test_peers_that_are_absent_are_named_with_the_way_to_get_them() -> None:
    shapes = {"a": (30, 20), "b": (50, 4)}
    tables = other_libraries.measure(**BRIEF, shapes=shapes, batch_size=8, steps=2)
    assert "of 80 wanted: jaxsparse 80" in tables[0].note
    for table in tables:
        ours, *others = table.rows
        assert ours[0] == other_libraries.OURS and ours[2].startswith("1.00")
        assert all("not installed: pip install" in row[1] for row in others)
    assert [len(table.rows) for table in tables] == [3, 2, 3]


def test_a_peer_that_fails_is_a_row_and_no_end() -> None:
    def fails() -> Job:
        raise AttributeError("no attribute 'tree_map'\nmore")

    makers = {
        other_libraries.OURS: lambda: Job(lambda count: None, 1),
        other_libraries.JAXPRUNER: fails,
    }
    table = other_libraries.compare("t", makers, **BRIEF, note="")
    said = "fails here: AttributeError: no attribute 'tree_map'"
    assert table.rows[1] == (other_libraries.JAXPRUNER, said, "")


def test_torch_prunes_as_many_as_are_asked_for() -> None:
    pytest.importorskip("torch")
    shapes = {"a": (30, 20), "b": (50, 4)}
    select, _, step = other_libraries.measure(
        **BRIEF, shapes=shapes, batch_size=8, steps=2
    )
    assert select.data["kept"][other_libraries.TORCH] == 80
    assert other_libraries.TORCH in step.data["milliseconds"]


def test_a_cpu_is_no_accelerator() -> None:
    (table,) = accelerator.measure(seconds=0.0)
    assert table.rows == [("no accelerator here",)]


def test_flops_of_an_image_are_those_of_the_layers() -> None:
    dataset = fixtures.random_dataset(accelerator.SHAPE, examples=512)
    c = accelerator.cifar(LENET, batch_size=512, steps=1)
    # Two products a weight, and one more where inputs have gradients.
    layers = 2 * (3072 * 300 * 2 + (300 * 100 + 100 * 10) * 3)
    found = accelerator._flops(c, dataset) / 512
    assert layers < found < 1.05 * layers  # the rest is on weights, once a step


def test_throughput_rows() -> None:
    sizes = {"batch_sizes": (8,), "examples": 32, "steps": 2, "side": 16}
    table = accelerator.throughput(LENET, **BRIEF, dtypes=("bfloat16",), **sizes)
    assert [row[0] for row in table.rows] == [
        *("bfloat16, product of 16 x 16", "bfloat16, batch 8"),
    ]
    assert accelerator.product_job("float32", 16).work == 2 * 16**3 * accelerator.CHAIN


def test_what_does_not_fit_is_told() -> None:
    def fails(words: str) -> Job:
        raise jax.errors.JaxRuntimeError(words)

    assert accelerator._tried(lambda: fails("RESOURCE_EXHAUSTED: a")) == (
        None,
        "more than the device's memory",
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        accelerator._tried(lambda: fails("INTERNAL: a"))


def test_rigl_rows() -> None:
    table = accelerator.rigl(LENET, **BRIEF, batch_size=8, steps=2, examples=32)
    assert len(table.rows) == 3 and table.rows[0][2].startswith("1.000")


def test_a_lottery_run_is_run_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    run, times = accelerator._whole_run, []

    def once(*args: Any) -> float:
        times.append(run(*args) if not times else times[0])
        return times[-1]

    monkeypatch.setattr(accelerator, "_whole_run", once)
    c = accelerator.lottery_config()
    c.model.name, c.data.batch_size, c.replicates = LENET, 8, 1
    c.training.duration = c.evaluation.every = "2step"
    c.lottery.levels, c.lottery.rewind = 1, "1step"
    table = accelerator.lottery(c, repetitions=1, examples=32)
    assert [row[0] for row in table.rows] == [
        "first run",
        "runs after it",
    ]
    assert table.data["seconds"] == times and len(times) == 2
