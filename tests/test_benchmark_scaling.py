"""Benchmarks of devices, input, startup, other libraries and accelerators."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from experiments.benchmarks import (
    aims,
    commands,
    fixtures,
    launch,
    libraries,
    mnist,
    other_libraries,
    pipeline,
    rows,
    scaling,
    short_imp,
    startup,
    throughput,
    timing,
)
from experiments.benchmarks.scaling import Case
from experiments.benchmarks.timing import Job
from jaxsparse import metrics_log

BRIEF = {"seconds": 0.0, "repetitions": 2}
SUMS = 12  # bytes: a loss, and counts of correct and of all examples
LENET = "lenet_300_100"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pytorch", "torch_loops", "torch_prune", "jax_pruner"):
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
    assert set(facts["counts"]) == {"all-reduce"} and facts["nested"] == 0
    assert facts["bytes"] == facts["params"] + SUMS
    # What is done on every weight is done on every device, hence the tolerance.
    assert facts["flops"] == pytest.approx(alone["flops"] / 4, rel=0.05)
    assert facts["flops"] > alone["flops"] / 4


@pytest.mark.parametrize(
    "mode", [pytest.param("weak", marks=pytest.mark.campaign), "replicates"]
)
def test_more_devices_with_as_much_each_do_as_much_each(
    mode: str, alone: dict[str, Any]
) -> None:
    facts = scaling.read(Case(LENET, mode, 2, 128))
    assert facts["flops"] == pytest.approx(alone["flops"], rel=0.01)
    assert facts["params"] == alone["params"]
    assert facts["bytes"] == (alone["params"] + SUMS if mode == "weak" else 0)


def test_modes_compare_the_devices_that_exist() -> None:
    found = {row[0].mode: row for row in scaling.cases((LENET,), 8, 4)}
    assert [case.devices for case in found["strong"]] == [1, 2, 4]
    assert [case.examples for case in found["strong"]] == [8, 8, 8]
    assert [case.examples for case in found["weak"]] == [8, 16, 32]
    assert [case.devices for case in found["replicates"]] == [1, 4]


def test_programs_of_one_device_are_described_in_a_second_process(
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
    assert table.rows == [("8",)] and "not timed" in table.note


def test_a_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **how: Any) -> Any:
        del how
        return subprocess.CompletedProcess(command, 1, "", "no room")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match="no room"):
        scaling.measure(**BRIEF, networks=(LENET,), size=8)


def test_times_count_the_examples_of_all_devices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is compiled or timed: every job makes ten calls a second."""

    def interleave(jobs: dict[int, Job], **how: Any) -> dict[int, list[float]]:
        del how
        return {count: [10 * job.work] * 2 for count, job in jobs.items()}

    monkeypatch.setattr(fixtures, "make", lambda c, dataset: c)
    monkeypatch.setattr(fixtures, "trainer_job", lambda c: Job(print, 0.0))
    monkeypatch.setattr(timing, "interleave", interleave)
    cases = [Case(LENET, "weak", n, 4) for n in (1, 2)]
    table = scaling.time_training(cases, **BRIEF, steps=2)
    assert table.data == {"rates": {"1": [80.0] * 2, "2": [160.0] * 2}}
    assert [row[0] for row in table.rows] == ["1", "2"]
    assert [row[2][:4] for row in table.rows] == ["1.00", "2.00"]
    assert [row[3][:4] for row in table.rows] == ["1.00", "1.00"]


@pytest.mark.campaign
def test_training_is_timed_on_several_devices() -> None:
    cases = [Case(LENET, "weak", n, 4) for n in (1, 2)]
    table = scaling.time_training(cases, **BRIEF, steps=2)
    assert [row[0] for row in table.rows] == ["1", "2"]


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.campaign)]
)
def test_pipeline_rows_without_torch(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = []
    if not compiled:  # the rows of MNIST run such jobs, see test_benchmark.py

        def job(c: Any) -> Job:
            placed.append(c.run.data_placement)
            return Job(lambda count: None, 0.0)

        monkeypatch.setattr(fixtures, "make", lambda c, dataset: c)
        monkeypatch.setattr(fixtures, "trainer_job", job)
        idle = lambda c, *, steps: Job(lambda count: None, steps)  # noqa: E731
        monkeypatch.setattr(mnist, "library_job", idle)
    sizes = {"batch_size": 8, "steps": 2, "examples": 64, "workers": (0,)}
    (table,) = pipeline.measure(**BRIEF, **sizes)
    ours = [pipeline.RESIDENT, pipeline.STREAMED, rows.LIBRARY]
    assert [row[0] for row in table.rows] == [*ours, rows.LOADER]
    assert "not installed" in table.rows[-1][1]
    assert compiled or placed == ["device", "host"]


def test_a_launch_times_a_whole_run(tmp_path: Path) -> None:
    said = launch.main(tmp_path / "run", "quick")
    assert said["imported"] < said["began"] < said["stepped"] < said["ended"]
    assert said["programs"] > 0
    (record,) = metrics_log.read(tmp_path / "run" / "metrics.jsonl")[-1:]
    assert record["kind"] == "timing" and record["step"] == 95


def test_phases_of_a_launch_add_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def run(*words: str, cache: Path, to_first_line: bool = False) -> Any:
        seen.append((cache, to_first_line))
        ends = {"imported": 1e10 + 1, "began": 1e10 + 3, "stepped": 1e10 + 7}
        said = ends | {"ended": 1e10 + 9, "compile_seconds": 1.5, "programs": 4}
        return commands.Timed(1e10, 0.5, 9.0, ["words", json.dumps(said)])

    monkeypatch.setattr(commands, "run", run)
    found = startup.launch(tmp_path, tmp_path / "cache", "")
    assert found["total"] == pytest.approx(sum(found[p] for p in startup.PHASES))
    assert (found["set up"], found["first step"], found["programs"]) == (2, 4, 4)
    assert (found["whole run"], found["first line"]) == (9, 0.5)
    (table,) = startup.measure(**BRIEF)
    assert [row[0] for row in table.rows] == ["empty cache", "full cache"]
    summary = aims.summarize({table.title: table.data}, ["startup"])
    assert [row[3] for row in summary.rows] == ["met", "missed", "met", "met"]
    # Of two pairs, each has a cache of its own, which its second launch finds.
    caches = [cache for cache, to_first_line in seen[2:] if not to_first_line]
    assert caches[0] == caches[1] and caches[2] == caches[3] and caches[1] != caches[2]


@pytest.mark.usefixtures("nothing_installed")
def test_absent_libraries_are_named_with_their_installation() -> None:
    shapes = {"a": (30, 20), "b": (50, 4)}
    tables = other_libraries.measure(**BRIEF, shapes=shapes, batch_size=8, steps=2)
    assert "80 expected: jaxsparse 80" in tables[0].note
    *timed, states = tables
    for table in timed:
        ours, *others = (row for row in table.rows if row[0] != libraries.DENSE)
        assert ours[0] == libraries.OURS
        assert all("not installed: pip install" in row[1] for row in others)
    assert [len(table.rows) for table in timed] == [3, 2, 3, 3, 3]
    shares = [row[2] for row in states.rows]
    assert shares[:2] + shares[-1:] == ["0.253", "0.253", ""]


def test_a_library_that_fails_is_a_row_and_not_an_error() -> None:
    def fails() -> Job:
        raise AttributeError("no attribute 'tree_map'\nmore")

    makers = {
        libraries.OURS: lambda: Job(lambda count: None, 1),
        libraries.JAXPRUNER: fails,
    }
    table = libraries.compare("t", makers, **BRIEF, note="")
    said = "fails here: AttributeError: no attribute 'tree_map'"
    assert table.rows[1] == (libraries.JAXPRUNER, said, "")


def test_torch_prunes_as_many_as_are_asked_for_with_its_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch")
    prune = libraries.load("torch_prune", "torch")
    monkeypatch.setattr(prune, "THREADS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # as another benchmark may have left it
    shapes = {"a": (30, 20), "b": (50, 4)}
    tables = other_libraries.measure(**BRIEF, shapes=shapes, batch_size=8, steps=2)
    select, step = tables[0], tables[-2]
    assert select.data["kept"][libraries.TORCH] == 80
    assert libraries.TORCH in step.data["milliseconds"]
    assert "PyTorch uses 1 thread." in select.note
    assert "PyTorch uses 1 thread." in step.note
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_a_short_run_is_timed_whole_with_its_peak_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is trained: the run directory is invented."""
    (absent,) = short_imp.measure(seconds=0.0)
    assert "no accelerator" in str(absent)
    seen = []

    def run(*words: str, cache: Path) -> commands.Timed:
        (folder,) = (Path(w.partition("=")[2]) for w in words if "workdir" in w)
        seen.append([w for w in words if "workdir" not in w])
        peaks = [{"peak_device_bytes": n << 30, "peak_host_bytes": 5} for n in (1, 3)]
        folder.mkdir()
        text = "\n".join(map(json.dumps, [{"kind": "eval"}, *peaks]))
        (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
        return commands.Timed(0.0, 0.0, 60.0 - 20 * len(seen), [])

    monkeypatch.setattr(fixtures, "on_cpu", lambda: False)
    monkeypatch.setattr(commands, "run", run)
    (table,) = short_imp.measure(seconds=0.0, data_dir="here")
    assert seen[0] == seen[1]
    assert seen[0][1:] == [
        *("--config=configs/lth_cifar.py:quick", "--config.data.dir=here"),
    ]
    assert table.data["seconds"] == {"compiled": [40.0], "cached": [20.0]}
    assert table.data["bytes"] == {"device": [3 << 30] * 2, "host": [5] * 2}
    assert dict(table.rows)["peak memory of the device, GiB"] == "3.00"
    assert short_imp.format_gib([None]) == "not reported"


def test_throughput_is_not_measured_on_cpus() -> None:
    (table,) = throughput.measure(seconds=0.0)
    assert table.rows == [("not measured: no accelerator",)]


def test_the_cost_of_a_step_is_that_of_its_layers() -> None:
    dataset = fixtures.random_dataset(throughput.SHAPE, examples=512)
    c = throughput.cifar(LENET, batch_size=512, steps=1)
    # Two products a weight, and one more where inputs have gradients.
    layers = 2 * (3072 * 300 * 2 + (300 * 100 + 100 * 10) * 3)
    cost = throughput.read_cost(c, dataset)
    assert layers < cost.flops < 1.05 * layers  # the rest is on weights, once a step
    images = 512 * 3072
    weights = 4 * (3072 * 300 + 300 * 100 + 100 * 10)
    # At least the images, weights and momentum; at most ten float copies in addition.
    least = images + 2 * weights
    assert least < cost.memory < least + 10 * (4 * images + weights)


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.campaign)]
)
def test_throughput_rows(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    if not compiled:

        def job(c: Any, dataset: Any) -> Job:
            seen.append(c.replicates)
            return Job(lambda count: None, 0.0)

        monkeypatch.setattr(throughput, "trainer_job", job)
        cost = throughput.Cost(1e6, 2**29)
        monkeypatch.setattr(throughput, "read_cost", lambda c, dataset: cost)
    sizes = {"batch_sizes": (8,), "examples": 32, "steps": 2, "side": 16}
    table = throughput.measure_network(LENET, **BRIEF, dtypes=("bfloat16",), **sizes)
    assert [row[0] for row in table.rows] == [
        *("bfloat16, product of 16 x 16", "bfloat16, batch 8"),
    ]
    assert compiled or (table.rows[1][2], table.rows[1][5]) == ("1.0", "0.50")
    assert throughput.product_job("float32", 16).work == 2 * 16**3 * throughput.CHAIN
    sizes = {"network": LENET, "batch_size": 8, "examples": 32, "steps": 2}
    table = throughput.measure_replicates(**BRIEF, **sizes, counts=(1, 4))
    assert [row[0] for row in table.rows] == ["1", "4"]
    assert compiled or seen == [1, 1, 4]


def test_a_batch_beyond_the_memory_is_reported() -> None:
    def fails(words: str) -> Job:
        raise jax.errors.JaxRuntimeError(words)

    assert throughput.try_job(lambda: fails("RESOURCE_EXHAUSTED: a")) == (
        None,
        "more than the device's memory",
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        throughput.try_job(lambda: fails("INTERNAL: a"))
