"""Pruning by jaxpruner; only this module imports it."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jaxpruner
import optax
from jaxpruner import sparsity_distributions

from experiments.benchmarks import bare_scan
from experiments.benchmarks.timing import Job

RESTORED = (
    "jaxpruner calls jax.tree_map, which this version of JAX has removed; it was "
    "restored for these measurements."
)


def _tree_map(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Maps as JAX did then: None in the first tree stands for any subtree."""

    def of_leaf(leaf: Any, *others: Any) -> Any:
        return None if leaf is None else function(leaf, *others)

    return jax.tree.map(of_leaf, tree, *rest, is_leaf=lambda leaf: leaf is None)


@contextmanager
def restored() -> Iterator[str]:
    """Restores `jax.tree_map` for jaxpruner; yields a note, "" if it still exists."""
    if hasattr(jax, "tree_map"):
        yield ""
        return
    jax.tree_map = _tree_map
    try:
        yield RESTORED
    finally:
        del jax.tree_map


def selection(sparsity: float) -> Callable[[Any], Any]:
    """Makes a function from weights to masks, by global magnitude.

    Args:
      sparsity: fraction of weights to prune, 0 to 1.
    """
    # With normalized scores, its default, it would select other weights.
    updater = jaxpruner.GlobalMagnitudePruning(
        sparsity=sparsity, use_normalization=False
    )
    return jax.jit(lambda params: updater.instant_sparsify(params)[1])


def _uniform(sparsity: float) -> Callable[[Any], Any]:
    return functools.partial(sparsity_distributions.uniform, sparsity=sparsity)


def fixed(
    inner: optax.GradientTransformation, *, sparsity: float
) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Wraps an optimizer for fixed random masks.

    Args:
      inner: the optimizer.
      sparsity: fraction of each layer that is pruned.

    Returns:
      The wrapped optimizer, and the function from `(params, opt_state)` to parameters
      that has to be called after each update.
    """
    updater = jaxpruner.StaticRandomSparse(sparsity_distribution_fn=_uniform(sparsity))
    return updater.wrap_optax(inner), updater.post_gradient_update


def rigl(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    every: int,
) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Wraps an optimizer for RigL.

    Args:
      inner: the optimizer.
      sparsity: fraction of each layer that is pruned.
      every: steps between two mask updates, the first of which is in the first step.

    Returns:
      The wrapped optimizer, and the function from `(params, opt_state)` to parameters
      that has to be called after each update.
    """
    updater = jaxpruner.RigL(
        sparsity_distribution_fn=_uniform(sparsity),
        scheduler=jaxpruner.PeriodicSchedule(
            update_freq=every, update_start_step=0, update_end_step=10**9
        ),
    )
    return updater.wrap_optax(inner), updater.post_gradient_update


def shared_step(opt_state: Any) -> Any:
    """Returns axes for `jax.vmap` of a state, all batched but the number of the step.

    With a batched step, `jax.vmap` turns the conditional around a mask update into a
    select, so that every step computes a mask update.

    Args:
      opt_state: state of a wrapped optimizer; it may be abstract.
    """
    return jax.tree.map(lambda _: 0, opt_state)._replace(count=None)


def rigl_job(
    inner: optax.GradientTransformation, params: Any, grads: Any, *, sparsity: float
) -> Job:
    """Times the first step of RigL, which updates the masks.

    Args:
      inner: the optimizer.
      params: initial parameters.
      grads: the gradient of the step.
      sparsity: fraction of each layer that is pruned.
    """
    tx, after = rigl(inner, sparsity=sparsity, every=1)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, grads: Any) -> Any:
        params, opt_state = state
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return after(params, opt_state), opt_state

    return bare_scan.repeat(step, (params, tx.init(params)), grads)
