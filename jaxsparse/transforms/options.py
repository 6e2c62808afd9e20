"""Options that several methods share: the sparsity schedule, and mask updates."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jaxsparse import arguments
from jaxsparse.transforms import update_schedules

Schedule = str | Callable[[int], float]
Ramp = str | Callable[[float], float] | Sequence[float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparsityRamp:
    """The course of sparsity from the first mask update to the last.

    Attributes:
      initial_sparsity: sparsity before the first mask update, in [0, 1). Weights are
        pruned to it by magnitude at step 0.
      schedule: "cubic", "linear", "exponential" or "sigmoid"; or a function of the
        progress in [0, 1] that returns which fraction of the way from
        `initial_sparsity` to the final sparsity is done; or a sequence with the
        sparsity after each mask update, the last of them the final sparsity.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.

    Examples:
      >>> tx = transforms.gradual_magnitude(
      ...     optax.sgd(0.1),
      ...     sparsity=0.9,
      ...     begin_step=0,
      ...     end_step=7000,
      ...     ramp=transforms.SparsityRamp(initial_sparsity=0.5, schedule="linear"),
      ... )

    References:
      Zhu, Gupta. To prune, or not to prune: exploring the efficacy of pruning for model
      compression. 2017. arXiv:1710.01878, equation 1.
    """

    initial_sparsity: float = 0.0
    schedule: Ramp = "cubic"

    def __post_init__(self) -> None:
        """Checks the options."""
        arguments.check_fields(
            self,
            initial_sparsity=arguments.fraction,
            schedule=update_schedules.check_sparsity_schedule,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropGrowOptions:
    """How mask updates drop some weights and grow others.

    `sparse_evolution`, `rigl`, `srigl`, `mest`, `snfs`, `granet`, `chts`, `east` and
    `neurrev` accept these options; MEST and GraNet do not skip the update, and GraNet,
    SRigL, CHTs and EAST always allow regrowth. Each also accepts options of a class of
    its own, which has further ones: `SparseEvolutionOptions`, `RigLOptions`,
    `SRigLOptions`, `MESTOptions`, `SNFSOptions`, `GraNetOptions`, `CHTsOptions`,
    `EASTOptions` and `NeurRevOptions`. None stands for the default of the method.

    Attributes:
      drop_fraction: fraction of each layer's active weights that a mask update drops,
        in [0, 1]; the count is rounded down.
      drop_schedule: how `drop_fraction` changes over training: "constant"; "cosine",
        which decays to 0 at the end of the mask updates; or a function of the step,
        such as a learning rate schedule, whose value relative to its largest value
        multiplies `drop_fraction`. All but "constant" need `end_step`.
      allow_regrow: whether a weight dropped in a mask update may be grown again in
        the same update.
      zero_regrown: whether a weight dropped and regrown in the same update starts
        from zero with fresh optimizer state, as other grown weights do. If False, it
        keeps its value and its optimizer state.
      skip_update: whether to skip the step of `inner` at mask updates. Then surviving
        weights and their optimizer state stay as they are.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.

    Examples:
      >>> updates = transforms.DropGrowOptions(drop_fraction=0.5, zero_regrown=True)
      >>> rigl = transforms.rigl(
      ...     optax.sgd(0.1), sparsity=0.9, end_step=75_000, updates=updates
      ... )
      >>> snfs = transforms.snfs(
      ...     optax.sgd(0.1), sparsity=0.9, end_step=75_000, updates=updates
      ... )
    """

    drop_fraction: float | None = None
    drop_schedule: Schedule | None = None
    allow_regrow: bool = True
    zero_regrown: bool = False
    skip_update: bool | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        arguments.check_fields(
            self,
            drop_fraction=arguments.optional(arguments.number(0, 1)),
            drop_schedule=arguments.optional(update_schedules.check_drop_schedule),
        )


Options = TypeVar("Options", bound=DropGrowOptions)


def resolve(
    updates: DropGrowOptions | None, kind: type[Options], *, function: str, **own: Any
) -> Options:
    """Completes the options that a method was called with.

    Args:
      updates: the caller's options; None for the defaults.
      kind: class of the method's options.
      function: name of the method, for error messages.
      **own: values of the method for options that are None.

    Returns:
      The options, none of which stands for a default.

    Raises:
      TypeError: if `updates` are options of another method, or not options.
    """
    if updates is None:
        return kind(**own)
    # Exactly these classes: a further option of another method would have no effect.
    if type(updates) not in (DropGrowOptions, kind):
        raise TypeError(
            f"updates: expected {DropGrowOptions.__name__} or {kind.__name__} with "
            f"{function}, got {updates!r}"
        )
    names = [field.name for field in dataclasses.fields(updates)]
    given = {name: getattr(updates, name) for name in names}
    return kind(**own | {k: v for k, v in given.items() if v is not None})


def check_required(updates: DropGrowOptions, *, function: str, **required: Any) -> None:
    """Checks options of which a method accepts one value only.

    Args:
      updates: the completed options.
      function: name of the method, for error messages.
      **required: by option, the only value that the method accepts.

    Raises:
      ValueError: if an option has another value.
    """
    for name, expected in required.items():
        if getattr(updates, name) != expected:
            raise ValueError(
                f"{name}: expected {expected} with {function}, which has no such "
                f"option, got {getattr(updates, name)!r}"
            )
