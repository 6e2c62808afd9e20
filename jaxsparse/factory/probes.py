"""What a config has measured and kept while a run trains."""

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
from jaxsparse.training.callbacks import Probe
from jaxsparse.transforms import update_schedules
from jaxsparse.types import Masks, Params


def check(config: ConfigDict) -> None:
    """Refuses what would measure nothing.

    Raises:
      ValueError: naming the field.
    """
    c, plain = config.analysis, config_lib.default().analysis
    if c.examples != plain.examples and not (c.gradient_every or c.at_changes):
        raise ValueError(
            f"config.analysis.examples: came {c.examples} and nothing is measured on "
            f"them; wanted {plain.examples}, or analysis.gradient_every or at_changes"
        )
    methods = config_lib.METHODS
    if c.at_changes and not methods.find(config.sparse.method).first_update:
        known = sorted(name for name, spec in methods.items() if spec.first_update)
        raise ValueError(
            f"config.analysis.at_changes: came True with sparse.method "
            f"{config.sparse.method!r}; wanted one of {known}, "
            "whose masks change at known updates"
        )


def update_steps(config: ConfigDict, length: Durations) -> tuple[int, ...]:
    """Lists the updates of a run in which its method may change masks."""
    c, when = config.sparse, length.sparse
    method = config_lib.METHODS.find(c.method)
    if not method.first_update:
        return ()
    every = when["update_every"]
    begin = when.get("begin", every if method.first_update == "one_interval" else 0)
    # A method that reads no end changes masks once.
    end = when.get("end", length.total) if "end" in method.fields else begin
    closes = method.includes_end(c)
    calendar = update_schedules.UpdateSchedule(begin, every, end, closes=closes)
    steps = update_schedules.update_steps(calendar)
    return tuple(step for step in steps if step < length.total)


def make_probe(
    config: ConfigDict,
    dataset: Dataset,
    loss: gradient_flow.Loss,
    length: Durations,
    *,
    how: Any,
) -> Probe | None:
    """Makes what records the gradient flow; None if the config wants none.

    It is measured on the first `analysis.examples` training examples as they are.
    Products of float32 are those of float32 on every device.

    Args:
      config: a validated config.
      dataset: what is trained on.
      loss: of `functions.make_functions`.
      length: lengths of training in updates.
      how: how replicates are arranged, see `training.replicates`.

    Raises:
      ValueError: if there are not so many examples.
    """
    c, every = config.analysis, length.gradient_every
    if not every and not c.at_changes:
        return None
    there = len(dataset.train.labels)
    if c.examples > there:
        raise ValueError(
            f"config.analysis.examples: came {c.examples}; wanted at most {there}, "
            "which there are to train on"
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
        del stats  # in training mode BatchNorm takes those of the examples
        weights = masks_lib.apply(masks, params)
        with jax.default_matmul_precision("highest"):
            return measure(weights, masks, (images, labels))

    return Probe(
        at=at,
        changes=update_steps(config, length) if c.at_changes else (),
        measure=observe,
        rows=_rows,
    )


def _rows(flow: Any) -> list[dict[str, Any]]:
    """Words a `Flow` of numpy arrays [r]."""
    return [
        {
            "norm": float(norm),
            "layers": {name: float(value[r]) for name, value in flow.layers.items()},
        }
        for r, norm in enumerate(flow.norm)
    ]


def check_kept(length: Durations) -> None:
    """Refuses to keep states that training does not come to.

    Raises:
      ValueError: naming the field.
    """
    late = [step for step in length.keep_at if step > length.total]
    if late:
        raise ValueError(
            f"config.analysis.keep_at: came to updates {late} of a training of "
            f"{length.total}; wanted at most as many"
        )
