"""Networks with random weights and masks, for the speed of their predictions."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxsparse import distributions, models
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LeNet-300-100": (models.LeNet300100, (28, 28, 1)),
    "ResNet-20": (functools.partial(models.CifarResNet, 20), (32, 32, 3)),
    "ViT": (
        functools.partial(
            *(models.ViT, 128, 4, 4, 4), classes=10
        ),  # width, heads, blocks, patch
        (32, 32, 3),
    ),
}


class Network(NamedTuple):
    """A network and its images.

    Attributes:
      model: the module.
      variables: its random variables, zero outside the masks.
      masks: masks of the variables.
      images: random images, float32 [b h w c].
    """

    model: nn.Module
    variables: Any
    masks: Masks
    images: np.ndarray

    def apply(self, variables: Any, images: Any) -> Any:
        """Computes logits in inference mode.

        Args:
          variables: variables of the module.
          images: images [b h w c].
        """
        return self.model.apply(variables, images, train=False)


def make(name: str, sparsity: float, batch: int, *, constant: bool) -> Network:
    """Makes a network.

    Args:
      name: name of the network.
      sparsity: fraction of zeros over all prunable weights, divided by ERK.
      batch: number of images.
      constant: whether all outputs of a layer have the same number of active inputs;
        otherwise, active weights are uniformly random within each layer.
    """
    create, size = NETWORKS[name]
    model = create()
    images = np.random.default_rng(0).normal(size=(batch, *size)).astype(np.float32)
    variables = model.init(jax.random.key(0), jnp.asarray(images[:1]), train=False)
    draw = draw_constant_fan_in if constant else draw_uniform
    ticket = draw(variables["params"], sparsity)
    params = masks_lib.apply(ticket, variables["params"])
    return Network(model, variables | {"params": params}, {"params": ticket}, images)


def draw_uniform(params: Params, sparsity: float) -> Masks:
    """Draws as many active weights for each layer as ERK assigns to it.

    Args:
      params: weights of a network.
      sparsity: fraction of zeros.
    """
    generator = np.random.default_rng(1)

    def draw(mask: Any, count: int) -> Any:
        flat = np.zeros(mask.size, bool)
        flat[generator.choice(mask.size, count, replace=False)] = True
        return jnp.asarray(flat.reshape(mask.shape))

    return masks_lib.tree_map(draw, *_counts(params, sparsity))


def draw_constant_fan_in(params: Params, sparsity: float) -> Masks:
    """Draws the same number of active inputs for each output of a layer.

    Args:
      params: weights of a network.
      sparsity: fraction of zeros, up to rounding in each layer; one input or more stay.
    """
    generator = np.random.default_rng(1)

    def draw(mask: Any, count: int) -> Any:
        outputs = mask.shape[-1]
        inputs = mask.size // outputs
        kept = max(1, round(count / outputs))
        order = generator.random((inputs, outputs)).argsort(axis=0)
        return jnp.asarray((order < kept).reshape(mask.shape))

    return masks_lib.tree_map(draw, *_counts(params, sparsity))


def _counts(params: Params, sparsity: float) -> tuple[Masks, Any]:
    """Returns masks of all weights, and the numbers of active ones by ERK."""
    ones = masks_lib.ones(params)
    return ones, distributions.erdos_renyi_kernel(ones, sparsity)
