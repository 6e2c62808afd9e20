"""The weights from which a level of a run was trained."""

from pathlib import Path

from ml_collections import ConfigDict

from jaxsparse.factory.trained_run import TrainedRun
from jaxsparse.lottery import controls, particles
from jaxsparse.runner import old_runs, start
from jaxsparse.runner.task import TrainTask
from jaxsparse.stages import TICKET, saved_state_name
from jaxsparse.training.state import Seeds
from jaxsparse.types import Params

# Fields by which a stage may start from weights that no checkpoint has, and the values
# with which it does not.
_REDRAWN = {
    "gradinit.steps": (0,),
    "init.sparse_init": (None,),
    "sparse.ablation": (None, "shuffled_layers", "inverted"),
}


def check(config: ConfigDict) -> None:
    """Checks that the weights from which levels started are in checkpoints.

    Args:
      config: config of the run.

    Raises:
      ValueError: if the initial weights were rescaled or drawn again for the masks; the
        message names the config field.
    """
    for name, saved in _REDRAWN.items():
        section, field = name.split(".")
        value = config[section][field]
        if value not in saved:
            raise ValueError(
                f"start_params: expected a run with config.{name} {saved[0]}, got "
                f"{value!r}, by which training starts from weights that are not saved"
            )


def source(
    config: ConfigDict,
    checkpoints: Path,
    level: int,
    variant: str = TICKET,
    *,
    rewind: int,
) -> tuple[int, str] | str | None:
    """Returns where the weights are that a level was trained from.

    Args:
      config: config of the run.
      checkpoints: directory of all checkpoints of the run.
      level: number of pruning rounds.
      variant: "ticket", or the name of a control.
      rewind: rewinding step.

    Returns:
      The level and the variant whose final weights they are; or the name of a
      checkpoint; None for weights that the control drew (`draw`).
    """
    if variant in controls.FRESH:
        return None
    if variant == "dense_continued":
        return (level - 1, variant) if level > 1 else (0, TICKET)
    if level and config.lottery.retrain != "rewind":
        return (0 if config.lottery.one_shot else level - 1), TICKET
    if level and rewind and config.lottery.dense_run:
        return saved_state_name(old_runs.LEVEL_0, rewind)
    return "rewind" if (checkpoints / "rewind.json").is_file() else "init"


def finish(run: TrainedRun, params: Params, *, level: int, variant: str) -> Params:
    """Changes the weights of an earlier stage to those with which a stage started.

    Args:
      run: the run.
      params: weights of the earlier stage [r ...].
      level: number of pruning rounds.
      variant: "ticket", or the name of a control.

    Returns:
      Parameters [r ...]: averaged over particles if the level started from trained
      weights, and combined with newly drawn ones for controls in `controls.MIXED`.
    """
    c = run.config.lottery
    if level and c.retrain != "rewind" and variant != "dense_continued":
        params = particles.average(params, particles=c.particles)
    if variant not in controls.MIXED:
        return params
    fresh = draw(run.network, run.seeds, level, variant)
    return controls.mix(variant, params, fresh, run.network.masks)


def draw(task: TrainTask, seeds: Seeds, level: int, variant: str) -> Params:
    """Draws the weights from which a control was trained once more.

    Args:
      task: the network of the run.
      seeds: random keys of all replicates.
      level: number of pruning rounds.
      variant: a control in `controls.FRESH` or `controls.MIXED`.

    Returns:
      Parameters [r ...], not masked yet.
    """
    return task.initialize(start.draw_keys(seeds, variant, level))[0]
