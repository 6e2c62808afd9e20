"""Trains what a config says, to the end, continuing where it was stopped.

    python experiments/train.py --config=configs/lth_digits.py
    python experiments/train.py --config=configs/lth_mnist.py --config.replicates=3

`--workdir` chooses the folder of the run; without it, runs/<config>-<hash of what
results depend on>. The same command again continues there.
"""

import io
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that one config can build on another

import jax  # noqa: E402
from absl import app, flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402
from ml_collections import ConfigDict, config_flags  # noqa: E402

from jaxsparse import build, config, hosts  # noqa: E402
from jaxsparse.lottery import experiment, stages  # noqa: E402
from jaxsparse.training import events, interrupt, progress, workdir  # noqa: E402
from jaxsparse.training.loop import Desk  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "recipe, FILE or FILE:VARIANT"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_REPORT = flags.DEFINE_bool("report", True, "write a report on the run at its end")


def main(argv: Sequence[str]) -> None:
    """Runs the experiment, and words every expected failure in one line."""
    if len(argv) > 1:
        fail(
            f"unexpected arguments {list(argv[1:])}; wanted --config and --workdir only"
        )
    absl_logging.set_verbosity(absl_logging.WARNING)
    interrupt.end_when_told()
    c = _CONFIG.value
    try:
        hosts.join()
        if not hosts.many():  # JAX may have taken the signal to itself for nothing
            interrupt.end_when_told()
        config.validate(c)
        build.check_names(c)
        default = ROOT / "runs" / f"{c.name}-{config.digest(c)}"
        folder = Path(_WORKDIR.value).expanduser() if _WORKDIR.value else default
        build.set_up_jax(c)
        hosts.do(lambda: workdir.check_same(folder, c))
        run(c, folder)
    except interrupt.Stopped as stop:
        say(f"stopped at {stop}; the same command continues there")
        sys.exit(stop.code)
    except KeyboardInterrupt:
        print("interrupted; the same command continues the run", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, interrupt.NonFinite) as error:
        fail(str(error))
    except jax.errors.JaxRuntimeError as error:  # above all, no memory left
        fail(f"{str(error).splitlines()[0]}; the same command continues the run")


def run(c: ConfigDict, folder: Path) -> None:
    """Builds everything, takes the folder, trains, and writes the report."""
    made = build.make_experiment(c, build.load_data(c), folder)
    command = shlex.join(["python", *sys.argv])
    arrangement = made.trainer.arrangement
    with workdir.opened(folder, c, command=command, arrangement=arrangement):
        train(c, made, folder)
        if not (_REPORT.value and hosts.first()):  # a study has one of its own
            return
        # Here and not above: what is wrong with a launch is said without this import.
        from jaxsparse.reports import page

        say(f"report: {page.write([folder], folder / 'report')}")


def train(c: ConfigDict, made: experiment.Experiment, folder: Path) -> None:
    """Runs every stage that has not ended."""
    shows = c.run.tensorboard and hosts.first()
    seen = events.Events(folder / "tensorboard") if shows else None
    desk = Desk(
        metrics=folder / "metrics.jsonl",
        checkpoints=folder / "checkpoints",
        progress=None,
        should_stop=lambda: False,
        watch=seen or (lambda record: None),
    )
    count, done = sum(1 for _ in stages.every(made)), experiment.done(made, desk)
    out = sys.stderr if hosts.first() else io.StringIO()
    shown = progress.Progress(count, done, out=out)
    say(f"run: {folder}")
    try:
        with interrupt.listening() as asked:
            experiment.run(made, desk._replace(progress=shown, should_stop=asked))
    finally:
        shown.close()
        if seen is not None:
            seen.close()


def say(line: str) -> None:
    """Prints a line for people, from one process."""
    if hosts.first():
        print(line, file=sys.stderr)


def fail(message: str) -> None:
    """Ends with one clear error and no traceback."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags; a config's path may be relative to the project's root as well."""
    found = [_from_root(argument) for argument in _joined(argv)]
    wanted = "wanted a recipe, as --config=configs/lth_digits.py"
    try:
        rest = flags.FLAGS(found)
        if _CONFIG.value is None:
            fail(f"--config: missing; {wanted}")
        list(_CONFIG.value)  # a file that is not there fails only when it is looked at
    except (AttributeError, KeyError) as error:  # a field that no config has
        given = [a.partition("=")[0] for a in found if a.startswith("--config.")]
        where = "see jaxsparse/config/schema.py"
        fail(f"{_in_a_line(error)} (in {', '.join(given)}); {where}")
    except OSError as error:
        fail(f"--config: {_in_a_line(error)}; {wanted}")
    except (flags.Error, TypeError, ValueError) as error:
        fail(_in_a_line(error))
    except Exception as error:  # a config is a program, and may fail in any way
        fail(f"--config: {type(error).__name__}: {_in_a_line(error)}; {wanted}")
    return rest


def _joined(argv: Sequence[str]) -> list[str]:
    """Turns "--config FILE" into "--config=FILE"."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1].lstrip("-") == "config":
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _in_a_line(error: Exception) -> str:
    """Words an error of the flags library, whose messages may hold a traceback."""
    text = str(error.args[0] if error.args else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if "Traceback" in text else " ".join(lines)


def _from_root(argument: str) -> str:
    name, equals, value = argument.partition("=")
    path, colon, variant = value.partition(":")
    if name.lstrip("-") != "config" or not equals or Path(path).exists():
        return argument
    return f"{name}={ROOT / path}{colon}{variant}"


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    app.run(main, flags_parser=parse)
