"""Converts the durations of a config from strings to training steps."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxsparse import durations
from jaxsparse.config.fields import FIELDS
from jaxsparse.data import shuffling, tfds_folders
from jaxsparse.training.chunk_plan import EpochSpec


class ScheduleSteps(NamedTuple):
    """Steps of the learning rate schedules.

    Attributes:
      warmup: steps over which the learning rate increases from 0.
      milestones: steps at which the learning rate is multiplied by `schedule.gamma`.
      pretraining_warmup: steps over which the learning rate of the pretraining
        increases from 0.
    """

    warmup: int
    milestones: tuple[int, ...]
    pretraining_warmup: int


class LotterySteps(NamedTuple):
    """Steps of a lottery-ticket run.

    Attributes:
      rewind: rewinding step.
      finetune: length of a level's fine-tuning.
      children_start: steps at which copies of the instability analysis start,
        increasing.
    """

    rewind: int
    finetune: int
    children_start: tuple[int, ...]


class AnnealingSteps(NamedTuple):
    """Steps at which temporary parts of training are annealed away.

    Attributes:
      tost_end: step at which soft activations and ghost skips are gone.
      smoothing_end: step at which label smoothing is gone.
    """

    tost_end: int
    smoothing_end: int


class Intervals(NamedTuple):
    """Steps at which training is evaluated, measured, saved and traced.

    Attributes:
      evaluate_every: steps between evaluations, at least 1.
      checkpoint_every: steps between checkpoints within a stage; 0 saves none.
      gradient_every: steps between measurements of the gradient norm; 0 measures none.
      save_at: steps at which the state is saved for analyses, increasing.
      trace: first and last step of the profiler trace; () traces nothing.
    """

    evaluate_every: int
    checkpoint_every: int
    gradient_every: int
    save_at: tuple[int, ...]
    trace: tuple[int, ...]


class Durations(NamedTuple):
    """Durations and steps of a config, all in training steps.

    Attributes:
      total: length of dense training.
      schedule: steps of the learning rate schedules.
      lottery: steps of a lottery-ticket run.
      sparse: steps of those durations in the section "sparse" that the config
        specifies, by the names of their fields.
      annealing: steps at which temporary parts of training are annealed away.
      intervals: steps at which training is evaluated, measured, saved and traced.
    """

    total: int
    schedule: ScheduleSteps
    lottery: LotterySteps
    sparse: dict[str, int]
    annealing: AnnealingSteps
    intervals: Intervals


@contextmanager
def config_context(
    field: str, arguments: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Prefixes errors with the config field, unless they name one already.

    An error that begins with the name of an argument gets the name of the field from
    which the argument comes, such as "config.sparse.end_step" for "end_step".

    Args:
      field: name of the field or section without "config.", such as "data".
      arguments: names of fields of the section, by those of the arguments that they are
        passed to; None if these are equal.

    Raises:
      ValueError: what was raised inside, with the prefixed message.
    """
    try:
        yield
    except tfds_folders.DatasetNotPrepared:
        # Its message already explains how to get the dataset.
        raise
    except ValueError as error:
        if str(error).startswith("config."):  # it names a field already
            raise
        name, colon, rest = str(error).partition(": ")
        own = f"{field}.{(arguments or {}).get(name, name)}"
        if colon and (own in FIELDS or name in (arguments or {})):
            raise ValueError(f"config.{own}: {rest}") from error
        raise ValueError(f"config.{field}: {error}") from error


class _Reader(NamedTuple):
    """Reads durations of a config.

    Attributes:
      config: a config whose fields have the right types.
      steps_per_epoch: training steps in one epoch.
      total: length of training in steps, to which percentages refer; None while it is
        not known yet.
    """

    config: ConfigDict
    steps_per_epoch: int
    total: int | None = None

    def steps(self, field: str) -> int:
        """Converts one field, such as "schedule.warmup", to steps."""
        return self._convert(field, self._value(field))

    def optional(self, field: str) -> int:
        """Converts one field to steps; 0 if it is empty."""
        return self.steps(field) if self._value(field) else 0

    def each(self, field: str) -> tuple[int, ...]:
        """Converts a tuple of durations, in their order; () if it is None."""
        return tuple(self._convert(field, text) for text in self._value(field) or ())

    def increasing(self, field: str) -> tuple[int, ...]:
        """Converts a tuple of durations to increasing steps without duplicates."""
        return tuple(sorted(set(self.each(field))))

    def interval(self, field: str, *, remedy: str = "") -> int:
        """Converts one field to steps, which must be at least 1."""
        steps = self.steps(field)
        if steps < 1:
            raise ValueError(
                f"config.{field}: expected at least 1 step, got "
                f"{self._value(field)!r}, which is {steps}; set a longer interval"
                f"{remedy}"
            )
        return steps

    def _value(self, field: str) -> Any:
        section, name = field.split(".")
        return self.config[section][name]

    def _convert(self, field: str, text: str) -> int:
        with config_context(field):
            return durations.to_steps(
                text, steps_per_epoch=self.steps_per_epoch, total=self.total
            )


def make_durations(config: ConfigDict, *, steps_per_epoch: int) -> Durations:
    """Converts the durations of a config to training steps.

    Args:
      config: a config whose fields have the right types.
      steps_per_epoch: training steps in one epoch, at least 1.

    Raises:
      ValueError: if a duration has no valid form, or an interval rounds to 0 steps; the
        message names the config field.
    """
    total = _Reader(config, steps_per_epoch).steps("training.duration")
    read = _Reader(config, steps_per_epoch, total)
    changes = ("begin_step", "end_step", "update_every")
    changes += ("rescale_every", "rescale_until")
    return Durations(
        total=total,
        schedule=ScheduleSteps(
            warmup=read.steps("schedule.warmup"),
            milestones=read.each("schedule.milestones"),
            pretraining_warmup=read.steps("pretraining.warmup"),
        ),
        lottery=LotterySteps(
            rewind=read.steps("lottery.rewind"),
            finetune=read.steps("lottery.finetune_length"),
            children_start=read.increasing("instability.start_steps"),
        ),
        # Empty fields are left out, so that the method's own default applies.
        sparse={
            name: read.steps(f"sparse.{name}")
            for name in changes
            if config.sparse[name]
        },
        annealing=AnnealingSteps(
            tost_end=read.steps("tost.end"),
            smoothing_end=read.steps("training.smoothing_end"),
        ),
        intervals=_make_intervals(read),
    )


def _make_intervals(read: _Reader) -> Intervals:
    """Converts the fields that say when training is evaluated, saved and traced."""
    c, gradient = read.config, "analysis.gradient_every"
    never = ", or None to measure none"
    measures = bool(c.analysis.gradient_every)
    return Intervals(
        evaluate_every=read.interval("evaluation.every"),
        checkpoint_every=read.optional("run.checkpoint_every"),
        gradient_every=read.interval(gradient, remedy=never) if measures else 0,
        save_at=read.increasing("analysis.save_at"),
        trace=_check_trace(c.run.trace or (), read.each("run.trace"), read.total),
    )


def _check_trace(
    texts: tuple[str, ...], steps: tuple[int, ...], total: int
) -> tuple[int, ...]:
    """Checks that a profiler trace has a first and a last step within training.

    Which comes first is checked by `size_checks.check_lengths`: it can depend on the
    number of steps per epoch.

    Args:
      texts: the two durations as in the config; () for no trace.
      steps: the same in training steps.
      total: length of training in steps.

    Returns:
      `steps`.

    Raises:
      ValueError: if there are not two steps, or one is after training.
    """
    if texts and (len(texts) != 2 or max(steps) > total):
        raise ValueError(
            f"config.run.trace: expected two times within the {total} steps of "
            f"training, such as ('100step', '110step'), got {texts!r}, steps {steps}; "
            "choose others"
        )
    return steps


def make_epoch(config: ConfigDict, examples: int) -> EpochSpec:
    """Splits the training examples of an epoch into batches.

    Args:
      config: a config with batch size and whether to drop a smaller last batch.
      examples: number of training examples.

    Raises:
      ValueError: if there are no full batches and smaller ones are dropped.
    """
    c = config.data
    with config_context("data"):
        count = shuffling.steps_per_epoch(
            examples, batch_size=c.batch_size, drop_last=c.drop_last
        )
    last = c.batch_size if c.drop_last else examples - (count - 1) * c.batch_size
    return EpochSpec(count, c.batch_size, last)
