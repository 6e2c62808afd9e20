"""Methods that say themselves what was finite, and states that widen.

That no method chooses by what is not finite is asserted for every method on the runs of
test_methods_laws, for replicates in test_methods_programs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsparse import masks, transforms

RNG = np.random.default_rng(0)
PARAMS = {
    "first": {"bias": np.zeros(6), "kernel": RNG.normal(size=(8, 6))},
    "second": {"kernel": RNG.normal(size=(6, 4))},
}
PARAMS = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)
NARROW = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)


def test_a_method_of_ones_own_says_what_was_finite() -> None:
    def choose(held: Any, params: Any, grads: Any, **_: Any) -> transforms.MaskUpdate:
        few = jax.tree.map(jnp.zeros_like, held)
        good = jnp.all(jnp.isfinite(grads["second"]["kernel"]))
        return transforms.MaskUpdate(few, finite=good)

    tx = transforms.sparsify(
        optax.sgd(0.1),
        masks.ones,
        update_masks=choose,
        update_at=lambda step: step >= 0,
    )
    step = jax.jit(tx.update)
    bad = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), PARAMS)
    _, state = step(bad, tx.init(PARAMS), PARAMS)
    assert masks.num_active(state.masks) == 72 and state.skipped_updates == 1
    _, state = step(PARAMS, state, PARAMS)
    assert masks.num_active(state.masks) == 0 and state.skipped_updates == 1


def test_bfloat16_weights_and_float32_gradients() -> None:
    """An update widens Adam's memory, also the first, which RigL skips here."""
    inner = optax.adam(0.01)
    tx = transforms.rigl(
        *(inner,), sparsity=0.5, begin_step=0, update_every=2, end_step=9
    )
    params, state, step, moments = NARROW, tx.init(NARROW), jax.jit(tx.update), []
    for _ in range(3):
        updates, state = step(PARAMS, state, params)
        params = optax.apply_updates(params, updates)
        moments.append(state.inner_state[0].mu)
        wide = {leaf.dtype for leaf in jax.tree.leaves(moments[-1])}
        assert wide == {jnp.dtype("float32")}
    first, second = (jax.tree.leaves(tree) for tree in moments[:2])
    assert not any(leaf.any() for leaf in first)
    assert any(leaf.any() for leaf in second)
    bare = jax.eval_shape(inner.update, PARAMS, inner.init(NARROW), NARROW)[1]
    types = [
        jax.tree.map(lambda leaf: leaf.dtype, s) for s in (state.inner_state, bare)
    ]
    assert types[0] == types[1]
    kernels = [params["first"]["kernel"], params["second"]["kernel"]]
    for mask, kernel in zip(jax.tree.leaves(state.masks), kernels, strict=True):
        assert kernel.dtype == jnp.bfloat16
        assert not np.asarray(kernel).view(np.uint16)[~np.asarray(mask)].any()
