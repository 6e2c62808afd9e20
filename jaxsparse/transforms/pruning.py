"""Pruning methods, and training with fixed masks, as optimizer wrappers."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from jaxsparse import arguments, fan_axes, scores, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import grow, magnitude, update_schedules
from jaxsparse.transforms import init_masks as init_masks_lib
from jaxsparse.transforms.init_masks import Distribution, Prunable
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Grads, Masks, Params, RandomKey, Step


def fixed(
    inner: optax.GradientTransformation,
    *,
    masks: Masks | None = None,
    prunable: Prunable = masks_lib.is_kernel,
) -> optax.GradientTransformationExtraArgs:
    """Trains with masks that never change: tickets, and pruning at initialization.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      masks: boolean masks with the leaf names and shapes of the parameters; None where
        a leaf is not prunable. Without this argument all weights are active.
        `replace_masks` can replace the masks at any time without recompilation.
      prunable: which leaves have masks when `masks` is None: a function of a leaf's
        name and the leaf, or shell patterns of leaf names, where a pattern that begins
        with "!" excludes leaves. The default selects leaves called kernel, weight, w or
        embedding that have a floating-point dtype and at least two axes.

    Returns:
      The wrapped optimizer, which keeps weights outside the masks at exactly zero.

    Raises:
      ValueError: if both `masks` and `prunable` are given; from `init`, if a mask is
        missing, is not boolean, or has another shape than its parameter.

    Examples:
      >>> ticket = prune.prune(params, 0.9)
      >>> tx = transforms.fixed(optax.adamw(1e-3), masks=ticket)
      >>> opt_state = tx.init(params)
      >>> params = masks.apply(ticket, params)  # updates keep the zeros
    """
    if masks is None:
        return sparsify(inner, lambda params: masks_lib.ones(params, prunable=prunable))
    if prunable is not masks_lib.is_kernel:
        raise ValueError(
            f"prunable: expected no value together with masks, which are None where a "
            f"leaf is not prunable, got {prunable}"
        )

    def init_masks(params: Params) -> Masks:
        masks_lib.check_boolean(masks, remedy="make masks with masks.ones")
        # Matched by leaf names: masks and parameters may differ in their node types.
        fitted = tree.match_structure(masks, params, fields=("masks", "params"))
        # A copy: donating the state must not delete the caller's masks.
        return jax.tree.map(jnp.copy, fitted)

    return sparsify(inner, init_masks)


@arguments.check(
    sparsity=arguments.real,
    initial_sparsity=arguments.real,
    schedule=arguments.name_function_or_table,
    min_layer_density=arguments.real,
)
def gradual_magnitude(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    begin_step: int,
    end_step: int,
    update_every: int = 100,
    initial_sparsity: float = 0.0,
    schedule: str | Callable[[float], float] | Sequence[float] = "cubic",
    distribution: Distribution = "uniform",
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    min_layer_density: float = 0.0,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
) -> optax.GradientTransformationExtraArgs:
    """Prunes the smallest weights gradually until the target sparsity is reached.

    Masks are nested: a pruned weight never becomes active again. For a variant in which
    it may, use `straight_through` with the same schedule.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove by `end_step`, in [0, 1).
      begin_step: step of the first mask update, counted from 0.
      end_step: step of the last mask update, which reaches exactly `sparsity`, whatever
        `update_every` is; equal to `begin_step` to prune once. The mask update takes
        place before the optimizer step with this number. Training for N steps therefore
        reaches `sparsity` only if `end_step` is at most N - 1.
      update_every: steps between mask updates, at least 1.
      initial_sparsity: sparsity from step 0 on, by magnitude pruning of the initial
        weights; in [0, sparsity].
      schedule: "cubic", "linear" or "exponential"; or a function of the progress in
        [0, 1] that returns which fraction of the way from `initial_sparsity` to
        `sparsity` is done; or a sequence with the sparsity after each mask update.
        Sparsities must not decrease.
      distribution: "global" for one threshold over all layers; or how the active
        weights are divided among layers: a name in `distributions.NAMES` ("uniform",
        "balanced", "er" or "erk"), or a function of masks and sparsity that returns the
        number of active weights of each layer.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: mask updates do not change them, and they need not fit `structure`. Must
        be empty if `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one. With
        distribution "global", it must be `blocks` or `channels`, with units of the same
        size in all layers.
      min_layer_density: minimum density of each layer, in [0, 1], rounded up to whole
        weights or structural units; other layers are pruned more to compensate. Only
        for distribution "global". With 0, as in the papers, a layer may lose all of its
        weights. Nothing can warn of that inside a compiled step: in a training loop of
        your own, pass a density above 0, or call `layer_counts.warn_if_empty` with the
        masks after the last mask update.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.

    Returns:
      The wrapped optimizer. At every step the number of active weights is exactly that
      of the schedule; with `structure`, it is rounded to whole units.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = transforms.gradual_magnitude(
      ...     optax.sgd(0.1, 0.9), sparsity=0.95, begin_step=3000, end_step=7000
      ... )
      >>> opt_state = tx.init(params)

    References:
      Zhu, Gupta. To prune, or not to prune: exploring the efficacy of pruning for model
      compression. 2017. arXiv:1710.01878, equation 1.
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    table = update_schedules.gradual_sparsities(
        update_schedule, initial=initial_sparsity, final=sparsity, schedule=schedule
    )
    # Masks are nested, so a lower sparsity could not be reached later.
    _check_rising([Fraction(str(initial_sparsity)), *table])
    mask_fn = magnitude.make_mask_fn(
        distribution=distribution,
        dense=dense,
        structure=structure,
        min_layer_density=min_layer_density,
        axes=axes,
    )

    def init_masks(params: Params) -> Masks:
        masks = masks_lib.ones(params, prunable=prunable)
        # Sparsities that the network cannot meet are an error now, not mid-training.
        jax.eval_shape(lambda: mask_fn(masks, params, table, jnp.int32(0)))
        if not initial_sparsity:
            return masks
        first = [Fraction(str(initial_sparsity))]
        return mask_fn(masks, params, first, jnp.int32(0))

    def update_masks(
        masks: Masks, params: Params, grads: Any, *, step: Step, **unused: Any
    ) -> MaskUpdate:
        del grads, unused
        index = update_schedules.update_index(update_schedule, step)
        return MaskUpdate(mask_fn(masks, params, table, index))

    return sparsify(
        inner,
        init_masks,
        update_masks=update_masks,
        update_at=lambda step: update_schedules.should_update(update_schedule, step),
    )


@arguments.check(sparsity=arguments.real, min_layer_density=arguments.real)
def one_shot_magnitude(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    step: int,
    distribution: Distribution = "global",
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    min_layer_density: float = 0.0,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
) -> optax.GradientTransformationExtraArgs:
    """Trains dense and prunes the smallest weights once, in the update numbered `step`.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      step: number of dense optimizer steps before pruning, at least 0.
      distribution: "global" for one threshold over all layers; or how the active
        weights are divided among layers: a name in `distributions.NAMES` ("uniform",
        "balanced", "er" or "erk"), or a function of masks and sparsity that returns the
        number of active weights of each layer.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: mask updates do not change them, and they need not fit `structure`. Must
        be empty if `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one. With
        distribution "global", it must be `blocks` or `channels`, with units of the same
        size in all layers.
      min_layer_density: minimum density of each layer, in [0, 1], rounded up to whole
        weights or structural units; other layers are pruned more to compensate. Only
        for distribution "global". With 0, as in the papers, a layer may lose all of its
        weights. Nothing can warn of that inside a compiled step: in a training loop of
        your own, pass a density above 0, or call `layer_counts.warn_if_empty` with the
        masks after the last mask update.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.
    """
    step = update_schedules.check_steps(step, field="step")
    return gradual_magnitude(
        inner,
        sparsity=sparsity,
        begin_step=step,
        end_step=step,
        distribution=distribution,
        dense=dense,
        structure=structure,
        min_layer_density=min_layer_density,
        prunable=prunable,
        axes=axes,
    )


def _check_rising(table: list[Fraction]) -> None:
    """Checks that sparsities do not decrease.

    Args:
      table: sparsities in the order of the mask updates.

    Raises:
      ValueError: if one is less than the one before it.
    """
    if any(later < earlier for earlier, later in zip(table, table[1:], strict=False)):
        raise ValueError(
            "schedule: expected sparsities that never decrease, got "
            f"{[float(part) for part in table]}; for masks that may grow again, use "
            "transforms.straight_through or transforms.ac_dc"
        )


@arguments.check(
    sparsity=arguments.real,
    initial_sparsity=arguments.real,
    schedule=arguments.name_function_or_table,
    drop_fraction=arguments.real,
    drop_schedule=arguments.name_or_function,
    min_layer_density=arguments.real,
    key=arguments.optional(arguments.key),
)
def granet(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    end_step: int,
    begin_step: int = 0,
    update_every: int = 100,
    stop_step: int | None = None,
    initial_sparsity: float = 0.5,
    schedule: str | Callable[[float], float] | Sequence[float] = "cubic",
    distribution: Distribution = "erk",
    dense: tuple[str, ...] = (),
    pruned_by: Distribution = "global",
    drop_fraction: float = 0.5,
    drop_schedule: str | Callable[[int], float] = "cosine",
    zero_regrown: bool = False,
    min_layer_density: float = 0.0,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Prunes gradually and regrows weights by gradient: GraNet.

    A mask update first prunes by magnitude to the scheduled sparsity. Then, in each
    layer, it drops the smallest of the remaining weights and grows as many of those
    with the largest gradient.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove by `end_step`, in [0, 1).
      end_step: step of the mask update that reaches exactly `sparsity`.
      begin_step: step of the first mask update, counted from 0.
      update_every: steps between mask updates, at least 1.
      stop_step: step of the last regrowth, at least `end_step`; `end_step` if None.
      initial_sparsity: sparsity of the random initial masks, in [0, sparsity]; 0 gives
        the paper's dense-to-sparse training.
      schedule: "cubic", "linear" or "exponential"; or a function of the progress in
        [0, 1] that returns which fraction of the way from `initial_sparsity` to
        `sparsity` is done; or a sequence with the sparsity after each mask update.
        Sparsities must not decrease.
      distribution: how the active weights of the initial masks are divided among
        layers: a name in `distributions.NAMES` ("uniform", "balanced", "er" or "erk"),
        or a function of masks and sparsity that returns the number of active weights of
        each layer.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: they are neither pruned nor regrown. Must be empty if `distribution` or
        `pruned_by` is a function.
      pruned_by: how pruning compares weights: "global" for one threshold over all
        layers; or how the active weights are divided among layers, as a name or a
        function like those of `distribution`.
      drop_fraction: fraction of each layer's active weights that is dropped and regrown
        after pruning, in [0, 1]; the count is rounded down.
      drop_schedule: how `drop_fraction` changes over training: "constant"; "cosine",
        which decays to 0 at `stop_step`; or a function of the step, such as a learning
        rate schedule, whose value relative to its largest value multiplies
        `drop_fraction`.
      zero_regrown: whether a weight dropped and regrown in the same update starts
        from zero with fresh optimizer state, as other grown weights do. If False, it
        keeps its value and its optimizer state.
      min_layer_density: minimum density of each layer, in [0, 1], rounded up to whole
        weights; other layers are pruned more to compensate. Only for `pruned_by`
        "global". With 0, as in the papers, a layer may lose all of its weights. Nothing
        can warn of that inside a compiled step: in a training loop of your own, pass a
        density above 0, or call `layer_counts.warn_if_empty` with the masks after the
        last mask update.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.
      key: random key that the initial masks are drawn with, typed or raw key data
        (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. At every step the total number of active weights is exactly
      that of the schedule.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    References:
      Liu, Chen, Chen, Atashgahi, Yin, Kou, Shen, Pechenizkiy, Wang, Mocanu. Sparse
      Training via Boosting Pruning Plasticity with Neuroregeneration. 2021.
      arXiv:2106.10404, algorithm 1.
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    table = update_schedules.gradual_sparsities(
        update_schedule, initial=initial_sparsity, final=sparsity, schedule=schedule
    )
    # Regrowth keeps the number of active weights, so a lower sparsity could not be
    # reached later.
    _check_rising([Fraction(str(initial_sparsity)), *table])
    last_regrowth = update_schedule.end
    if stop_step is not None:
        last_regrowth = update_schedules.check_steps(stop_step, field="stop_step")
    if last_regrowth < end_step:
        raise ValueError(
            f"stop_step: expected at least end_step={end_step}, got {last_regrowth}"
        )
    # At least 1: the cosine divides by the end.
    regrow_schedule = update_schedule._replace(end=max(last_regrowth, 1))
    drops = update_schedules.drop_fractions(
        regrow_schedule, fraction=drop_fraction, schedule=drop_schedule
    )
    mask_fn = magnitude.make_mask_fn(
        distribution=pruned_by,
        dense=dense,
        min_layer_density=min_layer_density,
        axes=axes,
    )
    draw_masks = init_masks_lib.random(
        sparsity=initial_sparsity,
        distribution=distribution,
        dense=dense,
        structure=None,
        axes=axes,
        prunable=prunable,
        key=key,
    )

    def init_masks(params: Params) -> Masks:
        # Sparsities that the network cannot meet are an error now, not mid-training.
        masks = draw_masks(params)
        jax.eval_shape(lambda: mask_fn(masks, params, table, jnp.int32(0)))
        return masks

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Step,
        memory: grow.EverActive,
        **unused: Any,
    ) -> MaskUpdate:
        del unused
        index = update_schedules.update_index(update_schedule, step)
        # After `end_step` the sparsity stays, while regrowth may go on to `stop_step`.
        pruned = mask_fn(masks, params, table, jnp.minimum(index, len(table) - 1))
        drop_counts = grow.part(pruned, grow.fraction_at(drops, regrow_schedule, step))
        drop_counts = grow.zero_counts(drop_counts, dense)
        keep_counts = grow.subtract(grow.count(pruned), drop_counts)
        weight_scores = scores.magnitude(params, masks)
        kept = select.top_k_per_layer(weight_scores, keep_counts, candidates=pruned)
        growth_scores = grow.gradient_magnitude(masks, grads)
        # All weights outside `kept` may grow, including those pruned or dropped just
        # now.
        new = grow.grow(pruned, kept, drop_counts, growth_scores)
        # Magnitudes need no check here: `sparsify` checks the weights.
        finite = grow.finite_where_grown(growth_scores, kept, drop_counts)
        regrown = grow.dropped_and_regrown(masks, kept, new) if zero_regrown else None
        memory_after = grow.record_exploration(memory, masks, new)
        return MaskUpdate(
            new, memory_after, reset=regrown, zeroed=regrown, finite=finite
        )

    def update_at(step: Step) -> Bool[Array, ""]:
        # Pruning ends at `end_step`, regrowth at `stop_step`.
        return update_schedules.should_update(
            update_schedule, step
        ) | update_schedules.should_update(regrow_schedule, step)

    return sparsify(
        inner,
        init_masks,
        update_masks=update_masks,
        update_at=update_at,
        init_memory=grow.init_exploration,
    )
