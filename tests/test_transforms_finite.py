"""What is not finite chooses no masks and enters no memory; states that widen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsparse import masks, transforms

RNG = np.random.default_rng(0)
PARAMS = {
    "first": {"bias": jnp.zeros(6), "kernel": jnp.asarray(RNG.normal(size=(8, 6)))},
    "second": {"kernel": jnp.asarray(RNG.normal(size=(6, 4)))},
}
PARAMS = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
EVERY = {"sparsity": 0.5, "update_every": 2, "end_step": 9}
PRUNE = {"sparsity": 0.75, "begin_step": 2, "end_step": 8, "update_every": 2}
SAFELY = optax.apply_if_finite(optax.adam(0.01), 9)
# Methods, and whether they choose by the gradient.
METHODS: dict[str, tuple[Any, bool]] = {
    "rigl": (transforms.rigl(SAFELY, **EVERY), True),
    "rigl random": (transforms.rigl(SAFELY, **EVERY, grow="random"), False),
    "rigl inverted": (transforms.rigl(SAFELY, **EVERY, grow="inverted"), True),
    "mest": (transforms.mest(SAFELY, **EVERY), True),
    "mest soft": (transforms.mest(SAFELY, **EVERY, soft_bound=True), True),
    "granet": (transforms.granet(SAFELY, **PRUNE), True),
    "set": (transforms.sparse_evolution(SAFELY, **EVERY), False),
    "snfs": (transforms.snfs(SAFELY, **EVERY), False),
    "gmp": (transforms.gradual_magnitude(SAFELY, **PRUNE), False),
    "ac_dc": (transforms.ac_dc(SAFELY, **PRUNE), False),
}
LATENT: dict[str, Any] = {
    "ste": transforms.straight_through(SAFELY, sparsity=0.5),
    "top_kast": transforms.top_kast(SAFELY, sparsity=0.5, backward_sparsity=0.2),
    "sr_ste": transforms.sr_ste(SAFELY, n=1, m=2),
}


def grads_at(step: int) -> Any:
    rng = np.random.default_rng(step)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), PARAMS
    )


def spoil(tree: Any, held: Any, value: float) -> Any:
    """Puts a number into the first weight outside the masks of each kernel."""
    return {
        name: layer
        | {
            "kernel": layer["kernel"]
            .at[
                np.unravel_index(
                    np.argmin(np.asarray(held[name]["kernel"])), layer["kernel"].shape
                )
            ]
            .set(value)
        }
        for name, layer in tree.items()
    }


def same(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_gradient_that_is_not_finite_chooses_nothing(name: str) -> None:
    tx, reads = METHODS[name]
    step = jax.jit(tx.update)
    state = tx.init(PARAMS)
    params = masks.apply(transforms.get_masks(state), PARAMS)
    for i in range(5):
        held, grads = transforms.get_masks(state), grads_at(i)
        if i == 2:  # a change of masks
            # A weight that no method may grow by, and one that MEST may drop by.
            grads = spoil(grads, held, np.inf)
            inside = jax.tree.map(jnp.logical_not, held)
            grads = spoil(grads, inside, np.nan) if "mest" in name else grads
        updates, state = step(grads, state, params)
        params = transforms.apply_updates(params, updates, state)
        if i == 2:
            assert state.skipped_updates == reads
            assert same(held, state.masks) or not reads
        finite = jax.tree.map(lambda leaf: bool(jnp.isfinite(leaf).all()), state)
        assert all(jax.tree.leaves((finite.memory, finite.masks)))
        assert all(bool(jnp.isfinite(w).all()) for w in jax.tree.leaves(params))
    # The next change is made again, from the second of gradual pruning on.
    assert state.skipped_updates == reads and not same(held, state.masks)


@pytest.mark.parametrize("name", [*METHODS, *LATENT])
def test_a_weight_that_is_not_finite_chooses_nothing(name: str) -> None:
    tx = METHODS[name][0] if name in METHODS else LATENT[name]
    state = tx.init(PARAMS)
    step = jax.jit(tx.update)
    params = transforms.stored_params(PARAMS, state)
    for i in range(2):
        updates, state = step(grads_at(i), state, params)
        params = transforms.apply_updates(params, updates, state)
    held, before = transforms.get_masks(state), int(state.skipped_updates)
    params = spoil(params, jax.tree.map(jnp.logical_not, held), np.nan)
    _, state = step(grads_at(2), state, params)
    assert (before, int(state.skipped_updates)) == (0, 1)
    assert same(held, transforms.get_masks(state))


def test_replicates_skip_on_their_own_and_the_cond_stays() -> None:
    tx = METHODS["rigl"][0]
    axes = transforms.replicate_axes(jax.eval_shape(tx.init, PARAMS))
    stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
    params = jax.tree.map(stack, PARAMS, PARAMS)
    state = jax.vmap(tx.init, out_axes=axes)(params)
    update = jax.vmap(tx.update, in_axes=(0, axes, 0), out_axes=(0, axes))
    held = jax.tree.map(lambda leaf: leaf[0], state.masks)
    text = str(jax.make_jaxpr(update)(params, state, params))
    assert text.count("cond[") == 3 and "while[" in text
    update = jax.jit(update)
    for i in range(3):
        bad = spoil(grads_at(i), held, np.nan if i == 2 else 0.0)
        _, state = update(jax.tree.map(stack, grads_at(i), bad), state, params)
    assert state.step.shape == state.replaced.shape == ()
    np.testing.assert_array_equal(state.skipped_updates, [0, 1])
    first, second = (jax.tree.map(lambda m, r=r: m[r], state.masks) for r in (0, 1))
    assert same(second, held) and not same(first, held)


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
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), PARAMS)
    _, state = tx.update(bad, tx.init(PARAMS), PARAMS)
    assert masks.num_active(state.masks) == 72 and state.skipped_updates == 1
    _, state = tx.update(PARAMS, state, PARAMS)
    assert masks.num_active(state.masks) == 0 and state.skipped_updates == 1


@pytest.mark.parametrize(
    "inner",
    [optax.adam(0.01), optax.sgd(0.01, momentum=0.9), optax.rmsprop(0.01, decay=0.9)],
    ids=["adam", "momentum", "rmsprop"],
)
def test_bfloat16_weights_and_float32_gradients(inner: Any) -> None:
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    types = []
    for tx in (inner, transforms.rigl(inner, **EVERY)):
        state, params, step = tx.init(narrow), narrow, jax.jit(tx.update)
        for i in range(4):  # masks change in the third
            updates, state = step(grads_at(i), state, params)
            params = optax.apply_updates(params, updates)
        types.append(jax.tree.map(lambda leaf: leaf.dtype, (params, state)))
    bare, sparse = types
    assert (sparse[0], sparse[1].inner_state) == bare
    held = jax.tree.leaves(state.masks)
    kernels = [params["first"]["kernel"], params["second"]["kernel"]]
    for mask, kernel in zip(held, kernels, strict=True):
        assert not np.asarray(kernel).view(np.uint16)[~np.asarray(mask)].any()


def test_a_first_update_that_is_skipped_widens_too() -> None:
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    tx = transforms.rigl(optax.adam(0.01), sparsity=0.5, begin_step=0, end_step=9)
    _, state = jax.jit(tx.update)(grads_at(0), tx.init(narrow), narrow)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.inner_state[0].mu)} == {
        jnp.dtype("float32")
    }
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.inner_state[0].mu))
