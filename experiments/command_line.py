"""The command lines of the scripts, checked before JAX is imported.

An error is one line with the flag, the expected and the given value, and the remedy.
The flags that several scripts share are defined here, so that they mean the same.
"""

import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from absl import app, flags
from absl import logging as absl_logging

from jaxsparse import config
from jaxsparse.training import run_paths

Number = TypeVar("Number", int, float)

flags.disclaim_key_flags()  # flags defined here belong to the script that calls

# One process may import several scripts, as tests do, each of which defines the flag.
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


def workdir(content: str) -> flags.FlagHolder[str | None]:
    """Defines `--workdir`.

    Args:
      content: the content of the folder and its default, for the help text.
    """
    described = f"folder for results: {content}"
    return flags.DEFINE_string("workdir", None, described, **SHARED)


def seeds(default: int | None) -> flags.FlagHolder[int | None]:
    """Defines `--seeds`.

    Args:
      default: number of seeds; None for the number in the config.
    """
    return flags.DEFINE_integer(
        "seeds",
        default,
        "number of seeds, from seed 0 on; results are means over seeds",
        lower_bound=1,
        **SHARED,
    )


def numbers(
    flag: flags.FlagHolder[list[str]],
    read: Callable[[str], Number],
    accepts: Callable[[Number], bool],
    expected: str,
) -> list[Number]:
    """Returns the numbers of a flag.

    Args:
      flag: a flag whose value is a list of words.
      read: from a word to its number, such as `float`.
      accepts: whether a number is in the range.
      expected: the kind of numbers and their range, for the message.

    Raises:
      ValueError: if a word is no number, a number is out of range, or there is none.
    """
    try:
        found = [read(word) for word in flag.value]
    except ValueError:
        found = []
    if not found or not all(map(accepts, found)):
        raise ValueError(f"--{flag.name}: expected {expected}, got {flag.value}")
    return found


def path(flag: flags.FlagHolder[str] | flags.FlagHolder[str | None]) -> Path | None:
    """Returns the absolute path of a flag; None if the flag is not given.

    Args:
      flag: a flag whose value is a path.

    A path that starts with the home folder of an unknown user ends the process.
    """
    if not flag.value:
        return None
    try:
        return config.to_path(f"--{flag.name}", flag.value).absolute()
    except ValueError as error:
        fail(str(error))


def folder_of_runs(flag: flags.FlagHolder[str | None], default: Path | None) -> Path:
    """Returns the folder that `--workdir` names.

    Args:
      flag: the flag `--workdir`.
      default: the folder if the flag is not given; None if it must be given.

    Raises:
      ValueError: if the flag is missing, or if Orbax cannot read from the path.
    """
    folder = path(flag) or default
    if folder is None:
        raise ValueError(f"--{flag.name}: missing; give a folder, as runs/mine")
    run_paths.check(folder)
    return folder


def run_folder(words: Sequence[str], field: str = "folder of a run") -> Path:
    """Returns the run directory that a command line names.

    Args:
      words: the arguments that are not flags, or the value of one flag.
      field: what the path is, for the message.

    Raises:
      ValueError: if there is not one word, or it is no run directory.
    """
    if len(words) != 1:
        raise ValueError(
            f"expected one run directory, got {len(words)}; give the folder of a run"
        )
    folder = config.to_path(field, words[0])
    if not (folder / "config.json").exists():
        raise ValueError(
            f"{field}: expected a run directory of experiments/train.py, got {folder}, "
            "which has no config.json; give the folder of a run"
        )
    return folder


def folder_of_data(flag: flags.FlagHolder[str]) -> str:
    """Returns the folder that `--data_dir` names; "" if the flag is not given.

    Args:
      flag: the flag `--data_dir`.

    Raises:
      ValueError: if the folder does not exist.
    """
    folder = path(flag)
    if folder is None:
        return ""
    if not folder.is_dir():
        raise ValueError(
            f"--{flag.name}: expected a folder of prepared datasets, got {flag.value}, "
            "which is no folder; experiments/prepare_data.py --data_dir makes one"
        )
    return str(folder)


def run(
    main: Callable[[Sequence[str]], int | None],
    *,
    words: str = "",
    rewrite: Callable[[Sequence[str]], list[str]] = list,
) -> None:
    """Parses flags and runs a script.

    Args:
      main: called with the name of the script and its arguments that are not flags;
        returns the exit code.
      words: meaning of arguments that are not flags; "" if there are none.
      rewrite: called with the command line before it is parsed; returns it with
        arguments expanded, or raises a ValueError.
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
    """Parses flags; exits with one line if they are wrong.

    Args:
      argv: the command line.
      words: meaning of arguments that are not flags; "" if there are none.
      rewrite: called with the command line before it is parsed; returns it with
        arguments expanded, or raises a ValueError.

    Returns:
      The name of the script and its arguments that are not flags.
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
        fail(_reword(str(error)))
    if len(rest) > 1 and not words:
        others = " ".join(rest[1:])
        fail(f"expected flags only, got {others!r}; write --FLAG=VALUE, and see --help")
    return rest


def names() -> list[str]:
    """Lists the flags of the running script."""
    return [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]


def show_help() -> NoReturn:
    """Prints the docstring and the flags of the running script, and exits."""
    described = sys.modules["__main__"].__doc__ or ""
    print(f"{described}\nflags:{flags.FLAGS.main_module_help()}")
    sys.exit(0)


def fail(message: str) -> NoReturn:
    """Exits with the message and no traceback.

    Args:
      message: the message; line breaks become spaces, except before items of a list.
    """
    print(f"error: {join_lines(message)}", file=sys.stderr)
    sys.exit(1)


def join_lines(message: str) -> str:
    """Joins the lines of a message, except the items of a list of remedies.

    Items are lines that begin with "  - ".

    Args:
      message: the message.
    """
    lines = [line.rstrip() for line in message.splitlines() if line.strip()]
    joined = "".join(
        f"\n{line}" if line.startswith("  - ") else f" {line.strip()}" for line in lines
    )
    return joined.strip()


def _reword(message: str) -> str:
    """Rewords an error of the flags library in the form of the package's errors."""
    if not (found := re.match(r"flag --([\w.]+)=(.*?): (.*)", message, re.DOTALL)):
        return message
    name, value, reason = found.groups()
    if value == "None":
        return f"--{name}: missing; see --help"
    if choices := re.fullmatch(r"value should be one of <(.*)>", reason):
        near = config.nearest(value, choices[1].split("|"))
        return f"--{name}: unknown {value!r}; did you mean {near}?"
    if "Traceback" in reason:  # from a config file, which is a program
        last = reason.strip().splitlines()[-1].strip()
        return last.partition("ValueError: ")[2] or f"--{name}: {value} fails: {last}"
    parser = flags.FLAGS[name].parser
    expected = getattr(parser, "syntactic_help", "") or reason
    if isinstance(parser, flags.BooleanParser):
        expected = "true or false"
    return f"--{name}: expected {expected}, got {value!r}"
