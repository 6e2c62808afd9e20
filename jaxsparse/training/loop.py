"""One stage of training, from one clock reading to another.

`fit` dispatches calls, evaluates, records and saves; what a stage starts from and
what its end is used for is for the studies to say (`lottery`).
"""

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxsparse import hosts, records
from jaxsparse.training import (
    census,
    checkpoints,
    epoch,
    evaluation,
    interrupt,
    observing,
    placement,
    sharding,
    spending,
)
from jaxsparse.training.epoch import Call, Epoch, Program
from jaxsparse.training.evaluation import Evaluate, Scores
from jaxsparse.training.feeding import Feed
from jaxsparse.training.optimizers import LearningRate
from jaxsparse.training.progress import Progress
from jaxsparse.training.sharding import Layout
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import Tally
from jaxsparse.types import Masks

log = logging.getLogger(__name__)

# Kinds of records written while a stage trains; others come at its end.
_KINDS = ("train", "eval", "masks", "gradient", "change", "failed")


class Stage(NamedTuple):
    """A stretch of training that has a name.

    Attributes:
      name: where its records and checkpoints are found, such as "level_03/ticket".
      level: times pruned.
      arm: "ticket", or the control it is.
      start: clock at the beginning, in updates.
      stop: clock at the end.
    """

    name: str
    level: int
    arm: str
    start: int
    stop: int


class Trainer(NamedTuple):
    """What all stages of a run train with.

    Attributes:
      programs: compiled calls by (length, batch size); see `epoch.make_programs`.
      feed: where training examples come from.
      evaluate: by name ("validation", "test") the function that evaluates that set.
      layout: how the run uses its devices.
      epoch: what an epoch consists of.
      steps_per_call: at most so many steps in one call.
      evaluate_every: updates between evaluations.
      checkpoint_every: updates between checkpoints within a stage; 0 for none.
      calls_ahead: calls dispatched before the host waits for the first of them.
      learning_rate: for the record only; the optimiser has its own.
      arrangement: how work was laid out on the devices, for the record.
      changing: dense masks of one replicate, if masks change within a stage, which
        evaluations then count; else None.
      observer: what is measured besides, and when; None for nothing.
      keep_at: readings of the clock, growing, at which the state is kept for analyses.
      anchors: earlier solutions that training is repelled from, placed by replicate;
        None for none. See `repelling`.
      settled: clock from which evaluations are of the network as it will be.
      trace: readings of the clock between which the profiler looks; () for never.
      continues: whether a replicate whose loss is not finite lets the others go on.
    """

    programs: Callable[[int, int], Program]
    feed: Feed
    evaluate: Mapping[str, Evaluate]
    layout: Layout
    epoch: Epoch
    steps_per_call: int
    evaluate_every: int
    checkpoint_every: int
    calls_ahead: int
    learning_rate: LearningRate
    arrangement: Mapping[str, Any]
    changing: Masks | None = None
    observer: observing.Observer | None = None
    keep_at: tuple[int, ...] = ()
    anchors: Any = None
    settled: int = 0
    trace: tuple[int, ...] = ()
    continues: bool = False


@runtime_checkable
class MetricWriter(Protocol):
    """Sends records elsewhere, besides `metrics.jsonl`; TensorBoard's is one.

    Any function of a list of records will do. It is called in the first process only,
    after the records were written to the file, and what it raises ends the run. A run
    that was stopped and continues may send the records of a few steps a second time.
    """

    def __call__(self, rows: Sequence[records.Record]) -> None:
        """Sends records.

        Args:
          rows: records written together, such as those of all replicates at one
            evaluation; not to be changed. Each has a `kind` ("train", "eval", "masks",
            "level", "time" or one of an analysis) and says where it belongs (`stage`,
            `level`, `arm`, `step`, `epoch`, and `replicate` unless it is about all of
            them); its other fields are numbers, and None where there is none.
        """


class Desk(NamedTuple):
    """Where a run writes.

    Attributes:
      metrics: file of records.
      checkpoints: folder of checkpoints.
      progress: what shows how far the run is.
      should_stop: says whether to stop cleanly now, by the number of a signal.
      metric_writers: what records are sent to besides `metrics`.
    """

    metrics: Path
    checkpoints: Path
    progress: Progress
    should_stop: Callable[[], int]
    metric_writers: tuple[MetricWriter, ...] = ()


class _Sums(NamedTuple):
    """Training tallies since the last record, exact in float64."""

    loss: list[float]
    correct: list[int]
    examples: list[int]


def _add(sums: _Sums | None, tally: Tally) -> _Sums:
    new = [
        np.sum(np.asarray(leaf, kind), axis=0)
        for leaf, kind in zip(tally, (np.float64, np.int64, np.int64), strict=True)
    ]
    if sums is not None:
        new = [np.asarray(old) + more for old, more in zip(sums, new, strict=True)]
    return _Sums(*(leaf.tolist() for leaf in new))


def write(desk: Desk, rows: list[records.Record]) -> None:
    """Appends records to the metrics and shows them, in the first process only."""

    def append() -> None:
        records.append(desk.metrics, rows)
        for send in desk.metric_writers:
            send(rows)

    hosts.do(append)


def settle(desk: Desk, stage: Stage) -> int:
    """Waits until records are on the disk, and counts those of a stage.

    A checkpoint that says how many there are must not outlive them.
    """

    def count() -> int:
        records.sync(desk.metrics)
        return records.count(desk.metrics, stage.name)

    return hosts.tell(count)


def record(stage: Stage, kind: str, *, step: int, trainer: Trainer) -> records.Record:
    """Begins a record: what, where and when."""
    return {
        "kind": kind,
        "stage": stage.name,
        "level": stage.level,
        "arm": stage.arm,
        "step": step,
        "epoch": round(step / trainer.epoch.steps, 4),
    }


def fit(
    trainer: Trainer,
    fresh: TrainState,
    *,
    stage: Stage,
    keys: Key[Array, "r"],
    desk: Desk,
    tracer: spending.Tracer | None = None,
) -> tuple[TrainState, float]:
    """Trains from the latest whole checkpoint of a stage, else from `fresh`.

    Args:
      trainer: what to train with.
      fresh: state the stage begins with, in the form of files; its clock shows
        `stage.start`.
      stage: which stage this is.
      keys: of data order and augmentation, one a replicate.
      desk: where to write.
      tracer: what the profiler looks at; None for nothing.

    Returns:
      The state at `stage.stop`, in the form of files, and the seconds spent on the
      stage, over all sessions.

    Raises:
      Stopped: if asked to stop, after saving a checkpoint.
      NonFinite: if a loss is NaN or infinite, after its record was written.
    """
    fresh = placement.at_rest(trainer.layout, fresh)
    state, sums, spent = _resume(fresh, stage, desk)
    step = saved = int(state.step)
    began = time.monotonic() - spent
    layout = trainer.layout
    # A copy: the first call takes its buffers, and the caller keeps `fresh`.
    state = placement.place(layout, jax.tree.map(jnp.copy, state))
    order_keys, draw_keys = data_keys(layout, keys)
    pending: list[Tally] = []
    report: Callable[[], None] = _nothing
    desk.progress.begin(stage.name, start=stage.start, step=step, stop=stage.stop)
    notebook = _open_notebook(trainer, stage)
    notebook.see(state, step, anew=step == stage.start)
    tracer = tracer or spending.Tracer((), desk.metrics)
    tracer.see(state, step)
    if step == stage.start:
        _keep(trainer, state, stage, step, desk)
        report = _evaluate(trainer, state, stage, step, None, [], desk, notebook)
    for call, data in trainer.feed.serve(order_keys, calls(trainer, step, stage.stop)):
        program = trainer.programs(call.length, call.batch_size)
        state, tally = program(state, data, draw_keys, anchors=trainer.anchors)
        pending.append(tally)
        step = call.step + call.length
        report()  # of the evaluation before this call: the device is at work meanwhile
        report = _nothing
        notebook.see(state, step)
        tracer.see(state, step)
        _keep(trainer, state, stage, step, desk)

        evaluates = step == stage.stop or step % trainer.evaluate_every == 0
        saves = _crossed(trainer.checkpoint_every, saved, step) and step < stage.stop
        asked = desk.should_stop()
        stops = bool(asked) and step < stage.stop
        if saves or stops or len(pending) >= trainer.calls_ahead:
            sums, pending = _fetch(layout, sums, pending), []
            desk.progress.advance(step)
            evaluates |= not (trainer.continues or np.all(np.isfinite(sums.loss)))
        if evaluates:
            report = _evaluate(
                trainer, state, stage, step, sums, pending, desk, notebook
            )
            sums, pending = None, []
        if saves or stops or trainer.calls_ahead == 1:
            report()
            report = _nothing
        if saves or stops:
            write(desk, notebook.take())
            _save(trainer, state, stage, sums, time.monotonic() - began, desk)
            saved = step
        if stops:
            raise interrupt.Stopped(f"{stage.name}, step {step}", asked)
    report()
    return placement.collect(layout, state), time.monotonic() - began


def _nothing() -> None:
    """There is no evaluation to report."""


def _open_notebook(trainer: Trainer, stage: Stage) -> observing.Notebook:
    def begin(kind: str, step: int) -> records.Record:
        return record(stage, kind, step=step, trainer=trainer)

    return observing.Notebook(trainer.observer, trainer.layout, begin)


def calls(trainer: Trainer, start: int, stop: int) -> Iterator[Call]:
    """Yields the calls that take the clock from one reading to another."""
    return epoch.plan(
        start,
        stop,
        epoch=trainer.epoch,
        steps_per_call=trainer.steps_per_call,
        evaluate_every=trainer.evaluate_every,
        pauses=pauses(trainer),
    )


def pauses(trainer: Trainer) -> list[int]:
    """Lists the readings of the clock at which something is measured or kept."""
    measured = trainer.observer.pauses if trainer.observer else ()
    return sorted({*measured, *trainer.keep_at, *trainer.trace})


def _keep(
    trainer: Trainer, state: TrainState, stage: Stage, step: int, desk: Desk
) -> None:
    """Saves a state that analyses want, if this is one."""
    if step in trainer.keep_at:
        collected = placement.collect(trainer.layout, state)
        checkpoints.save(desk.checkpoints, kept_name(stage.name, step), collected)


def kept_name(stage: str, step: int) -> str:
    """Names the checkpoint of a state that is kept for analyses."""
    return f"kept/{stage}/step_{step:09d}"


def _fetch(layout: Layout, sums: _Sums | None, pending: list[Tally]) -> _Sums | None:
    """Adds the tallies of calls, waiting for them to end."""
    for tally in pending:
        sums = _add(sums, epoch.tallies_on_host(layout, tally))
    return sums


def _crossed(every: int, before: int, now: int) -> bool:
    return bool(every) and now // every > before // every


def data_keys(layout: Layout, keys: Key[Array, "r"]) -> tuple[Any, Any]:
    """Divides the data seed in two: order of examples, and augmentation."""
    order, draw = (
        jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, n) for n in (0, 1)
    )
    return order, sharding.by_replicate(layout, draw)


def _resume(
    fresh: TrainState, stage: Stage, desk: Desk
) -> tuple[TrainState, _Sums | None, float]:
    """Finds where the stage was left, and cuts the records made after that."""

    def until(step: int, row: records.Record) -> bool:
        mine = row["stage"] == stage.name and row["kind"] in _KINDS
        return mine and row["step"] <= step

    def count(step: int) -> int:
        rows = records.read(desk.metrics, fields=records.FIELDS)
        return sum(until(step, row) for row in rows)

    def cut(step: int) -> None:
        def stays(row: records.Record) -> bool:
            return row["stage"] != stage.name or until(step, row)

        fields = records.FIELDS
        hosts.do(lambda: records.keep_only(desk.metrics, stays, fields=fields))

    for name in checkpoints.within(desk.checkpoints, stage.name):
        saved = checkpoints.load(desk.checkpoints, name, fresh)
        if saved is None:
            continue
        wanted = saved.extra.get("records", 1)  # older notes do not say how many
        there = hosts.tell(functools.partial(count, int(saved.state.step)))
        if there < wanted or not {"sums", "seconds"} <= saved.extra.keys():
            log.warning(
                "%s: has %d of the %d records before checkpoint %s; trained again "
                "from further back, so that they are written again",
                *(desk.metrics, there, wanted, name),
            )
            checkpoints.forget(desk.checkpoints, name)
        else:
            cut(int(saved.state.step))
            _forget_kept(desk, stage, after=int(saved.state.step))
            sums = saved.extra["sums"]
            return saved.state, sums and _Sums(*sums), saved.extra["seconds"]
    cut(-1)
    _forget_kept(desk, stage, after=-1)
    return fresh, None, 0.0


def _forget_kept(desk: Desk, stage: Stage, *, after: int) -> None:
    """Deletes kept states that are about to be trained to again.

    Where a device does not give the same bits twice, they need not come out equal.
    """
    folder = Path("kept") / stage.name
    kept = checkpoints.within(desk.checkpoints, str(folder))
    for name in kept:
        if int(name.rpartition("step_")[2]) > after:
            checkpoints.forget(desk.checkpoints, name)


def _save(
    trainer: Trainer,
    state: TrainState,
    stage: Stage,
    sums: _Sums | None,
    seconds: float,
    desk: Desk,
) -> None:
    """Saves within a stage, and keeps one checkpoint to fall back on."""
    earlier = checkpoints.within(desk.checkpoints, stage.name)
    state = placement.collect(trainer.layout, state)
    name = f"{stage.name}/step_{int(state.step):09d}"
    extra = {"sums": sums and list(sums), "seconds": seconds}
    extra["records"] = settle(desk, stage)
    checkpoints.save(desk.checkpoints, name, state, extra)
    for old in earlier[1:]:
        checkpoints.forget(desk.checkpoints, old)


def _evaluate(
    trainer: Trainer,
    state: TrainState,
    stage: Stage,
    step: int,
    sums: _Sums | None,
    pending: list[Tally],
    desk: Desk,
    notebook: observing.Notebook,
) -> Callable[[], None]:
    """Dispatches the evaluation of a state; what it returns waits for it and records.

    The record says how training went since the last one, which is `sums` and the
    calls in `pending`, and how good the network is now. What was measured in between
    goes before it.
    """
    collected = placement.collect(trainer.layout, state)
    tallies = {name: fn(collected) for name, fn in trainer.evaluate.items()}
    changing = trainer.changing
    counted = None if changing is None else census.take_census(collected)

    def report() -> None:
        now = _fetch(trainer.layout, sums, pending)
        trained = now and evaluation.average([Tally(*map(np.asarray, now))])
        sets = {n: evaluation.average(hosts.fetch(t)) for n, t in tallies.items()}
        now_held = (
            [] if counted is None else census.rows(hosts.fetch(counted), changing)
        )
        held = [
            record(stage, "masks", step=step, trainer=trainer) | {"replicate": r} | row
            for r, row in enumerate(now_held)
        ]
        _warn_of_skipped(held, desk)
        rows = notebook.take() + _rows(trainer, stage, step, trained, sets) + held
        write(desk, rows)
        desk.progress.advance(step, note=_summary(trained, sets))
        _check_finite(trainer, stage, step, trained, sets, desk)

    return report


def _warn_of_skipped(held: list[records.Record], desk: Desk) -> None:
    """Warns of each replicate at the first record of masks that were not updated."""
    skipped = [row for row in held if row["skipped_updates"]]
    if not skipped:
        return

    def find() -> list[int]:
        stage = skipped[0]["stage"]
        rows = records.read(desk.metrics, fields=records.FIELDS)
        mine = [r for r in rows if (r["kind"], r["stage"]) == ("masks", stage)]
        return [r["replicate"] for r in mine if r.get("skipped_updates")]

    told = hosts.tell(find)
    for row in skipped:
        if row["replicate"] not in told:
            log.warning(
                "%s, by step %d: %d updates of the masks of replicate %d were skipped, "
                "as a weight, gradient or score was not finite; expected finite "
                "numbers; records of kind 'masks' go on counting (skipped_updates); "
                "try a lower config.schedule.learning_rate",
                *(row["stage"], row["step"], row["skipped_updates"], row["replicate"]),
            )


def _rows(
    trainer: Trainer,
    stage: Stage,
    step: int,
    trained: Scores | None,
    sets: Mapping[str, Scores],
) -> list[records.Record]:
    rate = float(trainer.learning_rate(jnp.int32(max(step - 1, 0))))
    rows: list[records.Record] = []
    for replicate in range(trainer.layout.replicates):
        if trained:
            rows.append(
                record(stage, "train", step=step, trainer=trainer)
                | {"replicate": replicate}
                | _row(trained, replicate, "")
                | {"learning_rate": rate}
            )
        row = record(stage, "eval", step=step, trainer=trainer)
        row["replicate"] = replicate
        for name in ("validation", "test"):
            row |= _row(sets.get(name), replicate, f"{name}_")
        rows.append(row)
    return rows


def _row(scores: Scores | None, replicate: int, prefix: str) -> dict[str, Any]:
    names = (f"{prefix}loss", f"{prefix}accuracy")
    if scores is None:
        return dict.fromkeys(names)
    values = (float(scores.loss[replicate]), float(scores.accuracy[replicate]))
    return dict(zip(names, values, strict=True))


def _summary(trained: Scores | None, sets: Mapping[str, Scores]) -> str:
    parts = []
    if trained:
        finite = trained.loss[np.isfinite(trained.loss)]  # others may have failed
        parts = [f"loss {np.mean(finite) if finite.size else np.nan:.4f}"]
    parts += [f"{name} {np.mean(s.accuracy):.2%}" for name, s in sets.items()]
    return ", ".join(parts)


def _check_finite(
    trainer: Trainer,
    stage: Stage,
    step: int,
    trained: Scores | None,
    sets: Mapping[str, Scores],
    desk: Desk,
) -> None:
    """Stops where a loss is not finite, or marks the replicate and goes on."""
    named = {"training": trained} | dict(sets)
    losses = {name: scores.loss for name, scores in named.items() if scores is not None}
    bad = {
        name: np.flatnonzero(~np.isfinite(loss)).tolist()
        for name, loss in losses.items()
        if not np.all(np.isfinite(loss))
    }
    if not bad:
        return
    if trainer.continues:
        broken = sorted({r for each in bad.values() for r in each})
        _mark(trainer, stage, step, broken, desk)
        if len(broken) < trainer.layout.replicates:
            return
    name, replicates = next(iter(bad.items()))
    raise interrupt.NonFinite(
        f"{stage.name}, step {step}: the {name} loss of replicates {replicates} is not "
        "finite; the last record was written; try a lower "
        "config.schedule.learning_rate, a longer config.schedule.warmup, or "
        "model.dtype float32; or have the other replicates go on without these "
        "(config.run.on_nonfinite)"
    )


def _mark(
    trainer: Trainer, stage: Stage, step: int, broken: list[int], desk: Desk
) -> None:
    """Records which replicates are broken, each once in a stage."""

    def find() -> list[int]:
        rows = records.read(desk.metrics, fields=records.FIELDS)
        mine = [r for r in rows if (r["kind"], r["stage"]) == ("failed", stage.name)]
        return [row["replicate"] for row in mine]

    marked = hosts.tell(find)
    new = [r for r in broken if r not in marked]
    begun = record(stage, "failed", step=step, trainer=trainer)
    write(desk, [begun | {"replicate": r} for r in new])
    if new:
        log.warning(
            "%s, step %d: the loss of replicates %s is not finite; the others go on, "
            "and reports leave these out",
            *(stage.name, step, new),
        )
