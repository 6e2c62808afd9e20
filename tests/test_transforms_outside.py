"""What stands outside a sparse optimizer: which links keep its zeros, which do not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
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
    "nothing": sparse(),
    "clip before": optax.chain(optax.clip_by_global_norm(0.1), sparse()),
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
    "schedule": after(optax.scale_by_schedule(lambda count: 0.5)),
    "ema": after(optax.ema(0.9)),
    "trace": after(optax.trace(0.9)),
    "add_noise": after(optax.add_noise(0.1, 0.5, key=7)),
    "add_decayed_weights": after(optax.add_decayed_weights(0.1)),
    "clip": after(optax.clip(0.1)),
    "clip_by_global_norm": after(optax.clip_by_global_norm(0.1)),
    "clip_by_block_rms": after(optax.clip_by_block_rms(0.1)),
    "adaptive_grad_clip": after(optax.adaptive_grad_clip(0.1)),
    "centralize": after(optax.centralize()),
    "normalize": after(optax.normalize_by_update_norm()),
    "trust ratio": after(optax.scale_by_trust_ratio()),
    "apply_every": after(optax.apply_every(2)),
    "reduce_on_plateau": after(contrib.reduce_on_plateau(0.5, patience=1, rtol=1.0)),
    "adam": after(optax.adam(0.01)),
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
def runs() -> dict[str, dict[str, list[Any]]]:
    """Parameters and masks after every update, by way to apply it; one program."""

    def one(name: str, params: Any, state: Any, ours: bool) -> Any:
        fast = params.fast if isinstance(params, optax.LookaheadParams) else params
        value, grads = jax.value_and_grad(
            lambda w: jnp.sum(jnp.square(w["kernel"] - 0.3)) + jnp.sum(w["bias"])
        )(fast)
        tx = optax.with_extra_args_support(LINKS[name])
        updates, state = tx.update(grads, state, params, value=value)
        if ours:
            return transforms.apply_updates(params, updates, state), state
        return optax.apply_updates(params, updates), state

    @jax.jit
    def every(both: Any) -> Any:
        return {
            way: {name: one(name, *at, way == "ours") for name, at in of.items()}
            for way, of in both.items()
        }

    start = {
        name: (initial(name), tx.init(initial(name))) for name, tx in LINKS.items()
    }
    both = {"ours": start, "optax": start}
    found: dict[str, dict[str, list[Any]]] = {
        way: {name: [] for name in LINKS} for way in both
    }
    with jax.debug_key_reuse(False):  # links that add noise read one key twice
        for _ in range(STEPS):
            both = every(both)
            for way, of in both.items():
                for name, (params, state) in of.items():
                    held = np.asarray(transforms.get_masks(state)["kernel"])
                    found[way][name].append((copies(params), held))
    return found


def dead_bits(run: list[Any]) -> list[int]:
    """Counts weights outside the masks of which a bit is set, after each update."""
    return [
        sum(
            np.count_nonzero(np.asarray(copy["kernel"]).view(np.uint32)[~held])
            for copy in params
        )
        for params, held in run
    ]


@pytest.mark.parametrize("name", LINKS)
def test_our_apply_updates_gives_exact_zeros(runs: Any, name: str) -> None:
    assert dead_bits(runs["ours"][name]) == [0] * STEPS
    held = [mask for _, mask in runs["ours"][name]]
    assert all(mask.sum() == 6 for mask in held)
    assert any((mask != held[0]).any() for mask in held)


@pytest.mark.parametrize("name", SAFE)
def test_what_may_stand_outside(runs: Any, name: str) -> None:
    assert dead_bits(runs["optax"][name]) == [0] * STEPS
    for ours, theirs in zip(runs["ours"][name], runs["optax"][name], strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_the_zeros_of_optax_apply_updates(runs: Any, name: str) -> None:
    assert any(dead_bits(runs["optax"][name]))


def test_a_nan_weight_outside_new_masks_becomes_zero() -> None:
    tx = transforms.fixed(optax.sgd(0.1))
    params = PARAMS | {"kernel": PARAMS["kernel"].at[0, 1].set(jnp.nan)}
    state = transforms.replace_masks(tx.init(PARAMS), EVEN)
    updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    assert np.isnan(optax.apply_updates(params, updates)["kernel"][0, 1])
    after = transforms.apply_updates(params, updates, state)["kernel"]
    assert not after[~np.asarray(EVEN["kernel"])].any() and np.isfinite(after).all()


def test_latent_methods_keep_dense_weights() -> None:
    tx = optax.chain(
        transforms.straight_through(optax.sgd(0.1), sparsity=0.5), optax.ema(0.9)
    )
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    updates, state = tx.update(grads, tx.init(PARAMS), PARAMS)
    after = transforms.apply_updates(PARAMS, updates, state)
    jax.tree.map(
        np.testing.assert_array_equal, after, optax.apply_updates(PARAMS, updates)
    )
    weights = transforms.forward_params(after, state)["kernel"]
    assert np.count_nonzero(weights) == 6 and np.count_nonzero(after["kernel"]) == 12
