"""Converts the durations of a config from strings to training steps."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ml_collections import ConfigDict

from jaxsparse import durations
from jaxsparse.data import shuffling, sources
from jaxsparse.training.scan_chunks import EpochSpec


class Durations(NamedTuple):
    """Durations and steps of a config, all in training steps.

    Attributes:
      total: length of dense training.
      warmup: steps over which the learning rate increases from 0.
      milestones: steps at which the learning rate is multiplied by `schedule.gamma`.
      rewind: rewinding step.
      finetune: length of a level's fine-tuning.
      evaluate_every: steps between evaluations, at least 1.
      checkpoint_every: steps between checkpoints within a stage; 0 saves none.
      sparse: steps of the mask update schedule that the config specifies, with the keys
        "begin_step", "end_step" and "update_every".
      gradient_every: steps between measurements of the gradient norm; 0 measures none.
      keep_at: steps at which the state is saved for analyses, increasing.
      stability_steps: steps at which children of the instability analysis start,
        increasing.
      pretraining_warmup: steps over which the learning rate of the pretraining
        increases from 0.
      ghosts: step at which ToST's soft activations and ghost skips are annealed away.
      smoothing: step at which label smoothing is annealed away.
      trace: first and last step of the profiler trace; () traces nothing.
    """

    total: int
    warmup: int
    milestones: tuple[int, ...]
    rewind: int
    finetune: int
    evaluate_every: int
    checkpoint_every: int
    sparse: dict[str, int]
    gradient_every: int
    keep_at: tuple[int, ...]
    stability_steps: tuple[int, ...]
    pretraining_warmup: int
    ghosts: int
    smoothing: int
    trace: tuple[int, ...]


@contextmanager
def config_context(field: str) -> Iterator[None]:
    """Prefixes errors with the config field.

    Args:
      field: name of the field or section without "config.", such as "data".

    Raises:
      ValueError: what was raised inside, with the prefixed message.
    """
    try:
        yield
    except sources.DatasetNotPrepared:
        # Its message already explains how to get the dataset.
        raise
    except ValueError as error:
        raise ValueError(f"config.{field}: {error}") from error


def make_durations(config: ConfigDict, *, steps_per_epoch: int) -> Durations:
    """Converts the durations of a config to training steps.

    Args:
      config: a config whose fields have the right types.
      steps_per_epoch: training steps in one epoch, at least 1.

    Raises:
      ValueError: if a duration has no valid form, or an interval rounds to 0 steps; the
        message names the config field.
    """

    def read(field: str, text: str, total: int | None = None) -> int:
        with config_context(field):
            return durations.to_steps(
                text, steps_per_epoch=steps_per_epoch, total=total
            )

    def growing(field: str, texts: Iterable[str]) -> tuple[int, ...]:
        return tuple(sorted({read(field, text, total) for text in texts}))

    total = read("training.duration", config.training.duration)
    every = read("evaluation.every", config.evaluation.every, total)
    if every < 1:
        raise ValueError(
            f"config.evaluation.every: expected at least 1 step, got "
            f"{config.evaluation.every!r}, which is {every}; set a longer interval"
        )
    gradient = config.analysis.gradient_every
    gradient_every = read("analysis.gradient_every", gradient, total) if gradient else 0
    if gradient and gradient_every < 1:
        raise ValueError(
            "config.analysis.gradient_every: expected at least 1 step, got "
            f"{gradient!r}, which is 0; set a longer interval, or None to measure none"
        )
    checkpoint = config.run.checkpoint_every
    changes = ("begin_step", "end_step", "update_every")
    return Durations(
        total=total,
        warmup=read("schedule.warmup", config.schedule.warmup, total),
        milestones=tuple(
            read("schedule.milestones", text, total)
            for text in config.schedule.milestones
        ),
        rewind=read("lottery.rewind", config.lottery.rewind, total),
        finetune=read("lottery.finetune_length", config.lottery.finetune_length, total),
        evaluate_every=every,
        checkpoint_every=read("run.checkpoint_every", checkpoint, total)
        if checkpoint
        else 0,
        # Empty fields are left out, so that the method's own default applies.
        sparse={
            name: read(f"sparse.{name}", config.sparse[name], total)
            for name in changes
            if config.sparse[name]
        },
        gradient_every=gradient_every,
        keep_at=growing("analysis.save_at", config.analysis.save_at),
        stability_steps=growing(
            "instability.start_steps", config.instability.start_steps
        ),
        pretraining_warmup=read("pretraining.warmup", config.pretraining.warmup, total),
        ghosts=read("tost.end", config.tost.end, total),
        smoothing=read("training.smoothing_end", config.training.smoothing_end, total),
        trace=_span(
            config.run.trace or (),
            tuple(read("run.trace", text, total) for text in config.run.trace or ()),
            total,
        ),
    )


def _span(
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
