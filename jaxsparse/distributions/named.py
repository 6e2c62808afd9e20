"""The named distributions."""

import functools
import math
from collections.abc import Callable
from fractions import Fraction

from jaxsparse import arguments, fan_axes
from jaxsparse.distributions import proportional
from jaxsparse.types import Counts, Masks


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
    return proportional.equally(masks, dense)(sparsity)


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
    return proportional.in_proportion(masks, dense, axes, _sum_of_fans)(sparsity)


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
    return proportional.in_proportion(masks, dense, axes, _sum_of_axes)(sparsity)


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
    return proportional.in_proportion(masks, dense, axes, _one)(sparsity)


def _sum_of_fans(fans: fan_axes.Fans) -> int:
    # The size times the density, up to a common factor: the product of i and o cancels.
    return fans.stack * math.prod(fans.positions) * (fans.inputs + fans.outputs)


def _sum_of_axes(fans: fan_axes.Fans) -> int:
    # The size times the density, up to a common factor: the size of a matrix cancels.
    return fans.stack * (sum(fans.positions) + fans.inputs + fans.outputs)


def _one(fans: fan_axes.Fans) -> int:
    del fans
    return 1


def _make_uniform(
    masks: Masks, dense: tuple[str, ...], axes: fan_axes.Axes
) -> proportional.Divider:
    del axes
    return proportional.equally(masks, dense)


# The named distributions as functions of masks, patterns of dense layers and axes to a
# function of the sparsity.
DIVIDERS: dict[str, Callable[..., proportional.Divider]] = {
    "uniform": _make_uniform,
    "balanced": functools.partial(proportional.in_proportion, weigh=_one),
    "er": functools.partial(proportional.in_proportion, weigh=_sum_of_fans),
    "erk": functools.partial(proportional.in_proportion, weigh=_sum_of_axes),
}
