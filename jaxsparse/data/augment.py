"""Augmentation on the device: pure functions of uint8 images and keys.

Each example draws from its own key, made by folding its place in the *global* batch
into the key of the step. A device that holds a part of the batch therefore draws for
it exactly what one device would have drawn: pass the places, not a count from 0. This
needs JAX's default threefry generator; under `rbg` draws depend on the batch around
them.

Give cropping and flipping different keys, or their draws are related.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt8


def normalize(
    images: UInt8[Array, "b h w c"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float32[Array, "b h w c"]:
    """Turns pixels into what a network sees: (pixel / 255 - mean) / std.

    Args:
      images: pixels from 0 to 255, after any cropping and flipping.
      mean: of each channel, on the [0, 1] scale.
      std: standard deviation of each channel, on the [0, 1] scale.

    Returns:
      Normalised images.

    Raises:
      ValueError: if there is not one mean and one std for each channel.
    """
    channels = images.shape[-1]
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"mean, std: got {len(mean)} and {len(std)} numbers for images of "
            f"{channels} channels; wanted one for each channel"
        )
    center = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, channels)
    scale = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, channels)
    return (images.astype(jnp.float32) / 255 - center) / scale


def _keys_of(key: Key[Array, ""], places: Int32[Array, " b"]) -> Key[Array, " b"]:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)


def crop_offsets(
    places: Int32[Array, " b"], *, pad: int, key: Key[Array, ""]
) -> Int32[Array, "b 2"]:
    """Draws where each example's crop begins, down and right, in the padded image.

    Args:
      places: each example's place in the global batch.
      pad: pixels of padding on each side.
      key: of this step's crops.

    Returns:
      Offsets, uniform over 0 to 2 `pad`; the offset `pad` is the image unmoved.
    """

    def draw(own: Key[Array, ""]) -> Int32[Array, "2"]:
        return jax.random.randint(own, (2,), 0, 2 * pad + 1, jnp.int32)

    return jax.vmap(draw)(_keys_of(key, places))


def flips(places: Int32[Array, " b"], *, key: Key[Array, ""]) -> Bool[Array, " b"]:
    """Draws which examples are flipped, each with probability one half."""
    return jax.vmap(jax.random.bernoulli)(_keys_of(key, places))


def random_crop(
    images: UInt8[Array, "b h w c"],
    *,
    pad: int,
    key: Key[Array, ""],
    places: Int32[Array, " b"],
) -> UInt8[Array, "b h w c"]:
    """Pads every image and cuts a window of the old size at a random place.

    The padding is of raw zeros, black, before normalisation, as in torchvision and
    open_lth; after it a border pixel is therefore -mean / std and not 0.

    Args:
      images: pixels from 0 to 255.
      pad: pixels of padding on each side, at least 0.
      key: of this step's crops.
      places: each example's place in the global batch.

    Returns:
      Images of the same shape.

    Raises:
      ValueError: if `pad` is negative.
    """
    if pad < 0:
        raise ValueError(
            f"pad: got {pad} pixels; wanted 0 or more; 0 leaves the images as they are"
        )
    _, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def cut(
        image: UInt8[Array, "_ _ c"], offset: Int32[Array, "2"]
    ) -> UInt8[Array, "h w c"]:
        start = (offset[0], offset[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(cut)(padded, crop_offsets(places, pad=pad, key=key))


def random_flip(
    images: UInt8[Array, "b h w c"],
    *,
    key: Key[Array, ""],
    places: Int32[Array, " b"],
) -> UInt8[Array, "b h w c"]:
    """Mirrors every image left to right with probability one half.

    Args:
      images: pixels from 0 to 255.
      key: of this step's flips.
      places: each example's place in the global batch.

    Returns:
      Images of the same shape.
    """
    mirrored = flips(places, key=key).reshape(-1, 1, 1, 1)
    return jnp.where(mirrored, images[:, :, ::-1], images)
