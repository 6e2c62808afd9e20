"""Scores of users: one that does not fit the network is found before training."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from jaxsparse import config, factory
from jaxsparse import masks as masks_lib
from jaxsparse.factory import experiment as experiment_lib
from jaxsparse.factory import score_results

FIELDS = {
    "lottery.score": {"lottery.score": "own", "lottery.levels": 1},
    "sparse.pai_score": {
        "sparse.method": "static",
        "sparse.sparsity": 0.5,
        "sparse.pai_score": "own",
        "lottery.levels": 0,
    },
}


@pytest.fixture(autouse=True)
def unregister() -> Iterator[None]:
    yield
    if "own" in config.SCORES:
        config.SCORES.remove("own")


def magnitudes(params: Any, masks: Any) -> Any:
    return masks_lib.tree_map(lambda mask, leaf: abs(leaf) * mask, masks, params)


def rows(params: Any, masks: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.sum(0), magnitudes(params, masks))


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "shape": (rows, r"dense1/kernel: expected shape \(64, 300\).*got \(300,\)"),
    "too few leaves": (
        lambda params, masks: {"head": magnitudes(params, masks)["head"]},
        "got no leaf dense1/",
    ),
    "a leaf that has no mask": (
        lambda params, masks: params,
        "expected only leaves of the prunable weights.*got the leaf .*bias",
    ),
    "an array": (lambda params, masks: jnp.ones(3), "got an array; return one score"),
    "nothing": (lambda params, masks: None, "got no leaf dense1/kernel"),
    "dtype": (
        lambda params, masks: jax.tree.map(lambda x: x + 1j, magnitudes(params, masks)),
        "dense1/kernel: expected an array of real numbers, got complex64",
    ),
}


def make(field: str, score: Callable[..., Any], **options: Any) -> Any:
    config.register_score("own", score, **options)
    c = tiny.config(FIELDS[field])
    factory.check_names(c)
    return experiment_lib.make_experiment(c, factory.load_data(c), Path())


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(("score", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_results_are_found_before_training(
    field: str, score: Callable[..., Any], words: str
) -> None:
    with pytest.raises(ValueError, match=f"^config.{field} 'own': (?s:.*){words}"):
        make(field, score)


def test_scores_in_numpy_are_checked_when_first_computed() -> None:
    def in_numpy(params: Any, masks: Any) -> Any:
        return jax.tree.map(np.asarray, magnitudes(params, masks))

    made = make("lottery.score", in_numpy)
    params, stats = made.task.initialize(made.seeds.init)
    dense = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), made.task.masks)
    scores = made.task.level_scores(params, stats, dense, made.seeds, 1)
    kernel = params["head"]["kernel"]
    np.testing.assert_array_equal(scores["head"]["kernel"], abs(kernel))


def test_scores_that_use_everything_can_be_traced() -> None:
    def own(params: Any, masks: Any, *, loss: Any, batches: Any, **rest: Any) -> Any:
        images, labels = batches
        assert images.shape == (2, 3, 8, 8, 1)
        grads = jax.grad(loss)(params, (images[0], labels[0]))
        draws = jax.random.normal(rest["key"], rest["input_shape"])
        scale = rest["apply"](params, draws).sum()
        return masks_lib.tree_map(lambda mask, leaf: leaf * scale * mask, masks, grads)

    needs = ("loss", "batches", "apply", "input_shape", "key")
    config.register_score("own", own, needs=needs)
    batches = {"sparse.score_batches": 2, "sparse.score_batch_size": 3}
    c = tiny.config(FIELDS["lottery.score"] | batches)
    assert experiment_lib.make_experiment(c, factory.load_data(c), Path())


def test_the_nesting_may_differ_from_that_of_the_masks() -> None:
    masks = {"a": {"kernel": jnp.ones(2, bool), "bias": None}}
    fitted = score_results.fit({"a": {"kernel": jnp.ones(2)}}, masks, "own", field="f")
    assert fitted["a"]["bias"] is None
