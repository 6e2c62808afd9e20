"""Dense first values of parameters, from nothing but names, shapes and a key.

Linen's own `init` traces the whole network and deals out keys by order of layers.
Here every leaf draws from a key made of its name alone, so that a network is drawn
anew in one cheap call, also under `jit` and `vmap`, and a further layer leaves all
others as they were.

The shapes come from `jax.eval_shape(model.init, ...)["params"]`, which computes
nothing. Statistics of BatchNorm are no parameters and not made here. What knows of
masks is in `redrawing`, `orthogonal` and `quotient`.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers as jax_initializers
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxsparse import fan_axes, masks, rng, tree
from jaxsparse.types import Params

# Normals are not truncated: those of PyTorch, in which the papers ran, are not.
_variance_scaling = jax_initializers.variance_scaling
KERNELS: Mapping[str, Initializer] = {
    "kaiming_normal": _variance_scaling(2.0, "fan_in", "normal"),
    "kaiming_uniform": _variance_scaling(2.0, "fan_in", "uniform"),
    "glorot_normal": _variance_scaling(1.0, "fan_avg", "normal"),
    "glorot_uniform": _variance_scaling(1.0, "fan_avg", "uniform"),
    "lecun_normal": _variance_scaling(1.0, "fan_in", "normal"),
    "lecun_uniform": _variance_scaling(1.0, "fan_in", "uniform"),
    "orthogonal": jax_initializers.orthogonal(),
    "torch_default": _variance_scaling(1.0 / 3.0, "fan_in", "uniform"),
}
BIASES = ("zeros", "torch_default")
NORM_SCALES = ("ones", "uniform")
# Leaves of transformers that are added to or put beside tokens: normals of this
# deviation, as in ViT (positions) and DeiT (both).
TOKENS = ("class_token", "positions")
TOKEN_SPREAD = 0.02


def check_name(field: str, name: str, known: tuple[str, ...]) -> None:
    """Refuses a name that there is not.

    Args:
      field: what to call it in the message.
      name: what came.
      known: the names there are.

    Raises:
      ValueError: if `name` is not in `known`, listing those.
    """
    if name not in known:
        raise ValueError(f"{field}: got {name!r}; wanted one of {', '.join(known)}")


def kernel_initializer(base: str | Initializer) -> Initializer:
    """Returns the initialiser of a name in `KERNELS`, or what came if it is none.

    Raises:
      ValueError: for an unknown name, listing those known.
    """
    if not isinstance(base, str):
        return base
    check_name("base", base, tuple(KERNELS))
    return KERNELS[base]


def fan_in(shape: tuple[int, ...]) -> int:
    """Counts the inputs of one output of a kernel [..., i, o]."""
    return math.prod(shape[:-1])


def _fans_by_layer(like: Any, layouts: fan_axes.TreeAxes) -> dict[str, int]:
    """Returns the fan-in of every layer with a kernel, by the layer's name."""
    found = {}
    for name, leaf in zip(masks.names(like), jax.tree.leaves(like), strict=True):
        if masks.is_kernel(name, leaf):
            fans = fan_axes.fans(layouts[name], name, leaf.shape)
            layer = name.rpartition("/")[0]
            found[layer] = math.prod(fans.positions) * fans.inputs
    return found


def _kernel(
    draw: Initializer,
    layout: fan_axes.FanAxes,
    name: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    key: Key[Array, ""],
) -> Float[Array, "..."]:
    """Draws the matrices of a kernel, of shape [*positions, inputs, outputs] each."""
    fans = fan_axes.fans(layout, name, shape)
    one = (*fans.positions, fans.inputs, fans.outputs)
    if fans.stack == 1:
        matrices = draw(key, one, dtype)[None]
    else:
        every = jax.random.split(key, fans.stack)
        matrices = jax.vmap(lambda key: draw(key, one, dtype))(every)
    return fan_axes.from_matrices(layout, name, matrices, shape)


def _bias(
    shape: tuple[int, ...], dtype: DTypeLike, *, fan: int | None, key: Key[Array, ""]
) -> Float[Array, "..."]:
    """Draws a bias as PyTorch does, or zeros where no kernel stands beside it."""
    if not fan:
        return jnp.zeros(shape, dtype)
    bound = 1.0 / math.sqrt(fan)
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def initialize(
    like: Any,
    *,
    kernel: str = "kaiming_normal",
    bias: str = "zeros",
    norm_scale: str = "ones",
    zeros: tuple[str, ...] = (),
    axes: fan_axes.Axes = None,
    key: Key[Array, ""],
) -> Params:
    r"""Draws all parameters of a network from their names and shapes.

    With fan-in :math:`n` and fan-out :math:`m` (receptive field included), kernels are

    - kaiming: variance :math:`2/n`; glorot: :math:`2/(n+m)`; lecun: :math:`1/n`, either
      normal (not truncated) or uniform;
    - orthogonal: orthonormal rows or columns, whichever are fewer, when all axes but
      the last are flattened;
    - torch_default: uniform in :math:`\pm 1/\sqrt{n}`, what PyTorch's layers do.

    Values are drawn in float32 at least and then rounded to the leaf's dtype.

    Args:
      like: parameters, or their shapes from `jax.eval_shape`. Kernels are the leaves
        that `masks.is_kernel` recognises; the others must be called bias or scale, or
        be one of `TOKENS`, normal of deviation 0.02.
      kernel: a name in `KERNELS`.
      bias: "zeros", or "torch_default" for uniform in ±1/√n, n the fan-in of the
        kernel in the same layer; the bias of a normalisation is zero either way.
      norm_scale: "ones", or "uniform" in [0, 1), the default of open_lth.
      zeros: shell patterns of leaves that are zero instead, such as the last
        normalisation of residual blocks.
      axes: which axes of kernels are inputs and outputs, see `fan_axes`; None to infer
        them from names and shapes. Stacked layers and groups are drawn one by one.
      key: one key for the whole network.

    Returns:
      Parameters with the nesting, shapes and dtypes of `like`.

    Raises:
      ValueError: for an unknown name, listing those known; or for a leaf that no rule
        covers, naming it.

    Examples:
      >>> layer = {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}
      >>> initialize(layer, key=jax.random.key(0))["bias"]
      Array([0., 0.], dtype=float32)

    Deviations:
      Orthogonal kernels are PyTorch's up to transposition, that is, equal in
      distribution.

    References:
      He et al., Delving Deep into Rectifiers, 2015, arXiv:1502.01852, equation 10.
      Glorot and Bengio, Understanding the difficulty of training deep feedforward
      neural networks, 2010, equations 12 and 16.
      Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep linear
      neural networks, 2014, arXiv:1312.6120.
    """
    check_name("kernel", kernel, tuple(KERNELS))
    check_name("bias", bias, BIASES)
    check_name("norm_scale", norm_scale, NORM_SCALES)
    layouts = fan_axes.of_tree(like, axes)
    draw = functools.partial(
        _draw,
        kernel=kernel,
        fans=_fans_by_layer(like, layouts) if bias == "torch_default" else {},
        layouts=layouts,
        norm_scale=norm_scale,
        key=key,
    )
    masks.check_globs(zeros, masks.names(like), field="zeros")

    def one(name: str, leaf: Any) -> Float[Array, "..."]:
        if masks.matches(name, zeros):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return draw(name, leaf)

    return tree.map_with_names(one, like)


def _draw(
    name: str,
    leaf: Any,
    *,
    kernel: str,
    fans: Mapping[str, int],
    layouts: fan_axes.TreeAxes,
    norm_scale: str,
    key: Key[Array, ""],
) -> Float[Array, "..."]:
    """Draws one leaf; `fans` says which biases are random."""
    layer, _, last = name.rpartition("/")
    # bfloat16 has 8 bits of precision: drawing in it would leave few distinct values.
    wide = jnp.promote_types(leaf.dtype, jnp.float32)
    key = rng.leaf_key(key, name)
    if masks.is_kernel(name, leaf):
        value = _kernel(KERNELS[kernel], layouts[name], name, leaf.shape, wide, key)
    elif last == "bias" and jnp.issubdtype(leaf.dtype, jnp.floating):
        value = _bias(leaf.shape, wide, fan=fans.get(layer), key=key)
    elif last == "scale" and jnp.issubdtype(leaf.dtype, jnp.floating):
        value = (
            jnp.ones(leaf.shape, wide)
            if norm_scale == "ones"
            else jax.random.uniform(key, leaf.shape, wide)
        )
    elif last in TOKENS and jnp.issubdtype(leaf.dtype, jnp.floating):
        value = TOKEN_SPREAD * jax.random.normal(key, leaf.shape, wide)
    else:
        raise ValueError(
            f"like: no rule for the leaf {name!r} of shape {leaf.shape} and dtype "
            f"{leaf.dtype}; wanted a floating leaf called bias or scale (or "
            f"{' or '.join(TOKENS)}), or one of two or more axes called "
            f"{', '.join(masks.KERNEL_NAMES)}; take it out of the tree and initialise "
            "it yourself"
        )
    return value.astype(leaf.dtype)
