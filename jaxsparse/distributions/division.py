"""Divides a sparsity by a distribution of any kind: a name or a function."""

from collections.abc import Callable
from fractions import Fraction

from jaxsparse import arguments, fan_axes, layer_counts
from jaxsparse.config import nearest
from jaxsparse.distributions.named import (
    DIVIDERS,
    balanced,
    erdos_renyi,
    erdos_renyi_kernel,
    uniform,
)
from jaxsparse.distributions.proportional import Divider
from jaxsparse.types import Counts, Masks

Distribute = Callable[..., Counts]

# The named distributions; "er" and "erk" stand for Erdos-Renyi and its kernel variant.
NAMES: dict[str, Distribute] = {
    "uniform": uniform,
    "balanced": balanced,
    "er": erdos_renyi,
    "erk": erdos_renyi_kernel,
}


@arguments.check(
    distribution=arguments.name_or_function,
    masks=arguments.masks,
    sparsity=arguments.fraction,
    dense=arguments.patterns,
)
def divide(
    distribution: str | Distribute,
    masks: Masks,
    sparsity: float | Fraction,
    *,
    dense: tuple[str, ...] = (),
    axes: fan_axes.Axes = None,
) -> Counts:
    """Divides a sparsity among layers by a named distribution or a function.

    Args:
      distribution: a name in `NAMES`, or a function of masks and sparsity to counts
        with the nesting of the masks. Its counts must be concrete integers from 0 to
        the size of each leaf. A layer with the count 0 causes a warning that names it.
      masks: defines the prunable leaves; only names and shapes are used.
      sparsity: fraction to remove, in [0, 1).
      dense: shell patterns of leaf names to keep dense; for named distributions only.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes. A function
        does not receive them.

    Returns:
      A count for each prunable leaf, None elsewhere.

    Raises:
      ValueError: if the name is unknown, `dense` is combined with a function, a
        function's counts do not fit the leaves, or the distribution itself raises it.
      TypeError: if a function's counts are not concrete integers.

    Examples:
      >>> masks = {"a": jnp.ones((4, 5), bool), "b": jnp.ones((5, 6), bool)}
      >>> divide("erk", masks, 0.6)
      {'a': 9, 'b': 11}
    """
    return make_divider(distribution, masks, dense=dense, axes=axes)(sparsity)


@arguments.check(
    distribution=arguments.name_or_function,
    masks=arguments.masks,
    dense=arguments.patterns,
)
def make_divider(
    distribution: str | Distribute,
    masks: Masks,
    *,
    dense: tuple[str, ...] = (),
    axes: fan_axes.Axes = None,
) -> Divider:
    """Makes the function that divides any sparsity among layers, as `divide` does.

    Names, shapes and layouts are read once. It suits long tables of sparsities.

    Args:
      distribution: a name in `NAMES`, or a function of masks and sparsity to counts.
      masks: defines the prunable leaves; only names and shapes are used.
      dense: shell patterns of leaf names to keep dense; for named distributions only.
      axes: which axes of the leaves are inputs and outputs; None to infer them from
        names and shapes.

    Returns:
      A function of a sparsity in [0, 1) to a count for each prunable leaf, None
      elsewhere.

    Raises:
      ValueError: if the name is unknown, `dense` is combined with a function, or a
        pattern matches no leaf.

    Examples:
      >>> masks = {"a": jnp.ones((4, 5), bool), "b": jnp.ones((5, 6), bool)}
      >>> divide_by_size = make_divider("erk", masks)
      >>> divide_by_size(0.6), divide_by_size(0.2)
      ({'a': 9, 'b': 11}, {'a': 18, 'b': 22})
    """
    if callable(distribution):
        if dense:
            raise ValueError(
                f"dense: expected no patterns with a function as distribution, got "
                f"{dense}; let the function keep these layers dense"
            )
        return lambda sparsity: layer_counts.checked(
            masks, distribution(masks, sparsity)
        )
    if distribution not in NAMES:
        raise ValueError(
            f"distribution: expected one of {list(NAMES)}, got {distribution!r}; did "
            f"you mean {nearest(distribution, list(NAMES))}?"
        )
    return DIVIDERS[distribution](masks, dense, axes)
