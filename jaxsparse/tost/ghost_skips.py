"""Ghost skips: bypasses of single convolutions whose strength is annealed to 0.

The networks in `models` take a module that bypasses a convolution, but do not depend on
ghosts. The output of a ghost skip is multiplied by its strength. At strength 0 the
network computes the same as without it, and the weights of the bypass can be removed
(`strip_ghosts`).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Float

KINDS = ("convolution", "identity")
CONSTANT = 1e-4  # initial value of the 1x1 convolutions in the released code
PREFIX = "skip"  # networks name their bypasses skip1, skip2, ... or ..._skip


class GhostSkip(nn.Module):
    """Bypasses a convolution by a 1x1 convolution with normalization, or by its input.

    Attributes:
      features: number of output channels.
      strength: strength of the bypass, in [0, 1]; may be traced.
      stride: stride of the bypassed convolution, in pixels.
      kind: "convolution", as in the released code; or "identity", which has no weights:
        the input, averaged over windows of the stride, with channels of zeros appended
        or the last channels dropped.
      conv: makes the convolution; called as Flax's `nn.Conv`.
      norm: makes the normalization; called with only its name, so whether to use batch
        statistics must be bound already.

    Deviations:
      The released code keeps bypasses at full strength during all of training. It
      initializes the 1x1 convolutions with the constant 1e-4, which makes a bypass
      small only if the variance of its convolution is not much larger than the epsilon
      of the normalization that follows. On random images, the initial standard
      deviation of a bypass is 0.02 in a LeNet-5, and between 0.07 and 1 in a
      ResNet-20. The kind "identity" is our own.

    References:
      Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any
      Mask, 2022, arXiv:2206.12755.
    """

    features: int
    strength: ArrayLike
    stride: int = 1
    kind: str = "convolution"
    conv: Callable[..., nn.Module] = nn.Conv
    norm: Callable[..., nn.Module] = nn.BatchNorm

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Computes the term that is added to the output of the bypassed convolution.

        Args:
          x: input of the bypassed convolution, [batch, height, width, channels].

        Returns:
          Feature maps [batch, height, width, features], where height and width are
          those of the input divided by the stride and rounded up.
        """
        if self.kind == "identity":
            y = fit(x, self.features, stride=self.stride)
        else:
            size = (self.stride, self.stride)
            y = self.conv(
                self.features, (1, 1), strides=size, use_bias=False, name="conv"
            )(x)
            y = self.norm(name="norm")(y)
        weight = jnp.asarray(self.strength, y.dtype)
        # At strength 0, infinities and NaN of the bypass are removed, too. A product
        # with 0 would turn them into NaN.
        return jnp.where(weight == 0, jnp.zeros_like(y), weight * y)


def fit(
    x: Float[Array, "b h w c"], features: int, *, stride: int
) -> Float[Array, "b h2 w2 o"]:
    """Resizes feature maps to a stride and a number of channels, without weights.

    Args:
      x: feature maps, [batch, height, width, channels].
      features: number of output channels. Missing channels are zeros, and surplus
        channels at the end are dropped.
      stride: size and stride of the windows over which maps are averaged, in pixels.
        Windows that extend beyond the border average only the pixels inside.

    Returns:
      Feature maps, [batch, height, width, features].
    """
    if stride > 1:
        window = (stride, stride)
        x = nn.avg_pool(x, window, window, padding="SAME", count_include_pad=False)
    num_missing = max(0, features - x.shape[-1])
    return jnp.pad(x[..., :features], ((0, 0), (0, 0), (0, 0), (0, num_missing)))


def make(strength: ArrayLike, *, train: bool, kind: str, **layers: Any) -> Any:
    """Makes the module factory that a network takes as its argument `skip`.

    Args:
      strength: strength of the bypasses, in [0, 1]; may be traced.
      train: whether to normalize with the statistics of the batch; otherwise with
        running statistics.
      kind: "convolution" or "identity".
      **layers: further attributes of `GhostSkip`, such as `conv` and `norm`. The
        normalization must accept `use_running_average`.

    Returns:
      A function of the remaining attributes of `GhostSkip`, such as `features` and
      `stride`, to the module.

    Raises:
      ValueError: if the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}")
    norm = functools.partial(
        layers.pop("norm", nn.BatchNorm), use_running_average=not train
    )
    return functools.partial(
        GhostSkip, strength=strength, kind=kind, norm=norm, **layers
    )


def is_ghost(name: str) -> bool:
    """Returns whether a leaf belongs to a ghost skip.

    Args:
      name: name of the leaf, or of a module, with its path joined by slashes.

    Examples:
      >>> is_ghost("stage1_block0/skip1/conv/kernel"), is_ghost("conv1/kernel")
      (True, False)
    """
    return any(
        part.startswith(PREFIX) or part.endswith(f"_{PREFIX}")
        for part in name.split("/")
    )


def merge_ghosts(
    with_ghosts: Mapping[str, Any], without_ghosts: Mapping[str, Any]
) -> dict[str, Any]:
    """Combines the ghosts of one tree with all other leaves of another tree.

    Args:
      with_ghosts: parameters, masks or batch statistics of a network with ghosts,
        nested by names.
      without_ghosts: the same kind of tree, of a network without ghosts, such as from
        `strip_ghosts`.

    Returns:
      A tree with the nesting of `with_ghosts`: its ghosts, and the leaves of
      `without_ghosts`.

    Raises:
      ValueError: if a leaf or module other than a ghost exists in only one of the
        trees; the message names it.
    """
    unmatched = sorted(without_ghosts.keys() - with_ghosts.keys()) + sorted(
        name
        for name in with_ghosts.keys() - without_ghosts.keys()
        if strip_ghosts({name: with_ghosts[name]})
    )
    if unmatched:
        raise ValueError(
            "without_ghosts: expected the leaves of with_ghosts except the ghosts, got "
            f"{unmatched} in only one of the two trees"
        )

    def merge(name: str, part: Any) -> Any:
        if name not in without_ghosts:
            return part
        return (
            merge_ghosts(part, without_ghosts[name])
            if isinstance(part, Mapping)
            else without_ghosts[name]
        )

    return {name: merge(name, part) for name, part in with_ghosts.items()}


def strip_ghosts(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the ghosts from parameters, masks or batch statistics of a network.

    Args:
      tree: parameters, masks or batch statistics, nested by names.

    Returns:
      The tree without ghosts, and without modules that are then empty.
    """
    kept: dict[str, Any] = {}
    for name, part in tree.items():
        if is_ghost(name):
            continue
        inner = strip_ghosts(part) if isinstance(part, Mapping) else part
        if not isinstance(part, Mapping) or inner:
            kept[name] = inner
    return kept
