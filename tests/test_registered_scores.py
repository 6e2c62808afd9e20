"""Scores of users: one that does not fit the network is found before training."""

import re
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
        scale = (
            rest["apply"](params, draws).sum()
            + rest["apply_train"](params, draws).sum()
        )
        return masks_lib.tree_map(lambda mask, leaf: leaf * scale * mask, masks, grads)

    needs = ("loss", "batches", "apply", "apply_train", "input_shape", "key")
    config.register_score("own", own, needs=needs)
    batches = {"sparse.score_batches": 2, "sparse.score_batch_size": 3}
    c = tiny.config(FIELDS["lottery.score"] | batches)
    assert experiment_lib.make_experiment(c, factory.load_data(c), Path())


UNUSED = [
    (
        {"lottery.levels": 1, "sparse.own_power": 3.0},
        "config.sparse.own_power: expected 2.0 with sparse.method 'none' and "
        "lottery.score 'magnitude', got 3.0; the field belongs to score own;",
    ),
    (
        {"sparse.method": "rigl", "sparse.end_step": "50%", "sparse.own_power": 3.0},
        "config.sparse.own_power: expected 2.0 with sparse.method 'rigl', got 3.0; the "
        "field belongs to score own; choose one of these, or leave the field out$",
    ),
    (
        {"lottery.levels": 1, "sparse.score_batches": 3},
        "config.sparse.score_batches: expected 10 with sparse.method 'none' and "
        "lottery.score 'magnitude', got 3; the field belongs to sparse.method static "
        "and score snip, grasp, grasp_absolute, ntk_sap, wanda;",
    ),
    (
        {"model.conv_channels": (3,), "model.name": "resnet_20"},
        "config.model.conv_channels: expected None with model.name 'resnet_20', got "
        "(3,); the field belongs to model.name lenet_5",
    ),
    (
        {"data.own_size": 3},
        "config.data.own_size: expected 2 with data.name 'digits', got 3; the field "
        "belongs to data.name own_data;",
    ),
]


@pytest.mark.parametrize(("fields", "message"), UNUSED)
def test_fields_of_what_is_not_chosen_say_to_what_they_belong(
    fields: dict[str, Any], message: str
) -> None:
    config.register_score("own", magnitudes, options={"own_power": 2.0})
    config.register_dataset("own_data", lambda data_dir: None, options={"own_size": 2})
    try:
        c = tiny.config({"lottery.levels": 0} | fields)
        pattern = re.escape(message).replace(r"\$", "$")
        with pytest.raises(ValueError, match=f"^{pattern}"):
            factory.check_names(c)
    finally:
        config.DATASETS.remove("own_data")


def test_the_nesting_may_differ_from_that_of_the_masks() -> None:
    masks = {"a": {"kernel": jnp.ones(2, bool), "bias": None}}
    fitted = score_results.fit({"a": {"kernel": jnp.ones(2)}}, masks, "own", field="f")
    assert fitted["a"]["bias"] is None
