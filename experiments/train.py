"""Trains the networks of a config, and continues a run that was stopped.

    python experiments/train.py --config=configs/lth_digits.py
    python experiments/train.py --config=configs/lth_mnist.py --config.replicates=3

`--workdir` chooses the run directory. The default is runs/<config>-<hash of all fields
that affect results>. The same command again continues the run in that directory.
`--seeds` and `--data_dir` set the config fields `replicates` and `data.dir`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that one config can import another

from jaxsparse.training import signals  # noqa: E402

if __name__ == "__main__":
    signals.end_when_told()  # before the imports that take seconds

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402
from ml_collections import ConfigDict, config_flags  # noqa: E402

from experiments import command_line, config_arguments  # noqa: E402
from jaxsparse import config, launchers  # noqa: E402
from jaxsparse.data import names  # noqa: E402

config.allow_none()  # --config.FIELD=None
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "recipe, as FILE or FILE:PRESET; files of configs/ need no folder and no .py",
)
_WORKDIR = command_line.workdir("one run; default: runs/<config>-<hash>")
_DATA_DIR = command_line.data_dir()
_SEEDS = command_line.seeds(None)
_REPORT = flags.DEFINE_bool("report", True, "write a report at the end of the run")


def main(argv: Sequence[str]) -> None:
    """Checks the config and runs the experiment.

    Args:
      argv: the command line, of which absl has parsed the flags.
    """
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    signals.end_when_told()
    c = read_config()
    try:
        default = ROOT / "runs" / f"{c.name}-{config.digest(c)}"
        folder = command_line.folder_of_runs(_WORKDIR, default)
        is_first = launchers.is_first(os.environ)
    except ValueError as error:
        command_line.fail(str(error))
    first_line = f"{c.name}: run in {folder}"
    if is_first:  # else only JAX can tell
        print(first_line, file=sys.stderr)
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments import training

    training.run(
        c, folder, report=_REPORT.value, first_line="" if is_first else first_line
    )


def read_config() -> ConfigDict:
    """Returns the config of the command line; exits with one line if it is wrong."""
    try:
        c = _CONFIG.value
        if c is None:
            command_line.fail("--config: missing; give one as --config=lth_digits")
        list(c)  # a config file is executed only when its config is used
    except Exception as error:  # a config is a program, and may fail in any way
        command_line.fail(_describe(error))
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


def _describe(error: Exception) -> str:
    """Describes the error of a config file, whose message may contain a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    message = last.partition("ValueError: ")[2]
    if message.startswith("--config: "):
        return message
    return f"--config: the file cannot be run: {type(error).__name__}: {last}"


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags, after checking the config file and fields.

    Args:
      argv: the command line, with the name of the program.
    """
    return command_line.parse(argv, rewrite=config_arguments.arguments)


if __name__ == "__main__":
    command_line.run(main, rewrite=config_arguments.arguments)
