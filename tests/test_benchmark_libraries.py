"""The comparison with jaxpruner, with a stand-in: the library is seldom installed."""

import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments.benchmarks import (
    bare_scan,
    fixtures,
    libraries,
    other_libraries,
    timing,
)
from experiments.benchmarks.timing import Job

BRIEF = {"seconds": 0.0, "repetitions": 2}
SHAPES = {"a": (30, 20), "b": (50, 4)}


class State(NamedTuple):
    """The state of the stand-in: masks of bytes, and the number of the step."""

    masks: Any
    count: jax.Array


class Updater:
    """Halves the parameters after each update; masks are replaced at even steps."""

    asked: list[dict[str, Any]]  # the options of each one that was made

    def __init__(self, **options: Any) -> None:
        self.asked.append(options)

    def wrap_optax(self, inner: Any) -> Any:
        del inner

        def init(params: Any) -> State:
            ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, jnp.uint8), params)
            return State(ones, jnp.int32(0))

        def update(updates: Any, state: State, params: Any = None) -> Any:
            del params
            flip = lambda masks: jax.tree.map(lambda mask: 1 - mask, masks)  # noqa: E731
            even = state.count % 2 == 0
            masks = jax.lax.cond(even, flip, lambda masks: masks, state.masks)
            return updates, State(masks, state.count + 1)

        return optax.GradientTransformation(init, update)

    def post_gradient_update(self, params: Any, opt_state: Any) -> Any:
        del opt_state
        return jax.tree.map(lambda leaf: leaf * 0.5, params)

    def instant_sparsify(self, params: Any) -> Any:
        return params, jax.tree.map(jnp.ones_like, params)


@pytest.fixture
def jaxpruner(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """`experiments.benchmarks.jax_pruner` with the stand-in."""
    library = types.ModuleType("jaxpruner")
    library.sparsity_distributions = types.SimpleNamespace(uniform=dict)
    for name in ("RigL", "StaticRandomSparse", "GlobalMagnitudePruning"):
        setattr(library, name, Updater)
    library.PeriodicSchedule = dict
    monkeypatch.setattr(Updater, "asked", [], raising=False)
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setitem(sys.modules, "jaxpruner", library)
    name = "experiments.benchmarks.jax_pruner"
    known = sys.modules.pop(name, None)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)
    if known:
        sys.modules[name] = known


def test_jaxpruner_is_asked_for_the_sparsity_and_the_schedule(
    jaxpruner: types.ModuleType,
) -> None:
    inner = optax.sgd(0.1)
    jaxpruner.rigl(inner, sparsity=0.5, every=7)
    jaxpruner.rigl_job(inner, {"a": jnp.ones(2)}, {"a": jnp.ones(2)}, sparsity=0.25)
    jaxpruner.fixed(inner, sparsity=0.75)
    rigl, job, fixed = Updater.asked
    schedule = {"update_start_step": 0, "update_end_step": 10**9}
    assert rigl["scheduler"] == schedule | {"update_freq": 7}
    assert job["scheduler"] == schedule | {"update_freq": 1}
    assert set(fixed) == {"sparsity_distribution_fn"}
    asked = [options["sparsity_distribution_fn"]() for options in Updater.asked]
    assert asked == [{"sparsity": 0.5}, {"sparsity": 0.25}, {"sparsity": 0.75}]


def test_every_timed_step_of_jaxpruner_is_the_first(
    jaxpruner: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(bare_scan, "repeat", lambda *of, **how: made.append((of, how)))
    params = {"a": jnp.array([4.0, 8.0])}
    jaxpruner.rigl_job(optax.sgd(0.1), params, {"a": jnp.ones(2)}, sparsity=0.5)
    ((step, start, grads), how), *none = made
    assert none == [] and how.get("chain", 1) == 1
    assert start[0] is params and start[1].count == 0
    after, state = step(jax.tree.map(jnp.copy, start), grads)
    assert after["a"].tolist() == [2.5, 4.5] and state.count == 1


def test_jax_tree_map_is_restored_for_jaxpruner(jaxpruner: types.ModuleType) -> None:
    with jaxpruner.restored() as note:
        doubled = jax.tree_map(
            lambda a, b: a + b, {"a": None, "b": 1}, {"a": 3, "b": 4}
        )
    assert note == jaxpruner.RESTORED and doubled == {"a": None, "b": 5}
    assert not hasattr(jax, "tree_map")


@pytest.mark.parametrize("shared", [False, True])
def test_the_conditional_of_jaxpruner_survives_vmap_with_a_shared_step(
    shared: bool, jaxpruner: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is compiled but the initial weights."""
    programs = []

    def repeat(step: Any, start: Any, data: Any, **how: Any) -> Job:
        programs.append((step, start, data))
        return Job(lambda count: None, how["work"])

    monkeypatch.setattr(bare_scan, "repeat", repeat)
    tx, after = jaxpruner.rigl(optax.sgd(0.1), sparsity=0.5, every=2)
    c = fixtures.recipe("lenet_300_100", replicates=3, batch_size=2)
    options = {"axes_of": jaxpruner.shared_step} if shared else {}
    job = bare_scan.scan_job(c, tx, (4, 4, 1), steps=2, after=after, **options)
    assert job.work == 6
    ((train, start, data),) = programs
    assert start[1].count.shape == (() if shared else (3,))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(start[1].masks)} == {3}
    assert ("cond[" in str(jax.make_jaxpr(train)(start, data))) == shared


def test_rows_of_jaxpruner_are_of_states_that_can_be_used(
    jaxpruner: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is compiled or timed; a step with its packed masks fails."""
    idle = lambda *_, **__: Job(lambda count: None, 1)  # noqa: E731
    monkeypatch.setattr(bare_scan, "repeat", idle)
    monkeypatch.setattr(bare_scan, "scan_job", idle)
    monkeypatch.setattr(
        libraries, "load", lambda name, _: {"jax_pruner": jaxpruner}.get(name)
    )
    tables = other_libraries.measure(**BRIEF, shapes=SHAPES, batch_size=8, steps=2)
    *_, one, four, _, states = tables
    ours = [libraries.DENSE, libraries.OURS, libraries.JAXPRUNER]
    assert [row[0] for row in one.rows] == ours
    assert [row[0] for row in four.rows] == [*ours, libraries.SHARED_STEP]
    assert other_libraries.BATCHED not in one.note
    assert four.note.count(other_libraries.BATCHED) == 1
    shares = states.data["share"]
    theirs = {name for name in shares if name.startswith(libraries.JAXPRUNER)}
    assert theirs == {"jaxpruner, fixed", "jaxpruner, RigL"}
    # A byte for each of 800 weights, and the step of four bytes; without momentum.
    assert shares["jaxpruner, RigL"] == [(804 - 3200) / 3200]
    assert other_libraries.PACKED in states.note
