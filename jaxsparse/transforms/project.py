"""Projection after the step: full steps of an optimizer, each followed by a projection.

The gradient is taken at the projected weights and is dense, so weights that a
projection made zero take part in the next step and may become nonzero again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsparse import arguments
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import Prunable
from jaxsparse.transforms.reparameterize import difference
from jaxsparse.transforms.self_sparse import follow_zeros
from jaxsparse.types import Grads, Params, Step

# (weights after the optimizer's step, number of updates made so far) -> weights
Projection = Callable[[Params, Step], Params]


class ProjectedState(NamedTuple):
    """State of `project`, within that of the masks.

    Attributes:
      step: number of updates made so far; int32 scalar, counted from 0.
      inner_state: state of the wrapped optimizer.
    """

    step: Step
    inner_state: optax.OptState


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
        `optax.lookahead`, which must wrap the result instead.
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
      ValueError: from `init`, if the parameters are `optax.LookaheadParams`; from
        `update`, if `params` is None.

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
        return ProjectedState(jnp.zeros((), jnp.int32), inner.init(params))

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
