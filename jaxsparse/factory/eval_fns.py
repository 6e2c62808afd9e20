"""Makes the functions with which analyses evaluate the network of a config."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxsparse import losses
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import input_data, models
from jaxsparse.models import layers


class EvalFns(NamedTuple):
    """Functions of a network for analyses. Images are uint8 [n h w c].

    For networks that predict next tokens, images are windows of text, and logits have
    an axis of positions, [n t k].

    They compute the network without ToST's soft activations and ghost skips, which is
    the final network of a run that anneals them away.

    Make them once per run: compiled programs are cached by function object.

    Attributes:
      logits: function `(params, batch_stats, images)` to logits [n k], in inference
        mode.
      batch_logits: function `(params, images)` to logits [n k], in training mode:
        BatchNorm uses the statistics of these images.
      evaluate: function `(params, batch_stats, (images, labels))` to the loss of each
        prediction, [n] or [n t], and whether it is correct, in inference mode; for
        classification an argument of `mode_connectivity.along_path`.
      loss: function `(params, (images, labels))` to the mean cross-entropy, in training
        mode: BatchNorm uses the statistics of these images.
      statistics: function `(params, images)` to the BatchNorm statistics of these
        images; an argument of `mode_connectivity.ReEstimated`.
    """

    logits: Callable[..., Any]
    batch_logits: Callable[..., Any]
    evaluate: Callable[..., Any]
    loss: Callable[..., Any]
    statistics: Callable[..., Any]


def make_eval_fns(config: ConfigDict, dataset: Dataset, batch_stats: Any) -> EvalFns:
    """Makes the evaluation functions of a config's network.

    Args:
      config: a validated config.
      dataset: the dataset, for the number of classes and the normalization.
      batch_stats: running statistics of one replicate, possibly abstract; only shapes
        and dtypes are used. {} for networks without BatchNorm.
    """
    model = models.make_model(config, classes=dataset.classes)
    trained = models.make_model(config, classes=dataset.classes, training=True)
    task = input_data.make_task(config, dataset)
    # From zero, one step of the running average is proportional to the batch
    # statistics.
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), batch_stats)

    def logits(params: Any, stats: Any, images: Any) -> Any:
        variables = {"params": params, "batch_stats": stats}
        return model.apply(variables, task.inputs(images), train=False)

    def in_training(params: Any, images: Any) -> tuple[Any, Any]:
        variables = {"params": params, "batch_stats": nothing}
        scores, changed = trained.apply(
            variables, task.inputs(images), train=True, mutable=["batch_stats"]
        )
        return scores, changed.get("batch_stats", {})

    def batch_logits(params: Any, images: Any) -> Any:
        return in_training(params, images)[0]

    def evaluate(params: Any, stats: Any, batch: Any) -> Any:
        scores = logits(params, stats, batch[0])
        targets = task.targets(*batch)
        correct = losses.is_correct(scores, targets)
        return losses.cross_entropy(scores, targets), correct

    def loss(params: Any, batch: Any) -> Any:
        scores = batch_logits(params, batch[0])
        return jnp.mean(losses.cross_entropy(scores, task.targets(*batch)))

    def statistics(params: Any, images: Any) -> Any:
        _, found = in_training(params, images)
        # The running average started at 0 and made one step, which multiplied the
        # statistics of the batch by `share`.
        share = 1 - layers.MOMENTUM
        return jax.tree.map(lambda leaf: leaf / share, found)

    return EvalFns(logits, batch_logits, evaluate, loss, statistics)
