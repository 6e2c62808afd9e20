"""Gem-Miner: finds a subnetwork of the initial weights by training scores."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxsparse import arguments, layer_options, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import init_masks, magnitude, update_schedules
from jaxsparse.transforms.edge_popup import FROZEN, score_key
from jaxsparse.transforms.parts import Parts, Reparameterization, pass_gradient
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.reparameterize import (
    ReparameterizedState,
    reparameterize,
)
from jaxsparse.transforms.self_sparse import by_layer
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Masks, Params, RandomKey, Step


@arguments.check(
    sparsity=arguments.fraction,
    score_penalty=arguments.number(0),
    key=arguments.optional(arguments.key),
)
def gem_miner(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    end_step: int,
    update_every: int,
    score_penalty: float = 1e-4,
    layers: LayerOptions | None = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Finds a rare gem, a ticket at initialization, by training scores: Gem-Miner.

    The weights are :math:`1[s > 1/2] \odot w`, where w are the initial weights and the
    scores s in [0, 1] are trained, straight through the rounding: their gradient is
    :math:`w \odot g`. Every `update_every` steps the lowest scores of all layers
    together are removed for good, the same fraction of those that are left, until
    `sparsity` is reached at `end_step`.

    The masks hold the weights that were not removed. Train the ticket afterward from
    the same initial weights, as `transforms.fixed` does with these masks.

    Args:
      inner: the optimizer of the scores; any optax gradient transformation except
        `optax.lookahead`, without weight decay.
      sparsity: fraction of the prunable weights to remove by `end_step`, in [0, 1).
      end_step: step of the last removal, which reaches exactly `sparsity`; it takes
        place before the optimizer's step of this number.
      update_every: steps between removals, at least 1; the first is at this step.
      score_penalty: coefficient of the penalty, the sum of the squared scores.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "global" by default. All other leaves, and dense layers, keep
        their initial values.
      key: random key of the initial scores, as in `edge_popup`.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = transforms.gem_miner(
      ...     optax.sgd(0.1, momentum=0.9),
      ...     sparsity=0.95,
      ...     end_step=7000,
      ...     update_every=350,
      ... )

    Deviations:
      Weights of the ticket whose score is at most 1/2 are unused while scores are
      trained. The ticket contains them, as with the authors' option to restore weights.
      Removals end at `end_step`, where the authors' end with training. Scores start
      uniform in [0, 1], as in the authors' configs.

    References:
      Sreenivasan, Sohn, Yang, Grinde, Nagle, Wang, Xing, Lee, Papailiopoulos. Rare
      Gems: Finding Lottery Tickets at Initialization. 2022. arXiv:2202.12002,
      algorithm 1, and the authors' code.
    """
    update_every = update_schedules.check_steps(
        update_every, field="update_every", minimum=1
    )
    if update_schedules.check_steps(end_step, field="end_step") < update_every:
        raise ValueError(
            f"end_step: expected at least update_every={update_every}, the step of the "
            f"first removal, got {end_step}"
        )
    schedule = update_schedules.make_update_schedule(
        begin_step=update_every,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    layers = layer_options.resolve(layers, function="gem_miner", distribution="global")
    rounds = len(update_schedules.update_steps(schedule))
    table = update_schedules.gradual_sparsities(
        schedule,
        initial=0.0,
        final=sparsity,
        # The first removal counts too: round k of n leaves the density to the k / n.
        schedule=[1 - (1 - sparsity) ** (k / rounds) for k in range(1, rounds)]
        + [sparsity],
    )
    mask_fn = magnitude.make_mask_fn(layers)

    def maps(params: Params) -> Mapping[str, Reparameterization]:
        found = by_layer(lambda name, leaf: _rounded(name, score_penalty, key), layers)
        return dict.fromkeys(tree.names(params), FROZEN) | found(params)

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Any,
        *,
        step: Step,
        inner_state: ReparameterizedState,
        **unused: Any,
    ) -> MaskUpdate:
        del grads, unused
        # Dense layers have no scores, and nothing is removed from them.
        scores = tree.fill(inner_state.trained["scores"], params)
        index = update_schedules.update_index(schedule, step)
        kept = mask_fn(masks, scores, table, index)
        return MaskUpdate(kept, finite=select.all_finite(scores, masks))

    dense = functools.partial(masks_lib.ones, prunable=layers.prunable)
    return sparsify(
        reparameterize(inner, maps),
        init_masks.stored(dense, layers),
        update_masks=update_masks,
        update_at=update_schedules.due(schedule),
    )


def _rounded(
    name: str, score_penalty: float, key: RandomKey | None
) -> Reparameterization:
    """Makes the reparameterization of one leaf."""

    def init(weight: Array) -> Parts:
        scores = jax.random.uniform(score_key(key, name, weight), weight.shape)
        return {"initial": weight, "scores": scores.astype(weight.dtype)}

    def forward(parts: Parts, step: Step) -> Array:
        del step
        scores = parts["scores"]
        used = (scores > 0.5).astype(scores.dtype)
        return parts["initial"] * pass_gradient(used, scores)

    def penalty(parts: Parts, step: Step) -> Array:
        del step
        return score_penalty * jnp.sum(jnp.square(parts["scores"]))

    def adjust(parts: Parts, step: Step) -> Parts:
        del step
        return parts | {"scores": jnp.clip(parts["scores"], 0, 1)}

    return Reparameterization(init, forward, ("initial",), penalty, adjust)
