"""Signal propagation as published: masks by a slow search, a small measurement."""

import jax
import numpy as np
import pytest

from experiments.studies.gradient_flow import signals
from jaxsparse import rng

SHAPES = {
    "kernel": jax.ShapeDtypeStruct((5, 40), "float32"),
    "bias": jax.ShapeDtypeStruct((40,), "float32"),
}


@pytest.mark.parametrize("sparsity", [0.0, 0.31, 0.9])
def test_the_lowest_scores_of_each_kernel_are_removed(sparsity: float) -> None:
    key = jax.random.key(3)
    masks = signals.heterogeneous_masks(SHAPES, sparsity, key=key)
    assert masks["bias"] is None
    uniform = np.asarray(jax.random.uniform(rng.leaf_key(key, "kernel"), (5, 40)))
    scores = [(uniform[i, c] * (c + 1), i, c) for i in range(5) for c in range(40)]
    removed = sorted(scores)[: round(200 * sparsity)]
    wanted = np.ones((5, 40), bool)
    for _, i, c in removed:
        wanted[i, c] = False
    np.testing.assert_array_equal(masks["kernel"], wanted)


def test_without_sparsity_all_initializations_are_one() -> None:
    found = signals.measure(2, sparsities=(0.0, 0.5), examples=8)
    assert len(found) == 2 * 2 * 3
    dense = found[found["sparsity"] == 0].groupby("repeat")["logits"]
    np.testing.assert_allclose(dense.max(), dense.min(), rtol=1e-4)
    assert (found.loc[found["sparsity"] == 0, "connected"] == 1).all()
    half = found[found["sparsity"] == 0.5].pivot(
        index="repeat", columns="initialization", values="logits"
    )
    assert (half["dense"] < half["neurons"]).all()
    section = signals.section(found)
    assert [one.verdict for one in section.claims] == ["unclear"] * 4  # two repeats
    section.figures["deviations"].draw_without_rendering()
