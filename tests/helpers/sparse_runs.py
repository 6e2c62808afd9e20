"""Sparse training through configs, so small that each method can have a run."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from helpers import tiny

from jaxsparse import config as config_lib
from jaxsparse import factory, metrics_log, transforms
from jaxsparse.data.dataset import Dataset
from jaxsparse.runner.task import TrainTask
from jaxsparse.training import state as state_lib
from jaxsparse.training.state import Seeds
from jaxsparse.types import Masks

# 64-20-15-10: 1,730 weights. 12 steps, evaluated after 0, 6 and 12. Epochs are one call
# each, and both sets that are evaluated have 50 examples, so that a run compiles one
# program of each kind.
SMALL = {
    "lottery.levels": 0,
    "model.features": (20, 15),
    "run.steps_per_call": 6,
    "data.validation": 50,
}
SHAPES = ((64, 20), (20, 15), (15, 10))
TOTAL = sum(map(math.prod, SHAPES))
OFTEN = {"sparse.update_every": "2step"}
SPANS = OFTEN | {"sparse.begin_step": "2step", "sparse.end_step": "9step"}
GROUPS = {
    "sparse.structure": "groups 5",
    "sparse.prunable": ("dense2/kernel", "head/kernel"),
    "sparse.sparsity": 0.8,
}
FIELDS: dict[str, dict[str, Any]] = {
    "static": {},
    "gmp": SPANS,
    "one_shot": {"sparse.begin_step": "5step"},
    "set": OFTEN,
    "rigl": SPANS,
    "srigl": SPANS,
    "mest": SPANS,
    "neurrev": SPANS,
    "snfs": SPANS,
    "granet": SPANS,
    "chts": SPANS,
    "east": SPANS,
    "ac_dc": SPANS,
    "ste": OFTEN,
    "top_kast": {},
    "sr_ste": GROUPS,
    "s_ste": GROUPS,
    "str": {"sparse.threshold_logit": -4.0},
    "continuous_sparsification": {
        "sparse.end_step": "9step",
        "sparse.mask_logit": 0.001,
    },
    "dynadiag": {"sparse.end_step": "9step"},
    "edge_popup": {},
    "gem_miner": OFTEN | {"sparse.end_step": "9step"},
    "weight_sparse": OFTEN | {"sparse.end_step": "9step"},
    "proximal_l1": {"sparse.l1_penalty": 0.05},
}


def fields_of(method: str, **more: Any) -> dict[str, Any]:
    own = {f"sparse.{name}": value for name, value in more.items()}
    return SMALL | {"sparse.method": method} | FIELDS[method] | own


def rows_of(folder: Path, kind: str) -> list[dict]:
    return [r for r in metrics_log.read(folder / "metrics.jsonl") if r["kind"] == kind]


def erk(kept: int, shapes: Sequence[tuple[int, int]]) -> list[float]:
    """Divides weights over layers in proportion to inputs and outputs together."""
    return [kept * sum(shape) / sum(map(sum, shapes)) for shape in shapes]


def erk_columns() -> list[int]:
    """Counts at 80 % with a dense head, where a layer's outputs have equally many."""
    shapes, head = SHAPES[:-1], math.prod(SHAPES[-1])
    exact = erk(round(0.2 * TOTAL) - head, shapes)
    counts = zip(exact, shapes, strict=True)
    return [*(round(count / shape[1]) * shape[1] for count, shape in counts), head]


def count_effective(mask: Any) -> int:
    """Counts the active weights between neurons that paths reach and leave again."""
    held = [mask[name]["kernel"] for name in ("dense1", "dense2", "head")]
    kernels = [
        np.ones(shape, bool) if kernel is None else np.asarray(kernel)
        for kernel, shape in zip(held, SHAPES, strict=True)
    ]
    reached, used = [np.ones(64, bool)], [np.ones(10, bool)]
    for kernel in kernels:
        reached.append(np.any(kernel & reached[-1][:, None], axis=0))
    for kernel in kernels[::-1]:
        used.insert(0, np.any(kernel & used[0], axis=1))
    return sum(
        int(np.sum(kernel & np.outer(reached[i], used[i + 1])))
        for i, kernel in enumerate(kernels)
        if held[i] is not None
    )


@functools.cache
def load_data() -> Dataset:
    """The data of all configs here."""
    return factory.load_data(tiny.config(SMALL))


def make_task(fields: dict[str, Any]) -> TrainTask:
    """Makes the network and optimizer of a config, without the rest of a trainer."""
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    length = factory.make_durations(c, steps_per_epoch=6)
    return factory.make_network(c, load_data(), length)


def seeds() -> Seeds:
    return state_lib.make_seeds(init=0, data=0, masks=0, replicates=2)


@functools.cache
def _weights(zeros: tuple[str, ...]) -> Any:
    fields = fields_of("static") | {"init.zero_init": zeros}
    return make_task(fields).initialize(seeds().init)[0]


def first_masks(fields: dict[str, Any]) -> tuple[TrainTask, Any, Masks]:
    """Chooses masks as a run does before it trains; all configs share weights [2 ...].

    Args:
      fields: fields of a config that do not change the weights, but for
        "init.zero_init".
    """
    task = make_task(fields)
    params = _weights(fields.get("init.zero_init", ()))
    assert task.first_masks is not None
    return task, params, task.first_masks(params, {}, seeds())


def descend(task: TrainTask) -> tuple[Any, Any]:
    """Trains one replicate for 12 steps by random gradients: the optimizer alone.

    Returns:
      Parameters and the state of the optimizer.
    """
    params = jax.tree.map(lambda leaf: leaf[0], _weights(()))
    draw = np.random.default_rng(0).normal
    grads = jax.tree.map(lambda leaf: np.float32(draw(size=(12, *leaf.shape))), params)

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        params, state = carry
        clock, grad = inputs
        updates, state = task.tx.update(grad, state, params, clock=clock)
        return (optax.apply_updates(params, updates), state), None

    def train(params: Any) -> Any:
        state = task.tx.init(params)
        params = transforms.stored_params(params, state)
        clocks = np.arange(12, dtype=np.int32)
        return jax.lax.scan(step, (params, state), (clocks, grads))[0]

    return jax.jit(train)(params)
