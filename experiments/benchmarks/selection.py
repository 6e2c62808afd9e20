"""Exact selection at 11 million weights, against sorting."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import masks as masks_lib
from jaxsparse import select
from jaxsparse.types import Scores

OURS, TOP_K, PARTITION = "jaxsparse.select", "jax.lax.top_k", "numpy.partition"


def resnet_18() -> dict[str, tuple[int, ...]]:
    """Lists the 21 kernels of ResNet-18 as it is used on CIFAR: 11,164,352 weights."""
    shapes: dict[str, tuple[int, ...]] = {"conv": (3, 3, 3, 64)}
    before = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for place in range(4):
            narrow = before if place == 0 else width
            shapes[f"stage{stage}/conv{place}"] = (3, 3, narrow, width)
        if before != width:
            shapes[f"stage{stage}/shortcut"] = (1, 1, before, width)
        before = width
    shapes["head"] = (512, 10)
    return shapes


def draw_scores(shapes: Mapping[str, tuple[int, ...]], *, tied: bool) -> Scores:
    """Draws |normal| scores; tied ones are rounded to sixteenths, under 100 values."""
    draw = np.random.default_rng(0)
    scores = {}
    for name, shape in shapes.items():
        score = np.abs(draw.standard_normal(shape, np.float32))
        scores[name] = jnp.asarray(np.round(score * 16) / 16 if tied else score)
    return scores


def measure(
    *,
    seconds: float,
    repetitions: int = 3,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    what: str = "ResNet-18",
) -> list[Table]:
    """Times selection over all layers and layer by layer, for each kind of scores."""
    shapes = resnet_18() if shapes is None else shapes
    rows, data = [], {}
    for case, selects, pools, counts in _cases(shapes):
        top_k = _make_top_k(pools, counts)
        jobs = _jobs(selects, top_k, pools, counts)
        rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
        verdict = _verdict(selects(), top_k(), counts, pools)
        times = {name: [1000 / rate for rate in rates[name]] for name in rates}
        gains = [timing.ratios(rates[OURS], rates[n]) for n in (TOP_K, PARTITION)]
        cells = [timing.spread(times[n], 0) for n in (OURS, TOP_K, PARTITION)]
        cells += [timing.spread(gain, 2) for gain in gains]
        rows.append((case, *cells, verdict))
        data[case] = {"milliseconds": times, "verdict": verdict}
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    header = (
        "",
        f"{OURS}, ms",
        f"{TOP_K}, ms",
        f"{PARTITION}, ms",
        "times faster than top_k",
        "times faster than partition",
        "masks",
    )
    note = (
        "`select` makes masks. `top_k` (jitted, over the values concatenated "
        "beforehand, or layer by layer) returns indices and `partition` (on the host) "
        "a threshold: neither makes a mask, and their time does not include that. "
        '"exact" says that the count is right and the scores kept are those of top_k.'
    )
    title = f"Selecting from {total:,} weights in {len(shapes)} layers ({what})"
    return [Table(title, header, rows, note, data)]


Case = tuple[str, Callable[[], Any], list[jax.Array], list[int]]


def _cases(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Case]:
    """Yields a name, our selection, and what the others select from, how many."""
    for tied in (False, True):
        scores = draw_scores(shapes, tied=tied)
        kind = "tied" if tied else "continuous"
        leaves = [leaf.reshape(-1) for leaf in jax.tree.leaves(scores)]
        pool = jnp.concatenate(leaves)
        for percent in (10, 50):
            count = pool.size * percent // 100
            each = jax.tree.map(lambda leaf, p=percent: leaf.size * p // 100, scores)
            # Counts are arguments that may change: one program serves every level.
            run = functools.partial(jax.jit(select.top_k_global), scores, count)
            yield f"all layers together, {percent} %, {kind}", run, [pool], [count]
            run = functools.partial(jax.jit(select.top_k_per_layer), scores, each)
            found = jax.tree.leaves(each)
            yield f"layer by layer, {percent} %, {kind}", run, leaves, found


def _make_top_k(pools: list[jax.Array], counts: list[int]) -> Callable[[], Any]:
    run = jax.jit(
        lambda pools: [
            jax.lax.top_k(pool, k)[1] for pool, k in zip(pools, counts, strict=True)
        ]
    )
    return functools.partial(run, pools)


def _jobs(
    selects: Callable[[], Any],
    top_k: Callable[[], Any],
    pools: list[jax.Array],
    counts: list[int],
) -> dict[str, Job]:
    host = [np.asarray(pool) for pool in pools]

    def partition() -> list[Any]:
        return [
            np.partition(pool, pool.size - k)[pool.size - k]
            for pool, k in zip(host, counts, strict=True)
        ]

    def job(call: Callable[[], Any]) -> Job:
        def run(count: int) -> None:
            for _ in range(count):
                jax.block_until_ready(call())

        return Job(run, 1)

    return {
        OURS: job(selects),
        TOP_K: job(top_k),
        PARTITION: job(partition),
    }


def _verdict(
    kept: Any, best: list[Any], counts: list[int], pools: list[jax.Array]
) -> str:
    """Compares the scores kept with those that top_k found, in one pool or by layer."""
    if masks_lib.num_active(kept) != sum(counts):
        return f"WRONG: {masks_lib.num_active(kept)} kept of {sum(counts)}"
    flat = [np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(kept)]
    flat = flat if len(best) > 1 else [np.concatenate(flat)]
    for mask, indices, count, pool in zip(flat, best, counts, pools, strict=True):
        ours, theirs = (np.sort(np.asarray(pool)[some]) for some in (mask, indices))
        if mask.sum() != count or not np.array_equal(ours, theirs):
            return "WRONG: not those of top_k"
    return "exact"
