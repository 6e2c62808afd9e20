"""Makes the sparse optimizer of a config, and the masks with which a method starts."""

import dataclasses
import logging
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import distributions, fan_axes, select, transforms
from jaxsparse import masks as masks_lib
from jaxsparse.factory import reparameterizations, unused_fields
from jaxsparse.factory import scores as scores_lib
from jaxsparse.factory.durations import Durations, config_context
from jaxsparse.training.optimizers import LearningRate

log = logging.getLogger(__name__)
COUPLED = "coupled_channels"  # a structure of several layers; see `coupled_masks`


def sr_ste(
    inner: Any,
    *,
    sparsity: float,
    layers: transforms.LayerOptions,
    **rest: Any,
) -> optax.GradientTransformationExtraArgs:
    """Makes the SR-STE optimizer for the N:M sparsity of a structure and a sparsity.

    Args:
      inner: the dense optimizer.
      sparsity: fraction of each group to prune; n is the rounded number of weights that
        remain.
      layers: which leaves have masks, with a structure of groups of m consecutive
        weights, from `select.n_of_m`.
      **rest: further arguments of `transforms.sr_ste`.

    Raises:
      ValueError: if the structure does not consist of such groups.
    """
    return _of_groups(
        transforms.sr_ste, "sr_ste", inner, sparsity=sparsity, layers=layers, **rest
    )


def s_ste(
    inner: Any, *, sparsity: float, layers: transforms.LayerOptions
) -> optax.GradientTransformationExtraArgs:
    """Makes the S-STE optimizer for the N:M sparsity of a structure and a sparsity.

    Args:
      inner: the dense optimizer.
      sparsity: fraction of each group to prune; n is the rounded number of weights that
        remain.
      layers: which leaves have masks, with a structure as in `sr_ste`.

    Raises:
      ValueError: if the structure does not consist of such groups.
    """
    return _of_groups(
        transforms.s_ste, "s_ste", inner, sparsity=sparsity, layers=layers
    )


def _of_groups(
    make: Callable[..., Any],
    name: str,
    inner: Any,
    *,
    sparsity: float,
    layers: transforms.LayerOptions,
    **rest: Any,
) -> optax.GradientTransformationExtraArgs:
    """Makes the optimizer of a method with n of m weights.

    Args:
      make: the method, with arguments `n`, `m` and `layers`.
      name: its name, for error messages.
      inner: the dense optimizer.
      sparsity: fraction of each group to prune.
      layers: which leaves have masks, with a structure of groups.
      **rest: further arguments of the method.
    """
    structure = layers.structure
    groups = structure is not None and structure.block[0] > 1
    if not groups or structure != select.n_of_m(structure.block[0]):
        raise ValueError(
            f"structure: expected groups for {name}, got {structure}; set "
            "sparse.structure, as in 'groups 4'"
        )
    m = structure.block[0]
    n = distributions.count_kept(m, sparsity)
    layers = dataclasses.replace(layers, structure=None)
    return make(inner, n=n, m=m, layers=layers, **rest)


def check(config: ConfigDict) -> None:
    """Checks the method's name, and that it uses all fields that are set.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if a name is unknown, a field is set that the method does not read, or
        a required field is missing; the message names the config field.
    """
    c = config.sparse
    method, scores = config_lib.METHODS.find(c.method), scores_lib.used(config)
    used = ["method", *method.fields, *reparameterizations.fields(config)]
    for score in scores.values():
        used += [*score.options, *unused_fields.score_fields(score)]
    chosen = [f"sparse.method {c.method!r}"]
    chosen += [f"{field} {score.name!r}" for field, score in scores.items()]
    remedy = "choose one of these, or leave the field out"
    if c.method == "none" and not scores:
        remedy += "; lottery tickets have config.lottery.levels and .fraction instead"
    unused_fields.check(
        config, "sparse", used, chosen=" and ".join(chosen), remedy=remedy
    )
    for name in method.requires:
        if not c[name]:
            raise ValueError(
                f"config.sparse.{name}: expected a duration such as '10%' or "
                f"'3000step' with method {c.method!r}, got {c[name]!r}; set it"
            )
    if c.layer_sparsity and (c.distribution or c.dense):
        raise ValueError(
            "config.sparse.layer_sparsity: expected () with sparse.distribution "
            f"{c.distribution!r} and sparse.dense {c.dense}, got {c.layer_sparsity}; "
            "set the sparsity of layers in one of the two ways"
        )
    if c.grow_batch_size and "grow" in method.fields and c.grow == "random":
        raise ValueError(
            "config.sparse.grow_batch_size: expected 0 with sparse.grow 'random', "
            f"which uses no gradient, got {c.grow_batch_size}; set sparse.grow "
            "'gradient'"
        )
    if c.grow_batch_start and not c.grow_batch_size:
        raise ValueError(
            "config.sparse.grow_batch_start: expected 0 with sparse.grow_batch_size 0, "
            f"got {c.grow_batch_start}; set sparse.grow_batch_size"
        )
    with config_context("sparse"):
        read_structure(c.structure)


def read_structure(text: str | None) -> select.Structure | None:
    """Converts the structure of a config.

    Args:
      text: "groups 4", "blocks 4x4", "channels", "fan_in", "diagonals", `COUPLED`; or
        None.

    Returns:
      The structure; None for unstructured sparsity, and for `COUPLED`.

    Raises:
      ValueError: if the text has none of these forms.
    """
    if text in (None, COUPLED):
        return None
    groups = re.fullmatch(r"groups (\d+)", text)
    blocks = re.fullmatch(r"blocks (\d+)x(\d+)", text)
    if groups:
        return select.n_of_m(int(groups[1]))
    if blocks:
        return select.blocks((int(blocks[1]), int(blocks[2])))
    if text in ("channels", "fan_in", "diagonals"):
        return getattr(select, text)()
    raise ValueError(
        "structure: expected a form such as 'groups 4', 'blocks 4x4', 'channels', "
        f"{COUPLED!r}, 'fan_in' or 'diagonals', got {text!r}"
    )


Wrap = Callable[..., optax.GradientTransformationExtraArgs]


def make_wrap(
    config: ConfigDict,
    length: Durations,
    rate: LearningRate,
    *,
    dense: tuple[str, ...],
    axes: fan_axes.Axes = None,
) -> Wrap:
    """Makes the function that turns a dense optimizer into a sparse one.

    Args:
      config: a validated config.
      length: durations of the config in steps.
      rate: learning rate as a function of the training step, for drop fractions that
        are proportional to it.
      dense: names of layers to keep dense, in addition to the config's patterns.
      axes: input and output axes of the network's weights; None infers them from names
        and shapes.

    Returns:
      A function `(inner, key)` of an optax optimizer and a typed random key to a sparse
      optimizer. It raises ValueError if an argument is wrong, with the prefix
      "config.sparse".
    """
    c = config.sparse
    method = config_lib.METHODS.find(c.method)
    reparameterized = reparameterizations.make_reparameterized(
        config, length, prunable=prunable(config)
    )
    # Fixed masks are chosen elsewhere: on the initial weights, or after each level.
    if not method.mask_updates.updates_masks and method.is_built_in:
        return lambda inner, key: transforms.fixed(
            reparameterized(inner),
            prunable=prunable(config),
            pack_masks=c.pack_masks,
        )
    _check_end(c, length)
    values = {
        "dense": (*c.dense, *dense),
        "prunable": prunable(config),
        "structure": read_structure(c.structure),
        "distribution": make_distribution(config),
        **length.sparse,
    }
    if c.drop_schedule == "learning_rate":
        values["drop_schedule"] = lambda step: float(rate(np.int32(step)))
    arguments = reparameterizations.read_arguments(method, c, values)
    received = {"axes": axes, "learning_rate": rate}
    arguments |= {k: v for k, v in received.items() if k in method.receives}
    make, records = method.load(), method.load_records()
    names = {argument: field for field, argument in method.arguments.items()}
    names |= {option: option for option in method.options}

    def wrap(inner: Any, key: Key[Array, ""]) -> Any:
        extra = {"key": key} if "key" in method.receives else {}
        with config_context("sparse", names):
            return make(reparameterized(inner), **_collect(arguments, records), **extra)

    return wrap


def _collect(arguments: dict[str, Any], records: dict[str, type]) -> dict[str, Any]:
    """Moves arguments that are fields of a record into that record.

    Args:
      arguments: values by the names of arguments and of fields.
      records: dataclasses by the names of the arguments that take them.

    Returns:
      The other arguments, and the records.
    """
    rest, made = dict(arguments), {}
    for argument, record in records.items():
        fields = [field.name for field in dataclasses.fields(record)]
        made[argument] = record(**{f: rest.pop(f) for f in fields if f in rest})
    return rest | made


def _check_end(c: ConfigDict, length: Durations) -> None:
    """Checks the steps of mask updates against the length of training.

    Logs a warning if training ends before the first mask update.

    Args:
      c: the section "sparse" of a config.
      length: durations of the config in steps.

    Raises:
      ValueError: if the target sparsity would only be reached after the last step.
    """
    rules = config_lib.METHODS.find(c.method).mask_updates
    field = rules.finishes_at or ("end_step" if rules.includes_end(c) else "")
    step, last = length.sparse.get(field), length.total - 1 + rules.finishes_after
    if step is not None and step > last:
        raise ValueError(
            f"config.sparse.{field}: expected a step below {last + 1}, in a training "
            f"of {length.total} steps, got {c[field]!r}, which is step {step}; set an "
            "earlier one, or the sparsity is never reached"
        )
    every = length.sparse.get("update_every", 0)
    first = length.sparse.get("begin_step", every)
    if rules.first_update == "one_interval" and first >= length.total:
        log.warning(
            "config.sparse.%s: expected a first mask update before the end of "
            "training, got step %s of %s; masks never change",
            "begin_step" if "begin_step" in length.sparse else "update_every",
            first,
            length.total,
        )


def make_distribution(config: ConfigDict) -> Any:
    """Returns how the sparsity of a config is distributed over layers.

    Args:
      config: a validated config.

    Returns:
      The name of a distribution; None for the method's default; or, if the config
      specifies sparsities per layer, a function of masks and the sparsity of all other
      layers.
    """
    layers = dict(config.sparse.layer_sparsity)
    if not layers:
        return config.sparse.distribution
    return lambda masks, sparsity: distributions.by_glob(
        masks, layers, otherwise=sparsity
    )


def prunable(config: ConfigDict) -> Any:
    """Returns which leaves of a config's network are prunable, for `masks.ones`.

    Ghost skips are not prunable, because they are removed at the end.

    Args:
      config: a validated config.

    Returns:
      Shell patterns, or the predicate `masks.is_kernel`.
    """
    globs = tuple(config.sparse.prunable or ())
    if config.tost.skips == "convolution":
        globs += ("!*skip*/*",)
    return globs or masks_lib.is_kernel


def masks_of_method(wrap: Wrap, params: Any, keys: Key[Array, "r"]) -> Any:
    """Makes the initial masks that a method chooses itself.

    Args:
      wrap: turns a dense optimizer into the sparse one, from `make_wrap`.
      params: initial weights [r ...].
      keys: typed random keys of the masks [r].

    Returns:
      Masks [r ...].
    """

    def one(weights: Any, key: Key[Array, ""]) -> Any:
        # The masks do not depend on the inner optimizer, so one without state serves.
        return transforms.get_masks(wrap(optax.identity(), key).init(weights))

    return jax.jit(jax.vmap(one))(params, keys)
