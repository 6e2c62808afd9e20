"""Distributions: one sparsity for the network in, a count for each layer out.

Everything here runs once, on the host, in exact arithmetic: a float32 or float64
product of a size and a fraction is off by some weights for large layers. `select`
takes the counts; `schedules` says how they change over time.

Inputs, outputs and positions of a layer are those that `fan_axes` says. Every layer
that is not empty keeps at least one weight; where its share is less, the other layers
give up what is missing, so that totals stay exact.
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
    """Turns a sparsity into a number of weights.

    Args:
      total: weights there are.
      sparsity: fraction to remove, in [0, 1), read as the decimal it prints as: 0.9
        is nine tenths and not the nearest binary number.

    Returns:
      total (1 - sparsity), rounded to the nearest integer, halves up.

    Raises:
      ValueError: if the sparsity is not in [0, 1).

    Examples:
      >>> count_kept(25_502_912, 0.999)
      25503
    """
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

    Layers in `dense` are kept whole and on top of that: the sparsity is that of each
    *other* layer, so the network as a whole keeps more than 1 - sparsity. This is
    what RigL's "uniform", which keeps the first layer, means. `erdos_renyi` and
    `erdos_renyi_kernel` hold the sparsity of the whole network instead.

    Args:
      masks: which leaves are prunable; only names and shapes are used.
      sparsity: fraction to remove from each layer that is not dense, in [0, 1).
      dense: shell patterns of leaf names to keep whole.
      axes: not used, since all layers are treated alike; the other rules need it.

    Returns:
      A count for each prunable leaf, None elsewhere. Together the layers that are not
      dense keep exactly `count_kept` of their weights. Each is within one weight of its
      share, but where layers with a share below 1 are raised to 1 at the expense of
      the others.

    Raises:
      ValueError: if the sparsity is not in [0, 1) or leaves less than one weight a
        layer, or if a pattern matches no leaf.

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
    whole = _dense(masks, dense)
    sparse = [size for size, is_whole in zip(sizes, whole, strict=True) if not is_whole]
    target = count_kept(sum(sparse), sparsity) + sum(sizes) - sum(sparse)
    return _divide(masks, sparsity, target, [Fraction(s) for s in sizes], whole)


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

    A layer that this would overfill is kept dense, and the others share what is left.
    Stacked layers and groups of a convolution are matrices of their own: i and o are
    those of one.

    Args:
      masks: which leaves are prunable; only names and shapes are used.
      sparsity: fraction to remove from all prunable weights together, those in
        `dense` included, in [0, 1).
      dense: shell patterns of leaf names to keep whole.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`; None to
        infer them from names and shapes.

    Returns:
      A count for each prunable leaf, None elsewhere. Their sum is exactly
      `count_kept`, and each is within one weight of its share, at least 1.

    Raises:
      ValueError: if the sparsity is not in [0, 1) or leaves less than one weight a
        layer, a pattern matches no leaf, a leaf has fewer than two axes, or the dense
        layers alone keep too many.

    Deviations:
      Mocanu et al. draw each connection with that probability; here the count is its
      expectation, rounded, and where the weights are is up to `select`. No argument
      removes it.

    References:
      Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta. Scalable Training of Artificial
      Neural Networks with Adaptive Sparse Connectivity inspired by Network Science.
      2018. arXiv:1707.04780, equation 3.
    """

    def weigh(fans: fan_axes.Fans) -> int:
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

    For a convolution that is (h + w + i + o) / (h w i o); for a dense layer it is
    `erdos_renyi`. A layer that this would overfill is kept dense, and the others share
    what is left. Heads and head size of an attention are one axis here.

    Args:
      masks: as in `erdos_renyi`.
      sparsity: as in `erdos_renyi`.
      dense: as in `erdos_renyi`.
      axes: as in `erdos_renyi`.

    Returns:
      As `erdos_renyi`.

    Raises:
      ValueError: as `erdos_renyi`.

    Deviations:
      The authors' code rounds each layer on its own; here the total is exact. No
      argument removes it.

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, section 3.
    """

    def weigh(fans: fan_axes.Fans) -> int:
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
    """Gives every layer equally many weights.

    A layer smaller than its share is kept dense, and the others share what is left.

    Args:
      masks: as in `erdos_renyi`.
      sparsity: as in `erdos_renyi`.
      dense: as in `erdos_renyi`.
      axes: not used: inputs and outputs play no part.

    Returns:
      As `erdos_renyi`. Layers that are not kept whole differ by one weight at most.

    Raises:
      ValueError: as `erdos_renyi`.

    Examples:
      >>> masks = {"a": jnp.ones((4, 5), bool), "b": jnp.ones((5, 2), bool)}
      >>> balanced(masks, 0.5), balanced(masks, 0.2)
      ({'a': 8, 'b': 7}, {'a': 14, 'b': 10})

    References:
      Gadhikar, Mukherjee, Burkholz. Why Random Pruning Is All We Need to Start Sparse.
      2023. arXiv:2210.02412.
    """
    return _proportional(masks, sparsity, dense, axes, lambda _: 1)


@arguments.check(masks=arguments.masks, otherwise=arguments.fraction)
def by_glob(
    masks: Masks,
    wanted: Mapping[str, float | int],
    *,
    otherwise: float | Fraction,
) -> Counts:
    """Gives layers a sparsity or a count of their own, and all others one sparsity.

    Args:
      masks: which leaves are prunable; only names and shapes are used.
      wanted: shell patterns of leaf names to a sparsity (a float in [0, 1)) or a count
        of weights to keep (an integer); the first pattern that matches counts.
      otherwise: sparsity of each layer that no pattern matches.

    Returns:
      A count for each prunable leaf, each rounded on its own and at least 1 where a
      sparsity is given; None elsewhere.

    Raises:
      ValueError: if a pattern matches no leaf, or a value does not fit a layer.

    Examples:
      >>> masks = {"a": jnp.ones((4, 5), bool), "b": jnp.ones((5, 6), bool)}
      >>> by_glob(masks, {"b": 12}, otherwise=0.9)
      {'a': 2, 'b': 12}
    """
    masks_lib.check_globs(tuple(wanted), masks_lib.names(masks), field="wanted")

    def count(name: str, leaf: Any) -> int:
        globs = [glob for glob in wanted if masks_lib.matches(name, (glob,))]
        value = wanted[globs[0]] if globs else otherwise
        if not isinstance(value, numbers.Integral):
            return max(count_kept(leaf.size, value), min(1, leaf.size))
        if not 0 <= value <= leaf.size:
            raise ValueError(
                f"wanted[{globs[0]!r}]: got {value} weights for {name}; wanted 0 to "
                f"{leaf.size}, its size; a sparsity is a float"
            )
        return int(value)

    return tree.map_with_names(count, masks)


# The named ways to divide a sparsity; the last two by Erdos and Renyi.
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
    """Divides a sparsity among layers by name, or by a function.

    Args:
      distribution: one of `NAMES`, or a function `(masks, sparsity)` to counts, which
        must be whole numbers known now, from 0 to the size of each leaf. A layer it
        gives 0 is warned of by name.
      masks: which leaves are prunable; only names and shapes are used.
      sparsity: fraction to remove, in [0, 1).
      dense: shell patterns of leaf names to keep whole; for named distributions only.
      axes: as in `erdos_renyi`; for named distributions only.

    Returns:
      A count for each prunable leaf, None elsewhere.

    Raises:
      ValueError: for an unknown name, patterns with a function, counts that do not fit
        the leaves, or as the function.
      TypeError: if a function's counts are no whole numbers.

    Examples:
      >>> masks = {"a": jnp.ones((4, 5), bool), "b": jnp.ones((5, 6), bool)}
      >>> divide("erk", masks, 0.8)
      {'a': 4, 'b': 6}
    """
    if callable(distribution):
        if dense:
            raise ValueError(
                f"dense: got {dense} with a function as distribution; wanted the "
                "function to keep these layers whole, and no patterns"
            )
        return layer_counts.checked(masks, distribution(masks, sparsity))
    if distribution not in NAMES:
        raise ValueError(
            f"distribution: unknown {distribution!r}; did you mean "
            f"{nearest(distribution, list(NAMES))}?"
        )
    return NAMES[distribution](masks, sparsity, dense=dense, axes=axes)


def _proportional(
    masks: Masks,
    sparsity: float | Fraction,
    dense: tuple[str, ...],
    axes: fan_axes.Axes,
    weigh: Weigh,
) -> Counts:
    """Shares the kept weights in proportion to `weigh`, within each layer's size."""
    names, leaves = masks_lib.names(masks), jax.tree.leaves(masks)
    whole, layouts = _dense(masks, dense), fan_axes.of_tree(masks, axes)
    weights = [
        Fraction(weigh(fan_axes.fans(layouts[name], name, leaf.shape)))
        for name, leaf in zip(names, leaves, strict=True)
    ]
    total = sum(leaf.size for leaf in leaves)
    target = count_kept(total, sparsity)
    least = sum(
        leaf.size for leaf, is_whole in zip(leaves, whole, strict=True) if is_whole
    )
    if least > target:
        raise ValueError(
            f"dense: the layers matching {dense} have {least} weights, where sparsity "
            f"{sparsity} keeps {target} of {total}; wanted a lower sparsity or "
            "other dense layers"
        )
    return _divide(masks, sparsity, target, weights, whole)


def _divide(
    masks: Masks,
    sparsity: float | Fraction,
    target: int,
    weights: list[Fraction],
    whole: list[bool],
) -> Counts:
    """Divides a count by weights; refuses one that leaves layers without a weight."""
    sizes = [leaf.size for leaf in jax.tree.leaves(masks)]
    try:
        counts = apportionment.divide(target, sizes, weights, whole)
    except ValueError as error:
        raise ValueError(
            f"sparsity: {sparsity} keeps {target} of {sum(sizes)} weights, too few for "
            f"one in each of {len(sizes)} layers ({sum(whole)} of them whole); wanted "
            "a lower sparsity, fewer dense layers, or fewer prunable ones"
        ) from error
    return jax.tree.unflatten(jax.tree.structure(masks), counts)


def _dense(masks: Masks, dense: tuple[str, ...]) -> list[bool]:
    """Says of each prunable leaf whether it is to be kept whole."""
    names = masks_lib.names(masks)
    masks_lib.check_globs(dense, names, field="dense")
    return [masks_lib.matches(name, dense) for name in names]
