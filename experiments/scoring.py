"""The part of `score_data.py` that imports JAX, after its flags were checked."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsparse import config, factory, metrics_log, replicates, stages
from jaxsparse.analysis import mode_connectivity
from jaxsparse.data import fingerprint
from jaxsparse.data.data_pruning import score_files
from jaxsparse.data.data_pruning import scores as scores_lib
from jaxsparse.factory import example_scores, prediction
from jaxsparse.runner import old_runs
from jaxsparse.training import preemption

# In nats: an example is connected if its barrier is at most this high.
THRESHOLDS = (0.0, 0.5)


class Options(NamedTuple):
    """Options that only some scores read; `score_data.READS` lists which.

    Attributes:
      checkpoint: name of the checkpoint that scores the examples.
      batch_norm: "evaluation" for running averages, "batch" for the statistics of each
        batch; "" is "evaluation", also without BatchNorm.
      batch_size: examples in a batch.
      block_size: examples whose gradients are computed at once.
      until: duration in which forgetting events count; "" for all of training.
      copies: stage in which copies were trained.
      pairs: "triple" for barriers between two copies and their parent, or "copies".
      at: "midpoint" or "maximum" of the linear path.
    """

    checkpoint: str = stages.level_end(0, levels=0)
    batch_norm: str = ""
    batch_size: int = 1000
    block_size: int = 16
    until: str = ""
    copies: str = ""
    pairs: str = "triple"
    at: str = "midpoint"


# Options that change the scores. Where they are given, the file records them.
_RECORDED = ("checkpoint", "batch_norm", "copies", "pairs", "at")
# Their first names, which files have.
_FIRST_NAMES = {"copies": "children"}


class Request(NamedTuple):
    """What to score, and where to write it.

    Attributes:
      run: run directory.
      out: file to write.
      score: the score.
      options: options that only some scores read.
      data_dir: folder of datasets; "" for the folder in the run's config.
      by_class: file for barriers by class; None not to write it.
    """

    run: Path
    out: Path
    score: str
    options: Options = Options()
    data_dir: str = ""
    by_class: Path | None = None


def describe(score: str, options: Options) -> str:
    """Returns the name of a score in its file, with all options that change it.

    Args:
      score: the score.
      options: its options.
    """
    plain = Options()
    if options.checkpoint in stages.last_ends(0):  # also by its older name
        options = options._replace(checkpoint=plain.checkpoint)
    given = [n for n in _RECORDED if getattr(options, n) != getattr(plain, n)]
    if options.batch_norm == "evaluation":  # the same as the default
        given.remove("batch_norm")
    if options.batch_norm == "batch":
        given.append("batch_size")
    words = ["negative_margin" if score == "margin" else score]
    for name in given:
        value = getattr(options, name)
        words.append(f"{_FIRST_NAMES.get(name, name)}={_FIRST_NAMES.get(value, value)}")
    return " ".join(words)


def run(request: Request) -> int:
    """Scores and saves; prints one line after every expected error.

    Args:
      request: flags that passed the checks of `score_data.py`.

    Returns:
      The exit code: 0, or 1 after an error, or 130 after Ctrl-C.
    """
    try:
        factory.set_up_jax(factory.read_config(request.run))
        count, step = save(request)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError, preemption.NonFiniteLoss) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:  # most often out of memory
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    print(f"{request.score} of {count} examples at step {step}: {request.out}")
    return 0


def save(request: Request) -> tuple[int, int]:
    """Scores the training examples of a run, and writes the scores to a file.

    Args:
      request: what to score.

    Returns:
      The number of examples and the step of the networks that scored them.

    Raises:
      ValueError: if the run, a checkpoint or an option does not fit.
      OSError: if a file cannot be read or written.
      preemption.NonFiniteLoss: if training again, for forgetting events, diverges.
    """
    run = factory.open_run(request.run, data_dir=request.data_dir)
    # Before the scores are computed, which may take hours.
    planned = _check_free(run, request)
    each, step = _score(run, request)
    scores = scores_lib.mean_over_replicates(each)
    is_barrier = request.score == "barrier"
    replicates = run.config.replicates if is_barrier else len(each)
    made = planned._replace(replicates=replicates, step=step)
    score_files.save(request.out, scores, provenance=made)
    if is_barrier:
        rows = _summarize_barriers(run, each)
        if request.by_class is not None:
            with request.by_class.open("x", encoding="utf-8") as file:
                file.write(json.dumps(rows, indent=1) + "\n")
    return len(scores), step


def check(request: Request) -> None:
    """Checks that a file with scores is of the run and the options of a request.

    Args:
      request: what to score. Nothing is computed or written; without the file, only
        its folder is made.

    Raises:
      ValueError: if the run does not fit, or the file has other scores; the message
        contains the remedy.
      OSError: if a file cannot be read, or the folder cannot be written.
    """
    _check_free(factory.open_run(request.run, data_dir=request.data_dir), request)


def _check_free(run: factory.TrainedRun, request: Request) -> score_files.Provenance:
    """Checks that scores can be saved; returns what is known of their provenance."""
    later, step = {"replicates", "step"}, 0
    if request.score == "forgetting":
        step = factory.forgetting_steps(run, until=request.options.until)
        later.remove("step")
    planned = score_files.describe(
        run.dataset.train.labels,
        score=describe(request.score, request.options),
        dataset=run.config.data.name,
        split="train",
        replicates=1,
        step=step,
        config=config.digest(run.config),
        weights=",".join(_hashes(run, request)),
    )
    planned = planned.with_images(fingerprint.of_images(run.dataset.train.images))
    score_files.check_free(request.out, planned, later=later)
    return planned


def _hashes(run: factory.TrainedRun, request: Request) -> list[str]:
    """Lists the hashes of the checkpoints that the score depends on."""
    names = {"barrier": _end_points(request.options), "forgetting": []}.get(
        request.score, [request.options.checkpoint]
    )
    folder = run.folder / "checkpoints"
    return [str(old_runs.recorded_hash(folder, name)) for name in names]


def _end_points(options: Options) -> list[str]:
    """Lists the checkpoints at the ends of the linear paths: copies, and parent."""
    stage = options.copies.removesuffix("/last")
    parent = f"{stage.partition('/')[0]}/{stages.TICKET}/last"
    return [f"{stage}/last", *([parent] if options.pairs == "triple" else [])]


def _score(run: factory.TrainedRun, request: Request) -> tuple[np.ndarray, int]:
    """Returns scores [r n], or barriers of pairs [p n], and the step they belong to."""
    options = request.options
    prediction.check_classes(run.config, f"--score: {request.score}")
    if request.score == "forgetting":
        return _count_forgetting(run, options.until)
    if request.score == "barrier":
        return _barriers(run, options)
    state = factory.load_state(run, options.checkpoint)
    if options.batch_norm and not jax.tree.leaves(state.batch_stats):
        raise ValueError(
            f"--batch_norm: expected a network with BatchNorm, got "
            f"{run.config.model.name}; remove the flag"
        )
    networks = example_scores.weights(state)
    given = (_eval_fns(run, state), networks, run.dataset.train)
    how = factory.make_execution_plan(run.config, run.network.masks).how
    sizes: dict[str, Any] = {"batch_size": options.batch_size, "how": how}
    if request.score == "grand":
        scores = example_scores.grand(*given, block_size=options.block_size, **sizes)
    else:
        mode = options.batch_norm or "evaluation"
        scores = example_scores.score_logits(
            *given, score=request.score, batch_norm=mode, **sizes
        )
    return scores, int(state.step)


def _eval_fns(run: factory.TrainedRun, state: Any) -> factory.EvalFns:
    stats = replicates.take(state.batch_stats, 0)
    return factory.make_eval_fns(run.config, run.dataset, stats)


def _count_forgetting(run: factory.TrainedRun, until: str) -> tuple[np.ndarray, int]:
    """Counts forgetting events by training again, and compares the weights."""
    result = factory.count_forgetting(run, until=until)
    if result.same is False:
        print(
            f"warning: training {run.folder} again gave other weights; the hardware, "
            "the versions or the devices may differ",
            file=sys.stderr,
        )
    elif result.same:
        print("training again gave the same weights, bit for bit")
    never = np.isinf(result.counts).mean()
    print(f"never learned: {never:.2%} of the examples, averaged over replicates")
    return result.counts, result.step


def _barriers(run: factory.TrainedRun, options: Options) -> tuple[np.ndarray, int]:
    """Returns the barriers [p n] of all pairs of networks of each replicate."""
    trained, *parents = _end_points(options)
    variant, copies = trained.split("/")[1], run.config.instability.copies
    if not variant.startswith("children_") or copies < 2:
        raise ValueError(
            "--copies: expected a stage such as level_00/children_000000400, with 2 "
            f"copies or more, got {trained!r} of a run with "
            f"config.instability.copies {copies}"
        )
    state = factory.load_state(run, trained)
    networks = [_take_copy(state, c, copies) for c in range(copies)]
    for name in parents:
        _check_parent(run, name, start=int(variant.removeprefix("children_")))
        try:
            parent = factory.load_state(run, name)
        except ValueError as error:
            raise ValueError(f"{error}, or --pairs=copies") from error
        networks.insert(0, _take_copy(parent, 0, 1))
    eval_fns, barriers = _eval_fns(run, state), []
    for r in range(run.config.replicates):
        ends = [replicates.take(network, r) for network in networks]
        barriers.append(
            example_scores.example_barriers(
                eval_fns,
                ends,
                run.dataset.train,
                at=options.at,
                batch_size=options.batch_size,
            )
        )
    return np.concatenate(barriers), int(state.step)


def _check_parent(run: factory.TrainedRun, name: str, *, start: int) -> None:
    """Checks that the copies started where their parent started.

    Copies start with a new optimizer state. A parent that was trained beforehand
    would have an older one, and would not be comparable.
    """
    stage = name.removesuffix("/last")
    rows = metrics_log.read(run.folder / "metrics.jsonl", fields=metrics_log.FIELDS)
    starts = {
        row["start_step"]
        for row in rows
        if row["kind"] == "level" and row["stage"] == stage
    }
    if starts and starts != {start}:
        raise ValueError(
            f"--pairs: expected copies that start where their parent did, at step "
            f"{min(starts)}, got 'triple' for copies that start at step {start} with "
            "a new optimizer; set config.instability.start_steps to lottery.rewind, or "
            "give --pairs=copies"
        )


def _take_copy(state: Any, copy: int, count: int) -> tuple[Any, Any]:
    """Returns weights and batch statistics of one copy of each replicate."""
    networks = example_scores.weights(state)
    both = (networks.params, networks.batch_stats)
    return jax.tree.map(lambda leaf: leaf[copy::count], both)


def _summarize_barriers(
    run: factory.TrainedRun, barriers: np.ndarray
) -> dict[str, Any]:
    """Prints the fraction of connected examples, and tabulates it by class.

    Args:
      run: the run that was scored.
      barriers: barriers [p n] of every pair of networks, in nats.

    Returns:
      By class the number of `examples`, the `mean_barrier`, and the fractions
      `connected_at_THRESHOLD`, averaged over pairs.
    """
    print(f"mean barrier: {barriers.mean():.4f}")
    pooled = barriers.reshape(-1)
    labels = np.tile(run.dataset.train.labels, len(barriers))
    found: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        fraction = mode_connectivity.connected_fraction(pooled, threshold)
        print(f"connected at a barrier of at most {threshold}: {fraction:.4f}")
        rows = mode_connectivity.by_class(
            pooled, labels, run.dataset.classes, threshold
        )
        found["examples"] = (rows.count // len(barriers)).tolist()
        found["mean_barrier"] = _to_json(rows.mean)
        found[f"connected_at_{threshold}"] = _to_json(rows.connected)
    return found


def _to_json(values: np.ndarray) -> list[float | None]:
    """Lists numbers, with None for NaN, of classes without examples."""
    return [None if np.isnan(value) else float(value) for value in values]
