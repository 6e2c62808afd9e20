"""Selection from 11 and 100 million scores, in units of one pass over them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from experiments.benchmarks import fixtures, selection, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import select
from jaxsparse.types import Scores

PASS = "one pass"
Shapes = Mapping[str, tuple[int, ...]]


def measure(
    *, seconds: float, repetitions: int = 5, sizes: tuple[Shapes, ...] | None = None
) -> list[Table]:
    """Times global selection of 10 %, and one count of the scores above a threshold.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      sizes: shapes of the layers by name; None for those of ResNet-18 and, on
        accelerators, nine times as many.
    """
    if sizes is None:
        sizes = (selection.resnet_18(),)
        if not fixtures.on_cpu():
            sizes += (repeated(sizes[0], 9),)
    rows, data = [], {}
    for shapes in sizes:
        scores = selection.draw_scores(shapes, tied=False)
        jobs = make_jobs(scores)
        rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
        times = timing.milliseconds(rates)
        passes = {
            name: timing.ratios(values, times[PASS])
            for name, values in times.items()
            if name != PASS
        }
        total = f"{sum(leaf.size for leaf in jax.tree.leaves(scores)):,}"
        cells = [timing.format_rates(values) for values in times.values()]
        cells += [timing.format_spread(values, 1) for values in passes.values()]
        rows.append((total, *cells))
        data[total] = {"milliseconds": times, "passes": passes}
    columns = [f"{name}, ms" for name in times]
    columns += [f"{name}, passes" for name in passes]
    note = (
        "Continuous scores, in the layers of ResNet-18; all programs are jitted. One "
        "pass counts in every layer the scores that reach a threshold. On CPUs `top_k` "
        "is in the table of selections."
    )
    title = "Selection of 10 % in passes over the scores"
    return [Table(title, ("scores", *columns), rows, note, data)]


def repeated(shapes: Shapes, times: int) -> Shapes:
    """Returns as many copies of layers, under new names.

    Args:
      shapes: shape by name of the layer.
      times: number of copies of each layer.
    """
    return {
        f"copy{n}/{name}": shape for n in range(times) for name, shape in shapes.items()
    }


def make_jobs(scores: Scores) -> dict[str, Job]:
    """Makes the jobs of one size; `top_k`, which takes seconds on CPUs, not there.

    Args:
      scores: scores by layer.
    """
    total = sum(leaf.size for leaf in jax.tree.leaves(scores))
    count = total // 10

    keep = jax.jit(select.top_k_global)
    jobs = {
        selection.OURS: fixtures.call_job(lambda: keep(scores, count)),
        PASS: fixtures.call_job(lambda: count_reached(scores, 1.0)),
    }
    if not fixtures.on_cpu():
        pool = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(scores)])
        top_k = jax.jit(lambda pool: jax.lax.top_k(pool, count))
        jobs[selection.TOP_K] = fixtures.call_job(lambda: top_k(pool))
    return jobs


@jax.jit
def count_reached(scores: Scores, cut: float) -> jax.Array:
    """Counts the scores that reach a threshold, in one pass over them.

    Args:
      scores: scores by layer.
      cut: the threshold.
    """
    # float32 counts along the last axis exactly, and faster than int32 on CPUs.
    counts = [
        jnp.sum(jnp.sum(leaf >= cut, axis=-1, dtype=jnp.float32), dtype=jnp.float32)
        for leaf in jax.tree.leaves(scores)
    ]
    return jnp.sum(jnp.stack(counts).astype(jnp.int32))
