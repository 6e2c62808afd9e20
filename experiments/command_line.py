"""What the programs here do with their flags, before they import JAX.

A mistake is one line: the flag, what came, the nearest flag or value, the remedy. The
flags that several programs have are defined here once, so that they mean the same in
each.
"""

import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging

from jaxsparse import config
from jaxsparse.training import run_paths

flags.disclaim_key_flags()  # the flags below belong to the program that asks for them

# One process may import several programs, as tests do; each defines the flag anew.
SHARED = {"allow_override": True}
HELP = ("--help", "-help", "-h", "--helpshort", "-helpshort")


def data_dir() -> flags.FlagHolder[str]:
    """Defines `--data_dir`."""
    return flags.DEFINE_string(
        "data_dir",
        "",
        "folder of prepared datasets; default: TFDS_DATA_DIR, or ~/tensorflow_datasets",
        **SHARED,
    )


def workdir(what: str) -> flags.FlagHolder[str | None]:
    """Defines `--workdir`.

    Args:
      what: what the folder holds, and the default.
    """
    described = f"folder that results go to: {what}"
    return flags.DEFINE_string("workdir", None, described, **SHARED)


def seeds(default: int | None) -> flags.FlagHolder[int | None]:
    """Defines `--seeds`.

    Args:
      default: how many; None for as many as the config says.
    """
    return flags.DEFINE_integer(
        "seeds",
        default,
        "how many seeds to train, numbered from 0; statistics are over them",
        lower_bound=1,
        **SHARED,
    )


def path(flag: flags.FlagHolder[str] | flags.FlagHolder[str | None]) -> Path | None:
    """Returns the absolute path that a flag gives; None if it was left out.

    Raises:
      ValueError: for the home folder of a user that there is not.
    """
    if not flag.value:
        return None
    return config.to_path(f"--{flag.name}", flag.value).absolute()


def folder_of_runs(flag: flags.FlagHolder[str | None], default: Path | None) -> Path:
    """Returns the folder that `--workdir` gives.

    Args:
      flag: `--workdir`.
      default: the folder if it was left out; None if it must be given.

    Raises:
      ValueError: if it is missing, or checkpoints could not be read back from there.
    """
    found = path(flag) or default
    if found is None:
        raise ValueError(f"--{flag.name}: missing; give a folder, as runs/mine")
    run_paths.check(found)
    return found


def folder_of_data(flag: flags.FlagHolder[str]) -> str:
    """Returns the folder that `--data_dir` gives; "" if it was left out.

    Raises:
      ValueError: if it is no folder.
    """
    found = path(flag)
    if found is None:
        return ""
    if not found.is_dir():
        raise ValueError(
            f"--{flag.name}: expected a folder of prepared datasets, got {flag.value}, "
            "which is no folder; experiments/prepare_data.py --data_dir makes one"
        )
    return str(found)


def run(
    main: Callable[[Sequence[str]], int | None],
    *,
    words: str = "",
    rewrite: Callable[[Sequence[str]], list[str]] = list,
) -> None:
    """Parses flags and runs a program.

    Args:
      main: called with the name of the program and its bare words; what it returns is
        the exit code.
      words: what bare words are; "" if it takes none.
      rewrite: called with the command line before it is parsed, to expand or refuse
        arguments.
    """

    def parser(argv: Sequence[str]) -> list[str]:
        return parse(argv, words=words, rewrite=rewrite)

    plain = logging.Formatter("%(levelname)s: %(message)s")
    absl_logging.get_absl_handler().setFormatter(plain)
    app.run(main, flags_parser=parser)


def parse(
    argv: Sequence[str],
    *,
    words: str = "",
    rewrite: Callable[[Sequence[str]], list[str]] = list,
) -> list[str]:
    """Parses flags; ends the program with one line if they are wrong.

    Args:
      argv: the command line.
      words: as in `run`.
      rewrite: as in `run`.

    Returns:
      The name of the program, and its bare words.
    """
    if any(argument in HELP for argument in argv[1:]):
        show_help()
    try:
        rest = flags.FLAGS(rewrite(argv))
    except flags.UnrecognizedFlagError as error:
        known = [f"--{name}" for name in names()]
        near = config.nearest(f"--{error.flagname}", known)
        fail(f"--{error.flagname}: no such flag; did you mean {near}?")
    except (flags.Error, ValueError, TypeError) as error:
        fail(_reworded(str(error)))
    if len(rest) > 1 and not words:
        bare = " ".join(rest[1:])
        fail(f"expected flags only, got {bare!r}; write --FLAG=VALUE, and see --help")
    return rest


def names() -> list[str]:
    """Lists the flags of the program that runs."""
    return [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]


def show_help() -> NoReturn:
    """Prints what the program is for and its flags, and ends it."""
    described = sys.modules["__main__"].__doc__ or ""
    print(f"{described}\nflags:{flags.FLAGS.main_module_help()}")
    sys.exit(0)


def fail(message: str) -> NoReturn:
    """Ends with one clear error and no traceback."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(1)


def one_line(message: str) -> str:
    """Joins the lines of a message."""
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def _reworded(message: str) -> str:
    """Words an error of the flags library as those of the package are."""
    if not (found := re.match(r"flag --([\w.]+)=(.*?): (.*)", message, re.DOTALL)):
        return message
    name, value, why = found.groups()
    if value == "None":
        return f"--{name}: missing; see --help"
    if choices := re.fullmatch(r"value should be one of <(.*)>", why):
        near = config.nearest(value, choices[1].split("|"))
        return f"--{name}: unknown {value!r}; did you mean {near}?"
    if "Traceback" in why:  # of a config file, which is a program
        last = why.strip().splitlines()[-1].strip()
        return last.partition("ValueError: ")[2] or f"--{name}: {value} fails: {last}"
    return f"--{name}: got {value!r}, which is not valid: {why}"
