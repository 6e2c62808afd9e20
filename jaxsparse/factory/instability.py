"""Compares copies of a network for the instability analysis of a config."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import replicates
from jaxsparse.analysis import mode_connectivity
from jaxsparse.data import dataset as dataset_lib
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import eval_fns
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.factory.durations import Durations
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.tost import ghost_skips

BATCH = 1000  # examples per batch
RE_ESTIMATED = 10  # batches for re-estimated BatchNorm statistics
_ON = ("copies", "compare_levels")  # fields that enable the analysis


def check(config: ConfigDict) -> None:
    """Checks that the instability analysis compares networks that are comparable.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if an option has no effect, or the analysis does not fit the other
        sections; the message names the config field.
    """
    c, plain = config.instability, config_lib.read_only_default().instability
    on = bool(c.copies) or c.compare_levels
    if on and config.run.on_nonfinite != "stop":
        raise ValueError(
            "config.run.on_nonfinite: expected 'stop' with instability.copies "
            f"{c.copies} and instability.compare_levels {c.compare_levels}, which "
            f"compare all replicates, got {config.run.on_nonfinite!r}; leave the field "
            "out"
        )
    for name in c:
        needs = c.copies if name in ("start_steps", "pairs") else on
        if name not in _ON and not needs and c[name] != plain[name]:
            raise ValueError(
                f"config.instability.{name}: expected {plain[name]!r} with "
                f"instability.copies {c.copies} and instability.compare_levels "
                f"{c.compare_levels}, got {c[name]!r}; set instability.copies"
            )
    if on and config.sparse.method != "none":
        field = "copies" if c.copies else "compare_levels"
        raise ValueError(
            f"config.instability.{field}: expected no analysis with sparse.method "
            f"{config.sparse.method!r}, got {c[field]}; only levels are compared: set "
            "sparse.method 'none'"
        )
    if c.copies and config.warm_start.run:
        raise ValueError(
            "config.instability.copies: expected 0 with warm_start.run "
            f"{config.warm_start.run!r}, got {c.copies}; leave out one of the two"
        )
    if c.compare_levels and not config.lottery.levels:
        raise ValueError(
            "config.instability.compare_levels: expected False with lottery.levels 0, "
            "got True; train levels"
        )
    late = [level for level in c.levels if level > config.lottery.levels]
    if c.copies and (late or not c.levels):
        raise ValueError(
            "config.instability.levels: expected one or more levels up to "
            f"lottery.levels, {config.lottery.levels}, got {c.levels}; train more "
            "levels, or choose others"
        )


def check_steps(config: ConfigDict, length: Durations) -> None:
    """Checks that copies start within the training of their level.

    Args:
      config: a validated config.
      length: durations of the config in steps.

    Raises:
      ValueError: if they do not; the message names the config field.
    """
    c, steps = config.instability, length.lottery.children_start
    rewind = length.lottery.rewind
    if not c.copies:
        return
    if not steps or steps[-1] >= length.total:
        raise ValueError(
            "config.instability.start_steps: expected one or more steps below "
            f"{length.total}, the length of training, got {steps}; choose earlier ones"
        )
    if any(c.levels) and config.lottery.retrain == "finetune":
        raise ValueError(
            "config.instability.levels: expected (0,) with lottery.retrain 'finetune',"
            f" whose levels start at the end of training, got {c.levels}; choose "
            "another way to retrain"
        )
    if steps[0] < rewind and pretraining_lib.differs(config):
        raise ValueError(
            f"config.instability.start_steps: expected steps from {rewind} on, "
            f"the end of config.pretraining, got {steps}; copies train like tickets: "
            "choose later steps"
        )
    if any(c.levels) and steps[-1] < rewind:
        raise ValueError(
            f"config.instability.start_steps: expected a step from {rewind} on, "
            f"the start of levels (lottery.rewind), got {steps}; choose a later step, "
            "or instability.levels (0,)"
        )


def check_parents(config: ConfigDict, plan: plan_lib.LotteryPlan) -> None:
    """Checks that copies train like the networks with which they are compared.

    Copies start with a new optimizer. A network that they copy in the middle of its
    training has an older one and differs in more than SGD noise.

    Args:
      config: a validated config.
      plan: stages of the run.

    Raises:
      ValueError: if copies start later or earlier than the network that they copy; the
        message names the config field.
    """
    if config.instability.pairs != "parent":
        return
    for level in range(plan.levels + 1):
        start = plan_lib.ticket(plan, level).start
        for stage in plan_lib.children(plan, level):
            if stage.start != start:
                raise ValueError(
                    f"config.instability.start_steps: expected ({start},), the start "
                    f"of level {level}, with instability.pairs 'parent', got step "
                    f"{stage.start}, where copies begin with a new optimizer; choose "
                    f"('{start}step',), or instability.pairs 'copies'"
                )


def make_compare(
    config: ConfigDict, dataset: Dataset, like: Any
) -> Callable[[Any, Any], list[dict[str, Any]]]:
    """Makes the function that compares two sets of replicates.

    Args:
      config: a validated config.
      dataset: the dataset. Both the training and the test examples are copied to the
        device.
      like: batch statistics of one replicate; only shapes and dtypes are used.

    Returns:
      A function of two pairs of parameters and batch statistics [r ...] to one dict per
      replicate. "alphas" are the points of the linear interpolation; "train_loss",
      "train_error", "test_loss" and "test_error" the values there (losses in nats,
      errors as fractions); "train_instability" and "test_instability" the error
      barriers. "l2" is the distance between the two networks over all parameters,
      "different" the number of test examples that they classify differently, and
      "disagreement" that number as a fraction.

    Raises:
      ValueError: if the examples are stored in files and too many for memory.
    """
    c, made = config.instability, eval_fns.make_eval_fns(config, dataset, like)
    alphas = np.linspace(0, 1, c.points)
    count = c.examples or len(dataset.train.labels)
    some = dataset_lib.first(dataset.train, min(count, len(dataset.train.labels)))
    sets = {
        "train": tuple(map(jnp.asarray, some)),
        "test": tuple(map(jnp.asarray, dataset.test)),
    }
    has_stats = bool(jax.tree.leaves(like))
    estimated = re_estimated(made, sets["train"][0]) if has_stats else None
    logits = make_logits(made, sets["test"][0])

    def statistics(first: Any, second: Any) -> Any:
        if not has_stats:
            return None
        if c.batch_stats == "interpolated":
            return mode_connectivity.Interpolated(first, second)
        return estimated

    def one(first: Any, second: Any) -> dict[str, Any]:
        row: dict[str, Any] = {"alphas": alphas.tolist()}
        for name, examples in sets.items():
            segment = mode_connectivity.along_path(
                made.evaluate,
                first[0],
                second[0],
                examples=examples,
                batch_size=BATCH,
                alphas=alphas,
                batch_stats=statistics(first[1], second[1]),
            )
            row[f"{name}_loss"] = segment.loss.tolist()
            row[f"{name}_error"] = segment.error.tolist()
            rise = mode_connectivity.instability(segment.error, segment.alphas)
            row[f"{name}_instability"] = float(rise)
        # Ghost skips are not part of the final network.
        apart = jax.tree.map(
            lambda a, b: jnp.sum(jnp.square(a - b)),
            ghost_skips.strip_ghosts(first[0]),
            ghost_skips.strip_ghosts(second[0]),
        )
        row["l2"] = float(jnp.sqrt(sum(jax.tree.leaves(apart))))
        classes = (np.argmax(logits(*each), axis=-1) for each in (first, second))
        row["different"] = int(np.sum(np.not_equal(*classes)))
        row["disagreement"] = row["different"] / len(dataset.test.labels)
        return row

    def compare(first: Any, second: Any) -> list[dict[str, Any]]:
        # Instability is a difference of nearly equal errors, and TPUs and recent GPUs
        # multiply float32 matrices with fewer bits by default.
        with jax.default_matmul_precision("highest"):
            return [
                one(*replicates.take((first, second), r))
                for r in range(len(jax.tree.leaves(first)[0]))
            ]

    return compare


def re_estimated(made: eval_fns.EvalFns, images: Any) -> mode_connectivity.ReEstimated:
    """Prepares re-estimated BatchNorm statistics from the first training images.

    Args:
      made: evaluation functions of the network.
      images: training images, uint8 [n h w c].

    Returns:
      An argument of `mode_connectivity.along_path`, with up to `RE_ESTIMATED` batches.
    """
    size = min(BATCH, len(images))
    batches = min(RE_ESTIMATED, len(images) // size)
    shape = (batches, size, *images.shape[1:])
    return mode_connectivity.ReEstimated(
        made.statistics, jnp.asarray(images[: batches * size]).reshape(shape)
    )


def make_logits(
    made: eval_fns.EvalFns, images: Any
) -> Callable[[Any, Any], np.ndarray]:
    """Makes the function that computes the logits of all images, in batches.

    Args:
      made: evaluation functions of the network.
      images: test images, uint8 [n h w c].

    Returns:
      A function of parameters and batch statistics to logits [n k], on the host.
    """
    logits = jax.jit(made.logits)

    def of_all(params: Any, stats: Any) -> np.ndarray:
        found = [
            np.asarray(logits(params, stats, images[i : i + BATCH]))
            for i in range(0, len(images), BATCH)
        ]
        return np.concatenate(found)

    return of_all


def judge(
    instabilities: list[float], reached: list[float], dense: list[float] | None
) -> dict[str, Any]:
    """Determines whether training is stable and matches the dense network.

    Args:
      instabilities: instabilities of all pairs of copies, as fractions.
      reached: test accuracies of the judged networks, as fractions.
      dense: test accuracies of dense networks, as fractions; None if there are none.

    Returns:
      A dict with the mean "instability" over pairs, its standard deviation
      "instability_sd" (None for a single pair), the number of "pairs", and, by the
      thresholds of `mode_connectivity.classify_stability`, whether training is "stable"
      and "matching" (None without dense networks).
    """
    accuracies = {}
    if dense is not None:
        accuracies = {"accuracy": np.array(reached), "dense_accuracy": np.array(dense)}
    found = mode_connectivity.classify_stability(np.array(instabilities), **accuracies)
    return {
        "instability": found.mean,
        "instability_sd": None if math.isnan(found.sd) else found.sd,
        "pairs": found.n,
        "stable": found.stable,
        "matching": found.matching,
    }
