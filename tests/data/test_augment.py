"""Augmentation against slow numpy, and shards against the whole batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxsparse.data import augment

pytestmark = pytest.mark.keys_used_once


def make_images(
    batch: int, height: int = 8, width: int = 7, seed: int = 0
) -> jax.Array:
    generator = np.random.default_rng(seed)
    shape = (batch, height, width, 3)
    return jnp.asarray(generator.integers(1, 256, shape, dtype=np.uint8))


def slow_crop(images: np.ndarray, offsets: np.ndarray, pad: int) -> np.ndarray:
    result = np.zeros_like(images)
    _, height, width, _ = images.shape
    for i, (down, right) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                row, column = y + down - pad, x + right - pad
                if 0 <= row < height and 0 <= column < width:
                    result[i, y, x] = images[i, row, column]
    return result


@pytest.mark.parametrize("pad", [0, 4, 9])
def test_crop_equals_the_slow_reference(pad: int) -> None:
    images, places = make_images(16), jnp.arange(16)
    offsets = augment.crop_offsets(places, pad=pad, key=jax.random.key(1))
    crop = jax.jit(functools.partial(augment.random_crop, pad=pad))
    got = crop(images, key=jax.random.key(1), places=places)
    assert got.dtype == jnp.uint8
    wanted = slow_crop(np.asarray(images), np.asarray(offsets), pad)
    np.testing.assert_array_equal(got, wanted)


def test_flip_equals_the_slow_reference() -> None:
    images, places = make_images(16), jnp.arange(16)
    mirrored = np.asarray(augment.flips(places, key=jax.random.key(1)))
    got = jax.jit(augment.random_flip)(images, key=jax.random.key(1), places=places)
    assert got.dtype == jnp.uint8
    assert 0 < mirrored.sum() < 16
    for i in range(16):
        wanted = np.asarray(images[i])
        wanted = wanted[:, ::-1] if mirrored[i] else wanted
        np.testing.assert_array_equal(got[i], wanted)


def test_each_draw_is_that_of_the_example_alone() -> None:
    offsets = augment.crop_offsets(jnp.arange(5), pad=4, key=jax.random.key(2))
    for place in range(5):
        own = jax.random.fold_in(jax.random.key(2), place)
        np.testing.assert_array_equal(
            offsets[place], jax.random.randint(own, (2,), 0, 9)
        )


@jax.jit
def whole(images: jax.Array, places: jax.Array, seed: int | jax.Array) -> jax.Array:
    crop, flip = jax.random.split(jax.random.key(seed))
    images = augment.random_crop(images, pad=2, key=crop, places=places)
    images = augment.random_flip(images, key=flip, places=places)
    return augment.normalize(images, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def test_parts_of_a_batch_equal_the_whole() -> None:
    images, places = make_images(12), jnp.arange(100, 112)
    together = whole(images, places, 3)
    for part in (slice(0, 3), slice(5, 8), slice(9, 12)):
        alone = whole(images[part], places[part], 3)
        np.testing.assert_array_equal(alone, together[part])


def test_four_devices_equal_one() -> None:
    images, places = make_images(12), jnp.arange(12)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    by_batch = NamedSharding(mesh, PartitionSpec("data"))
    spread = whole(
        jax.device_put(images, by_batch), jax.device_put(places, by_batch), 4
    )
    assert spread.sharding.is_equivalent_to(by_batch, spread.ndim)
    np.testing.assert_array_equal(spread, whole(images, places, 4))


def test_replicates_under_vmap_equal_single_runs() -> None:
    images, places = make_images(12), jnp.arange(12)
    together = jax.vmap(whole, (None, None, 0))(images, places, jnp.arange(3))
    for seed in range(3):
        np.testing.assert_array_equal(together[seed], whole(images, places, seed))


def test_crops_are_uniform() -> None:
    # 20,000 draws over 9 offsets on two axes; chi-squared with 8 degrees of freedom
    # exceeds 40 by chance about once in 300,000. The key is fixed.
    offsets = augment.crop_offsets(jnp.arange(20_000), pad=4, key=jax.random.key(6))
    expected = 20_000 / 9
    for axis in range(2):
        counts = np.bincount(offsets[:, axis], minlength=9)
        assert counts.size == 9
        assert ((counts - expected) ** 2 / expected).sum() < 40
    assert abs(np.corrcoef(offsets[:, 0], offsets[:, 1])[0, 1]) < 0.03


def test_half_are_flipped() -> None:
    # Standard deviation 0.0035; five of them.
    share = augment.flips(jnp.arange(20_000), key=jax.random.key(7)).mean()
    assert abs(float(share) - 0.5) < 0.018


def test_normalize_is_the_formula() -> None:
    images = make_images(4)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    got = augment.normalize(images, mean=mean, std=std)
    assert got.dtype == jnp.float32
    wanted = (np.asarray(images) / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_padding_is_black_before_normalization() -> None:
    images = jnp.full((64, 4, 4, 1), 200, jnp.uint8)
    cropped = augment.random_crop(
        images, pad=2, key=jax.random.key(8), places=jnp.arange(64)
    )
    assert set(np.unique(cropped)) == {0, 200}


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="pad: expected .*got -1"):
        augment.random_crop(
            make_images(2), pad=-1, key=jax.random.key(0), places=jnp.arange(2)
        )
    with pytest.raises(ValueError, match="one per channel"):
        augment.normalize(make_images(2), mean=(0.5,), std=(0.5,))
