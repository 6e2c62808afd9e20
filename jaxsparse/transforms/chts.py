"""CHTs and CHTss: weights grow by the paths between neurons in the masks."""

import dataclasses
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from jaxsparse import arguments, fan_axes, layer_options, scores, select, tree
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import grow, magnitude, options, update_schedules
from jaxsparse.transforms import init_masks as init_masks_lib
from jaxsparse.transforms.gradual_magnitude import check_rising
from jaxsparse.transforms.options import DropGrowOptions, Ramp
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Grads, Masks, Params, RandomKey, Scores, Step

# Added to the scores of growth, so that weights on no path can be drawn where too few
# are on one; the authors' number.
UNCONNECTED = 1e-5
# Added to importances, so that active weights of exactly zero have a logarithm.
UNIMPORTANT = 1e-30


@dataclasses.dataclass(frozen=True, kw_only=True)
class CHTsOptions(DropGrowOptions):
    """How CHTs and CHTss drop and grow weights.

    By default, `drop_fraction` is 0.3, `drop_schedule` "cosine" and `skip_update`
    False.

    `DropGrowOptions` explains the options that are not listed here; `allow_regrow` must
    be True.

    Attributes:
      first_exponent: power of the relative importance at step 0, 0 or more; 0 draws the
        weights that stay uniformly.
      last_exponent: the same at `end_step`; linear in between. Large powers are close
        to keeping the most important weights. `chts` names the source of both.
      initial_sparsity: sparsity of the random initial masks, at most the final one;
        then the sparsity rises to the final one at `end_step`, which is CHTss. None
        begins with the final one, which is CHTs.
      schedule: the course of sparsity of CHTss, as in `SparsityRamp`.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.
    """

    first_exponent: float = 1.0
    last_exponent: float = 3.0
    initial_sparsity: float | None = None
    schedule: Ramp = "sigmoid"

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        arguments.check_fields(
            self,
            first_exponent=arguments.number(0),
            last_exponent=arguments.number(0),
            initial_sparsity=arguments.optional(arguments.fraction),
            schedule=update_schedules.check_sparsity_schedule,
        )


@arguments.check(
    sparsity=arguments.fraction,
    key=arguments.optional(arguments.key),
)
def chts(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    end_step: int,
    begin_step: int = 0,
    update_every: int = 100,
    layers: LayerOptions | None = None,
    updates: DropGrowOptions | CHTsOptions | None = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Draws which weights are dropped and grown: Cannistraci-Hebb training, soft rule.

    With weights :math:`w` and masks :math:`m` of a layer as matrices of inputs
    :math:`i` by outputs :math:`j`, a mask update

    1. with an initial sparsity (CHTss), prunes to the scheduled sparsity the weights of
       least relative importance :math:`r_{ij} = |w_{ij}| / \sum_k |w_{kj}| + |w_{ij}| /
       \sum_k |w_{ik}|`;
    2. draws the weights that stay, without replacement, in proportion to
       :math:`r_{ij}^T`, where :math:`T` rises linearly over the steps;
    3. draws as many inactive weights as have left, in proportion to the scores
       :math:`\sum_k c_{ik} m_{kj} + \sum_k c'_{jk} m_{ik}` of the paths of length 3 in
       the masks that stay. There, :math:`c_{ik} = (n_{ik} + 1) / (\max(e_{ik} - 1, 0) +
       1)` if the inputs :math:`i` and :math:`k` share :math:`n_{ik} > 0` outputs, with
       :math:`e_{ik}` further outputs of :math:`k`, and 0 otherwise; :math:`c'` is the
       same for outputs. No gradient is used.

    A neuron without weights is on no path and seldom gets new ones. Keep the last layer
    dense, as the authors do, so that no output of the network is lost.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1); from `end_step`
        on, with an initial sparsity.
      end_step: step of the last mask update.
      begin_step: step of the first mask update, counted from 0.
      update_every: steps between mask updates, at least 1.
      layers: which leaves have masks, and how the active weights are divided among
        them; the distribution is "uniform" by default. `structure` must be None and
        `min_layer_density` 0.
      updates: the course of sparsity, and how mask updates drop and grow; a
        `DropGrowOptions` or a `CHTsOptions`.
      key: random key that the initial masks and the mask updates are drawn with, typed
        or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. The number of active weights of each layer is exactly that
      of the schedule.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = chts(optax.sgd(0.1), sparsity=0.99, end_step=75_000)
      >>> decay = transforms.CHTsOptions(initial_sparsity=0.5)
      >>> tx = chts(optax.sgd(0.1), sparsity=0.9, end_step=75_000, updates=decay)

    Deviations:
      Positions of a kernel window count as inputs; the paper has dense layers only. The
      initial masks are uniform random ones, not those of the paper's receptive field
      model. Neurons that lose all inputs or outputs keep the weights on their other
      side, which the authors remove. Scores of growth have 1e-5 added everywhere; the
      authors do so where too few weights are on a path. In CHTss, sparsity and growth
      end at the same step.

      There are two versions of the authors' code. The first one, for MLPs, CNNs and
      translation, has the defaults of this function: removal "ri_soft", exponents 1 to
      3, and a drop fraction of 0.3; but its printed commands choose by magnitude. The
      second one, for language models, draws by magnitude, with exponents 1 to 9, a drop
      fraction of 0.1 and, in CHTss, a sparsity that rises for 80 % of the steps. We
      know of no published run with "ri_soft" and exponents 1 to 3.

    References:
      Zhang, Cerretti, Zhao, Wu, Liao, Michieli, Cannistraci. Brain network science
      modelling of sparse neural networks enables Transformers and LLMs to perform as
      fully connected. 2025. arXiv:2501.19107; the formulas are those of the authors'
      code (CH2-L3n, removal "ri_soft"), see the deviations.
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    layers = layer_options.resolve(
        layers,
        function="chts",
        distribution="uniform",
        unused=("structure", "min_layer_density"),
    )
    updates = options.resolve(
        updates,
        CHTsOptions,
        function="chts",
        drop_fraction=0.3,
        drop_schedule="cosine",
        skip_update=False,
    )
    options.check_required(updates, function="chts", allow_regrow=True)
    decays = updates.initial_sparsity is not None
    initial = updates.initial_sparsity if decays else sparsity
    table = update_schedules.gradual_sparsities(
        update_schedule, initial=initial, final=sparsity, schedule=updates.schedule
    )
    check_rising([Fraction(str(initial)), *table])
    drops = update_schedules.drop_fractions(
        update_schedule, fraction=updates.drop_fraction, schedule=updates.drop_schedule
    )
    prune_to = magnitude.make_mask_fn(layers)
    draw_masks = init_masks_lib.random(sparsity=initial, layers=layers, key=key)

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Step,
        key: Key[Array, ""],
        memory: grow.EverActive,
        **unused: Any,
    ) -> MaskUpdate:
        del grads, unused
        axes = init_masks_lib.bind(layers, params).axes
        importance = tree.map_with_names(
            lambda name, mask, leaf: _importance(axes[name], name, mask, leaf),
            *(masks, params),
        )
        pruned = masks
        if decays:
            index = update_schedules.update_index(update_schedule, step)
            pruned = prune_to(masks, tree.fill(importance, params), table, index)
        ratio = grow.fraction_at(drops, update_schedule, step)
        num_drop = grow.zero_counts(grow.part(pruned, ratio), layers.dense)
        progress = jnp.minimum(step / max(end_step, 1), 1.0)
        first, last = updates.first_exponent, updates.last_exponent
        power = first + (last - first) * progress
        draw_keep, draw_grow = jax.random.split(jax.random.fold_in(key, step))
        kept = select.top_k_per_layer(
            _perturbed(importance, masks, draw_keep, power, UNIMPORTANT),
            grow.subtract(grow.count(pruned), num_drop),
            candidates=pruned,
        )
        paths = tree.map_with_names(
            lambda name, mask: path_scores(axes[name], name, mask), kept
        )
        growth_scores = _perturbed(paths, masks, draw_grow, 1.0, UNCONNECTED)
        new = grow.grow(pruned, kept, num_drop, growth_scores)
        return grow.mask_update(
            masks, kept, new, memory=memory, zero_regrown=updates.zero_regrown
        )

    def init_masks(params: Params) -> Masks:
        # Sparsities that the network cannot meet are an error now, not mid-training.
        masks = draw_masks(params)
        jax.eval_shape(lambda: prune_to(masks, params, table, jnp.int32(0)))
        return masks

    return sparsify(
        inner,
        init_masks_lib.stored(init_masks, layers),
        update_masks=update_masks,
        update_at=update_schedules.due(update_schedule),
        init_memory=lambda params, masks: grow.EverActive(),
        skip_update=updates.skip_update,
        key=init_masks_lib.first_key(key),
    )


def _perturbed(
    weights: Scores, masks: Masks, key: Key[Array, ""], power: Any, least: float
) -> Scores:
    """Makes scores of which the highest are a sample without replacement.

    Adding Gumbel noise to logarithms of weights draws in proportion to the weights.

    Args:
      weights: weights of the draw, 0 or more.
      masks: any masks of the same leaves.
      key: typed random key.
      power: what the weights are raised to.
      least: what is added to the weights; above 0.
    """
    uniform = scores.random(masks, key=key)

    def perturb(weight: Array, draw: Array) -> Array:
        noise = -jnp.log(-jnp.log(jnp.clip(draw, 1e-7, 1 - 1e-7)))
        return power * jnp.log(weight + least) + noise

    return jax.tree.map(perturb, weights, uniform)


def _importance(
    axes: fan_axes.FanAxes, name: str, mask: Bool[Array, "..."], leaf: Array
) -> Float[Array, "..."]:
    """Computes relative importances: shares of the weights of both neurons, in sum."""
    sizes = _matrices(axes, name, jnp.abs(jnp.where(mask, leaf, 0)))
    shares = [
        sizes / jnp.maximum(jnp.sum(sizes, axis=axis, keepdims=True), 1e-30)
        for axis in (1, 2)
    ]
    return _leaf(axes, name, sum(shares), leaf.shape)


def path_scores(
    axes: fan_axes.FanAxes, name: str, mask: Bool[Array, "..."]
) -> Float[Array, "..."]:
    """Scores all weights by the paths of length 3 between their neurons (CH2-L3n).

    Args:
      axes: layout of the leaf.
      name: its name, for error messages.
      mask: mask of the leaf.

    Returns:
      Scores in float32, 0 where there is no path; see `chts` for the formula.
    """
    links = _matrices(axes, name, mask)
    ends = jnp.swapaxes(links, 1, 2)

    def through(near: Array, far: Array) -> Array:
        shared = near @ far
        degree = jnp.sum(near, axis=2)[:, None, :]
        outside = jnp.maximum(degree - shared - 1, 0)
        return jnp.where(shared > 0, (shared + 1) / (outside + 1), 0) @ near

    paths = through(links, ends) + jnp.swapaxes(through(ends, links), 1, 2)
    return _leaf(axes, name, paths, mask.shape)


def _matrices(
    axes: fan_axes.FanAxes, name: str, leaf: Array
) -> Float[Array, "stack inputs outputs"]:
    """Views a leaf as matrices in float32."""
    matrices = fan_axes.to_matrices(axes, name, leaf).astype(jnp.float32)
    return matrices.reshape(len(matrices), -1, matrices.shape[-1])


def _leaf(
    axes: fan_axes.FanAxes, name: str, values: Array, shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """Undoes `_matrices`."""
    stack, positions, inputs, outputs = fan_axes.fans(axes, name, shape)
    matrices = values.reshape(stack, *positions, inputs, outputs)
    return fan_axes.from_matrices(axes, name, matrices, shape)
