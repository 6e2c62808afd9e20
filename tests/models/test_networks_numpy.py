"""What networks compute, in numpy, without bypasses of their convolutions and with."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import numpy_models, small_models

from jaxsparse import masks


class Bypass(nn.Module):
    """`numpy_models.bypass`, in jax."""

    features: int
    stride: int

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x[:, :: self.stride, :: self.stride, : self.features] / 2
        missing = self.features - x.shape[-1]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))


class Faded(Bypass):
    """A bypass times a number, which may be traced."""

    alpha: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.alpha * super().__call__(x)


class Learned(Bypass):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        steps = (self.stride, self.stride)
        return nn.Conv(self.features, (1, 1), strides=steps, use_bias=False)(x)


@pytest.mark.parametrize("name", numpy_models.NETWORKS)
def test_networks_agree_with_numpy(name: str) -> None:
    """Two programs a network: without bypasses, and with bypasses times a number."""
    # A padding of (0, 1), linen's "SAME" under stride 2, would move every pixel.
    model, image = small_models.SMALL[name]
    state, x = small_models.variables(model, image), small_models.images(image)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state)

    def wanted(skip: Any) -> np.ndarray:
        variables = wide["params"], wide.get("batch_stats", {})
        return numpy_models.NETWORKS[name](np.asarray(x, np.float64), variables, skip)

    plain = jax.jit(functools.partial(model.apply, train=False))(state, x)
    assert (plain.shape, plain.dtype) == ((4, 10), jnp.float32)
    # A dead network says the same of every image.
    assert np.min(np.std(plain, axis=0)) > 1e-3
    np.testing.assert_allclose(plain, wanted(None), rtol=1e-4, atol=1e-5)

    @jax.jit
    def logits(alpha: jax.Array) -> jax.Array:
        skip = functools.partial(Faded, alpha=alpha)
        return model.clone(skip=skip).apply(state, x, train=False)

    skipped = logits(1.0)
    np.testing.assert_allclose(
        skipped, wanted(numpy_models.bypass), rtol=1e-4, atol=1e-5
    )
    assert np.max(np.abs(skipped - plain)) > 1e-3
    np.testing.assert_allclose(logits(0.0), plain, rtol=1e-5, atol=1e-6)


def test_all_networks_that_can_be_bypassed_are_written_out() -> None:
    assert list(numpy_models.NETWORKS.keys() ^ set(small_models.SKIPPING)) == []


@pytest.mark.parametrize("name", small_models.SKIPPING)
def test_every_convolution_between_feature_maps_has_one_bypass(name: str) -> None:
    model, image = small_models.SMALL[name]
    plain = small_models.shapes(model, image)
    learned = small_models.shapes(model.clone(skip=Learned), image)
    before, after = masks.names(plain["params"]), masks.names(learned["params"])
    # All that there was, under its name, and bypasses beside it.
    assert [leaf for leaf in after if "skip" not in leaf] == before
    assert jax.tree.structure(learned.get("batch_stats")) == jax.tree.structure(
        plain.get("batch_stats")
    )
    first = {"conv/kernel"} if "conv" in plain["params"] else {"conv1/kernel"}
    convolutions = {
        leaf.removesuffix("/kernel")
        for leaf in set(before) - first
        if "conv" in leaf and leaf.endswith("/kernel") and "shortcut" not in leaf
    }
    bypasses = {leaf.rpartition("/Conv_0")[0] for leaf in after if "skip" in leaf}
    assert bypasses == {leaf.replace("conv", "skip") for leaf in convolutions}


def test_bypasses_are_told_channels_stride_and_name() -> None:
    asked = []

    def skip(features: int, *, stride: int, name: str) -> nn.Module:
        asked.append((features, stride, name))
        return Bypass(features, stride, name=name)

    small_models.shapes(small_models.TINY_RESNET(skip=skip), (8, 8, 3))
    assert asked == [
        *((2, 1, "skip1"), (2, 1, "skip2")),
        *((4, 2, "skip1"), (4, 1, "skip2")),
        *((8, 2, "skip1"), (8, 1, "skip2")),
    ]
