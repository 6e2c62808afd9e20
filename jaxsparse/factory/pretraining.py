"""Makes the data and the config of a pretraining that differs from training.

Paul et al. (2022) train a dense network for some hundred steps on a small part of the
data, and search for tickets with all data from there.
"""

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import multihost
from jaxsparse.data import fingerprint
from jaxsparse.data.data_pruning import noise as noise_lib
from jaxsparse.data.data_pruning import score_files
from jaxsparse.data.data_pruning import subsets as subsets_lib
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.factory.durations import Durations, config_context


def differs(config: ConfigDict) -> bool:
    """Returns whether the pretraining differs from training.

    Args:
      config: a config; it may be locked.
    """
    plain = config_lib.read_only_default().pretraining
    # Compared as dictionaries, because a locked config, such as one from the command
    # line, never equals an unlocked one.
    return config.pretraining.to_dict() != plain.to_dict()


def check(config: ConfigDict) -> None:
    """Checks that pretraining fields have an effect and describe a complete subset.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if they do not; the message names the config field.
    """
    c, plain = config.pretraining, config_lib.read_only_default().pretraining
    for name, needs in {
        "size": bool(c.subset),
        "balanced": bool(c.subset),
        "scores": c.subset not in (None, "random"),
        "window_start": c.subset == "window",
        "seed": c.subset == "random",
        "warmup": c.learning_rate is not None,
    }.items():
        if c[name] != plain[name] and not needs:
            raise ValueError(
                f"config.pretraining.{name}: expected {plain[name]!r} with "
                f"pretraining.subset {c.subset!r} and pretraining.learning_rate "
                f"{c.learning_rate}, got {c[name]!r}; leave the field out"
            )
    if c.subset and not c.size:
        raise ValueError(
            "config.pretraining.size: expected at least 1 with pretraining.subset "
            f"{c.subset!r}, got 0; set the number of examples"
        )
    if c.subset not in (None, "random") and not c.scores:
        raise ValueError(
            "config.pretraining.scores: expected a file that "
            "experiments/score_data.py wrote with pretraining.subset "
            f"{c.subset!r}, got None; set it"
        )
    data = config.data
    for name in ("label_noise_by", "label_noise_seed"):
        used = data.label_noise or c.label_noise
        if data[name] != config_lib.read_only_default().data[name] and not used:
            raise ValueError(
                f"config.data.{name}: expected its default without label noise, got "
                f"{data[name]!r}; set data.label_noise or pretraining.label_noise"
            )
    if data.label_noise and c.label_noise:
        raise ValueError(
            "config.pretraining.label_noise: expected 0.0 with data.label_noise "
            f"{data.label_noise}, got {c.label_noise}; set one of the two"
        )


def check_used(config: ConfigDict, length: Durations) -> None:
    """Checks that a pretraining has a step and is not shorter than its warmup.

    Args:
      config: a validated config.
      length: durations of the config in steps.

    Raises:
      ValueError: if it has none or is shorter; the message names the config field.
    """
    if differs(config) and not length.lottery.rewind:
        raise ValueError(
            "config.lottery.rewind: expected a rewinding step above 0, at which the "
            f"pretraining of config.pretraining ends, got {config.lottery.rewind!r}; "
            "set it, or leave out the section pretraining"
        )
    warmup, rewind = length.schedule.pretraining_warmup, length.lottery.rewind
    if warmup > rewind:
        raise ValueError(
            f"config.pretraining.warmup: expected at most {rewind} steps, the value of "
            f"lottery.rewind, got {config.pretraining.warmup!r}, which is {warmup}; "
            "shorten it"
        )


def with_noise(config: ConfigDict, examples: Examples, *, classes: int) -> Examples:
    """Corrupts the labels of training examples with the noise for all of training.

    Args:
      config: a validated config.
      examples: training examples.
      classes: number of classes.
    """
    return _corrupted(config, examples, config.data.label_noise, classes)


def labels(config: ConfigDict, dataset: Dataset) -> Examples:
    """Returns the training examples with the labels of the pretraining.

    Args:
      config: a validated config.
      dataset: the dataset, with the label noise for all of training.
    """
    fraction = config.pretraining.label_noise
    return _corrupted(config, dataset.train, fraction, dataset.classes)


def _corrupted(
    config: ConfigDict, examples: Examples, fraction: float, classes: int
) -> Examples:
    """Corrupts a fraction of the labels.

    Args:
      config: a validated config; kind and seed of the noise are in its data section.
      examples: training examples.
      fraction: fraction of the labels to corrupt, in [0, 1].
      classes: number of classes.
    """
    if not fraction:
        return examples
    c = config.data
    with config_context("data"):
        drawn = noise_lib.corrupt(
            examples.labels,
            fraction=fraction,
            classes=classes,
            seed=c.label_noise_seed,
            how=c.label_noise_by,
        )
    return examples._replace(labels=drawn.labels)


def score_file(config: ConfigDict, workdir: Path) -> Path | None:
    """Returns the path of the example scores that select the subset, or None.

    Args:
      config: a validated config.
      workdir: the run directory, to which the path in the config is relative.
    """
    name = config.pretraining.scores
    return (workdir / Path(name).expanduser()).resolve() if name else None


def rows(
    config: ConfigDict, dataset: Dataset, workdir: Path
) -> Int32[Array, "r m"] | None:
    """Selects the examples of the pretraining for each replicate.

    Args:
      config: a validated config.
      dataset: the dataset.
      workdir: the run directory, to which the path of the score file is relative.

    Returns:
      Indices of the m selected training examples, increasing; None for all examples.

    Raises:
      ValueError: if there are fewer examples than requested, or the score file is
        missing, damaged, or of other examples.
    """
    c, train = config.pretraining, dataset.train
    if not c.subset:
        return None
    # A random subset uses the number of scores only.
    scores = np.zeros(len(train.labels))
    path = score_file(config, workdir)
    if path is not None:
        if not multihost.broadcast_from_primary(path.is_file):
            raise ValueError(
                "config.pretraining.scores: expected a file that "
                f"experiments/score_data.py wrote, got {path}, which does not exist; "
                "give its path relative to the run directory"
            )
        with config_context("pretraining.scores"):
            # Scores refer to examples by position, so a file for other images or labels
            # is rejected.
            images = fingerprint.of_images(train.images)
            read = functools.partial(
                score_files.load, path, labels=train.labels, images=images
            )
            scores = multihost.broadcast_from_primary(lambda: read().scores)
    balance = {"labels": train.labels, "classes": dataset.classes}
    with config_context("pretraining", {"first": "window_start"}):
        each = [
            subsets_lib.choose(
                scores,
                c.size,
                how=c.subset,
                first=c.window_start if c.subset == "window" else None,
                seed=1000 * c.seed + config.seeds.first + r,  # a seed per replicate
                **(balance if c.balanced else {}),
            )
            for r in range(config.replicates)
        ]
    return jnp.asarray(np.stack(each), jnp.int32)


def as_training(config: ConfigDict) -> ConfigDict:
    """Returns a config whose training is the pretraining of another config.

    Args:
      config: a validated config.
    """
    c = config.copy_and_resolve_references()
    own = config.pretraining
    if own.batch_size is not None:
        c.data.batch_size = own.batch_size
    if own.learning_rate is not None:
        c.schedule.name = "constant"
        c.schedule.learning_rate = own.learning_rate
        c.schedule.warmup = own.warmup
        c.schedule.milestones = ()
    return c
