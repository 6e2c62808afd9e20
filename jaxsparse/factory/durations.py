"""The config's lengths of training, from strings to updates."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ml_collections import ConfigDict

from jaxsparse import durations
from jaxsparse.data import shuffling, sources
from jaxsparse.training.scan_chunks import EpochSpec


class Durations(NamedTuple):
    """The config's lengths of training, in updates."""

    total: int
    warmup: int
    milestones: tuple[int, ...]
    rewind: int
    finetune: int
    evaluate_every: int
    checkpoint_every: int
    sparse: dict[str, int]
    gradient_every: int  # 0 for never
    keep_at: tuple[int, ...]  # growing
    stability_steps: tuple[int, ...]  # growing
    pretraining_warmup: int
    ghosts: int  # until when they are there
    smoothing: int  # until when labels are soft
    trace: tuple[int, ...]  # from when to when the profiler looks


@contextmanager
def config_context(field: str) -> Iterator[None]:
    """Puts the place in the config before the message of what goes wrong inside."""
    try:
        yield
    except sources.DatasetNotPrepared:
        raise
    except ValueError as error:
        raise ValueError(f"config.{field}: {error}") from error


def make_durations(config: ConfigDict, *, steps_per_epoch: int) -> Durations:
    """Reads the lengths of a config.

    Raises:
      ValueError: naming the field that cannot be read, or that comes to nothing.
    """

    def read(field: str, text: str, total: int | None = None) -> int:
        with config_context(field):
            return durations.to_steps(
                text, steps_per_epoch=steps_per_epoch, total=total
            )

    def growing(field: str, texts: Iterable[str]) -> tuple[int, ...]:
        return tuple(sorted({read(field, text, total) for text in texts}))

    total = read("training.length", config.training.length)
    every = read("evaluation.every", config.evaluation.every, total)
    if every < 1:
        raise ValueError(
            f"config.evaluation.every: came {config.evaluation.every!r}, which is "
            f"{every} updates; wanted at least 1"
        )
    gradient = config.analysis.gradient_every
    gradient_every = read("analysis.gradient_every", gradient, total) if gradient else 0
    if gradient and gradient_every < 1:
        raise ValueError(
            f"config.analysis.gradient_every: came {gradient!r}, which is 0 updates; "
            "wanted at least 1, or '' for never"
        )
    checkpoint = config.run.checkpoint_every
    changes = ("begin", "end", "update_every")
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
        sparse={
            name: read(f"sparse.{name}", config.sparse[name], total)
            for name in changes
            if config.sparse[name]
        },
        gradient_every=gradient_every,
        keep_at=growing("analysis.keep_at", config.analysis.keep_at),
        stability_steps=growing("stability.steps", config.stability.steps),
        pretraining_warmup=read("pretraining.warmup", config.pretraining.warmup, total),
        ghosts=read("ghosts.until", config.ghosts.until, total),
        smoothing=read(
            "training.smoothing_until", config.training.smoothing_until, total
        ),
        trace=_span(config.run.trace, growing("run.trace", config.run.trace), total),
    )


def _span(
    texts: tuple[str, ...], steps: tuple[int, ...], total: int
) -> tuple[int, ...]:
    """Refuses what is no stretch of training."""
    if texts and (len(texts) != 2 or len(steps) != 2 or steps[1] > total):
        raise ValueError(
            f"config.run.trace: came {texts!r}, updates {steps} of {total}; wanted two "
            "lengths, from when to when, such as ('100step', '110step'), or ()"
        )
    return steps


def make_epoch(config: ConfigDict, examples: int) -> EpochSpec:
    """Divides so many training examples into batches."""
    c = config.data
    with config_context("data"):
        count = shuffling.steps_per_epoch(
            examples, batch_size=c.batch_size, drop_last=c.drop_last
        )
    last = c.batch_size if c.drop_last else examples - (count - 1) * c.batch_size
    return EpochSpec(count, c.batch_size, last)
