"""Provides the inputs of pruning scores for configs."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import losses, replicates
from jaxsparse.config import ScoreSpec
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import score_results
from jaxsparse.training.state import Seeds
from jaxsparse.types import Masks, Params, Scores

# Config fields that name scores.
PAI_SCORE, LEVEL_SCORE = "sparse.pai_score", "lottery.score"

Score = Callable[[Params, Masks], Scores]


@dataclasses.dataclass(frozen=True)
class ScoreInputs:
    """Inputs from which the scores of one replicate are computed.

    Attributes:
      network: function `network(params, images, train=...)` to logits, with the
        replicate's batch statistics.
      inputs: n batches of b inputs: normalized training images, or tokens.
      targets: their labels, or the next tokens.
      key: typed random key for random scores.
    """

    network: Callable[..., Array]
    inputs: Float[Array, "n b h w c"] | Int[Array, "n b t"]
    targets: Int[Array, "n b *t"]
    key: Key[Array, ""]

    def loss(self, params: Params, batch: Any, *, temperature: float = 1.0) -> Array:
        """Returns the mean cross-entropy of a batch in training mode, in nats.

        Args:
          params: parameters of the replicate.
          batch: inputs and targets of b examples.
          temperature: divisor of the logits.
        """
        inputs, targets = batch
        logits = self.network(params, inputs, train=True)
        return jnp.mean(losses.cross_entropy(logits / temperature, targets))

    def bind(self, spec: ScoreSpec, section: ConfigDict, *, field: str) -> Score:
        """Binds the inputs and options of a score to its function.

        Args:
          spec: the registered score.
          section: section "sparse" of the config, which contains the score's options.
          field: config field that names the score, for messages.

        Returns:
          A function of parameters and masks to scores with the nesting of the masks. It
          raises ValueError if the scores do not fit the masks.
        """
        there = {
            "loss": self.loss,
            "batches": (self.inputs, self.targets),
            "apply": functools.partial(self.network, train=False),
            "apply_train": functools.partial(self.network, train=True),
            "input_shape": (1, *self.inputs.shape[2:]),
            "key": self.key,
        }
        given = {name: there[name] for name in spec.needs}
        given |= {name: section[name] for name in spec.options}
        function = functools.partial(spec.load(), **given)

        def score(params: Params, masks: Masks) -> Scores:
            found = function(params, masks)
            return score_results.fit(found, masks, spec.name, field=field)

        return score


def used(config: ConfigDict) -> dict[str, ScoreSpec]:
    """Returns the scores that a config's training computes, by the fields naming them.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if a score is not registered; the message names the config field.
    """
    names = {}
    if "pai_score" in config_lib.METHODS.find(config.sparse.method).fields:
        names[PAI_SCORE] = config.sparse.pai_score
    if config.lottery.levels:
        names[LEVEL_SCORE] = config.lottery.score
    return {
        field: config_lib.SCORES.find(name, field=field)
        for field, name in names.items()
    }


def make_score_inputs(
    config: ConfigDict,
    spec: ScoreSpec,
    dataset: Dataset,
    model: nn.Module,
    task: losses.PredictionTask,
    stats: Any,
    seeds: Seeds,
) -> ScoreInputs:
    """Draws the examples on which one replicate is scored, and binds its statistics.

    Args:
      config: a validated config.
      spec: the registered score.
      dataset: supplies the training examples.
      model: the network.
      task: inputs and targets of the network for a batch of examples.
      stats: batch statistics of the replicate; {} without BatchNorm.
      seeds: random keys of the replicate; the data key draws the examples.

    Raises:
      ValueError: if a score that uses examples needs more than the dataset has.
    """
    train = dataset.train
    count, batch = batch_shape(config, spec, len(train.labels))
    # A number that no other use of the data key folds in.
    key = jax.random.fold_in(seeds.data, 2**31)
    rows = jax.device_get(jax.random.permutation(key, len(train.labels)))
    rows = rows[: count * batch].reshape(count, batch)
    images, labels = jnp.asarray(train.images[rows]), jnp.asarray(train.labels[rows])
    return ScoreInputs(
        with_stats(model, stats),
        jax.vmap(task.inputs)(images),
        jax.vmap(task.targets)(images, labels),
        seeds.masks,
    )


def batch_shape(config: ConfigDict, spec: ScoreSpec, examples: int) -> tuple[int, int]:
    """Returns the number and the size of the batches on which weights are scored.

    Args:
      config: a validated config.
      spec: the registered score.
      examples: number of training examples.

    Raises:
      ValueError: if a score that uses examples needs more than there are.
    """
    c = config.sparse
    needed = c.score_batches * c.score_batch_size
    if spec.needs_data and needed > examples:
        raise ValueError(
            f"config.sparse.score_batches: expected at most the {examples} "
            f"training examples in all batches, got {c.score_batches} batches of "
            f"{c.score_batch_size}, which is {needed}; set fewer or smaller batches"
        )
    # Scores without data may find fewer examples than the defaults ask for.
    needed = min(needed, examples)
    batch = needed // c.score_batches or 1
    return needed // batch, batch


def with_stats(model: nn.Module, stats: Any) -> Callable[..., Array]:
    """Returns a network's function of parameters and images, for `ScoreInputs`.

    Args:
      model: the network.
      stats: batch statistics of a replicate; {} without BatchNorm.
    """

    def network(params: Params, images: Array, *, train: bool) -> Array:
        variables = {"params": params, "batch_stats": stats}
        # Training mode returns updated statistics, which are discarded.
        out = model.apply(variables, images, train=train, mutable=["batch_stats"])
        return out[0]

    return network


def is_wide(scores: Any) -> bool:
    """Returns whether scores are float64, so that they need `jax.enable_x64`.

    Args:
      scores: pytree of arrays, such as the scores of all weights.
    """
    return any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(scores))


def make_level_scores(
    config: ConfigDict,
    dataset: Dataset,
    model: nn.Module,
    task: losses.PredictionTask,
) -> Callable[..., Scores] | None:
    """Makes the function that scores the trained weights of a level.

    Args:
      config: a validated config.
      dataset: supplies the training examples for scores; each replicate draws its own
        with its data key, the same at each level.
      model: the network.
      task: inputs and targets of the network for a batch of examples.

    Returns:
      A function of weights, batch statistics, masks, seeds [r ...] and the level to
      scores [r ...]; None for scores that `lottery.imp` computes itself.
    """
    spec = config_lib.SCORES.find(config.lottery.score, field=LEVEL_SCORE)
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
                config, spec, dataset, model, task, held, own_seeds
            )
            bound = scorer.bind(spec, config.sparse, field=LEVEL_SCORE)
            found = bound(weights, kept)
            score_results.check_finite(found, kept, spec.name, level)
            each.append(found)
        # Otherwise `jnp.stack` would convert float64 scores to float32.
        with jax.enable_x64(is_wide(each)):
            return replicates.stack(each)

    return score
