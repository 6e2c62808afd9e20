"""Random networks with random masks: outputs stay, and units planted as dead go."""

from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

from jaxsparse import compaction, masks
from jaxsparse.types import Masks, Params

# Few shapes, so that few programs are compiled.
WIDTH, CHANNELS, BATCH = 4, 2, 2


class Layer(NamedTuple):
    """Leaves of a kind of layer.

    Attributes:
      reads: those that read the channels of the previous layer, along axis -2.
      writes: those with the channels of this layer, along the last axis.
      inner: for each set of units inside the layer the leaves with these units along
        the last axis, and those along axis -2.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    inner: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()


STATISTICS = ("mean", "var", "scale", "bias")
PROJECTIONS = ("query", "key", "kernel")
LAYERS = {
    "stem": Layer((), ("second", "bias"), ((("first", "inner"), ("second",)),)),
    "dense": Layer(("kernel",), ("kernel", "bias")),
    "convolution": Layer(("taps",), ("taps", "bias")),
    "normalized": Layer(("taps",), ("taps", *STATISTICS)),
    "residual": Layer(("kernel",), ("out",), ((("kernel", "bias"), ("out",)),)),
    "gate": Layer(("kernel", "out"), ("kernel", "out", "bias")),
    "attention": Layer(
        PROJECTIONS, ("out",), ((("query", "key"), ()), (("kernel",), ("out",)))
    ),
    "heads": Layer(PROJECTIONS, ("out",), ((PROJECTIONS, ("out",)),)),
}
HEADS = np.array([[True, True, False, False], [False, False, True, True]])
SHAPES = {
    "first": (2, 2, CHANNELS, WIDTH),
    "second": (2, 2, WIDTH, WIDTH),
    "taps": (3, WIDTH, WIDTH),
    **dict.fromkeys((*PROJECTIONS, "out"), (WIDTH, WIDTH)),
    **dict.fromkeys((*STATISTICS, "inner"), (WIDTH,)),
}
KINDS = tuple(kind for kind in LAYERS if kind != "stem")


def relu(x: Any) -> Any:
    return jnp.maximum(x, 0)


def convolve(x: Any, kernel: Any, padding: str) -> Any:
    space = "HW"[: x.ndim - 2]
    order = (f"N{space}C", f"{space}IO", f"N{space}C")
    strides = (1,) * len(space)
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=order
    )


def normalize(p: Params, x: Any) -> Any:
    centered = x - p["mean"][None, None]
    scaled = centered * lax.rsqrt(p["var"] + 1e-5)[None, None] * p["scale"][None, None]
    return scaled + p["bias"][None, None]


def layer(kind: str, p: Params, x: Any) -> Any:
    """Applies a layer to a sequence [b, t, c], the stem to images [b, h, w, c]."""
    if kind == "stem":
        x = relu(convolve(x, p["first"], "VALID") + p["inner"][None, None, None])
        x = relu(convolve(x, p["second"], "VALID") + p["bias"][None, None, None])
        return x.reshape(x.shape[0], -1, x.shape[-1])
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
    size = 2 if kind == "heads" else p["kernel"].shape[1]
    query, key, value = (
        (x @ p[name]).reshape(*x.shape[:2], -1, size)
        if kind == "heads"
        else (x @ p[name])[:, :, None]
        for name in PROJECTIONS
    )
    scores = jax.nn.softmax(jnp.einsum("bthc,bshc->bhts", query, key))
    found = jnp.einsum("bhts,bshc->bthc", scores, value)
    return found.reshape(*x.shape[:2], -1) @ p["out"]


def forward(kinds: tuple[str, ...], params: Params, x: Any) -> Any:
    for number, kind in enumerate(kinds):
        x = layer(kind, params[f"layer{number}"], x)
    last = params[f"layer{len(kinds)}"]
    return x @ last["kernel"] + last["bias"][None, None]


def leaves_of(kind: str) -> list[str]:
    """Lists the leaves of a layer; the last one is dense."""
    reads, writes, inner = LAYERS.get(kind, LAYERS["dense"])
    within = [name for pair in inner for names in pair for name in names]
    return list(dict.fromkeys([*reads, *writes, *within]))


def draw(kinds: tuple[str, ...], rng: np.random.Generator) -> tuple[Params, Any]:
    """Draws parameters, and masks with many dead rows and columns."""
    params: Params = {}
    active: Any = {}
    for number, kind in enumerate((*kinds, "head")):
        name = f"layer{number}"
        params[name], active[name] = {}, {}
        for leaf in leaves_of(kind):
            shape = SHAPES[leaf]
            value = rng.normal(size=shape)
            if leaf in ("var", "scale"):
                value = np.abs(value) + 0.5
            if leaf == "bias":
                value = value * (rng.random(shape) < 0.7)
            params[name][leaf] = jnp.asarray(value, jnp.float32)
            active[name][leaf] = None
            if len(shape) > 1:
                mask = rng.random(shape) < 0.7
                mask[..., rng.random(shape[-1]) < 0.3] = False
                mask[..., rng.random(shape[-2]) < 0.3, :] = False
                active[name][leaf] = mask
    return params, active


def plant(kinds: tuple[str, ...], active: Any, rng: np.random.Generator) -> dict:
    """Masks all that some units read, and all that reads them.

    Returns:
      The number of these units by layer, leaf and axis.
    """
    found: dict[tuple[str, str, int], int] = {}

    def kill(units: np.ndarray, name: str, leaves: tuple[str, ...], axis: int) -> None:
        for leaf in leaves:
            found[name, leaf, axis] = int(units.sum())
            mask = active[name][leaf]
            if mask is not None:
                np.moveaxis(mask, axis, 0)[units] = False

    def some() -> np.ndarray:
        units = rng.random(WIDTH) < 0.4
        units[rng.integers(WIDTH)] = False
        return units

    units = np.zeros(WIDTH, bool)
    for number, kind in enumerate(kinds):
        name, (reads, writes, inner) = f"layer{number}", LAYERS[kind]
        kill(units, name, reads, -2)
        if kind == "stem":  # at least one unit in each network
            units = HEADS[rng.integers(2)]
        elif kind != "residual":  # which adds to the same channels
            units = some()
        kill(units, name, writes, -1)
        for before, behind in inner:
            within = HEADS[rng.integers(2)] if kind == "heads" else some()
            kill(within, name, before, -1)
            kill(within, name, behind, -2)
    kill(units, f"layer{len(kinds)}", ("kernel",), -2)
    return found


def to_arrays(active: Any) -> Masks:
    return jax.tree.map(jnp.asarray, active)


@hypothesis.example(["normalized", "heads", "attention"], 873)  # nothing is alive
@hypothesis.settings(max_examples=12)
@hypothesis.given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), st.integers(0, 999)
)
def test_outputs_stay_equal_and_dead_units_go(kinds: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = ("stem", *kinds)
    params, numpy_masks = draw(network, rng)
    planted = plant(network, numpy_masks, rng)
    active = to_arrays(numpy_masks)

    def apply(p: Params, x: Any) -> Any:
        return forward(network, p, x)

    shape = (4, 4, CHANNELS)
    example = jnp.zeros((BATCH, *shape))  # says nothing about which units are silent
    small = compaction.compact(apply, params, active, example)
    thin = masks.apply(active, params)
    # With the shapes and the precision of the tool, nothing is compiled again.
    run = jax.jit(apply)
    with jax.default_matmul_precision("highest"):
        for batch, scale in ((BATCH, 0.5), (5, 5.0)):
            x = jnp.asarray(rng.normal(size=(batch, *shape)) * scale, jnp.float32)
            wanted, got = np.asarray(run(thin, x)), run(small.params, x)
            # Sums of other lengths round differently.
            np.testing.assert_allclose(
                got, wanted, atol=2e-5 * max(1, np.abs(wanted).max())
            )
    for (name, leaf, axis), count in planted.items():
        shape = params[name][leaf].shape
        # A dead unit goes, unless the report names it, as a constant of a maximum.
        of_axis = (f"{name}/{leaf}", axis % len(shape))
        named = sum(place[:2] == of_axis for place in small.report.kept)
        width = small.params[name][leaf].shape[axis]
        assert width <= shape[axis] - count + named, (name, leaf, axis)
    before, after = small.report.parameters
    assert before == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert after == sum(leaf.size for leaf in jax.tree.leaves(small.params)) < before
    assert masks.num_active(small.masks) <= masks.num_active(active)


def test_of_an_mlp_all_dead_units_go() -> None:
    """Counts the units that an input reaches and an output reads, unit by unit."""
    for seed in range(8):
        params, numpy_masks = draw(("dense", "dense"), np.random.default_rng(seed))
        active = to_arrays(numpy_masks)

        def apply(p: Params, x: Any) -> Any:
            return forward(("dense", "dense"), p, x)

        kernels = [numpy_masks[f"layer{i}"]["kernel"] for i in range(3)]
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
