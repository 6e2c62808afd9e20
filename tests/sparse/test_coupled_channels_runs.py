"""Configs with `coupled_channels`: networks get smaller after pruning."""

from typing import Any

import jax
import pytest
from helpers import tiny
from helpers.sparse_runs import fields_of, make_task, seeds

from jaxsparse import compaction, factory, masks
from jaxsparse import config as config_lib

COUPLED = {"sparse.structure": "coupled_channels", "sparse.sparsity": 0.5}
RESNET = {
    "lottery.levels": 0,
    "model.name": "resnet_8",
    "model.width": 4,
    "sparse.method": "static",
    "sparse.pai_score": "magnitude",
}


def test_a_pruned_resnet_has_half_the_channels() -> None:
    task = make_task(RESNET | COUPLED)
    params, stats = task.initialize(seeds().init)
    assert task.first_masks is not None
    chosen = task.first_masks(params, stats, seeds())
    params, stats, chosen = jax.tree.map(lambda leaf: leaf[0], (params, stats, chosen))
    assert 0.6 < masks.sparsity(chosen) < 0.8  # both axes of most kernels
    c = tiny.config(RESNET | COUPLED)
    model = factory.make_model(c, classes=10)
    variables = {"params": params, "batch_stats": stats}
    x = jax.numpy.zeros((1, 8, 8, 1))
    small = compaction.compact_linen(
        model, variables, {"params": chosen}, x, train=False
    )
    params = small.params["params"]
    assert params["conv"]["kernel"].shape == (3, 3, 1, 2)
    assert params["stage3_block0"]["conv1"]["kernel"].shape == (3, 3, 4, 8)
    assert params["head"]["kernel"].shape == (8, 10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sparse.method": "rigl"}, "only with sparse.method 'static'"),
        ({"sparse.distribution": "erk"}, "sparse.distribution: expected None"),
        ({"sparse.dense": ("head",)}, r"sparse.dense: expected \(\)"),
        ({"sparse.first_layer_dense": True}, "first_layer_dense: expected False"),
        ({"sparse.min_layer_density": 0.1}, "min_layer_density: expected"),
        ({"sparse.score_iterations": 3, "sparse.pai_score": "synflow"}, "iterations"),
        ({"sparse.ablation": "inverted"}, "sparse.ablation"),
    ],
)
def test_fields_that_have_no_effect_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    c = tiny.config(fields_of("static") | COUPLED | fields)
    with pytest.raises(ValueError, match=message):
        config_lib.validate(c)
        factory.check_names(c)
