"""The state of a sparse optimiser, and the ways into it from outside.

Masks live in the optimiser state, so sharding, checkpoints, vmap and scan follow
them without a word. This module finds them there and puts others in their place;
`engine` is what updates them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Bool, Int, UInt32

from jaxsparse import masks as masks_lib
from jaxsparse import rng, tree
from jaxsparse.types import Masks, Params, RandomKey, Step


class SparsifyState(NamedTuple):
    """State of `sparsify`.

    Attributes:
      step: updates made so far; int32, counted from 0.
      key: where the method's random draws come from, as raw key data (uint32); wrapped
        and folded with `step` when used, never split. None for a method that draws
        nothing.
      masks: which weights exist.
      previous: the masks `inner_state` belongs to: those of the last update.
      replaced: whether `masks` were replaced since the last update, so that
        `inner_state` must be reset where `masks` and `previous` differ. A scalar of
        its own, because under vmap it must stay unbatched, as `step` must.
      skipped_updates: changes of masks left out because a score was not finite; int32.
      memory: what the method remembers between updates, or None.
      inner_state: state of the wrapped optimiser.
    """

    step: Step
    key: UInt32[Array, "..."] | None
    masks: Masks
    previous: Masks
    replaced: Bool[Array, ""]
    skipped_updates: Int[Array, "..."]
    memory: Any
    inner_state: optax.OptState


class LatentState(NamedTuple):
    """State of a latent-dense method: dense weights, computed with through masks.

    Attributes:
      step: updates made so far; int32, counted from 0.
      masks: the weights that are computed with, for the present parameters.
      skipped_updates: choices of masks left out because a weight was not finite; int32.
      memory: the weights that are trained, as masks, or None for all.
      inner_state: state of the wrapped optimiser.
    """

    step: Step
    masks: Masks
    skipped_updates: Int[Array, "..."]
    memory: Any
    inner_state: optax.OptState


SparseState = SparsifyState | LatentState


def _is_sparse(node: Any) -> bool:
    return isinstance(node, SparsifyState | LatentState)


def _map_sparse(
    fn: Callable[[SparseState], SparseState], opt_state: optax.OptState
) -> optax.OptState:
    return jax.tree.map(
        lambda node: fn(node) if _is_sparse(node) else node,
        opt_state,
        is_leaf=_is_sparse,
    )


def find(opt_state: optax.OptState) -> SparseState:
    """Returns the state of the one sparse optimiser within an optimiser state.

    Raises:
      ValueError: if there is none, or more than one.
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=_is_sparse)
    found = [leaf for leaf in leaves if _is_sparse(leaf)]
    if len(found) != 1:
        raise ValueError(
            f"opt_state: holds {len(found)} SparsifyStates; wanted exactly one; "
            "wrap the whole optimiser once, as in transforms.fixed(optax.adam(1e-3))"
        )
    return found[0]


def forward_params(params: Params, opt_state: optax.OptState) -> Params:
    """Returns the parameters to compute with, and to take the gradient at.

    Args:
      params: parameters as the optimiser keeps them.
      opt_state: state of an optimiser that contains exactly one sparse one.

    Returns:
      For latent-dense methods the parameters, exactly zero outside the masks; for all
      others `params` itself, where that is so already.

    Raises:
      ValueError: if the state holds no sparse optimiser, or more than one.

    Examples:
      >>> logits = model.apply({"params": forward_params(params, opt_state)}, images)
    """
    found = find(opt_state)
    if isinstance(found, LatentState):
        return masks_lib.apply(found.masks, params)
    return params


def stored_params(params: Params, opt_state: optax.OptState) -> Params:
    """Returns parameters as the optimiser keeps them: dense for latent-dense methods.

    Args:
      params: dense parameters, such as initial ones.
      opt_state: state of an optimiser that contains exactly one sparse one.

    Returns:
      `params` for latent-dense methods; for all others `params` within the masks.

    Raises:
      ValueError: if the state holds no sparse optimiser, or more than one.
    """
    found = find(opt_state)
    if isinstance(found, LatentState):
        return params
    return masks_lib.apply(found.masks, params)


def apply_updates(params: Params, updates: Params, opt_state: optax.OptState) -> Params:
    """Applies updates like `optax.apply_updates`, then sets dead weights to zero.

    What stands outside a sparse optimiser and rescales, averages, clips or adds to
    updates (`optax.chain(rigl(adam), optax.ema(0.9))`, `optax.contrib.mechanize` or
    `schedule_free` around it) leaves weights outside the masks that are not zero; so
    does a weight that became NaN before it was pruned, since NaN - NaN is no zero.
    After this function they are exactly zero all the same. What the outer link
    remembers of such weights is its own: where a weight comes back, it begins with
    that.

    Args:
      params: parameters, or `optax.LookaheadParams`, whose slow weights are set to zero
        too.
      updates: what `tx.update` returned.
      opt_state: the state that it returned, with exactly one sparse optimiser anywhere
        within.

    Returns:
      The new parameters. For latent-dense methods the sum alone: they keep dense
      weights, and `forward_params` of them is exactly zero outside the masks.

    Raises:
      ValueError: if the state holds no sparse optimiser, or more than one.

    Examples:
      >>> tx = optax.chain(transforms.rigl(optax.adam(1e-3), ...), optax.ema(0.9))
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> params = transforms.apply_updates(params, updates, opt_state)
    """
    params = optax.apply_updates(params, updates)
    if not isinstance(params, optax.LookaheadParams):
        return stored_params(params, opt_state)
    # The masks of lookahead inside are those of the fast weights.
    return optax.LookaheadParams(
        *(stored_params(weights, opt_state) for weights in params)
    )


def get_masks(opt_state: optax.OptState) -> Masks:
    """Returns the masks held anywhere inside an optimiser state.

    Args:
      opt_state: state of an optimiser that contains exactly one `sparsify`.

    Returns:
      The masks.

    Raises:
      ValueError: if the state holds no `SparsifyState`, or more than one.
    """
    return find(opt_state).masks


def replace_masks(opt_state: optax.OptState, masks: Masks) -> optax.OptState:
    """Returns the optimiser state with other masks.

    The next update sets the weights that left to zero, and what the inner optimiser
    remembers of weights outside both masks back to its initial value. To have the
    weights zero at once, as for a saliency score, call `masks.apply` on the
    parameters too. Latent-dense methods compute with these masks until they choose
    anew; which weights they train stays as it is.

    Args:
      opt_state: state of an optimiser that contains exactly one `sparsify`.
      masks: leaves of the same names and shapes as those held, see `tree`. For a
        sparse part of a network, as in `optax.partition`, masks of that part or of the
        whole network.

    Returns:
      A new state of the same structure, so no compiled function is traced again.

    Raises:
      ValueError: if names or shapes differ, or a mask is not boolean, naming the first
        such leaf.

    Examples:
      >>> opt_state = replace_masks(tx.init(params), ticket)
    """
    held = find(opt_state).masks
    masks_lib.check_boolean(masks, remedy="make masks with masks.dense")
    masks = tree.match_structure(
        masks, held, fields=("masks", "the optimiser's masks"), same_leaves=True
    )

    def replace(node: SparseState) -> SparseState:
        if isinstance(node, LatentState):
            return node._replace(masks=masks)
        # By tree.map, as nnx.Optimizer keeps it in a box.
        replaced = jax.tree.map(lambda leaf: leaf | True, node.replaced)
        return node._replace(masks=masks, replaced=replaced)

    return _map_sparse(replace, opt_state)


def replace_key(opt_state: optax.OptState, key: RandomKey) -> optax.OptState:
    """Returns the optimiser state with another random key, so that replicates differ.

    Args:
      opt_state: state of an optimiser that contains exactly one `sparsify`.
      key: a typed key or raw key data, or an array of them, shaped as the one held.

    Returns:
      A new state of the same structure; the same for a method that draws nothing.

    Raises:
      ValueError: if the state holds no sparse optimiser, or more than one.
      TypeError: if `key` is no key.
    """
    find(opt_state)
    words = jax.random.key_data(rng.as_typed(key))

    def replace(node: SparseState) -> SparseState:
        if isinstance(node, LatentState):
            return node
        return node._replace(key=jax.tree.map(lambda _: words, node.key))

    return _map_sparse(replace, opt_state)


def replicate_axes(opt_state: optax.OptState) -> optax.OptState:
    """Returns the vmap axes of an optimiser state whose leaves lead with replicates.

    Everything is batched but the step counter and the flag that masks were
    replaced: batched, they would turn the `lax.cond` around a change of masks into
    a select, and every step would pay for it.

    Args:
      opt_state: state of one replicate, of many, or abstract.

    Returns:
      A tree of 0 and None, to be given as `in_axes` or `out_axes`.

    Examples:
      >>> axes = replicate_axes(jax.eval_shape(tx.init, params))
      >>> opt_states = jax.vmap(tx.init, out_axes=axes)(many_params)
    """

    def axes(node: Any) -> Any:
        if not _is_sparse(node):
            return 0
        batched = jax.tree.map(lambda _: 0, node)._replace(step=None)
        if isinstance(node, LatentState):
            return batched
        return batched._replace(replaced=None)

    return jax.tree.map(axes, opt_state, is_leaf=_is_sparse)
