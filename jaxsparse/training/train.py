"""Trains one stage of a run from its start step to its stop step.

`fit` dispatches chunks of compiled steps, evaluates, writes records and saves
checkpoints. Which state a stage starts from, and what its final state is used for, is
decided in `lottery`.
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

# Kinds of records written while a stage trains. A stage that resumes keeps those up to
# its checkpoint and cuts all others: records of other kinds are written at its end.
_KINDS = ("train", "eval", "masks", "gradient", "change", "failed")


class Stage(NamedTuple):
    """A named interval of training.

    Attributes:
      name: prefix of the stage's records and checkpoints, such as "level_03/ticket".
      level: level of iterative magnitude pruning: number of pruning rounds before this
        stage, from 0.
      arm: variant: "ticket", "pretraining", "children", or the name of a control.
      start: training step at which the stage begins, counted from initialization.
      stop: training step at which the stage ends; `stop - start` steps are trained.
    """

    name: str
    level: int
    arm: str
    start: int
    stop: int


class Trainer(NamedTuple):
    """Settings and compiled functions shared by all stages of a run.

    Attributes:
      programs: returns the compiled chunk function for a chunk length and a batch size;
        made by `scan_chunks.make_chunk_fns`.
      feed: supplies the training examples of each chunk.
      evaluate: functions that evaluate one set each, keyed by the name of the set
        ("validation", "test").
      layout: mesh of devices and placement of arrays on it.
      epoch: number of steps and batch sizes of an epoch.
      steps_per_call: maximum number of steps in one chunk.
      evaluate_every: training steps between evaluations, at least 1.
      checkpoint_every: training steps between checkpoints within a stage; 0 saves none.
      calls_ahead: maximum number of chunks in flight: after this many, the host waits
        for their metrics before it dispatches more.
      learning_rate: learning rate as a function of the training step; used for records
        only, because the optimizer holds its own schedule.
      arrangement: how the work is laid out on the devices, as JSON values for the
        record.
      changing: dense masks of one replicate if masks are updated within a stage, so
        that evaluations count active weights; None for fixed masks.
      observer: probe that measures the network during training; None measures nothing.
      keep_at: training steps, increasing, at which the state is saved for later
        analyses.
      anchors: past solutions for the penalty of `solution_penalty`, sharded by
        replicate; None trains without that penalty.
      settled: training step from which evaluations see the final network, without the
        temporary parts (soft activations, ghost skips) that ToST anneals away.
      trace: first and last training step of the profiler trace; () traces nothing.
      continues: whether the other replicates continue when one replicate's loss is not
        finite.
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
    """Sends records to a destination other than `metrics.jsonl`, such as TensorBoard.

    Any function of a list of records qualifies. It is called on the primary process
    only, after the records were written to the file; an exception that it raises ends
    the run. A run that is resumed may send the records of a few steps a second time.
    """

    def __call__(self, rows: Sequence[metrics_log.Record]) -> None:
        """Sends records.

        Args:
          rows: records written together, such as those of all replicates at one
            evaluation; must not be modified. Each has a `kind` ("train", "eval",
            "masks", "level", "time" or the kind of an analysis) and its position in the
            run (`stage`, `level`, `arm`, `step`, `epoch`, and `replicate` unless it
            covers all replicates). The other fields are numbers, or None where a value
            is missing.
        """


class RunDir(NamedTuple):
    """Output files of a run, and the objects that report on it.

    Attributes:
      metrics: path of the JSON Lines file of records.
      checkpoints: directory of all checkpoints.
      progress: display of the run's progress.
      should_stop: returns the number of the signal that requests a clean stop, or 0.
      metric_writers: further destinations of the records written to `metrics`.
    """

    metrics: Path
    checkpoints: Path
    progress: Progress
    should_stop: Callable[[], int]
    metric_writers: tuple[MetricWriter, ...] = ()


class _Sums(NamedTuple):
    """Training metrics since the last record, per replicate, summed in float64."""

    loss: list[float]
    correct: list[int]
    examples: list[int]


def _add(sums: _Sums | None, tally: MetricSums) -> _Sums:
    """Adds the metric sums [length r] of a chunk to those since the last record."""
    # float64 and int64: float32 sums over many steps would lose precision.
    new = [
        np.sum(np.asarray(leaf, kind), axis=0)
        for leaf, kind in zip(tally, (np.float64, np.int64, np.int64), strict=True)
    ]
    if sums is not None:
        new = [np.asarray(old) + more for old, more in zip(sums, new, strict=True)]
    return _Sums(*(leaf.tolist() for leaf in new))


def write(run_dir: RunDir, rows: list[metrics_log.Record]) -> None:
    """Appends records to the metrics file and sends them to all metric writers.

    Only the primary process writes; the others wait until it has finished.

    Args:
      run_dir: paths and metric writers of the run.
      rows: records to append, in this order.

    Raises:
      OSError: if the metrics file cannot be written.
      Exception: on all processes, whatever a metric writer raises.
    """

    def append() -> None:
        metrics_log.append(run_dir.metrics, rows)
        for send in run_dir.metric_writers:
            send(rows)

    multihost.on_primary(append)


def settle(run_dir: RunDir, stage: Stage) -> int:
    """Flushes the records to disk and counts those of a stage.

    A checkpoint stores this count. The flush ensures that no checkpoint survives a
    crash in which the records that it counts are lost.

    Args:
      run_dir: paths of the run.
      stage: the stage whose records are counted.

    Returns:
      Number of complete records of the stage, the same on every process.
    """

    def count() -> int:
        metrics_log.sync(run_dir.metrics)
        return metrics_log.count(run_dir.metrics, stage.name)

    return multihost.broadcast_from_primary(count)


def record(
    stage: Stage, kind: str, *, step: int, trainer: Trainer
) -> metrics_log.Record:
    """Returns the fields that every record of a stage has.

    Args:
      stage: the stage that the record belongs to.
      kind: kind of record, such as "train" or "eval".
      step: training step of the record.
      trainer: supplies the number of steps per epoch.

    Returns:
      A new record with kind, stage, level, variant, step and epoch (step divided by the
      steps per epoch, rounded to 4 decimals).
    """
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
    """Trains a stage from its latest intact checkpoint, or from `fresh` without one.

    Args:
      trainer: settings and compiled functions of the run.
      fresh: initial state of the stage in the checkpoint layout: leaves lead with the
        replicate axis, counters are scalars. Its `step` is `stage.start`. Its buffers
        are not donated.
      stage: the interval to train.
      keys: one typed random key per replicate [r], from which the order of the examples
        and the augmentation are derived.
      run_dir: paths of records and checkpoints, and the progress display.
      tracer: profiler trace of selected steps; None traces nothing.

    Returns:
      The state at `stage.stop` in the checkpoint layout, and the seconds spent on the
      stage, summed over all sessions that trained it.

    Raises:
      Preempted: if a stop was requested; a checkpoint was saved before.
      NonFiniteLoss: if a loss is NaN or infinite, after its record was written; where
        `trainer.continues` is set, only if no replicate is left.
    """
    # Checkpoints are loaded with the shardings of `fresh`.
    fresh = state_sharding.to_checkpoint_layout(trainer.layout, fresh)
    state, sums, spent = _resume(fresh, stage, run_dir)
    step = saved = int(state.step)
    began = time.monotonic() - spent
    layout = trainer.layout
    # A copy, because the first chunk donates its buffers and the caller keeps `fresh`.
    state = state_sharding.shard_state(layout, jax.tree.map(jnp.copy, state))
    order_keys, draw_keys = data_keys(layout, keys)
    pending: list[MetricSums] = []
    report: Callable[[], None] = _nothing
    run_dir.progress.begin(stage.name, start=stage.start, step=step, stop=stage.stop)
    notebook = _open_buffer(trainer, stage)
    # A resumed stage has recorded this step already.
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
        # The metrics of the previous evaluation are fetched only now, so that the
        # devices already work on this chunk while the host waits and writes.
        report()
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
            # A non-finite loss is recorded now and not at the next regular evaluation,
            # since training may end here.
            evaluates |= not (trainer.continues or np.all(np.isfinite(sums.loss)))
        if evaluates:
            report = _evaluate(
                trainer, state, stage, step, sums, pending, run_dir, notebook
            )
            sums, pending = None, []
        # A checkpoint counts the records on disk, so they are written first. With one
        # chunk in flight at most, nothing may overlap the evaluation either.
        if saves or stops or trainer.calls_ahead == 1:
            report()
            report = _nothing
        if saves or stops:
            # Before the checkpoint, so that it counts these records, too.
            write(run_dir, notebook.take())
            _save(trainer, state, stage, sums, time.monotonic() - began, run_dir)
            saved = step
        if stops:
            raise preemption.Preempted(f"{stage.name}, step {step}", asked)
    report()
    return state_sharding.gather_state(layout, state), time.monotonic() - began


def _nothing() -> None:
    """Does nothing; stands for the report when no evaluation is pending."""


def _open_buffer(trainer: Trainer, stage: Stage) -> callbacks.MetricBuffer:
    """Makes the buffer of a stage's measurements."""

    def begin(kind: str, step: int) -> metrics_log.Record:
        return record(stage, kind, step=step, trainer=trainer)

    return callbacks.MetricBuffer(trainer.observer, trainer.layout, begin)


def plan_chunks(trainer: Trainer, start: int, stop: int) -> Iterator[ScanChunk]:
    """Yields the chunks of steps that train from one step to another.

    Args:
      trainer: supplies the epoch, the maximum chunk length, the evaluation interval and
        the steps at which chunks must end.
      start: training step before the first chunk.
      stop: training step after the last chunk.
    """
    return scan_chunks.plan(
        start,
        stop,
        epoch=trainer.epoch,
        steps_per_call=trainer.steps_per_call,
        evaluate_every=trainer.evaluate_every,
        boundary_steps=boundary_steps(trainer),
    )


def boundary_steps(trainer: Trainer) -> list[int]:
    """Lists, sorted, the steps at which a state is measured, saved or traced."""
    measured = trainer.observer.pauses if trainer.observer else ()
    return sorted({*measured, *trainer.keep_at, *trainer.trace})


def _save_state(
    trainer: Trainer, state: TrainState, stage: Stage, step: int, run_dir: RunDir
) -> None:
    """Saves the state if this is one of the steps requested for later analyses."""
    if step in trainer.keep_at:
        collected = state_sharding.gather_state(trainer.layout, state)
        checkpoints.save(
            run_dir.checkpoints, saved_state_name(stage.name, step), collected
        )


def saved_state_name(stage: str, step: int) -> str:
    """Returns the name of the checkpoint with a state saved for analyses.

    Args:
      stage: name of the stage, such as "level_03/ticket".
      step: training step of the state.
    """
    return f"kept/{stage}/step_{step:09d}"


def _fetch(
    layout: MeshLayout, sums: _Sums | None, pending: list[MetricSums]
) -> _Sums | None:
    """Adds the metrics of pending chunks to the sums, waiting for the devices."""
    for tally in pending:
        sums = _add(sums, scan_chunks.sums_on_host(layout, tally))
    return sums


def _crossed(every: int, before: int, now: int) -> bool:
    """Returns whether a multiple of `every` lies in (before, now]; False if it is 0."""
    return bool(every) and now // every > before // every


def data_keys(layout: MeshLayout, keys: Key[Array, "r"]) -> tuple[Any, Any]:
    """Derives two keys per replicate: for the example order and for augmentation.

    Args:
      layout: placement of arrays on the devices.
      keys: one typed random key per replicate [r].

    Returns:
      Keys [r] of the example order, and keys of augmentation, sharded by replicate.
    """
    order, draw = (
        jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, n) for n in (0, 1)
    )
    return order, mesh.shard_replicates(layout, draw)


def _resume(
    fresh: TrainState, stage: Stage, run_dir: RunDir
) -> tuple[TrainState, _Sums | None, float]:
    """Finds the latest usable checkpoint of a stage and cuts the records after it.

    Args:
      fresh: state the stage starts from if it has no usable checkpoint; also gives
        structure, shapes and placement of the state to load.
      stage: the stage to resume.
      run_dir: paths of records and checkpoints.

    Returns:
      The state, the training metrics since its last record (None if there are none),
      and the seconds spent up to the checkpoint.
    """

    def until(step: int, row: metrics_log.Record) -> bool:
        mine = row["stage"] == stage.name and row["kind"] in _KINDS
        return mine and row["step"] <= step

    def count(step: int) -> int:
        rows = metrics_log.read(run_dir.metrics, fields=metrics_log.FIELDS)
        return sum(until(step, row) for row in rows)

    def cut(step: int) -> None:
        # Records of other kinds in this stage are made after training, and will be
        # written again.
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
        # Checkpoints of older versions do not store the number of records.
        wanted = saved.extra.get("records", 1)
        there = multihost.broadcast_from_primary(
            functools.partial(count, int(saved.state.step))
        )
        # Fewer records than the checkpoint counts: the metrics file lost lines.
        # Training resumes from an earlier checkpoint, which writes the lost records
        # again.
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
    """Deletes states saved for analyses at steps that will be trained again.

    `checkpoints.save` rejects a state that differs from the saved one of the same name.
    On devices that are not bitwise reproducible, the repeated state may differ.

    Args:
      run_dir: paths of the checkpoints.
      stage: the stage that is resumed.
      after: training step of the resumed state; states of later steps are deleted.
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
    """Saves a checkpoint within a stage and keeps the previous one as a fallback.

    Older checkpoints of the stage are deleted.

    Args:
      trainer: supplies the placement of the state.
      state: state as placed for training.
      stage: the stage being trained.
      sums: training metrics since the last record; None if there are none.
      seconds: time spent on the stage so far, over all sessions.
      run_dir: paths of records and checkpoints.
    """
    # Listed before saving: the first is the previous checkpoint, the fallback.
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
    """Dispatches the evaluation of a state and returns a function that records it.

    The evaluation is only dispatched, so that the devices can start the next chunk
    before the host waits for the results. The records cover the training metrics since
    the last evaluation (`sums` and `pending`), the evaluated sets and the mask
    statistics. Measurements of the probe since the last evaluation are written before
    them.

    Args:
      trainer: settings and compiled functions of the run.
      state: state as placed for training.
      stage: the stage being trained.
      step: training step of the state.
      sums: training metrics since the last record that were already fetched, or None.
      pending: metrics of chunks that were not yet fetched.
      run_dir: paths of the records, and the progress display.
      buffer: measurements of the probe that are not yet written.

    Returns:
      A function that waits for the results, writes the records, and raises
      `NonFiniteLoss` if training cannot continue.
    """
    collected = state_sharding.gather_state(trainer.layout, state)
    # All work on this state is dispatched here, before the next chunk donates its
    # buffers.
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
    """Warns once per stage and replicate that mask updates were skipped.

    Args:
      held: new records of kind "masks", not yet written.
      run_dir: paths of the records, which show whether a warning was already given.
    """
    skipped = [row for row in held if row["skipped_updates"]]
    if not skipped:
        return

    def find() -> list[int]:
        stage = skipped[0]["stage"]
        rows = metrics_log.read(run_dir.metrics, fields=metrics_log.FIELDS)
        mine = [r for r in rows if (r["kind"], r["stage"]) == ("masks", stage)]
        return [r["replicate"] for r in mine if r.get("skipped_updates")]

    # Read from the file and not kept in memory, so that a resumed run does not warn
    # again.
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
    """Returns one "train" and one "eval" record per replicate.

    Before the first step there are no training metrics, and no "train" record.
    """
    # The learning rate of the last update: step counts completed updates.
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
    """Returns the loss and accuracy of one replicate as record fields.

    Args:
      scores: scores of all replicates; None gives fields with the value None.
      replicate: number of the replicate.
      prefix: prefix of the field names, such as "test_".
    """
    names = (f"{prefix}loss", f"{prefix}accuracy")
    if scores is None:
        return dict.fromkeys(names)
    values = (float(scores.loss[replicate]), float(scores.accuracy[replicate]))
    return dict(zip(names, values, strict=True))


def _summary(trained: Scores | None, sets: Mapping[str, Scores]) -> str:
    """Formats mean loss and accuracies for the progress display."""
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
    """Raises on a non-finite loss, or records the replicate as failed and continues.

    Raises:
      NonFiniteLoss: if a loss is not finite and `trainer.continues` is False, or if no
        replicate with finite losses is left.
    """
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
    """Writes a "failed" record for each broken replicate, once per stage."""

    def find() -> list[int]:
        rows = metrics_log.read(run_dir.metrics, fields=metrics_log.FIELDS)
        mine = [r for r in rows if (r["kind"], r["stage"]) == ("failed", stage.name)]
        return [row["replicate"] for row in mine]

    # Read from the file, so that a resumed run does not record a failure twice.
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
