"""Augmentation on the device: pure functions of uint8 images and keys.

Each example has its own key: the key of the step, with the example's index in the
*global* batch folded in. A device that holds a part of the batch therefore draws the
same numbers as a single device that holds all of it. For this, `places` must be the
indices in the global batch, not in the device's part. JAX's default threefry generator
is required: with `rbg`, the draws of an example depend on the rest of the batch.

Use different keys for cropping and flipping; with one key their draws are correlated.
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
    """Standardizes images: (pixel / 255 - mean) / std.

    Args:
      images: uint8 pixels in [0, 255], after any cropping and flipping.
      mean: mean of each channel, on the [0, 1] scale.
      std: standard deviation of each channel, on the [0, 1] scale, above 0.

    Returns:
      Standardized images, float32, of the same shape.

    Raises:
      ValueError: if `mean` or `std` does not have one number for each channel.
    """
    channels = images.shape[-1]
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"mean, std: expected {channels} numbers each, one per channel, got "
            f"{len(mean)} and {len(std)}"
        )
    center = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, channels)
    scale = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, channels)
    return (images.astype(jnp.float32) / 255 - center) / scale


def _keys_of(key: Key[Array, ""], places: Int32[Array, " b"]) -> Key[Array, " b"]:
    # Not `jax.random.split`, whose keys belong to positions in the device's own part.
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)


def crop_offsets(
    places: Int32[Array, " b"], *, pad: int, key: Key[Array, ""]
) -> Int32[Array, "b 2"]:
    """Draws the position of each example's crop in the padded image.

    Args:
      places: index of each example in the global batch, int32.
      pad: pixels of padding on each side, at least 0.
      key: key of this step's crops.

    Returns:
      Rows and columns of the top left corners, int32, uniform over the integers in
      [0, 2 `pad`]. The offset `pad` leaves the image where it is.
    """

    def draw(own: Key[Array, ""]) -> Int32[Array, "2"]:
        return jax.random.randint(own, (2,), 0, 2 * pad + 1, jnp.int32)

    return jax.vmap(draw)(_keys_of(key, places))


def flips(places: Int32[Array, " b"], *, key: Key[Array, ""]) -> Bool[Array, " b"]:
    """Draws which examples are flipped, each with probability 1/2.

    Args:
      places: index of each example in the global batch, int32.
      key: key of this step's flips.

    Returns:
      True for the examples that are flipped.
    """
    return jax.vmap(jax.random.bernoulli)(_keys_of(key, places))


def random_crop(
    images: UInt8[Array, "b h w c"],
    *,
    pad: int,
    key: Key[Array, ""],
    places: Int32[Array, " b"],
) -> UInt8[Array, "b h w c"]:
    """Pads every image with zeros and crops it to its size at a random position.

    The images are padded before they are standardized, as in torchvision and open_lth.
    Padding is therefore black; after standardization it is -mean / std, not 0.

    Args:
      images: uint8 pixels in [0, 255].
      pad: pixels of padding on each side, at least 0.
      key: key of this step's crops.
      places: index of each example in the global batch, int32.

    Returns:
      Cropped images, uint8, of the same shape.

    Raises:
      ValueError: if `pad` is negative.
    """
    if pad < 0:
        raise ValueError(
            f"pad: expected at least 0 pixels, got {pad}; 0 leaves images unchanged"
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
    """Flips every image horizontally with probability 1/2.

    Args:
      images: uint8 pixels in [0, 255].
      key: key of this step's flips.
      places: index of each example in the global batch, int32.

    Returns:
      Images of the same shape, uint8.
    """
    mirrored = flips(places, key=key).reshape(-1, 1, 1, 1)
    return jnp.where(mirrored, images[:, :, ::-1], images)
