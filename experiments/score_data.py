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

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse import config, factory, metrics_log  # noqa: E402
from jaxsparse.analysis import connectivity  # noqa: E402
from jaxsparse.data import fingerprint  # noqa: E402
from jaxsparse.data.data_pruning import score_files  # noqa: E402
from jaxsparse.data.data_pruning import scores as scores_lib  # noqa: E402
from jaxsparse.factory import example_scores  # noqa: E402
from jaxsparse.training import checkpoints, preemption  # noqa: E402

END = "level_00/ticket/last"  # of dense training
# Flags that say what a score is of; they go into the file beside its name.
MEANINGFUL = ("checkpoint", "batch_norm", "children", "pairs", "at")
THRESHOLDS = (0.0, 0.5)  # of a barrier, in nats, up to which an example is connected

# Which flags each score reads besides --run, --score, --data_dir and --out.
READS = {
    **dict.fromkeys(
        example_scores.LOGIT_SCORES, ("checkpoint", "batch_norm", "batch_size")
    ),
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
    ["", *example_scores.BATCH_NORM],
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
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        _check_flags()
        folder = command_line.path(_RUN)
        data_dir = command_line.folder_of_data(_DATA_DIR)
        factory.set_up_jax(factory.read_config(folder))
        run = factory.open_run(folder, data_dir=data_dir)
        out, by_class = command_line.path(_OUT), command_line.path(_BY_CLASS)
        about = functools.partial(
            score_files.describe,
            run.dataset.train.labels,
            score=_name(),
            dataset=run.config.data.name,
            split="train",
            config=config.digest(run.config),
            images=fingerprint.of_images(run.dataset.train.images),
        )
        # Before hours of work, so that these are never for nothing.
        score_files.check_free(out, about(replicates=1, step=0))
        each, step = _score(run)
        found = scores_lib.mean_over_replicates(each)
        replicates = run.config.replicates if _SCORE.value == "barrier" else len(each)
        weights = ",".join(_weights(run))
        provenance = about(replicates=replicates, step=step, weights=weights)
        score_files.save(out, found, provenance=provenance)
        if _SCORE.value == "barrier":
            rows = _connected(run, each)
            if _BY_CLASS.value:
                _write_new(by_class, json.dumps(rows, indent=1) + "\n")
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError, preemption.NonFiniteLoss) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:  # above all, no memory left
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    print(f"{_SCORE.value} of {len(found)} examples at update {step}: {out}")
    return 0


def _check_flags() -> None:
    """Refuses missing flags, and those that a score does not read."""
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
    if _BY_CLASS.value:
        _check_by_class()
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


def _weights(run: factory.TrainedRun) -> list[str]:
    """Lists the hashes of the checkpoints that a score is of."""
    names = {"barrier": _ends(), "forgetting": []}.get(
        _SCORE.value, [_CHECKPOINT.value]
    )
    folder = run.folder / "checkpoints"
    return [str(checkpoints.recorded_hash(folder, name)) for name in names]


def _ends() -> list[str]:
    """Names the checkpoints of which barriers are: children, and their parent."""
    stage = _CHILDREN.value.removesuffix("/last")
    parent = f"{stage.partition('/')[0]}/ticket/last"
    return [f"{stage}/last", *([parent] if _PAIRS.value == "triple" else [])]


def _score(run: factory.TrainedRun) -> tuple[np.ndarray, int]:
    """Computes scores [r n], or barriers of pairs [p n], and says of which update."""
    if _SCORE.value == "forgetting":
        return _forgetting(run)
    if _SCORE.value == "barrier":
        return _barriers(run)
    state = factory.load_state(run, _CHECKPOINT.value)
    if _BATCH_NORM.value and not jax.tree.leaves(state.batch_stats):
        raise ValueError(
            f"--batch_norm: came {_BATCH_NORM.value!r} for {run.config.model.name}, "
            "which has no BatchNorm; leave it out"
        )
    given = (_functions(run, state), example_scores.weights(state), run.dataset.train)
    how = factory.make_execution_plan(run.config, run.network.masks).how
    sizes: dict[str, Any] = {"batch_size": _BATCH_SIZE.value, "how": how}
    if _SCORE.value == "grand":
        found = example_scores.grand(*given, block_size=_BLOCK_SIZE.value, **sizes)
    else:
        mode = _BATCH_NORM.value or "evaluation"
        found = example_scores.score_logits(
            *given, score=_SCORE.value, batch_norm=mode, **sizes
        )
    return found, int(state.step)


def _functions(run: factory.TrainedRun, state: Any) -> factory.EvalFns:
    stats = jax.tree.map(lambda leaf: leaf[0], state.batch_stats)
    return factory.make_eval_fns(run.config, run.dataset, stats)


def _forgetting(run: factory.TrainedRun) -> tuple[np.ndarray, int]:
    """Counts forgetting events in training again, and says if it came out the same."""
    found = factory.count_forgetting(run, until=_UNTIL.value)
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


def _barriers(run: factory.TrainedRun) -> tuple[np.ndarray, int]:
    """Computes the barriers of all pairs of one parent, for each replicate."""
    children, *parents = _ends()
    arm = children.split("/")[1]
    if not arm.startswith("children_") or run.config.stability.children < 2:
        raise ValueError(
            f"--children: came {_CHILDREN.value!r} of a run with "
            f"config.stability.children {run.config.stability.children}; wanted a "
            "stage such as level_00/children_000000400, of 2 children or more"
        )
    count = run.config.stability.children
    state = factory.load_state(run, children)
    sets = [_each(state, c, count) for c in range(count)]
    for name in parents:
        _check_parent(run, name, began=int(arm.removeprefix("children_")))
        try:
            parent = factory.load_state(run, name)
        except ValueError as error:
            raise ValueError(f"{error}, or --pairs=children") from error
        sets.insert(0, _each(parent, 0, 1))
    functions, found = _functions(run, state), []
    for r in range(run.config.replicates):
        ends = [jax.tree.map(lambda leaf, r=r: leaf[r], own) for own in sets]
        found.append(
            example_scores.example_barriers(
                functions,
                ends,
                run.dataset.train,
                at=_AT.value,
                batch_size=_BATCH_SIZE.value,
            )
        )
    return np.concatenate(found), int(state.step)


def _check_parent(run: factory.TrainedRun, name: str, *, began: int) -> None:
    """Refuses a parent that was under way when its children began.

    They began with an optimiser that remembers nothing, and so did it where it began.
    """
    stage = name.removesuffix("/last")
    rows = metrics_log.read(run.folder / "metrics.jsonl", fields=metrics_log.FIELDS)
    starts = {
        row["start_step"]
        for row in rows
        if row["kind"] == "level" and row["stage"] == stage
    }
    if starts and starts != {began}:
        raise ValueError(
            f"--pairs: came 'triple' for children that began at update {began} with a "
            f"new optimiser, and a parent that began at {min(starts)}; wanted children "
            "of where it began (config.stability.steps at lottery.rewind), or "
            "--pairs=children"
        )


def _each(state: Any, child: int, count: int) -> tuple[Any, Any]:
    """Takes one child of each replicate."""
    own = example_scores.weights(state)
    return jax.tree.map(lambda leaf: leaf[child::count], (own.params, own.batch_stats))


def _connected(run: factory.TrainedRun, barriers: np.ndarray) -> dict[str, Any]:
    """Prints how many examples are connected, and tabulates it by class.

    Args:
      run: whose examples.
      barriers: of every pair [p n]; fractions are means over pairs.
    """
    print(f"mean barrier: {barriers.mean():.4f}")
    pooled = barriers.reshape(-1)
    labels = np.tile(run.dataset.train.labels, len(barriers))
    found: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        fraction = connectivity.connected_fraction(pooled, threshold)
        print(f"connected at a barrier of at most {threshold}: {fraction:.4f}")
        rows = connectivity.by_class(pooled, labels, run.dataset.classes, threshold)
        found["examples"] = (rows.count // len(barriers)).tolist()
        found["mean_barrier"] = _numbers(rows.mean)
        found[f"connected_at_{threshold}"] = _numbers(rows.connected)
    return found


def _write_new(path: Path, text: str) -> None:
    """Writes a file that is not there."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _numbers(values: np.ndarray) -> list[float | None]:
    """Lists numbers as JSON knows them; a class without examples has none."""
    return [None if np.isnan(value) else float(value) for value in values]


if __name__ == "__main__":
    command_line.run(main)
