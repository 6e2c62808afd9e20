import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import masks, rng, scores

pytestmark = pytest.mark.keys_used_once


PARAMS = {
    "a": {"kernel": jnp.array([[-2.0, 0.5], [jnp.nan, 0.0]]), "bias": jnp.ones(2)},
    "b": {"kernel": jnp.array([[-1.0, 3.0]], jnp.bfloat16)},
}


def test_magnitude_is_the_absolute_value_of_prunable_leaves() -> None:
    result = scores.magnitude(PARAMS, masks.ones(PARAMS))
    assert result["a"]["bias"] is None
    np.testing.assert_array_equal(result["a"]["kernel"], [[2.0, 0.5], [np.nan, 0.0]])
    assert result["b"]["kernel"].dtype == jnp.bfloat16


def test_random_draws_do_not_depend_on_other_layers() -> None:
    key = jax.random.key(0)
    mask = masks.ones(PARAMS)
    both = scores.random(mask, key=key)
    alone = scores.random({"b": mask["b"]}, key=key)
    np.testing.assert_array_equal(both["b"]["kernel"], alone["b"]["kernel"])
    assert both["a"]["bias"] is None


def test_random_is_uniform_and_differs_by_name_and_key() -> None:
    mask = {"a": jnp.ones((50, 50), bool), "b": jnp.ones((50, 50), bool)}
    first = scores.random(mask, key=jax.random.key(0))
    second = scores.random(mask, key=jax.random.key(1))
    draws = [first["a"], first["b"], second["a"]]
    for draw in draws:
        assert draw.dtype == jnp.float32
        assert float(draw.min()) >= 0 and float(draw.max()) < 1
        np.testing.assert_allclose(np.mean(draw), 0.5, atol=0.03)
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_random_is_the_same_under_jit() -> None:
    mask, key = masks.ones(PARAMS), jax.random.key(3)
    eager = scores.random(mask, key=key)
    jitted = jax.jit(lambda m, k: scores.random(m, key=k))(mask, key)
    jax.tree.map(np.testing.assert_array_equal, eager, jitted)


def test_the_hash_of_a_name_never_changes() -> None:
    key = jax.random.key(0)
    expected = jax.random.fold_in(key, 0xCBF43926)  # CRC-32 of "123456789", published
    np.testing.assert_array_equal(
        jax.random.key_data(rng.leaf_key(key, "123456789")),
        jax.random.key_data(expected),
    )
