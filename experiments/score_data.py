"""Scores every training example by the networks of a run, for a data diet.

    python experiments/score_data.py --run=RUNDIR --score=el2n --out=el2n.npz
    python experiments/score_data.py --run=RUNDIR --score=forgetting --until=20ep \
        --out=forgetting.npz
    python experiments/score_data.py --run=RUNDIR --score=barrier \
        --children=level_00/children_000000400 --out=barrier.npz

The run is one that train.py made; scores are means over its replicates. More is harder,
so of the margin the negative is saved. The file is what `config.pretraining.scores`
takes. Examples are scored as they are, not augmented, in the order of the dataset; but
forgetting events are counted in training again, on what that sees.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse.config import names  # noqa: E402

END = "level_00/ticket/last"  # of dense training
# Flags that say what a score is of; they go into the file beside its name.
MEANINGFUL = ("checkpoint", "batch_norm", "children", "pairs", "at")

# Which flags each score reads besides --run, --score, --data_dir and --out.
READS = {
    **dict.fromkeys(names.LOGIT_SCORES, ("checkpoint", "batch_norm", "batch_size")),
    "grand": ("checkpoint", "batch_norm", "batch_size", "block_size"),
    "forgetting": ("until",),
    "barrier": ("children", "pairs", "at", "by_class", "batch_size"),
}

_RUN = flags.DEFINE_string("run", None, "folder of the run")
_SCORE = flags.DEFINE_enum(
    "score",
    None,
    list(READS),
    "what to compute; of margin its negative: more is harder",
)
_OUT = flags.DEFINE_string("out", None, "file to write, ending in .npz")
_DATA_DIR = command_line.data_dir()
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", END, "state to score by, such as kept/level_00/ticket/step_000007800"
)
_BATCH_NORM = flags.DEFINE_enum(
    "batch_norm",
    "",
    ["", *names.BATCH_NORM],
    "running averages, or statistics of each batch; for networks with BatchNorm",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 1000, "examples at once", lower_bound=1
)
_BLOCK_SIZE = flags.DEFINE_integer(
    "block_size", 16, "gradients at once, of grand", lower_bound=1
)
_UNTIL = flags.DEFINE_string(
    "until", "", "length that forgetting is counted over, as 20ep; default: to the end"
)
_CHILDREN = flags.DEFINE_string(
    "children", "", "stage of children, such as level_00/children_000000400"
)
_PAIRS = flags.DEFINE_enum(
    "pairs", "triple", ["triple", "children"], "of children and their parent, or alone"
)
_AT = flags.DEFINE_enum("at", "midpoint", ["midpoint", "maximum"], "of the segments")
_BY_CLASS = flags.DEFINE_string("by_class", "", "JSON file of barriers by class")


def main(argv: Sequence[str]) -> int:
    """Checks the flags, and scores.

    Returns:
      The exit code: 0, or 1 after an error, or 130 after Ctrl-C.
    """
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        _check_flags()
        folder = _find_run()
        if _BY_CLASS.value:
            _check_by_class()
        out, by_class = command_line.path(_OUT), command_line.path(_BY_CLASS)
        data_dir = command_line.folder_of_data(_DATA_DIR)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Here and not above, so that what is wrong with a command is said without JAX.
    from experiments import scoring

    return scoring.run(
        scoring.Wanted(
            run=folder,
            out=out,
            by_class=by_class,
            data_dir=data_dir,
            name=_name(),
            score=_SCORE.value,
            checkpoint=_CHECKPOINT.value,
            batch_norm=_BATCH_NORM.value,
            batch_size=_BATCH_SIZE.value,
            block_size=_BLOCK_SIZE.value,
            until=_UNTIL.value,
            children=_CHILDREN.value,
            pairs=_PAIRS.value,
            at=_AT.value,
        )
    )


def _check_flags() -> None:
    """Refuses missing flags, and those that a score does not read."""
    for flag in (_RUN, _SCORE, _OUT):
        if not flag.value:
            raise ValueError(f"--{flag.name}: missing; see --help")
    if Path(_OUT.value).suffix != ".npz":
        raise ValueError(f"--out: came {_OUT.value}; wanted a file ending in .npz")
    known = {name for fields in READS.values() for name in fields}
    reads = READS[_SCORE.value]
    for name in sorted(known):
        if flags.FLAGS[name].present and name not in reads:
            raise ValueError(
                f"--{name}: given with --score={_SCORE.value}, which has no use for "
                f"it; it reads {[f'--{read}' for read in reads]}"
            )
    if _SCORE.value == "grand" and _BATCH_NORM.value == "batch":
        raise ValueError(
            "--batch_norm: came 'batch' with --score=grand, in which no example may "
            "depend on others; wanted 'evaluation'"
        )
    if _SCORE.value == "barrier" and not _CHILDREN.value:
        raise ValueError(
            "--children: missing; wanted a stage, such as level_00/children_000000400, "
            "of a run with config.instability.copies"
        )


def _find_run() -> Path:
    """Returns the folder of the run; refuses one that holds none."""
    folder = command_line.path(_RUN)
    if not (folder / "config.json").exists():
        raise ValueError(
            f"--run: no run is there: {folder} has no config.json; wanted a folder "
            "that experiments/train.py made"
        )
    return folder


def _check_by_class() -> None:
    """Refuses a file for the classes that is there, or that could not be one."""
    path = command_line.path(_BY_CLASS)
    if path.suffix != ".json":
        raise ValueError(
            f"--by_class: came {_BY_CLASS.value}; wanted a file ending in .json"
        )
    if path.exists():
        raise ValueError(
            f"--by_class: {path} exists; wanted a new file, as nothing is overwritten; "
            "move it away, or give another name"
        )
    path.parent.mkdir(parents=True, exist_ok=True)


def _name() -> str:
    """Names what is saved, with whatever flag asks for something else than usual."""
    words = ["negative_margin" if _SCORE.value == "margin" else _SCORE.value]
    given = [n for n in MEANINGFUL if flags.FLAGS[n].value != flags.FLAGS[n].default]
    if _BATCH_NORM.value == "evaluation":  # what is usual
        given.remove("batch_norm")
    if _BATCH_NORM.value == "batch":
        given.append("batch_size")
    return " ".join(words + [f"{name}={flags.FLAGS[name].value}" for name in given])


if __name__ == "__main__":
    command_line.run(main)
