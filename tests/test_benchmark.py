"""The benchmark's parts run at tiny sizes, with and without torch."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import (
    conv,
    environment,
    fixtures,
    mask_updates,
    mnist,
    overhead,
    rows,
    selection,
    timing,
)
from experiments.benchmarks.timing import Job, Table
from jaxsparse.training import scan_chunks
from jaxsparse.training.scan_chunks import EpochSpec

BRIEF = {"seconds": 0.0, "repetitions": 2}
TINY = BRIEF | {
    "data_dir": None,
    "batch_size": 8,
    "steps": 2,
    "examples": 64,
    "workers": (0,),
    "compiles": False,
}


def names(table: Table) -> list[str]:
    return [row[0] for row in table.rows]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "experiments.benchmarks.pytorch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)


def test_jobs_take_turns_and_make_the_calls_that_fill_the_time() -> None:
    seen: list[str] = []

    def job(name: str) -> Job:
        return Job(lambda count: seen.extend(name * count), 3.0)

    rates = timing.in_turns({"a": job("a"), "b": job("b")}, seconds=0.0, repetitions=3)
    assert "".join(seen) == "aabb" + "ab" * 3
    assert [len(values) for values in rates.values()] == [3, 3]


def test_ratios_are_taken_within_repetitions() -> None:
    rates = {"a": [100.0, 10.0, 100.0], "b": [200.0, 20.0, 200.0]}
    table = timing.rate_table("t", rates, unit="u", base="a", absent={"c": "none"})
    assert table.rows[1] == ("b", "200 (20 to 200)", "2.00 (2.00 to 2.00)")
    assert table.rows[2] == ("c", "none", "")
    assert "| b | 200 (20" in timing.markdown(table)


def test_the_best_setting_stands_for_its_row() -> None:
    rates = {("a", "1"): [1.0], ("a", "2"): [3.0], ("b", ""): [2.0]}
    found, words = timing.best_settings(rates)
    assert found == {"a": [3.0], "b": [2.0]}
    assert words == ["a: 2, the best of 1, 2."]


def test_calls_stay_inside_an_epoch() -> None:
    found = fixtures.calls(EpochSpec(5, 10, 10), steps=2, batch_size=10)
    first = [next(found) for _ in range(4)]
    assert [(call.step, call.epoch, call.first) for call in first] == [
        *((0, 0, 0), (2, 0, 20)),
        *((5, 1, 0), (7, 1, 20)),
    ]
    assert {(call.length, call.batch_size) for call in first} == {(2, 10)}


@pytest.mark.usefixtures("without_torch")
def test_mnist_rows_without_torch() -> None:
    (table,) = mnist.measure(**TINY)
    ours = [rows.SINGLE, rows.SEVERAL, rows.LIBRARY]
    theirs = [rows.CACHED, rows.COMPILED, rows.LOADER]
    assert names(table) == ours + theirs
    assert all("not installed" in row[1] for row in table.rows[3:])
    assert "random uint8" in table.note


def test_torch_loops_run_and_compute_the_same() -> None:
    pytest.importorskip("torch")
    torch = mnist.load_torch()
    dataset, _ = mnist.load_data(None, examples=64)
    c = fixtures.recipe("lenet_300_100", replicates=1, batch_size=8)
    rig = fixtures.make(c, dataset)
    assert "as they should" in mnist.discrepancy(rig, torch)
    with ExitStack() as ending:
        jobs, absent = torch.jobs(
            *mnist.first_replicate(rig),
            dataset,
            batch_size=8,
            steps=2,
            workers=(0,),
            compiles=False,
            ending=ending,
        )
        for job in jobs.values():
            job.run(1)
    assert {row for row, _ in jobs} == {rows.CACHED, rows.LOADER}
    assert set(absent) == {rows.COMPILED}


def test_resnet_18_has_its_published_number_of_weights() -> None:
    shapes = selection.resnet_18()
    assert len(shapes) == 21
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 11_164_352


def test_selection_is_exact_in_every_case() -> None:
    (table,) = selection.measure(**BRIEF, shapes={"a": (30, 20), "b": (50,)})
    assert len(table.rows) == 8
    assert {row[-1] for row in table.rows} == {"exact"}


def test_a_wrong_selection_is_told() -> None:
    wrong = {"a": jnp.arange(4) < 2}
    best, pools = [jnp.array([3, 2])], [jnp.arange(4.0)]
    assert selection._verdict(wrong, best, [2], pools) == "WRONG: not those of top_k"
    assert selection._verdict(wrong, best, [3], pools) == "WRONG: 2 kept of 3"


def test_overhead_rows() -> None:
    sgd, adamw = overhead.overhead(**BRIEF, steps=2)
    assert names(sgd) == ["bare sgd, momentum 0.9", "fixed(sgd, momentum 0.9)"]
    assert names(adamw) == ["bare adamw", "fixed(adamw)"]


def test_dispatch_rows() -> None:
    jobs = overhead.dispatch_jobs("lenet_300_100", batch_size=8, steps=2)
    assert list(jobs) == ["dispatch", "scan of 2"]
    for job in jobs.values():
        job.run(1)


def test_replicates_rows() -> None:
    (table,) = overhead.replicates(**BRIEF, counts=(2,), steps=2)
    assert names(table) == ["2 replicates"]


WAYS = [
    *("library, dispatch", "library, scan of 2"),
    *("explicit, dispatch", "explicit, scan of 2"),
]


def test_convolutions_rows() -> None:
    sizes = {"lenet_5": (4, 2)}
    lenet, mapped = conv.measure(**BRIEF, sizes=sizes, count=2)
    assert names(lenet) == WAYS
    assert names(mapped) == ["map", "unroll", "vmap"]


@pytest.mark.campaign
def test_convolutions_rows_of_a_deep_network() -> None:
    (resnet,) = conv.measure(**BRIEF, sizes={"resnet_20": (2, 2)})
    assert names(resnet) == [*(way for way in WAYS if way != WAYS[1]), "PyTorch"]


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("by", ["library", "explicit"])
def test_a_row_is_of_calls_of_its_length(by: str, steps: int) -> None:
    # Also where the trainer would choose another, and never of the shared program
    # that is told how often to go round.
    rig = conv._rig("lenet_5", by, 4, steps, 2)
    trainer, asked = rig.experiment.trainer, []

    def programs(*of: int) -> Any:
        asked.append(of)
        return trainer.compiled_steps(*of)

    watched = rig.experiment._replace(trainer=trainer._replace(compiled_steps=programs))
    assert fixtures.trainer_job(rig._replace(experiment=watched)).work == steps
    assert asked == [(steps, 4)]
    assert scan_chunks.room(steps, trainer.loop.steps_per_call) == steps
    if steps > 1:
        with pytest.raises(ValueError, match="calls have 2 steps; wanted 1"):
            fixtures.lower_step(rig)


def test_pytorchs_resnet_is_the_same_network() -> None:
    pytest.importorskip("torch")
    torch = conv.load_torch()
    rig = conv._rig("resnet_20", "auto", 4, 1, 3)
    found = mnist.discrepancy(rig, torch, steps=3, tolerance=conv.TOLERANCE)
    assert "as they should" in found


def test_devices_rows() -> None:
    (table,) = overhead.devices(
        **BRIEF, networks=("lenet_300_100",), steps=2, batch_size=8
    )
    count = jax.local_device_count()
    jit, pmap = f"{count} devices, jit", f"{count} devices, pmap"
    assert names(table) == ["one device", jit, pmap]


def test_results_name_what_they_were_measured_on(tmp_path: Path) -> None:
    facts = environment.describe(["x", "--only=select", "--data_dir=/secret", "--save"])
    assert facts["command"] == "python experiments/benchmark.py --only=select --save"
    table = timing.rate_table("t", {"a": [1.0]}, unit="u", base="a")
    path = environment.save(tmp_path, facts, [table], suffix="select")
    assert path.name == "benchmark-cpu-select.md"
    assert "| a | 1.00" in path.read_text(encoding="utf-8")
    content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert content["tables"]["t"]["rates"] == {"a": [1.0]}


def test_updates_are_timed_with_a_change_and_without() -> None:
    shapes = {"a": (6, 8), "b": (8, 5)}
    (table,) = mask_updates.measure(**BRIEF, shapes=shapes, networks=())
    assert names(table) == list(mask_updates.METHODS)


def test_updates_of_networks_are_timed_whole() -> None:
    table = mask_updates._whole("lenet_300_100", 4, batch_size=8, **BRIEF)
    assert names(table)[0] == "dense"
    assert table.rows[0][2].startswith("1.00")


@pytest.mark.campaign
def test_updates_are_timed_for_one_replicate_and_for_several() -> None:
    shapes = {"a": (6, 8), "b": (8, 5)}
    tables = mask_updates.measure(
        **BRIEF, shapes=shapes, networks=("lenet_300_100",), batch_size=8
    )
    assert names(tables[0]) == list(mask_updates.METHODS)
    assert len(tables) == 3
    for table in tables[1:]:
        assert names(table)[0] == "dense"
        assert table.rows[0][2].startswith("1.00")


def test_updates_of_slow_networks_are_weighed() -> None:
    table = mask_updates._by_parts("lenet_5", 1, batch_size=4, **BRIEF)
    for name, plain, change, multiple in table.rows[1:]:
        assert name in mask_updates.METHODS
        assert plain and change and float(multiple.split()[0]) > 0
