"""One compiled program for each (method, optimizer), and what it does in 11 updates.

The dense gradient, the state before and the state after of every update are kept, so
that all laws of a method are asserted on one run of one program.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers import method_pairs, methods
from helpers.methods import METHODS, QUIET, UPDATES
from helpers.optimizers import LATE, PERIODS, SEES_DENSE

from jaxsparse import transforms

# Compiles in half the time.
PLAINLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
# Their scores are sums, which bfloat16 would round in an order of its own.
SUMMED = ("mest", "mest soft_bound", "snfs")
# Magnitudes of a group tie in bfloat16, and then fewer weights remain.
TIED = ("s_ste",)
TARGETS = jax.tree.map(np.asarray, methods.make_params(seed=1))


class Told(NamedTuple):
    """State of an optimizer, the state it was handed last, and the loss it was told."""

    state: Any
    handed: Any
    value: Any


class Moment(NamedTuple):
    """One update, seen from outside.

    Attributes:
      before, now: states of the sparse optimizer.
      params, after: parameters as they are stored.
      grads: the dense gradient.
      value: the loss.
      args: of the last call of the program; `opt_state` what it returned.
    """

    before: Any
    now: Any
    params: Any
    after: Any
    grads: Any
    value: float
    args: tuple[Any, ...]
    opt_state: Any


class Run(NamedTuple):
    """Updates of a method around an optimizer, and how often the program was traced."""

    tx: Any
    step: Callable[..., Any]
    start: tuple[Any, Any]
    moments: list[Moment]
    traces: list[Any]


def spied(inner: Any) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that its state holds what it was given last."""
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> Told:
        return Told(inner.init(params), inner.init(params), jnp.zeros(()))

    def update(grads: Any, told: Told, params: Any, **extra: Any) -> Any:
        updates, state = inner.update(grads, told.state, params, **extra)
        return updates, Told(state, told.state, extra.get("value", told.value))

    return optax.GradientTransformationExtraArgs(init, update)


def fast(params: Any) -> Any:
    return params.fast if isinstance(params, optax.LookaheadParams) else params


def loss_of(weights: Any) -> Any:
    apart = jax.tree.map(lambda leaf, target: leaf - target, weights, TARGETS)
    leaves = jax.tree.leaves(apart)
    return sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in leaves)


def make_step(tx: Any, traces: list) -> Any:
    def step(params: Any, state: Any, poison: Any) -> Any:
        traces.append(tx)
        weights = transforms.forward_params(fast(params), state)
        value, grads = jax.value_and_grad(loss_of)(weights)
        grads = jax.tree.map(jnp.add, grads, poison)
        updates, state = tx.update(grads, state, params, value=value)
        return (optax.apply_updates(params, updates), state), (grads, value)

    return jax.jit(step, compiler_options=PLAINLY)


def kernels(tree: Any) -> list[np.ndarray]:
    return [np.asarray(layer["kernel"]) for layer in tree.values()]


def with_kernels(params: Any, change: Callable[[int, np.ndarray], Any]) -> Any:
    """Parameters with other kernels; `change` is called with the layer's number."""
    if isinstance(params, optax.LookaheadParams):
        return optax.LookaheadParams(*(with_kernels(copy, change) for copy in params))
    return {
        name: layer | {"kernel": jnp.asarray(change(i, np.array(layer["kernel"])))}
        for i, (name, layer) in enumerate(params.items())
    }


def without(params: Any, gone: list[np.ndarray]) -> Any:
    """Parameters with zeros at some weights."""
    return with_kernels(
        params, lambda i, leaf: np.where(gone[i], 0, leaf).astype(leaf.dtype)
    )


def seen(params: Any, optimizer: str) -> Any:
    """Parameters as they come to a method within the wrappers around it."""
    if optimizer != "outer partition":
        return params
    return jax.tree.map(
        lambda leaf: leaf if leaf.ndim > 1 else optax.MaskedNode(), params
    )


def find(state: Any) -> Any:
    def found(node: Any) -> bool:
        return isinstance(node, transforms.SparsifyState | transforms.LatentState)

    (node,) = filter(found, jax.tree.leaves(state, is_leaf=found))
    return node


def told(sparse: Any) -> Told:
    """State of the optimizer within a sparse one, perhaps with a wrapper between.

    Args:
      sparse: state of the sparse optimizer.
    """
    inner = sparse.inner_state
    between = transforms.ReparameterizedState | transforms.ProjectedState
    return inner.inner_state if isinstance(inner, between) else inner


def begin(tx: Any, method: str, optimizer: str) -> tuple[Any, Any]:
    # With bfloat16 weights the optimizers in LATE change their types, bare as well.
    wide = optimizer in LATE or method in (*SUMMED, *TIED)
    params = methods.make_params(dtype="float32" if wide else None)
    if method == "gradual_magnitude global":  # so that the least of a layer matters
        small = params["second"]["kernel"] * jnp.bfloat16(2.0**-10)
        params["second"]["kernel"] = small
    if optimizer == "lookahead":
        params = optax.LookaheadParams.init_synced(params)
    state = jax.jit(tx.init, compiler_options=PLAINLY)(params)
    if METHODS[method].latent:
        return params, state
    return without(
        params, [~has for has in kernels(transforms.get_masks(state))]
    ), state


def zeros(params: Any) -> Any:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), fast(params))


def poison(method: str, optimizer: str, update: int, sparse: Any, params: Any) -> Any:
    """NaN and infinities for the weights that are not trained; zeros elsewhere."""
    nothing = zeros(params)
    spared = sparse.memory if METHODS[method].latent else sparse.masks
    sees_all = method == "snfs" or optimizer in SEES_DENSE or spared is None
    if sees_all or update not in QUIET:
        return nothing
    held = kernels(spared)

    def spoil(i: int, leaf: np.ndarray) -> np.ndarray:
        bad = np.resize(np.array([np.nan, np.inf], leaf.dtype), leaf.shape)
        return np.where(held[i], leaf, bad)

    return with_kernels(nothing, spoil)


@functools.cache
def follow(method: str, optimizer: str) -> Run:
    """Makes `UPDATES` updates."""
    traces: list[Any] = []
    tx = method_pairs.build(method, optimizer, spied)
    step, state = make_step(tx, traces), begin(tx, method, optimizer)
    start, moments = state, []
    for update in range(UPDATES):
        params, before = state[0], find(state[1])
        bad = poison(method, optimizer, update, before, params)
        for _ in range(PERIODS.get(optimizer, 1)):
            args = *state, bad
            state, (grads, value) = step(*args)
        moments.append(
            Moment(
                *(before, find(state[1]), params, state[0], grads, float(value)),
                *(args, state[1]),
            )
        )
    return Run(tx, step, start, moments, traces)
