"""Distributions: division of one sparsity of the network into a count for each layer.

All functions run once, on the host, in exact arithmetic, because in float32 or float64
the product of a size and a fraction is off by some weights for large layers. `select`
selects weights by the counts, and `transforms` defines how counts change over time.

The inputs, outputs and kernel positions of a layer are defined by `fan_axes`. The named
distributions keep at least one weight in every layer that is not empty. Where a layer's
share is below one weight, the other layers get correspondingly less, so that the total
stays exact.
"""

import math
import numbers
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import jax

from jaxsparse import apportionment, arguments, fan_axes, layer_counts, tree
from jaxsparse import masks as masks_lib
from jaxsparse.config import nearest
from jaxsparse.types import Counts, Masks

Weigh = Callable[[fan_axes.Fans], int]
Distribute = Callable[..., Counts]


@arguments.check(total=arguments.integer(0), sparsity=arguments.fraction)
def count_kept(total: int, sparsity: float | Fraction) -> int:
    """Computes the number of weights that a sparsity keeps.

    Args:
      total: number of weights, 0 or more.
      sparsity: fraction to remove, in [0, 1). It is read as the decimal number that it
        is printed as: 0.9 means nine tenths and not the nearest binary number.

    Returns:
      total (1 - sparsity), rounded to the nearest integer; halves are rounded up.

    Raises:
      ValueError: if the sparsity is not in [0, 1) or the total is negative.
      TypeError: if the total is not an integer or the sparsity is not a number.

    Examples:
      >>> count_kept(25_502_912, 0.999)
      25503
    """
    # `str` gives the shortest decimal that reads back as the same float: Fraction(0.9)
    # would be the binary number nearest to 0.9.
    return math.floor(total * (1 - Fraction(str(sparsity))) + Fraction(1, 2))


@arguments.check(
    masks=arguments.masks, sparsity=arguments.fraction, dense=arguments.patterns
)
def uniform(
    masks: Masks,
    sparsity: float | Fraction,
    *,
    dense: tuple[str, ...] = (),
    axes: fan_axes.Axes = None,
) -> Counts:
    """Gives every layer the same sparsity.

    The weights of layers in `dense` are kept in addition: the sparsity is that of each
    *other* layer, so the whole network keeps more than 1 - sparsity. This is the
    "uniform" of RigL, which keeps the first layer dense. With `balanced`, `erdos_renyi`
    and `erdos_renyi_kernel`, by contrast, the sparsity is that of the whole network.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      sparsity: fraction to remove from each layer that is not dense, in [0, 1).
      dense: shell patterns of leaf names to keep dense.
      axes: not used. It is accepted so that all named distributions have the same
        arguments.

    Returns:
      A count for each prunable leaf, None elsewhere. The layers that are not dense
      together keep exactly `count_kept` of their weights. Each count is within one
      weight of the layer's share, unless layers with a share below 1 are raised to 1 at
      the expense of the others.

    Raises:
      ValueError: if the sparsity is not in [0, 1) or leaves less than one weight per
        layer, or if a pattern matches no leaf.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> masks = {"a": jnp.ones((4, 5), bool), "b": jnp.ones((5, 6), bool)}
      >>> uniform(masks, 0.9, dense=("b",))
      {'a': 2, 'b': 30}

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, section 3.
    """
    del axes
    sizes = [leaf.size for leaf in jax.tree.leaves(masks)]
    is_dense = _dense(masks, dense)
    sparse = [size for size, fixed in zip(sizes, is_dense, strict=True) if not fixed]
    # The division gives dense layers their size, so the target includes it.
    target = count_kept(sum(sparse), sparsity) + sum(sizes) - sum(sparse)
    return _divide(masks, sparsity, target, [Fraction(s) for s in sizes], is_dense)


@arguments.check(
    masks=arguments.masks, sparsity=arguments.fraction, dense=arguments.patterns
)
def erdos_renyi(
    masks: Masks,
    sparsity: float | Fraction,
    *,
    dense: tuple[str, ...] = (),
    axes: fan_axes.Axes = None,
) -> Counts:
    """Gives a layer of i inputs, o outputs a density in proportion to (i + o) / (i o).

    A layer whose share exceeds its size is kept dense, and the others share the rest.
    In stacked layers and grouped convolutions, i and o are those of a single matrix.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      sparsity: fraction to remove from all prunable weights together, including those
        in `dense`, in [0, 1).
      dense: shell patterns of leaf names to keep dense.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes.

    Returns:
      A count for each prunable leaf, None elsewhere. Their sum is exactly `count_kept`,
      and each is within one weight of its share, at least 1.

    Raises:
      ValueError: if the sparsity is not in [0, 1) or leaves less than one weight per
        layer, a pattern matches no leaf, a leaf has fewer than two axes, or the dense
        layers alone have more weights than the sparsity keeps.
      TypeError: if an argument has a wrong type.

    Deviations:
      Mocanu et al. draw each connection independently with this probability. Here the
      count is the expectation of theirs, rounded, and `select` chooses the positions.
      No argument restores the original.

    References:
      Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta. Scalable Training of Artificial
      Neural Networks with Adaptive Sparse Connectivity inspired by Network Science.
      2018. arXiv:1707.04780, equation 3.
    """

    def weigh(fans: fan_axes.Fans) -> int:
        # The size times the density, up to a common factor: the product of i and o
        # cancels.
        return fans.stack * math.prod(fans.positions) * (fans.inputs + fans.outputs)

    return _proportional(masks, sparsity, dense, axes, weigh)


@arguments.check(
    masks=arguments.masks, sparsity=arguments.fraction, dense=arguments.patterns
)
def erdos_renyi_kernel(
    masks: Masks,
    sparsity: float | Fraction,
    *,
    dense: tuple[str, ...] = (),
    axes: fan_axes.Axes = None,
) -> Counts:
    """Gives a layer a density in proportion to the sum of its axes over its size.

    For a convolution with kernel size (h, w), i inputs and o outputs, this is (h + w +
    i + o) / (h w i o). For a dense layer it equals `erdos_renyi`. A layer whose share
    exceeds its size is kept dense, and the others share the rest. The heads and the
    head size of an attention layer together count as one axis.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      sparsity: fraction to remove from all prunable weights together, including those
        in `dense`, in [0, 1).
      dense: shell patterns of leaf names to keep dense.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes.

    Returns:
      A count for each prunable leaf, None elsewhere. Their sum is exactly `count_kept`,
      and each is within one weight of its share, at least 1.

    Raises:
      ValueError: if the sparsity is not in [0, 1) or leaves less than one weight per
        layer, a pattern matches no leaf, a leaf has fewer than two axes, or the dense
        layers alone have more weights than the sparsity keeps.
      TypeError: if an argument has a wrong type.

    Deviations:
      The authors' code rounds each layer separately; here the total is exact. No
      argument restores the original.

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, section 3.
    """

    def weigh(fans: fan_axes.Fans) -> int:
        # The size times the density, up to a common factor: the size of a matrix
        # cancels.
        return fans.stack * (sum(fans.positions) + fans.inputs + fans.outputs)

    return _proportional(masks, sparsity, dense, axes, weigh)


@arguments.check(
    masks=arguments.masks, sparsity=arguments.fraction, dense=arguments.patterns
)
def balanced(
    masks: Masks,
    sparsity: float | Fraction,
    *,
    dense: tuple[str, ...] = (),
    axes: fan_axes.Axes = None,
) -> Counts:
    """Gives every layer the same number of weights.

    A layer smaller than its share is kept dense, and the others share the rest.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      sparsity: fraction to remove from all prunable weights together, including those
        in `dense`, in [0, 1).
      dense: shell patterns of leaf names to keep dense.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts. They do not change the counts.

    Returns:
      A count for each prunable leaf, None elsewhere. Their sum is exactly `count_kept`,
      and the counts of layers that are not kept dense differ by at most one weight.

    Raises:
      ValueError: if the sparsity is not in [0, 1) or leaves less than one weight per
        layer, a pattern matches no leaf, a leaf has fewer than two axes, or the dense
        layers alone have more weights than the sparsity keeps.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> masks = {"a": jnp.ones((4, 5), bool), "b": jnp.ones((5, 2), bool)}
      >>> balanced(masks, 0.5), balanced(masks, 0.2)
      ({'a': 8, 'b': 7}, {'a': 14, 'b': 10})

    References:
      Gadhikar, Mukherjee, Burkholz. Why Random Pruning Is All We Need to Start Sparse.
      2023. arXiv:2210.02412.
    """
    return _proportional(masks, sparsity, dense, axes, lambda _: 1)


@arguments.check(
    masks=arguments.masks,
    values=arguments.instance(Mapping),
    otherwise=arguments.fraction,
)
def by_glob(
    masks: Masks,
    values: Mapping[str, float | int],
    *,
    otherwise: float | Fraction,
) -> Counts:
    """Gives some layers their own sparsity or count, and all others a common sparsity.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      values: for shell patterns of leaf names, a sparsity (a float in [0, 1)) or a
        number of weights to keep (an integer). The first pattern that matches a name
        applies.
      otherwise: sparsity of each layer that no pattern matches, in [0, 1).

    Returns:
      A count for each prunable leaf, None elsewhere. Each is rounded separately. Layers
      with a sparsity keep at least 1 weight unless they are empty; an explicit count
      may be 0.

    Raises:
      ValueError: if a pattern matches no leaf, or a sparsity or count is out of range
        for a layer.
      TypeError: if a value is not a number, or is a boolean.

    Examples:
      >>> masks = {"a": jnp.ones((4, 5), bool), "b": jnp.ones((5, 6), bool)}
      >>> by_glob(masks, {"b": 12}, otherwise=0.9)
      {'a': 2, 'b': 12}
    """
    masks_lib.check_globs(tuple(values), masks_lib.names(masks), field="values")

    def count(name: str, leaf: Any) -> int:
        globs = [glob for glob in values if masks_lib.matches(name, (glob,))]
        value = values[globs[0]] if globs else otherwise
        # The type decides, not the value: 1 is a single weight, and 1.0 is a sparsity
        # that is out of range.
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            if globs:
                arguments.fraction(f"values[{globs[0]!r}]", value)
            return max(count_kept(leaf.size, value), min(1, leaf.size))
        if not 0 <= value <= leaf.size:
            raise ValueError(
                f"values[{globs[0]!r}]: expected 0 to {leaf.size} weights for {name}, "
                f"its size, got {value}; write a sparsity as a float"
            )
        return int(value)

    return tree.map_with_names(count, masks)


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
    if callable(distribution):
        if dense:
            raise ValueError(
                f"dense: expected no patterns with a function as distribution, got "
                f"{dense}; let the function keep these layers dense"
            )
        return layer_counts.checked(masks, distribution(masks, sparsity))
    if distribution not in NAMES:
        raise ValueError(
            f"distribution: expected one of {list(NAMES)}, got {distribution!r}; did "
            f"you mean {nearest(distribution, list(NAMES))}?"
        )
    return NAMES[distribution](masks, sparsity, dense=dense, axes=axes)


def _proportional(
    masks: Masks,
    sparsity: float | Fraction,
    dense: tuple[str, ...],
    axes: fan_axes.Axes,
    weigh: Weigh,
) -> Counts:
    """Divides the kept weights among layers in proportion to `weigh`.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      sparsity: fraction to remove from all prunable weights together, in [0, 1).
      dense: shell patterns of leaf names to keep dense.
      axes: which axes of the leaves are inputs and outputs; None to infer them.
      weigh: function of the fans of a leaf to its proportion.

    Returns:
      A count for each prunable leaf, None elsewhere.

    Raises:
      ValueError: if no division keeps the dense layers and one weight in each other
        layer.
    """
    names, leaves = masks_lib.names(masks), jax.tree.leaves(masks)
    is_dense, layouts = _dense(masks, dense), fan_axes.of_tree(masks, axes)
    weights = [
        Fraction(weigh(fan_axes.fans(layouts[name], name, leaf.shape)))
        for name, leaf in zip(names, leaves, strict=True)
    ]
    total = sum(leaf.size for leaf in leaves)
    target = count_kept(total, sparsity)
    # Checked here and not in `_divide`, so that the message names the dense layers.
    num_dense = sum(
        leaf.size for leaf, fixed in zip(leaves, is_dense, strict=True) if fixed
    )
    if num_dense > target:
        raise ValueError(
            f"dense: expected layers of at most {target} weights, which sparsity "
            f"{sparsity} keeps of {total}, got {num_dense} in the layers matching "
            f"{dense}; use a lower sparsity or other dense layers"
        )
    return _divide(masks, sparsity, target, weights, is_dense)


def _divide(
    masks: Masks,
    sparsity: float | Fraction,
    target: int,
    weights: list[Fraction],
    is_dense: list[bool],
) -> Counts:
    """Divides a count by weights; raises if it is too low for one weight in each layer.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      sparsity: fraction to remove, for the error message.
      target: number of weights to keep.
      weights: proportion of each prunable leaf, in the order of leaves.
      is_dense: which prunable leaves are kept dense, in the order of leaves.

    Returns:
      A count for each prunable leaf, None elsewhere.

    Raises:
      ValueError: if the target is too low.
    """
    sizes = [leaf.size for leaf in jax.tree.leaves(masks)]
    try:
        counts = apportionment.divide(target, sizes, weights, is_dense)
    except ValueError as error:
        raise ValueError(
            f"sparsity: expected one weight or more for each of {len(sizes)} layers, "
            f"{sum(is_dense)} of them dense, got {sparsity}, which keeps {target} of "
            f"{sum(sizes)} weights; use a lower sparsity, fewer dense layers, or fewer "
            "prunable ones"
        ) from error
    return jax.tree.unflatten(jax.tree.structure(masks), counts)


def _dense(masks: Masks, dense: tuple[str, ...]) -> list[bool]:
    """Returns for each prunable leaf whether it is kept dense."""
    names = masks_lib.names(masks)
    masks_lib.check_globs(dense, names, field="dense")
    return [masks_lib.matches(name, dense) for name in names]
