import math
import warnings
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import distributions, masks, prune, scores, select
from jaxsparse.types import Masks, Params, Scores


def params() -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "a": {"kernel": jax.random.normal(keys[0], (30, 20)), "bias": jnp.ones(20)},
        "b": {"kernel": jax.random.normal(keys[1], (20, 10)), "bias": jnp.ones(10)},
    }


@pytest.mark.parametrize("distribution", ("global", *distributions.NAMES))
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99])
def test_count_is_exact(distribution: str, sparsity: float):
    ticket = prune.prune(params(), sparsity, distribution=distribution)
    assert masks.num_active(ticket) == distributions.count_kept(800, sparsity)
    assert ticket["a"]["bias"] is None


def test_keeps_the_largest():
    weights = params()
    ticket = prune.prune(weights, 0.9)
    size = jnp.concatenate([abs(weights[n]["kernel"]).reshape(-1) for n in "ab"])
    kept = jnp.concatenate([ticket[n]["kernel"].reshape(-1) for n in "ab"])
    assert jnp.min(size[kept]) > jnp.max(size[~kept])


def test_score_is_used():
    ticket = prune.prune(
        params(), 0.9, score=lambda p, m: masks.tree_map(lambda _, w: -abs(w), m, p)
    )
    largest = prune.prune(params(), 0.9)
    assert not jnp.any(ticket["a"]["kernel"] & largest["a"]["kernel"])


def test_unknown_distribution_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean uniform"):
        prune.prune(params(), 0.5, distribution="unifrom")


def test_dense_layers_stay_whole_and_count():
    weights = params()
    for distribution in ("global", *distributions.NAMES):
        ticket = prune.prune(
            weights, 0.7, distribution=distribution, dense=("b/kernel",)
        )
        assert bool(ticket["b"]["kernel"].all())
        left = 180 + 200 if distribution == "uniform" else 240
        assert masks.num_active(ticket) == left
    with pytest.raises(
        ValueError, match="at most 80 weights, which sparsity 0.9 keeps, got 200"
    ):
        prune.prune(weights, 0.9, dense=("b/*",))
    with pytest.raises(
        ValueError, match="expected patterns that match a prunable leaf"
    ):
        prune.prune(weights, 0.9, dense=("head",))


def loss(weights: Params, x: Any) -> Any:
    hidden = jnp.tanh(x @ weights["a"]["kernel"])
    return jnp.mean((hidden @ weights["b"]["kernel"]) ** 2)


def snip(weights: Params, mask: Masks) -> Scores:
    data = jax.random.normal(jax.random.key(4), (2, 16, 30))
    return scores.snip(loss, weights, mask, data)


def watch(weights: Params, score: Any, **fields: Any) -> list[Masks]:
    """Returns the masks before every iteration and those after the last."""
    seen = []

    def watched(weights: Params, mask: Masks) -> Scores:
        jax.debug.callback(lambda m: seen.append(jax.tree.map(np.array, m)), mask)
        return score(weights, mask)

    last = prune.prune_iteratively(weights, score=watched, **fields)
    jax.effects_barrier()
    return [jax.tree.map(jnp.asarray, mask) for mask in [*seen, last]]


def are_nested(steps: list[Masks]) -> bool:
    pairs = zip(steps[1:], steps[:-1], strict=True)
    return all(bool(masks.is_nested(inner, outer)) for inner, outer in pairs)


@pytest.mark.parametrize("regrow", [False, True])
@pytest.mark.parametrize("distribution", ("global", *distributions.NAMES))
def test_iterative_counts_are_exact(distribution: str, regrow: bool):
    sparsity = 0.937 if regrow else 0.99
    ticket = prune.prune_iteratively(
        params(),
        sparsity,
        score=snip,
        iterations=7,
        distribution=distribution,
        regrow=regrow,
    )
    assert masks.num_active(ticket) == distributions.count_kept(800, sparsity)
    if distribution != "global":
        rule = distributions.NAMES[distribution](masks.ones(params()), sparsity)
        kept = [layer.num_active for layer in masks.layer_counts(ticket).values()]
        assert kept == jax.tree.leaves(rule)


def test_nothing_to_remove():
    ticket = prune.prune_iteratively(params(), 0.0, score=snip, iterations=3)
    assert masks.num_active(ticket) == 800


@pytest.mark.parametrize("schedule", prune.SCHEDULES)
def test_every_iteration_keeps_what_the_schedule_says(schedule: str):
    steps = watch(params(), snip, sparsity=0.96, iterations=5, schedule=schedule)
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
    body = jnp.arange(1.0, 1281.0).reshape(64, 20)
    return {"body": {"kernel": body}, "head": {"kernel": body[:20, :1] / 1e4}}


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
            prune.prune(weights, 0.98, min_layer_density=density)
        return
    for ticket in (
        prune.prune(weights, 0.98, min_layer_density=density),
        prune.prune_iteratively(
            weights,
            0.98,
            score=scores.magnitude,
            iterations=3,
            min_layer_density=density,
        ),
    ):
        head, body = ticket["head"]["kernel"], ticket["body"]["kernel"]
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
        ValueError, match="min_layer_density: expected .*got 0.1 with distr"
    ):
        prune.prune(steep(), 0.9, distribution="erk", min_layer_density=0.1)
    with pytest.raises(
        ValueError, match="min_layer_density: expected a finite number.*got 2.0"
    ):
        prune.prune(steep(), 0.9, min_layer_density=2.0)


def test_layers_never_grow_where_rounding_would_have_them():
    shapes = [(1, 1), (1, 2), (3, 1), (2, 2), (1, 5), (2, 3)]
    weights = {str(i): {"kernel": jnp.ones(s)} for i, s in enumerate(shapes)}
    fields = {"sparsity": 0.6, "iterations": 20, "schedule": "linear"}
    for distribution in ("uniform", "balanced"):
        steps = watch(weights, scores.magnitude, distribution=distribution, **fields)
        assert masks.num_active(steps[-1]) == distributions.count_kept(21, 0.6)
        assert are_nested(steps)


@pytest.mark.parametrize("regrow", [False, True])
def test_one_iteration_is_prune(regrow: bool):
    for distribution, dense in (("global", ()), ("uniform", ("b/*",))):
        fields = {"distribution": distribution, "dense": dense}
        fields["score"] = scores.magnitude
        wanted = prune.prune(params(), 0.7, **fields)
        once = prune.prune_iteratively(
            params(), 0.7, iterations=1, regrow=regrow, **fields
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

    for distribution in ("global", "er"):
        prune.prune_iteratively(
            params(), 0.9, score=score, iterations=9, distribution=distribution
        )
    assert len(traces) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"iterations": 0}, "iterations: expected an integer of at least 1.*got 0"),
        ({"schedule": "cosine"}, "schedule: expected .*got 'cosine'"),
        ({"distribution": "globl"}, "did you mean global"),
        ({"sparsity": 1.0}, "sparsity: expected .*got 1.0"),
        ({"sparsity": -0.5}, "sparsity: expected .*got -0.5"),
        ({"dense": ("x",)}, "expected patterns that match a prunable leaf"),
    ],
)
def test_arguments_out_of_range(fields: dict, message: str):
    arguments = {"sparsity": 0.5, "score": scores.magnitude} | fields
    with pytest.raises(ValueError, match=message):
        prune.prune_iteratively(params(), arguments.pop("sparsity"), **arguments)


@pytest.mark.parametrize("regrow", [False, True])
def test_scores_that_are_not_finite_are_refused_where_they_count(regrow: bool):
    def late(weights: Params, mask: Masks) -> Scores:
        """Is infinite at what was removed, and NaN in b once less than 100 are left."""
        worth = masks.tree_map(
            lambda m, w: jnp.where(m, abs(w), jnp.inf), mask, weights
        )
        few = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(mask)) < 100
        worth["b"]["kernel"] = jnp.where(few, jnp.nan, worth["b"]["kernel"])
        return worth

    message = (
        r"\['a/kernel', 'b/kernel'\] at iteration 2"
        if regrow
        else (r"\['b/kernel'\] at iteration 4 of 4")
    )
    with pytest.raises(ValueError, match=message):
        prune.prune_iteratively(params(), 0.95, score=late, iterations=4, regrow=regrow)


def constant(weights: Params, mask: Masks) -> Scores:
    return masks.tree_map(lambda _, leaf: jnp.zeros_like(leaf), mask, weights)


def test_scores_that_rank_nothing_warn_and_are_fair_to_layers():
    same = {name: {"kernel": jnp.ones((40, 40))} for name in "abcd"}
    with pytest.warns(select.TiedScoresWarning, match="'all layers': '100.0%'") as said:
        ticket = prune.prune(same, 0.5, score=constant)
    assert len(said) == 1
    assert masks.num_active(ticket) == 3200
    for layer in masks.layer_counts(ticket).values():
        assert abs(layer.num_active - 800) < 4 * 20  # standard deviations
    with pytest.warns(select.TiedScoresWarning, match="'b/kernel': '100.0%'"):
        layered = prune.prune(same, 0.5, score=constant, distribution="uniform")
    assert [layer.num_active for layer in masks.layer_counts(layered).values()] == [
        800
    ] * 4
    with pytest.warns(select.TiedScoresWarning) as said:
        prune.prune_iteratively(same, 0.5, score=constant, iterations=3)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("structure", "distribution", "name"),
    [
        (select.blocks((4, 4)), "global", "all layers"),
        (select.blocks((4, 4)), "uniform", "a/kernel"),
        (select.n_of_m(4), "uniform", "a/kernel"),
    ],
    ids=str,
)
def test_units_that_score_alike_warn(
    structure: select.Structure, distribution: str, name: str
):
    same = {"a": {"kernel": jnp.ones((16, 8))}, "b": {"kernel": jnp.ones((8, 8))}}
    options = {"structure": structure, "distribution": distribution}
    said = f"'{name}': '100.0%'"
    with pytest.warns(select.TiedScoresWarning, match=said) as warned:
        ticket = prune.prune(same, 0.5, score=constant, **options)
    assert len(warned) == 1 and masks.num_active(ticket) == 96
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune.prune(same, 0.0, score=constant, **options)  # no tie is divided


def test_ties_in_groups_are_those_of_each_group():
    # Within a group nothing ties, although every value is in every group.
    row = jnp.tile(jnp.arange(1.0, 5.0), 10)
    weights = {"w": jnp.stack([row, row[::-1]], axis=-1)}
    tied = {"w": weights["w"].at[:12, 0].set(2.0)}  # 12 of 80 weights, in 3 groups
    found = []
    for each in (weights, tied):
        kept = select.top_k_per_layer(each, {"w": 40}, structure=select.n_of_m(4))
        tie = select.count_ties(each, kept, pooled=False, structure=select.n_of_m(4))
        found.append((float(tie["w"].tied), float(tie["w"].candidates)))
    assert found == [(0, 80), (12, 80)]


def test_a_tie_of_blocks_is_that_of_their_weights():
    size = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    weights = {"w": jnp.kron(size, jnp.ones((2, 3)))}
    blocks = select.blocks((2, 3))
    for count, tied in ((6, 0), (12, 0), (18, 12), (24, 0)):
        kept = select.top_k_global(weights, count, structure=blocks)
        tie = select.count_ties(weights, kept, pooled=True, structure=blocks)
        assert tie == {"all layers": (tied, 24)}


@pytest.mark.parametrize("part", [0.005, 0.02])
def test_ties_of_one_percent_and_less_say_nothing(part: float):
    weights = {"w": jnp.arange(10_000.0).reshape(100, 100)}
    tied = jnp.abs(weights["w"] - 5000) < 10_000 * part / 2
    weights["w"] = jnp.where(tied, 5000.0, weights["w"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prune.prune(weights, 0.5)
        for sparsity in (0.0, 0.2, 0.8):  # no tie is divided
            prune.prune(weights, sparsity)
    assert len(said) == (part > 0.01)


@pytest.mark.parametrize("tied", [10, 11])
def test_ties_of_ten_weights_say_nothing(tied: int):
    row = jnp.arange(100.0)
    weights = {
        "w": jnp.where((row >= 45) & (row < 45 + tied), 45.0, row).reshape(4, 25)
    }
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prune.prune(weights, 0.5)
    assert len(said) == (tied > 10)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_scores_that_are_not_finite_are_refused_by_name(bad: float):
    weights = params()
    weights["b"]["kernel"] = weights["b"]["kernel"].at[3].set(bad)
    with pytest.raises(ValueError, match="infinity in {'b/kernel': '10 of 200'}"):
        prune.prune(weights, 0.5)


def test_scores_of_another_shape_are_refused_by_name():
    def turned(weights: Params, mask: Masks) -> Scores:
        return masks.tree_map(lambda _, leaf: leaf.T, mask, weights)

    with pytest.raises(
        ValueError, match=r"score: a/kernel: expected shape .*got \(20, 30\)"
    ):
        prune.prune(params(), 0.5, score=turned)
    with pytest.raises(
        ValueError, match=r"score: a/kernel: expected shape .*got \(20, 30\)"
    ):
        prune.prune_iteratively(params(), 0.5, score=turned, iterations=2)
    with pytest.raises(ValueError, match="score: expected .*leaf a/bias"):
        prune.prune(params(), 0.5, score=lambda p, m: jax.tree.map(jnp.abs, p))


@pytest.mark.parametrize(
    "options",
    [
        {"min_layer_density": 0.1},
        {"score": scores.magnitude, "iterations": 3},
        {"score": scores.magnitude, "iterations": 3, "min_layer_density": 0.1},
        {"score": scores.magnitude, "iterations": 3, "distribution": "uniform"},
    ],
    ids=lambda options: "+".join(options),
)
def test_long_counts_give_the_same_masks(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = prune.prune_iteratively if "iterations" in options else prune.prune
    short = choose(params(), 0.9, **options)
    monkeypatch.setattr("jaxsparse.select.inputs.LIMIT", 60)
    jax.tree.map(np.testing.assert_array_equal, choose(params(), 0.9, **options), short)
