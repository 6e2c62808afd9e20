"""Trains what a config says, to the end, continuing where it was stopped.

    python experiments/train.py --config=configs/lth_digits.py
    python experiments/train.py --config=configs/lth_mnist.py --config.replicates=3

`--workdir` chooses the folder of the run; without it, runs/<config>-<hash of what
results depend on>. The same command again continues there. `--seeds` and `--data_dir`
are short for the config's fields `replicates` and `data.dir`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that one config can build on another

from jaxsparse.training import signals  # noqa: E402

if __name__ == "__main__":
    signals.end_when_told()  # before the imports that take seconds

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402
from ml_collections import ConfigDict, config_flags  # noqa: E402

from experiments import command_line, recipes  # noqa: E402
from jaxsparse import config  # noqa: E402
from jaxsparse.data import names  # noqa: E402

config.allow_none()  # --config.FIELD=None
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "recipe, FILE or FILE:VARIANT; one of configs/ by its name alone"
)
_WORKDIR = command_line.workdir("one run; default: runs/<config>-<hash>")
_DATA_DIR = command_line.data_dir()
_SEEDS = command_line.seeds(None)
_REPORT = flags.DEFINE_bool("report", True, "write a report on the run at its end")


def main(argv: Sequence[str]) -> None:
    """Checks the config and runs the experiment."""
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    signals.end_when_told()
    c = read_config()
    try:
        default = ROOT / "runs" / f"{c.name}-{config.digest(c)}"
        folder = command_line.folder_of_runs(_WORKDIR, default)
    except ValueError as error:
        command_line.fail(str(error))
    # Here and not above, so that what is wrong with a command is said without JAX.
    from experiments import training

    training.run(c, folder, report=_REPORT.value)


def read_config() -> ConfigDict:
    """Returns the config of the command line; ends with one line if it is wrong."""
    try:
        c = _CONFIG.value
        if c is None:
            command_line.fail("--config: missing; give one as --config=lth_digits")
        list(c)  # a file that fails does so only when it is looked at
    except Exception as error:  # a config is a program, and may fail in any way
        command_line.fail(_failed(error))
    try:
        if _DATA_DIR.value:
            c.data.dir = command_line.folder_of_data(_DATA_DIR)
        if _SEEDS.value is not None:
            c.replicates = _SEEDS.value
        config.check_names(c)
        config.validate(c)
        names.check(c.data.name, data_dir=c.data.dir or None)
    except ValueError as error:
        command_line.fail(str(error))
    return c


def _failed(error: Exception) -> str:
    """Words the failure of a config file, whose message may hold a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    found = last.partition("ValueError: ")[2]
    if found.startswith("--config: "):
        return found
    return f"--config: the file cannot be run: {type(error).__name__}: {last}"


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags, with the config file and fields found or refused first."""
    return command_line.parse(argv, rewrite=recipes.arguments)


if __name__ == "__main__":
    command_line.run(main, rewrite=recipes.arguments)
