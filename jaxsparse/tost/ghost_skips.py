"""Ghost skips: bypasses of single convolutions that fade to nothing.

The networks in `models` have a slot for what bypasses a convolution; they know nothing
of ghosts. What is made here is multiplied by how much of it is left, so that where
nothing is left the network computes what it would without, and its weights can be
taken away (`without`).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Float

KINDS = ("convolution", "identity")
CONSTANT = 1e-4  # with which the released code fills the 1x1 convolutions
PREFIX = "skip"  # of the names that networks give their bypasses


class GhostSkip(nn.Module):
    """A bypass: a 1x1 convolution with normalisation, or the input itself.

    Attributes:
      features: channels of the output.
      left: how much of it is left, in [0, 1]; may be traced.
      stride: every how many pixels there is an output.
      kind: "convolution", as in the released code; or "identity", which has no
        weights: the input averaged over strides, with channels of zeros added or the
        last ones left out.
      conv: makes the convolution.
      norm: makes the normalisation, already told whether this is training.

    Deviations:
      The released code keeps bypasses at full strength for all of training. A
      normalisation follows the convolution, and the constant it begins with makes the
      bypass small only where its epsilon counts beside the variance: the deviation of
      a bypass in the beginning is 0.02 in a LeNet-5, and between 0.07 and 1 in a
      ResNet-20, on random images. The identity is ours.

    References:
      Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any
      Mask, 2022, arXiv:2206.12755.
    """

    features: int
    left: ArrayLike
    stride: int = 1
    kind: str = "convolution"
    conv: Callable[..., nn.Module] = nn.Conv
    norm: Callable[..., nn.Module] = nn.BatchNorm

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Returns what is added to the bypassed convolution."""
        if self.kind == "identity":
            y = fit(x, self.features, stride=self.stride)
        else:
            size = (self.stride, self.stride)
            y = self.conv(
                self.features, (1, 1), strides=size, use_bias=False, name="conv"
            )(x)
            y = self.norm(name="norm")(y)
        share = jnp.asarray(self.left, y.dtype)
        # Where nothing is left, not even what is not finite is.
        return jnp.where(share == 0, jnp.zeros_like(y), share * y)


def fit(
    x: Float[Array, "b h w c"], features: int, *, stride: int
) -> Float[Array, "b h2 w2 o"]:
    """Gives maps other sizes without any weight.

    Args:
      x: maps.
      features: channels of the result: those missing are zeros, those too many are
        left out.
      stride: of windows as large, over which maps are averaged; what the last ones
        lack counts for nothing.

    Returns:
      The maps.
    """
    if stride > 1:
        window = (stride, stride)
        x = nn.avg_pool(x, window, window, padding="SAME", count_include_pad=False)
    missing = max(0, features - x.shape[-1])
    return jnp.pad(x[..., :features], ((0, 0), (0, 0), (0, 0), (0, missing)))


def make(strength: ArrayLike, *, train: bool, kind: str, **layers: Any) -> Any:
    """Makes what a network takes as its `skip`.

    Args:
      strength: how much is left, in [0, 1]; may be traced.
      train: whether to normalise by the batch.
      kind: one of `KINDS`.
      **layers: `conv` and `norm` of a `GhostSkip`.

    Raises:
      ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}; wanted one of {KINDS}")
    norm = functools.partial(
        layers.pop("norm", nn.BatchNorm), use_running_average=not train
    )
    return functools.partial(GhostSkip, left=strength, kind=kind, norm=norm, **layers)


def is_ghost(name: str) -> bool:
    """Says whether a leaf belongs to a bypass.

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
    """Puts what a network has without ghosts into what it has with them.

    Args:
      with_ghosts: parameters, masks or statistics, nested by names.
      without_ghosts: the same without bypasses: see `without`.

    Returns:
      The leaves of `without_ghosts`, and the ghosts of `with_ghosts`.

    Raises:
      ValueError: naming a leaf that only one of the two has.
    """
    missing = sorted(without_ghosts.keys() - with_ghosts.keys()) + sorted(
        name
        for name in with_ghosts.keys() - without_ghosts.keys()
        if strip_ghosts({name: with_ghosts[name]})
    )
    if missing:
        raise ValueError(f"plain: only one of the two trees has {missing}")

    def one(name: str, part: Any) -> Any:
        if name not in without_ghosts:
            return part
        return (
            merge_ghosts(part, without_ghosts[name])
            if isinstance(part, Mapping)
            else without_ghosts[name]
        )

    return {name: one(name, part) for name, part in with_ghosts.items()}


def strip_ghosts(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Takes the ghosts out of a network's parameters, masks or statistics.

    Args:
      tree: nested by names.

    Returns:
      The same without bypasses, and without modules that nothing is left of.
    """
    found: dict[str, Any] = {}
    for name, part in tree.items():
        if is_ghost(name):
            continue
        inner = strip_ghosts(part) if isinstance(part, Mapping) else part
        if not isinstance(part, Mapping) or inner:
            found[name] = inner
    return found
