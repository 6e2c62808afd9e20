"""What a method of pruning or regrowth provides, and `engine.sparsify` calls."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import optax
from jaxtyping import Array, Bool, Key

from jaxsparse.types import Grads, Masks, Params, Step


class MaskUpdate(NamedTuple):
    """What a method decides when masks change.

    Attributes:
      masks: the new masks.
      memory: what the method wants to remember, structured as before.
      reset: weights of the new masks whose optimiser memory starts afresh although
        the masks kept them, or None for none. A weight dropped and regrown in one
        update is such a weight, and the masks alone do not show it.
      zeroed: likewise, weights whose value starts from zero.
      finite: whether every score that chose these masks was finite, a boolean scalar;
        None if only weights were read, which `sparsify` looks at itself. False leaves
        masks and memory as they were; see `select.all_finite`.
    """

    masks: Masks
    memory: Any = None
    reset: Masks | None = None
    zeroed: Masks | None = None
    finite: Bool[Array, ""] | None = None


@runtime_checkable
class InitMasks(Protocol):
    """Makes the masks training starts from."""

    def __call__(self, params: Params) -> Masks:
        """Returns masks for `params`; must work under `jax.eval_shape`."""


@runtime_checkable
class UpdateMasks(Protocol):
    """Chooses new masks during training. Pure, and traced once."""

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
          masks: the present masks.
          params: parameters, zero outside `masks`.
          grads: the dense gradient, also outside `masks`, or that of the caller's
            `growth_grads`.
          step: updates made so far; int32.
          key: random key; fold the step in before drawing. None if `sparsify` was
            given none.
          memory: what the last call wanted to remember.
          inner_state: state of the wrapped optimiser, for methods that read momenta.
          **extra: what the caller gave to `update` by name.

        Returns:
          Masks with the nesting and shapes of `masks`, and what goes with them.
        """


@runtime_checkable
class Observe(Protocol):
    """Keeps a method's memory up to date at every update, whether masks change or not.

    For what takes more than one gradient, such as a momentum of the dense gradient.
    """

    def __call__(self, memory: Any, grads: Grads) -> Any:
        """Returns the new memory, structured as before, from the dense gradient."""


@runtime_checkable
class UpdateAt(Protocol):
    """Says at which steps the masks change."""

    def __call__(self, step: Step) -> Bool[Array, ""]:
        """Returns True when masks are to be updated before update `step`."""
