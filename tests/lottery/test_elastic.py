"""Elastic tickets: hand-made cases of stretched and squeezed masks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import masks, models
from jaxsparse.lottery import elastic


def stage(name: str, values: str) -> dict[str, str]:
    return {f"{name}{i}": value for i, value in enumerate(values)}


# By the transfers of Chen et al. 2021: blocks after the first one of a stage, 0.
@pytest.mark.parametrize(
    ("ticket", "rule", "wanted"),
    [
        ("012", "append", "01212"),
        ("012", "interpolate", "01122"),
        ("01234", "append", "012341234"),
        ("01234", "interpolate", "011223344"),
        ("012345678", "append", "01234"),
        ("012345678", "interpolate", "01357"),
        ("012", "append", "0121"),
        ("012", "interpolate", "0112"),
        ("0123", "interpolate", "012"),
        ("012", "append", "012"),
        ("012", "interpolate", "012"),
        ("012", "interpolate", "0"),
    ],
)
def test_blocks_after_the_first_are_replicated_or_dropped(
    ticket: str, rule: str, wanted: str
) -> None:
    ends = {"conv": "c", "head": "h"}
    found = elastic.change_depth(
        stage("stage1_block", ticket) | stage("stage2_block", ticket.upper()) | ends,
        stage("stage1_block", wanted) | stage("stage2_block", wanted) | ends,
        rule=rule,
    )
    first, second = (stage(f"stage{i}_block", wanted) for i in (1, 2))
    assert found == first | second | ends


def test_all_blocks_of_transformers_are_replicated_and_numbers_are_numbers() -> None:
    blocks = {f"block{i}": i for i in range(1, 12)}
    found = elastic.change_depth(blocks, {f"block{i}": None for i in range(1, 23)})
    assert found == {f"block{i}": (i + 1) // 2 for i in range(1, 23)}


def shapes(network: Any) -> Any:
    init = functools.partial(network.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), jnp.ones((1, 8, 8, 3)))


@pytest.mark.parametrize(
    ("ticket", "target"),
    [
        (
            models.CifarResNet(20, width=4, classes=3),
            models.CifarResNet(26, width=4, classes=3),
        ),
        (
            models.WideResNet(22, widen=1, classes=3),
            models.WideResNet(16, widen=1, classes=3),
        ),
        (
            models.ViT(width=8, heads=2, depth=2, patch=4, classes=3),
            models.ViT(width=8, heads=2, depth=3, patch=4, classes=3),
        ),
    ],
    ids=["resnet", "wide_resnet", "vit"],
)
def test_masks_and_weights_fit_the_new_network(ticket: Any, target: Any) -> None:
    draw = np.random.default_rng(0)
    own, new = shapes(ticket), shapes(target)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype), own
    )
    kept = masks.tree_map(
        lambda _, leaf: leaf > 0, masks.ones(params["params"]), params["params"]
    )
    like = masks.ones(new["params"])
    for name, rows in new.items():
        moved = elastic.change_depth(params[name], rows)
        jax.tree.map(
            lambda a, b: np.testing.assert_equal(a.shape, b.shape), moved, rows
        )
    found = elastic.change_depth(kept, like)
    weights = elastic.change_depth(params["params"], new["params"])
    assert jax.tree.structure(found) == jax.tree.structure(like)
    # The ticket's weights are still those of its masks, leaf by leaf.
    wanted = masks.tree_map(lambda _, leaf: leaf > 0, like, weights)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


BLOCKS, FIRST = stage("stage1_block", "01"), stage("stage1_block", "0")


@pytest.mark.parametrize(
    ("found", "like", "rule", "message"),
    [
        (BLOCKS, BLOCKS, "repeat", r"rule: expected one of \['append', 'int.*'repeat'"),
        # Also where no block is to be filled.
        *((each, each, "repeat", "rule: expected one of") for each in (FIRST, {})),
        ({"a": 0}, {"a": 0}, "append", r"like: expected layers in blocks .*\['a'\]"),
        (
            *(FIRST, BLOCKS, "append"),
            r"stage1_block: expected 2 or more blocks, to fill the 2 .*, got 1",
        ),
        ({"head": 0}, BLOCKS, "append", "stage1_block: expected 2 or more.*, got 0"),
        ({}, {"block1": 0}, "append", "block: expected 1 or more blocks.*, got 0"),
        (BLOCKS, BLOCKS | {"head": 0}, "append", "found: expected the layer 'head'"),
    ],
)
def test_other_families_are_refused(
    found: Any, like: Any, rule: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        elastic.change_depth(found, like, rule=rule)
