"""Methods that remove weights, or never change them, as wrappers of an optimiser."""

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
    """Trains with masks that do not change: tickets, and pruning at initialisation.

    Args:
      inner: any optimiser.
      masks: which weights exist; None to begin dense. Other masks can be put in at
        any time with `replace_masks`, without compiling anything again.
      prunable: which leaves have masks to begin dense with, see `masks.dense`; masks
        that are given say it themselves.

    Returns:
      The optimiser, keeping weights outside the masks at exactly zero.

    Raises:
      ValueError: if both `masks` and `prunable` are given; from `init`, if a mask is
        missing, not boolean or of another shape than its parameter.

    Examples:
      >>> tx = fixed(optax.adamw(1e-3), masks=ticket)
    """
    if masks is None:
        return sparsify(inner, lambda params: masks_lib.ones(params, prunable=prunable))
    if prunable is not masks_lib.is_kernel:
        raise ValueError(
            f"prunable: expected none beside masks, which are None where a leaf is not "
            f"prunable, got {prunable}"
        )

    def init_masks(params: Params) -> Masks:
        masks_lib.check_boolean(masks, remedy="make masks with masks.dense")
        fitted = tree.match_structure(masks, params, fields=("masks", "params"))
        # A copy, so that a donated state never takes the caller's masks along.
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
    """Removes the smallest weights, a few at a time, until the sparsity is reached.

    Masks nest: a weight that was removed does not return. `latent.straight_through`
    with the same schedule is the form in which it may.

    Args:
      inner: any optimiser.
      sparsity: fraction of the prunable weights to remove in the end, in [0, 1).
      begin_step: the first change.
      end_step: the last, which lands exactly on `sparsity`, whatever `update_every` is;
        equal to `begin_step` to prune once. Updates are numbered from 0, and the change
        is made in update `end_step`, before its step: training of N updates ends short
        of `sparsity` unless `end_step` is at most N - 1.
      update_every: updates between changes.
      initial_sparsity: removed from the start, by magnitude, in [0, sparsity].
      schedule: "cubic", "linear", "exponential", a function or a table, see
        `calendars.gradual_sparsities`; sparsities must not fall.
      distribution: "global" for one threshold over all layers, or how the weights kept
        are divided among layers: a name of `distributions.NAMES` or a function.
      dense: shell patterns of layers to keep whole.
      structure: which weights stand or fall together, see `select`.
      min_layer_density: part of its weights, in [0, 1], that each layer keeps at
        least, rounded up, at the expense of the others; for distribution "global". 0,
        as in the papers, lets a layer lose all of its weights.
      prunable: which leaves have masks, see `masks.dense`.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`; None to
        infer them from names and shapes.

    Returns:
      The optimiser, with exactly the scheduled counts.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = gradual_magnitude(
      ...     optax.sgd(0.1, 0.9), sparsity=0.95, begin_step=3000, end_step=7000
      ... )

    References:
      Zhu, Gupta. To prune, or not to prune: exploring the efficacy of pruning for model
      compression. 2017. arXiv:1710.01878, equation 1.
    """
    calendar = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    table = update_schedules.gradual_sparsities(
        calendar, initial=initial_sparsity, final=sparsity, schedule=schedule
    )
    _check_rising([Fraction(str(initial_sparsity)), *table])
    choose = magnitude.make_mask_fn(
        distribution=distribution,
        dense=dense,
        structure=structure,
        min_layer_density=min_layer_density,
        axes=axes,
    )

    def init_masks(params: Params) -> Masks:
        masks = masks_lib.ones(params, prunable=prunable)
        # What cannot be is refused here, not in the middle of training.
        jax.eval_shape(lambda: choose(masks, params, table, jnp.int32(0)))
        if not initial_sparsity:
            return masks
        first = [Fraction(str(initial_sparsity))]
        return choose(masks, params, first, jnp.int32(0))

    def update_masks(
        masks: Masks, params: Params, grads: Any, *, step: Step, **unused: Any
    ) -> MaskUpdate:
        del grads, unused
        index = update_schedules.update_index(calendar, step)
        return MaskUpdate(choose(masks, params, table, index))

    return sparsify(
        inner,
        init_masks,
        update_masks=update_masks,
        update_at=lambda step: update_schedules.should_update(calendar, step),
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
    """Trains dense, and removes the smallest weights once, before update `step`.

    Args:
      inner: any optimiser.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      step: updates made before.
      distribution: as in `gradual_magnitude`, and so are the others.
      dense: as above.
      structure: as above.
      min_layer_density: as above.
      prunable: as above.
      axes: as above.

    Returns:
      The optimiser.

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
    if any(later < earlier for earlier, later in zip(table, table[1:], strict=False)):
        raise ValueError(
            f"schedule: sparsities fall from {[float(part) for part in table]}; wanted "
            "each at least the one before; for masks that may grow again use "
            "transforms.straight_through or transforms.ac_dc"
        )


@arguments.check(
    sparsity=arguments.real,
    initial_sparsity=arguments.real,
    schedule=arguments.name_function_or_table,
    drop_fraction=arguments.real,
    drop_schedule=arguments.name_or_function,
    min_layer_density=arguments.real,
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
    restart_dropped: bool = False,
    min_layer_density: float = 0.0,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Prunes gradually and lets weights regenerate: GraNet.

    A change first prunes by magnitude to the scheduled sparsity; then in each layer
    the smallest of the weights left make room for as many of the largest gradient.

    Args:
      inner: any optimiser.
      sparsity: fraction of the prunable weights that are gone in the end, in [0, 1).
      end_step: when that is reached, exactly.
      begin_step: the first change.
      update_every: updates between changes.
      stop_step: weights regenerate up to this step; `end_step` if None.
      initial_sparsity: of the random masks training starts from, in [0, sparsity]; 0
        for the paper's dense-to-sparse form.
      schedule: as in `gradual_magnitude`.
      distribution: of the first masks; one of `distributions.NAMES` or a function.
      dense: shell patterns of layers to keep whole.
      pruned_by: how pruning compares weights, as `distribution` of `gradual_magnitude`.
      drop_fraction: part of each layer's weights that regenerates, rounded down.
      drop_schedule: as in `rigl`; "cosine" falls to 0 at `stop_step`.
      restart_dropped: as in `sparse_evolution`.
      min_layer_density: as in `gradual_magnitude`, for `pruned_by` "global".
      prunable: which leaves have masks, see `masks.dense`.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`; None to
        infer them from names and shapes.
      key: what the first masks are drawn with.

    Returns:
      The optimiser, with exactly the scheduled total.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    References:
      Liu, Chen, Chen, Atashgahi, Yin, Kou, Shen, Pechenizkiy, Wang, Mocanu. Sparse
      Training via Boosting Pruning Plasticity with Neuroregeneration. 2021.
      arXiv:2106.10404, algorithm 1.
    """
    calendar = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    table = update_schedules.gradual_sparsities(
        calendar, initial=initial_sparsity, final=sparsity, schedule=schedule
    )
    _check_rising([Fraction(str(initial_sparsity)), *table])
    stop = calendar.end
    if stop_step is not None:
        stop = update_schedules.check_steps(stop_step, field="stop_step")
    if stop < end_step:
        raise ValueError(f"stop_step: got {stop}; wanted end_step={end_step} or later")
    until = calendar._replace(end=max(stop, 1))
    drops = update_schedules.drop_fractions(
        until, fraction=drop_fraction, schedule=drop_schedule
    )
    choose = magnitude.make_mask_fn(
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
        masks = draw_masks(params)
        jax.eval_shape(lambda: choose(masks, params, table, jnp.int32(0)))
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
        index = update_schedules.update_index(calendar, step)
        pruned = choose(masks, params, table, jnp.minimum(index, len(table) - 1))
        goes = grow.part(pruned, grow.fraction_at(drops, until, step))
        goes = grow.zero_counts(goes, dense)
        left = grow.subtract(grow.count(pruned), goes)
        worth = scores.magnitude(params, masks)
        kept = select.top_k_per_layer(worth, left, candidates=pruned)
        promise = grow.gradient_magnitude(masks, grads)
        new = grow.grow(pruned, kept, goes, promise)
        finite = grow.finite_where_grown(promise, kept, goes)
        both = grow.dropped_and_regrown(masks, kept, new) if restart_dropped else None
        seen = grow.record_exploration(memory, masks, new)
        return MaskUpdate(new, seen, reset=both, zeroed=both, finite=finite)

    def due(step: Step) -> Bool[Array, ""]:
        return update_schedules.should_update(
            calendar, step
        ) | update_schedules.should_update(until, step)

    return sparsify(
        inner,
        init_masks,
        update_masks=update_masks,
        update_at=due,
        init_memory=grow.init_exploration,
    )
