"""The decoder: causality, rotary positions, a computation by hand, what is pruned."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_models import count

from jaxsparse import compaction, connectivity, flops, masks, models
from jaxsparse.models import decoder

SMALL = functools.partial(models.DecoderLM, width=8, heads=2, depth=2, classes=11)
TOKENS = np.random.default_rng(0).integers(0, 11, (3, 6)).astype(np.int32)


def variables(model: models.DecoderLM) -> dict:
    """Random values everywhere, so that nothing is hidden by a 0 or a 1."""
    rng = np.random.default_rng(1)
    like = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.asarray(TOKENS), train=False)
    )
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), like
    )


@functools.cache
def made(**fields: Any) -> tuple[models.DecoderLM, dict, Any]:
    model = SMALL(**fields)
    return model, variables(model), jax.jit(functools.partial(model.apply, train=False))


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def rms_norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def rotated(vector: np.ndarray, position: int) -> np.ndarray:
    """Rotates the plane of channels i and i + d/2 as complex numbers."""
    half = len(vector) // 2
    planes = vector[:half] + 1j * vector[half:]
    angles = position * 10_000.0 ** (-2 * np.arange(half) / len(vector))
    planes = planes * np.exp(1j * angles)
    return np.concatenate([planes.real, planes.imag])


def by_hand(params: Any, tokens: np.ndarray, *, gated: bool, tied: bool) -> np.ndarray:
    """Computes the logits of one window, one position and head after the other."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    table = p["embed"]["tied_embedding" if tied else "embedding"]
    x = table[tokens]
    for i in (1, 2):
        block = p[f"block{i}"]
        y = rms_norm(x, block["norm1"]["scale"])
        q, k, v = (
            y @ block["attention"][name]["kernel"] for name in ("query", "key", "value")
        )
        heads = np.zeros_like(q)
        for head in (slice(0, 4), slice(4, 8)):
            for t in range(len(tokens)):
                query = rotated(q[t, head], t)
                match = [rotated(k[s, head], s) @ query / 2 for s in range(t + 1)]
                heads[t, head] = softmax(np.array(match)) @ v[: t + 1, head]
        x = x + heads @ block["attention"]["out"]["kernel"]
        y = rms_norm(x, block["norm2"]["scale"])
        hidden = y @ block["mlp1"]["kernel"]
        gate = silu(y @ block["gate"]["kernel"]) * hidden if gated else silu(hidden)
        x = x + gate @ block["mlp2"]["kernel"]
    x = rms_norm(x, p["norm"]["scale"])
    return x @ (table.T if tied else p["head"]["kernel"])


@pytest.mark.parametrize(("gated", "tied"), [(True, False), (False, True)])
def test_logits_are_those_of_a_computation_by_hand(gated: bool, tied: bool) -> None:
    _, params, apply = made(gated=gated, tied=tied)
    got = np.asarray(apply(params, jnp.asarray(TOKENS)))
    assert got.shape == (3, 6, 11) and got.dtype == np.float32
    for window, logits in zip(TOKENS, got, strict=True):
        wanted = by_hand(params["params"], window, gated=gated, tied=tied)
        np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)


def test_a_later_token_never_changes_an_earlier_logit() -> None:
    _, params, apply = made(gated=True, tied=False)
    before = np.asarray(apply(params, jnp.asarray(TOKENS)))
    for t in range(6):
        changed = TOKENS.copy()
        changed[:, t] = (changed[:, t] + 1) % 11
        after = np.asarray(apply(params, jnp.asarray(changed)))
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        # Nothing is masked too much: all later logits depend on the token.
        assert np.all(np.abs(after - before)[:, t:].max(axis=-1) > 0)


def test_rotary_positions_are_relative_and_keep_norms() -> None:
    rng = np.random.default_rng(2)
    q, k = rng.normal(size=(2, 6)).astype(np.float32)
    everywhere = np.broadcast_to(np.stack([q, k])[:, None, None], (2, 9, 1, 6))
    got = np.asarray(decoder.rotate(jnp.asarray(everywhere)))[:, :, 0]
    np.testing.assert_array_equal(got[:, 0], np.stack([q, k]))
    match = got[0] @ got[1].T
    frequencies = 10_000.0 ** (-np.arange(0, 6, 2) / 6)
    planes = (q[:3] + 1j * q[3:]) * np.conj(k[:3] + 1j * k[3:])
    for m in range(9):
        for n in range(9):
            wanted = np.sum(planes * np.exp(1j * (m - n) * frequencies)).real
            assert match[m, n] == pytest.approx(wanted, abs=1e-5)
    norms = np.linalg.norm(got, axis=-1)
    np.testing.assert_allclose(norms, norms[:, :1].repeat(9, axis=1), rtol=1e-6)


def test_counts_and_prunable_leaves() -> None:
    shared = {"width": 24, "heads": 3, "depth": 2, "classes": 50}
    for gated, tied in ((True, False), (False, True)):
        model = models.DecoderLM(gated=gated, tied=tied, **shared)
        params = variables(model)["params"]
        blocks = 2 * (4 * 24**2 + (3 * 64 if gated else 2 * 96) * 24 + 2 * 24)
        assert count(params) == blocks + 24 + 24 * 50 * (1 if tied else 2)
        names = masks.names(masks.ones(params))
        assert len(names) == 2 * (4 + (3 if gated else 2)) + (0 if tied else 2)
        assert ("embed/embedding" in names) == (not tied)
        globs = ("*/kernel", "*embedding")
        everything = masks.names(masks.ones(params, prunable=globs))
        own = {"embed/tied_embedding"} if tied else set()
        assert set(everything) - set(names) == own
    with pytest.raises(ValueError, match=r"width: expected a multiple of 6, twice .*9"):
        models.DecoderLM(width=9, heads=3)


def test_dead_units_are_found_and_removed() -> None:
    model, params, apply = made(depth=1)
    example = jax.ShapeDtypeStruct((1, 6), jnp.int32)

    def forward(params: Any, tokens: Any) -> Any:
        return model.apply({"params": params}, tokens, train=False)

    ticket = masks.ones(params["params"])
    order = connectivity.first_to_last(forward, params["params"], ticket, example)
    assert (order[0], order[-1]) == ("embed/embedding", "head/kernel")
    assert sorted(order) == masks.names(ticket)
    # The look-up of an embedding multiplies nothing.
    macs = flops.macs(forward, params["params"], example)
    assert macs.layers["head/kernel"] == 6 * 8 * 11
    assert "embed/embedding" not in macs.layers
    assert macs.other == 2 * 6 * 6 * 8  # the two products of attention
    block = ticket["block1"]
    out, mlp2 = block["attention"]["out"], block["mlp2"]
    out["kernel"] = out["kernel"].at[:4].set(False)  # the first head
    mlp2["kernel"] = mlp2["kernel"].at[5:].set(False)
    pruned = {"params": masks.apply(ticket, params["params"])}
    live = jax.jit(
        lambda held: connectivity.live(forward, params["params"], held, example)
    )(ticket)
    counts = masks.layer_counts(live)
    assert counts["block1/attention/query/kernel"].num_active == 8 * 4
    assert counts["block1/gate/kernel"].num_active == 8 * 5
    tokens = jnp.asarray(TOKENS)
    small = compaction.compact_linen(model, pruned, ticket, tokens[:1], train=False)
    assert dict(small.module.widths) == {
        **{f"block1/attention/{name}": 4 for name in ("query", "key", "value")},
        **{f"block1/{name}": 5 for name in ("gate", "mlp1")},
    }
    got = small.module.apply(small.params, tokens, train=False)
    np.testing.assert_allclose(got, apply(pruned, tokens), atol=1e-5)


def test_widths_of_the_embedding_are_those_of_the_residual_stream() -> None:
    thin = {"embed": 4} | {
        f"block{i}/{name}": 4 for i in (1, 2) for name in ("attention/out", "mlp2")
    }
    model = SMALL(widths=thin)
    params = variables(model)["params"]
    assert params["embed"]["embedding"].shape == (11, 4)
    assert params["head"]["kernel"].shape == (4, 11)
    with pytest.raises(ValueError, match=r"widths: .*'blok1/mlp1'"):
        variables(SMALL(widths={"blok1/mlp1": 4}))


def test_hidden_channels_of_a_gated_mlp_are_about_those_of_a_plain_one() -> None:
    for width in (16, 64, 128):
        params = variables(models.DecoderLM(width=width, heads=2, depth=1))["params"]
        hidden = params["block1"]["gate"]["kernel"].shape[1]
        assert hidden == 8 * math.ceil(width / 3)
        assert 0 <= 3 * hidden - 2 * 4 * width < 24
