"""The training state, and the seeds from which a run draws its random numbers.

All leaves have a leading axis of replicates, r. The exceptions are the training step
and the step counter of the sparse optimizer, which all replicates share.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Int, Key, UInt32

from jaxsparse import rng, transforms
from jaxsparse.types import Masks, Params, Step


class TrainState(NamedTuple):
    """Everything that changes during training.

    Attributes:
      step: training steps since initialization, int32 scalar. Learning rates and random
        draws depend on it. A level that rewinds to step k starts with the value k.
      params: weights [r ...], exactly zero where the masks are zero. Optimizers with
        dense latent weights store dense values here; see `transforms.forward_params`.
      batch_stats: running statistics of BatchNorm [r ...]; {} for networks without.
      opt_state: state of the sparse optimizer, which contains the masks.
    """

    step: Step
    params: Params
    batch_stats: Any
    opt_state: optax.OptState


class Seeds(NamedTuple):
    """One random key per replicate for each independent source of randomness.

    Attributes:
      init: keys of the initial weights.
      data: keys of the example order and of augmentation.
      masks: keys of random masks and mask shuffles.
    """

    init: Key[Array, "r"]
    data: Key[Array, "r"]
    masks: Key[Array, "r"]


def make_seeds(
    *,
    init: int,
    data: int,
    masks: int,
    replicates: int,
    first: int = 0,
    particles: int = 1,
) -> Seeds:
    """Derives one key per source of randomness and replicate.

    The sources are independent even if their seeds are equal. Otherwise a random mask
    drawn with the key of its weights would keep exactly the largest of them.

    Args:
      init: seed of the initial weights.
      data: seed of the example order and of augmentation.
      masks: seed of random masks and mask shuffles.
      replicates: number of keys per source. A replicate's key depends on its number
        only, not on how many replicates there are.
      first: number of the first replicate, a multiple of `particles`.
      particles: number of consecutive replicates that share the keys of their weights
        and masks, and have keys of their own for the order of examples only. Group g
        has the replicates g * particles to (g + 1) * particles - 1, in any run.

    Returns:
      Typed random keys [r] of each source.

    Raises:
      ValueError: if `first` is not a multiple of `particles`, so that the run would
        begin within a group.
    """
    if first % particles:
        raise ValueError(
            f"first: expected a multiple of particles {particles}, got {first}; begin "
            "with the first replicate of a group"
        )
    seeds = np.asarray([init, data, masks], np.int64)
    names = np.asarray([rng.hash_of(name) for name in Seeds._fields], np.uint32)
    each = np.uint32(first) + np.arange(replicates, dtype=np.uint32)
    group = each // np.uint32(particles)
    numbers = [each if name == "data" else group for name in Seeds._fields]
    return _seeds(seeds, names, np.stack(numbers))


@jax.jit
def _seeds(
    seeds: Int[Array, "3"], names: UInt32[Array, "3"], numbers: UInt32[Array, "3 r"]
) -> Seeds:
    """Derives the keys of `make_seeds`, in the order of the fields.

    Args:
      seeds: seeds of the fields.
      names: hashes of their names.
      numbers: numbers of the replicates, or of their groups, for each of these.
    """

    def keys(
        seed: Int[Array, ""], name: UInt32[Array, ""], numbers: UInt32[Array, "r"]
    ) -> Key[Array, "r"]:
        named = jax.random.fold_in(jax.random.key(seed), name)
        # Folding the replicate's number into the key, unlike `split`, gives a replicate
        # the same key for any number of replicates.
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(named, numbers)

    return Seeds(*jax.vmap(keys)(seeds, names, numbers))


def replicate_axes(state: TrainState) -> TrainState:
    """Returns the vmap axes of a state: None for shared counters, else 0.

    Args:
      state: a state, or a tree of its structure.
    """
    return TrainState(
        step=None,
        params=jax.tree.map(lambda _: 0, state.params),
        batch_stats=jax.tree.map(lambda _: 0, state.batch_stats),
        opt_state=transforms.replicate_axes(state.opt_state),
    )


def of_one(tree: Any) -> Any:
    """Returns the shapes and dtypes that a tree [r ...] has in one replicate.

    Args:
      tree: pytree of arrays, or of their shapes and dtypes, all with a leading axis of
        replicates.
    """
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree
    )


def start(
    tx: optax.GradientTransformationExtraArgs,
    params: Params,
    batch_stats: Any,
    masks: Masks,
    keys: Key[Array, "r"],
    *,
    step: int,
    place: Callable[[TrainState], TrainState] | None = None,
) -> TrainState:
    """Makes the training state for a set of weights and masks.

    The optimizer state is fresh, and weights outside the masks are set to zero.

    Args:
      tx: sparse optimizer, such as `transforms.fixed` returns.
      params: weights [r ...], masked or dense. Optimizers with dense latent weights
        keep the values outside the masks.
      batch_stats: running statistics of BatchNorm that belong to the weights [r ...].
      masks: boolean masks of the active weights [r ...].
      keys: typed random keys of the sparse optimizer [r].
      step: training step at which the state starts.
      place: constrains the sharding of the state, called under jit. Pass the same
        function object every time, because another one triggers recompilation. None
        leaves the sharding to the compiler.

    Returns:
      A state in buffers of its own, so that donating it does not invalidate any
      argument.
    """
    # Traced instead of static, so that all starting steps share one compiled program.
    clock = np.int32(step)
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

    _, abstract = jax.eval_shape(one, *of_one((params, masks, keys)))
    axes = (0, transforms.replicate_axes(abstract))
    params, opt_state = jax.vmap(one, out_axes=axes)(params, masks, keys)
    state = TrainState(step, params, batch_stats, opt_state)
    return state if place is None else place(state)
