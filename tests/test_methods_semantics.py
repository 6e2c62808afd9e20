"""What methods do that no run of test_methods_laws shows, against obvious numpy."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import flat_options, methods
from helpers.campaigns import case
from helpers.method_choices import after_ablation, best, fading
from helpers.method_runs import PLAINLY, kernels
from helpers.methods import FADING, GRADUAL, SPARSE

from jaxsparse import masks, transforms
from jaxsparse.transforms import drop

t = transforms
RATE = 0.1
SGD = optax.sgd(RATE, momentum=0.9)
WHEN = {"begin_step": 0, "end_step": 2, "update_every": 1, "sparsity": 0.9}
GLOBAL = {
    "floors": transforms.gradual_magnitude(
        SGD,
        layers=transforms.LayerOptions(distribution="global", min_layer_density=0.01),
        **WHEN,
    ),
    "granet": transforms.granet(SGD, **WHEN),
    "straight through": transforms.straight_through(
        SGD, layers=transforms.LayerOptions(distribution="global"), **WHEN
    ),
}


def latent_step(tx: Any) -> tuple[Any, ...]:
    """One update without momentum: weights, masks, trained, gradients; and after."""
    rng = np.random.default_rng(5)
    params = methods.make_params(dtype="float32")
    state = jax.jit(tx.init, compiler_options=PLAINLY)(params)
    grads = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params
    )
    updates, new = jax.jit(tx.update, compiler_options=PLAINLY)(grads, state, params)
    return params, state, grads, optax.apply_updates(params, updates), new


def test_top_kast() -> None:
    tx = transforms.top_kast(
        optax.sgd(RATE), sparsity=0.75, backward_sparsity=0.5, regularization=0.01
    )
    params, state, grads, after, new = latent_step(tx)
    for i, weight in enumerate(kernels(params)):
        everything = np.ones_like(weight, bool)
        mask = best(np.abs(weight), (24, 12)[i], everything)
        trained = best(np.abs(weight), (48, 24)[i], everything)
        np.testing.assert_array_equal(kernels(state.masks)[i], mask)
        np.testing.assert_array_equal(kernels(state.memory)[i], trained)
        pull = np.where(mask, 0.01, 0.01 / 0.25) * weight
        moved = weight - RATE * (kernels(grads)[i] + pull)
        wanted = np.where(trained, moved, weight)
        got = kernels(after)[i]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(got[~trained], weight[~trained])
        again = best(np.abs(got), (24, 12)[i], everything)
        np.testing.assert_array_equal(kernels(new.masks)[i], again)


def best_of_groups(weight: np.ndarray) -> np.ndarray:
    """The two largest of every four inputs of an output."""
    mask = np.zeros_like(weight, bool)
    for out in range(weight.shape[1]):
        for top in range(0, weight.shape[0], 4):
            order = np.argsort(-np.abs(weight[top : top + 4, out]), kind="stable")
            mask[top + order[:2], out] = True
    return mask


def test_sr_ste() -> None:
    tx = transforms.sr_ste(optax.sgd(RATE), decay=0.03)
    params, state, grads, after, new = latent_step(tx)
    for i, weight in enumerate(kernels(params)):
        mask = best_of_groups(weight)
        np.testing.assert_array_equal(kernels(state.masks)[i], mask)
        wanted = weight - RATE * (kernels(grads)[i] + 0.03 * weight * ~mask)
        got = kernels(after)[i]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(kernels(new.masks)[i], best_of_groups(got))


def test_neurons_leave_and_return_and_share_the_budget() -> None:
    """SRigL with other weights and gradients at every mask update."""
    tx = flat_options.call(
        *(t.srigl, SGD),
        **(WHEN | {"sparsity": 0.5, "end_step": None, "drop_schedule": "constant"}),
        drop_fraction=0.25,
        min_salient=0.75,
        distribution="uniform",
        keep_neurons=("second/*",),
    )
    state = jax.jit(tx.init, compiler_options=PLAINLY)(methods.make_params(0, "f4"))
    step = jax.jit(tx.update, compiler_options=PLAINLY)
    removed = returned = cut = 0
    for seed in range(12):
        had = kernels(transforms.get_masks(state))
        params = masks.apply(
            transforms.get_masks(state), methods.make_params(seed, "float32")
        )
        grads = methods.make_params(seed + 50, "float32")
        slopes, sizes = kernels(grads), [np.abs(leaf) for leaf in kernels(params)]
        _, state = step(grads, state, params)
        for i, mask in enumerate(kernels(transforms.get_masks(state))):
            goes = int(had[i].sum()) // 4
            new, more = after_ablation(
                had[i], sizes[i], np.abs(slopes[i]), goes, (48, 24)[i], (3, 0)[i]
            )
            np.testing.assert_array_equal(mask, new)
            cut += more
            removed += int((~new.any(axis=0)).sum())
            returned += int((new.any(axis=0) & ~had[i].any(axis=0)).sum())
        assert kernels(transforms.get_masks(state))[1].sum() == 24
    assert removed and returned and cut


def test_growth_grads_as_a_tree_and_as_a_function_called_only_in_a_change() -> None:
    tx = flat_options.call(transforms.rigl, SGD, **FADING)
    params = methods.make_params(dtype="float32")
    others = methods.make_params(seed=8, dtype="float32")
    spoilt = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    called = []

    def grow_by(weights: Any) -> Any:
        jax.debug.callback(lambda: called.append(1))
        for name, layer in weights.items():
            shown = jnp.where(layer["kernel"] != 0, 0.0, others[name]["kernel"])
            assert shown.shape == layer["kernel"].shape
        return others

    state = jax.jit(tx.init, compiler_options=PLAINLY)(params)
    start = transforms.stored_params(params, state), state
    updates = {
        "tree": lambda g, s, p: tx.update(g, s, p, growth_grads=others),
        "function": lambda g, s, p: tx.update(g, s, p, growth_grads=grow_by),
    }
    found: dict[str, list[Any]] = {name: [] for name in updates}
    for name, update in updates.items():
        program = jax.jit(update, compiler_options=PLAINLY)
        weights, state = start
        for i in range(5):
            grads = spoilt if i in (1, 4) else others
            held, sizes = transforms.get_masks(state), kernels(weights)
            changes, state = program(grads, state, weights)
            weights = optax.apply_updates(weights, changes)
            jax.effects_barrier()
            if name == "function":
                assert len(called) == (i >= 1) + (i >= 4)
            found[name] += kernels(transforms.get_masks(state)) + kernels(weights)
            if i != 1:
                continue
            for had, size, promise, has in zip(
                kernels(held),
                sizes,
                kernels(others),
                kernels(transforms.get_masks(state)),
                strict=True,
            ):
                goes = fading(i, had)
                stay = best(np.abs(size), int(had.sum()) - goes, had)
                new = stay | best(np.abs(promise), goes, ~stay)
                np.testing.assert_array_equal(has, new)
    for got, wanted in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_the_first_adam_step_of_a_grown_weight() -> None:
    tx = flat_options.call(transforms.sparse_evolution, optax.adam(RATE), **SPARSE)
    params = methods.make_params(dtype="float32")
    state = jax.jit(tx.init, compiler_options=PLAINLY)(params)
    params = transforms.stored_params(params, state)
    late = state.inner_state[0]._replace(count=jnp.int32(100_000))
    state = state._replace(inner_state=(late, *state.inner_state[1:]))
    step = jax.jit(tx.update, compiler_options=PLAINLY)
    grads = jax.tree.map(np.ones_like, params)
    _, state = step(grads, state, params)
    held = transforms.get_masks(state)
    updates, state = step(grads, state, params)
    limit = RATE * (1 - 0.9) / math.sqrt(1 - 0.999)
    assert limit / RATE == pytest.approx(3.162, abs=1e-3)
    came = [
        update[has & ~had]
        for update, had, has in zip(
            *map(kernels, (updates, held, transforms.get_masks(state))), strict=True
        )
    ]
    np.testing.assert_allclose(np.concatenate(came), -limit, rtol=1e-4)


def make_trees() -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0))
    model = eqx.nn.Sequential(
        [eqx.nn.Linear(8, 12, key=keys[0]), eqx.nn.Linear(12, 4, key=keys[1])]
    )
    network = nnx.Sequential(
        nnx.Linear(8, 12, rngs=nnx.Rngs(0)), nnx.Linear(12, 4, rngs=nnx.Rngs(1))
    )
    return {
        "equinox": eqx.partition(model, eqx.is_inexact_array)[0],
        "nnx": nnx.split(network)[1],
    }


@pytest.mark.parametrize(
    ("name", "method"),
    [
        case("equinox", "rigl", always=True),
        case("nnx", "gradual_magnitude", always=False),  # see test_transforms_holders
    ],
)
def test_any_tree_of_parameters(name: str, method: str) -> None:
    params = make_trees()[name]
    make, options = (
        (t.rigl, FADING) if method == "rigl" else (t.gradual_magnitude, GRADUAL)
    )
    options = options | {"prunable": masks.is_kernel}
    tx = flat_options.call(make, optax.adam(RATE), **options)
    state = jax.jit(tx.init, compiler_options=PLAINLY)(params)
    step = jax.jit(tx.update, compiler_options=PLAINLY)
    first = transforms.get_masks(state)
    for update in range(10):
        grads = jax.tree.map(np.cos, params)
        updates, state = step(grads, state, params)
        params = optax.apply_updates(params, updates)
        held = transforms.get_masks(state)
        masks.tree_map(
            lambda mask, leaf: np.testing.assert_array_equal(
                np.asarray(leaf)[~np.asarray(mask)], 0
            ),
            held,
            params,
        )
        assert masks.num_active(held) == sum(methods.METHODS[method].counts(update))
    assert masks.num_active(held) == 36 and masks.size(held) == 144
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(held), strict=True)
    assert all((a != b).any() for a, b in pairs)


@pytest.mark.parametrize("method", GLOBAL)
def test_two_to_the_31_weights_compete_in_a_method(method: str) -> None:
    tx = GLOBAL[method]
    leaf = jax.ShapeDtypeStruct((2**15, 2**15), jnp.bfloat16)
    params = {name: {"kernel": leaf} for name in "abc"}

    def after(params: Any) -> Any:
        _, state = tx.update(params, tx.init(params), params)
        return transforms.get_masks(state)

    kept = jax.tree.leaves(jax.eval_shape(after, params))
    assert [mask.shape for mask in kept] == [leaf.shape] * 3


def test_sparse_evolution_counts_zeros_as_positive() -> None:
    weights = np.array([[0.0, 0.0, 0.0, 1.0], [2.0, 3.0, -1.0, -2.0]], np.float32)
    params = {"w": jnp.asarray(weights)}
    kept, finite = drop.make_keep_by_sign(allow_regrow=True)(
        masks.ones(params),
        params,
        params,
        lambda active: jax.tree.map(lambda mask: jnp.sum(mask) // 2, active),
        None,
    )
    # Of six weights that are not negative, half; of the two negative ones, half.
    np.testing.assert_array_equal(kept["w"], np.isin(weights, (1, 2, 3, -2)))
    assert finite
