import itertools
import math
from fractions import Fraction
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse.analysis import mask_overlap


def tree(*layers: Any) -> Any:
    return {f"layer{i}": {"kernel": jnp.asarray(m, bool)} for i, m in enumerate(layers)}


def keeping(kept: int, size: int) -> np.ndarray:
    return np.arange(size) < kept


def described(a: set[int], b: set[int]) -> tuple[Fraction, ...]:
    smaller = min(len(a), len(b))
    return (
        Fraction(len(a & b)),
        Fraction(len(a ^ b)),
        Fraction(len(a & b), smaller) if smaller else Fraction(1),
        Fraction(len(a & b), len(a | b)) if a | b else Fraction(1),
    )


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.integers(1, 40), st.randoms(use_true_random=False))
def test_observed_overlap_is_that_of_sets(size: int, random: Any) -> None:
    cut = random.randint(1, size)
    a, b = ({i for i in range(size) if random.random() < 0.5} for _ in range(2))

    def split(kept: set[int]) -> Any:
        flags = np.array([i in kept for i in range(size)])
        return tree(flags[:cut], flags[cut:]) if cut < size else tree(flags)

    found = mask_overlap.mask_overlap(split(a), split(b))
    np.testing.assert_allclose(found.total, [float(x) for x in described(a, b)])
    first = described({i for i in a if i < cut}, {i for i in b if i < cut})
    got = found.layers["layer0/kernel"]
    np.testing.assert_allclose(got, [float(x) for x in first])
    assert got.intersection == first[0] and got.hamming == first[1]


def enumerated(layers: list[tuple[int, int, int]]) -> list[float]:
    """Averages over all masks of these counts, in rational numbers."""
    choices, start = [], 0
    for first, second, size in layers:
        places = range(start, start + size)
        choices.append(
            [
                (set(a), set(b))
                for a in itertools.combinations(places, first)
                for b in itertools.combinations(places, second)
            ]
        )
        start += size
    sums, count = [Fraction(0)] * 4, 0
    for parts in itertools.product(*choices):
        a = set().union(*(part[0] for part in parts))
        b = set().union(*(part[1] for part in parts))
        sums = [s + x for s, x in zip(sums, described(a, b), strict=True)]
        count += 1
    return [float(s / count) for s in sums]


@pytest.mark.parametrize(
    "layers",
    [
        [(2, 3, 5)],
        [(0, 2, 4)],
        [(0, 0, 3)],
        [(4, 4, 4)],
        [(4, 1, 4)],
        [(2, 2, 4), (1, 2, 3)],
        [(3, 3, 4), (0, 0, 2), (1, 1, 3)],
    ],
)
def test_chance_overlap_by_enumeration(layers: list[tuple[int, int, int]]) -> None:
    first = tree(*(keeping(a, n) for a, _, n in layers))
    second = tree(*(keeping(b, n)[::-1] for _, b, n in layers))
    found = mask_overlap.chance_overlap(first, second)
    np.testing.assert_allclose(found.total, enumerated(layers), rtol=1e-12)
    for got, layer in zip(found.layers.values(), layers, strict=True):
        np.testing.assert_allclose(got, enumerated([layer]), rtol=1e-12)


def test_chance_iou_is_no_ratio_of_means() -> None:
    mask = tree(keeping(2, 4))
    found = mask_overlap.chance_overlap(mask, mask).total
    assert found.intersection == 1.0
    np.testing.assert_allclose(found.iou, (1 * 0 + 4 / 3 + 1) / 6, rtol=1e-12)
    assert abs(found.iou - 1 / 3) > 0.05


def test_chance_overlap_of_large_layers_agrees_with_draws() -> None:
    """2,000 draws: the mean is within 5 s.e. but for a chance of 6e-7 each."""
    layers = [(150, 900, 2400), (1536, 1536, 30720), (42, 800, 840)]
    first = tree(*(keeping(a, n) for a, _, n in layers))
    second = tree(*(keeping(b, n) for _, b, n in layers))
    found = mask_overlap.chance_overlap(first, second)
    rng = np.random.default_rng(0)
    shared = np.array(
        [rng.hypergeometric(a, n - a, b, size=2000) for a, b, n in layers]
    )
    a, b, _ = (sum(column) for column in zip(*layers, strict=True))
    total = shared.sum(axis=0)
    for drawn, wanted in (
        (total / (a + b - total), found.total.iou),
        (a + b - 2 * total, found.total.hamming),
        (total / min(a, b), found.total.overlap),
        (shared[0] / (1050 - shared[0]), found.layers["layer0/kernel"].iou),
    ):
        error = np.std(drawn, ddof=1) / math.sqrt(2000)
        assert abs(np.mean(drawn) - wanted) < 5 * error


def test_chance_overlap_of_millions_of_weights_is_quick_and_sharp() -> None:
    """The law of a large layer is left out far from its mean, and still sums to 1."""
    count = mask_overlap.Counts(400_000, 500_000, 2_000_000)
    low, chances = mask_overlap.intersection_distribution(count)
    assert chances.size < 20_000
    np.testing.assert_allclose(np.sum(chances), 1, rtol=1e-12)
    mean = np.sum(chances * (low + np.arange(chances.size)))
    np.testing.assert_allclose(mean, 100_000, rtol=1e-9)


def test_equal_and_disjoint_masks() -> None:
    mask = tree(keeping(3, 8))
    same = mask_overlap.mask_overlap(mask, mask).total
    assert same == mask_overlap.Overlap(3.0, 0.0, 1.0, 1.0)
    other = jax.tree.map(lambda m: ~m, mask)
    apart = mask_overlap.mask_overlap(mask, other).total
    assert apart == mask_overlap.Overlap(0.0, 8.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        (
            tree(keeping(1, 3)),
            tree(keeping(1, 4)),
            "second: layer0/kernel: expected shape",
        ),
        (
            tree(keeping(1, 3)),
            {"x": jnp.array([True])},
            "second: expected only .*got the leaf x",
        ),
        (tree(np.zeros(0)), tree(np.zeros(0)), "are empty"),
        ({"bias": None}, {"bias": None}, "first: expected .*got no leaves"),
    ],
)
def test_masks_that_do_not_fit_are_refused(first: Any, second: Any, word: str) -> None:
    for measure in (mask_overlap.mask_overlap, mask_overlap.chance_overlap):
        with pytest.raises(ValueError, match=word):
            measure(first, second)
