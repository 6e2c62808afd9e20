"""Multiply-adds from the trace, against closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxsparse import flops, masks, models
from jaxsparse.models import convolutions


def count(model: nn.Module, *shape: int, **options: Any) -> flops.Macs:
    """Multiply-adds of a module for an input, traced only."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(
        lambda key, x: model.init(key, x, **options), jax.random.key(0), x
    )
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def apply(params: Any, x: Any) -> Any:
        filled = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), rest)
        return model.apply({"params": params, **filled}, x, **options)

    return flops.macs(apply, variables["params"], x)


def test_lenet_300_100() -> None:
    found = count(models.LeNet300100(), 1, 28, 28, 1, train=False)
    sizes = {"dense1": 784 * 300, "dense2": 300 * 100, "head": 1000}
    assert found == ({f"{name}/kernel": n for name, n in sizes.items()}, 0)


def test_lenet_5() -> None:
    found = count(models.LeNet5(), 1, 28, 28, 1, train=False).layers
    assert found["conv1/kernel"] == 28 * 28 * 25 * 6
    assert found["conv2/kernel"] == 10 * 10 * 25 * 6 * 16
    assert found["dense1/kernel"] == 400 * 120
    assert list(found) == [
        f"{name}/kernel" for name in ("conv1", "conv2", "dense1", "dense2", "head")
    ]


def test_resnet_50_has_the_published_number() -> None:
    # He et al. 2016, table 1: 3.8 billion with the stride in the first 1x1 convolution;
    # with the stride in the 3x3 convolution, 4.09 billion.
    found = count(models.ImageNetResNet(), 1, 224, 224, 3, train=False)
    assert sum(found.layers.values()) == 4_089_184_256 and found.other == 0
    assert found.layers["conv/kernel"] == 112 * 112 * 49 * 3 * 64


def test_a_batch_counts_each_example() -> None:
    one = count(models.CifarResNet(8, width=4), 1, 8, 8, 3, train=False)
    three = count(models.CifarResNet(8, width=4), 3, 8, 8, 3, train=False)
    assert {name: 3 * n for name, n in one.layers.items()} == three.layers


def test_attention_counts_products_of_activations_as_other() -> None:
    model = models.ViT(8, 2, 1, 4, 10)  # 4 patches and the class token
    found = count(model, 1, 8, 8, 3, train=False)
    assert found.other == 2 * 5 * 5 * 8
    assert found.layers["patches/kernel"] == 4 * 16 * 3 * 8
    assert found.layers["block1/attention/query/kernel"] == 5 * 8 * 8
    assert found.layers["block1/mlp1/kernel"] == 5 * 8 * 32
    assert found.layers["head/kernel"] == 8 * 10


@pytest.mark.parametrize("custom", [False, True])
def test_depthwise_grouped_and_dilated_convolutions(custom: bool) -> None:
    options = {"conv_general_dilated": convolutions.convolve} if custom else {}
    depthwise = nn.Conv(6, (3, 3), feature_group_count=6, **options)
    assert count(depthwise, 1, 8, 8, 6).layers == {"kernel": 8 * 8 * 9 * 6}
    grouped = nn.Conv(4, (3, 3), feature_group_count=2, strides=2, **options)
    assert count(grouped, 1, 8, 8, 6).layers == {"kernel": 4 * 4 * 9 * 3 * 4}
    dilated = nn.Conv(4, (3, 3), kernel_dilation=2, padding="VALID", **options)
    assert count(dilated, 1, 8, 8, 6).layers == {"kernel": 4 * 4 * 9 * 6 * 4}


def test_transposed_convolution_counts_no_zeros() -> None:
    model = nn.ConvTranspose(5, (3, 3), strides=(2, 2))
    assert count(model, 1, 4, 4, 3).layers == {"kernel": 4 * 4 * 9 * 3 * 5}


def test_scan_counts_every_step_and_cond_the_larger_branch() -> None:
    params = {"w": jnp.ones((4, 4)), "v": jnp.ones((4, 7))}

    def apply(params: Any, x: Any) -> Any:
        y, _ = jax.lax.scan(lambda c, _: (c @ params["w"], None), x, None, length=5)
        wide = lambda y: (y @ params["v"]).sum()  # noqa: E731
        return jax.lax.cond(y.sum() > 0, wide, lambda y: y.sum(), y)

    assert flops.macs(apply, params, jnp.ones((1, 4))) == ({"w": 80, "v": 28}, 0)
    with pytest.raises(ValueError, match="`while` loop; write it as"):
        flops.macs(
            lambda p, x: jax.lax.while_loop(lambda c: c.sum() > 9, lambda c: c, x),
            params,
            jnp.ones((1, 4)),
        )


def test_stacked_layers_belong_to_one_leaf() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            xs = jnp.broadcast_to(x, (3, *x.shape))
            apply = nn.scan(
                lambda layer, carry, x: (layer(carry), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=3,
            )
            return apply(nn.Dense(4, name="stack"), x, xs)[0]

    assert count(Net(), 1, 4).layers == {"stack/kernel": 3 * 16}


def test_joined_and_scaled_weights_belong_to_their_leaves() -> None:
    params = {"q": jnp.ones((4, 6)), "k": jnp.ones((4, 2)), "scale": jnp.ones((1, 8))}

    def apply(params: Any, x: Any) -> Any:
        joint = jnp.concatenate([params["q"], params["k"]], 1) * params["scale"]
        return x @ joint

    kernels = masks.ones({"q": params["q"], "k": params["k"]}, prunable=("*",))
    found = flops.macs(apply, params, jnp.ones((1, 4)), masks=kernels)
    assert found == ({"q": 24, "k": 8}, 0)
    fixed = flops.macs(lambda p, x: x @ p["q"], params, jnp.ones((1, 4)), masks=kernels)
    assert fixed.layers == {"q": 24}


def test_a_single_array_is_a_leaf_without_a_name() -> None:
    x = jnp.ones((1, 2))
    assert flops.macs(lambda w, x: x @ w, jnp.ones((2, 2)), x) == ({"": 4}, 0)
    both = flops.macs(lambda w, x: (x @ w).sum() * x @ x.T, jnp.ones((2, 3)), x)
    assert both == ({"": 6}, 2)
