"""ALPS: pruning layer by layer by operator splitting and conjugate gradients."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxsparse import arguments
from jaxsparse.layer_options import LayerOptions
from jaxsparse.prune import layerwise
from jaxsparse.prune.layerwise import Pruned
from jaxsparse.types import Params

PENALTY = 0.1  # the first penalty; inputs are scaled to a Hessian with a diagonal of 1
LEAST_PENALTY = 1e-5
EVERY = 3  # iterations between two changes of the penalty
# Factor of the penalty by the least change of the support, as a fraction of the count.
FACTORS = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))


@arguments.check(
    apply=arguments.function,
    sparsity=arguments.fraction,
    damping=arguments.number(0),
    iterations=arguments.integer(1),
    refinements=arguments.integer(0),
)
def alps(
    apply: Callable[..., Any],
    params: Params,
    sparsity: float,
    *inputs: Any,
    damping: float = 0.01,
    iterations: int = 300,
    refinements: int = 10,
    layers: LayerOptions | None = None,
) -> Pruned:
    r"""Prunes layers to the weights that best reconstruct their outputs: ALPS.

    For a layer with trained weights :math:`\hat W` and inputs :math:`X` (examples by
    inputs), it looks for at most :math:`k` weights :math:`W` that minimize
    :math:`\mathrm{tr}\,(W - \hat W)^T H (W - \hat W)`, with
    :math:`H = X^T X + \lambda I`. The alternating direction method of multipliers
    (ADMM) repeats

    .. math::
       W &= (H + \rho I)^{-1} (H \hat W - V + \rho D), \\\\
       D &= P_k(W + V / \rho), \\\\
       V &\leftarrow V + \rho (W - D),

    where :math:`P_k` keeps the :math:`k` largest magnitudes. Every third time, the
    penalty :math:`\rho` is multiplied by 1.3, 1.2 or 1.1 if the support of :math:`D`
    has changed by 10 % of :math:`k`, by 0.5 %, or at all; otherwise it ends. The
    weights of the support are then improved by conjugate gradients, one problem for
    each output. Inputs are scaled in advance so that the diagonal of :math:`H` is 1,
    which is the preconditioner.

    Layers are pruned in the order in which they are computed, with the inputs that the
    layers before them have after pruning. The support is not optimal in general: of
    independent inputs of one size, for which magnitude pruning is, some weights differ.
    A layer whose inputs are all zero is pruned as if its inputs were independent and of
    equal size.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode.
      params: trained parameters; any tree. Each prunable leaf belongs to one layer.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      *inputs: arguments of `apply`, such as a batch of training images; more examples
        than a layer has inputs are advisable.
      damping: :math:`\lambda` as a fraction of the mean of the diagonal of
        :math:`X^T X`, at least 0.
      iterations: most iterations of ADMM for each layer, at least 1.
      refinements: iterations of conjugate gradients, at least 0.
      layers: which leaves are pruned, and how the sparsity is divided among them; the
        distribution is "uniform" by default. With structure None in given options, all
        weights of a layer compete, as in the paper; with `select.fan_in()`, the
        default, those of each output, and with `select.n_of_m(4)`, those of each group
        of four. `min_layer_density` must be 0.

    Returns:
      The pruned network. Each layer keeps the count of its distribution, rounded to one
      that the structure can keep.

    Raises:
      ValueError: if an argument is out of range, the distribution is unknown or
        "global", a pattern matches no leaf, the structure is another one, a leaf does
        not fit it, a leaf is used by no layer or by more than one, or there are no
        examples.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> pruned = alps(model.apply, params, 0.5, inputs)
      >>> masks.num_active(pruned.masks)
      40

    Deviations:
      The paper compares all weights of a layer; that is not the default, so that
      `alps`, `obs` and `wanda` keep the same numbers of weights. As in the authors'
      code, the first penalty 0.1 is divided by 5, and ADMM begins
      anew, until it changes 0.5 % of the support, down to a penalty of 1e-5. The
      authors prune the layers of a transformer block together; here each layer has
      inputs of its own.

    References:
      Meng, Behdin, Wang, Mazumder. ALPS: Improved Optimization for Highly Sparse
      One-Shot Pruning for Large Language Models. 2024. arXiv:2406.07831.
    """
    plan = layerwise.plan(params, sparsity, layers, function="alps")
    group = layerwise.group_size(plan.layers.structure, function="alps")

    def solve(name: str, hessian: Array, columns: Array) -> tuple[Array, Array]:
        size = {0: columns.size, 1: columns.shape[1]}.get(group, group)
        return _prune_layer(
            *(hessian, columns, plan.counts[name] * size // columns.size),
            group_size=size,
            iterations=iterations,
            refinements=refinements,
        )

    return layerwise.prune_layers(plan, solve, apply, params, inputs, damping=damping)


@functools.partial(jax.jit, static_argnames="group_size")
def _prune_layer(
    hessian: Float[Array, "s d d"],
    weights: Float[Array, "s d o"],
    quota: Any,
    *,
    group_size: int,
    iterations: Any,
    refinements: Any,
) -> tuple[Float[Array, "s d o"], Bool[Array, "s d o"]]:
    """Finds the support and the weights of a layer.

    Args:
      hessian: Hessians of the layer's squared error.
      weights: trained weights, with an output in each column.
      quota: number of weights to keep in each group.
      group_size: number of weights that compete: those of the layer, or consecutive
        ones of an output.
      iterations: most iterations of ADMM.
      refinements: iterations of conjugate gradients.

    Returns:
      The weights, zero where pruned, and the mask of those that remain.
    """

    def largest(matrix: Array) -> Array:
        by_output = jnp.swapaxes(matrix, 1, 2)
        rows = jnp.square(by_output).reshape(-1, group_size)
        order = jnp.argsort(-rows, axis=1)
        first = jnp.broadcast_to(jnp.arange(group_size)[None] < quota, rows.shape)
        kept = jnp.put_along_axis(first, order, first, axis=1, inplace=False)
        return jnp.swapaxes(kept.reshape(by_output.shape), 1, 2)

    count = quota * (weights.size // group_size)
    with jax.default_matmul_precision("highest"):
        scale = jnp.sqrt(jnp.diagonal(hessian, axis1=1, axis2=2))[:, :, None]
        safe = jnp.where(scale > 0, scale, 1)
        unit = hessian / safe / jnp.swapaxes(safe, 1, 2)
        trained = scale * weights
        kept, found = _split(unit, trained, count, largest, iterations)
        found = _refine(unit, unit @ trained, kept, found, refinements)
    # Weights of inputs that are always zero stay as they are.
    return jnp.where(kept, jnp.where(scale > 0, found / safe, weights), 0), kept


class _Splitting(NamedTuple):
    """State of ADMM.

    Attributes:
      step: number of iterations.
      penalty: the penalty.
      begun: whether the support has changed enough for the penalty to be raised.
      ended: whether the support stays.
      kept: support of the sparse weights.
      sparse: the sparse weights D.
      dual: the multipliers V, divided by the penalty.
      before: support of D at the last change of the penalty.
    """

    step: Array
    penalty: Array
    begun: Array
    ended: Array
    kept: Array
    sparse: Array
    dual: Array
    before: Array


def _split(
    hessian: Array,
    trained: Array,
    count: Any,
    largest: Callable[[Array], Array],
    iterations: Any,
) -> tuple[Array, Array]:
    """Finds which weights to keep, and their values, by ADMM."""
    values, vectors = jnp.linalg.eigh(hessian)
    target = hessian @ trained
    first = largest(trained)

    def solve(right: Array, penalty: Array) -> Array:
        rotated = jnp.swapaxes(vectors, 1, 2) @ right
        return vectors @ (rotated / (values[:, :, None] + penalty))

    def step(now: _Splitting) -> _Splitting:
        dense = solve(target + now.penalty * (now.sparse - now.dual), now.penalty)
        kept = largest(dense + now.dual)
        sparse = jnp.where(kept, dense + now.dual, 0)
        dual = now.dual + dense - sparse
        new = now._replace(step=now.step + 1, kept=kept, sparse=sparse, dual=dual)
        return lax.cond(new.step % EVERY == 0, change, lambda same: same, new)

    def change(now: _Splitting) -> _Splitting:
        changed = jnp.sum(now.kept != now.before)
        begun = now.begun | (changed >= FACTORS[1][0] * count) & (changed > 0)
        bounds = [changed >= jnp.maximum(1, share * count) for share, _ in FACTORS]
        factor = jnp.select(bounds, [by for _, by in FACTORS], 1.0)
        penalty = now.penalty * jnp.where(begun, factor, 0.2)
        return now._replace(
            penalty=penalty,
            begun=begun,
            ended=jnp.where(begun, changed == 0, penalty < LEAST_PENALTY),
            kept=jnp.where(begun, now.kept, start.kept),
            sparse=jnp.where(begun, now.sparse, start.sparse),
            # The multipliers themselves stay as they are.
            dual=jnp.where(begun, now.dual * now.penalty / penalty, 0),
            before=jnp.where(begun, now.kept, start.kept),
        )

    start = _Splitting(
        step=jnp.int32(0),
        penalty=jnp.asarray(PENALTY, trained.dtype),
        begun=jnp.bool(False),
        ended=jnp.bool(False),
        kept=first,
        sparse=jnp.where(first, trained, 0),
        dual=jnp.zeros_like(trained),
        before=first,
    )
    end = lax.while_loop(lambda now: (now.step < iterations) & ~now.ended, step, start)
    return end.kept, end.sparse


def _refine(
    hessian: Array, target: Array, kept: Array, start: Array, iterations: Any
) -> Array:
    """Solves H W = target on the support by conjugate gradients, for each output."""

    def step(_: Any, now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        weights, residual, direction = now
        squares = jnp.sum(jnp.square(residual), 1, keepdims=True)
        product = hessian @ direction
        curvature = jnp.sum(direction * product, 1, keepdims=True)
        step_size = _ratio(squares, curvature)
        weights = weights + step_size * direction
        residual = jnp.where(kept, residual - step_size * product, 0)
        factor = _ratio(jnp.sum(jnp.square(residual), 1, keepdims=True), squares)
        return weights, residual, residual + factor * direction

    weights = jnp.where(kept, start, 0)
    residual = jnp.where(kept, target - hessian @ weights, 0)
    return lax.fori_loop(0, iterations, step, (weights, residual, residual))[0]


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Divides; 0 where there is nothing left to improve."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), 0)
