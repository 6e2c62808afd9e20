"""Layouts of a Flax linen network, read from the attributes of its layers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxsparse import arguments, masks
from jaxsparse.fan_axes.inference import TreeAxes, of_tree
from jaxsparse.fan_axes.layouts import FanAxes


@arguments.check(apply=arguments.function, params=arguments.weights)
def of_linen(apply: Callable[..., Any], params: Any, *inputs: Any) -> TreeAxes:
    """Finds the layouts of a Flax linen network from its modules.

    Unlike `of_tree`, this function recognizes groups of convolutions, several input
    axes and stacked layers. It reads `nn.Dense`, `DenseGeneral`, `Conv`, `ConvLocal`,
    `ConvTranspose` and `Embed`, also inside `nn.scan`. Layouts of other leaves are
    inferred by `of_tree`.

    Args:
      apply: called as `apply(params, *inputs)`. It must call `apply` of the module
        itself; a function that was compiled before no longer calls the modules.
      params: parameters or their shapes; their names are the paths of the modules.
      *inputs: arrays or `jax.ShapeDtypeStruct`; `apply` is only traced, not evaluated.

    Returns:
      The layout of each leaf.

    Raises:
      TypeError: if `apply` is not a function, or a leaf of `params` is not an array.
      ValueError: if `params` has no leaves.

    Examples:
      >>> depthwise = nn.Conv(8, (3, 3), feature_group_count=4)
      >>> images = jnp.ones((1, 5, 5, 4))
      >>> params = depthwise.init(jax.random.key(0), images)
      >>> axes = of_linen(depthwise.apply, params, images)
      >>> ticket = prune.prune(
      ...     params, 0.5, layers=prune.LayerOptions(distribution="erk", axes=axes)
      ... )
    """
    modules: dict[str, nn.Module] = {}

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        modules["/".join(context.module.path)] = context.module
        return call(*args, **kwargs)

    # JAX caches traces by function. A fresh one is traced, so that modules are called.
    with nn.intercept_methods(watch):
        jax.eval_shape(lambda *given: apply(*given), params, *inputs)
    sizes = map(np.shape, jax.tree.leaves(params))
    shapes = dict(zip(masks.names(params), sizes, strict=True))
    result = []
    for name, inferred in of_tree(params).leaves:
        layer, _, last = name.rpartition("/")
        asked = last in ("kernel", "embedding") and layer in modules
        found = _of_module(modules[layer], len(shapes[name])) if asked else None
        result.append((name, found or inferred))
    return TreeAxes(tuple(result))


def _of_module(module: nn.Module, rank: int) -> FanAxes | None:
    """Returns the layout of a module's kernel or embedding; None for other modules.

    Args:
      module: a Flax linen module.
      rank: number of axes of its kernel or embedding. Leading axes that the module does
        not account for are stacked by `nn.scan`.
    """
    if isinstance(module, nn.DenseGeneral):
        outputs = 1 if isinstance(module.features, int) else len(module.features)
        inputs = 1 if isinstance(module.axis, int) else len(module.axis)
        return FanAxes(
            tuple(range(-outputs - inputs, -outputs)),
            tuple(range(-outputs, 0)),
            stack=tuple(range(rank - outputs - inputs)),
        )
    if isinstance(module, nn.Conv | nn.ConvLocal | nn.ConvTranspose):
        size = module.kernel_size
        window = 1 if isinstance(size, int) else len(size)
        above = tuple(range(rank - window - 2))
        if isinstance(module, nn.ConvTranspose):
            turned = module.transpose_kernel
            inputs, outputs = ((-1,), (-2,)) if turned else ((-2,), (-1,))
            return FanAxes(inputs, outputs, stack=above)
        if isinstance(module, nn.ConvLocal):  # separate weights at every position
            return FanAxes((-2,), (-1,), stack=tuple(range(rank - 2)))
        return FanAxes((-2,), (-1,), stack=above, groups=module.feature_group_count)
    if isinstance(module, nn.Dense | nn.Embed):
        return FanAxes((-2,), (-1,), stack=tuple(range(rank - 2)))
    return None
