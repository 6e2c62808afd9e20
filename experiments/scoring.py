"""What `score_data.py` does once its flags are right; importing this imports JAX."""

import functools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsparse import config, factory, metrics_log
from jaxsparse.analysis import connectivity
from jaxsparse.data import fingerprint
from jaxsparse.data.data_pruning import score_files
from jaxsparse.data.data_pruning import scores as scores_lib
from jaxsparse.factory import example_scores
from jaxsparse.runner import old_runs
from jaxsparse.training import preemption

THRESHOLDS = (0.0, 0.5)  # of a barrier, in nats, up to which an example is connected


class Wanted(NamedTuple):
    """What to score and how, as `score_data.py`'s flags of these names say.

    Attributes:
      run: folder of the run.
      out: file to write.
      by_class: file of barriers by class; None for no such file.
      data_dir: folder of datasets; "" for the default.
      name: what the file calls the score, with whatever is not usual.
      score: what to compute.
      checkpoint: state to score by.
      batch_norm: which statistics BatchNorm uses; "" where it was left out.
      batch_size: examples at once.
      block_size: gradients at once.
      until: length that forgetting is counted over; "" for all.
      children: stage of children; "" where no barrier is computed.
      pairs: "triple" or "children".
      at: "midpoint" or "maximum".
    """

    run: Path
    out: Path
    by_class: Path | None
    data_dir: str
    name: str
    score: str
    checkpoint: str
    batch_norm: str
    batch_size: int
    block_size: int
    until: str
    children: str
    pairs: str
    at: str


def run(wanted: Wanted) -> int:
    """Scores, saves, and words every expected failure in one line.

    Args:
      wanted: flags that passed the checks of `score_data.py`.

    Returns:
      The exit code: 0, or 1 after an error, or 130 after Ctrl-C.
    """
    try:
        factory.set_up_jax(factory.read_config(wanted.run))
        trained = factory.open_run(wanted.run, data_dir=wanted.data_dir)
        count, step = _save_scores(trained, wanted)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError, preemption.NonFiniteLoss) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:  # above all, no memory left
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    print(f"{wanted.score} of {count} examples at update {step}: {wanted.out}")
    return 0


def _save_scores(run: factory.TrainedRun, wanted: Wanted) -> tuple[int, int]:
    """Writes the files of scores; returns how many, and of which update."""
    about = functools.partial(
        score_files.describe,
        run.dataset.train.labels,
        score=wanted.name,
        dataset=run.config.data.name,
        split="train",
        config=config.digest(run.config),
        images=fingerprint.of_images(run.dataset.train.images),
    )
    # Before hours of work, so that these are never for nothing.
    score_files.check_free(wanted.out, about(replicates=1, step=0))
    each, step = _score(run, wanted)
    found = scores_lib.mean_over_replicates(each)
    replicates = run.config.replicates if wanted.score == "barrier" else len(each)
    weights = ",".join(_weights(run, wanted))
    provenance = about(replicates=replicates, step=step, weights=weights)
    score_files.save(wanted.out, found, provenance=provenance)
    if wanted.score == "barrier":
        rows = _connected(run, each)
        if wanted.by_class is not None:
            _write_new(wanted.by_class, json.dumps(rows, indent=1) + "\n")
    return len(found), step


def _weights(run: factory.TrainedRun, wanted: Wanted) -> list[str]:
    """Lists the hashes of the checkpoints that a score is of."""
    names = {"barrier": _ends(wanted), "forgetting": []}.get(
        wanted.score, [wanted.checkpoint]
    )
    folder = run.folder / "checkpoints"
    return [str(old_runs.recorded_hash(folder, name)) for name in names]


def _ends(wanted: Wanted) -> list[str]:
    """Names the checkpoints of which barriers are: children, and their parent."""
    stage = wanted.children.removesuffix("/last")
    parent = f"{stage.partition('/')[0]}/ticket/last"
    return [f"{stage}/last", *([parent] if wanted.pairs == "triple" else [])]


def _score(run: factory.TrainedRun, wanted: Wanted) -> tuple[np.ndarray, int]:
    """Computes scores [r n], or barriers of pairs [p n], and says of which update."""
    if wanted.score == "forgetting":
        return _forgetting(run, wanted)
    if wanted.score == "barrier":
        return _barriers(run, wanted)
    state = factory.load_state(run, wanted.checkpoint)
    if wanted.batch_norm and not jax.tree.leaves(state.batch_stats):
        raise ValueError(
            f"--batch_norm: came {wanted.batch_norm!r} for {run.config.model.name}, "
            "which has no BatchNorm; leave it out"
        )
    given = (_functions(run, state), example_scores.weights(state), run.dataset.train)
    how = factory.make_execution_plan(run.config, run.network.masks).how
    sizes: dict[str, Any] = {"batch_size": wanted.batch_size, "how": how}
    if wanted.score == "grand":
        found = example_scores.grand(*given, block_size=wanted.block_size, **sizes)
    else:
        mode = wanted.batch_norm or "evaluation"
        found = example_scores.score_logits(
            *given, score=wanted.score, batch_norm=mode, **sizes
        )
    return found, int(state.step)


def _functions(run: factory.TrainedRun, state: Any) -> factory.EvalFns:
    stats = jax.tree.map(lambda leaf: leaf[0], state.batch_stats)
    return factory.make_eval_fns(run.config, run.dataset, stats)


def _forgetting(run: factory.TrainedRun, wanted: Wanted) -> tuple[np.ndarray, int]:
    """Counts forgetting events in training again, and says if it came out the same."""
    found = factory.count_forgetting(run, until=wanted.until)
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


def _barriers(run: factory.TrainedRun, wanted: Wanted) -> tuple[np.ndarray, int]:
    """Computes the barriers of all pairs of one parent, for each replicate."""
    children, *parents = _ends(wanted)
    arm = children.split("/")[1]
    if not arm.startswith("children_") or run.config.instability.copies < 2:
        raise ValueError(
            f"--children: came {wanted.children!r} of a run with "
            f"config.instability.copies {run.config.instability.copies}; wanted a "
            "stage such as level_00/children_000000400, of 2 children or more"
        )
    count = run.config.instability.copies
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
                at=wanted.at,
                batch_size=wanted.batch_size,
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
            "of where it began (config.instability.start_steps at lottery.rewind), or "
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
