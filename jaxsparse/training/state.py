"""The state of training, and the three seeds it grows from.

Every leaf leads with the axis of replicates, r, but the clock and the step counter
of the sparse optimiser, which all replicates share.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxsparse import rng, transforms
from jaxsparse.types import Masks, Params, Step


class TrainState(NamedTuple):
    """Everything that changes while training.

    Attributes:
      step: the run's clock: updates since initialisation, int32. Learning rates and
        random draws read it. A level that rewinds to step k sets it to k.
      params: weights, exactly zero outside the masks (dense for latent-dense
        optimisers, see `transforms.forward_params`); [r ...] each.
      batch_stats: running statistics of BatchNorm, {} without; [r ...] each.
      opt_state: state of the sparse optimiser, which holds the masks.
    """

    step: Step
    params: Params
    batch_stats: Any
    opt_state: optax.OptState


class Seeds(NamedTuple):
    """One key a replicate for each independent source of randomness.

    Attributes:
      init: initial weights.
      data: order of examples and augmentation.
      masks: random masks and shuffles.
    """

    init: Key[Array, "r"]
    data: Key[Array, "r"]
    masks: Key[Array, "r"]


def make_seeds(
    *, init: int, data: int, masks: int, replicates: int, first: int = 0
) -> Seeds:
    """Derives a key for each source of randomness and replicate.

    The sources are independent also where their seeds are equal numbers: a random
    mask drawn with the key of the weights it is for would keep the largest of them.

    Args:
      init: seed of initial weights.
      data: seed of order of examples and augmentation.
      masks: seed of random masks and shuffles.
      replicates: how many keys of each; that of a replicate depends on its number,
        not on how many there are.
      first: number of the first replicate.

    Returns:
      Keys [r] of each source.
    """

    def keys(seed: int, source: str) -> Key[Array, "r"]:
        numbers = first + jnp.arange(replicates, dtype=jnp.uint32)
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
            rng.leaf_key(jax.random.key(seed), source), numbers
        )

    return Seeds(keys(init, "init"), keys(data, "data"), keys(masks, "masks"))


def replicate_axes(state: TrainState) -> TrainState:
    """Returns the vmap axes of a state: None for the counters, 0 for the rest."""
    return TrainState(
        step=None,
        params=jax.tree.map(lambda _: 0, state.params),
        batch_stats=jax.tree.map(lambda _: 0, state.batch_stats),
        opt_state=transforms.replicate_axes(state.opt_state),
    )


def of_one(tree: Any) -> Any:
    """Returns what a tree [r ...] is in one replicate: shapes and dtypes."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree
    )


def start(
    tx: optax.GradientTransformationExtraArgs,
    params: Params,
    batch_stats: Any,
    masks: Masks,
    *,
    step: int,
    keys: Key[Array, "r"],
    place: Callable[[TrainState], TrainState] | None = None,
) -> TrainState:
    """Begins training somewhere: masked weights, a fresh optimiser, a set clock.

    Args:
      tx: a sparse optimiser, such as `transforms.fixed` makes.
      params: weights [r ...]; those outside `masks` are set to zero, but by
        latent-dense optimisers, which keep them.
      batch_stats: running statistics [r ...] that go with them.
      masks: which weights exist [r ...].
      step: what the clock shows, in updates.
      keys: random keys of the sparse optimiser.
      place: for use in jit, says where the state is to lie; always the same function,
        or all is compiled again. None leaves it open.

    Returns:
      A state whose buffers are its own: donating it harms no argument.
    """
    clock = jnp.asarray(step, jnp.int32)
    return _start(tx, place, params, batch_stats, masks, clock, keys)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _start(
    tx: optax.GradientTransformationExtraArgs,
    place: Callable[[TrainState], TrainState] | None,
    params: Params,
    batch_stats: Any,
    masks: Masks,
    step: Step,
    keys: Key[Array, "r"],
) -> TrainState:
    def one(weights: Params, mask: Masks, key: Key[Array, ""]) -> Any:
        opt_state = transforms.replace_masks(tx.init(weights), mask)
        weights = transforms.stored_params(weights, opt_state)
        return weights, transforms.replace_key(opt_state, key)

    def first(*trees: Any) -> Any:
        return one(*jax.tree.map(lambda leaf: leaf[0], trees))

    _, abstract = jax.eval_shape(first, params, masks, keys)
    axes = (0, transforms.replicate_axes(abstract))
    params, opt_state = jax.vmap(one, out_axes=axes)(params, masks, keys)
    state = TrainState(step, params, batch_stats, opt_state)
    return state if place is None else place(state)
