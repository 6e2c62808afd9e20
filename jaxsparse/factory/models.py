"""Makes the network of a config, and chooses how its convolutions are computed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import models
from jaxsparse.factory import unused_fields
from jaxsparse.factory.durations import config_context
from jaxsparse.models import convolutions, layers, pooling


def vit(
    *, width: int, heads: int, features: tuple[int, ...] = (), **fields: Any
) -> nn.Module:
    """Makes a vision transformer whose token size is given in `features`.

    Args:
      width: default size of the tokens.
      heads: number of attention heads.
      features: a tuple with the size of the tokens; () uses `width`.
      **fields: further fields of `models.ViT`.
    """
    return models.ViT(*(features or (width,)), heads=heads, **fields)


def check(config: ConfigDict) -> None:
    """Checks the network's name, and that its sizes and options fit it.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if the name is unknown, or a field does not apply to the network; the
        message names the config field.
    """
    c = config.model
    family = config_lib.MODELS.find(c.name)
    used = ("name", "norm_affine", *family.options, *unused_fields.model_fields(family))
    unused_fields.check(config, "model", used, chosen=f"model.name {c.name!r}")
    if c.features and family.blocks not in (None, len(c.features)):
        raise ValueError(
            f"config.model.features: expected {family.blocks} sizes for {c.name!r}, or "
            f"None, got {c.features!r}; set one size for each stage"
        )
    side = config.data.image_size // config.data.downsample
    if side % family.patch:
        raise ValueError(
            f"config.data.image_size: expected a multiple of {family.patch}, the size "
            f"of the patches of {c.name!r}, got {side}; choose another size or network"
        )
    if not c.norm_affine and "norm" not in family.takes:
        raise ValueError(
            f"config.model.norm_affine: expected True for {c.name!r}, which has no "
            "BatchNorm, got False; leave the field out"
        )
    given = config.init.norm_scale
    if not c.norm_affine and given != config_lib.read_only_default().init.norm_scale:
        raise ValueError(
            "config.init.norm_scale: expected 'ones' with model.norm_affine False, got "
            f"{given!r}; leave the field out"
        )
    if config.run.conv_gradients != "explicit":
        return
    if "conv" not in family.takes:
        raise ValueError(
            f"config.run.conv_gradients: expected 'auto' or 'library' for {c.name!r}, "
            "which has no convolutions to replace, got 'explicit'; leave the field out"
        )
    if config.run.fsdp:
        raise ValueError(
            "config.run.conv_gradients: expected 'auto' or 'library' with run.fsdp, "
            "for which explicit gradients would gather whole batches, got 'explicit'; "
            "leave the field out"
        )


def check_images(config: ConfigDict, image: tuple[int, ...]) -> None:
    """Checks that images fit the network; needed where images keep their own size.

    Args:
      config: a validated config.
      image: height, width and channels of one image.

    Raises:
      ValueError: if a side is not a multiple of the network's patch size; the message
        names the config field.
    """
    patch = config_lib.MODELS.find(config.model.name).patch
    if any(side % patch for side in image[:2]):
        raise ValueError(
            f"config.model.name: expected a network for images of {image[0]} by "
            f"{image[1]} pixels of {config.data.name!r}, got {config.model.name!r}, "
            f"whose patches have {patch} pixels a side; choose another network, or set "
            "config.data.image_size"
        )


def batch_norm(
    axis_name: str | None = None, *, fast: bool = False
) -> Callable[..., nn.Module]:
    """Returns the BatchNorm layer that networks use.

    Args:
      axis_name: mapped axis over which statistics are averaged in addition; None
        averages over the batch of one call only.
      fast: whether to sum over batches in the order that is fast on CPUs
        (`models.normalization`) instead of linen's.
    """
    layer = layers.FAST_BATCH_NORM if fast else layers.BATCH_NORM
    return functools.partial(layer, axis_name=axis_name)


def uses_custom_conv_grads(config: ConfigDict) -> bool:
    """Returns whether the network is trained with layers that are fast on CPUs.

    They are those of `models.convolutions`, `models.pooling` and
    `models.normalization`. They process a batch in parts. With sharded parameters the
    compiler splits batches over devices itself, and would have to gather them for that.

    Args:
      config: a validated config.
    """
    if config.run.conv_gradients == "auto":
        family = config_lib.MODELS.find(config.model.name)
        on_cpu = jax.default_backend() == "cpu"
        return on_cpu and "conv" in family.takes and not config.run.fsdp
    return config.run.conv_gradients != "library"


def make_model(
    config: ConfigDict,
    *,
    classes: int,
    axis_name: str | None = None,
    precise: bool = False,
    training: bool = False,
) -> nn.Module:
    """Makes the network of a config.

    Args:
      config: a validated config.
      classes: number of outputs.
      axis_name: mapped axis over which BatchNorm averages in addition to the batch,
        from `MeshLayout.batch_axis`; None for none.
      precise: whether to compute in the precision of the parameters, regardless of
        `model.dtype`.
      training: whether to compute convolutions in the way that trains fastest.
        Otherwise the library's convolutions are used, which `connectivity` can trace.
    """
    c, family = config.model, config_lib.MODELS.find(config.model.name)
    plain = config_lib.read_only_default().model
    # A size other than the width is passed only if it was changed, because its default
    # stands for the network's own.
    fields: dict[str, Any] = {
        name: c[name]
        for name in config_lib.SIZES
        if name in family.takes and (name == "width" or c[name] != plain[name])
    }
    fields |= {name: c[name] for name in family.options}
    custom = training and uses_custom_conv_grads(config)
    if "norm" in family.takes:
        fields["norm"] = batch_norm(axis_name, fast=custom)
        if not c.norm_affine:
            fields["norm"] = functools.partial(
                fields["norm"], use_scale=False, use_bias=False
            )
    # Parameters have the same names and shapes with either kind of layers.
    if custom:
        convolve = convolutions.convolve
        fast = {
            "conv": functools.partial(nn.Conv, conv_general_dilated=convolve),
            "pool": pooling.pool,
        }
        fields |= {name: fast[name] for name in fast if name in family.takes}
    # None computes in the dtype of the parameters, which is float32.
    if "dtype" in family.takes:
        fields["dtype"] = None if precise or c.dtype == "float32" else c.dtype
    with config_context("model"):
        return family.make(classes=classes, **fields)
