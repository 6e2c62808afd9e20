"""Scores the training examples by the networks of a run, for data pruning.

    python experiments/score_data.py --run=DIR --score=el2n --out=el2n.npz
    python experiments/score_data.py --run=DIR --score=forgetting --until=20ep \
        --out=forgetting.npz
    python experiments/score_data.py --run=DIR --score=barrier \
        --copies=level_00/children_000000400 --out=barrier.npz

DIR is a run directory of train.py. Scores are means over its replicates. High scores
mean hard examples; of the margin, therefore, the negative is saved. The config field
`pretraining.scores` takes the file. Examples are scored without augmentation, in the
order of the dataset. Forgetting events are counted by training again, with the run's
augmentation.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse import stages  # noqa: E402
from jaxsparse.config import names  # noqa: E402

# The flags that each score reads, in addition to --run, --score, --data_dir and --out.
READS = {
    **dict.fromkeys(names.LOGIT_SCORES, ("checkpoint", "batch_norm", "batch_size")),
    "grand": ("checkpoint", "batch_norm", "batch_size", "block_size"),
    "forgetting": ("until",),
    "barrier": ("copies", "pairs", "at", "by_class", "batch_size"),
}

_RUN = flags.DEFINE_string("run", None, "run directory of train.py")
_SCORE = flags.DEFINE_enum(
    "score", None, list(READS), "the score; of the margin, its negative"
)
_OUT = flags.DEFINE_string("out", None, "file to write, ending in .npz")
_DATA_DIR = command_line.data_dir()
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    stages.level_end(0, levels=0),
    "checkpoint that scores the examples, such as kept/train/step_000007800; the "
    "default is the end of dense training",
)
_BATCH_NORM = flags.DEFINE_enum(
    "batch_norm",
    "",
    ["", *names.BATCH_NORM],
    "statistics of BatchNorm: running averages, or those of each batch",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 1000, "examples in a batch", lower_bound=1
)
_BLOCK_SIZE = flags.DEFINE_integer(
    "block_size", 16, "examples whose gradients grand computes at once", lower_bound=1
)
_UNTIL = flags.DEFINE_string(
    "until", "", "duration in which forgetting events count, as 20ep; default: all"
)
_COPIES = flags.DEFINE_string(
    "copies", "", "stage in which copies were trained, as level_00/children_000000400"
)
_PAIRS = flags.DEFINE_enum(
    "pairs",
    "triple",
    ["triple", "copies"],
    "barriers between copies and their parent, or between copies only",
)
_AT = flags.DEFINE_enum(
    "at",
    "midpoint",
    ["midpoint", "maximum"],
    "where on the linear path the barrier is measured",
)
_BY_CLASS = flags.DEFINE_string(
    "by_class", "", "file for barriers by class, ending in .json"
)


def main(argv: Sequence[str]) -> int:
    """Checks the flags, and scores the examples.

    Args:
      argv: the command line, of which absl has parsed the flags.

    Returns:
      The exit code: 0, or 1 after an error, or 130 after Ctrl-C.
    """
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        _check_flags()
        folder = command_line.run_folder([_RUN.value], "--run").absolute()
        by_class = _check_by_class() if _BY_CLASS.value else None
        out = command_line.path(_OUT)
        data_dir = command_line.folder_of_data(_DATA_DIR)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments import scoring

    options = scoring.Options(
        checkpoint=_CHECKPOINT.value,
        batch_norm=_BATCH_NORM.value,
        batch_size=_BATCH_SIZE.value,
        block_size=_BLOCK_SIZE.value,
        until=_UNTIL.value,
        copies=_COPIES.value,
        pairs=_PAIRS.value,
        at=_AT.value,
    )
    return scoring.run(
        scoring.Request(
            run=folder,
            out=out,
            score=_SCORE.value,
            options=options,
            data_dir=data_dir,
            by_class=by_class,
        )
    )


def _check_flags() -> None:
    """Checks that no flag is missing, and that the score reads all given flags."""
    for flag in (_RUN, _SCORE, _OUT):
        if not flag.value:
            raise ValueError(f"--{flag.name}: missing; see --help")
    if Path(_OUT.value).suffix != ".npz":
        raise ValueError(f"--out: expected a file ending in .npz, got {_OUT.value}")
    known = {name for fields in READS.values() for name in fields}
    reads = READS[_SCORE.value]
    for name in sorted(known):
        if flags.FLAGS[name].present and name not in reads:
            raise ValueError(
                f"--{name}: expected one of {[f'--{read}' for read in reads]} with "
                f"--score={_SCORE.value}, which does not read --{name}; remove it"
            )
    if _SCORE.value == "grand" and _BATCH_NORM.value == "batch":
        raise ValueError(
            "--batch_norm: expected 'evaluation' with --score=grand, because the "
            "gradient of an example must not depend on others, got 'batch'"
        )
    if _SCORE.value == "barrier" and not _COPIES.value:
        raise ValueError(
            "--copies: missing; give a stage, such as level_00/children_000000400, "
            "of a run with config.instability.copies"
        )


def _check_by_class() -> Path:
    """Returns the path of the file by class, after checking that it is new."""
    path = command_line.path(_BY_CLASS)
    if path.suffix != ".json":
        raise ValueError(
            f"--by_class: expected a file ending in .json, got {_BY_CLASS.value}"
        )
    if path.exists():
        raise ValueError(
            f"--by_class: expected a new file, got {path}, which exists; move it, or "
            "give another name"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    command_line.run(main)
