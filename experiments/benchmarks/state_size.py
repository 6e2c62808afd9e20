"""The size of the state that sparse optimizers add, without computing anything."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import mask_updates, selection
from experiments.benchmarks.timing import Table
from jaxsparse import transforms

INNER = optax.sgd(0.1, momentum=0.9)
METHODS: dict[str, mask_updates.Wrap] = {
    "fixed": lambda inner, every: transforms.fixed(inner),
    "magnitude, global": mask_updates.METHODS["magnitude, global"],
    "RigL": mask_updates.rigl,
}
_PACKED = {"layers": transforms.LayerOptions(pack_masks=True)}
METHODS |= {
    "fixed, packed masks": lambda inner, every: transforms.fixed(
        inner, pack_masks=True
    ),
    "magnitude, global, packed masks": functools.partial(
        mask_updates.METHODS["magnitude, global"],
        layers=transforms.LayerOptions(distribution="global", pack_masks=True),
    ),
    "RigL, packed masks": functools.partial(mask_updates.rigl, **_PACKED),
}


def measure(
    *,
    seconds: float,
    repetitions: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> list[Table]:
    """Counts the bytes that each method adds to the state of SGD with momentum.

    Args:
      seconds: not used: nothing is timed.
      repetitions: not used.
      shapes: shapes of the kernels by name; None for those of ResNet-18.
    """
    del seconds, repetitions
    shapes = selection.resnet_18() if shapes is None else shapes
    optimizers = {
        name: wrap(INNER, mask_updates.EVERY) for name, wrap in METHODS.items()
    }
    return [table("State beyond the optimizer's: ", optimizers, shapes)]


def table(
    title: str,
    optimizers: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    note: str = "",
    absent: Mapping[str, str] | None = None,
) -> Table:
    """Makes the table of the bytes that optimizers add to the state of `INNER`.

    Args:
      title: what stands in the title before the number of weights.
      optimizers: wrapped around `INNER`, by row.
      shapes: shapes of the kernels by name.
      note: a further sentence on how to read the table; "" for none.
      absent: the reasons why rows were not measured, by row; None for no such rows.
    """
    params = abstract_kernels(shapes)
    base, weights = count_bytes(INNER, params), _bytes(params)
    added = {name: count_bytes(tx, params) - base for name, tx in optimizers.items()}
    rows = [
        (name, f"{size:,}", f"{size / weights:.3f}") for name, size in added.items()
    ]
    rows += [(name, reason, "") for name, reason in (absent or {}).items()]
    data: dict[str, Any] = {"share": {n: [s / weights] for n, s in added.items()}}
    data |= {} if absent is None else {"absent": dict(absent)}
    return Table(
        title=f"{title}{weights // 4:,} weights",
        header=("", "bytes", "share of the float32 weights"),
        rows=rows,
        note=f"Around SGD with momentum. {note}".strip(),
        data=data,
    )


def abstract_kernels(shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Makes the shapes and dtypes of float32 kernels.

    Args:
      shapes: shape of the kernel by name of the layer.
    """
    return {
        name: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}
        for name, shape in shapes.items()
    }


def count_bytes(tx: Any, params: Any) -> int:
    """Counts the bytes of an optimizer's state.

    Args:
      tx: the optimizer.
      params: arrays, or their shapes and dtypes.
    """
    return _bytes(jax.eval_shape(tx.init, params))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
