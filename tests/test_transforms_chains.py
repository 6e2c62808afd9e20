"""What stands outside a sparse optimizer: which links keep its zeros, which do not."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.method_runs import PLAINLY
from optax import contrib

from jaxsparse import masks, transforms

PARAMS = {"bias": jnp.ones(3), "kernel": jnp.linspace(0.5, 1.5, 12).reshape(4, 3)}
EVEN = {"bias": None, "kernel": jnp.arange(12).reshape(4, 3) % 2 == 0}
STEPS = 8
ADAM = optax.adam(0.01)


def sparse(inner: Any = ADAM) -> Any:
    def roll(held: Any, *_: Any, **__: Any) -> transforms.MaskUpdate:
        return transforms.MaskUpdate(jax.tree.map(lambda m: jnp.roll(m, 1, 0), held))

    return transforms.sparsify(
        inner,
        lambda params: EVEN,
        update_masks=roll,
        update_at=lambda step: step % 3 == 2,
    )


def after(*links: Any) -> Any:
    return optax.chain(sparse(), *links)


# The gradient goes through these, or an update is made or is not.
SAFE: dict[str, Any] = {
    "noise before": optax.chain(optax.add_noise(0.1, 0.5, key=7), sparse()),
    "named chain": optax.named_chain(("clip", optax.clip(0.1)), ("sparse", sparse())),
    "apply_if_finite": optax.apply_if_finite(sparse(), 3),
    "MultiSteps": optax.MultiSteps(sparse(), 2).gradient_transformation(),
    "inject_hyperparams": optax.inject_hyperparams(lambda rate: sparse())(rate=0.1),
    "masked": optax.masked(sparse(), {"bias": False, "kernel": True}),
    "partition": optax.partition(
        {"sparse": sparse(), "other": optax.sgd(0.1)},
        {"bias": "other", "kernel": "sparse"},
    ),
    "zero_nans after": after(optax.zero_nans()),
}
# These rescale, average, clip or add to what the sparse optimizer returns.
BREAKING: dict[str, Any] = {
    "scale": after(optax.scale(-0.1)),
    "ema": after(optax.ema(0.9)),
    "add_decayed_weights": after(optax.add_decayed_weights(0.1)),
    "apply_every": after(optax.apply_every(2)),
    "mechanize": contrib.mechanize(sparse()),
    "schedule_free": contrib.schedule_free(sparse(), 0.01),
    "lookahead": optax.lookahead(sparse(), sync_period=3, slow_step_size=0.5),
}
LINKS = SAFE | BREAKING


def initial(name: str) -> Any:
    params = masks.apply(EVEN, PARAMS)
    if name == "lookahead":
        return optax.LookaheadParams.init_synced(params)
    return params


def copies(params: Any) -> list[Any]:
    return [*params] if isinstance(params, optax.LookaheadParams) else [params]


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Any]]:
    """Each update: parameters by our way to apply it and by optax's, and the masks.

    One program of all links; training goes on with our way.
    """

    def one(name: str, params: Any, state: Any) -> Any:
        fast = params.fast if isinstance(params, optax.LookaheadParams) else params
        value, grads = jax.value_and_grad(
            lambda w: jnp.sum(jnp.square(w["kernel"] - 0.3)) + jnp.sum(w["bias"])
        )(fast)
        tx = optax.with_extra_args_support(LINKS[name])
        updates, state = tx.update(grads, state, params, value=value)
        ours = transforms.apply_updates(params, updates, state)
        return ours, state, optax.apply_updates(params, updates)

    @functools.partial(jax.jit, compiler_options=PLAINLY)
    def every(states: Any) -> Any:
        return {name: one(name, *at) for name, at in states.items()}

    states = {
        name: (initial(name), tx.init(initial(name))) for name, tx in LINKS.items()
    }
    found: dict[str, list[Any]] = {name: [] for name in LINKS}
    with jax.debug_key_reuse(False):  # links that add noise read one key twice
        for _ in range(STEPS):
            moments = every(states)
            for name, (ours, state, theirs) in moments.items():
                held = np.asarray(transforms.get_masks(state)["kernel"])
                found[name].append((copies(ours), copies(theirs), held))
            states = {name: moment[:2] for name, moment in moments.items()}
    return found


def dead_bits(params: Any, held: np.ndarray) -> int:
    """Counts weights outside the masks of which a bit is set."""
    return sum(
        np.count_nonzero(np.asarray(copy["kernel"]).view(np.uint32)[~held])
        for copy in params
    )


@pytest.mark.parametrize("name", LINKS)
def test_our_apply_updates_gives_exact_zeros(runs: Any, name: str) -> None:
    """Also that of optax, but after links that rescale, average or add."""
    held = [mask for *_, mask in runs[name]]
    assert all(mask.sum() == 6 for mask in held)
    assert any((mask != held[0]).any() for mask in held)
    assert not any(dead_bits(ours, mask) for ours, _, mask in runs[name])
    breaks = any(dead_bits(theirs, mask) for _, theirs, mask in runs[name])
    assert breaks == (name in BREAKING)
    if name in SAFE:
        for ours, theirs, _ in runs[name]:
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_nan_weight_outside_new_masks_becomes_zero() -> None:
    tx = transforms.fixed(optax.sgd(0.1))
    params = PARAMS | {"kernel": PARAMS["kernel"].at[0, 1].set(jnp.nan)}
    state = transforms.replace_masks(tx.init(PARAMS), EVEN)
    updates, state = jax.jit(tx.update)(
        jax.tree.map(np.ones_like, params), state, params
    )
    assert np.isnan(optax.apply_updates(params, updates)["kernel"][0, 1])
    after = transforms.apply_updates(params, updates, state)["kernel"]
    assert not after[~np.asarray(EVEN["kernel"])].any() and np.isfinite(after).all()


def test_latent_methods_keep_dense_weights() -> None:
    tx = optax.chain(
        transforms.straight_through(optax.sgd(0.1), sparsity=0.5), optax.ema(0.9)
    )
    grads = jax.tree.map(np.ones_like, PARAMS)
    updates, state = jax.jit(tx.update)(grads, jax.jit(tx.init)(PARAMS), PARAMS)
    after = transforms.apply_updates(PARAMS, updates, state)
    jax.tree.map(
        np.testing.assert_array_equal, after, optax.apply_updates(PARAMS, updates)
    )
    weights = transforms.forward_params(after, state)["kernel"]
    assert np.count_nonzero(weights) == 6 and np.count_nonzero(after["kernel"]) == 12
