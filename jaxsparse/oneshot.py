"""Pruning any pytree of parameters to a given sparsity, in one call.

The pieces are those of every other method: `scores` for what a weight is worth,
`distributions` for how many each layer keeps, `select` for which. `prune` asks for the
scores once, `prune_iteratively` again and again while the network thins; neither
trains.
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
    """Chooses the masks that keep the best weights.

    Args:
      params: any pytree of parameters.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      distribution: "global" for one threshold over all layers, or how the sparsity is
        divided among layers: a name of `distributions.NAMES`, or a function of masks
        and sparsity to counts.
      score: called with parameters and dense masks; higher is better.
      prunable: see `masks.dense`.
      dense: shell patterns of leaf names to keep whole. Their weights count towards
        the sparsity, but for "uniform", where they come on top. They need not fit the
        structure.
      structure: which weights stand or fall together, see `select`. Counts are then
        the nearest that it can have.
      min_layer_density: for "global", the part of its weights, in [0, 1], that each
        layer keeps at least, rounded up; the total stays the same. 0, as in the
        papers, lets a layer end empty, which is warned of by name.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`; None to
        infer them from names and shapes.

    Returns:
      Masks that keep exactly `distributions.count_kept` of the prunable weights; give
      them to `masks.apply`, or to `transforms.fixed` to train on.

    Raises:
      ValueError: for an unknown distribution, a sparsity out of range, a pattern that
        matches no leaf, dense layers and floors that alone keep too many, or scores
        that are not finite or not one a weight.

    Warns:
      select.TiedScoresWarning: if more than 1 % of the weights that compete, and more
        than 10, have exactly the score at the threshold. Which of them are kept is
        spread evenly over layers and positions.

    Examples:
      >>> ticket = prune(params, 0.9)
      >>> sparse_params = masks.apply(ticket, params)
    """
    everything = masks_lib.dense(params, prunable=prunable)
    axes = fan_axes.of_tree(params, axes)
    structure = select.bind(structure, params, axes=axes, dense=dense)
    least = _floors(everything, min_layer_density, distribution, dense, structure)
    counts = _counts(everything, sparsity, distribution, dense, axes, least)
    if structure is not None and distribution != "global":
        counts = select.fit(structure, everything, counts)
    worth = _score(score, params, everything)
    masks = _select(worth, counts, None, dense, structure, least)
    leaves = jax.tree.leaves((worth, masks))
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    if structure is None and known:
        pooled = _is_pooled(counts)
        ties = select.count_ties(worth, masks, ignored=dense, pooled=pooled)
        select.warn_of_ties(ties, stacklevel=3)
    layer_counts.warn_if_empty(masks, remedy=EMPTY, stacklevel=3)
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
    r"""Prunes in many small steps, with new scores of what is left before each.

    With :math:`T` iterations and the sparsity :math:`s`, iteration :math:`t` keeps the
    fraction :math:`(1 - s)^{t/T}` of the weights (exponential) or
    :math:`1 - s \, t/T` (linear), rounded to whole weights.

    - SynFlow: `score=scores.synflow`, with what else it takes bound, and the rest as
      it is.
    - Iterative SNIP: `score=scores.snip`.
    - FORCE: that and `regrow=True`.

    Args:
      params: as in `prune`.
      sparsity: as in `prune`.
      score: called with parameters and the masks so far; higher is better. It is traced
        once, and so must be pure.
      iterations: how often scores are computed, 1 or more; once is `prune`.
      schedule: how the density falls, "exponential" or "linear".
      distribution: as in `prune`.
      regrow: let weights return that were removed. The score is then read outside the
        masks too; those of `scores` serve.
      prunable: as in `prune`.
      dense: as in `prune`.
      min_layer_density: as in `prune`, at every iteration.
      axes: as in `prune`.

    Returns:
      As `prune`.

    Raises:
      ValueError: as `prune`; for an unknown schedule or no iterations; or if a score
        is not finite where it is read, naming the layer and the iteration.

    Warns:
      select.TiedScoresWarning: as `prune`, for the last iteration.

    Examples:
      >>> flow = lambda p, m: scores.synflow(model.apply, p, m, (1, 28, 28, 1))
      >>> ticket = prune_iteratively(params, 0.99, score=flow)

    Deviations:
      Layer by layer, the counts before the last are raised where rounding would have
      let a layer grow again. No argument removes it.

    References:
      Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
      iteratively conserving synaptic flow. 2020. arXiv:2006.05467, algorithm 1.

      de Jorge, Sanyal, Behl, Torr, Rogez, Dokania. Progressive Skeletonization:
      Trimming more fat from a network at initialization. 2021. arXiv:2006.09081,
      section 4: FORCE, iterative SNIP and the exponential schedule.
    """
    everything = masks_lib.dense(params, prunable=prunable)
    axes = fan_axes.of_tree(params, axes)
    least = _floors(everything, min_layer_density, distribution, dense, None)
    plan = [_counts(everything, sparsity, distribution, dense, axes, least)]
    for level in reversed(_levels(sparsity, iterations, schedule)):
        counts = _counts(everything, level, distribution, dense, axes, least)
        plan.append(jax.tree.map(max, counts, plan[-1]))

    @jax.jit
    def step(
        params: Params, masks: Masks, iteration: Int[Array, ""]
    ) -> tuple[Masks, list[Bool[Array, ""]], dict[str, Any]]:
        counts = _look_up(masks, plan, iteration, dense)
        worth = _score(score, params, masks)
        within = None if regrow else masks
        read = everything if regrow else masks
        kept = _select(worth, counts, within, dense, None, least)
        ties = select.count_ties(
            worth, kept, within=within, ignored=dense, pooled=_is_pooled(counts)
        )
        return kept, _finite(worth, read), ties

    plan.reverse()
    masks = everything
    for iteration in range(1, iterations + 1):
        masks, finite, ties = step(params, masks, jnp.int32(iteration - 1))
        bad = [
            name
            for name, is_finite in zip(masks_lib.names(masks), finite, strict=True)
            if not is_finite
        ]
        if bad:
            raise ValueError(
                f"score: not finite in {bad} at iteration {iteration} of {iterations}; "
                "wanted numbers; look for overflow in the loss or the network"
            )
    select.warn_of_ties(ties, stacklevel=3)
    layer_counts.warn_if_empty(masks, remedy=EMPTY, stacklevel=3)
    return masks


def _score(score: Score, params: Params, masks: Masks) -> Scores:
    """Computes scores and gives them the nesting of the masks, if they fit."""
    fields = ("score", "the prunable leaves of params")
    return tree.match_structure(
        score(params, masks), masks, fields=fields, same_leaves=True
    )


def _is_pooled(counts: Counts) -> bool:
    """Returns whether one count is for all layers together."""
    return jax.tree.structure(counts) == jax.tree.structure(0)


def _levels(sparsity: float, iterations: int, schedule: str) -> list[float]:
    """Lists the sparsity of every iteration but the last, which is the one given."""
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
    """Counts what each layer keeps at least; None for no floors."""
    if density and distribution != "global":
        raise ValueError(
            f"min_layer_density: got {density} with distribution {distribution!r}; "
            "wanted 'global', as the others keep a weight of every layer"
        )
    return select.floors(masks, density, ignored=dense, structure=structure)


def _counts(
    masks: Masks,
    sparsity: float,
    distribution: str | distributions.Distribute,
    dense: tuple[str, ...],
    axes: fan_axes.TreeAxes,
    least: Counts | None,
) -> Counts:
    """Counts what to keep: of each layer, or of all together that are not dense."""
    if distribution != "global":
        if isinstance(distribution, str) and distribution not in distributions.NAMES:
            known = ["global", *distributions.NAMES]
            raise ValueError(
                f"distribution: unknown {distribution!r}; did you mean "
                f"{nearest(distribution, known)}?"
            )
        return distributions.divide(
            distribution, masks, sparsity, dense=dense, axes=axes
        )
    names, leaves = masks_lib.names(masks), jax.tree.leaves(masks)
    masks_lib.check_globs(dense, names, field="dense")
    whole = sum(
        leaf.size
        for name, leaf in zip(names, leaves, strict=True)
        if masks_lib.matches(name, dense)
    )
    kept = distributions.count_kept(masks_lib.total(masks), sparsity)
    if whole > kept:
        raise ValueError(
            f"dense: the layers matching {dense} have {whole} weights, where sparsity "
            f"{sparsity} keeps {kept}; wanted a lower sparsity or other dense layers"
        )
    needed = sum(jax.tree.leaves(least))
    if needed > kept - whole:
        raise ValueError(
            f"min_layer_density: the layers need {needed} weights at least, "
            f"where sparsity {sparsity} leaves {kept - whole}; wanted a lower density "
            "or a lower sparsity"
        )
    return kept - whole


def _look_up(
    masks: Masks, plan: list[Counts], index: Int[Array, ""], dense: tuple[str, ...]
) -> Counts:
    """Reads the traced counts of one iteration."""
    sizes = {name: leaf.size for name, leaf in tree.named_leaves(masks).items()}
    if _is_pooled(plan[0]):
        free = [size for name, size in sizes.items() if not tree.matches(name, dense)]
        return select.look_up(plan, index, sum(free))
    return tree.map_with_names(
        lambda name, *of_leaf: select.look_up(of_leaf, index, sizes[name]), *plan
    )


def _select(
    worth: Scores,
    counts: Counts,
    within: Masks | None,
    dense: tuple[str, ...],
    structure: select.Structure | None,
    least: Counts | None,
) -> Masks:
    """Selects from all layers by one count, or from each by a tree of them."""
    options = {"within": within, "ignored": dense, "structure": structure}
    if _is_pooled(counts):
        return select.globally_at_least(worth, counts, least, **options)
    return select.per_layer(worth, counts, **options)


def _finite(worth: Scores, read: Masks) -> list[Bool[Array, ""]]:
    """Says of each layer whether all scores that are read are finite."""
    finite = masks_lib.tree_map(
        lambda mask, leaf: jnp.all(jnp.isfinite(leaf) | ~mask), read, worth
    )
    return jax.tree.leaves(finite)
