from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxsparse import distributions, masks, oneshot


def params() -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "a": {"kernel": jax.random.normal(keys[0], (30, 20)), "bias": jnp.ones(20)},
        "b": {"kernel": jax.random.normal(keys[1], (20, 10)), "bias": jnp.ones(10)},
    }


@pytest.mark.parametrize("distribution", oneshot.DISTRIBUTIONS)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99])
def test_count_is_exact(distribution: str, sparsity: float):
    ticket = oneshot.prune(params(), sparsity, distribution=distribution)
    assert masks.kept(ticket) == distributions.count_kept(800, sparsity)
    assert ticket["a"]["bias"] is None


def test_keeps_the_largest():
    weights = params()
    ticket = oneshot.prune(weights, 0.9)
    size = jnp.concatenate([abs(weights[n]["kernel"]).reshape(-1) for n in "ab"])
    kept = jnp.concatenate([ticket[n]["kernel"].reshape(-1) for n in "ab"])
    assert jnp.min(size[kept]) > jnp.max(size[~kept])


def test_score_is_used():
    ticket = oneshot.prune(
        params(), 0.9, score=lambda p, m: masks.tree_map(lambda _, w: -abs(w), m, p)
    )
    largest = oneshot.prune(params(), 0.9)
    assert not jnp.any(ticket["a"]["kernel"] & largest["a"]["kernel"])


def test_unknown_distribution_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean uniform"):
        oneshot.prune(params(), 0.5, distribution="unifrom")
