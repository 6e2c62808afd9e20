"""Reparameterized training: weights that are a function of the trained parameters.

`reparameterize` wraps an optimizer, and returns one that is used like any other. The
parameters in the training loop are the weights that the network computes with; the
trained parameters are in the optimizer's state. No loop needs to be changed:

    tx = transforms.reparameterize(optax.sgd(0.1), transforms.powerpropagation(2.0))
    opt_state = tx.init(params)
    grads = jax.grad(loss)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)

Wrap the result in a sparse optimizer, such as `transforms.fixed(tx)`, to train sparse
networks; all methods work around it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import Prunable
from jaxsparse.transforms import fitting
from jaxsparse.transforms.part_states import check_inner
from jaxsparse.transforms.parts import (
    OTHERS,
    ByName,
    Parts,
    Reparameterization,
    ReparameterizedState,
    by_leaf,
    check_parts,
    is_reparameterization,
    of_names,
    split,
    to_trees,
    with_others,
)
from jaxsparse.types import Grads, Params, Step


@arguments.check(inner=arguments.optimizer, reparameterization=is_reparameterization)
def reparameterize(
    inner: optax.GradientTransformation,
    reparameterization: Reparameterization | ByName,
    *,
    prunable: Prunable = masks_lib.is_kernel,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimizer so that it trains other parameters than the weights.

    With weights :math:`\theta = f(\phi)` and the gradient :math:`g` at :math:`\theta`,
    one update

    1. gets :math:`u` from `inner` for the gradient :math:`J_f(\phi)^T g`, by the chain
       rule, plus that of the penalty, and for the parameters :math:`\phi`;
    2. sets :math:`\phi' = \phi + u`, and adjusts it;
    3. returns :math:`f(\phi') - \theta`, so that `optax.apply_updates` gives
       :math:`f(\phi')`, rounded like any sum; zeros are exact.

    The weights of step t are those of `forward(parts, t)`. The optimizer state
    contains :math:`\phi` in addition to the parameters, for checkpoints too. Weight
    decay and clipping in `inner` act on :math:`\phi`, and what schedule-free optimizers
    average there is :math:`\phi`. Whoever changes the parameters between updates, for
    example by averaging, must call `init` again.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation except
        `optax.lookahead`. It gets trees of parts, as in `ReparameterizedState`, so a
        mask for parts of the network must be a function and not a tree.
      reparameterization: one for all leaves that `prunable` selects; or a function of
        the parameters that returns those of single leaves by name, such as
        {"dense/kernel": ...}.
      prunable: which leaves are reparameterized: a function of a leaf's name and the
        leaf, or shell patterns of leaf names, where a pattern that begins with "!"
        excludes leaves. Not used if `reparameterization` is a function.

    Returns:
      A transformation whose state is a `ReparameterizedState`.

    Raises:
      ValueError: from `init`, if the parameters are `optax.LookaheadParams`, `inner` is
        reparameterized itself, or a reparameterization does not fit its leaf; from
        `update`, if `params` is None.
      TypeError: if `reparameterization` is neither, or returns anything else.

    Examples:
      >>> halves = transforms.Reparameterization(
      ...     init=lambda weight: {"a": weight / 2, "b": weight / 2},
      ...     forward=lambda parts, step: parts["a"] + parts["b"],
      ... )
      >>> tx = transforms.reparameterize(optax.sgd(0.1), halves)
      >>> opt_state = tx.init(params)
      >>> grads = jax.grad(loss)(params, inputs)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> params = optax.apply_updates(params, updates)
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> ReparameterizedState:
        _check_params(params)
        step = jnp.zeros((), jnp.int32)
        if fitting.is_placeholder(params):
            return ReparameterizedState(step, params, params, inner.init(params))
        leaves, structure = jax.tree.flatten(params)
        maps = _of_leaves(reparameterization, params, prunable)
        parts = [
            {} if each is None else jax.tree.map(jnp.copy, each.init(leaf))
            for each, leaf in zip(maps, leaves, strict=True)
        ]
        check_parts(maps, parts, params)
        trained, frozen = split(maps, parts)
        seen = to_trees(with_others(maps, trained, leaves), structure)
        state = (
            to_trees(trained, structure),
            to_trees(frozen, structure),
        )
        inner_state = inner.init(seen)
        check_inner(
            inner_state, "combine the two in one `forward`, or choose one of them"
        )
        return ReparameterizedState(step, *state, inner_state)

    def update(
        grads: Grads,
        state: ReparameterizedState,
        params: Params | None = None,
        **extra: Any,
    ) -> tuple[Params, ReparameterizedState]:
        _check_params(params)
        leaves, structure = jax.tree.flatten(params)
        maps = _of_leaves(reparameterization, params, prunable)
        trained = by_leaf(state.trained, structure)
        frozen = by_leaf(state.frozen, structure)
        own_grads = structure.flatten_up_to(
            tree.match_structure(grads, params, fields=("grads", "params"))
        )
        pulled = [
            {} if each is None else _pull_back(each, own, fixed, grad, state.step)
            for each, own, fixed, grad in zip(
                maps, trained, frozen, own_grads, strict=True
            )
        ]
        # Masks of a method around this fit the weights, but not the trained parts.
        extra.pop("masks", None)
        updates, inner_state = inner.update(
            to_trees(with_others(maps, pulled, own_grads), structure),
            state.inner_state,
            to_trees(with_others(maps, trained, leaves), structure),
            **extra,
        )
        moves, step = (
            by_leaf(updates, structure),
            optax.safe_increment(state.step),
        )
        parts, results = [], []
        for each, own, fixed, move, leaf in zip(
            maps, trained, frozen, moves, leaves, strict=True
        ):
            if each is None:
                parts.append({})
                results.append(move.get(OTHERS))
                continue
            moved = optax.apply_updates(own, move) | fixed
            parts.append(moved if each.adjust is None else each.adjust(moved, step))
            results.append(difference(each.forward(parts[-1], step), leaf))
        trained, frozen = split(maps, parts)
        new = (
            to_trees(trained, structure),
            to_trees(frozen, structure),
        )
        return structure.unflatten(results), ReparameterizedState(
            step, *new, inner_state
        )

    return optax.GradientTransformationExtraArgs(init, update)


def initial_weights(
    reparameterization: Reparameterization | ByName,
    state: ReparameterizedState,
    params: Params,
    *,
    prunable: Prunable,
) -> Params:
    """Computes the weights of a fresh state, which may differ from the parameters.

    Args:
      reparameterization: that of the state, as given to `reparameterize`.
      state: the state that `init` returned.
      params: the parameters that `init` was called with.
      prunable: which leaves are reparameterized, as given to `reparameterize`.
    """
    leaves, structure = jax.tree.flatten(params)
    maps = _of_leaves(reparameterization, params, prunable)
    columns = (
        by_leaf(state.trained, structure),
        by_leaf(state.frozen, structure),
    )
    weights = [
        leaf if each is None else each.forward(own | fixed, state.step)
        for each, leaf, own, fixed in zip(maps, leaves, *columns, strict=True)
    ]
    return structure.unflatten(weights)


def difference(target: Array, weight: Array) -> Array:
    """Returns the update by which `optax.apply_updates` turns weights into others.

    Args:
      target: the weights after the update.
      weight: the weights before it, of the same shape.

    Returns:
      The difference, in the dtype of the weights; where `target` is 0, their sum is
      exactly 0.
    """
    return target.astype(weight.dtype) - weight


def _check_params(params: Any) -> None:
    if params is None or isinstance(params, optax.LookaheadParams):
        raise ValueError(
            "params: expected the weights at which the gradient was taken, got "
            f"{type(params).__name__}; call tx.update(grads, opt_state, params), and "
            "put optax.lookahead around this optimizer"
        )


def _of_leaves(
    found: Reparameterization | ByName, params: Params, prunable: Prunable
) -> list[Reparameterization | None]:
    """Lists the reparameterization of each leaf, None where it is trained directly."""
    names = tree.names(params)
    if isinstance(found, Reparameterization):
        masks = jax.eval_shape(lambda: masks_lib.ones(params, prunable=prunable))
        by_name = dict.fromkeys(masks_lib.names(masks), found)
    else:
        by_name = of_names(found, params)
    unknown = [name for name in by_name if name not in names]
    if unknown:
        raise ValueError(
            f"reparameterization: expected names of leaves, {names}, got {unknown}"
        )
    return [by_name.get(name) for name in names]


def _pull_back(
    each: Reparameterization, own: Parts, fixed: Parts, grad: Array, step: Step
) -> Parts:
    """Computes the gradient of the trained parts from that of the weights."""
    weight, pull = jax.vjp(lambda parts: each.forward(parts | fixed, step), own)
    (grads,) = pull(grad.astype(weight.dtype))
    if each.penalty is None:
        return grads
    extra = jax.grad(lambda parts: each.penalty(parts | fixed, step))(own)
    return jax.tree.map(jnp.add, grads, extra)
