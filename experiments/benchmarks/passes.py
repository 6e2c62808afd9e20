"""Selection from 11 and 100 million scores, in units of one pass over them."""

from collections.abc import Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from experiments.benchmarks import fixtures, selection, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import select
from jaxsparse.select import counting, inputs, thresholds
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
        counted = count_passes(scores, count_selected(scores))
        rows.append((total, *cells, f"{counted:.1f}"))
        data[total] = {"milliseconds": times, "passes": passes, "counted": counted}
    columns = [f"{name}, ms" for name in times]
    columns += [f"{name} / one pass" for name in passes]
    columns.append("counting passes")
    note = (
        "Continuous scores, in the layers of ResNet-18; all programs are jitted. One "
        "pass counts in every layer the scores that reach a threshold, in the sums "
        "that selection uses. Counting passes: how often selection counts the scores "
        "that reach a threshold. Not among them are the conversion of the scores to "
        "sortable integers, the comparison with the final threshold that makes the "
        "masks, and the counts of a sample. On CPUs `top_k` is in the table of "
        "selections."
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


def count_selected(scores: Scores) -> int:
    """Returns a tenth of the number of scores.

    Args:
      scores: scores by layer.
    """
    return sum(leaf.size for leaf in jax.tree.leaves(scores)) // 10


def make_jobs(scores: Scores) -> dict[str, Job]:
    """Makes the jobs of one size; `top_k`, which takes seconds on CPUs, not there.

    Args:
      scores: scores by layer.
    """
    count = count_selected(scores)
    keep = jax.jit(select.top_k_global)
    layers = [inputs.Layer("", leaf, None, frozen=False) for leaf in scores.values()]
    sortable = thresholds.sortable_bits(layers)
    cut = int(jnp.median(sortable[0]))
    jobs = {
        selection.OURS: fixtures.call_job(lambda: keep(scores, count)),
        PASS: fixtures.call_job(lambda: count_reached(sortable, cut)),
    }
    if not fixtures.on_cpu():
        pool = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(scores)])
        top_k = jax.jit(lambda pool: jax.lax.top_k(pool, count))
        jobs[selection.TOP_K] = fixtures.call_job(lambda: top_k(pool))
    return jobs


@jax.jit
def count_reached(scores: Scores, cut: int) -> jax.Array:
    """Counts the scores that reach a threshold, as each iteration of a selection does.

    Args:
      scores: scores by layer, as sortable integers.
      cut: the threshold, as such an integer.
    """
    counts = [
        counting.count(leaf, jnp.asarray(cut, leaf.dtype), jnp.int32)
        for leaf in jax.tree.leaves(scores)
    ]
    return jnp.sum(jnp.stack(counts))


def count_passes(scores: Scores, count: int) -> float:
    """Counts how often a selection counts the scores that reach a threshold.

    Args:
      scores: scores by layer.
      count: number of scores to select.

    Returns:
      The number of scores in these counts, divided by the number of all scores. The
      conversion to sortable integers, the final comparison that makes the masks, and
      the counts of a sample are left out.
    """
    compared: list[int] = []
    real = counting.count

    def noted(value: Any, cut: Any, integer: Any) -> Any:
        jax.debug.callback(lambda: compared.append(value.size))
        return real(value, cut, integer)

    jax.clear_caches()  # so that the selection is traced with `noted`
    with mock.patch.object(counting, "count", noted):
        jax.block_until_ready(select.top_k_global(scores, count))
    jax.effects_barrier()
    jax.clear_caches()
    return sum(compared) / sum(leaf.size for leaf in jax.tree.leaves(scores))
