"""Provides the inputs of pruning scores, and the package's scores for configs."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import losses, replicates, scores
from jaxsparse import masks as masks_lib
from jaxsparse.config import ScoreSpec
from jaxsparse.data.dataset import Dataset
from jaxsparse.training.state import Seeds
from jaxsparse.types import Masks, Params, Scores

# GraSP's authors divide the logits of its loss by this temperature.
TEMPERATURE = 200.0

Score = Callable[[Params, Masks], Scores]


@dataclasses.dataclass(frozen=True)
class ScoreInputs:
    """Inputs from which the scores of one replicate are computed.

    Attributes:
      network: function `network(params, images, train=...)` to logits, with the
        replicate's batch statistics.
      images: n batches of b training images, normalized.
      labels: their labels.
      key: typed random key for random scores.
    """

    network: Callable[..., Array]
    images: Float[Array, "n b h w c"]
    labels: Int[Array, "n b"]
    key: Key[Array, ""]

    def loss(self, params: Params, batch: Any, *, temperature: float = 1.0) -> Array:
        """Returns the mean cross-entropy of a batch in training mode, in nats.

        Args:
          params: parameters of the replicate.
          batch: images [b h w c] and labels [b].
          temperature: divisor of the logits.
        """
        images, labels = batch
        logits = self.network(params, images, train=True)
        return jnp.mean(losses.cross_entropy(logits / temperature, labels))

    def bind(self, spec: ScoreSpec, section: ConfigDict) -> Score:
        """Binds the inputs and options of a score to its function.

        Args:
          spec: the registered score.
          section: section "sparse" of the config, which contains the score's options.

        Returns:
          A function of parameters and masks to scores.
        """
        there = {
            "loss": self.loss,
            "batches": (self.images, self.labels),
            "apply": functools.partial(self.network, train=False),
            "input_shape": (1, *self.images.shape[2:]),
            "key": self.key,
        }
        given = {name: there[name] for name in spec.needs}
        given |= {name: section[name] for name in spec.options}
        return functools.partial(spec.load(), **given) if given else spec.load()


def used(config: ConfigDict) -> list[ScoreSpec]:
    """Returns the scores that a config's training computes.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if a score is not registered; the message names the config field.
    """
    found = []
    if "pai_score" in config_lib.METHODS.find(config.sparse.method).fields:
        found.append(config_lib.SCORES.find(config.sparse.pai_score))
    if config.lottery.levels:
        field = "lottery.score"
        found.append(config_lib.SCORES.find(config.lottery.score, field=field))
    return found


def random(params: Params, masks: Masks, *, key: Key[Array, ""]) -> Scores:
    """Scores weights by random draws, independent of their values.

    Args:
      params: parameters; not used.
      masks: boolean masks of the active weights.
      key: typed random key.
    """
    del params
    return scores.random(masks, key=key)


def snip(params: Params, masks: Masks, *, loss: Any, batches: Any) -> Scores:
    """Scores weights by SNIP, see `scores.snip`.

    Args:
      params: parameters of one replicate.
      masks: boolean masks of the active weights.
      loss: function of parameters and a batch to the mean loss.
      batches: images [n b h w c] and labels [n b].
    """
    return scores.snip(loss, params, masks, batches)


def grasp(
    params: Params, masks: Masks, *, loss: Any, batches: Any, absolute: bool = False
) -> Scores:
    """Scores weights by GraSP with the authors' temperature, see `scores.grasp`.

    Args:
      params: parameters of one replicate.
      masks: boolean masks of the active weights.
      loss: function of parameters, a batch and a temperature to the mean loss.
      batches: images [n b h w c] and labels [n b].
      absolute: whether to take absolute values of the scores.
    """
    softened = functools.partial(loss, temperature=TEMPERATURE)
    return scores.grasp(softened, params, masks, batches, absolute=absolute)


def grasp_absolute(params: Params, masks: Masks, *, loss: Any, batches: Any) -> Scores:
    """Scores weights by the absolute value of `grasp`.

    Args:
      params: parameters of one replicate.
      masks: boolean masks of the active weights.
      loss: function of parameters, a batch and a temperature to the mean loss.
      batches: images [n b h w c] and labels [n b].
    """
    return grasp(params, masks, loss=loss, batches=batches, absolute=True)


def synflow(
    params: Params, masks: Masks, *, apply: Any, input_shape: tuple[int, ...]
) -> Scores:
    """Scores weights by SynFlow in evaluation mode, see `scores.synflow`.

    Args:
      params: parameters of one replicate.
      masks: boolean masks of the active weights.
      apply: function of parameters and inputs to the logits in evaluation mode.
      input_shape: shape of a batch of one image, (1, h, w, c).
    """
    return scores.synflow(apply, params, masks, input_shape)


def make_score_inputs(
    config: ConfigDict,
    spec: ScoreSpec,
    dataset: Dataset,
    model: nn.Module,
    normalize: Callable[..., Array],
    stats: Any,
    seeds: Seeds,
) -> ScoreInputs:
    """Draws the examples on which one replicate is scored, and binds its statistics.

    Args:
      config: a validated config.
      spec: the registered score.
      dataset: supplies the training examples.
      model: the network.
      normalize: function of uint8 images to the network's float inputs.
      stats: batch statistics of the replicate; {} without BatchNorm.
      seeds: random keys of the replicate; the data key draws the examples.

    Raises:
      ValueError: if a score that uses examples needs more than the dataset has.
    """
    c, train = config.sparse, dataset.train
    needed = c.score_batches * c.score_batch_size
    if spec.needs_data and needed > len(train.labels):
        raise ValueError(
            f"config.sparse.score_batches: expected at most the {len(train.labels)} "
            f"training examples in all batches, got {c.score_batches} batches of "
            f"{c.score_batch_size}, which is {needed}; set fewer or smaller batches"
        )
    # Scores without data may find fewer examples than the defaults ask for.
    needed = min(needed, len(train.labels))
    batch = needed // c.score_batches or 1
    # A number that no other use of the data key folds in.
    key = jax.random.fold_in(seeds.data, 2**31)
    rows = jax.device_get(jax.random.permutation(key, len(train.labels)))
    rows = rows[: needed // batch * batch].reshape(-1, batch)
    images = jax.vmap(normalize)(jnp.asarray(train.images[rows]))

    def network(params: Params, images: Array, *, train: bool) -> Array:
        variables = {"params": params, "batch_stats": stats}
        # Training mode returns updated statistics, which are discarded.
        out = model.apply(variables, images, train=train, mutable=["batch_stats"])
        return out[0]

    return ScoreInputs(network, images, jnp.asarray(train.labels[rows]), seeds.masks)


def is_wide(scores: Any) -> bool:
    """Returns whether scores are float64, so that they need `jax.enable_x64`."""
    return any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(scores))


def _check_finite(scores: Scores, kept: Masks, name: str, level: int) -> None:
    """Raises ValueError if the score of an active weight is NaN or infinite.

    Args:
      scores: scores of one replicate.
      kept: boolean masks of the active weights.
      name: name of the score, for the message.
      level: level whose masks are chosen, for the message.
    """
    bad = masks_lib.tree_map(
        lambda mask, leaf: int((~np.isfinite(leaf) & np.asarray(mask)).sum()),
        kept,
        jax.device_get(scores),
    )
    for leaf, count in zip(masks_lib.names(kept), jax.tree.leaves(bad), strict=True):
        if count:
            raise ValueError(
                f"config.lottery.score: expected finite scores of {name!r} at level "
                f"{level}, got {count} that are not in {leaf}; did training diverge, "
                "or does the loss overflow?"
            )


def make_level_scores(
    config: ConfigDict,
    dataset: Dataset,
    model: nn.Module,
    normalize: Callable[..., Array],
) -> Callable[..., Scores] | None:
    """Makes the function that scores the trained weights of a level.

    Args:
      config: a validated config.
      dataset: supplies the training examples for scores; each replicate draws its own
        with its data key, the same at each level.
      model: the network.
      normalize: function of uint8 images to the network's float inputs.

    Returns:
      A function of weights, batch statistics, masks, seeds [r ...] and the level to
      scores [r ...]; None for scores that `lottery.imp` computes itself.
    """
    spec = config_lib.SCORES.find(config.lottery.score, field="lottery.score")
    if spec.name in ("magnitude", "random"):
        return None

    def score(
        params: Params, stats: Any, masks: Masks, seeds: Seeds, level: int
    ) -> Scores:
        each = []
        for r in range(len(seeds.data)):
            weights, held, kept, own_seeds = replicates.take(
                (params, stats, masks, seeds), r
            )
            # Random scores differ between levels; the scored examples stay the same.
            own_seeds = own_seeds._replace(
                masks=jax.random.fold_in(own_seeds.masks, level)
            )
            scorer = make_score_inputs(
                config, spec, dataset, model, normalize, held, own_seeds
            )
            found = scorer.bind(spec, config.sparse)(weights, kept)
            _check_finite(found, kept, spec.name, level)
            each.append(found)
        # Otherwise `jnp.stack` would convert float64 scores to float32.
        with jax.enable_x64(is_wide(each)):
            return replicates.stack(each)

    return score
