"""How many weights a level keeps, and which: counts have no tolerance."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import masks, select
from jaxsparse.lottery import imp
from jaxsparse.lottery.imp import PruningRule

# Ones per level of open_lth on LeNet-300-100 with `fc` ignored, from running it.
OPEN_LTH = [
    *(266200, 212959, 170366, 136291, 109031, 87223, 69777),
    *(55820, 44655, 35723, 28577, 22860, 18287),
]
LENET = {"dense1": (784, 300), "dense2": (300, 100), "head": (100, 10)}
SMALL = {"dense1": (20, 30), "dense2": (30, 10), "head": (10, 5)}
REPLICATES = 2


def draw(shapes: dict[str, tuple[int, int]], seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(generator.normal(size=(REPLICATES, *shape)), jnp.float32)

    return {
        name: {"kernel": normal(*shape), "bias": normal(shape[1])}
        for name, shape in shapes.items()
    }


def dense(params: Any) -> Any:
    one = masks.ones(jax.tree.map(lambda leaf: leaf[0], params))
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * REPLICATES), one)


def one(tree: Any, replicate: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[replicate], tree)


def on_host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def counts(found: Any, replicate: int) -> dict[str, int]:
    """Counts the active weights of each layer, in numpy."""
    kernels = {name: part["kernel"][replicate] for name, part in found.items()}
    return {name: int(np.sum(kernel)) for name, kernel in kernels.items()}


def keys() -> jax.Array:
    return jax.random.split(jax.random.key(0), REPLICATES)


def test_floors_hold_at_every_level() -> None:
    rule = PruningRule(fraction=0.5, min_layer_density=0.1)
    params = draw(SMALL)
    params["head"]["kernel"] *= 1e-6
    imp.check(rule, masks.ones(one(params, 0)), levels=3)
    held = dense(params)
    for level in range(1, 4):
        held = imp.prune(params, held, level=level, rule=rule, keys=keys())
        total = imp.global_count(one(held, 0), level, rule)
        assert total == round(950 * 0.5**level)
        for replicate in range(REPLICATES):
            layers = counts(on_host(held), replicate)
            assert layers["head"] == 5
            assert sum(layers.values()) == total
    with pytest.raises(
        ValueError, match="lottery.min_layer_density: expected .*got 0.1, which"
    ):
        imp.check(rule, masks.ones(one(params, 0)), levels=9)


def test_a_layer_pruned_by_itself_keeps_a_weight() -> None:
    rule = PruningRule(fraction=0.5, scope="layer")
    counts = imp.layer_counts(one(dense(draw(SMALL)), 0), 20, rule)
    assert jax.tree.leaves(counts) == [1, 1, 1]


def iterate(
    rule: PruningRule, count: int, shapes: dict, *, retrain: bool = True
) -> list:
    """Prunes level by level, with other weights at every level if `retrain`."""

    held = dense(draw(shapes))
    found = [on_host(held)]
    for level in range(1, count + 1):
        trained = draw(shapes, level * retrain)
        for name, part in trained.items():
            weights = np.where(found[-1][name]["kernel"], part["kernel"], np.float32(0))
            part["kernel"] = jnp.asarray(weights)
        held = imp.prune(trained, held, level=level, rule=rule, keys=keys())
        found.append(on_host(held))
        for inner, outer in zip(*map(jax.tree.leaves, found[:-3:-1]), strict=True):
            assert not np.any(inner & ~outer)
    return found


def kept(found: list, replicate: int = 0) -> list[int]:
    return [sum(counts(each, replicate).values()) for each in found]


def test_exact_counts_at_every_level() -> None:
    found = iterate(PruningRule(), 12, SMALL)
    wanted = [round(950 * 0.8**level) for level in range(13)]
    assert kept(found, 0) == kept(found, 1) == wanted


def test_open_lth_counts_as_published() -> None:
    rule = PruningRule(count_rule="open_lth", exclude=("head/kernel",))
    found = iterate(rule, 12, LENET)
    assert kept(found, 0) == kept(found, 1) == OPEN_LTH
    for each in found:
        assert counts(each, 1)["head"] == 1000


def test_layers_with_the_head_at_half_the_rate_as_published() -> None:
    rule = PruningRule(scope="layer", layer_fractions=(("head/*", 0.1),))
    found = iterate(rule, 16, LENET)
    published = {3: "51.3", 7: "21.1", 9: "13.5", 15: "3.6", 16: "2.9"}  # percent
    for level, each in enumerate(found):
        layers = counts(each, 0)
        assert [layers[name] for name in LENET] == [
            round(235200 * 0.8**level),
            round(30000 * 0.8**level),
            round(1000 * 0.9**level),
        ]
        formula = 265200 * 0.8**level + 1000 * 0.9**level
        assert abs(sum(layers.values()) - formula) <= 1.5
        if level in published:
            percent = 100 * sum(layers.values()) / 266200
            assert f"{percent:.1f}" == published[level]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("score", ["magnitude", "random"])
def test_ignored_layers_stay_whole_and_do_not_count(scope: str, score: str) -> None:
    rule = PruningRule(scope=scope, score=score, exclude=("head/kernel",))
    found = iterate(rule, 4, SMALL)
    for level, each in enumerate(found):
        for replicate in range(REPLICATES):
            layers = counts(each, replicate)
            assert layers["head"] == 50
            if scope == "global":
                rest = layers["dense1"] + layers["dense2"]
                assert rest == round(900 * 0.8**level)
            else:
                assert layers["dense1"] == round(600 * 0.8**level)
                assert layers["dense2"] == round(300 * 0.8**level)


def test_the_first_pattern_that_matches_counts() -> None:
    rule = PruningRule(scope="layer", layer_fractions=(("head/*", 0.5), ("*", 0.1)))
    assert list(counts(iterate(rule, 2, SMALL)[2], 0).values()) == [486, 243, 13]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_one_shot_is_a_single_selection(scope: str) -> None:
    # Of unchanged weights, step by step and at once choose the same.
    rule = PruningRule(scope=scope)
    params = draw(SMALL)
    by_steps = iterate(rule, 5, SMALL, retrain=False)
    at_once = imp.prune(params, dense(params), level=5, rule=rule, keys=keys())
    for a, b in zip(
        jax.tree.leaves(by_steps[5]), jax.tree.leaves(at_once), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_magnitude_keeps_the_largest() -> None:
    params = draw(SMALL)
    found = imp.prune(params, dense(params), level=3, rule=PruningRule(), keys=keys())
    found = one(on_host(found), 1)
    sizes = [np.abs(np.asarray(params[name]["kernel"])[1]) for name in SMALL]
    chosen = [found[name]["kernel"] for name in SMALL]
    smallest = min(size[kept].min() for size, kept in zip(sizes, chosen, strict=True))
    largest = max(size[~kept].max() for size, kept in zip(sizes, chosen, strict=True))
    assert smallest > largest


def test_random_scores_differ_by_replicate_and_level_and_not_by_weights() -> None:
    rule = PruningRule(score="random")
    params, whole = draw(SMALL), dense(draw(SMALL))

    def choose(level: int, seed: int) -> Any:
        return imp.prune(draw(SMALL, seed), whole, level=level, rule=rule, keys=keys())[
            "dense1"
        ]["kernel"]

    first = np.asarray(choose(1, 0))
    np.testing.assert_array_equal(first, choose(1, 5))
    assert (first[0] != first[1]).any()
    # The level's draw is its own, so masks at level 2 are no subset chosen in advance.
    twice = np.asarray(choose(2, 0))
    assert (twice & ~first).any()
    del params


def test_open_lth_says_so_when_nothing_is_left_to_remove() -> None:
    rule = PruningRule(
        count_rule="open_lth", exclude=("dense1/kernel", "dense2/kernel")
    )
    with pytest.raises(
        ValueError,
        match=r"^config.lottery.count_rule: expected .*got 191 at level 1",
    ):
        iterate(rule, 1, SMALL)


def test_rules_that_match_nothing_are_refused() -> None:
    layers = masks.ones(one(draw(SMALL), 0))
    for rule, field in [
        (PruningRule(exclude=("fc*",)), "exclude"),
        (PruningRule(scope="layer", layer_fractions=(("fc", 0.1),)), "layer_fractions"),
        (PruningRule(exclude=("dense*", "head/*")), "exclude"),
    ]:
        with pytest.raises(ValueError, match=rf"^config.lottery.{field}: "):
            imp.check(rule, layers, levels=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused_by_layer(bad: float) -> None:
    params = draw(SMALL)
    broken = params["dense2"]["kernel"].at[1, 3:5, 2].set(bad)
    params["dense2"]["kernel"] = broken
    wanted = r"\{'dense2/kernel, replicate 1': 2\}"
    with pytest.raises(ValueError, match=wanted):
        imp.prune(params, dense(params), level=1, rule=PruningRule(), keys=keys())
    # Outside the masks, and in layers that are not pruned, scores are not read.
    held = dense(params)
    held["dense2"]["kernel"] &= jnp.isfinite(broken)
    imp.prune(params, held, level=1, rule=PruningRule(), keys=keys())
    rule = PruningRule(exclude=("dense2/*",))
    imp.prune(params, dense(params), level=1, rule=rule, keys=keys())


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_level_by_equal_scores_warns_and_is_fair(scope: str) -> None:
    params = jax.tree.map(jnp.ones_like, draw(SMALL))
    rule = PruningRule(fraction=0.5, scope=scope)
    with pytest.warns(select.TiedScoresWarning, match="100.0%"):
        held = imp.prune(params, dense(params), level=1, rule=rule, keys=keys())
    for name, count in counts(on_host(held), 1).items():
        size = np.prod(SMALL[name])
        assert abs(count - size / 2) <= 0.2 * size


@pytest.mark.parametrize(
    "rule",
    [
        PruningRule(),
        PruningRule(count_rule="open_lth"),
        PruningRule(min_layer_density=0.5, exclude=("head/*",)),
        PruningRule(scope="layer"),
    ],
    ids=str,
)
def test_long_counts_give_the_same_masks(
    rule: PruningRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, seen = draw(SMALL), []
    run = imp.prune_to_counts

    def spied(*args: Any) -> Any:
        seen.append({count.dtype.name for count in jax.tree.leaves(args[2])})
        return run(*args)

    monkeypatch.setattr(imp, "prune_to_counts", spied)
    found = []
    for limit in (2**31, 400):  # of layers with 600, 300 and 50 weights
        monkeypatch.setattr("jaxsparse.select.inputs.LIMIT", limit)
        held = imp.prune(params, dense(params), level=1, rule=rule, keys=keys())
        found.append(held)
    jax.tree.map(np.testing.assert_array_equal, *found)
    short_too = {"int32"} if rule.scope == "layer" else set()
    assert seen == [{"int32"}, {"int64"} | short_too]
