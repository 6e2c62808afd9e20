"""What jaxpruner does, to compare with; only this module imports it."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jaxpruner
import optax
from jaxpruner import sparsity_distributions

from experiments.benchmarks import mask_updates
from experiments.benchmarks.timing import Job

GIVEN_BACK = (
    "jaxpruner calls jax.tree_map, which this JAX has no longer; for these times it "
    "was given back."
)


@contextmanager
def restored() -> Iterator[str]:
    """Gives jaxpruner what JAX has removed since, and words that."""
    if hasattr(jax, "tree_map"):
        yield ""
        return
    jax.tree_map = jax.tree.map
    try:
        yield GIVEN_BACK
    finally:
        del jax.tree_map


def selection(sparsity: float) -> Callable[[Any], Any]:
    """Makes what selects from weights by magnitude, all layers together."""
    # Normalised scores, its default, would select something else.
    updater = jaxpruner.GlobalMagnitudePruning(
        sparsity=sparsity, use_normalization=False
    )
    return jax.jit(lambda params: updater.instant_sparsify(params)[1])


def _everywhere(sparsity: float) -> Callable[[Any], Any]:
    return functools.partial(sparsity_distributions.uniform, sparsity=sparsity)


def fixed(
    inner: optax.GradientTransformation, *, sparsity: float
) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Wraps an optimiser for fixed random masks.

    Returns:
      The optimiser, and what parameters go through after each update.
    """
    updater = jaxpruner.StaticRandomSparse(
        sparsity_distribution_fn=_everywhere(sparsity)
    )
    return updater.wrap_optax(inner), updater.post_gradient_update


def rigl_job(
    inner: optax.GradientTransformation, params: Any, grads: Any, *, sparsity: float
) -> Job:
    """Makes updates of RigL one by one, each of which changes masks."""
    updater = jaxpruner.RigL(
        sparsity_distribution_fn=_everywhere(sparsity),
        scheduler=jaxpruner.PeriodicSchedule(
            update_freq=1, update_start_step=0, update_end_step=10**9
        ),
    )
    tx = updater.wrap_optax(inner)

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: Any, grads: Any) -> Any:
        params, opt_state = state
        change, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, change)
        return updater.post_gradient_update(params, opt_state), opt_state

    return mask_updates.repeat(update, (params, tx.init(params)), grads)
