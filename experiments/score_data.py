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

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from jaxsparse import build, config, records  # noqa: E402
from jaxsparse.analysis import connectivity  # noqa: E402
from jaxsparse.build import scoring  # noqa: E402
from jaxsparse.data.diet import files, scores  # noqa: E402
from jaxsparse.training import interrupt  # noqa: E402

END = "level_00/ticket/last"  # of dense training
# Flags that say what a score is of; they go into the file beside its name.
MEANINGFUL = ("checkpoint", "batch_norm", "children", "pairs", "at")
THRESHOLDS = (0.0, 0.5)  # of a barrier, in nats, up to which an example is connected

# Which flags each score reads besides --run, --score, --data_dir and --out.
READS = {
    **dict.fromkeys(scoring.LOGIT_SCORES, ("checkpoint", "batch_norm", "batch_size")),
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
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder of prepared TFDS datasets")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", END, "state to score by, such as kept/level_00/ticket/step_000007800"
)
_BATCH_NORM = flags.DEFINE_enum(
    "batch_norm",
    "",
    ["", *scoring.BATCH_NORM],
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
    """Scores, saves, and words every expected failure in one line.

    Returns:
      The exit code: 0, or 1 after an error.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        _check_flags(argv)
        folder = Path(_RUN.value).expanduser()
        build.set_up_jax(build.read_config(folder))
        run = build.open_run(folder, data_dir=_DATA_DIR.value)
        each, step = _score(run)
        found = scores.mean_over_replicates(each)
        replicates = run.config.replicates if _SCORE.value == "barrier" else len(each)
        provenance = files.describe(
            run.dataset.train.labels,
            score=_name(),
            dataset=run.config.data.name,
            split="train",
            replicates=replicates,
            step=step,
            config=config.digest(run.config),
        )
        out = Path(_OUT.value).expanduser()
        files.save(out, found, provenance=provenance)
        if _SCORE.value == "barrier":
            _tell_connected(run, found)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError, interrupt.NonFinite) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:  # above all, no memory left
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    print(f"{_SCORE.value} of {len(found)} examples at update {step}: {out}")
    return 0


def _check_flags(argv: Sequence[str]) -> None:
    """Refuses missing flags, and those that a score does not read."""
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {list(argv[1:])}; wanted flags only")
    for flag in (_RUN, _SCORE, _OUT):
        if not flag.value:
            raise ValueError(f"--{flag.name}: missing; see --help")
    if Path(_OUT.value).suffix != ".npz":
        raise ValueError(f"--out: came {_OUT.value}; wanted a file ending in .npz")
    reads = READS[_SCORE.value]
    for name in sorted({name for names in READS.values() for name in names}):
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
            "of a run with config.stability.children"
        )


def _name() -> str:
    """Names what is saved, with whatever was asked for by a flag."""
    words = ["negative_margin" if _SCORE.value == "margin" else _SCORE.value]
    given = [name for name in MEANINGFUL if flags.FLAGS[name].present]
    if _BATCH_NORM.value == "batch":
        given.append("batch_size")
    return " ".join(words + [f"{name}={flags.FLAGS[name].value}" for name in given])


def _score(run: build.Run) -> tuple[np.ndarray, int]:
    """Computes scores [r n], or barriers of pairs [p n], and says of which update."""
    if _SCORE.value == "forgetting":
        return _forgetting(run)
    if _SCORE.value == "barrier":
        return _barriers(run)
    state = build.load_state(run, _CHECKPOINT.value)
    if _BATCH_NORM.value and not jax.tree.leaves(state.batch_stats):
        raise ValueError(
            f"--batch_norm: came {_BATCH_NORM.value!r} for {run.config.model.name}, "
            "which has no BatchNorm; leave it out"
        )
    given = (_functions(run, state), scoring.weights(state), run.dataset.train)
    how = build.arrange(run.config, run.network.masks).how
    sizes: dict[str, Any] = {"batch_size": _BATCH_SIZE.value, "how": how}
    if _SCORE.value == "grand":
        found = scoring.grand(*given, block_size=_BLOCK_SIZE.value, **sizes)
    else:
        mode = _BATCH_NORM.value or "evaluation"
        found = scoring.score_logits(
            *given, score=_SCORE.value, batch_norm=mode, **sizes
        )
    return found, int(state.step)


def _functions(run: build.Run, state: Any) -> build.Functions:
    stats = jax.tree.map(lambda leaf: leaf[0], state.batch_stats)
    return build.make_functions(run.config, run.dataset, stats)


def _forgetting(run: build.Run) -> tuple[np.ndarray, int]:
    """Counts forgetting events in training again, and says if it came out the same."""
    found = build.count_forgetting(run, until=_UNTIL.value)
    if found.same is False:
        print(
            f"warning: trained again, {run.folder} did not come out the same bit for "
            "bit; is this other hardware, or are these other versions or devices?",
            file=sys.stderr,
        )
    elif found.same:
        print("trained again, the weights came out the same, bit for bit")
    never = np.isinf(found.counts).mean()
    print(f"never learned: {never:.2%} of the examples, as a mean over replicates")
    return found.counts, found.step


def _barriers(run: build.Run) -> tuple[np.ndarray, int]:
    """Computes the barriers of all pairs of one parent, for each replicate."""
    stage = _CHILDREN.value.removesuffix("/last")
    level, _, arm = stage.partition("/")
    if not arm.startswith("children_") or run.config.stability.children < 2:
        raise ValueError(
            f"--children: came {_CHILDREN.value!r} of a run with "
            f"config.stability.children {run.config.stability.children}; wanted a "
            "stage such as level_00/children_000000400, of 2 children or more"
        )
    count = run.config.stability.children
    state = build.load_state(run, f"{stage}/last")
    sets = [_each(state, c, count) for c in range(count)]
    if _PAIRS.value == "triple":
        try:
            parent = build.load_state(run, f"{level}/ticket/last")
        except ValueError as error:
            raise ValueError(f"{error}, or --pairs=children") from error
        sets.insert(0, _each(parent, 0, 1))
    functions, found = _functions(run, state), []
    for r in range(run.config.replicates):
        ends = [jax.tree.map(lambda leaf, r=r: leaf[r], own) for own in sets]
        found.append(
            scoring.example_barriers(
                functions,
                ends,
                run.dataset.train,
                at=_AT.value,
                batch_size=_BATCH_SIZE.value,
            )
        )
    return np.concatenate(found), int(state.step)


def _each(state: Any, child: int, count: int) -> tuple[Any, Any]:
    """Takes one child of each replicate."""
    own = scoring.weights(state)
    return jax.tree.map(lambda leaf: leaf[child::count], (own.params, own.batch_stats))


def _tell_connected(run: build.Run, barriers: np.ndarray) -> None:
    """Prints how many examples are connected, and writes it by class if asked to."""
    print(f"mean barrier: {barriers.mean():.4f}")
    for threshold in THRESHOLDS:
        fraction = connectivity.connected_fraction(barriers, threshold)
        print(f"connected at a barrier of at most {threshold}: {fraction:.4f}")
    if not _BY_CLASS.value:
        return
    path = Path(_BY_CLASS.value).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    labels, classes = run.dataset.train.labels, run.dataset.classes
    found: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        rows = connectivity.by_class(barriers, labels, classes, threshold)
        found["examples"] = rows.count.tolist()
        found["mean_barrier"] = _numbers(rows.mean)
        found[f"connected_at_{threshold}"] = _numbers(rows.connected)
    records.write_atomically(path, json.dumps(found, indent=1) + "\n")


def _numbers(values: np.ndarray) -> list[float | None]:
    """Lists numbers as JSON knows them; a class without examples has none."""
    return [None if np.isnan(value) else float(value) for value in values]


if __name__ == "__main__":
    app.run(main)
