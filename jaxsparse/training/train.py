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

from jaxsparse import metrics_log, multihost
from jaxsparse.training import (
    callbacks,
    checkpoints,
    evaluation,
    mask_stats,
    mesh,
    preemption,
    profiling,
    scan_chunks,
    state_sharding,
)
from jaxsparse.training.evaluation import Evaluate, Scores
from jaxsparse.training.input_pipeline import Feed
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.optimizers import LearningRate
from jaxsparse.training.progress import Progress
from jaxsparse.training.scan_chunks import EpochSpec, Program, ScanChunk
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import MetricSums
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
    layout: MeshLayout
    epoch: EpochSpec
    steps_per_call: int
    evaluate_every: int
    checkpoint_every: int
    calls_ahead: int
    learning_rate: LearningRate
    arrangement: Mapping[str, Any]
    changing: Masks | None = None
    observer: callbacks.Probe | None = None
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

    def __call__(self, rows: Sequence[metrics_log.Record]) -> None:
        """Sends records.

        Args:
          rows: records written together, such as those of all replicates at one
            evaluation; not to be changed. Each has a `kind` ("train", "eval", "masks",
            "level", "time" or one of an analysis) and says where it belongs (`stage`,
            `level`, `arm`, `step`, `epoch`, and `replicate` unless it is about all of
            them); its other fields are numbers, and None where there is none.
        """


class RunDir(NamedTuple):
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


def _add(sums: _Sums | None, tally: MetricSums) -> _Sums:
    new = [
        np.sum(np.asarray(leaf, kind), axis=0)
        for leaf, kind in zip(tally, (np.float64, np.int64, np.int64), strict=True)
    ]
    if sums is not None:
        new = [np.asarray(old) + more for old, more in zip(sums, new, strict=True)]
    return _Sums(*(leaf.tolist() for leaf in new))


def write(run_dir: RunDir, rows: list[metrics_log.Record]) -> None:
    """Appends records to the metrics and shows them, in the first process only."""

    def append() -> None:
        metrics_log.append(run_dir.metrics, rows)
        for send in run_dir.metric_writers:
            send(rows)

    multihost.on_primary(append)


def settle(run_dir: RunDir, stage: Stage) -> int:
    """Waits until records are on the disk, and counts those of a stage.

    A checkpoint that says how many there are must not outlive them.
    """

    def count() -> int:
        metrics_log.sync(run_dir.metrics)
        return metrics_log.count(run_dir.metrics, stage.name)

    return multihost.broadcast_from_primary(count)


def record(
    stage: Stage, kind: str, *, step: int, trainer: Trainer
) -> metrics_log.Record:
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
    run_dir: RunDir,
    tracer: profiling.Tracer | None = None,
) -> tuple[TrainState, float]:
    """Trains from the latest whole checkpoint of a stage, else from `fresh`.

    Args:
      trainer: what to train with.
      fresh: state the stage begins with, in the form of files; its clock shows
        `stage.start`.
      stage: which stage this is.
      keys: of data order and augmentation, one a replicate.
      run_dir: where to write.
      tracer: what the profiler looks at; None for nothing.

    Returns:
      The state at `stage.stop`, in the form of files, and the seconds spent on the
      stage, over all sessions.

    Raises:
      Stopped: if asked to stop, after saving a checkpoint.
      NonFinite: if a loss is NaN or infinite, after its record was written.
    """
    fresh = state_sharding.to_checkpoint_layout(trainer.layout, fresh)
    state, sums, spent = _resume(fresh, stage, run_dir)
    step = saved = int(state.step)
    began = time.monotonic() - spent
    layout = trainer.layout
    # A copy: the first call takes its buffers, and the caller keeps `fresh`.
    state = state_sharding.shard_state(layout, jax.tree.map(jnp.copy, state))
    order_keys, draw_keys = data_keys(layout, keys)
    pending: list[MetricSums] = []
    report: Callable[[], None] = _nothing
    run_dir.progress.begin(stage.name, start=stage.start, step=step, stop=stage.stop)
    notebook = _open_buffer(trainer, stage)
    notebook.see(state, step, anew=step == stage.start)
    tracer = tracer or profiling.Tracer((), run_dir.metrics)
    tracer.see(state, step)
    if step == stage.start:
        _save_state(trainer, state, stage, step, run_dir)
        report = _evaluate(trainer, state, stage, step, None, [], run_dir, notebook)
    for call, data in trainer.feed.serve(
        order_keys, plan_chunks(trainer, step, stage.stop)
    ):
        program = trainer.programs(call.length, call.batch_size)
        state, tally = program(state, data, draw_keys, past_solutions=trainer.anchors)
        pending.append(tally)
        step = call.step + call.length
        report()  # of the evaluation before this call: the device is at work meanwhile
        report = _nothing
        notebook.see(state, step)
        tracer.see(state, step)
        _save_state(trainer, state, stage, step, run_dir)

        evaluates = step == stage.stop or step % trainer.evaluate_every == 0
        saves = _crossed(trainer.checkpoint_every, saved, step) and step < stage.stop
        asked = run_dir.should_stop()
        stops = bool(asked) and step < stage.stop
        if saves or stops or len(pending) >= trainer.calls_ahead:
            sums, pending = _fetch(layout, sums, pending), []
            run_dir.progress.advance(step)
            evaluates |= not (trainer.continues or np.all(np.isfinite(sums.loss)))
        if evaluates:
            report = _evaluate(
                trainer, state, stage, step, sums, pending, run_dir, notebook
            )
            sums, pending = None, []
        if saves or stops or trainer.calls_ahead == 1:
            report()
            report = _nothing
        if saves or stops:
            write(run_dir, notebook.take())
            _save(trainer, state, stage, sums, time.monotonic() - began, run_dir)
            saved = step
        if stops:
            raise preemption.Preempted(f"{stage.name}, step {step}", asked)
    report()
    return state_sharding.gather_state(layout, state), time.monotonic() - began


def _nothing() -> None:
    """There is no evaluation to report."""


def _open_buffer(trainer: Trainer, stage: Stage) -> callbacks.MetricBuffer:
    def begin(kind: str, step: int) -> metrics_log.Record:
        return record(stage, kind, step=step, trainer=trainer)

    return callbacks.MetricBuffer(trainer.observer, trainer.layout, begin)


def plan_chunks(trainer: Trainer, start: int, stop: int) -> Iterator[ScanChunk]:
    """Yields the calls that take the clock from one reading to another."""
    return scan_chunks.plan(
        start,
        stop,
        epoch=trainer.epoch,
        steps_per_call=trainer.steps_per_call,
        evaluate_every=trainer.evaluate_every,
        boundary_steps=boundary_steps(trainer),
    )


def boundary_steps(trainer: Trainer) -> list[int]:
    """Lists the readings of the clock at which something is measured or kept."""
    measured = trainer.observer.pauses if trainer.observer else ()
    return sorted({*measured, *trainer.keep_at, *trainer.trace})


def _save_state(
    trainer: Trainer, state: TrainState, stage: Stage, step: int, run_dir: RunDir
) -> None:
    """Saves a state that analyses want, if this is one."""
    if step in trainer.keep_at:
        collected = state_sharding.gather_state(trainer.layout, state)
        checkpoints.save(
            run_dir.checkpoints, saved_state_name(stage.name, step), collected
        )


def saved_state_name(stage: str, step: int) -> str:
    """Names the checkpoint of a state that is kept for analyses."""
    return f"kept/{stage}/step_{step:09d}"


def _fetch(
    layout: MeshLayout, sums: _Sums | None, pending: list[MetricSums]
) -> _Sums | None:
    """Adds the tallies of calls, waiting for them to end."""
    for tally in pending:
        sums = _add(sums, scan_chunks.sums_on_host(layout, tally))
    return sums


def _crossed(every: int, before: int, now: int) -> bool:
    return bool(every) and now // every > before // every


def data_keys(layout: MeshLayout, keys: Key[Array, "r"]) -> tuple[Any, Any]:
    """Divides the data seed in two: order of examples, and augmentation."""
    order, draw = (
        jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, n) for n in (0, 1)
    )
    return order, mesh.shard_replicates(layout, draw)


def _resume(
    fresh: TrainState, stage: Stage, run_dir: RunDir
) -> tuple[TrainState, _Sums | None, float]:
    """Finds where the stage was left, and cuts the records made after that."""

    def until(step: int, row: metrics_log.Record) -> bool:
        mine = row["stage"] == stage.name and row["kind"] in _KINDS
        return mine and row["step"] <= step

    def count(step: int) -> int:
        rows = metrics_log.read(run_dir.metrics, fields=metrics_log.FIELDS)
        return sum(until(step, row) for row in rows)

    def cut(step: int) -> None:
        def stays(row: metrics_log.Record) -> bool:
            return row["stage"] != stage.name or until(step, row)

        fields = metrics_log.FIELDS
        multihost.on_primary(
            lambda: metrics_log.keep_only(run_dir.metrics, stays, fields=fields)
        )

    for name in checkpoints.within(run_dir.checkpoints, stage.name):
        saved = checkpoints.load(run_dir.checkpoints, name, fresh)
        if saved is None:
            continue
        wanted = saved.extra.get("records", 1)  # older notes do not say how many
        there = multihost.broadcast_from_primary(
            functools.partial(count, int(saved.state.step))
        )
        if there < wanted or not {"sums", "seconds"} <= saved.extra.keys():
            log.warning(
                "%s: has %d of the %d records before checkpoint %s; trained again "
                "from further back, so that they are written again",
                *(run_dir.metrics, there, wanted, name),
            )
            checkpoints.delete(run_dir.checkpoints, name)
        else:
            cut(int(saved.state.step))
            _delete_saved_states(run_dir, stage, after=int(saved.state.step))
            sums = saved.extra["sums"]
            return saved.state, sums and _Sums(*sums), saved.extra["seconds"]
    cut(-1)
    _delete_saved_states(run_dir, stage, after=-1)
    return fresh, None, 0.0


def _delete_saved_states(run_dir: RunDir, stage: Stage, *, after: int) -> None:
    """Deletes kept states that are about to be trained to again.

    Where a device does not give the same bits twice, they need not come out equal.
    """
    folder = Path("kept") / stage.name
    kept = checkpoints.within(run_dir.checkpoints, str(folder))
    for name in kept:
        if int(name.rpartition("step_")[2]) > after:
            checkpoints.delete(run_dir.checkpoints, name)


def _save(
    trainer: Trainer,
    state: TrainState,
    stage: Stage,
    sums: _Sums | None,
    seconds: float,
    run_dir: RunDir,
) -> None:
    """Saves within a stage, and keeps one checkpoint to fall back on."""
    earlier = checkpoints.within(run_dir.checkpoints, stage.name)
    state = state_sharding.gather_state(trainer.layout, state)
    name = f"{stage.name}/step_{int(state.step):09d}"
    extra = {"sums": sums and list(sums), "seconds": seconds}
    extra["records"] = settle(run_dir, stage)
    checkpoints.save(run_dir.checkpoints, name, state, extra)
    for old in earlier[1:]:
        checkpoints.delete(run_dir.checkpoints, old)


def _evaluate(
    trainer: Trainer,
    state: TrainState,
    stage: Stage,
    step: int,
    sums: _Sums | None,
    pending: list[MetricSums],
    run_dir: RunDir,
    buffer: callbacks.MetricBuffer,
) -> Callable[[], None]:
    """Dispatches the evaluation of a state; what it returns waits for it and records.

    The record says how training went since the last one, which is `sums` and the
    calls in `pending`, and how good the network is now. What was measured in between
    goes before it.
    """
    collected = state_sharding.gather_state(trainer.layout, state)
    tallies = {name: fn(collected) for name, fn in trainer.evaluate.items()}
    changing = trainer.changing
    counted = None if changing is None else mask_stats.compute_mask_stats(collected)

    def report() -> None:
        now = _fetch(trainer.layout, sums, pending)
        trained = now and evaluation.average([MetricSums(*map(np.asarray, now))])
        sets = {n: evaluation.average(multihost.to_host(t)) for n, t in tallies.items()}
        now_held = (
            []
            if counted is None
            else mask_stats.rows(multihost.to_host(counted), changing)
        )
        held = [
            record(stage, "masks", step=step, trainer=trainer) | {"replicate": r} | row
            for r, row in enumerate(now_held)
        ]
        _warn_of_skipped(held, run_dir)
        rows = buffer.take() + _rows(trainer, stage, step, trained, sets) + held
        write(run_dir, rows)
        run_dir.progress.advance(step, note=_summary(trained, sets))
        _check_finite(trainer, stage, step, trained, sets, run_dir)

    return report


def _warn_of_skipped(held: list[metrics_log.Record], run_dir: RunDir) -> None:
    """Warns of each replicate at the first record of masks that were not updated."""
    skipped = [row for row in held if row["skipped_updates"]]
    if not skipped:
        return

    def find() -> list[int]:
        stage = skipped[0]["stage"]
        rows = metrics_log.read(run_dir.metrics, fields=metrics_log.FIELDS)
        mine = [r for r in rows if (r["kind"], r["stage"]) == ("masks", stage)]
        return [r["replicate"] for r in mine if r.get("skipped_updates")]

    told = multihost.broadcast_from_primary(find)
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
) -> list[metrics_log.Record]:
    rate = float(trainer.learning_rate(jnp.int32(max(step - 1, 0))))
    rows: list[metrics_log.Record] = []
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
    run_dir: RunDir,
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
        _record_failure(trainer, stage, step, broken, run_dir)
        if len(broken) < trainer.layout.replicates:
            return
    name, replicates = next(iter(bad.items()))
    raise preemption.NonFiniteLoss(
        f"{stage.name}, step {step}: the {name} loss of replicates {replicates} is not "
        "finite; the last record was written; try a lower "
        "config.schedule.learning_rate, a longer config.schedule.warmup, or "
        "model.dtype float32; or have the other replicates go on without these "
        "(config.run.on_nonfinite)"
    )


def _record_failure(
    trainer: Trainer, stage: Stage, step: int, broken: list[int], run_dir: RunDir
) -> None:
    """Records which replicates are broken, each once in a stage."""

    def find() -> list[int]:
        rows = metrics_log.read(run_dir.metrics, fields=metrics_log.FIELDS)
        mine = [r for r in rows if (r["kind"], r["stage"]) == ("failed", stage.name)]
        return [row["replicate"] for row in mine]

    marked = multihost.broadcast_from_primary(find)
    new = [r for r in broken if r not in marked]
    begun = record(stage, "failed", step=step, trainer=trainer)
    write(run_dir, [begun | {"replicate": r} for r in new])
    if new:
        log.warning(
            "%s, step %d: the loss of replicates %s is not finite; the others go on, "
            "and reports leave these out",
            *(stage.name, step, new),
        )
