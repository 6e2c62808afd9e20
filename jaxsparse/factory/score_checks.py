"""Checks before training that the scores which users registered fit the network."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from ml_collections import ConfigDict

from jaxsparse.config import ScoreSpec
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import input_data, models
from jaxsparse.factory import scores as scores_lib
from jaxsparse.types import Masks, Scores

log = logging.getLogger(__name__)


def check_registered(
    config: ConfigDict, dataset: Dataset, params: Any, stats: Any, masks: Masks
) -> None:
    """Checks by shapes alone that the scores of users fit the network.

    Otherwise the same error would be raised when the first level has been trained. A
    score that JAX cannot trace, such as one in NumPy, is only checked then.

    Args:
      config: a validated config.
      dataset: the dataset; only shapes are used.
      params: parameters of one replicate, concrete or abstract.
      stats: its batch statistics; {} without BatchNorm.
      masks: dense masks of one replicate.

    Raises:
      ValueError: if scores have other leaves, shapes or dtypes than the prunable
        weights; the message names the config field, the score and the leaf.
    """
    for field, spec in scores_lib.used(config).items():
        if spec.is_built_in:
            continue
        try:
            _trace(config, field, spec, dataset, (params, stats, masks))
        except jax.errors.JAXTypeError as error:
            log.debug("config.%s: %r cannot be traced: %s", field, spec.name, error)


def _trace(
    config: ConfigDict, field: str, spec: ScoreSpec, dataset: Dataset, network: Any
) -> None:
    """Traces a score, which raises an error if its result does not fit the network.

    Args:
      config: a validated config.
      field: config field that names the score.
      spec: the registered score.
      dataset: the dataset; only shapes are used.
      network: parameters, batch statistics and masks of one replicate.

    Raises:
      ValueError: if the result does not fit.
      jax.errors.JAXTypeError: if JAX cannot trace the score.
    """
    model = models.make_model(config, classes=dataset.classes, precise=True)
    task = input_data.make_task(config, dataset)

    def score(network: Any, images: Array, labels: Array, key: Array) -> Scores:
        params, stats, masks = network
        apply = scores_lib.with_stats(model, stats)
        inputs = scores_lib.ScoreInputs(
            apply,
            jax.vmap(task.inputs)(images),
            jax.vmap(task.targets)(images, labels),
            key,
        )
        return inputs.bind(spec, config.sparse, field=field)(params, masks)

    shape = scores_lib.batch_shape(config, spec, len(dataset.train.labels))
    images = dataset.train.images
    jax.eval_shape(
        score,
        network,
        jax.ShapeDtypeStruct((*shape, *images.shape[1:]), images.dtype),
        jax.ShapeDtypeStruct(shape, jnp.int32),
        jax.random.key(0),
    )
