"""Exact selection of the largest of 11 million scores, against sorting."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import fixtures, timing
from experiments.benchmarks.timing import Table
from jaxsparse import masks as masks_lib
from jaxsparse import select
from jaxsparse.types import Scores

OURS, TOP_K, PARTITION = "jaxsparse.select", "jax.lax.top_k", "numpy.partition"
NOTE = (
    "`select` makes masks. `top_k` (jitted, over the concatenated scores or layer by "
    "layer) returns indices, and `partition` (on the host) returns a threshold. "
    "Neither makes a mask, and their times do not include that. The last column is "
    "`exact` if the count is right and the selected scores are those of `top_k`."
)


def resnet_18() -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the 21 kernels of CIFAR's ResNet-18: 11,164,352 weights."""
    shapes: dict[str, tuple[int, ...]] = {"conv": (3, 3, 3, 64)}
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for number in range(4):
            channels = inputs if number == 0 else width
            shapes[f"stage{stage}/conv{number}"] = (3, 3, channels, width)
        if inputs != width:
            shapes[f"stage{stage}/shortcut"] = (1, 1, inputs, width)
        inputs = width
    shapes["head"] = (512, 10)
    return shapes


def draw_scores(shapes: Mapping[str, tuple[int, ...]], *, tied: bool) -> Scores:
    """Draws absolute values of normal scores.

    Args:
      shapes: shapes by name of the layer.
      tied: whether to round to sixteenths, which leaves fewer than 100 values.
    """
    generator = np.random.default_rng(0)
    scores = {}
    for name, shape in shapes.items():
        score = np.abs(generator.standard_normal(shape, np.float32))
        scores[name] = jnp.asarray(np.round(score * 16) / 16 if tied else score)
    return scores


class Case(NamedTuple):
    """A selection to time.

    Attributes:
      name: name of the row.
      select: returns masks, by jaxsparse.
      pools: the flat scores that the other functions select from.
      counts: how many they select from each.
    """

    name: str
    select: Callable[[], Any]
    pools: list[jax.Array]
    counts: list[int]


def measure(
    *,
    seconds: float,
    repetitions: int = 3,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> list[Table]:
    """Times global and layer-wise selection of 10 and 50 %, with and without ties.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      shapes: shapes of the layers by name; None for those of ResNet-18.
    """
    shapes = resnet_18() if shapes is None else shapes
    rows, data = [], {}
    for case in _cases(shapes):
        top_k = _make_top_k(case)
        jobs = {
            OURS: fixtures.call_job(case.select),
            TOP_K: fixtures.call_job(top_k),
            PARTITION: fixtures.call_job(_make_partition(case)),
        }
        rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
        times = timing.milliseconds(rates)
        verdict = check(case.select(), top_k(), case.counts, case.pools)
        gains = [timing.ratios(rates[OURS], rates[n]) for n in (TOP_K, PARTITION)]
        cells = [timing.format_spread(values, 0) for values in times.values()]
        cells += [timing.format_spread(gain, 2) for gain in gains]
        rows.append((case.name, *cells, verdict))
        data[case.name] = {"milliseconds": times, "verdict": verdict}
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    speedups = [f"times as fast as {name}" for name in ("top_k", "partition")]
    header = ("", *(f"{name}, ms" for name in jobs), *speedups, "masks")
    title = f"Selection from {total:,} weights in {len(shapes)} layers (ResNet-18)"
    return [Table(title, header, rows, NOTE, data)]


def _cases(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Case]:
    for tied in (False, True):
        scores = draw_scores(shapes, tied=tied)
        kind = "tied" if tied else "continuous"
        leaves = [leaf.reshape(-1) for leaf in jax.tree.leaves(scores)]
        pool = jnp.concatenate(leaves)
        for percent in (10, 50):
            count = pool.size * percent // 100
            each = jax.tree.map(lambda leaf, p=percent: leaf.size * p // 100, scores)
            # Counts are traced arguments: one program serves every level.
            run = functools.partial(jax.jit(select.top_k_global), scores, count)
            yield Case(f"global, {percent} %, {kind}", run, [pool], [count])
            run = functools.partial(jax.jit(select.top_k_per_layer), scores, each)
            counts = jax.tree.leaves(each)
            yield Case(f"per layer, {percent} %, {kind}", run, leaves, counts)


def _make_top_k(case: Case) -> Callable[[], Any]:
    @jax.jit
    def run(pools: list[jax.Array]) -> list[jax.Array]:
        pairs = zip(pools, case.counts, strict=True)
        return [jax.lax.top_k(pool, count)[1] for pool, count in pairs]

    return functools.partial(run, case.pools)


def _make_partition(case: Case) -> Callable[[], Any]:
    pools = [np.asarray(pool) for pool in case.pools]

    def run() -> list[Any]:
        return [
            np.partition(pool, pool.size - count)[pool.size - count]
            for pool, count in zip(pools, case.counts, strict=True)
        ]

    return run


def check(
    masks: Any, best: list[Any], counts: list[int], pools: list[jax.Array]
) -> str:
    """Compares the selected scores with those of `top_k`.

    Args:
      masks: masks of all layers.
      best: the indices from `top_k`, in one pool or by layer.
      counts: how many scores should be selected from each pool.
      pools: the flat scores.

    Returns:
      "exact", or what is wrong.
    """
    if masks_lib.num_active(masks) != sum(counts):
        return f"WRONG: {masks_lib.num_active(masks)} selected, not {sum(counts)}"
    flat = [np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(masks)]
    flat = flat if len(best) > 1 else [np.concatenate(flat)]
    for mask, indices, count, pool in zip(flat, best, counts, pools, strict=True):
        ours, theirs = (np.sort(np.asarray(pool)[some]) for some in (mask, indices))
        if mask.sum() != count or not np.array_equal(ours, theirs):
            return "WRONG: other scores than top_k"
    return "exact"
