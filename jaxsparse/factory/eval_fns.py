"""What analyses take of a network: functions of weights and images, from a config."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import components, models
from jaxsparse.models import layers
from jaxsparse.training import losses


class EvalFns(NamedTuple):
    """A network as analyses see it; images are uint8 [n h w c] everywhere.

    Ghosts are not in it: it is the network that a run with ghosts ends with.

    Make them once: programs that are compiled from them are kept by the function.

    Attributes:
      logits: `(params, batch_stats, images)` to logits [n k], in inference mode.
      batch_logits: `(params, images)` to logits [n k], in training mode, where
        BatchNorm takes the statistics of these images.
      evaluate: `(params, batch_stats, (images, labels))` to the loss [n] of each
        example and whether it is correct [n], in inference mode; what
        `connectivity.along_segment` takes.
      loss: `(params, (images, labels))` to the mean cross-entropy, in training mode,
        where BatchNorm takes the statistics of these images.
      statistics: `(params, images)` to the statistics that BatchNorm has of these
        images; what `connectivity.ReEstimated` takes.
    """

    logits: Callable[..., Any]
    batch_logits: Callable[..., Any]
    evaluate: Callable[..., Any]
    loss: Callable[..., Any]
    statistics: Callable[..., Any]


def make_eval_fns(config: ConfigDict, dataset: Dataset, batch_stats: Any) -> EvalFns:
    """Makes the functions of a config's network.

    Args:
      config: a validated config.
      dataset: what it is trained on.
      batch_stats: running statistics of one replicate, of which only shapes and dtypes
        are used; {} without BatchNorm.
    """
    model = models.make_model(config, classes=dataset.classes)
    trained = models.make_model(config, classes=dataset.classes, training=True)
    normalize = components.make_normalize(config, dataset)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), batch_stats)

    def logits(params: Any, stats: Any, images: Any) -> Any:
        variables = {"params": params, "batch_stats": stats}
        return model.apply(variables, normalize(images), train=False)

    def in_training(params: Any, images: Any) -> tuple[Any, Any]:
        variables = {"params": params, "batch_stats": nothing}
        scores, changed = trained.apply(
            variables, normalize(images), train=True, mutable=["batch_stats"]
        )
        return scores, changed.get("batch_stats", {})

    def batch_logits(params: Any, images: Any) -> Any:
        return in_training(params, images)[0]

    def evaluate(params: Any, stats: Any, batch: Any) -> Any:
        scores = logits(params, stats, batch[0])
        correct = losses.is_correct(scores, batch[1])
        return losses.cross_entropy(scores, batch[1]), correct

    def loss(params: Any, batch: Any) -> Any:
        scores = batch_logits(params, batch[0])
        return jnp.mean(losses.cross_entropy(scores, batch[1]))

    def statistics(params: Any, images: Any) -> Any:
        _, found = in_training(params, images)
        # One step of a running average that began at nothing.
        share = 1 - layers.MOMENTUM
        return jax.tree.map(lambda leaf: leaf / share, found)

    return EvalFns(logits, batch_logits, evaluate, loss, statistics)
