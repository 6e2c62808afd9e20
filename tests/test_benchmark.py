"""The benchmarks run at tiny sizes, with and without torch."""

import importlib
import json
import re
import sys
import types
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import benchmark
from experiments.benchmarks import (
    bare_scan,
    conv,
    environment,
    fixtures,
    mask_updates,
    mnist,
    rows,
    selection,
    timing,
)
from experiments.benchmarks.timing import Job, Table
from jaxsparse import masks, transforms
from jaxsparse.training import chunk_plan
from jaxsparse.training import environment as run_environment
from jaxsparse.training.chunk_plan import EpochSpec

BRIEF = {"seconds": 0.0, "repetitions": 2}
TINY = BRIEF | {
    "data_dir": None,
    "batch_size": 8,
    "steps": 2,
    "examples": 64,
    "workers": (0,),
    "compiles": False,
}
SHAPES = {"a": (6, 8), "b": (8, 5)}


def names(table: Table) -> list[str]:
    return [row[0] for row in table.rows]


def made_only(c: Any, **sizes: int) -> Any:
    """A fixture that is a config only, in place of `conv.make`."""
    del sizes
    return types.SimpleNamespace(config=c)


def idle_job(fixture: Any) -> Job:
    """A job of the right amount of work, in place of `fixtures.trainer_job`."""
    c = fixture.config
    return Job(lambda count: None, c.run.steps_per_call * c.replicates)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pytorch", "torch_loops"):
        module = f"experiments.benchmarks.{name}"
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.parametrize("name", benchmark.BENCHMARKS)
def test_every_benchmark_can_be_called_for_some_seconds(name: str) -> None:
    module = importlib.import_module(f"experiments.benchmarks.{name}")
    arguments = module.measure.__kwdefaults__
    assert module.measure.__annotations__["seconds"] is float
    assert "seconds" not in arguments and "repetitions" in arguments


def test_the_committed_page_has_the_tables_of_its_file(root: Path) -> None:
    path = root / "experiments" / "results" / "benchmark-cpu.json"
    tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    assert re.findall(r"^### (.*)$", page, flags=re.MULTILINE) == [*tables]


def test_jobs_take_turns_and_make_the_calls_that_fill_the_time() -> None:
    seen: list[str] = []

    def job(name: str) -> Job:
        return Job(lambda count: seen.extend(name * count), 3.0)

    jobs = {"a": job("a"), "b": job("b")}
    rates = timing.interleave(jobs, seconds=0.0, repetitions=3)
    assert "".join(seen) == "aabb" + "ab" * 3
    assert [len(values) for values in rates.values()] == [3, 3]


def test_what_prepares_a_call_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is invented: 100 s to copy a state, 2 s a step."""
    clock, begun = [0.0], []

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(
        timing,
        "time",
        types.SimpleNamespace(perf_counter=lambda: clock[0], sleep=sleep),
    )

    def step(state: Any, data: Any) -> Any:
        sleep(2.0)
        begun.append(float(state))
        return state + data

    def times(chain: int, calls: int) -> list[float]:
        begun.clear()
        job = bare_scan.repeat(step, jnp.float32(3.0), 1.0, chain=chain)
        slow = lambda: (sleep(100.0), job.prepare())  # noqa: E731
        how = {"seconds": 2.0 * calls, "repetitions": 1}
        return timing.interleave({"a": job._replace(prepare=slow)}, **how)["a"]

    assert times(1, 3) == [0.5]
    assert begun == [3.0] * (2 + 3)  # one call compiles, and one tells how many
    assert times(2, 5) == [0.5]
    assert begun == [3.0, 3.0, *(3.0, 4.0), *(3.0, 4.0), 3.0]


def test_ratios_are_taken_within_repetitions() -> None:
    rates = {"a": [100.0, 10.0, 100.0], "b": [200.0, 20.0, 200.0]}
    table = timing.rate_table("t", rates, unit="u", base="a", absent={"c": "none"})
    assert table.rows[1] == ("b", "200 (20 to 200)", "2.00 (2.00 to 2.00)")
    assert table.rows[2] == ("c", "none", "")
    assert "| b | 200 (20" in timing.markdown(table)
    costs = timing.cost_table("t", rates, unit="u", base="a", note="")
    assert costs.rows[1] == ("b", "200 (20 to 200)", "0.50 (0.50 to 0.50)")


def test_the_fastest_setting_represents_its_row() -> None:
    rates = {("a", "1"): [1.0], ("a", "2"): [3.0], ("b", ""): [2.0]}
    fastest, sentences = timing.best_settings(rates)
    assert fastest == {"a": [3.0], "b": [2.0]}
    assert sentences == ["a: 2, the fastest of 1, 2."]


def test_calls_stay_inside_an_epoch() -> None:
    found = fixtures.calls(EpochSpec(5, 10, 10), steps=2, batch_size=10)
    first = [next(found) for _ in range(4)]
    assert [(call.step, call.epoch, call.first) for call in first] == [
        *((0, 0, 0), (2, 0, 20)),
        *((5, 1, 0), (7, 1, 20)),
    ]
    assert {(call.length, call.batch_size) for call in first} == {(2, 10)}
    with pytest.raises(ValueError, match="^steps: expected at most 5, .*, got 6; give"):
        next(fixtures.calls(EpochSpec(5, 10, 10), steps=6, batch_size=10))


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize(
    "several", [False, pytest.param(True, marks=pytest.mark.campaign)]
)
def test_mnist_rows_without_torch(
    several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer's job and the library's are real; five replicates in the campaign."""
    if not several:
        make, job = fixtures.make, fixtures.trainer_job
        real = lambda c: c.replicates == 1  # noqa: E731
        monkeypatch.setattr(
            fixtures, "make", lambda c, d: make(c, d) if real(c) else made_only(c)
        )
        monkeypatch.setattr(
            fixtures, "trainer_job", lambda f: (job if real(f.config) else idle_job)(f)
        )
    (table,) = mnist.measure(**TINY)
    ours = [rows.SINGLE, rows.SEVERAL, rows.LIBRARY]
    theirs = [rows.CACHED, rows.COMPILED, rows.LOADER]
    assert names(table) == ours + theirs
    assert all("not installed" in row[1] for row in table.rows[3:])
    assert "random uint8" in table.note


def test_torch_loops_run_and_compute_the_same() -> None:
    pytest.importorskip("torch")
    torch = mnist.load_torch("torch_loops")
    dataset, _ = mnist.load_data(None, examples=64)
    c = fixtures.recipe("lenet_300_100", replicates=1, batch_size=8)
    fixture = fixtures.make(c, dataset)
    assert "as expected" in mnist.compare_losses(fixture, torch.pytorch)
    with ExitStack() as stack:
        jobs, absent = torch.jobs(
            *fixtures.first_replicate(fixture),
            dataset,
            batch_size=8,
            steps=2,
            workers=(0,),
            compiles=False,
            stack=stack,
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


def test_a_wrong_selection_is_reported() -> None:
    wrong = {"a": jnp.arange(4) < 2}
    best, pools = [jnp.array([3, 2])], [jnp.arange(4.0)]
    assert selection.check(wrong, best, [2], pools) == "WRONG: other scores than top_k"
    assert selection.check(wrong, best, [3], pools) == "WRONG: 2 selected, not 3"


WAYS = [
    *("library, single steps", "library, scan of 2"),
    *("explicit, single steps", "explicit, scan of 2"),
]


def test_convolutions_have_a_job_for_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles nothing: `test_mnist_rows_without_torch` trains by real jobs."""
    seen = []

    def job(fixture: Any) -> Job:
        run = fixture.config.run
        seen.append((run.conv_gradients, run.steps_per_call, run.replicate_mode))
        return idle_job(fixture)

    monkeypatch.setattr(conv, "make", made_only)
    monkeypatch.setattr(fixtures, "trainer_job", job)
    monkeypatch.setattr(mnist, "load_torch", lambda name: None)
    sizes = {"batch_size": 4, "steps": 2}
    assert names(conv.lenet(**BRIEF, **sizes)) == WAYS
    assert [way[:2] for way in seen] == [
        *(("library", 1), ("library", 2), ("explicit", 1), ("explicit", 2)),
    ]
    seen.clear()
    mapped = conv.lenet_replicates(**BRIEF, **sizes, count=2)
    assert names(mapped) == ["map", "unroll", "vmap"]
    assert seen == [("explicit", 2, mode) for mode in ("map", "unroll", "vmap")]
    deep = conv.resnet(**BRIEF, **sizes)
    assert names(deep) == [*(way for way in WAYS if way != WAYS[1]), "PyTorch"]


@pytest.mark.campaign
def test_convolution_rows() -> None:
    sizes = {"batch_size": 4, "steps": 2}
    assert names(conv.lenet(**BRIEF, **sizes)) == WAYS
    mapped = conv.lenet_replicates(**BRIEF, **sizes, count=2)
    assert names(mapped) == ["map", "unroll", "vmap"]
    table = conv.resnet(**BRIEF, batch_size=2, steps=2)
    assert names(table) == [*(way for way in WAYS if way != WAYS[1]), "PyTorch"]


def test_a_row_is_of_calls_of_its_length() -> None:
    # Also where the trainer would choose another length, and never of the shared
    # program whose number of steps is an argument.
    steps = 2
    c = conv.recipe("lenet_5", "explicit", 4, steps)
    fixture = conv.make(c, examples=8)
    trainer, asked = fixture.experiment.trainer, []

    def programs(*of: int) -> Any:
        asked.append(of)
        return trainer.compiled_steps(*of)

    watched = fixture.experiment._replace(
        trainer=trainer._replace(compiled_steps=programs)
    )
    assert fixtures.trainer_job(fixture._replace(experiment=watched)).work == steps
    assert asked == [(steps, 4)]
    assert chunk_plan.room(steps, trainer.loop.steps_per_call) == steps
    with pytest.raises(ValueError, match="^steps: expected 1 in a call, got 2"):
        fixtures.lower_step(fixture)


def test_pytorchs_resnet_is_the_same_network() -> None:
    pytest.importorskip("torch")
    torch = mnist.load_torch("torch_resnet")
    fixture = conv.make(conv.recipe("resnet_20", "auto", 4, 1), examples=12)
    same = mnist.compare_losses(fixture, torch, steps=3, tolerance=conv.TOLERANCE)
    assert "as expected" in same


def test_results_name_what_they_were_measured_on(tmp_path: Path) -> None:
    facts = environment.describe(["x", "--only=conv", "--data_dir=/secret", "--save"])
    assert facts["command"] == "python experiments/benchmark.py --only=conv --save"
    table = timing.rate_table("t", {"a": [1.0]}, unit="u", base="a")
    assert facts["commit"] == (run_environment.commit() or "unknown")
    path = environment.save(tmp_path, facts, [table], suffix="conv")
    assert path.name == "benchmark-cpu-conv.md"
    assert "| a | 1.00" in path.read_text(encoding="utf-8")
    content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert content["tables"]["t"]["rates"] == {"a": [1.0]}


def test_a_package_without_metadata_is_named_by_its_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as jaxpruner from a clone, and here this project's own scripts."""
    commit = run_environment.commit()
    wanted = f"of commit {commit}" if commit else "unknown version"
    assert environment.version("experiments.benchmarks") == wanted
    assert environment.version("nowhere_installed") == "not installed"
    monkeypatch.setattr(run_environment, "commit", lambda folder: None)
    assert environment.version("experiments.benchmarks") == "unknown version"


@pytest.mark.parametrize("name", mask_updates.METHODS)
def test_every_method_is_made_for_any_number_of_steps_between_updates(
    name: str,
) -> None:
    """Nothing is traced; the campaign runs all of them."""
    for every in (1, mask_updates.EVERY, 10**6):
        tx = mask_updates.METHODS[name](optax.sgd(0.1), every)
        assert isinstance(tx, optax.GradientTransformationExtraArgs)


def test_steps_are_timed_with_a_mask_update_and_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mask_updates, "METHODS", {"RigL": mask_updates.rigl})
    (table,) = mask_updates.measure(**BRIEF, shapes={"a": (6, 8)}, networks=())
    assert names(table) == ["RigL"]


@pytest.mark.parametrize(
    ("name", "active"),
    # Of 400 weights. Mask updates 39 and 40 of 50 keep 0.1 + 0.9 * (1 - i / 50)**3 of
    # them: 43.8 and 42.9 weights.
    [("magnitude, per layer", (44, 43)), ("RigL", (40, 40))],
)
def test_steps_with_a_mask_update_and_without_are_90_percent_sparse(
    name: str, active: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def repeat(step: Any, start: Any, data: Any, **how: Any) -> Job:
        made.append((step, start, data))
        assert how.get("chain", 1) == 1
        return Job(lambda count: None, 1)

    monkeypatch.setattr(mask_updates, "METHODS", {name: mask_updates.METHODS[name]})
    monkeypatch.setattr(bare_scan, "repeat", repeat)
    mask_updates.measure(**BRIEF, shapes={"a": (20, 10), "b": (20, 10)}, networks=())
    counts, same = [], []
    for step, start, grads in made:
        before = jax.tree.map(jnp.copy, transforms.get_masks(start[1]))
        _, after = step(start, grads)
        found = transforms.get_masks(after)
        counts.append((int(masks.num_active(before)), int(masks.num_active(found))))
        same.append(jax.tree.all(jax.tree.map(jnp.array_equal, before, found)))
    assert counts == [active, (40, 40)]
    assert same == [False, True]


@pytest.mark.campaign
def test_steps_of_every_method_are_timed() -> None:
    (table,) = mask_updates.measure(**BRIEF, shapes=SHAPES, networks=())
    assert names(table) == list(mask_updates.METHODS)


def test_mask_updates_are_amortized_over_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three programs on small images; the campaign has methods that update masks."""

    def ones(inner: Any, every: int) -> Any:
        del every
        return transforms.sparsify(inner, masks.ones)

    monkeypatch.setattr(mask_updates, "METHODS", {"ones": ones})
    monkeypatch.setattr(mask_updates, "AMORTIZED", ("ones",))
    monkeypatch.setattr(mask_updates, "EVERY", 2)
    monkeypatch.setitem(fixtures.SHAPES, "lenet_300_100", (4, 4, 1))
    table = mask_updates.amortized("lenet_300_100", 2, batch_size=8, **BRIEF)
    assert names(table) == ["dense", "fixed", "ones"]


@pytest.mark.parametrize("name", mask_updates.AMORTIZED)
def test_a_scan_of_all_steps_between_mask_updates_holds_one(name: str) -> None:
    """Masks of 200 steps: at step 0, gradual pruning keeps all weights."""
    every = mask_updates.EVERY
    tx = mask_updates.METHODS[name](optax.sgd(0.1), every)
    params = {"a": {"kernel": jax.random.normal(jax.random.key(0), (20, 10))}}
    grads = {"a": {"kernel": jax.random.normal(jax.random.key(1), (20, 10))}}

    def step(state: Any, _: Any) -> Any:
        params, opt_state = state
        updates, opt_state = tx.update(grads, opt_state, params)
        state = optax.apply_updates(params, updates), opt_state
        return state, transforms.get_masks(opt_state)["a"]["kernel"]

    start = tx.init(params)
    _, after = jax.lax.scan(step, (params, start), length=2 * every)
    before = transforms.get_masks(start)["a"]["kernel"]
    seen = jnp.concatenate([before[None], after])
    (changed,) = np.nonzero((seen[1:] != seen[:-1]).any((1, 2)))
    assert changed.tolist() == ([every] if "magnitude" in name else [0, every])


@pytest.mark.campaign
@pytest.mark.parametrize("replicates", [1, 4])
def test_mask_updates_of_every_method_are_amortized(replicates: int) -> None:
    table = mask_updates.amortized("lenet_300_100", replicates, batch_size=8, **BRIEF)
    assert names(table) == ["dense", "fixed", *mask_updates.AMORTIZED]
