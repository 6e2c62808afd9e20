"""Random networks with random masks: outputs stay, and of MLPs nothing dead is left."""

from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

from jaxsparse import compaction, masks
from jaxsparse.types import Masks, Params

# Few shapes, so that few programs are compiled.
WIDTH, POSITIONS, BATCH = 4, 3, 2
KINDS = ("dense", "convolution", "normalized", "residual", "attention", "gate")


def relu(x: Any) -> Any:
    return jnp.maximum(x, 0)


def convolve(x: Any, kernel: Any, padding: str) -> Any:
    order = ("NHC", "HIO", "NHC")
    return lax.conv_general_dilated(x, kernel, (1,), padding, dimension_numbers=order)


def normalize(p: Params, x: Any) -> Any:
    centered = x - p["mean"][None, None]
    scaled = centered * lax.rsqrt(p["var"] + 1e-5)[None, None] * p["scale"][None, None]
    return scaled + p["bias"][None, None]


def layer(kind: str, p: Params, x: Any) -> Any:
    """Applies a layer to a sequence [b, t, c]."""
    if kind == "dense":
        return relu(x @ p["kernel"] + p["bias"][None, None])
    if kind == "convolution":
        return relu(convolve(x, p["taps"], "SAME") + p["bias"][None, None])
    if kind == "normalized":
        return relu(normalize(p, convolve(x, p["taps"], "SAME")))
    if kind == "residual":
        return x + jnp.tanh(x @ p["kernel"] + p["bias"][None, None]) @ p["out"]
    if kind == "gate":
        return jax.nn.sigmoid(x @ p["kernel"] + p["bias"][None, None]) * (x @ p["out"])
    query, key, value = (x @ p[name] for name in ("query", "key", "kernel"))
    scores = jax.nn.softmax(jnp.einsum("btc,bsc->bts", query, key))
    return jnp.einsum("bts,bsc->btc", scores, value) @ p["out"]


LEAVES = {
    "dense": ("kernel", "bias"),
    "convolution": ("taps", "bias"),
    "normalized": ("taps", "mean", "var", "scale", "bias"),
    "residual": ("kernel", "bias", "out"),
    "gate": ("kernel", "bias", "out"),
    "attention": ("query", "key", "kernel", "out"),
}
MATRICES = ("kernel", "out", "query", "key")


def draw(kinds: tuple[str, ...], seed: int) -> tuple[Params, Masks]:
    """Draws parameters and masks with many dead rows and columns."""
    rng = np.random.default_rng(seed)
    params: Params = {}
    active: Masks = {}
    for number, kind in enumerate((*kinds, "head")):
        name = f"layer{number}"
        params[name], active[name] = {}, {}
        for leaf in LEAVES.get(kind, ("kernel", "bias")):
            if leaf == "taps":
                shape: tuple[int, ...] = (3, WIDTH, WIDTH)
            else:
                shape = (WIDTH, WIDTH) if leaf in MATRICES else (WIDTH,)
            value = rng.normal(size=shape)
            if leaf in ("var", "scale"):
                value = np.abs(value) + 0.5
            if leaf == "bias":
                value = value * (rng.random(shape) < 0.7)
            params[name][leaf] = jnp.asarray(value, jnp.float32)
            active[name][leaf] = None
            if len(shape) > 1:
                mask = rng.random(shape) < 0.7
                mask[..., rng.random(WIDTH) < 0.3] = False
                mask[..., rng.random(WIDTH) < 0.3, :] = False
                active[name][leaf] = jnp.asarray(mask)
    return params, active


@hypothesis.settings(max_examples=12)
@hypothesis.given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), st.integers(0, 999)
)
def test_outputs_stay_equal(kinds: list[str], seed: int) -> None:
    params, active = draw(tuple(kinds), seed)

    def apply(p: Params, x: Any) -> Any:
        for number, kind in enumerate(kinds):
            x = layer(kind, p[f"layer{number}"], x)
        last = p[f"layer{len(kinds)}"]
        return x @ last["kernel"] + last["bias"][None, None]

    rng = np.random.default_rng(seed)
    shape = (BATCH, POSITIONS, WIDTH)
    example = jnp.zeros(shape)  # says nothing about which units are silent
    small = compaction.compact(apply, params, active, example)
    thin = masks.apply(active, params)
    for scale in (0.5, 5.0):
        x = jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)
        wanted, got = np.asarray(apply(thin, x)), apply(small.params, x)
        # Sums of other lengths round differently.
        np.testing.assert_allclose(
            got, wanted, atol=2e-5 * max(1, np.abs(wanted).max())
        )
    count = masks.num_active(active)
    assert masks.num_active(small.masks) <= count
    before, after = small.report.parameters
    assert after <= before
    assert after == sum(leaf.size for leaf in jax.tree.leaves(small.params))


def test_of_an_mlp_all_dead_units_go() -> None:
    """Counts the units that an input reaches and an output reads, unit by unit."""
    for seed in range(8):
        params, active = draw(("dense", "dense"), seed)

        def apply(p: Params, x: Any) -> Any:
            for number in range(2):
                x = layer("dense", p[f"layer{number}"], x)
            return x @ p["layer2"]["kernel"] + p["layer2"]["bias"][None, None]

        kernels = [np.asarray(active[f"layer{i}"]["kernel"]) for i in range(3)]
        reached = [np.ones(WIDTH, bool)]
        for kernel in kernels[:2]:
            reached.append((kernel & reached[-1][:, None]).any(0))
        read = [np.ones(WIDTH, bool)]
        for kernel in kernels[:0:-1]:
            read.insert(0, (kernel & read[0]).any(1))
        alive = [a & b for a, b in zip(reached[1:], read[:2], strict=True)]
        small = compaction.compact(apply, params, active, jnp.zeros((1, 1, WIDTH)))
        for i, units in enumerate(alive):
            width = small.params[f"layer{i}"]["bias"].shape[0]
            assert width == max(1, units.sum()), (seed, i)
