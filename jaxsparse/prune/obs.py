"""SparseGPT: pruning layer by layer with the optimal brain surgeon."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxsparse import arguments
from jaxsparse.layer_options import LayerOptions
from jaxsparse.prune import layerwise
from jaxsparse.prune.layerwise import Pruned
from jaxsparse.types import Params


@arguments.check(
    apply=arguments.function,
    sparsity=arguments.fraction,
    damping=arguments.number(0),
    block_size=arguments.integer(1),
)
def obs(
    apply: Callable[..., Any],
    params: Params,
    sparsity: float,
    *inputs: Any,
    damping: float = 0.01,
    block_size: int = 128,
    layers: LayerOptions | None = None,
) -> Pruned:
    r"""Prunes layers, and updates other weights so that outputs change least.

    For a layer with inputs :math:`X` (examples by inputs), removing a weight
    :math:`w_j` of an output and changing the later ones by

    .. math:: \delta = - \frac{w_j}{[H^{-1}]_{jj}} [H^{-1}]_{:,j},
       \qquad H = X^T X + \lambda I

    changes the outputs least, by :math:`w_j^2 / [H^{-1}]_{jj}` in squares. The weights
    of all outputs are passed through in the order of the inputs, with the inverse of
    the Hessian :math:`H` of the inputs from :math:`j` on. At the first of every
    `block_size` inputs, the weights from these inputs are chosen for which that number
    is smallest. Layers are pruned in the order in which they are computed, with the
    inputs that the layers before them have after pruning. A layer whose inputs are all
    zero, as after a ReLU without any active unit, is pruned by magnitude.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode.
      params: trained parameters; any tree. Each prunable leaf belongs to one layer.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      *inputs: arguments of `apply`, such as a batch of training images; more examples
        than a layer has inputs are advisable.
      damping: :math:`\lambda` as a fraction of the mean of the diagonal of
        :math:`X^T X`, at least 0.
      block_size: number of inputs whose weights are chosen at once, at least 1.
      layers: which leaves are pruned, and how the sparsity is divided among them; the
        distribution is "uniform" by default. With structure None in given options, all
        weights of a block compete, as in the paper; with `select.fan_in()`, the
        default, those of each output, and with `select.n_of_m(4)`, those of each group
        of four, which is then the size of a block. `min_layer_density` must be 0.

    Returns:
      The pruned network. Each layer keeps the count of its distribution, rounded to one
      that the structure can keep.

    Raises:
      ValueError: if an argument is out of range, the distribution is unknown or
        "global", a pattern matches no leaf, the structure is another one, a leaf does
        not fit it, a leaf is used by no layer or by more than one, there are no
        examples, or a Hessian is singular; under `jax.jit`, its layer becomes NaN.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> pruned = obs(model.apply, params, 0.5, inputs)
      >>> masks.num_active(pruned.masks)
      40

    Deviations:
      The paper compares the weights of a block over all outputs; that is not the
      default, so that `obs` and `wanda` keep the same numbers of weights. Counts are
      exact: a block keeps its share of the layer's count, rounded.

    References:
      Frantar, Alistarh. SparseGPT: Massive Language Models Can Be Accurately Pruned in
      One-Shot. 2023. arXiv:2301.00774, equations 2 to 5, algorithm 1; n of m weights:
      section 3.4.
      Hassibi, Stork, Wolff. Optimal Brain Surgeon and General Network Pruning. 1993.
    """
    plan = layerwise.plan(params, sparsity, layers, function="obs")
    group = layerwise.group_size(plan.layers.structure, function="obs")

    def solve(name: str, hessian: Array, columns: Array) -> tuple[Array, Array]:
        weights, kept = _prune_rows(
            *(jnp.swapaxes(columns, 1, 2), _factor(name, hessian, damping)),
            plan.counts[name],
            block_size=group if group > 1 else block_size,
            by_row=group > 0,
        )
        return jnp.swapaxes(weights, 1, 2), jnp.swapaxes(kept, 1, 2)

    return layerwise.prune_layers(plan, solve, apply, params, inputs, damping=damping)


def _factor(
    name: str, hessian: Float[Array, "s d d"], damping: float
) -> Float[Array, "s d d"]:
    """Factorizes inverse Hessians: H^-1 = U^T U with upper triangular U.

    Row j of U is, up to its length, column j of the inverse of the Hessian of the
    inputs from j on.

    Args:
      name: name of the leaf, for the error message.
      hessian: Hessians of the inputs.
      damping: what was added to the diagonal, for the error message.

    Raises:
      ValueError: if a Hessian that is not traced is singular.
    """
    upper = jnp.linalg.cholesky(jnp.linalg.inv(hessian), upper=True)
    known = not isinstance(upper, jax.core.Tracer)
    if known and not bool(jnp.all(jnp.isfinite(upper))):
        raise ValueError(
            f"damping: expected one that makes the Hessian of the inputs of {name} "
            f"invertible, got {damping}; use a larger one or more examples"
        )
    return upper


def _prune_rows(
    weights: Float[Array, "s outputs d"],
    upper: Float[Array, "s d d"],
    count: int,
    *,
    block_size: int,
    by_row: bool,
) -> tuple[Float[Array, "s outputs d"], Bool[Array, "s outputs d"]]:
    """Passes through the inputs of a layer.

    Args:
      weights: weights with an output in each row.
      upper: factors of the inverse Hessians.
      count: number of weights to keep.
      block_size: number of inputs whose weights are chosen at once.
      by_row: whether only the weights of one output compete.

    Returns:
      The updated weights, zero where pruned, and the mask of those that remain.
    """
    size = weights.shape[-1]
    num_groups = weights.shape[0] * weights.shape[1] if by_row else 1
    each = count // num_groups
    kept = []
    for start in range(0, size, block_size):
        stop = min(start + block_size, size)
        # Shares are rounded down in total, so that they sum to the count.
        quota = each * stop // size - each * start // size
        weights, stays = _prune_block(
            weights, upper, start, quota, size=stop - start, by_row=by_row
        )
        kept.append(stays)
    return weights, jnp.concatenate(kept, axis=-1)


@functools.partial(jax.jit, static_argnames=("size", "by_row"))
def _prune_block(
    weights: Array, upper: Array, start: Any, quota: Any, *, size: int, by_row: bool
) -> tuple[Array, Array]:
    """Prunes the weights from `size` inputs and updates all later ones."""
    block = lax.dynamic_slice_in_dim(weights, start, size, axis=2)
    pivots = lax.dynamic_slice_in_dim(
        jnp.diagonal(upper, axis1=1, axis2=2), start, size, axis=1
    )
    harm = jnp.square(block / pivots[:, None, :])
    groups = harm.reshape(-1, size) if by_row else harm.reshape(1, -1)
    rank = jnp.argsort(jnp.argsort(-groups, axis=1), axis=1)
    stays = (rank < quota).reshape(block.shape)

    def step(i: Array, weights: Array) -> Array:
        value, stay = weights[:, :, start + i], stays[:, :, i]
        error = jnp.where(stay, 0, value) / pivots[:, i, None]
        # Entries of the row before its diagonal are zero: earlier weights stay.
        weights = weights - error[:, :, None] * upper[:, None, start + i, :]
        return weights.at[:, :, start + i].set(jnp.where(stay, value, 0))

    return lax.fori_loop(0, size, step, weights), stays
