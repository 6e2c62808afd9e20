"""A whole lottery-ticket experiment, continued wherever it was stopped.

The experiment is a list of stages, each a pure function of the seeds and of stages
before it:

    pretraining                  dense, from initialisation to the rewinding step k
    level_00/ticket              dense, from k to the end
    level_01/ticket              pruned by the weights of level_00, from k to the end
    level_01/reinitialized, ...  controls of that level
    level_01/children_000000500  copies that train from update 500 with other noise
    level_02/ticket              ...

A stage that has ended is never trained again, unless a later one needs its weights
and they turn out to be corrupt; the same bits must then come out.
"""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxsparse import records, transforms
from jaxsparse.lottery import children as children_lib
from jaxsparse.lottery import controls, levels, rewinding, tickets
from jaxsparse.training import checkpoints, loop, repelling, sharding, summary
from jaxsparse.training import state as state_lib
from jaxsparse.training.loop import Desk, Stage, Trainer
from jaxsparse.training.state import Seeds, TrainState
from jaxsparse.types import Masks, Params

TICKET = "ticket"
ENDED = "ended.json"  # the checkpoints with which stages end, when all have


class Network(NamedTuple):
    """What is trained.

    Attributes:
      initialize: keys [r] to initial weights and batch statistics [r ...].
      tx: the sparse optimiser.
      masks: the dense masks of one replicate.
      first_masks: for sparse training from the start: initial weights, batch statistics
        and seeds to masks, all [r ...]. None to begin dense.
      fresh_weights: whether training starts from other weights than those the first
        masks were chosen on.
      live: masks of one replicate to how many of its weights lie on a path from input
        to output.
      first_weights: as `initialize`, for what training starts from, if that is not
        drawn: weights of another run.
      redraw: weights and masks of one replicate and a key to fresh weights that suit
        the masks; None to leave those drawn as they are.
    """

    initialize: Callable[[Key[Array, "r"]], tuple[Params, Any]]
    tx: optax.GradientTransformationExtraArgs
    masks: Masks
    first_masks: Callable[[Params, Any, Seeds], Masks] | None = None
    fresh_weights: bool = False
    live: Callable[[Masks], int] | None = None
    first_weights: Callable[[Key[Array, "r"]], tuple[Params, Any]] | None = None
    redraw: Callable[[Params, Masks, Key[Array, ""]], Params] | None = None


def first_state(network: Network, seeds: Seeds) -> TrainState:
    """Makes the state before any training, dense, every leaf leading with replicates.

    Checkpoints are loaded into states like this one.
    """
    draw = network.first_weights or network.initialize
    params, batch_stats = draw(seeds.init)
    masks = dense_masks(network, len(seeds.init))
    return state_lib.start(
        network.tx, params, batch_stats, masks, step=0, keys=seeds.masks
    )


def dense_masks(network: Network, replicates: int) -> Masks:
    """Returns the network's dense masks for so many replicates."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (replicates, *leaf.shape)), network.masks
    )


class Experiment(NamedTuple):
    """Everything a lottery run is made of.

    Attributes:
      trainer: what every stage trains with.
      network: what is trained.
      seeds: keys of every replicate.
      plan: what levels start from, and for how long they train.
      rule: how a level prunes.
      levels: times to prune.
      controls: names from `controls.NAMES`.
      control_levels: levels that get controls; () for all from 1.
      one_shot: whether every level is pruned by the weights of level 0.
      fresh_order: whether each level sees the examples in an order of its own.
      thin: whether to delete the weights of levels that nothing needs any more.
      tickets: folder of ticket files.
      children: how stability is analysed; None for not at all.
      pretrainer: what trains up to the rewinding step; None for `trainer`.
      repelled: dtype in which the ends of all levels before are held, for a level to
        be repelled from; None for no such thing.
    """

    trainer: Trainer
    network: Network
    seeds: Seeds
    plan: rewinding.Plan
    rule: levels.Rule
    levels: int
    controls: tuple[str, ...]
    control_levels: tuple[int, ...]
    one_shot: bool
    fresh_order: bool
    thin: bool
    tickets: Path
    children: children_lib.Children | None = None
    pretrainer: Trainer | None = None
    repelled: Any = None


def stages(experiment: Experiment) -> Iterator[Stage]:
    """Yields all stages in the order they run."""
    if experiment.plan.rewind:
        yield _pretraining(experiment)
    chosen = experiment.control_levels or tuple(range(1, experiment.levels + 1))
    for level in range(experiment.levels + 1):
        yield _stage(experiment, level, TICKET)
        for name in experiment.controls:
            # Continued training goes on from one level to the next.
            linked = name == "dense_continued" and 1 <= level <= max(chosen, default=0)
            if linked or level in chosen:
                yield _stage(experiment, level, name)
        if experiment.children is not None:
            yield from children_lib.stages(
                experiment.children,
                level=level,
                **experiment.plan.span(level)._asdict(),
            )


def run(experiment: Experiment, desk: Desk) -> None:
    """Runs every stage that has not ended yet.

    Args:
      experiment: what to run.
      desk: where to write; what is found there is continued.

    Raises:
      Stopped: if asked to stop, with everything saved.
      NonFinite: if a loss is NaN or infinite.
      ValueError: if what is found there cannot be what this experiment wrote.
      OSError: if something cannot be written.
    """
    session = _Session(experiment, desk)
    for stage in stages(experiment):
        if not checkpoints.exists(desk.checkpoints, _end(stage)):
            session.train(stage)
        session.tidy(stage)
    ends = [_end(stage) for stage in stages(experiment)]
    records.write_atomically(desk.metrics.with_name(ENDED), json.dumps(ends) + "\n")


def has_ended(workdir: Path) -> bool:
    """Says whether every stage of the run in a folder has ended; opens no checkpoint.

    Args:
      workdir: folder of the run, in which `run` lists all stages when it is through.
    """
    try:
        ends = json.loads((workdir / ENDED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(checkpoints.exists(workdir / "checkpoints", end) for end in ends)


def beginning(
    experiment: Experiment, desk: Desk, stage: Stage
) -> tuple[Trainer, TrainState, Key[Array, "r"]]:
    """Makes what a stage of a run that has been is trained with and from.

    Args:
      experiment: what was run.
      desk: where it wrote; states before the stage are read there.
      stage: one of `stages`.

    Returns:
      Its trainer, its first state in the form of files, and its keys of the data.
    """
    session = _Session(experiment, desk)
    trainer = session._anchored(stage, session._trainer(stage))
    return trainer, session._begin(stage), session._keys(stage)


def done(experiment: Experiment, desk: Desk) -> int:
    """Counts the stages that have ended."""
    return sum(
        checkpoints.exists(desk.checkpoints, _end(stage))
        for stage in stages(experiment)
    )


def _pretraining(experiment: Experiment) -> Stage:
    return Stage("pretraining", 0, "pretraining", 0, experiment.plan.rewind)


def _stage(experiment: Experiment, level: int, arm: str) -> Stage:
    span = experiment.plan.span(level)
    return Stage(f"level_{level:02d}/{arm}", level, arm, span.start, span.stop)


def _end(stage: Stage) -> str:
    return "rewind" if stage.arm == "pretraining" else f"{stage.name}/last"


class _Session:
    """One process's work on an experiment: stages trained, and states read back once.

    It holds no result that is not on disk; it exists to load lazily.
    """

    def __init__(self, experiment: Experiment, desk: Desk) -> None:
        self.experiment, self.desk = experiment, desk
        self.init = self._make_init()
        # By arm, the latest end of a stage: what the next stages start from.
        self.latest: dict[str, tuple[str, TrainState]] = {}

    def _make_init(self) -> TrainState:
        """Makes the initial state, and checks it against the one recorded."""
        made = first_state(self.experiment.network, self.experiment.seeds)
        saved = checkpoints.load(self.desk.checkpoints, "init", made)
        if saved is not None:
            return saved.state
        checkpoints.save(self.desk.checkpoints, "init", made)
        return made

    def train(self, stage: Stage) -> TrainState:
        """Trains a stage to its end, records what it came to, and saves it."""
        desk, trainer = self.desk, self._anchored(stage, self._trainer(stage))
        if checkpoints.exists(desk.checkpoints, _end(stage)):
            # It ended before and its weights are lost: its records are not.
            again = desk.metrics.with_name("trained_again.jsonl")
            desk = desk._replace(metrics=again, watch=lambda record: None)
        fresh, keys = self._begin(stage), self._keys(stage)
        state, seconds = loop.fit(trainer, fresh, stage=stage, keys=keys, desk=desk)
        rows = [r for r in records.read(desk.metrics) if r["stage"] == stage.name]
        if stage.arm not in ("pretraining", children_lib.ARM):
            masks = transforms.get_masks(state.opt_state)
            ends = summary.level_records(
                rows,
                masks=masks,
                start_step=stage.start,
                live=self.experiment.network.live,
                changing=trainer.changing is not None,
            )
            loop.write(desk, ends)
            if self.experiment.network.first_masks is not None:
                tickets.save_final(self.experiment.tickets, masks)
        loop.write(desk, self._compare(stage, state))
        time = loop.record(stage, "time", step=stage.stop, trainer=trainer)
        rate = (stage.stop - stage.start) / seconds
        loop.write(desk, [time | {"seconds": seconds, "steps_per_second": rate}])
        checkpoints.save(desk.checkpoints, _end(stage), state)
        checkpoints.clear(desk.checkpoints, stage.name)
        self.latest[stage.arm] = (_end(stage), state)
        desk.progress.end(note=summary.in_words(rows))
        return state

    def _keys(self, stage: Stage) -> Key[Array, "r"]:
        """Makes the keys of a stage's order of examples and augmentation."""
        keys = self.experiment.seeds.data
        if self.experiment.fresh_order:
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stage.level)
        if stage.arm == children_lib.ARM:
            keys = children_lib.data_keys(keys, self.experiment.children.count)
        return keys

    def _trainer(self, stage: Stage) -> Trainer:
        """Returns what a stage trains with, which keeps what children begin with."""
        experiment = self.experiment
        children, trainer = experiment.children, experiment.trainer
        if stage.arm == "pretraining":
            trainer = experiment.pretrainer or trainer
        if children is None:
            return trainer
        if stage.arm == children_lib.ARM:
            return children.trainer
        copied = stage.level in children.levels and children.count
        if stage.arm not in (TICKET, "pretraining") or not copied:
            return trainer
        wanted = {step for step in children.steps if stage.start < step < stage.stop}
        return trainer._replace(keep_at=tuple(sorted({*trainer.keep_at, *wanted})))

    def _anchored(self, stage: Stage, trainer: Trainer) -> Trainer:
        """Gives a level's training the ends of all tickets before, if it wants them."""
        experiment = self.experiment
        if experiment.repelled is None or stage.arm == "pretraining":
            return trainer
        make = functools.partial(
            repelling.allocate,
            experiment.network.masks,
            experiment.levels,
            dtype=experiment.repelled,
        )
        count = trainer.layout.replicates
        solutions = jax.tree.map(
            lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype),
            jax.eval_shape(make),
        )
        put = jax.jit(jax.vmap(repelling.store, in_axes=(0, 0, None)), donate_argnums=0)
        for level in range(stage.level):
            end = self._ticket_end(level).params
            if stage.arm == children_lib.ARM:
                end = children_lib.copies(end, experiment.children.count)
            solutions = put(solutions, end, jnp.int32(level))
        filled = jnp.full(count, stage.level, jnp.int32)
        placed = sharding.by_replicate(
            trainer.layout, repelling.Anchors(solutions, filled)
        )
        return trainer._replace(anchors=placed)

    def _compare(self, stage: Stage, state: TrainState) -> list[records.Record]:
        """Says what lies between children, or between a level and the one before."""
        children = self.experiment.children
        if children is None:
            return []
        ends = (state.params, state.batch_stats)

        def begin(kind: str) -> records.Record:
            trainer = self.experiment.trainer
            return loop.record(stage, kind, step=stage.stop, trainer=trainer)

        if stage.arm == children_lib.ARM:
            return children_lib.rows(children, ends, begin)
        if stage.arm != TICKET or not stage.level or not children.successive:
            return []
        before = self._ticket_end(stage.level - 1)
        found = children.compare((before.params, before.batch_stats), ends)
        return [
            begin("successive") | {"replicate": r} | row for r, row in enumerate(found)
        ]

    def _copied(self, stage: Stage) -> tuple[Params, Any, Masks]:
        """Returns what children begin with, [r * c ...]."""
        ticket = _stage(self.experiment, stage.level, TICKET)
        masks = self.masks(stage.level)
        if stage.start == ticket.start:
            start = self._begin(ticket)
            weights = (start.params, start.batch_stats)
        elif stage.start == 0:
            weights = (self.init.params, self.init.batch_stats)
        else:
            early = stage.start < ticket.start
            of = _pretraining(self.experiment) if early else ticket
            name = loop.kept_name(of.name, stage.start)
            saved = checkpoints.load(self.desk.checkpoints, name, self.init)
            if saved is None:
                raise ValueError(
                    f"checkpoint {name}: is not there or corrupt; wanted what the "
                    f"children of {stage.name} begin with; delete the folder "
                    f"{of.name} of checkpoints, and the same command trains it again"
                )
            weights = (saved.state.params, saved.state.batch_stats)
        return children_lib.copies((*weights, masks), self.experiment.children.count)

    def end_of(self, stage: Stage) -> TrainState:
        """Returns the state a stage ended with; corrupt, it is trained again."""
        name = _end(stage)
        found, state = self.latest.get(stage.arm, ("", self.init))
        if found == name:
            return state
        saved = checkpoints.load(self.desk.checkpoints, name, self.init)
        state = self.train(stage) if saved is None else saved.state
        self.latest[stage.arm] = (name, state)
        return state

    def _ticket_end(self, level: int) -> TrainState:
        return self.end_of(_stage(self.experiment, level, TICKET))

    def _rewound(self) -> TrainState:
        if not self.experiment.plan.rewind:
            return self.init
        return self.end_of(_pretraining(self.experiment))

    def masks(self, level: int) -> Masks:
        """Returns the ticket's masks at a level, choosing them if need be."""
        experiment = self.experiment
        count = experiment.trainer.layout.replicates
        folder, like = experiment.tickets, experiment.network.masks
        first_masks = experiment.network.first_masks
        if level == 0 and first_masks is None:
            return dense_masks(experiment.network, count)
        found = tickets.load_level(folder, level, like, replicates=count)
        if found is not None:
            return found
        if level == 0:
            start = self._rewound()
            chosen = first_masks(start.params, start.batch_stats, experiment.seeds)
            tickets.save_level(folder, level, chosen, replicates=count)
            return chosen
        source = 0 if experiment.one_shot else level - 1
        chosen = levels.prune(
            self._ticket_end(source).params,
            self.masks(source),
            level=level,
            rule=experiment.rule,
            keys=experiment.seeds.masks,
        )
        tickets.save_level(folder, level, chosen, replicates=count)
        return chosen

    def _begin(self, stage: Stage) -> TrainState:
        """Makes the state a stage starts from."""
        experiment = self.experiment
        if stage.arm == "pretraining":
            return self.init
        level, arm = stage.level, stage.arm
        if arm == children_lib.ARM:
            params, batch_stats, masks = self._copied(stage)
            keys = children_lib.copies(
                jax.random.clone(experiment.seeds.masks), experiment.children.count
            )
            return state_lib.start(
                experiment.network.tx,
                params,
                batch_stats,
                masks,
                step=stage.start,
                keys=keys,
            )
        masks = self.masks(level)
        if arm != TICKET:
            masks = controls.masks_of(
                arm,
                masks,
                level=level,
                keys=experiment.seeds.masks,
                ignored=experiment.rule.ignored,
            )
        params, batch_stats = self._weights(level, arm)
        network = experiment.network
        first = level == 0 and network.first_weights is None
        if network.redraw is not None and (first or arm in controls.FRESH):
            keys = jax.vmap(controls.key_of, in_axes=(0, None, None))(
                experiment.seeds.init, f"redrawn {arm}", level
            )
            params = jax.jit(jax.vmap(network.redraw))(params, masks, keys)
        return state_lib.start(
            experiment.network.tx,
            params,
            batch_stats,
            masks,
            step=stage.start,
            keys=experiment.seeds.masks,
        )

    def _weights(self, level: int, arm: str) -> tuple[Params, Any]:
        """Returns the weights [r ...] and batch statistics a stage starts from."""
        experiment = self.experiment
        if arm in controls.FRESH or experiment.network.fresh_weights:
            keys = jax.vmap(controls.key_of, in_axes=(0, None, None))(
                experiment.seeds.init, arm, level
            )
            return experiment.network.initialize(keys)
        if arm == "dense_continued" and level > 1:
            before = self.end_of(_stage(experiment, level - 1, arm))
        elif arm == "dense_continued":
            before = self._ticket_end(0)
        elif level and experiment.plan.keeps_weights:
            before = self._ticket_end(0 if experiment.one_shot else level - 1)
        else:
            before = self._rewound()
        return before.params, before.batch_stats

    def tidy(self, stage: Stage) -> None:
        """Deletes what ending it made needless, and, if asked, weights it outdates."""
        if (self.desk.checkpoints / _end(stage)).exists():
            checkpoints.clear(self.desk.checkpoints, stage.name)
        if not self.experiment.thin or not stage.level:
            return
        directory, level = self.desk.checkpoints, stage.level
        if stage.arm == TICKET and level > 2:
            # Not the level before: this level's controls may start from its weights.
            old = _end(_stage(self.experiment, level - 2, TICKET))
        elif stage.arm == "dense_continued" and level > 1:
            old = _end(_stage(self.experiment, level - 1, stage.arm))
        elif stage.arm in (TICKET, "dense_continued"):
            return
        else:
            old = _end(stage)
        checkpoints.thin(directory, old)
