"""The weights from which a level of a run was trained."""

from pathlib import Path

from ml_collections import ConfigDict

from jaxsparse.runner import old_runs
from jaxsparse.stages import saved_state_name

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
    config: ConfigDict, checkpoints: Path, level: int, *, rewind: int
) -> int | str:
    """Returns where the weights are that a level was trained from.

    Args:
      config: config of the run.
      checkpoints: directory of all checkpoints of the run.
      level: number of pruning rounds.
      rewind: rewinding step.

    Returns:
      The level whose final weights they are; or the name of a checkpoint.
    """
    if level and config.lottery.retrain != "rewind":
        return 0 if config.lottery.one_shot else level - 1
    if level and rewind and config.lottery.dense_run:
        return saved_state_name(old_runs.LEVEL_0, rewind)
    return "rewind" if (checkpoints / "rewind.json").is_file() else "init"
