"""One process's work on an experiment: stages trained, and states read back."""

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
    """One process's work on an experiment: stages trained, and states read back once.

    It holds no result that is not on disk; it exists to load lazily.
    """

    def __init__(
        self, experiment: Experiment, desk: RunDir, *, writes: bool = True
    ) -> None:
        """Makes the initial state, or reads the one that is there.

        Args:
          experiment: what is worked on.
          desk: where it is.
          writes: whether this process owns the folder of the run. If not, nothing in
            it is changed, and nothing that is lost is trained again.
        """
        self.experiment, self.desk, self.writes = experiment, desk, writes
        self.init = self._make_init()
        # By arm, the latest end of a stage: what the next stages start from.
        self.latest: dict[str, tuple[str, TrainState]] = {}

    def _make_init(self) -> TrainState:
        """Makes the initial state, and checks it against the one recorded."""
        made = task.first_state(self.experiment.network, self.experiment.seeds)
        made = state_sharding.to_checkpoint_layout(self.experiment.trainer.layout, made)
        saved = self._load("init", made)
        if saved is not None:
            return saved.state
        if self.writes:
            checkpoints.save(self.desk.checkpoints, "init", made)
        return made

    def _load(self, name: str, like: TrainState) -> checkpoints.Checkpoint | None:
        """Loads a checkpoint; whoever only reads moves no corrupt one aside."""
        load = checkpoints.load if self.writes else checkpoints.read
        return load(self.desk.checkpoints, name, like)

    def train(self, stage: Stage, *, put_back: bool = False) -> TrainState:
        """Trains a stage to its end, records what it came to, and saves it.

        Args:
          stage: which one.
          put_back: whether it ended before, and its records are lost, not its weights.
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
            desk = desk._replace(metric_writers=())  # they had these before
        if ended and not put_back:
            # Its weights are lost: its records are not.
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
        if stage.arm == stages.PRETRAINING:  # perhaps on other devices than the rest
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
                    row["failed"] = True  # what it came to is of no use
            train_lib.write(desk, ends)
            level_summary.warn_of_empty_layers(ends, stage=stage.name)
            if self.experiment.network.first_masks is not None:
                tickets.save_final(self.experiment.tickets, masks)
        train_lib.write(desk, self._compare(stage, state))
        time = train_lib.record(stage, "time", step=stage.stop, trainer=trainer)
        rate = (stage.stop - stage.start) / seconds
        time |= {"seconds": seconds, "steps_per_second": rate}
        train_lib.write(desk, [time | spent.so_far()])
        extra = {"records": train_lib.settle(desk, stage)}
        checkpoints.save(desk.checkpoints, stages.end_name(stage), state, extra)
        checkpoints.clear(desk.checkpoints, stage.name)
        self.latest[stage.arm] = (stages.end_name(stage), state)
        desk.progress.end(note=level_summary.describe(rows))
        return state

    def _failed(self, stage: Stage) -> list[int]:
        """Lists replicates that are broken in a stage: in it, or in what it is of."""
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
        """Makes the keys of a stage's order of examples and augmentation."""
        keys = self.experiment.seeds.data
        if self.experiment.fresh_order:
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stage.level)
        if stage.arm == instability.ARM:
            keys = instability.data_keys(keys, self.experiment.children.count)
        return keys

    def trainer(self, stage: Stage) -> Trainer:
        """Returns what a stage trains with, which keeps what children begin with."""
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
        """Gives a level's training the ends of all tickets before, if it wants them."""
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
        """Says what lies between children, or between a level and the one before."""
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
        """Says whether the children of a stage are stable, and their level matching."""
        ended = [row for row in _read(self.desk, kind="level", arm=stages.TICKET)]
        reached, dense = (
            [row["test_accuracy"] for row in ended if row["level"] == level]
            for level in (stage.level, 0)
        )
        # Level 0 is what is to be matched, if it is dense.
        to_match = stage.level and self.experiment.network.first_masks is None
        found = self.experiment.children.judge(
            [row["test_instability"] for row in rows],
            reached,
            dense if to_match else None,
        )
        return {"start": stage.start} | found

    def _copied(self, stage: Stage) -> tuple[Params, Any, Masks]:
        """Returns what children begin with, [r * c ...]."""
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
            if saved is None:  # lost or corrupt: as an end is, it is trained again
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
        """Returns the state a stage ended with; corrupt, it is trained again."""
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
        """Returns the ticket's masks at a level, choosing them if need be."""
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
        """Writes the masks of a level, and returns them."""
        chosen = self._looked_at(chosen, level)
        if self.writes:
            count = self.experiment.trainer.layout.replicates
            folder = self.experiment.tickets
            tickets.save_level(folder, level, chosen, replicates=count)
        return chosen

    def _looked_at(self, chosen: Masks, level: int) -> Masks:
        """Brings new masks here, and warns where they leave nothing to train."""
        masks, live = multihost.to_local(chosen), self.experiment.network.live
        level_summary.warn_of_no_paths(masks, live, stage=f"masks of level {level}")
        return masks

    def begin(self, stage: Stage) -> TrainState:
        """Makes the state a stage starts from."""
        if stage.arm == stages.PRETRAINING:
            return self.init
        keys = self.experiment.seeds.masks
        if stage.arm == instability.ARM:
            weights = self._copied(stage)
            count = self.experiment.children.count
            keys = instability.copies(jax.random.clone(keys), count)
        else:
            weights = self._drawn(stage.level, stage.arm)
        tx, place = self.experiment.network.tx, self.experiment.network.place
        step = stage.start
        return state_lib.start(tx, *weights, step=step, keys=keys, place=place)

    def _drawn(self, level: int, arm: str) -> tuple[Params, Any, Masks]:
        """Returns what a ticket or control begins with, [r ...]."""
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
        """Rescales what training starts from, by the factors that are written down.

        They are learned once. What is masked now and trained later keeps its weights.
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
        """Returns the weights [r ...] and batch statistics a stage starts from."""
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
        """Deletes what ending it made needless, and, if asked, weights it outdates."""
        end = self.desk.checkpoints / stages.end_name(stage)
        if multihost.broadcast_from_primary(end.exists):
            checkpoints.clear(self.desk.checkpoints, stage.name)
        if not self.experiment.thin or not stage.level:
            return
        level, outdated = stage.level, stage
        if stage.arm == stages.TICKET and level > 2:
            # Not the level before: this level's controls may start from its weights.
            outdated = stages.of_level(self.experiment, level - 2, stage.arm)
        elif stage.arm == "dense_continued" and level > 1:
            outdated = stages.of_level(self.experiment, level - 1, stage.arm)
        elif stage.arm in (stages.TICKET, "dense_continued"):
            return
        checkpoints.delete_weights(self.desk.checkpoints, stages.end_name(outdated))


def _finite(params: Params, failed: list[int]) -> Params:
    """Replaces what is not finite of broken replicates, which no choice can be of."""
    if not failed:
        return params
    rows = jnp.asarray(failed)

    def one(leaf: Any) -> Any:
        mended = jnp.nan_to_num(leaf[rows], nan=0.0, posinf=0.0, neginf=0.0)
        return leaf.at[rows].set(mended)

    return jax.tree.map(one, params)


def _read(run_dir: RunDir, **wanted: Any) -> list[metrics_log.Record]:
    """Reads the records whose fields are those."""
    return multihost.broadcast_from_primary(
        lambda: [
            row
            for row in metrics_log.read(run_dir.metrics, fields=metrics_log.FIELDS)
            if all(row.get(name) == value for name, value in wanted.items())
        ]
    )


def _read_factors(path: Path, text: str) -> list[dict[str, float]]:
    """Reads the factors of each replicate, by name of the leaf."""
    try:
        return [dict(row["factors"]) for row in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: is not what rescaling wrote ({error}); expected a list with the "
            "factors of each replicate; restore it, or begin anew with another "
            "--workdir"
        ) from error


def _word_factors(found: Any) -> str:
    """Words what rescaling came to, replicate by replicate."""
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
