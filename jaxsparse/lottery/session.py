"""Trains the stages of an experiment and loads the states between them."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxsparse import metrics_log, multihost, transforms, tree
from jaxsparse.lottery import controls, imp, instability, stages, task, tickets
from jaxsparse.lottery.stages import Experiment
from jaxsparse.training import (
    checkpoints,
    level_summary,
    mesh,
    profiling,
    solution_penalty,
    state_sharding,
)
from jaxsparse.training import state as state_lib
from jaxsparse.training import (
    train as train_lib,
)
from jaxsparse.training.state import TrainState
from jaxsparse.training.train import RunDir, Stage, Trainer
from jaxsparse.types import Masks, Params


class Session:
    """Trains the stages of an experiment and loads the states between them.

    All results are on disk; the object only caches them, and loads them when they are
    needed.

    Attributes:
      experiment: the parts of the experiment.
      desk: files of the run.
      writes: whether the run directory may be changed.
      init: initial state, dense, in the checkpoint layout.
      latest: for each variant, the name of its latest final checkpoint and that state.
    """

    def __init__(
        self, experiment: Experiment, desk: RunDir, *, writes: bool = True
    ) -> None:
        """Loads the initial state of a run, or makes it.

        Args:
          experiment: the parts of the experiment.
          desk: files of the run.
          writes: whether this session may write to the run directory. If False, nothing
            in it is changed, and a stage whose weights are lost raises ValueError
            instead of being trained again.
        """
        self.experiment, self.desk, self.writes = experiment, desk, writes
        self.init = self._make_init()
        # By variant. The next stages start from these states, so that most are never
        # loaded.
        self.latest: dict[str, tuple[str, TrainState]] = {}

    def _make_init(self) -> TrainState:
        """Makes the initial state, or loads it if a checkpoint exists."""
        made = task.first_state(self.experiment.network, self.experiment.seeds)
        made = state_sharding.to_checkpoint_layout(self.experiment.trainer.layout, made)
        # The recorded state takes precedence: a resumed run continues from its bits
        # even if this machine draws others.
        saved = self._load("init", made)
        if saved is not None:
            return saved.state
        if self.writes:
            checkpoints.save(self.desk.checkpoints, "init", made)
        return made

    def _load(self, name: str, like: TrainState) -> checkpoints.Checkpoint | None:
        """Loads a checkpoint; corrupt ones are renamed only if this session may write.

        Args:
          name: name of the checkpoint.
          like: a state with the expected structure, shapes, dtypes and sharding.

        Returns:
          The checkpoint; None if it is missing, or corrupt in a session that may write.

        Raises:
          CorruptFile: if it is corrupt and this session may not write.
        """
        load = checkpoints.load if self.writes else checkpoints.read
        return load(self.desk.checkpoints, name, like)

    def train(self, stage: Stage, *, put_back: bool = False) -> TrainState:
        """Trains a stage to its end, writes its records, and saves its final state.

        Args:
          stage: the stage.
          put_back: whether the stage has ended before and its records are lost, but not
            its weights. The records are then written to the metrics file again.

        Returns:
          The final state, in the checkpoint layout.

        Raises:
          ValueError: if this session may not write to the run directory.
          Preempted: if a stop was requested; everything is saved.
          NonFiniteLoss: if a loss is NaN or infinite.
        """
        if not self.writes:
            raise ValueError(
                f"{self.desk.checkpoints.parent}: the weights that {stage.name} ended "
                "with are lost; expected them there; continue the run with "
                "experiments/train.py, which trains that stage again"
            )
        desk, trainer = self.desk, self.anchored(stage, self.trainer(stage))
        ended = checkpoints.exists(desk.checkpoints, stages.end_name(stage))
        if ended:
            desk = desk._replace(metric_writers=())  # already sent the first time
        if ended and not put_back:
            # Only its weights are lost. Its records are in the metrics file and must
            # not be duplicated there.
            again = desk.metrics.with_name("trained_again.jsonl")
            desk = desk._replace(metrics=again)
        spent, traces = profiling.CostTracker(), desk.metrics.with_name("trace")
        fresh, keys = self.begin(stage), self.keys(stage)
        if multihost.is_multiprocess():
            traces = traces / f"process_{jax.process_index()}"
        with profiling.tracing(trainer.trace, traces) as tracer:
            state, seconds = train_lib.fit(
                trainer, fresh, stage=stage, keys=keys, run_dir=desk, tracer=tracer
            )
        if stage.arm == stages.PRETRAINING:  # may use other devices
            state = state_sharding.to_checkpoint_layout(
                self.experiment.trainer.layout, state
            )
        rows = _read(desk, stage=stage.name)
        if stage.arm not in (stages.PRETRAINING, instability.ARM):
            masks = multihost.to_local(transforms.get_masks(state.opt_state))
            ends = level_summary.level_records(
                rows,
                masks=masks,
                start_step=stage.start,
                live=self.experiment.network.live,
                dynamic_masks=trainer.changing is not None,
                anneal_end_step=trainer.settled,
            )
            failed = self._failed(stage)
            for row in ends:
                if row["replicate"] in failed:
                    row["failed"] = True  # its results are meaningless
            train_lib.write(desk, ends)
            level_summary.warn_of_empty_layers(ends, stage=stage.name)
            if self.experiment.network.first_masks is not None:
                tickets.save_final(self.experiment.tickets, masks)
        train_lib.write(desk, self._compare(stage, state))
        # The record of kind "time" must be the last of a stage: `experiment.run` takes
        # its absence as a sign that records are lost.
        time = train_lib.record(stage, "time", step=stage.stop, trainer=trainer)
        rate = (stage.stop - stage.start) / seconds
        time |= {"seconds": seconds, "steps_per_second": rate}
        train_lib.write(desk, [time | spent.so_far()])
        # The final checkpoint comes after all records, because its existence marks the
        # stage as ended.
        extra = {"records": train_lib.settle(desk, stage)}
        checkpoints.save(desk.checkpoints, stages.end_name(stage), state, extra)
        checkpoints.clear(desk.checkpoints, stage.name)
        self.latest[stage.arm] = (stages.end_name(stage), state)
        desk.progress.end(note=level_summary.describe(rows))
        return state

    def _failed(self, stage: Stage) -> list[int]:
        """Lists replicates with a non-finite loss in a stage or its predecessors.

        Predecessors are the pretraining, and the tickets and same-variant stages of
        lower levels.

        Args:
          stage: the stage.

        Returns:
          Numbers of the replicates, increasing.
        """
        leads = (stages.PRETRAINING, stages.TICKET, stage.arm)
        return sorted(
            {
                row["replicate"]
                for row in _read(self.desk, kind="failed")
                if row["stage"] == stage.name
                or (row["arm"] in leads and row["level"] < stage.level)
                or row["arm"] == stages.PRETRAINING
            }
        )

    def keys(self, stage: Stage) -> Key[Array, "r"]:
        """Returns the keys of a stage's example order and augmentation.

        Args:
          stage: the stage.

        Returns:
          Typed random keys, one per replicate [r], or one per child [r * c] for
          children.
        """
        keys = self.experiment.seeds.data
        if self.experiment.fresh_order:
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stage.level)
        if stage.arm == instability.ARM:
            keys = instability.data_keys(keys, self.experiment.children.count)
        return keys

    def trainer(self, stage: Stage) -> Trainer:
        """Returns the trainer of a stage; it also saves states that children need.

        Args:
          stage: the stage.
        """
        experiment = self.experiment
        children, trainer = experiment.children, experiment.trainer
        if stage.arm == stages.PRETRAINING:
            trainer = experiment.pretrainer or trainer
        if children is None:
            return trainer
        if stage.arm == instability.ARM:
            return children.trainer
        copied = stage.level in children.levels and children.count
        if stage.arm not in (stages.TICKET, stages.PRETRAINING) or not copied:
            return trainer
        wanted = {step for step in children.steps if stage.start < step < stage.stop}
        return trainer._replace(keep_at=tuple(sorted({*trainer.keep_at, *wanted})))

    def anchored(self, stage: Stage, trainer: Trainer) -> Trainer:
        """Adds the final weights of earlier tickets to a trainer, for the penalty.

        Args:
          stage: the stage to be trained.
          trainer: the trainer of the stage.

        Returns:
          The trainer with the past solutions, sharded by replicate; unchanged in an
          experiment without the penalty of `training.solution_penalty`, and for the
          pretraining.
        """
        experiment = self.experiment
        if experiment.repelled is None or stage.arm == stages.PRETRAINING:
            return trainer
        make = functools.partial(
            solution_penalty.allocate,
            experiment.network.masks,
            experiment.levels,
            dtype=experiment.repelled,
        )
        count = trainer.layout.replicates
        solutions = jax.tree.map(
            lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype),
            jax.eval_shape(make),
        )
        put = jax.jit(
            jax.vmap(solution_penalty.store, in_axes=(0, 0, None)), donate_argnums=0
        )
        # One solution after the other, into buffers that are donated: at no time are
        # all final states in memory together.
        for level in range(stage.level):
            end = self._ticket_end(level).params
            if stage.arm == instability.ARM:
                end = instability.copies(end, experiment.children.count)
            solutions = put(solutions, end, jnp.int32(level))
        filled = jnp.full(count, stage.level, jnp.int32)
        placed = mesh.shard_replicates(
            trainer.layout, solution_penalty.PastSolutions(solutions, filled)
        )
        return trainer._replace(anchors=placed)

    def _compare(self, stage: Stage, state: TrainState) -> list[metrics_log.Record]:
        """Compares the children of a stage, or a level with the previous one.

        Args:
          stage: the stage that has just been trained.
          state: its final state, in the checkpoint layout.

        Returns:
          The records of the comparison; [] if the experiment compares nothing here.
        """
        children = self.experiment.children
        if children is None:
            return []
        ends = multihost.to_local((state.params, state.batch_stats))

        def begin(kind: str) -> metrics_log.Record:
            trainer = self.experiment.trainer
            return train_lib.record(stage, kind, step=stage.stop, trainer=trainer)

        if stage.arm == instability.ARM:
            rows = instability.rows(children, ends, begin)
            return [*rows, begin("verdict") | self._judge(stage, rows)]
        if stage.arm != stages.TICKET or not stage.level or not children.successive:
            return []
        before = self._ticket_end(stage.level - 1)
        earlier = multihost.to_local((before.params, before.batch_stats))
        found = children.compare(earlier, ends)
        return [
            begin("successive") | {"replicate": r} | row for r, row in enumerate(found)
        ]

    def _judge(
        self, stage: Stage, rows: list[metrics_log.Record]
    ) -> metrics_log.Record:
        """Determines whether children are stable and their level is matching.

        Args:
          stage: stage of the children.
          rows: records of the comparisons of all pairs.

        Returns:
          Fields of the record: the step at which the children started, and the result
          of `InstabilityAnalysis.judge`.
        """
        ended = [row for row in _read(self.desk, kind="level", arm=stages.TICKET)]
        reached, dense = (
            [row["test_accuracy"] for row in ended if row["level"] == level]
            for level in (stage.level, 0)
        )
        # Matching compares with the dense network, which is level 0 unless training is
        # sparse from the start.
        to_match = stage.level and self.experiment.network.first_masks is None
        found = self.experiment.children.judge(
            [row["test_instability"] for row in rows],
            reached,
            dense if to_match else None,
        )
        return {"start": stage.start} | found

    def _copied(self, stage: Stage) -> tuple[Params, Any, Masks]:
        """Returns the weights, batch statistics and masks with which children start.

        Args:
          stage: stage of the children.

        Returns:
          Parameters, batch statistics and masks, each [r * c ...].

        Raises:
          ValueError: if the state that they start from cannot be read even after the
            stage that saves it was trained again.
        """
        ticket = stages.of_level(self.experiment, stage.level, stages.TICKET)
        masks = self.masks(stage.level)
        if stage.start == ticket.start:
            start = self.begin(ticket)
            weights = (start.params, start.batch_stats)
        elif stage.start == 0:
            weights = (self.init.params, self.init.batch_stats)
        else:
            early = stage.start < ticket.start
            of = stages.pretraining(self.experiment) if early else ticket
            name = train_lib.saved_state_name(of.name, stage.start)
            saved = self._load(name, self.init)
            if saved is None:  # lost or corrupt: train the stage that saves it again
                self.train(of)
                saved = self._load(name, self.init)
            if saved is None:
                raise ValueError(
                    f"checkpoint {name}: cannot be read, though it was just written; "
                    f"wanted what the children of {stage.name} begin with; is the disk "
                    "full?"
                )
            weights = (saved.state.params, saved.state.batch_stats)
        return instability.copies((*weights, masks), self.experiment.children.count)

    def end_of(self, stage: Stage) -> TrainState:
        """Returns the final state of a stage; trains again if it is lost or corrupt.

        Args:
          stage: the stage.

        Raises:
          ValueError: if the state is lost and this session may not write.
        """
        name = stages.end_name(stage)
        found, state = self.latest.get(stage.arm, ("", self.init))
        if found == name:
            return state
        saved = self._load(name, self.init)
        state = self.train(stage) if saved is None else saved.state
        self.latest[stage.arm] = (name, state)
        return state

    def _ticket_end(self, level: int) -> TrainState:
        return self.end_of(stages.of_level(self.experiment, level, stages.TICKET))

    def _rewound(self) -> TrainState:
        if not self.experiment.plan.rewind:
            return self.init
        return self.end_of(stages.pretraining(self.experiment))

    def masks(self, level: int) -> Masks:
        """Returns the masks of a level's ticket, and chooses them if necessary.

        Args:
          level: level of iterative magnitude pruning, from 0.

        Returns:
          Masks [r ...].

        Raises:
          ValueError: if a score is not finite, or open_lth's rule asks to remove more
            weights than there are; or if the weights to prune by are lost and this
            session may not write.
        """
        experiment = self.experiment
        count = experiment.trainer.layout.replicates
        folder, like = experiment.tickets, experiment.network.masks
        first_masks = experiment.network.first_masks
        if level == 0 and first_masks is None:
            return task.dense_masks(experiment.network, count)
        found = tickets.load_level(folder, level, like, replicates=count)
        if found is not None:
            return found
        if level == 0:
            start = self._rewound()
            chosen = first_masks(start.params, start.batch_stats, experiment.seeds)
            return self._keep_ticket(level, chosen)
        source = 0 if experiment.one_shot else level - 1
        ticket = stages.of_level(experiment, source, stages.TICKET)
        end, before = self._ticket_end(source), self.masks(source)
        # Failed replicates stay in the arrays, and `imp.prune` rejects NaN.
        params = _finite(end.params, self._failed(ticket))
        score, worth = experiment.network.level_scores, None
        if score is not None:
            trained = (params, end.batch_stats, before)
            worth = score(*trained, experiment.seeds, level)
        chosen = imp.prune(
            params,
            before,
            level=level,
            rule=experiment.rule,
            keys=experiment.seeds.masks,
            scores=worth,
        )
        return self._keep_ticket(level, chosen)

    def _keep_ticket(self, level: int, chosen: Masks) -> Masks:
        """Writes the masks of a level if this session may write, and returns them.

        Args:
          level: level of iterative magnitude pruning, from 0.
          chosen: masks [r ...].
        """
        chosen = self._looked_at(chosen, level)
        if self.writes:
            count = self.experiment.trainer.layout.replicates
            folder = self.experiment.tickets
            tickets.save_level(folder, level, chosen, replicates=count)
        return chosen

    def _looked_at(self, chosen: Masks, level: int) -> Masks:
        """Copies new masks to this process, and warns if no weight lies on a path.

        Args:
          chosen: masks [r ...].
          level: level of iterative magnitude pruning, for the warning.
        """
        masks, live = multihost.to_local(chosen), self.experiment.network.live
        level_summary.warn_of_no_paths(masks, live, stage=f"masks of level {level}")
        return masks

    def begin(self, stage: Stage) -> TrainState:
        """Makes the initial state of a stage, in the checkpoint layout.

        Args:
          stage: the stage.
        """
        if stage.arm == stages.PRETRAINING:
            return self.init
        keys = self.experiment.seeds.masks
        if stage.arm == instability.ARM:
            weights = self._copied(stage)
            count = self.experiment.children.count
            # All children of a replicate share the key of the sparse optimizer, so that
            # they differ in SGD noise only. The clone keeps JAX's key-reuse checker
            # from counting a second use.
            keys = instability.copies(jax.random.clone(keys), count)
        else:
            weights = self._drawn(stage.level, stage.arm)
        tx, place = self.experiment.network.tx, self.experiment.network.place
        step = stage.start
        return state_lib.start(tx, *weights, step=step, keys=keys, place=place)

    def _drawn(self, level: int, arm: str) -> tuple[Params, Any, Masks]:
        """Returns the initial weights, batch statistics and masks of a variant [r ...].

        Args:
          level: level of iterative magnitude pruning, from 0.
          arm: variant: "ticket" or the name of a control.
        """
        experiment = self.experiment
        masks = self.masks(level)
        if arm != stages.TICKET:
            masks = controls.masks_of(
                arm,
                masks,
                level=level,
                keys=experiment.seeds.masks,
                exclude=experiment.rule.exclude,
            )
        params, batch_stats = self._weights(level, arm)
        network = experiment.network
        first = level == 0 and network.first_weights is None
        # Weights of a later ticket are rewound or trained, and weights of another run
        # are taken as they are; only newly drawn ones are redrawn for their masks.
        if network.redraw is not None and (first or arm in controls.FRESH):
            keys = jax.vmap(controls.key_of, in_axes=(0, None, None))(
                experiment.seeds.init, f"redrawn {arm}", level
            )
            draw = jax.jit(
                jax.vmap(network.redraw),
                out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params)
                if network.place
                else None,
            )
            params = draw(params, masks, keys)
        if network.rescale is not None:
            params = self._rescaled(params, batch_stats, masks)
        return params, batch_stats, masks

    def _rescaled(self, params: Params, batch_stats: Any, masks: Masks) -> Params:
        """Multiplies initial weights by their GradInit factors, learned once per run.

        The factors are read from the run's file, or learned and written there. They are
        per tensor, so weights that are masked now and become active later are rescaled
        too.

        Args:
          params: initial weights [r ...].
          batch_stats: batch statistics [r ...].
          masks: masks [r ...].

        Returns:
          Rescaled weights [r ...].

        Raises:
          ValueError: if the file of factors is damaged.
        """
        path = self.desk.metrics.with_name("rescaling.json")
        if multihost.broadcast_from_primary(path.exists):
            text = multihost.broadcast_from_primary(
                lambda: path.read_text(encoding="utf-8")
            )
        else:
            seeds = jax.tree.map(jax.random.clone, self.experiment.seeds)
            rescale = self.experiment.network.rescale
            found = rescale(params, batch_stats, masks, seeds)
            text = _word_factors(multihost.to_host(found))
            if self.writes:
                multihost.on_primary(lambda: metrics_log.write_atomically(path, text))
        rows = _read_factors(path, text)

        def times(name: str, leaf: Any) -> Any:
            factors = jnp.asarray([row[name] for row in rows], leaf.dtype)
            return leaf * factors.reshape(-1, *(1,) * (leaf.ndim - 1))

        return tree.map_with_names(times, params)

    def _weights(self, level: int, arm: str) -> tuple[Params, Any]:
        """Returns the weights and batch statistics [r ...] from which a stage starts.

        Args:
          level: level of iterative magnitude pruning, from 0.
          arm: variant: "ticket" or the name of a control.
        """
        experiment = self.experiment
        if arm in controls.FRESH or experiment.network.fresh_weights:
            keys = jax.vmap(controls.key_of, in_axes=(0, None, None))(
                experiment.seeds.init, arm, level
            )
            return experiment.network.initialize(keys)
        if arm == "dense_continued" and level > 1:
            before = self.end_of(stages.of_level(experiment, level - 1, arm))
        elif arm == "dense_continued":
            before = self._ticket_end(0)
        elif level and experiment.plan.keeps_weights:
            before = self._ticket_end(0 if experiment.one_shot else level - 1)
        else:
            before = self._rewound()
        return before.params, before.batch_stats

    def tidy(self, stage: Stage) -> None:
        """Deletes checkpoints that a finished stage made unnecessary.

        Checkpoints within the stage are deleted if its final state is on disk. If the
        experiment asks for it, the final weights of earlier levels that no later stage
        needs are deleted too; their metadata stay.

        Args:
          stage: a stage that has ended.
        """
        end = self.desk.checkpoints / stages.end_name(stage)
        if multihost.broadcast_from_primary(end.exists):
            checkpoints.clear(self.desk.checkpoints, stage.name)
        if not self.experiment.thin or not stage.level:
            return
        level, outdated = stage.level, stage
        if stage.arm == stages.TICKET and level > 2:
            # Not the previous level: the controls of this level may start from its
            # weights.
            outdated = stages.of_level(self.experiment, level - 2, stage.arm)
        elif stage.arm == "dense_continued" and level > 1:
            outdated = stages.of_level(self.experiment, level - 1, stage.arm)
        elif stage.arm in (stages.TICKET, "dense_continued"):
            return
        # No stage starts from the weights of any other control, so it deletes its own.
        checkpoints.delete_weights(self.desk.checkpoints, stages.end_name(outdated))


def _finite(params: Params, failed: list[int]) -> Params:
    """Replaces non-finite weights of failed replicates by 0, to allow choosing masks.

    Args:
      params: weights [r ...].
      failed: numbers of the replicates that had a non-finite loss.
    """
    if not failed:
        return params
    rows = jnp.asarray(failed)

    def one(leaf: Any) -> Any:
        mended = jnp.nan_to_num(leaf[rows], nan=0.0, posinf=0.0, neginf=0.0)
        return leaf.at[rows].set(mended)

    return jax.tree.map(one, params)


def _read(run_dir: RunDir, **wanted: Any) -> list[metrics_log.Record]:
    """Reads the records whose fields have given values, the same on every process.

    Args:
      run_dir: files of the run.
      **wanted: field names and their values.
    """
    return multihost.broadcast_from_primary(
        lambda: [
            row
            for row in metrics_log.read(run_dir.metrics, fields=metrics_log.FIELDS)
            if all(row.get(name) == value for name, value in wanted.items())
        ]
    )


def _read_factors(path: Path, text: str) -> list[dict[str, float]]:
    """Parses the factors of each replicate, by name of the leaf.

    Args:
      path: path of the file, for the error message.
      text: content of the file.

    Raises:
      ValueError: if the content is not what `_word_factors` returned.
    """
    try:
        return [dict(row["factors"]) for row in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: is not what rescaling wrote ({error}); expected a list with the "
            "factors of each replicate; restore it, or begin anew with another "
            "--workdir"
        ) from error


def _word_factors(found: Any) -> str:
    """Formats the result of rescaling as JSON with one object per replicate.

    Args:
      found: `tost.gradinit.GradInitResult` on the host, leaves [r ...].
    """
    rows = [
        {
            "objective": objective.tolist(),
            "constrained": constrained.tolist(),
            "factors": {
                name: float(factor[r])
                for name, factor in tree.named_leaves(found.factors).items()
            },
        }
        for r, (objective, constrained) in enumerate(
            zip(found.objective, found.constrained, strict=True)
        )
    ]
    return json.dumps(rows, indent=1) + "\n"
