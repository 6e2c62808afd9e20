"""Averages images over windows of pixels, for small settings on large datasets."""

import numpy as np
from jaxtyping import UInt8


def average(
    images: UInt8[np.ndarray, "*n h w c"], factor: int
) -> UInt8[np.ndarray, "*n height width c"]:
    """Averages images over windows of `factor` by `factor` pixels.

    Args:
      images: images with pixels in [0, 255]; height and width are multiples of
        `factor`.
      factor: height and width of the windows in pixels, from 1 to 4096. Windows do not
        overlap; the first one starts at the first pixel.

    Returns:
      The means of each channel, rounded to the nearest integer, and to the even one of
      two that are equally near (0.5 to 0, 1.5 to 2). The result is the same on every
      machine. With `factor` 1, `images` itself.

    Raises:
      ValueError: if height or width is not a multiple of `factor`.

    Examples:
      >>> pixels = np.array([[0, 1, 4, 4], [0, 1, 5, 5]], np.uint8)
      >>> average(pixels[..., np.newaxis], 2)[..., 0]
      array([[0, 4]], dtype=uint8)
    """
    check_size(images.shape[-3:-1], factor)
    if factor == 1:
        return images
    # Integers, so that the order of addition has no effect. Up to 4096 ** 2 pixels of
    # 255 fit into 32 bits.
    starts = range(factor)
    rows = sum(images[..., i::factor, :, :].astype(np.uint32) for i in starts)
    sums = sum(rows[..., i::factor, :] for i in starts)
    # A quotient of integers this small is a half exactly, or far from it in float64.
    return np.rint(sums / factor**2).astype(np.uint8)


def check_size(size: tuple[int, int], factor: int) -> None:
    """Checks that windows of pixels divide images without remainder.

    Args:
      size: height and width of the images in pixels.
      factor: height and width of the windows in pixels, at least 1.

    Raises:
      ValueError: if they do not.
    """
    if factor < 1 or any(side % factor for side in size):
        height, width = size
        divisors = [n for n in range(1, min(size) + 1) if not (height % n or width % n)]
        raise ValueError(
            f"downsample: expected a divisor of the height and width of the images, "
            f"{height} by {width} pixels, got {factor}; choose one of {divisors}"
        )
