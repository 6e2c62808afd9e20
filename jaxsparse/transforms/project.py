"""Projection after the step: full steps of an optimizer, each followed by a projection.

The gradient is taken at the projected weights and is dense, so weights that a
projection made zero take part in the next step and may become nonzero again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import Prunable
from jaxsparse.transforms import fitting
from jaxsparse.transforms.part_states import check_inner
from jaxsparse.transforms.parts import ProjectedState
from jaxsparse.transforms.reparameterize import difference
from jaxsparse.transforms.self_sparse import follow_zeros
from jaxsparse.types import Grads, Params, Step

# (weights after the optimizer's step, number of updates made so far) -> weights
Projection = Callable[[Params, Step], Params]


@arguments.check(inner=arguments.optimizer, projection=arguments.function)
def project(
    inner: optax.GradientTransformation,
    projection: Projection,
    *,
    prunable: Prunable = masks_lib.is_kernel,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimizer so that each of its steps ends with a projection.

    With weights w and the dense gradient g at w, one update gets u from `inner` and
    returns :math:`P(w + u) - w`, so that `optax.apply_updates` gives
    :math:`P(w + u)`, rounded like any sum; zeros are exact. The optimizer's state is
    left as it is. The masks after an update are those of the weights that are not zero;
    initial weights are not projected.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation except
        `optax.lookahead`, which must wrap the result instead, and `reparameterize`.
      projection: called as `projection(params, step)` with all parameters after the
        optimizer's step, and the number of updates so far, this one included; returns
        parameters of the same shapes. It must be traceable. A proximal operator is a
        projection here, too.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves.

    Returns:
      A transformation whose state is a `LatentState`. Compute with the parameters, or
      with `forward_params`, which returns the same.

    Raises:
      ValueError: from `init`, if the parameters are `optax.LookaheadParams` or `inner`
        is reparameterized, whose parts the projection would not reach, or `projection`
        returns other leaves; from `update`, if `params` is None.

    Examples:
      >>> def positive(params, step):
      ...     return jax.tree.map(jax.nn.relu, params)
      >>> tx = transforms.project(optax.adam(1e-3), positive)
      >>> opt_state = tx.init(params)
      >>> grads = jax.grad(loss)(params, inputs)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> params = optax.apply_updates(params, updates)
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> ProjectedState:
        step = jnp.zeros((), jnp.int32)
        if not fitting.is_placeholder(params):
            tree.match_structure(
                jax.eval_shape(projection, params, step),
                params,
                fields=("projection's result", "params"),
                same_leaves=True,
                remedy="return parameters of the same names and shapes",
            )
        inner_state = inner.init(params)
        # The next update would compute the weights from parts without the projection.
        check_inner(
            inner_state, "make the projection a part of its `adjust`, or choose one"
        )
        return ProjectedState(step, inner_state)

    def update(
        grads: Grads,
        state: ProjectedState,
        params: Params,
        **extra: Any,
    ) -> tuple[Params, ProjectedState]:
        updates, inner_state = inner.update(grads, state.inner_state, params, **extra)
        step = optax.safe_increment(state.step)
        targets = projection(optax.apply_updates(params, updates), step)
        updates = jax.tree.map(difference, targets, params)
        return updates, ProjectedState(step, inner_state)

    projected = optax.GradientTransformationExtraArgs(init, update)
    return follow_zeros(projected, prunable=prunable)
