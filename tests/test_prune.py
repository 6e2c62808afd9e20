"""Pruning once and in iterations: exact counts, schedules, floors."""

import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import flat_options
from helpers.two_layers import params

from jaxsparse import distributions, masks, prune, scores, select
from jaxsparse.types import Masks, Params, Scores

pytestmark = pytest.mark.keys_used_once


@pytest.mark.parametrize(
    ("distribution", "sparsity"),
    [
        ("global", 0.9),
        ("uniform", 0.0),
        ("balanced", 0.9),
        ("er", 0.5),
        ("erk", 0.99),
    ],
)
def test_count_is_exact(distribution: str, sparsity: float):
    ticket = prune.prune(
        params(), sparsity, layers=prune.LayerOptions(distribution=distribution)
    )
    assert masks.num_active(ticket) == distributions.count_kept(800, sparsity)
    assert ticket["a"]["bias"] is None


def test_keeps_the_largest():
    weights = params()
    ticket = prune.prune(weights, 0.9)
    size, kept = (
        np.concatenate([np.ravel(tree[n]["kernel"]) for n in "ab"])
        for tree in (weights, ticket)
    )
    assert np.min(abs(size[kept])) > np.max(abs(size[~kept]))


def test_score_is_used():
    ticket = prune.prune(
        params(), 0.9, score=lambda p, m: masks.tree_map(lambda _, w: -abs(w), m, p)
    )
    size, kept = (
        np.concatenate([np.ravel(tree[n]["kernel"]) for n in "ab"])
        for tree in (params(), ticket)
    )
    assert np.max(abs(size[kept])) < np.min(abs(size[~kept]))


def test_unknown_distribution_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean uniform"):
        prune.prune(params(), 0.5, layers=prune.LayerOptions(distribution="unifrom"))


def test_dense_layers_stay_whole_and_count():
    weights = params()
    for distribution in ("global", "uniform"):
        ticket = prune.prune(
            weights,
            0.7,
            layers=prune.LayerOptions(distribution=distribution, dense=("b/kernel",)),
        )
        assert bool(ticket["b"]["kernel"].all())
        left = 180 + 200 if distribution == "uniform" else 240
        assert masks.num_active(ticket) == left
    with pytest.raises(
        ValueError, match="at most 80 weights, which sparsity 0.9 keeps, got 200"
    ):
        prune.prune(weights, 0.9, layers=prune.LayerOptions(dense=("b/*",)))
    with pytest.raises(ValueError, match="expected patterns that match a leaf"):
        prune.prune(weights, 0.9, layers=prune.LayerOptions(dense=("head",)))


DATA = np.random.default_rng(4).normal(size=(2, 16, 30)).astype(np.float32)


def loss(weights: Params, x: Any) -> Any:
    hidden = jnp.tanh(x @ weights["a"]["kernel"])
    return jnp.mean((hidden @ weights["b"]["kernel"]) ** 2)


def snip(weights: Params, mask: Masks) -> Scores:
    return scores.snip(loss, weights, mask, DATA)


def watch(weights: Params, score: Any, **fields: Any) -> list[Masks]:
    """Returns the masks before every iteration and those after the last."""
    seen = []

    def watched(weights: Params, mask: Masks) -> Scores:
        jax.debug.callback(lambda m: seen.append(jax.tree.map(np.array, m)), mask)
        return score(weights, mask)

    last = flat_options.call(prune.prune_iteratively, weights, score=watched, **fields)
    jax.effects_barrier()
    return [jax.tree.map(jnp.asarray, mask) for mask in [*seen, last]]


def are_nested(steps: list[Masks]) -> bool:
    pairs = zip(steps[1:], steps[:-1], strict=True)
    return all(bool(masks.is_nested(inner, outer)) for inner, outer in pairs)


@pytest.mark.parametrize(
    ("distribution", "regrow"), [("global", False), ("uniform", True), ("erk", False)]
)
def test_iterative_counts_are_exact(distribution: str, regrow: bool):
    sparsity = 0.937 if regrow else 0.96
    ticket = prune.prune_iteratively(
        params(),
        sparsity,
        score=snip,
        iterations=7,
        layers=prune.LayerOptions(distribution=distribution),
        regrow=regrow,
    )
    assert masks.num_active(ticket) == distributions.count_kept(800, sparsity)
    if distribution != "global":
        rule = distributions.NAMES[distribution](masks.ones(params()), sparsity)
        kept = [layer.num_active for layer in masks.layer_counts(ticket).values()]
        assert kept == jax.tree.leaves(rule)


def test_nothing_to_remove():
    score = scores.magnitude
    ticket = prune.prune_iteratively(params(), 0.0, score=score, iterations=3)
    assert masks.num_active(ticket) == 800


@pytest.mark.parametrize("schedule", prune.SCHEDULES)
def test_every_iteration_keeps_what_the_schedule_says(schedule: str):
    score = scores.magnitude
    steps = watch(params(), score, sparsity=0.96, iterations=5, schedule=schedule)
    density = {
        "exponential": lambda t: 0.04 ** (t / 5),
        "linear": lambda t: 1 - 0.96 * t / 5,
    }[schedule]
    wanted = [int(np.floor(800 * density(t) + 0.5)) for t in range(6)]
    assert wanted[-1] == 32
    assert [masks.num_active(mask) for mask in steps] == wanted
    assert are_nested(steps)


def steep() -> dict:
    """Two layers of 1280 and 20 weights; those of the second are the smallest."""
    body = np.arange(1.0, 1281.0, dtype=np.float32).reshape(64, 20)
    head = body[:20, :1] / np.float32(1e4)
    return {
        "body": {"kernel": jnp.asarray(body)},
        "head": {"kernel": jnp.asarray(head)},
    }


def test_a_layer_that_ends_empty_is_warned_of_by_name():
    for call in (
        lambda: prune.prune(steep(), 0.98),
        lambda: prune.prune_iteratively(
            steep(), 0.98, score=scores.magnitude, iterations=2
        ),
    ):
        with pytest.warns(UserWarning, match=r"got none in \['head/kernel'\]"):
            assert masks.num_active(call()) == 26


@pytest.mark.parametrize("density", [0.001, 0.05, 0.1])
def test_floors_keep_the_best_of_each_layer_and_the_total(density: float):
    weights = steep()
    least = math.ceil(1280 * Fraction(str(density))), math.ceil(20 * density)
    if sum(least) > 26:
        with pytest.raises(
            ValueError, match="min_layer_density: expected minimums of at most"
        ):
            prune.prune(
                weights, 0.98, layers=prune.LayerOptions(min_layer_density=density)
            )
        return
    for ticket in (
        prune.prune(
            weights, 0.98, layers=prune.LayerOptions(min_layer_density=density)
        ),
        prune.prune_iteratively(
            weights,
            0.98,
            score=scores.magnitude,
            iterations=3,
            layers=prune.LayerOptions(min_layer_density=density),
        ),
    ):
        head, body = (np.asarray(ticket[name]["kernel"]) for name in ("head", "body"))
        assert (int(head.sum()), int(body.sum())) == (least[1], 26 - least[1])
        # The largest lie at the end.
        assert head.reshape(-1)[-least[1] :].all()
        assert body.reshape(-1)[least[1] - 26 :].all()


def test_floors_are_whole_units_and_for_one_threshold_only():
    blocks = select.blocks((2, 1))
    floors = select.floors(masks.ones(steep()), 0.06, structure=blocks)
    assert jax.tree.leaves(floors) == [78, 2]  # 76.8 and 1.2
    floors = select.floors(masks.ones(steep()), 0.06, frozen=("body/*",))
    assert jax.tree.leaves(floors) == [0, 2]
    assert select.floors(masks.ones(steep()), 0.0) is None
    with pytest.raises(
        ValueError,
        match="min_layer_density: expected 0 with distribution 'erk'.*got 0.1;",
    ):
        prune.prune(
            steep(),
            0.9,
            layers=prune.LayerOptions(distribution="erk", min_layer_density=0.1),
        )
    with pytest.raises(
        ValueError, match="min_layer_density: expected a finite number.*got 2.0"
    ):
        prune.prune(steep(), 0.9, layers=prune.LayerOptions(min_layer_density=2.0))


def test_layers_never_grow_where_rounding_would_have_them():
    shapes = [(1, 1), (1, 2), (3, 1), (2, 2), (1, 5), (2, 3)]
    weights = {
        str(i): {"kernel": jnp.asarray(np.ones(s))} for i, s in enumerate(shapes)
    }
    fields = {"sparsity": 0.6, "iterations": 20, "schedule": "linear"}
    steps = watch(weights, scores.magnitude, distribution="uniform", **fields)
    assert masks.num_active(steps[-1]) == distributions.count_kept(21, 0.6)
    assert are_nested(steps)


@pytest.mark.parametrize(
    ("regrow", "distribution", "dense"),
    [(False, "global", ()), (True, "uniform", ("b/*",))],
)
def test_one_iteration_is_prune(regrow: bool, distribution: str, dense: tuple):
    fields = {"distribution": distribution, "dense": dense, "score": scores.magnitude}
    wanted = flat_options.call(prune.prune, params(), 0.7, **fields)
    once = flat_options.call(
        prune.prune_iteratively, params(), 0.7, iterations=1, regrow=regrow, **fields
    )
    jax.tree.map(np.testing.assert_array_equal, once, wanted)


def fickle(weights: Params, mask: Masks) -> Scores:
    """Prefers the weights that are not there."""
    return masks.tree_map(lambda m, w: jnp.where(m, 0.0, 1.0) + 0 * w, mask, weights)


@pytest.mark.filterwarnings("ignore::jaxsparse.select.TiedScoresWarning")
@pytest.mark.parametrize("regrow", [False, True])
def test_weights_return_only_if_they_may(regrow: bool):
    steps = watch(
        params(), fickle, sparsity=0.9, iterations=3, schedule="linear", regrow=regrow
    )
    assert are_nested(steps) != regrow
    assert masks.num_active(steps[-1]) == 80


def test_scores_of_removed_weights_let_force_change_its_mind():
    steps = watch(params(), snip, sparsity=0.98, iterations=12, regrow=True)
    assert masks.num_active(steps[-1]) == 16
    assert not are_nested(steps)


def test_all_iterations_are_one_trace():
    traces = []

    def score(weights: Params, mask: Masks) -> Scores:
        traces.append(mask)
        return scores.magnitude(weights, mask)

    prune.prune_iteratively(
        params(),
        0.9,
        score=score,
        iterations=9,
        layers=prune.LayerOptions(distribution="er"),
    )
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"iterations": 0}, "iterations: expected an integer of at least 1.*got 0"),
        ({"schedule": "cosine"}, "schedule: expected .*got 'cosine'"),
        ({"distribution": "globl"}, "did you mean global"),
        ({"sparsity": 1.0}, "sparsity: expected .*got 1.0"),
        ({"sparsity": -0.5}, "sparsity: expected .*got -0.5"),
        ({"dense": ("x",)}, "expected patterns that match a leaf"),
    ],
)
def test_arguments_out_of_range(fields: dict, message: str):
    arguments = {"sparsity": 0.5, "score": scores.magnitude} | fields
    with pytest.raises(ValueError, match=message):
        flat_options.call(
            prune.prune_iteratively, params(), arguments.pop("sparsity"), **arguments
        )


@pytest.mark.parametrize("on_mesh", [False, True])
def test_one_program_serves_all_iterations(on_mesh: bool) -> None:
    weights = params()
    if on_mesh:  # where training puts parameters
        mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,))
        here = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        weights = jax.device_put(weights, here)
    compiled: list[float] = []

    def score(weights: Params, kept: Masks) -> Scores:
        return masks.tree_map(lambda mask, leaf: jnp.abs(leaf) * mask, kept, weights)

    def listen(event: str, seconds: float, **about: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    counts = []
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for iterations in (1, 5, 1, 5):
            compiled.clear()
            prune.prune_iteratively(weights, 0.9, score=score, iterations=iterations)
            counts.append(len(compiled))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts[2] == counts[3]  # the first two compile also what later ones share
