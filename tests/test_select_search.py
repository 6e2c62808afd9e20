"""What a sample, interpolation and narrow sums may not change about a selection."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsparse import select
from jaxsparse.select import counting, sample, thresholds
from jaxsparse.select.search import search

SHAPES = {"cube": (3, 8, 5), "flat": (25,), "kernel": (16, 9)}
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())


def split(flat: np.ndarray) -> dict:
    ends = np.cumsum([int(np.prod(shape)) for shape in SHAPES.values()])[:-1]
    parts = zip(SHAPES.items(), np.split(flat, ends), strict=True)
    return {name: part.astype(np.float32).reshape(s) for (name, s), part in parts}


def adversaries() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=SIZE)
    special = [0.0, -0.0, 1e-45, -1e-45, 1e38, np.inf, -np.inf, np.nan, -np.nan]
    return {
        "normal": normal,
        "all equal": np.full(SIZE, 0.3),
        "heavy ties": np.round(np.abs(normal) * 2),
        "sorted": np.arange(SIZE),
        "denormal": rng.integers(-9, 9, SIZE) * 1e-45,
        "zeros of both signs": np.where(normal > 0, 0.0, -0.0),
        "special": rng.choice(special, SIZE),
        "NaN": np.full(SIZE, np.nan),
        "one apart": np.r_[np.zeros(SIZE - 1), 1.0],
    }


# What a sample may say: what is there, or bounds that do not hold.
MISSED = {
    "sampled": None,
    "too high": lambda value, num: jnp.full(num, 2**30, value.dtype),
    "too low": lambda value, num: jnp.full(num, -(2**30), value.dtype),
    "apart": lambda value, num: jnp.where(
        jnp.arange(num) % 2 == 0, jnp.iinfo(value.dtype).min, 2**31 - 2
    ).astype(value.dtype),
}


@pytest.mark.parametrize("missed", list(MISSED))
def test_no_sample_changes_masks(missed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"POOLED": 32, "LAYER": 16, "MIN_RATIO": 1}.items():
        monkeypatch.setattr(sample, name, value)
    if MISSED[missed] is not None:
        monkeypatch.setattr(sample, "draw", MISSED[missed])
    # Traced anew, with the constants above.
    monkeypatch.setattr(thresholds, "keep_layers", thresholds.keep_layers.__wrapped__)
    globally = jax.jit(lambda s, k, c: select.top_k_global(s, k, candidates=c))
    per_layer = jax.jit(lambda s, k, c: select.top_k_per_layer(s, k, candidates=c))
    some = split(np.random.default_rng(1).random(SIZE) < 0.7)
    within = {name: leaf > 0 for name, leaf in some.items()}
    for name, flat in adversaries().items():
        scores = split(flat)
        leaves, masks = list(scores.values()), list(within.values())
        for count in (0, 1, SIZE // 10, SIZE // 2):
            found = globally(scores, np.int32(count), within).values()
            expected = reference.select(leaves, count, masks)
            for got, wanted in zip(found, expected, strict=True):
                np.testing.assert_array_equal(got, wanted, err_msg=f"{name} {count}")
        counts = {"cube": np.int32(60), "kernel": np.int32(7), "flat": np.int32(0)}
        found = per_layer(scores, counts, within)
        for layer, count in counts.items():
            (wanted,) = reference.select([scores[layer]], int(count), [within[layer]])
            np.testing.assert_array_equal(found[layer], wanted, err_msg=name)


def num_counts(values: list, target: int, first: list) -> int:
    """Counts the passes over all values that a search makes."""
    made = []

    def count(values: list, cuts: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: made.append(1))
        total = sum(jnp.sum(value >= cuts[0], dtype=jnp.int32) for value in values)
        return total[None]

    run = functools.partial(search, count=count, low=-(2**31) + 1, high=2**31 - 1)
    jax.block_until_ready(run(values, jnp.array([target], jnp.int32), first=first))
    jax.effects_barrier()
    return len(made)


def test_a_sample_saves_most_counts() -> None:
    """Continuous scores and tied ones, over both a binade's border and within one."""
    rng = np.random.default_rng(2)
    normal = np.abs(rng.normal(size=(2**9, 2**8)).astype(np.float32))
    for flat in (normal, normal**7, np.round(normal * 16) / 16):
        values = thresholds.sortable_bits(
            [select.inputs.Layer("", jnp.asarray(flat), None, frozen=False)]
        )
        for target in (flat.size // 10, flat.size // 2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sample, "POOLED", 2**12)
                targets = jnp.array([target], jnp.int32)
                first = sample.trials(values, targets, pooled=True)
            assert num_counts(values, target, first) <= 16
            assert num_counts(values, target, []) >= 17


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (64, 3), (2, 96, 5), (0, 4)])
def test_narrow_sums_count_all(shape: tuple[int, ...]) -> None:
    value = jnp.asarray(np.random.default_rng(0).integers(-5, 5, shape), jnp.int32)
    for cut in (-6, 0, 6):
        counted = jax.jit(counting.count, static_argnums=2)(
            value, jnp.int32(cut), jnp.int32
        )
        assert int(counted) == np.sum(np.asarray(value) >= cut)


def test_a_count_of_a_sharded_leaf_moves_one_number() -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    count = jax.jit(counting.count, static_argnums=2)
    for shape in ((128, 6), (96, 6), (60, 6), (4, 64, 6)):
        for axis in range(len(shape)):
            if shape[axis] % 4:
                continue
            spec = P(*(None,) * axis, "data")
            value = jax.device_put(jnp.ones(shape, int), NamedSharding(mesh, spec))
            text = count.lower(value, jnp.int32(0), jnp.int32).compile().as_text()
            moved = re.findall(r"= (\S+) (?:all-\w+|collective-permute)\(", text)
            assert moved in (["s32[]"], ["f32[]"]), (shape, axis, moved)
            assert int(count(value, jnp.int32(0), jnp.int32)) == value.size
