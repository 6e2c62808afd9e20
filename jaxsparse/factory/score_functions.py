"""The package's scores as functions of what configs provide."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxsparse import prune, scores
from jaxsparse.types import Masks, Params, Scores

# GraSP's authors divide the logits of its loss by this temperature.
TEMPERATURE = 200.0


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


def wanda(params: Params, masks: Masks, *, apply: Any, batches: Any) -> Scores:
    """Scores weights by their inputs on all batches, see `prune.wanda_scores`.

    Args:
      params: parameters of one replicate.
      masks: boolean masks of the active weights.
      apply: function of parameters and inputs to the logits in evaluation mode.
      batches: images [n b h w c] and labels [n b].
    """
    images, _ = batches
    images = images.reshape(-1, *images.shape[2:])
    return prune.wanda_scores(apply, params, masks, images)


def ntk_sap(
    params: Params,
    masks: Masks,
    *,
    apply_train: Any,
    batches: Any,
    key: Key[Array, ""],
) -> Scores:
    """Scores weights by NTK-SAP in training mode, see `scores.ntk_sap`.

    At initialization the running statistics of BatchNorm say nothing of its inputs, so
    that BatchNorm normalizes each batch by its own.

    Args:
      params: parameters of one replicate.
      masks: boolean masks of the active weights.
      apply_train: function of parameters and inputs to the logits in training mode.
      batches: images [n b h w c], of which only the shape is used, and labels [n b].
      key: typed random key.
    """
    images, _ = batches
    return scores.ntk_sap(apply_train, params, masks, images, key=key)


def phew(
    params: Params,
    masks: Masks,
    *,
    apply: Any,
    input_shape: tuple[int, ...],
    key: Key[Array, ""],
) -> Scores:
    """Scores weights by PHEW, see `prune.phew_scores`.

    Args:
      params: parameters of one replicate.
      masks: boolean masks of the active weights.
      apply: function of parameters and inputs to the logits in evaluation mode.
      input_shape: shape of a batch of one image, (1, h, w, c).
      key: typed random key.
    """
    image = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    return prune.phew_scores(apply, params, masks, image, key=key)
