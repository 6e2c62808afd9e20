"""SRigL: RigL with a constant fan-in, which removes neurons of few salient weights."""

import dataclasses
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from jaxsparse import arguments, layer_options, scores, select, tree
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import (
    drop_grow,
    grow,
    init_masks,
    options,
    update_schedules,
)
from jaxsparse.transforms.fitting import is_placeholder
from jaxsparse.transforms.options import DropGrowOptions
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Counts, Grads, Masks, Params, RandomKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class SRigLOptions(DropGrowOptions):
    """How mask updates of SRigL drop and grow weights and remove neurons.

    By default, `drop_fraction` is 0.3, `drop_schedule` "cosine" and `skip_update` True.

    `DropGrowOptions` explains the options that are not listed here; `allow_regrow` must
    be True.

    Attributes:
      min_salient: fraction of the fan-in that a neuron must have as salient weights to
        stay active, in [0, 1]; the number is rounded down, and at least 1. The paper
        calls it gamma_sal. 0 removes no neuron.
      keep_neurons: shell patterns of leaf names; matching leaves keep all neurons. The
        authors exempt the last layer, whose neurons are the outputs of the network.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.
    """

    min_salient: float = 0.3
    keep_neurons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        arguments.check_fields(
            self, min_salient=arguments.number(0, 1), keep_neurons=arguments.patterns
        )


class BudgetState(NamedTuple):
    """Number of weights that the layers may have, however many neurons share them.

    Attributes:
      budget: number of weights per layer of the initial masks; int32.
      held: number of active weights per layer after the last mask update; int32. If the
        current count of a layer differs, its masks were replaced since, and its budget
        is the current count.
    """

    budget: Counts
    held: Counts


@arguments.check(
    sparsity=arguments.fraction,
    key=arguments.optional(arguments.key),
)
def srigl(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    layers: LayerOptions | None = None,
    updates: DropGrowOptions | SRigLOptions | None = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""RigL with a constant fan-in and with ablation of neurons: SRigL.

    A layer with :math:`n` neurons starts with a budget of :math:`k n` weights, which is
    :math:`k` for each neuron. A mask update that replaces the fraction
    :math:`\alpha_t` of the :math:`a` active weights of the layer

    1. calls salient the :math:`a - \lfloor \alpha_t a \rfloor` active weights of
       largest magnitude and the :math:`\lfloor \alpha_t a \rfloor` weights, active
       or not, of largest gradient, both ranked over the layer;
    2. removes the neurons with fewer than :math:`\max(1, \lfloor \gamma k \rfloor)`
       salient weights, but not so many that the others could not hold the budget;
    3. shares the budget: each of the :math:`n'` neurons that stay gets the fan-in
       :math:`k' = \lfloor k n / n' \rfloor`;
    4. keeps the :math:`a - \lfloor \alpha_t a \rfloor` largest weights of these
       neurons, at most :math:`k'` of each;
    5. grows the weights of largest gradient of each neuron that stays, until it has
       :math:`k'` weights.

    All neurons are judged anew at each mask update, so a removed neuron returns if
    enough of its weights have large gradients. The gradient is the dense one that
    `update` receives, or `growth_grads`, as in `rigl`.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      update_every: steps between mask updates, at least 1.
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      end_step: mask updates take place before this step; the paper uses three quarters
        of training. Required, unless `drop_schedule` is "constant": then None means no
        end.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "erk" by default. `structure` must be None, since it is always
        `select.fan_in()`, and `min_layer_density` 0.
      updates: how mask updates drop and grow weights and remove neurons; a
        `DropGrowOptions` or a `SRigLOptions`.
      key: random key that the initial masks are drawn with, typed or raw key data
        (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. Every neuron has no weight or as many as the others of its
      layer. A layer has at most its initial number of weights, and less by less than
      its number of neurons. `compaction` makes a network without the removed neurons.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> updates = transforms.SRigLOptions(keep_neurons=("params/layers_2/*",))
      >>> tx = srigl(optax.sgd(0.1), sparsity=0.9, end_step=75_000, updates=updates)

    Deviations:
      The authors' code may let inactive weights survive, with the value zero, if the
      neurons that stay have too few active weights, and cuts neurons of more than
      :math:`k'` survivors in an arbitrary order; here only active weights survive, the
      largest first. Their code resets the momentum of all weights at mask updates; here
      that of the weights that left or came. It excludes the last layer from ablation;
      a wrapper of an optimizer does not know which that is, see `keep_neurons`.

    References:
      Lasby, Golubeva, Evci, Nica, Ioannou. Dynamic Sparse Training with Structured
      Sparsity. 2023. arXiv:2305.02299, section 3; the bound on the number of removed
      neurons is from the authors' code.
    """
    layers = layer_options.resolve(
        layers,
        function="srigl",
        distribution="erk",
        unused=("structure", "min_layer_density"),
    )
    layers = dataclasses.replace(layers, structure=select.fan_in())
    updates = options.resolve(
        updates,
        SRigLOptions,
        function="srigl",
        drop_fraction=0.3,
        drop_schedule="cosine",
        skip_update=True,
    )
    options.check_required(updates, function="srigl", allow_regrow=True)
    spec = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        layers=layers,
        updates=updates,
    )

    def init_memory(params: Params, masks: Masks) -> grow.EverActive:
        # Counts are not shaped like parameters, so `optax.tree.map_params` must not
        # find its placeholder in them.
        none = is_placeholder(params)
        held = [0, 0] if none else [grow.count(masks), grow.count(masks)]
        return grow.EverActive(BudgetState(*held))

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Any,
        memory: grow.EverActive,
        **unused: Any,
    ) -> MaskUpdate:
        del unused
        structure = init_masks.bind(layers, params).structure
        fraction = grow.fraction_at(spec.drop_fractions, spec.update_schedule, step)
        num_drop = grow.zero_counts(grow.part(masks, fraction), layers.dense)
        num_keep = grow.subtract(grow.count(masks), num_drop)
        budgets = jax.tree.map(
            lambda budget, before, now: jnp.where(before == now, budget, now),
            *(*memory.own, grow.count(masks)),
        )
        sizes = scores.magnitude(params, masks)
        slopes = grow.gradient_magnitude(masks, grads)
        salient = jax.tree.map(
            jnp.logical_or,
            select.top_k_per_layer(sizes, num_keep, candidates=masks),
            select.top_k_per_layer(slopes, num_drop),
        )
        pairs = tree.map_with_names(
            lambda name, leaf, budget: _share_budget(
                structure, name, leaf, budget, updates
            ),
            salient,
            budgets,
        )
        allowed, counts = jax.tree.transpose(
            jax.tree.structure(masks), jax.tree.structure((0, 0)), pairs
        )
        candidates = jax.tree.map(jnp.logical_and, masks, allowed)
        largest = select.top_k_per_layer(sizes, num_keep, candidates=candidates)
        survived = select.top_k_per_layer(
            sizes, counts, candidates=largest, structure=structure
        )
        # Survivors first, then the largest gradients: at most k' of a neuron survive.
        wanted = jax.tree.map(
            lambda stays, slope: jnp.where(stays, jnp.inf, slope), survived, slopes
        )
        new = select.top_k_per_layer(
            wanted, counts, candidates=allowed, structure=structure
        )
        return grow.mask_update(
            *(masks, survived, new),
            memory=memory._replace(own=BudgetState(budgets, grow.count(new))),
            zero_regrown=updates.zero_regrown,
            finite=select.all_finite(sizes, masks) & select.all_finite(slopes),
        )

    return sparsify(
        inner,
        init_masks.stored(
            init_masks.random(sparsity=sparsity, layers=layers, key=key), layers
        ),
        update_masks=update_masks,
        update_at=update_schedules.due(spec.update_schedule),
        init_memory=init_memory,
        skip_update=updates.skip_update,
    )


def _share_budget(
    structure: select.Structure,
    name: str,
    salient: Bool[Array, "..."],
    budget: Int[Array, ""],
    updates: SRigLOptions,
) -> tuple[Bool[Array, "..."], Int[Array, ""]]:
    """Chooses the neurons of a layer that stay, and divides its budget among them.

    Args:
      structure: the constant fan-in, bound to the leaves.
      name: slash-joined path of the leaf.
      salient: masks of the leaf's salient weights.
      budget: number of weights that the layer may have; int32.
      updates: the fraction of salient weights, and which leaves keep all neurons.

    Returns:
      Masks of all weights into the neurons that stay; and the fan-in times the number
      of all neurons, as `select.top_k_per_layer` counts with a structure.
    """
    view = select.units.to_units(structure, name, salient)
    neurons, inputs, _ = view.shape
    per_neuron = jnp.sum(view, axis=(1, 2), dtype=jnp.int32)
    gamma = Fraction(str(updates.min_salient)).limit_denominator(10**6)
    if gamma == 0 or tree.matches(name, updates.keep_neurons):
        stays = jnp.ones(neurons, bool)
    else:
        ratio = jnp.int32(gamma.numerator), jnp.int32(gamma.denominator)
        least = update_schedules.floor_mul_div(budget // neurons, *ratio)
        # The neurons that stay must have room for the budget.
        needed = jnp.minimum(budget // inputs, neurons - 1)
        ranked = jnp.sort(per_neuron, descending=True)
        stays = per_neuron >= jnp.minimum(jnp.maximum(least, 1), ranked[needed])
    fan_in = budget // jnp.sum(stays, dtype=jnp.int32)
    stays = jnp.broadcast_to(stays[:, None], (neurons, inputs))
    return (
        select.units.from_units(structure, name, stays, salient.shape),
        fan_in * neurons,
    )
