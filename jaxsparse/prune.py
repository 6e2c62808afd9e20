"""Pruning of any pytree of parameters to a given sparsity, in one call.

The parts are those of all other methods: `scores` computes a score for each weight,
`distributions` the number of weights that each layer keeps, and `select` the masks.
`prune` computes the scores once, `prune_iteratively` again before each of many pruning
iterations. Neither trains the network.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxsparse import (
    arguments,
    distributions,
    fan_axes,
    layer_counts,
    scores,
    select,
    tree,
)
from jaxsparse import masks as masks_lib
from jaxsparse.config import nearest
from jaxsparse.types import Counts, Masks, Params, Scores

SCHEDULES = ("exponential", "linear")
EMPTY = "pass min_layer_density, a distribution by layer, or a lower sparsity"
Score = Callable[[Params, Masks], Scores]
Prunable = Callable[[str, Any], bool] | tuple[str, ...]


@arguments.check(
    sparsity=arguments.fraction,
    distribution=arguments.name_or_function,
    score=arguments.function,
    dense=arguments.patterns,
    min_layer_density=arguments.number(0, 1),
)
def prune(
    params: Params,
    sparsity: float,
    *,
    distribution: str | distributions.Distribute = "global",
    score: Score = scores.magnitude,
    prunable: Prunable = masks_lib.is_kernel,
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    min_layer_density: float = 0.0,
    axes: fan_axes.Axes = None,
) -> Masks:
    """Prunes a network to a sparsity by keeping the weights with the highest scores.

    Args:
      params: any tree of parameters.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      distribution: "global" for one threshold over all layers; or the division of the
        sparsity among layers: a name in `distributions.NAMES`, or a function of masks
        and sparsity to counts with the nesting of the masks.
      score: function of parameters and dense masks to a score for each weight; higher
        is better.
      prunable: a function of a leaf's name and the leaf that returns whether the leaf
        is prunable; or shell patterns of leaf names, where a pattern that begins with
        "!" excludes leaves. The default selects floating-point leaves of two or more
        axes that are called kernel, weight, w or embedding.
      dense: shell patterns of leaf names to keep dense. Their weights count toward the
        sparsity, except with "uniform", which keeps them in addition. They need not fit
        the structure.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None prunes single weights. Counts of
        layers are rounded to the nearest that the structure can keep. With "global",
        the total count is rounded likewise.
      min_layer_density: with "global", the minimum density of each layer, in [0, 1],
        rounded up to whole weights; the total count does not change. With 0, as in the
        papers, a layer may lose all its weights, which causes a warning that names it.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes.

    Returns:
      Boolean masks with the nesting of `params`, None at leaves that are not prunable.
      They keep exactly `distributions.count_kept` of the prunable weights, except if a
      structure has counts rounded, with "uniform" and `dense`, or with a function,
      which sets the counts itself. Apply the masks with `masks.apply`, or train with
      `transforms.fixed`.

    Raises:
      ValueError: if the distribution is unknown, the sparsity is out of range, a
        pattern matches no leaf, the dense layers and minimum densities need more
        weights than the sparsity keeps, the count does not fit the structure, or the
        scores are not finite or do not have the shapes of the parameters.
      TypeError: if an argument has a wrong type.

    Warns:
      select.TiedScoresWarning: if more than 1% of the candidates, and more than 10
        weights, have exactly the score at the threshold; with a structure, the weights
        of units whose scores do. Those kept among them are spread evenly over layers
        and positions.
      UserWarning: if a layer keeps no weight.

    Examples:
      >>> ticket = jaxsparse.prune.prune(params, 0.9)
      >>> masks.num_active(ticket), masks.size(ticket)
      (8, 80)
      >>> sparse_params = masks.apply(ticket, params)
    """
    everything = masks_lib.ones(params, prunable=prunable)
    axes = fan_axes.of_tree(params, axes)
    structure = select.bind(structure, params, axes=axes, dense=dense)
    minimums = _floors(everything, min_layer_density, distribution, dense, structure)
    counts = _counts(everything, sparsity, distribution, dense, axes, minimums)
    if _is_pooled(counts):
        [counts] = select.round_totals(structure, everything, [counts], frozen=dense)
    else:
        counts = select.round_counts(structure, everything, counts)
    leaf_scores = _score(score, params, everything)
    masks = _select(leaf_scores, counts, None, dense, structure, minimums)
    # Counting ties needs concrete values. With a structure, units of weights compete,
    # and `count_ties` counts single weights.
    leaves = jax.tree.leaves((leaf_scores, masks))
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    if known:
        ties = select.count_ties(
            leaf_scores,
            masks,
            frozen=dense,
            pooled=_is_pooled(counts),
            structure=structure,
        )
        select.warn_of_ties(ties)
    layer_counts.warn_if_empty(masks, remedy=EMPTY)
    return masks


@arguments.check(
    sparsity=arguments.fraction,
    distribution=arguments.name_or_function,
    score=arguments.function,
    dense=arguments.patterns,
    min_layer_density=arguments.number(0, 1),
    iterations=arguments.integer(1),
    schedule=arguments.one_of(SCHEDULES),
)
def prune_iteratively(
    params: Params,
    sparsity: float,
    *,
    score: Score,
    iterations: int = 100,
    schedule: str = "exponential",
    distribution: str | distributions.Distribute = "global",
    regrow: bool = False,
    prunable: Prunable = masks_lib.is_kernel,
    dense: tuple[str, ...] = (),
    min_layer_density: float = 0.0,
    axes: fan_axes.Axes = None,
) -> Masks:
    r"""Prunes in many small iterations and computes the scores anew before each.

    With :math:`T` iterations and the sparsity :math:`s`, iteration :math:`t` keeps the
    fraction :math:`(1 - s)^{t/T}` of the weights (exponential) or :math:`1 - s \, t/T`
    (linear), rounded to whole weights.

    - SynFlow: `score=scores.synflow` with its further arguments bound, and the
      defaults.
    - Iterative SNIP: `score=scores.snip` with its further arguments bound.
    - FORCE: the same as iterative SNIP, with `regrow=True`.

    Args:
      params: any tree of parameters.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      score: function of parameters and the current masks to a score for each weight;
        higher is better. It is traced once and must be pure.
      iterations: number of times that scores are computed, 1 or more; 1 equals `prune`.
      schedule: how the density falls, "exponential" or "linear".
      distribution: "global" for one threshold over all layers; or the division of the
        sparsity among layers: a name in `distributions.NAMES`, or a function of masks
        and sparsity to counts with the nesting of the masks.
      regrow: whether removed weights may become active again. The scores outside the
        masks are then used, too; the functions in `scores` compute them.
      prunable: a function of a leaf's name and the leaf that returns whether the leaf
        is prunable; or shell patterns of leaf names, where a pattern that begins with
        "!" excludes leaves. The default selects floating-point leaves of two or more
        axes that are called kernel, weight, w or embedding.
      dense: shell patterns of leaf names to keep dense. Their weights count toward the
        sparsity, except with "uniform", which keeps them in addition.
      min_layer_density: with "global", the minimum density of each layer at every
        iteration, in [0, 1], rounded up to whole weights; the total count does not
        change. 0 means no minimum.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes.

    Returns:
      Boolean masks with the nesting of `params`, None at leaves that are not prunable.
      They keep exactly `distributions.count_kept` of the prunable weights, except with
      "uniform" and `dense`, or with a function, which sets the counts itself.

    Raises:
      ValueError: if the distribution or the schedule is unknown, a number is out of
        range, a pattern matches no leaf, the dense layers and minimum densities need
        more weights than the sparsity keeps, or scores do not have the shapes of the
        parameters; or if a score that is used is not finite, naming the layer and the
        iteration.
      TypeError: if an argument has a wrong type.

    Warns:
      select.TiedScoresWarning: if in the last iteration more than 1% of the candidates,
        and more than 10 weights, have exactly the score at the threshold.
      UserWarning: if a layer keeps no weight.

    Examples:
      >>> flow = lambda params, kept: scores.synflow(model.apply, params, kept, (1, 6))
      >>> ticket = prune_iteratively(params, 0.9, score=flow, iterations=5)
      >>> masks.num_active(ticket)
      8

    Deviations:
      If a distribution by layer gives a layer fewer weights at one iteration than at a
      later one because of rounding, its count at the earlier iteration is raised, so
      that no layer grows. No argument restores the original.

    References:
      Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
      iteratively conserving synaptic flow. 2020. arXiv:2006.05467, algorithm 1.

      de Jorge, Sanyal, Behl, Torr, Rogez, Dokania. Progressive Skeletonization:
      Trimming more fat from a network at initialization. 2021. arXiv:2006.09081,
      section 4: FORCE, iterative SNIP and the exponential schedule.
    """
    everything = masks_lib.ones(params, prunable=prunable)
    axes = fan_axes.of_tree(params, axes)
    minimums = _floors(everything, min_layer_density, distribution, dense, None)
    # Built from the last iteration to the first, with counts that never decrease, and
    # reversed below. The last iteration has exactly the count of `prune`.
    plan = [_counts(everything, sparsity, distribution, dense, axes, minimums)]
    for level in reversed(_levels(sparsity, iterations, schedule)):
        counts = _counts(everything, level, distribution, dense, axes, minimums)
        plan.append(jax.tree.map(max, counts, plan[-1]))

    # The counts are read by a traced index, so that all iterations share one compiled
    # program.
    @jax.jit
    def step(
        params: Params, masks: Masks, iteration: Int[Array, ""]
    ) -> tuple[Masks, list[Bool[Array, ""]], dict[str, Any]]:
        counts = _counts_at(masks, plan, iteration, dense)
        leaf_scores = _score(score, params, masks)
        candidates = None if regrow else masks
        considered = everything if regrow else masks
        selected = _select(leaf_scores, counts, candidates, dense, None, minimums)
        ties = select.count_ties(
            leaf_scores,
            selected,
            candidates=candidates,
            frozen=dense,
            pooled=_is_pooled(counts),
        )
        return selected, _finite(leaf_scores, considered), ties

    plan.reverse()
    masks = everything
    for iteration in range(1, iterations + 1):
        masks, finite, ties = step(params, masks, jnp.int32(iteration - 1))
        bad = [
            name
            for name, is_finite in zip(masks_lib.names(masks), finite, strict=True)
            if not is_finite
        ]
        # Under `jit`, selection itself cannot raise an error for scores that are not
        # finite, so it is done here.
        if bad:
            raise ValueError(
                f"score: expected finite numbers, got NaN or infinity in {bad} at "
                f"iteration {iteration} of {iterations}; look for overflow in the loss "
                "or the network"
            )
    select.warn_of_ties(ties)
    layer_counts.warn_if_empty(masks, remedy=EMPTY)
    return masks


def _score(score: Score, params: Params, masks: Masks) -> Scores:
    """Computes scores and arranges them in the nesting of the masks.

    Raises:
      ValueError: if a leaf is missing, unexpected or has another shape.
    """
    fields = ("score", "the prunable leaves of params")
    return tree.match_structure(
        score(params, masks), masks, fields=fields, same_leaves=True
    )


def _is_pooled(counts: Counts) -> bool:
    """Returns whether `counts` is a single count for all layers together."""
    return jax.tree.structure(counts) == jax.tree.structure(0)


def _levels(sparsity: float, iterations: int, schedule: str) -> list[float]:
    """Lists the sparsities of all iterations but the last, whose sparsity is given."""
    parts = [t / iterations for t in range(1, iterations)]
    if schedule == "linear":
        return [sparsity * part for part in parts]
    return [1 - (1 - sparsity) ** part for part in parts]


def _floors(
    masks: Masks,
    density: float,
    distribution: str | distributions.Distribute,
    dense: tuple[str, ...],
    structure: select.Structure | None,
) -> Counts | None:
    """Computes the minimum number of weights of the layers; None without minimum.

    Args:
      masks: dense masks.
      density: minimum density of each layer, in [0, 1].
      distribution: must be "global" if the density is above 0.
      dense: shell patterns of leaf names to keep dense.
      structure: structured sparsity; None for single weights.

    Raises:
      ValueError: if a density above 0 is combined with another distribution.
    """
    if density and distribution != "global":
        raise ValueError(
            f"min_layer_density: expected 0 with distribution {distribution!r}, which "
            f"keeps a weight of every layer, got {density}; use distribution='global'"
        )
    return select.floors(masks, density, frozen=dense, structure=structure)


def _counts(
    masks: Masks,
    sparsity: float,
    distribution: str | distributions.Distribute,
    dense: tuple[str, ...],
    axes: fan_axes.TreeAxes,
    minimums: Counts | None,
) -> Counts:
    """Computes the number of weights to keep, of each layer or over all layers.

    Args:
      masks: dense masks.
      sparsity: fraction to remove, in [0, 1).
      distribution: "global", a name in `distributions.NAMES`, or a function.
      dense: shell patterns of leaf names to keep dense.
      axes: layouts of the leaves.
      minimums: minimum number of weights of each layer; None for no minimum.

    Returns:
      With "global", one integer for all layers that are not dense together. Otherwise a
      count for each prunable leaf.

    Raises:
      ValueError: if the distribution is unknown, a pattern matches no leaf, or the
        dense layers and minimum counts need more weights than the sparsity keeps.
    """
    if distribution != "global":
        if isinstance(distribution, str) and distribution not in distributions.NAMES:
            known = ["global", *distributions.NAMES]
            raise ValueError(
                f"distribution: expected one of {known}, got {distribution!r}; did you "
                f"mean {nearest(distribution, known)}?"
            )
        return distributions.divide(
            distribution, masks, sparsity, dense=dense, axes=axes
        )
    names, leaves = masks_lib.names(masks), jax.tree.leaves(masks)
    masks_lib.check_globs(dense, names, field="dense")
    num_dense = sum(
        leaf.size
        for name, leaf in zip(names, leaves, strict=True)
        if masks_lib.matches(name, dense)
    )
    num_active = distributions.count_kept(masks_lib.size(masks), sparsity)
    if num_dense > num_active:
        raise ValueError(
            f"dense: expected layers of at most {num_active} weights, which sparsity "
            f"{sparsity} keeps, got {num_dense} in the layers matching {dense}; use a "
            "lower sparsity or other dense layers"
        )
    # Without minimums, `minimums` is None, a tree without leaves, and the sum is 0.
    needed = sum(jax.tree.leaves(minimums))
    if needed > num_active - num_dense:
        raise ValueError(
            f"min_layer_density: expected minimums of at most {num_active - num_dense} "
            f"weights, which sparsity {sparsity} leaves to these layers, got {needed}; "
            "use a lower minimum density or a lower sparsity"
        )
    return num_active - num_dense


def _counts_at(
    masks: Masks, plan: list[Counts], index: Int[Array, ""], dense: tuple[str, ...]
) -> Counts:
    """Reads the counts of one iteration by a traced index.

    Args:
      masks: masks of the network; only names and shapes are used.
      plan: counts of every iteration, integers or trees of integers.
      index: number of the iteration, from 0; int32, traced.
      dense: shell patterns of leaf names to keep dense.
    """
    sizes = {name: leaf.size for name, leaf in tree.named_leaves(masks).items()}
    if _is_pooled(plan[0]):
        # The number of competing weights determines whether counts need int64.
        competing = [
            size for name, size in sizes.items() if not tree.matches(name, dense)
        ]
        return select.count_at(plan, index, sum(competing))
    return tree.map_with_names(
        lambda name, *of_leaf: select.count_at(of_leaf, index, sizes[name]), *plan
    )


def _select(
    scores: Scores,
    counts: Counts,
    candidates: Masks | None,
    dense: tuple[str, ...],
    structure: select.Structure | None,
    minimums: Counts | None,
) -> Masks:
    """Selects weights over all layers by a single count, or in each layer by its own.

    Args:
      scores: scores with the nesting of the masks.
      counts: a single count or a count for each leaf.
      candidates: masks of the weights that may be kept; None for all.
      dense: shell patterns of leaf names to keep dense.
      structure: structured sparsity; None for single weights.
      minimums: minimum numbers of weights of the layers, with a single count; None for
        no minimum.
    """
    options = {"candidates": candidates, "frozen": dense, "structure": structure}
    if _is_pooled(counts):
        return select.top_k_global_at_least(scores, counts, minimums, **options)
    return select.top_k_per_layer(scores, counts, **options)


def _finite(scores: Scores, considered: Masks) -> list[Bool[Array, ""]]:
    """Computes per layer whether its scores are finite where `considered` is True."""
    finite = masks_lib.tree_map(
        lambda mask, leaf: jnp.all(jnp.isfinite(leaf) | ~mask), considered, scores
    )
    return jax.tree.leaves(finite)
