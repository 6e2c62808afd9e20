"""Checks and keeps the states of reparameterized optimizers within other optimizers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsparse.transforms.parts import ReparameterizedState
from jaxsparse.types import Masks


def check_inner(inner_state: optax.OptState, remedy: str) -> None:
    """Checks that an optimizer trains the weights themselves.

    Args:
      inner_state: the state that its `init` returned.
      remedy: what to do otherwise, for the error message.

    Raises:
      ValueError: if the optimizer is reparameterized.
    """
    if any(map(_is_state, jax.tree.leaves(inner_state, is_leaf=_is_state))):
        raise ValueError(
            "inner: expected an optimizer of the weights themselves, got one that is "
            f"reparameterized already; {remedy}"
        )


def check_shapes(masks: Masks, inner_state: optax.OptState) -> None:
    """Checks that `keep_outside` can keep all that weights are made of.

    Args:
      masks: masks of the weights whose update is applied; a tree without leaves if it
        is that of all weights.
      inner_state: a state of the optimizer.

    Raises:
      ValueError: if a leaf with a mask has a trained part of another shape, which all
        of its weights share.
    """

    def check(name: str, mask: Any, part: Any) -> None:
        if mask is not None and part is not None and mask.shape != part.shape:
            raise ValueError(
                f"inner: expected parts of the shape of the weights, {mask.shape}, "
                "since some weights are not trained, got a reparameterized optimizer "
                f"with part {name!r} of shape {part.shape}; make it a frozen part, or "
                "choose a method that trains all weights"
            )

    if not jax.tree.leaves(masks):
        return
    for node in jax.tree.leaves(inner_state, is_leaf=_is_state):
        if _is_state(node):
            for name, part in node.trained.items():
                jax.tree.map(
                    functools.partial(check, name),
                    masks,
                    part,
                    is_leaf=lambda leaf: leaf is None,
                )


def keep_outside(
    masks: Masks, before: optax.OptState, after: optax.OptState
) -> optax.OptState:
    """Keeps what weights outside of masks are made of, in an optimizer state.

    Args:
      masks: masks of the weights whose update is applied.
      before: the optimizer state before the update.
      after: that after it, of the same structure.

    Returns:
      `after`, with the trained parts of other weights from `before`. Parts of another
      shape than the weights are those of `after`.
    """

    def keep(mask: Any, old: Any, new: Any) -> Any:
        fits = mask is not None and new is not None and mask.shape == new.shape
        return jnp.where(mask, new, old) if fits else new

    def of_state(old: Any, new: Any) -> Any:
        if not isinstance(new, ReparameterizedState):
            return new
        parts = {
            name: jax.tree.map(
                keep, masks, old.trained[name], part, is_leaf=lambda leaf: leaf is None
            )
            for name, part in new.trained.items()
        }
        return new._replace(trained=parts)

    return jax.tree.map(
        of_state,
        before,
        after,
        is_leaf=_is_state,
    )


def keep_frozen(initial: optax.OptState, state: optax.OptState) -> optax.OptState:
    """Takes frozen parts from an optimizer state, so that no reset changes them.

    Args:
      initial: the state that the optimizer's `init` returned for masked weights.
      state: the current state, of the same structure.

    Returns:
      `initial`, with the frozen parts of `state`.
    """
    return jax.tree.map(
        lambda new, old: new._replace(frozen=old.frozen) if _is_state(new) else new,
        initial,
        state,
        is_leaf=_is_state,
    )


def _is_state(node: Any) -> bool:
    return isinstance(node, ReparameterizedState)
