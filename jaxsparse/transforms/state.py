"""State of a sparse optimizer, and functions that read and replace parts of it.

Masks are part of the optimizer state, so sharding, checkpoints, `vmap` and `scan`
handle them like any other state. The functions here find the sparse state at any depth
of an optimizer state. `sparsify` and `latent` are what updates it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Bool, Int, UInt32

from jaxsparse import masks as masks_lib
from jaxsparse import multihost, rng, tree
from jaxsparse.transforms import mask_codes
from jaxsparse.types import Masks, Params, RandomKey, Step


class SparsifyState(NamedTuple):
    """State of `sparsify`.

    Attributes:
      step: number of updates made so far; int32 scalar, counted from 0.
      key: random key of the method, as raw key data (uint32). It is never split:
        `update_masks` receives it as a typed key and folds in `step`. None for a method
        that draws nothing.
      codes: which weights are active, of which the optimizer state is kept when masks
        change, and which were active earlier; see `mask_codes`. `masks` decodes the
        active ones.
      replaced: whether `masks` were replaced since the last update, so that
        `inner_state` must be reset where codes say so; boolean scalar. It is a separate
        field because it must stay unbatched under `vmap`, as `step` must.
      skipped_updates: number of mask updates skipped because a score was not finite;
        int32.
      memory: the method's own state between updates, or None.
      inner_state: state of the wrapped optimizer.
    """

    step: Step
    key: UInt32[Array, "..."] | None
    codes: Any
    replaced: Bool[Array, ""]
    skipped_updates: Int[Array, "..."]
    memory: Any
    inner_state: optax.OptState

    @property
    def masks(self) -> Any:
        """Boolean masks of the active weights; abstract if the codes are."""
        leaves = jax.tree.leaves(self.codes)
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
            return jax.eval_shape(mask_codes.active, self.codes)
        return mask_codes.active(self.codes)


class LatentState(NamedTuple):
    """State of a latent-dense method: dense weights, and masks for the forward pass.

    Also of methods whose masks follow the zeros of the weights, see `self_sparse`.

    Attributes:
      step: number of updates made so far; int32 scalar, counted from 0.
      masks: which weights the forward pass uses, chosen for the current parameters.
      skipped_updates: number of mask updates skipped because a weight was not finite;
        int32.
      memory: masks of the weights that are trained, or None if all are.
      inner_state: state of the wrapped optimizer.
    """

    step: Step
    masks: Masks
    skipped_updates: Int[Array, "..."]
    memory: Any
    inner_state: optax.OptState


SparseState = SparsifyState | LatentState


def _is_sparse(node: Any) -> bool:
    """Returns whether a node of an optimizer state belongs to a sparse optimizer."""
    return isinstance(node, SparsifyState | LatentState)


def _map_sparse(
    fn: Callable[[SparseState], SparseState], opt_state: optax.OptState
) -> optax.OptState:
    """Applies `fn` to the state of each sparse optimizer and keeps everything else."""
    return jax.tree.map(
        lambda node: fn(node) if _is_sparse(node) else node,
        opt_state,
        is_leaf=_is_sparse,
    )


def find(opt_state: optax.OptState) -> SparseState:
    """Returns the state of the one sparse optimizer within an optimizer state.

    Args:
      opt_state: state of an optimizer that contains exactly one sparse optimizer, at
        any depth.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer, or more than one.
    """
    # No optimizer has to be known here: the state is found by type within any wrapper.
    leaves = jax.tree.leaves(opt_state, is_leaf=_is_sparse)
    sparse_states = [leaf for leaf in leaves if _is_sparse(leaf)]
    if len(sparse_states) != 1:
        raise ValueError(
            "opt_state: expected the state of exactly one sparse optimizer, got "
            f"{len(sparse_states)}; wrap the whole optimizer once, as in "
            "transforms.fixed(optax.adam(1e-3))"
        )
    return sparse_states[0]


def forward_params(params: Params, opt_state: optax.OptState) -> Params:
    """Returns the parameters to compute with and to take the gradient at.

    Args:
      params: parameters as the optimizer stores them.
      opt_state: state of an optimizer that contains exactly one sparse optimizer, at
        any depth.

    Returns:
      For latent-dense methods, `params` with weights outside the masks set to exactly
      zero. For all other methods `params` itself, whose weights outside the masks are
      zero already.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer, or more than one.

    Examples:
      >>> tx = transforms.straight_through(optax.sgd(0.1), sparsity=0.9)
      >>> opt_state = tx.init(params)
      >>> grads = jax.grad(loss)(transforms.forward_params(params, opt_state), inputs)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
    """
    state = find(opt_state)
    if isinstance(state, LatentState):
        return masks_lib.apply(state.masks, params)
    return params


def stored_params(params: Params, opt_state: optax.OptState) -> Params:
    """Returns parameters as the optimizer stores them: dense for latent-dense methods.

    Args:
      params: dense parameters, such as initial ones.
      opt_state: state of an optimizer that contains exactly one sparse optimizer, at
        any depth.

    Returns:
      For latent-dense methods `params` itself. For all other methods, `params` with
      weights outside the masks set to exactly zero.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer, or more than one.
    """
    state = find(opt_state)
    if isinstance(state, LatentState):
        return params
    return masks_lib.apply(state.masks, params)


def apply_updates(params: Params, updates: Params, opt_state: optax.OptState) -> Params:
    """Applies updates like `optax.apply_updates`, then sets pruned weights to zero.

    Transformations outside a sparse optimizer that rescale, average, clip or add to its
    updates leave nonzero weights outside the masks. Examples are
    `optax.chain(rigl(adam), optax.ema(0.9))`, or `optax.contrib.mechanize` or
    `schedule_free` around it. A weight that became NaN before it was pruned stays NaN
    too, since NaN - NaN is NaN. After this function, weights outside the masks are
    exactly zero in all these cases. The optimizer state of the outer transformation is
    not changed: if such a weight is grown again, the outer transformation continues
    with the state it has for it.

    Args:
      params: parameters, or `optax.LookaheadParams`, whose slow weights are set to zero
        outside the masks too.
      updates: the updates that `tx.update` returned.
      opt_state: the optimizer state that `tx.update` returned, with exactly one sparse
        optimizer at any depth.

    Returns:
      The new parameters. For latent-dense methods this is only the sum of `params` and
      `updates`, since they store dense weights; `forward_params` sets the weights
      outside the masks to zero.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer, or more than one; if
        `updates` do not fit `params`, naming the first leaf that differs.

    Examples:
      >>> sparse = transforms.rigl(optax.adam(1e-3), sparsity=0.9, end_step=75_000)
      >>> tx = optax.chain(sparse, optax.ema(0.9))
      >>> opt_state = tx.init(params)
      >>> grads = jax.grad(loss)(params, inputs)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> params = transforms.apply_updates(params, updates, opt_state)
    """
    find(opt_state)  # arguments in another order would fit each other
    updates = tree.match_structure(
        updates, params, fields=("updates", "params"), same_leaves=True
    )
    params = optax.apply_updates(params, updates)
    if not isinstance(params, optax.LookaheadParams):
        return stored_params(params, opt_state)
    # The state has one set of masks, with the structure of the fast weights. They hold
    # for the slow weights as well.
    return optax.LookaheadParams(
        *(stored_params(weights, opt_state) for weights in params)
    )


def get_masks(opt_state: optax.OptState) -> Masks:
    """Returns the masks in an optimizer state.

    Args:
      opt_state: state of an optimizer that contains exactly one sparse optimizer, at
        any depth.

    Returns:
      Boolean masks with the nesting of the parameters; None where a leaf is not
      prunable.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer, or more than one.
    """
    return find(opt_state).masks


def local_masks(opt_state: optax.OptState) -> Masks:
    """Returns the masks in an optimizer state, whole on the devices of this process.

    Args:
      opt_state: state of an optimizer that contains exactly one sparse optimizer, at
        any depth. Its arrays may be on devices of several processes.

    Returns:
      The masks of `get_masks`, on the first device of every process if there are
      several. No program is compiled, unless the state stores packed masks.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer, or more than one.
    """
    state = find(opt_state)
    if isinstance(state, SparsifyState):
        return mask_codes.active(multihost.to_host(state.codes))
    return multihost.to_local(state.masks)


def replace_masks(opt_state: optax.OptState, masks: Masks) -> optax.OptState:
    """Returns the optimizer state with other masks.

    The next update sets newly pruned weights to zero, and resets the optimizer state of
    all weights that are not in both the old and the new masks to its initial value. If
    the weights must be zero at once, for example to compute a saliency score, call
    `masks.apply` on the parameters too. Latent-dense methods compute with the new masks
    until their next mask update; which weights they train does not change.

    Args:
      opt_state: state of an optimizer that contains exactly one sparse optimizer, at
        any depth.
      masks: boolean masks whose leaves have the names and shapes of the current masks;
        node types, such as dict and FrozenDict, may differ. If only a part of the
        network is sparse, as in `optax.partition`, masks of that part or of the whole
        network.

    Returns:
      A new state of the same structure, so compiled functions are not traced again.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer or more than one, or if a
        mask is not boolean or differs in name or shape; the message names the first
        such leaf.

    Examples:
      >>> tx = transforms.sparsify(optax.adam(1e-3), masks.ones)
      >>> ticket = prune.prune(params, 0.9)
      >>> opt_state = transforms.replace_masks(tx.init(params), ticket)
      >>> masks.num_active(transforms.get_masks(opt_state))
      8
    """
    current = find(opt_state).masks
    masks_lib.check_boolean(masks, remedy="make masks with `masks.ones`")
    masks = tree.match_structure(
        masks, current, fields=("masks", "the optimizer's masks"), same_leaves=True
    )

    def replace(node: SparseState) -> SparseState:
        if isinstance(node, LatentState):
            return node._replace(masks=masks)
        # `nnx.Optimizer` wraps each leaf of the state in a variable; tree.map keeps it.
        [step, was_replaced] = jax.tree.leaves((node.step, node.replaced))
        codes = mask_codes.change(
            node.codes, masks, replaced=was_replaced, counted=step > 0
        )
        replaced = jax.tree.map(lambda leaf: leaf | True, node.replaced)
        return node._replace(codes=codes, replaced=replaced)

    return _map_sparse(replace, opt_state)


def replace_key(opt_state: optax.OptState, key: RandomKey) -> optax.OptState:
    """Returns the optimizer state with another random key, so that replicates differ.

    Args:
      opt_state: state of an optimizer that contains exactly one sparse optimizer, at
        any depth.
      key: a typed key, raw key data (uint32), or an array of either, with the shape of
        the key in `opt_state`.

    Returns:
      A new state of the same structure. It is unchanged for a method that draws
      nothing.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer, or more than one.
      TypeError: if `key` is not a random key.
    """
    find(opt_state)
    # The state stores raw key data, which checkpoints handle like any other array.
    key_data = jax.random.key_data(rng.as_typed(key))

    def replace(node: SparseState) -> SparseState:
        if isinstance(node, LatentState):
            return node
        return node._replace(key=jax.tree.map(lambda _: key_data, node.key))

    return _map_sparse(replace, opt_state)
