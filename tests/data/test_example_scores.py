"""Scores of examples by networks of a config, against what is slow and obvious."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import norm_mlp, tiny

from jaxsparse import factory, masks
from jaxsparse.analysis import mode_connectivity
from jaxsparse.data.data_pruning import scores as scores_lib
from jaxsparse.data.dataset import Examples
from jaxsparse.factory import example_scores
from jaxsparse.factory.example_scores import Weights

NORM = {
    "model.name": "norm_mlp",
    "init.norm_scale": "uniform",
    "data.train_examples": 23,
}
MLP = {"model.features": (8,), "data.train_examples": 23}
SIZE = 10  # of batches: two whole ones and three examples


class Made(NamedTuple):
    """A config's functions, two of its networks, and what they are scored on."""

    functions: factory.EvalFns
    networks: Weights
    examples: Examples


def make(fields: dict[str, Any]) -> Made:
    c = tiny.config(fields)
    dataset = factory.load_data(c)
    network = factory.make_network(
        c, dataset, factory.make_durations(c, steps_per_epoch=2)
    )
    params, stats = network.initialize(jax.random.split(jax.random.key(0), 2))
    # Running averages that are those of no batch, and differ between networks.
    share = jnp.array([[0.5], [0.9]])
    stats = jax.tree.map(lambda leaf: share * (leaf + 0.3), stats)
    one = jax.tree.map(lambda leaf: leaf[0], stats)
    held = jax.tree.map(lambda m: jnp.stack([m, m]), network.masks)
    functions = factory.make_eval_fns(c, dataset, one)
    return Made(functions, Weights(params, stats, held), dataset.train)


@pytest.fixture(scope="module")
def mlp() -> Made:
    return make(MLP)


@pytest.fixture(scope="module")
def normed() -> Iterator[Made]:
    with norm_mlp.registered():
        yield make(NORM)


def one(made: Made, r: int) -> Weights:
    return jax.tree.map(lambda leaf: leaf[r], made.networks)


@functools.cache
def compiled(function: Any) -> Any:
    return jax.jit(function)


def logits_of(made: Made, params: Any, stats: Any, images: Any) -> Any:
    return compiled(made.functions.logits)(params, stats, jnp.asarray(images))


def by_hand(score: str, logits: Any, labels: Any) -> np.ndarray:
    """The definitions in float64, example by example."""
    found = []
    for row, label in zip(np.asarray(logits, np.float64), labels, strict=True):
        p = np.exp(row - row.max())
        p /= p.sum()
        error = p - np.eye(len(p))[label]
        found.append(
            {
                "el2n": np.linalg.norm(error),
                "margin": np.delete(p, label).max() - p[label],
                "loss": -np.log(p[label]),
            }[score]
        )
    return np.array(found)


@pytest.mark.parametrize(
    ("score", "how"),
    [
        *((score, "map") for score in example_scores.LOGIT_SCORES),
        ("el2n", "vmap"),
        ("el2n", "unroll"),
    ],
)
def test_scores_of_logits_are_their_definitions(
    mlp: Made, score: str, how: Any
) -> None:
    images, labels = mlp.examples
    got = example_scores.score_logits(*mlp, score=score, batch_size=SIZE, how=how)
    assert got.shape == (2, 23)
    for r in range(2):
        own = one(mlp, r)
        logits = logits_of(mlp, own.params, own.batch_stats, images)
        wanted = by_hand(score, logits, labels)
        np.testing.assert_allclose(got[r], wanted, rtol=1e-4, atol=1e-6)
        if score == "margin":  # higher for what is harder
            wrong = np.argmax(logits, axis=-1) != labels
            np.testing.assert_array_equal(got[r] > 0, wrong)
            easiest, hardest = np.argsort(by_hand("loss", logits, labels))[[0, -1]]
            assert got[r, easiest] < got[r, hardest]


def normalized_by(made: Made, r: int, images: Any) -> Any:
    """The logits in inference mode, where the averages are those of these images."""
    params = one(made, r).params
    found = compiled(made.functions.statistics)(params, jnp.asarray(images))
    return logits_of(made, params, found, images)


def test_statistics_of_batches_are_those_of_each_batch_in_order(normed: Made) -> None:
    images, labels = normed.examples
    given = {"score": "loss", "how": "unroll"}
    got = example_scores.score_logits(
        *normed, batch_norm="batch", batch_size=SIZE, **given
    )
    for r in range(2):
        wanted = np.concatenate(
            [
                by_hand("loss", normalized_by(normed, r, images[i : i + SIZE]), part)
                for i in range(0, 23, SIZE)
                for part in [labels[i : i + SIZE]]
            ]
        )
        np.testing.assert_allclose(got[r], wanted, rtol=1e-3, atol=1e-5)
    other = example_scores.score_logits(
        *normed, batch_norm="batch", batch_size=23, **given
    )
    assert np.abs(got - other).min() > 1e-6  # every example hangs on its batch


def test_in_evaluation_no_example_depends_on_others(normed: Made) -> None:
    images, labels = normed.examples
    given = {"score": "loss", "batch_size": SIZE, "how": "unroll"}
    got = example_scores.score_logits(*normed, **given)
    turned = normed._replace(examples=Examples(images[::-1], labels[::-1]))
    np.testing.assert_allclose(
        example_scores.score_logits(*turned, **given)[:, ::-1],
        got,
        rtol=1e-4,
        atol=1e-6,
    )
    batch = example_scores.score_logits(*normed, batch_norm="batch", **given)
    assert np.abs(batch - got).min() > 1e-6
    for r in range(2):
        own = one(normed, r)
        logits = logits_of(normed, own.params, own.batch_stats, images)
        wanted = by_hand("loss", logits, labels)
        np.testing.assert_allclose(got[r], wanted, rtol=1e-3, atol=1e-5)


def test_grand_is_the_norm_of_each_gradient_over_what_there_is(mlp: Made) -> None:
    held = masks.tree_map(
        lambda mask: jnp.arange(mask.size).reshape(mask.shape) % 3 > 0,
        mlp.networks.masks,
    )
    params = masks.apply(held, mlp.networks.params)
    sparse = mlp._replace(networks=mlp.networks._replace(params=params, masks=held))
    got = {
        how: example_scores.grand(*sparse, block_size=4, batch_size=SIZE, how=how)
        for how in ("vmap", "map")
    }

    def loss(params: Any, image: Any, label: Any) -> Any:
        logits = sparse.functions.logits(params, {}, image[None])
        return scores_lib.loss(logits, label[None])[0]

    @jax.jit
    def slope(own: Weights, image: Any, label: Any) -> Any:
        return masks.apply(own.masks, jax.grad(loss)(own.params, image, label))

    for r in range(2):
        own = one(sparse, r)
        for i, (image, label) in enumerate(zip(*sparse.examples, strict=True)):
            inside = slope(own, image, label)
            leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(inside)]
            wanted = np.sqrt(sum(np.sum(leaf**2) for leaf in leaves))
            for found in got.values():
                np.testing.assert_allclose(found[r, i], wanted, rtol=1e-4)
    dense = example_scores.grand(
        *mlp._replace(networks=sparse.networks._replace(masks=mlp.networks.masks)),
        block_size=4,
        batch_size=SIZE,
        how="map",
    )
    assert np.all(dense > got["map"])


def ends(made: Made, *rows: int) -> list[tuple[Any, Any]]:
    return [(one(made, r).params, one(made, r).batch_stats) for r in rows]


def barriers(made: Made, *rows: int, at: str = "midpoint") -> np.ndarray:
    return example_scores.example_barriers(
        made.functions, ends(made, *rows), made.examples, at=at, batch_size=SIZE
    )


def test_barriers_at_the_midpoint_are_their_definition(normed: Made) -> None:
    images, labels = normed.examples
    first, second = ends(normed, 0, 1)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    losses = [
        by_hand("loss", logits_of(normed, *end, images), labels)
        for end in (first, middle, second)
    ]
    wanted = losses[1] - (losses[0] + losses[2]) / 2
    got = barriers(normed, 0, 1)
    assert got.shape == (1, 23) and np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(got[0], wanted, rtol=1e-3, atol=1e-4)


def test_barriers_vanish_between_equals_and_have_no_direction(mlp: Made) -> None:
    np.testing.assert_array_equal(barriers(mlp, 0, 0), 0.0)
    there, back = barriers(mlp, 0, 1), barriers(mlp, 1, 0)
    assert np.abs(there).max() > 0.01
    np.testing.assert_allclose(there, back, rtol=1e-5, atol=1e-6)
    three = barriers(mlp, 0, 1, 0)  # pairs (0, 1), (0, 2), (1, 2)
    np.testing.assert_array_equal(three[1], 0.0)
    np.testing.assert_array_equal(three[[0, 2]], np.concatenate([there, back]))


def test_the_maximum_is_no_less_than_what_lies_near_the_midpoint(mlp: Made) -> None:
    highest = barriers(mlp, 0, 1, at="maximum")
    segment = mode_connectivity.along_path(
        mlp.functions.evaluate,
        *(end[0] for end in ends(mlp, 0, 1)),
        examples=tuple(map(jnp.asarray, mlp.examples)),
        batch_size=23,
        alphas=mode_connectivity.UNIT_ALPHAS,
    )
    over = mode_connectivity.excess(segment.example_loss, mode_connectivity.UNIT_ALPHAS)
    np.testing.assert_allclose(highest[0], over.max(axis=0), rtol=1e-5, atol=1e-6)
    assert np.all(highest >= 0)


def test_what_cannot_be_scored_is_refused(mlp: Made) -> None:
    logits = {"score": "el2n", "batch_size": SIZE, "how": "map"}
    for changes, message in (
        ({"score": "forgetting"}, "score: expected one of .*got 'forgetting'"),
        ({"batch_norm": "train"}, "batch_norm: expected one of .*got 'train'"),
        ({"batch_size": 0}, "batch_size: expected 1 or more examples, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            example_scores.score_logits(*mlp, **(logits | changes))
    with pytest.raises(ValueError, match="block_size: expected .*got 0"):
        example_scores.grand(*mlp, block_size=0, batch_size=SIZE, how="map")
    with pytest.raises(ValueError, match="ends: expected 2 or more networks, got 1"):
        barriers(mlp, 0)
    with pytest.raises(ValueError, match="at: expected one of .*got 'end'"):
        barriers(mlp, 0, 1, at="end")


def test_networks_that_diverged_are_refused(mlp: Made) -> None:
    lost = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), mlp.networks.params)
    diverged = mlp._replace(networks=mlp.networks._replace(params=lost))
    given = {"batch_size": SIZE, "how": "map"}
    with pytest.raises(
        ValueError, match="el2n: .*got nan for example 0 of replicate 1"
    ):
        example_scores.score_logits(*diverged, score="el2n", **given)
    with pytest.raises(
        ValueError, match="grand: .*got nan for example 0 of replicate 1"
    ):
        example_scores.grand(*diverged, block_size=4, **given)
    with pytest.raises(ValueError, match="barrier: .*got nan for example 0 of pair 0"):
        barriers(diverged, 0, 1)
