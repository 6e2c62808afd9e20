"""Makes the measurements that a config requests during training."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import masks as masks_lib
from jaxsparse.analysis import gradient_flow
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory.durations import Durations
from jaxsparse.training import vmap_seeds
from jaxsparse.training.probe import Probe
from jaxsparse.transforms import update_schedules
from jaxsparse.types import Masks, Params


def check(config: ConfigDict) -> None:
    """Checks that the options of measurements have an effect.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if one has none; the message names the config field.
    """
    c, plain = config.analysis, config_lib.read_only_default().analysis
    if c.examples != plain.examples and not (c.gradient_every or c.at_mask_updates):
        raise ValueError(
            f"config.analysis.examples: expected {plain.examples} without a "
            f"measurement, got {c.examples}; set analysis.gradient_every or "
            "analysis.at_mask_updates"
        )
    methods = config_lib.METHODS
    if (
        c.at_mask_updates
        and not methods.find(config.sparse.method).mask_updates.first_update
    ):
        known = sorted(
            name for name, spec in methods.items() if spec.mask_updates.first_update
        )
        raise ValueError(
            "config.analysis.at_mask_updates: expected False with sparse.method "
            f"{config.sparse.method!r}, whose mask updates have no known steps, got "
            f"True; choose one of {known}"
        )


def update_steps(config: ConfigDict, length: Durations) -> tuple[int, ...]:
    """Returns the training steps at which a method updates masks.

    Args:
      config: a validated config.
      length: durations of the config in steps.

    Returns:
      Steps before the end of training, increasing; () if they are not known in advance.
    """
    c, when = config.sparse, length.sparse
    method = config_lib.METHODS.find(c.method)
    rules = method.mask_updates
    if not rules.first_update:
        return ()
    # Must agree with the schedules that the methods make for themselves.
    every = when["update_every"]
    begin = when.get("begin_step", every if rules.first_update == "one_interval" else 0)
    # A method without the field "end_step" updates masks once.
    end = when.get("end_step", length.total) if "end_step" in method.fields else begin
    include_end = rules.includes_end(c)
    schedule = update_schedules.UpdateSchedule(
        begin, every, end, include_end=include_end
    )
    steps = update_schedules.update_steps(schedule)
    return tuple(step for step in steps if step < length.total)


def make_probe(
    config: ConfigDict,
    dataset: Dataset,
    loss: gradient_flow.Loss,
    length: Durations,
    *,
    how: Any,
) -> Probe | None:
    """Makes the probe that records the gradient norm; None if the config has none.

    It is measured on the first `analysis.examples` training examples, without
    augmentation. Matrix products use full float32 precision on every device.

    Args:
      config: a validated config.
      dataset: the dataset.
      loss: loss function `EvalFns.loss`, in training mode.
      length: durations of the config in steps.
      how: how the function is mapped over replicates: "vmap", "map" or "unroll", see
        `training.vmap_seeds`.

    Raises:
      ValueError: if there are fewer training examples.
    """
    c, every = config.analysis, length.intervals.gradient_every
    if not every and not c.at_mask_updates:
        return None
    there = len(dataset.train.labels)
    if c.examples > there:
        raise ValueError(
            f"config.analysis.examples: expected at most the {there} training "
            f"examples, got {c.examples}; set fewer"
        )
    at = tuple(range(0, length.total + 1, every)) if every else ()
    images = jnp.asarray(dataset.train.images[: c.examples])
    labels = jnp.asarray(dataset.train.labels[: c.examples])

    def one(params: Params, masks: Masks, batch: Any) -> Any:
        grads = gradient_flow.gradient(loss, params, masks, batch)
        return gradient_flow.measure(grads, masks)

    mapped = vmap_seeds.over_replicates(
        one,
        how=how,
        replicates=config.replicates,
        in_axes=(0, 0, None),
        out_axes=0,
    )
    measure = jax.jit(mapped)

    def observe(params: Params, masks: Masks, stats: Any) -> Any:
        del stats  # in training mode BatchNorm uses those of the batch
        weights = masks_lib.apply(masks, params)
        with jax.default_matmul_precision("highest"):
            return measure(weights, masks, (images, labels))

    return Probe(
        at=at,
        changes=update_steps(config, length) if c.at_mask_updates else (),
        measure=observe,
        rows=_rows,
    )


def _rows(flow: Any) -> list[dict[str, Any]]:
    """Converts a fetched `gradient_flow.Flow` to the record fields of each replicate.

    Args:
      flow: norms [r], in total and by layer, as numpy arrays.
    """
    return [
        {
            "norm": float(norm),
            "layers": {name: float(value[r]) for name, value in flow.layers.items()},
        }
        for r, norm in enumerate(flow.norm)
    ]


def check_kept(length: Durations) -> None:
    """Checks that states to save for analyses are at steps of training.

    Args:
      length: durations of the config in steps.

    Raises:
      ValueError: if a step is after the end of training; the message names the field.
    """
    late = [step for step in length.intervals.save_at if step > length.total]
    if late:
        raise ValueError(
            f"config.analysis.save_at: expected steps up to {length.total}, the length "
            f"of training, got {late}; choose earlier ones"
        )
