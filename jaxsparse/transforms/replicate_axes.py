"""Axes of a sparse optimizer state with replicates, for `jax.vmap`."""

from typing import Any

import jax
import optax

from jaxsparse.transforms.parts import ProjectedState, ReparameterizedState
from jaxsparse.transforms.state import LatentState, SparseState


def replicate_axes(opt_state: optax.OptState) -> optax.OptState:
    """Returns `vmap` axes for an optimizer state with a leading replicate axis.

    All leaves are batched except the flag that masks were replaced and the steps, also
    that of a projection or reparameterization right within the method. With these,
    `vmap` would turn conditionals, as around a mask update, into selects.

    Args:
      opt_state: state of one replicate or of several; it may be abstract.

    Returns:
      A tree of 0 and None for `in_axes` or `out_axes` of `jax.vmap`.

    Examples:
      >>> tx = transforms.rigl(optax.sgd(0.1), sparsity=0.9, end_step=75_000)
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> params = jax.vmap(model.init, in_axes=(0, None))(keys, inputs)
      >>> axes = transforms.replicate_axes(jax.eval_shape(tx.init, params))
      >>> opt_states = jax.vmap(tx.init, out_axes=axes)(params)
    """

    def axes(node: Any) -> Any:
        if not isinstance(node, SparseState):
            return 0
        batched = jax.tree.map(lambda _: 0, node)._replace(step=None)
        inner = batched.inner_state
        if isinstance(inner, ReparameterizedState | ProjectedState):
            batched = batched._replace(inner_state=inner._replace(step=None))
        if isinstance(node, LatentState):
            return batched
        return batched._replace(replaced=None)

    return jax.tree.map(
        axes, opt_state, is_leaf=lambda node: isinstance(node, SparseState)
    )
