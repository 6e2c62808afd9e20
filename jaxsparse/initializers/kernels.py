"""Dense initialization of parameters from names, shapes and a random key.

Linen's `init` traces the whole network and derives keys from the order of layers. Here,
each leaf is drawn with a key that depends only on its name. Initialization is thus one
fast call, also under `jit` and `vmap`, and an additional layer does not change the
weights of the others.

The shapes come from `jax.eval_shape(model.init, ...)["params"]`, which computes
nothing. BatchNorm statistics are not parameters and not initialized here. The functions
that take masks into account are in `reinitialize`, `sparse_kernels`, `orthogonal` and
`metainit`.
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

# Normal distributions are not truncated, as in PyTorch, which the papers used. Those of
# JAX and Flax with names such as he_normal are truncated.
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
# Parameters of transformers that are added to the tokens or form a token. They are
# normal with this standard deviation, as in ViT (positions) and DeiT (both).
TOKENS = ("class_token", "positions", "tied_embedding")
TOKEN_STD = 0.02


def check_name(field: str, name: str, known: tuple[str, ...]) -> None:
    """Checks that a name is one of the known names.

    Args:
      field: name of the argument in the error message.
      name: the name to check.
      known: all valid names.

    Raises:
      ValueError: if `name` is not in `known`; the message lists the known names.
    """
    if name not in known:
        raise ValueError(f"{field}: expected one of {', '.join(known)}, got {name!r}")


def kernel_initializer(base: str | Initializer) -> Initializer:
    """Returns the initializer with a name; returns initializers unchanged.

    Args:
      base: a name in `KERNELS`, or an initializer of JAX or Flax, called as
        `base(key, shape, dtype)` with the shape [..., i, o].

    Raises:
      ValueError: if the name is unknown; the message lists the known names.
    """
    if not isinstance(base, str):
        return base
    check_name("base", base, tuple(KERNELS))
    return KERNELS[base]


def fan_in(shape: tuple[int, ...]) -> int:
    """Computes the fan-in of a dense kernel, including the kernel window.

    Args:
      shape: shape of the kernel, [..., i, o].
    """
    return math.prod(shape[:-1])


def _fans_by_layer(template: Any, layouts: fan_axes.TreeAxes) -> dict[str, int]:
    """Returns the fan-in of every layer that has a kernel, by the name of the layer.

    Args:
      template: parameters or their shapes.
      layouts: layouts of the leaves.
    """
    fans_by_layer = {}
    for name, leaf in zip(
        masks.names(template), jax.tree.leaves(template), strict=True
    ):
        if masks.is_kernel(name, leaf):
            fans = fan_axes.fans(layouts[name], name, leaf.shape)
            layer = name.rpartition("/")[0]
            fans_by_layer[layer] = math.prod(fans.positions) * fans.inputs
    return fans_by_layer


def _kernel(
    draw: Initializer,
    layout: fan_axes.FanAxes,
    name: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    key: Key[Array, ""],
) -> Float[Array, "..."]:
    """Draws a kernel, one matrix at a time for stacked layers and groups.

    Args:
      draw: initializer of one matrix [*positions, inputs, outputs].
      layout: layout of the leaf.
      name: name of the leaf, for error messages.
      shape: shape of the leaf.
      dtype: dtype of the values.
      key: key of the leaf; split into one key per matrix if there are several.
    """
    fans = fan_axes.fans(layout, name, shape)
    matrix_shape = (*fans.positions, fans.inputs, fans.outputs)
    # A single matrix uses the key itself, so that it equals the draw of the initializer
    # with that key.
    if fans.stack == 1:
        matrices = draw(key, matrix_shape, dtype)[None]
    else:
        keys = jax.random.split(key, fans.stack)
        matrices = jax.vmap(lambda key: draw(key, matrix_shape, dtype))(keys)
    return fan_axes.from_matrices(layout, name, matrices, shape)


def _bias(
    shape: tuple[int, ...], dtype: DTypeLike, *, fan: int | None, key: Key[Array, ""]
) -> Float[Array, "..."]:
    """Draws a bias like PyTorch, uniform in ±1/√fan; zeros without a fan.

    Args:
      shape: shape of the bias.
      dtype: dtype of the values.
      fan: fan-in of the kernel in the same layer; None if the layer has no kernel.
      key: key of the leaf.
    """
    if not fan:
        return jnp.zeros(shape, dtype)
    bound = 1.0 / math.sqrt(fan)
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def initialize(
    template: Any,
    *,
    kernel: str = "kaiming_normal",
    bias: str = "zeros",
    norm_scale: str = "ones",
    zero_init: tuple[str, ...] = (),
    axes: fan_axes.Axes = None,
    key: Key[Array, ""],
) -> Params:
    r"""Draws all parameters of a network from their names and shapes.

    With fan-in :math:`n` and fan-out :math:`m` (both include the kernel window), the
    distributions of kernels are

    - kaiming: variance :math:`2/n`; glorot: :math:`2/(n+m)`; lecun: :math:`1/n`; each
      either normal (not truncated) or uniform;
    - orthogonal: orthonormal rows or columns, whichever are fewer, of the matrix that
      results from flattening all axes but the last;
    - torch_default: uniform in :math:`\pm 1/\sqrt{n}`, the default of PyTorch's layers.

    Values are drawn in float32 or wider, and then rounded to the dtype of the leaf.

    Args:
      template: parameters, or their shapes from `jax.eval_shape`. Kernels are
        floating-point leaves with at least two axes that are called kernel, weight, w
        or embedding. All other leaves must be called bias or scale, or have a name in
        `TOKENS`, which are drawn from a normal distribution with standard deviation
        0.02.
      kernel: a name in `KERNELS`.
      bias: "zeros"; or "torch_default", uniform in ±1/√n with the fan-in n of the
        kernel in the same layer. Biases of normalization layers are zero in either
        case.
      norm_scale: initial scale of normalization layers: "ones", or "uniform" in [0, 1),
        the default of open_lth.
      zero_init: shell patterns of leaf names to initialize with zeros instead, such as
        the scales of the last normalization in residual blocks.
      axes: which axes of kernels are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes. Each
        matrix of stacked layers and grouped convolutions is drawn separately.
      key: typed key for the whole network.

    Returns:
      Parameters with the nesting, shapes and dtypes of `template`.

    Raises:
      ValueError: if a name is unknown, a pattern matches no leaf, or no rule covers a
        leaf; the message lists the known names or names the leaf.

    Examples:
      >>> layer = {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}
      >>> initialize(layer, key=jax.random.key(0))["bias"]
      Array([0., 0.], dtype=float32)

    Deviations:
      Orthogonal kernels are those of PyTorch up to transposition, that is, equal in
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
    layouts = fan_axes.of_tree(template, axes)
    draw = functools.partial(
        _draw,
        kernel=kernel,
        fans=_fans_by_layer(template, layouts) if bias == "torch_default" else {},
        layouts=layouts,
        norm_scale=norm_scale,
        key=key,
    )
    masks.check_globs(zero_init, masks.names(template), field="zero_init")

    def draw_leaf(name: str, leaf: Any) -> Float[Array, "..."]:
        if masks.matches(name, zero_init):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return draw(name, leaf)

    return tree.map_with_names(draw_leaf, template)


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
    """Draws one leaf.

    Args:
      name: name of the leaf, which determines its key and its kind.
      leaf: the parameter or its shape.
      kernel: a name in `KERNELS`.
      fans: fan-ins by layer name; biases of these layers are random, others zero.
      layouts: layouts of the leaves.
      norm_scale: "ones" or "uniform".
      key: key for the whole network.

    Raises:
      ValueError: if no rule covers the leaf.
    """
    layer, _, last = name.rpartition("/")
    # bfloat16 has 8 bits of precision, so values drawn in it would take few distinct
    # values.
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
        value = TOKEN_STD * jax.random.normal(key, leaf.shape, wide)
    else:
        raise ValueError(
            f"template: {name}: expected a floating-point leaf called bias or scale "
            f"(or {' or '.join(TOKENS)}), or one of two or more axes called "
            f"{', '.join(masks.KERNEL_NAMES)}, got shape {leaf.shape} and dtype "
            f"{leaf.dtype}; remove it from the tree and initialize it separately"
        )
    return value.astype(leaf.dtype)
