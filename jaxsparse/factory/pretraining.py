"""What a config trains on up to the rewinding step, if that is something else.

Paul et al. (2022) train a dense network for some hundred steps on a small part of the
data, and search tickets with all of it from there.
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
    """Says whether pre-training differs from training at all."""
    plain = config_lib.default().pretraining
    # As dictionaries: configs that are locked, as those of commands, equal no others.
    return config.pretraining.to_dict() != plain.to_dict()


def check(config: ConfigDict) -> None:
    """Refuses fields that would not be used, and subsets that are not said whole.

    Raises:
      ValueError: naming the field.
    """
    c, plain = config.pretraining, config_lib.default().pretraining
    for name, needs in {
        "size": bool(c.subset),
        "balanced": bool(c.subset),
        "scores": c.subset not in ("", "random"),
        "first": c.subset == "window",
        "seed": c.subset == "random",
        "warmup": c.learning_rate != -1,
    }.items():
        if c[name] != plain[name] and not needs:
            raise ValueError(
                f"config.pretraining.{name}: came {c[name]!r} with subset "
                f"{c.subset!r} and learning_rate {c.learning_rate}, which have no use "
                f"for it; wanted {plain[name]!r}"
            )
    if c.subset and not c.size:
        raise ValueError(
            f"config.pretraining.size: came 0 with subset {c.subset!r}; wanted how "
            "many examples"
        )
    if c.subset not in ("", "random") and not c.scores:
        raise ValueError(
            f"config.pretraining.scores: came '' with subset {c.subset!r}; wanted a "
            "file that experiments/score_data.py wrote"
        )
    data = config.data
    for name in ("noise_by", "noise_seed"):
        used = data.noise or c.noise
        if data[name] != config_lib.default().data[name] and not used:
            raise ValueError(
                f"config.data.{name}: came {data[name]!r} without noise; wanted "
                "data.noise or pretraining.noise above 0"
            )
    if data.noise and c.noise:
        raise ValueError(
            f"config.pretraining.noise: came {c.noise} with data.noise {data.noise}; "
            "wanted one of the two"
        )


def check_used(config: ConfigDict, length: Durations) -> None:
    """Refuses pre-training of no length, and a warm-up that is longer.

    Raises:
      ValueError: naming the field.
    """
    if differs(config) and not length.rewind:
        raise ValueError(
            f"config.pretraining: differs from training, and lottery.rewind is "
            f"{config.lottery.rewind!r}; wanted a rewinding step above 0, at which "
            "pre-training ends"
        )
    if length.pretraining_warmup > length.rewind:
        raise ValueError(
            f"config.pretraining.warmup: came {config.pretraining.warmup!r}, which is "
            f"{length.pretraining_warmup} updates; wanted at most the {length.rewind} "
            "of lottery.rewind, at which pre-training ends"
        )


def with_noise(config: ConfigDict, examples: Examples, *, classes: int) -> Examples:
    """Draws labels anew as a config says for all of training."""
    return _corrupted(config, examples, config.data.noise, classes)


def labels(config: ConfigDict, dataset: Dataset) -> Examples:
    """Returns the training examples with the labels of pre-training."""
    fraction = config.pretraining.noise
    return _corrupted(config, dataset.train, fraction, dataset.classes)


def _corrupted(
    config: ConfigDict, examples: Examples, fraction: float, classes: int
) -> Examples:
    if not fraction:
        return examples
    c = config.data
    with config_context("data"):
        drawn = noise_lib.corrupt(
            examples.labels,
            fraction=fraction,
            classes=classes,
            seed=c.noise_seed,
            how=c.noise_by,
        )
    return examples._replace(labels=drawn.labels)


def score_file(config: ConfigDict, workdir: Path) -> Path | None:
    """Returns the path of the scores that choose the examples; None for none.

    Args:
      config: a validated config.
      workdir: folder of the run, which the file's is relative to.
    """
    name = config.pretraining.scores
    return (workdir / Path(name).expanduser()).resolve() if name else None


def rows(
    config: ConfigDict, dataset: Dataset, workdir: Path
) -> Int32[Array, "r m"] | None:
    """Chooses the examples of pre-training for each replicate; None for all.

    Args:
      config: a validated config.
      dataset: what is trained on.
      workdir: folder of the run, which the file of scores is relative to.

    Raises:
      ValueError: if there are not so many, or the scores are of other examples.
    """
    c, train = config.pretraining, dataset.train
    if not c.subset:
        return None
    scores = np.zeros(len(train.labels))
    path = score_file(config, workdir)
    if path is not None:
        if not multihost.broadcast_from_primary(path.is_file):
            raise ValueError(
                f"config.pretraining.scores: {path} is not there; wanted a file that "
                "experiments/score_data.py wrote, named from the run's own folder"
            )
        with config_context("pretraining.scores"):
            images = fingerprint.of_images(train.images)
            read = functools.partial(
                score_files.load, path, labels=train.labels, images=images
            )
            scores = multihost.broadcast_from_primary(lambda: read().scores)
    balance = {"labels": train.labels, "classes": dataset.classes}
    with config_context("pretraining"):
        each = [
            subsets_lib.choose(
                scores,
                c.size,
                how=c.subset,
                first=c.first if c.subset == "window" else None,
                seed=1000 * c.seed + config.seeds.first + r,  # no two share one
                **(balance if c.balanced else {}),
            )
            for r in range(config.replicates)
        ]
    return jnp.asarray(np.stack(each), jnp.int32)


def as_training(config: ConfigDict) -> ConfigDict:
    """Makes the config of which pre-training is the training."""
    c = config.copy_and_resolve_references()
    own = config.pretraining
    if own.batch_size:
        c.data.batch_size = own.batch_size
    if own.learning_rate != -1:
        c.schedule.name = "constant"
        c.schedule.learning_rate = own.learning_rate
        c.schedule.warmup = own.warmup
        c.schedule.milestones = ()
    return c
