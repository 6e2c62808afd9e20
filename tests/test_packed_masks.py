"""Codes of weights: what they tell, and training with four of them in a byte."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.campaigns import case

from jaxsparse import transforms
from jaxsparse.transforms import mask_codes

# Lengths that four divides and does not, so that bytes are filled up.
PARAMS = {
    "first": {"bias": jnp.zeros(7), "kernel": jnp.linspace(0.1, 1.0, 35).reshape(5, 7)},
    "second": {"kernel": jnp.linspace(-1.0, 1.0, 84).reshape(7, 3, 4)},
}
ADAM = optax.adam(0.1)
WHEN = {"begin_step": 1, "update_every": 2, "end_step": 7}
t = transforms
METHODS: dict[str, Any] = {
    "fixed": lambda layers: t.fixed(ADAM, pack_masks=layers.pack_masks),
    "gradual_magnitude": lambda layers: t.gradual_magnitude(
        ADAM, sparsity=0.7, layers=layers, **WHEN
    ),
    "ac_dc": lambda layers: t.ac_dc(ADAM, sparsity=0.7, layers=layers, **WHEN),
    "sparse_evolution": lambda layers: t.sparse_evolution(
        ADAM, sparsity=0.5, layers=layers, **WHEN
    ),
    "rigl": lambda layers: t.rigl(
        ADAM,
        sparsity=0.5,
        layers=layers,
        updates=t.RigLOptions(drop_fraction=0.5, zero_regrown=True),
        **WHEN,
    ),
    "snfs": lambda layers: t.snfs(ADAM, sparsity=0.5, layers=layers, **WHEN),
    "granet": lambda layers: t.granet(ADAM, sparsity=0.5, layers=layers, **WHEN),
    "mest": lambda layers: t.mest(ADAM, sparsity=0.5, layers=layers, **WHEN),
    "srigl": lambda layers: t.srigl(ADAM, sparsity=0.5, layers=layers, **WHEN),
    "chts": lambda layers: t.chts(ADAM, sparsity=0.5, layers=layers, **WHEN),
    "neurrev": lambda layers: t.neurrev(ADAM, sparsity=0.5, layers=layers, **WHEN),
    "east": lambda layers: t.east(ADAM, sparsity=0.8, layers=layers, **WHEN),
    "gem_miner": lambda layers: t.gem_miner(
        ADAM, sparsity=0.5, end_step=7, update_every=2, layers=layers
    ),
}


def grads_at(step: int) -> Any:
    draw = np.random.default_rng(step)
    return jax.tree.map(
        lambda leaf: jnp.asarray(draw.standard_normal(leaf.shape), leaf.dtype), PARAMS
    )


def train(tx: Any) -> tuple[Any, Any]:
    """Makes nine updates, with other masks before the fifth."""

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for number in range(9):
        if number == 4:
            rolled = jax.tree.map(
                lambda mask: jnp.roll(mask, 1, axis=0), transforms.get_masks(state)
            )
            state = transforms.replace_masks(state, rolled)
        params, state = step(params, state, grads_at(number))
    return params, state


# Like rows that are run.
SELDOM = ("srigl", "chts", "east", "neurrev")


@pytest.mark.parametrize(
    "method", [case(name, always=name not in SELDOM) for name in METHODS]
)
def test_training_is_bit_for_bit_the_same(method: str) -> None:
    plain, packed = (
        train(METHODS[method](transforms.LayerOptions(pack_masks=pack)))
        for pack in (False, True)
    )
    leaves = jax.tree.leaves(packed[1].codes, is_leaf=mask_codes.is_packed)
    assert all(mask_codes.is_packed(leaf) for leaf in leaves)
    unpacked = jax.tree.map(
        mask_codes.unpack, packed[1].codes, is_leaf=mask_codes.is_packed
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        (packed[0], packed[1]._replace(codes=unpacked)),
        plain,
    )
    for read in (transforms.get_masks, transforms.ever_active):
        jax.tree.map(np.testing.assert_array_equal, read(packed[1]), read(plain[1]))


@pytest.mark.parametrize(
    "shape", [(), (5,), (8, 3), (3, 8), (3, 3, 2, 5), (1, 1), (0, 4)]
)
def test_unpacking_undoes_packing(shape: tuple[int, ...]) -> None:
    codes = jnp.asarray(np.random.default_rng(0).integers(0, 4, shape), jnp.uint8)
    packed = mask_codes.pack(codes)
    assert packed.shape == shape
    np.testing.assert_array_equal(mask_codes.unpack(packed), codes)
    if not shape:  # a byte cannot be filled up
        assert not mask_codes.is_packed(packed)
        return
    # The axis that needs the fewest bytes is packed.
    sizes = [
        codes.size // max(length, 1) * -(-length // mask_codes.PER_BYTE)
        for length in shape
    ]
    assert packed.packed.size == min(sizes)


def test_replicates_lead() -> None:
    codes = jnp.asarray(np.random.default_rng(0).integers(0, 4, (3, 5, 7)), jnp.uint8)
    packed = jax.vmap(mask_codes.pack)(codes)
    np.testing.assert_array_equal(mask_codes.unpack(packed), codes)


def test_leaves_without_axes_beside_packed_ones() -> None:
    """A replacement of masks removes a scalar weight, and brings it back."""
    params = {"w": jnp.ones(3), "alpha": jnp.ones(())}
    tx = transforms.fixed(optax.sgd(0.5), prunable=("*",), pack_masks=True)
    state = tx.init(params)
    for kept, wanted in ((False, 0.0), (True, -0.5), (True, -1.0)):
        masks = {"w": jnp.array([True, False, True]), "alpha": jnp.array(kept)}
        state = transforms.replace_masks(state, masks)
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        assert params["alpha"] == wanted
        assert transforms.get_masks(state)["alpha"] == kept


def test_a_byte_for_each_weight_or_two_bits() -> None:
    params = {"kernel": jnp.zeros((64, 32))}
    for pack, size in ((False, 64 * 32), (True, 64 * 32 // 4)):
        tx = transforms.rigl(
            optax.sgd(0.1),
            sparsity=0.9,
            update_every=2,
            end_step=9,
            layers=transforms.LayerOptions(pack_masks=pack),
        )
        leaves = jax.tree.leaves(jax.eval_shape(tx.init, params))
        large = [leaf.size * leaf.dtype.itemsize for leaf in leaves if leaf.ndim]
        assert large == [size]


def test_weights_know_what_became_of_them() -> None:
    """A table of all changes of one weight, by update and by replacement."""
    never, kept, left, new = 0, mask_codes.KEPT, mask_codes.LEFT, mask_codes.NEW
    before = jnp.array([never, kept, left, new], jnp.uint8)

    def change(mask: bool, **flags: Any) -> list[int]:
        masks = {"w": jnp.full(4, mask)}
        return mask_codes.change({"w": before}, masks, **flags)["w"].tolist()

    for replaced, (stays, was_new) in {
        False: ([new, kept, new, kept], left),
        True: ([new, kept, new, new], never),
    }.items():
        flag = jnp.array(replaced)
        assert change(True, replaced=flag) == stays
        assert change(False, replaced=flag) == [never, left, left, was_new]
        # Before the first step no weight has been active.
        first = change(False, replaced=flag, counted=False)
        assert first == [never, never, left, never]
    restart = {"w": jnp.array([True, True, False, False])}
    found = change(True, replaced=jnp.array(False), reset=restart)
    assert found == [new, new, new, kept]


REFUSING: dict[str, Any] = {
    "straight_through": {"sparsity": 0.5},
    "top_kast": {"sparsity": 0.5, "backward_sparsity": 0.2},
    "sr_ste": {},
    "weight_sparse": {"sparsity": 0.5, "end_step": 9},
    "proximal_l1": {"l1_penalty": 0.1, "learning_rate": 0.1},
    "learned_threshold": {},
    "continuous_sparsification": {"end_step": 9},
    "dynadiag": {"sparsity": 0.5, "end_step": 9},
    "edge_popup": {"sparsity": 0.5},
    "s_ste": {},
}


@pytest.mark.parametrize("method", REFUSING)
def test_methods_that_store_dense_weights_refuse_it(method: str) -> None:
    layers = transforms.LayerOptions(pack_masks=True)
    words = f"^pack_masks: expected False with {method}"
    with pytest.raises(ValueError, match=words):
        getattr(transforms, method)(ADAM, layers=layers, **REFUSING[method])


def test_codes_are_sharded_like_their_weights() -> None:
    params = {"kernel": jnp.zeros((64, 32)), "other": {"kernel": jnp.zeros((3, 8))}}
    specs = {"kernel": jax.P("data"), "other": {"kernel": jax.P(None, "data")}}
    layers = transforms.LayerOptions(pack_masks=True)
    tx = transforms.rigl(optax.sgd(0.1), sparsity=0.5, layers=layers, **WHEN)
    state = jax.eval_shape(tx.init, params)
    found = transforms.state_specs(specs, params, state).codes
    assert found["kernel"].packed == jax.P("data")
    # The packed axis is sharded, and its bytes need not be divisible.
    assert found["other"]["kernel"].packed == jax.P()


def test_skipped_steps_are_differentiated_in_both_directions() -> None:
    """By a learning rate, through mask updates that skip the step of momentum."""

    def final(rate: Any) -> Any:
        inner = optax.sgd(rate, momentum=0.9)
        tx = transforms.rigl(inner, sparsity=0.5, **WHEN)

        def body(carry: Any, _: None) -> Any:
            params, state = carry
            grads = jax.tree.map(lambda leaf: leaf - 0.5, params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        start = (PARAMS, tx.init(PARAMS))
        (params, _), _ = jax.lax.scan(body, start, None, length=6)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))

    rate, step = jnp.float32(0.01), 1e-3
    backward, (_, forward) = (
        jax.grad(final)(rate),
        jax.jvp(final, (rate,), (jnp.float32(1),)),
    )
    difference = (final(rate + step) - final(rate - step)) / (2 * step)
    assert abs(difference) > 1
    np.testing.assert_allclose([backward, forward], difference, rtol=0.01, atol=0)
