"""Compaction: the same network without neurons and channels that contribute nothing.

Pruning single weights makes a network no smaller until whole units have lost all their
weights. `compact` finds these units in any forward function and removes them with all
their parameters. Outputs stay the same up to rounding; what cannot be removed exactly
stays, and the report says why. `compact_linen` and `compact_nnx` also return a smaller
module, and `compact_run` does so for a level of a run.

    small = compaction.compact(apply, params, masks, jnp.ones((1, 28, 28, 1)))
    small.params, small.masks, small.report.parameters

Which weights to prune is decided elsewhere (`select`, `transforms`).
"""

from jaxsparse.compaction.compacted import Compacted, Report, compact
from jaxsparse.compaction.linen_modules import compact_linen
from jaxsparse.compaction.nnx_modules import compact_nnx
from jaxsparse.compaction.trained_runs import compact_run

__all__ = (
    "Compacted",
    "Report",
    "compact",
    "compact_linen",
    "compact_nnx",
    "compact_run",
)
