"""Interfaces between `sparsify` and a sparse training method.

A method provides functions of these types; `sparsify.sparsify` calls them.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import optax
from jaxtyping import Array, Bool, Key

from jaxsparse.types import Grads, Masks, Params, Step


class MaskUpdate(NamedTuple):
    """Result of a mask update.

    Attributes:
      masks: the new masks.
      memory: the method's own state after the update, with the structure it had before.
      reset: masks of weights whose optimizer state is reset even though they are active
        both before and after the update, or None if there are none. A weight dropped
        and regrown in one update is an example: the masks alone do not show it.
      zeroed: masks of weights whose value restarts from zero even though they are
        active both before and after the update, or None if there are none.
      finite: whether every score that the masks were chosen by is finite; boolean
        scalar, see `select.all_finite`. If False, masks and memory stay as they were.
        None if the method reads no scores but the weights, which `sparsify` checks
        itself.
    """

    masks: Masks
    memory: Any = None
    reset: Masks | None = None
    zeroed: Masks | None = None
    finite: Bool[Array, ""] | None = None


@runtime_checkable
class InitMasks(Protocol):
    """Makes the initial masks."""

    def __call__(self, params: Params) -> Masks:
        """Returns initial masks; must work under `jax.eval_shape`.

        Args:
          params: the initial parameters.

        Returns:
          Boolean masks with the nesting and shapes of `params`; None where a leaf is
          not prunable. For a state that stores
          two bits a weight, what `mask_codes.pack_masks` makes of such masks.
        """


@runtime_checkable
class UpdateMasks(Protocol):
    """Chooses new masks during training.

    The function must be pure and traceable: it runs inside a `lax.cond`.
    """

    def __call__(
        self,
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Step,
        key: Key[Array, ""] | None,
        memory: Any,
        inner_state: optax.OptState,
        **extra: Any,
    ) -> MaskUpdate:
        """Returns the next masks.

        Args:
          masks: the current masks.
          params: the parameters, zero outside `masks`.
          grads: the dense gradient, which includes weights outside `masks`; or the
            caller's `growth_grads` in its place.
          step: number of updates made so far; int32 scalar.
          key: typed random key, the same at every call; fold in `step` before drawing.
            None if `sparsify` was given no key.
          memory: the method's own state, as the last mask update or `Observe` returned
            it.
          inner_state: state of the wrapped optimizer, for methods that read momenta.
          **extra: keyword arguments that the caller passed to `update`.

        Returns:
          The new masks, with the nesting and shapes of `masks`, and what belongs to
          them.
        """


@runtime_checkable
class Observe(Protocol):
    """Updates the method's own state at every step, before any mask update.

    Methods that need more than one gradient use it, for example to track a momentum of
    the dense gradient.
    """

    def __call__(self, memory: Any, grads: Grads) -> Any:
        """Returns the method's new state.

        Args:
          memory: the method's own state.
          grads: the dense gradient, which includes weights outside the masks.

        Returns:
          The new state, with the structure of `memory`.
        """


@runtime_checkable
class UpdateAt(Protocol):
    """Decides at which steps masks are updated."""

    def __call__(self, step: Step) -> Bool[Array, ""]:
        """Returns whether the masks change in the update numbered `step`.

        Args:
          step: number of updates made so far; int32 scalar, counted from 0.

        Returns:
          A boolean scalar.
        """
