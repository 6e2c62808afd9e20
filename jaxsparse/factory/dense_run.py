"""Finds the earlier run from which level 0 of a lottery-ticket run is taken."""

from pathlib import Path

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import multihost
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.factory import trained_run
from jaxsparse.factory.durations import Durations, config_context
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.runner import old_runs, records
from jaxsparse.runner.dense_run import DenseRun, checkpoint_names
from jaxsparse.stages import last_ends, stage_name
from jaxsparse.training import checkpoints
from jaxsparse.training.run_dir import METRICS

FIELD = "lottery.dense_run"
DENSE_END = last_ends(0)[0]  # final dense network, under the present name of its stage
# Level 0 does not depend on these fields: an earlier level has no penalty, and without
# a method of sparse training the fields of `sparse` belong to the scores of levels.
_OTHER = ("name", "analysis.save_at")
_OTHER_SECTIONS = ("lottery.", "instability.", "solution_penalty.", "sparse.")


def check(config: ConfigDict) -> None:
    """Checks that a run whose level 0 is taken from another one trains the rest.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if fields exclude each other, or nothing would be left to train; the
        message names the config field.
    """
    c = config.lottery
    if not c.dense_run:
        return
    begin = f"config.{FIELD}: expected None with "
    if not (c.levels or config.instability.copies):
        raise ValueError(
            f"{begin}lottery.levels 0 and instability.copies 0, got {c.dense_run!r}, "
            "which would be copied and nothing trained; train levels"
        )
    excluded = {
        f"sparse.method {config.sparse.method!r}": config.sparse.method != "none",
        f"warm_start.run {config.warm_start.run!r}": config.warm_start.run,
        f"gradinit.steps {config.gradinit.steps}": config.gradinit.steps,
        "another pretraining (config.pretraining)": pretraining_lib.differs(config),
    }
    for other, is_set in excluded.items():
        if is_set:
            raise ValueError(
                f"{begin}{other}, got {c.dense_run!r}; leave out one of the two"
            )


def find(
    config: ConfigDict,
    dataset: Dataset,
    workdir: Path,
    plan: plan_lib.LotteryPlan,
    length: Durations,
) -> DenseRun | None:
    """Finds the earlier run, and checks that its level 0 is that of this run.

    Args:
      config: a validated config.
      dataset: the dataset.
      workdir: the run directory, to which the path of the earlier run is relative.
      plan: stages of this run.
      length: durations of the config in steps.

    Returns:
      The earlier run; None if this run trains its level 0.

    Raises:
      ValueError: if the earlier run is missing or has not ended, if its dense network
        was trained in another way (the message names the first field that differs), or
        if it did not save a state that later levels start from.
    """
    if not config.lottery.dense_run:
        return None
    folder = _folder(config, workdir)
    with config_context(FIELD):
        there = trained_run.read_config(folder, execute=False)
        _check_same(folder, there, config)
        trained_run.check_data(folder, dataset)
        stage = _check_ended(folder, there.lottery.rewind)
        within = plan_lib.saved_steps(plan, plan_lib.ticket(plan, 0))
        steps = sorted({*within, *length.intervals.save_at})
        found = DenseRun(folder, stage, tuple(steps))
        _check_saved(found)
    return found


def recorded_hashes(config: ConfigDict, workdir: Path) -> dict[str, str | None]:
    """Returns the hashes of the earlier run's initial and final dense networks.

    Args:
      config: a validated config.
      workdir: the run directory.

    Returns:
      Hashes by name of the checkpoint, None for a missing one; {} if the run trains its
      own level 0.
    """
    if not config.lottery.dense_run:
        return {}
    directory = _folder(config, workdir) / "checkpoints"
    return {
        name: old_runs.recorded_hash(directory, name) for name in ("init", DENSE_END)
    }


def _folder(config: ConfigDict, workdir: Path) -> Path:
    """Returns the directory of the earlier run."""
    return (workdir / Path(config.lottery.dense_run).expanduser()).resolve()


def _check_same(folder: Path, there: ConfigDict, here: ConfigDict) -> None:
    """Checks that two configs have the same level 0.

    Args:
      folder: directory of the earlier run, for the message.
      there: its config.
      here: the config of this run.

    Raises:
      ValueError: naming the first field in which they differ.
    """
    for name, a, b in config_lib.differences(there, here):
        elsewhere = name in _OTHER or name.startswith(_OTHER_SECTIONS)
        if not elsewhere or name == "sparse.method":
            raise ValueError(
                f"expected a run with {name} {b!r}, got {folder} with {a!r}; choose a "
                "run whose dense network is that of this run"
            )


def _check_ended(folder: Path, rewind: str) -> str:
    """Checks that level 0 of the earlier run has ended, and was trained as a whole.

    Args:
      folder: directory of the earlier run.
      rewind: its rewinding step, for the message.

    Returns:
      The name of the stage of its level 0.

    Raises:
      ValueError: if it has not ended, or restarted with a new optimizer.
    """
    directory = folder / "checkpoints"

    def describe() -> tuple[str, str]:
        end = old_runs.recorded_name(directory, DENSE_END)
        if not checkpoints.exists(directory, end):
            return end, "whose training has not"
        lost = records.incomplete(folder / METRICS, directory, [end])
        return end, "whose records are incomplete" if lost else ""

    end, missing = multihost.broadcast_from_primary(describe)
    if missing:
        raise ValueError(
            f"expected a run whose dense training has ended, got {folder}, {missing}; "
            "repeat the command that trains it"
        )
    if checkpoints.exists(directory, "rewind"):
        raise ValueError(
            f"expected a run that trained its dense network without a new optimizer at "
            f"a rewinding step, got {folder} with lottery.rewind {rewind!r}; choose a "
            "run with lottery.rewind '0step'"
        )
    return stage_name(end)


def _check_saved(found: DenseRun) -> None:
    """Checks that the checkpoints that are taken exist.

    Args:
      found: the earlier run.

    Raises:
      ValueError: naming the first state that is missing.
    """
    directory = found.folder / "checkpoints"
    for name in checkpoint_names(found, found.stage):
        there = multihost.broadcast_from_primary((directory / name).is_dir)
        if there and checkpoints.exists(directory, name):
            continue
        step = name.rpartition("step_")[2]
        remedy = "train that run again"
        if step.isdigit():
            remedy = f"train another run, with '{int(step)}step' in analysis.save_at"
        raise ValueError(
            f"expected {found.folder} to have the checkpoint {name}, got none; {remedy}"
        )
