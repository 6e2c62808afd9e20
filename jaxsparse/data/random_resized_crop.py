"""Geometry of the random resized crop in training and the center crop in evaluation.

Pure functions of image sizes and random numbers; no pixels are involved. Boxes are
(left, top, right, bottom) in pixels of the image.
"""

import math

import numpy as np
from jaxtyping import UInt32

Box = tuple[int, int, int, int]

AREA = (0.08, 1.0)  # fraction of the image's area, uniformly distributed
ASPECT = (3 / 4, 4 / 3)  # width / height, its logarithm uniformly distributed
ATTEMPTS = 10
LARGER = 256 / 224  # shorter side of the resized image / side of the center crop


def uniforms(
    words: UInt32[np.ndarray, " k"], *, epoch: int, place: int, count: int
) -> list[float]:
    """Draws the random numbers of one image in one epoch.

    They are the output of the counter-based generator Philox. Its key is `words`; its
    counter consists of the epoch, the place, and the number of draws so far. With one
    key, two images therefore never share random numbers, and the numbers of an image do
    not depend on those of others.

    Args:
      words: data (`jax.random.key_data`) of a JAX key, k at most 4.
      epoch: epoch, counted from 0.
      place: index of the image in the order of that epoch.
      count: number of random numbers to draw.

    Returns:
      Multiples of 2^-53 in [0, 1).

    References:
      Salmon, Moraes, Dror, Shaw. Parallel Random Numbers: As Easy as 1, 2, 3. 2011.
    """
    # Raw output, since numpy guarantees the stream of a bit generator for all versions,
    # but not the streams of the distributions of `Generator`.
    key = np.zeros(4, np.uint32)
    key[: len(words)] = words
    # The first words stay 0: Philox counts its draws there.
    counter = np.array([0, 0, place, epoch], np.uint64)
    bits = np.random.Philox(key=key.view("<u8"), counter=counter).random_raw(count)
    # A float64 represents the upper 53 of the 64 bits exactly.
    return ((bits >> np.uint64(11)) * 2.0**-53).tolist()


def draw(
    height: int,
    width: int,
    *,
    words: UInt32[np.ndarray, " k"],
    epoch: int,
    place: int,
) -> Box:
    """Draws the box of a random resized crop.

    The box has 8 to 100 % of the image's area, an aspect ratio (width / height) of 3/4
    to 4/3, and a uniformly drawn position. If ten drawn boxes in a row do not fit into
    the image, the result is the central box of `middle`.

    Args:
      height: height of the image in pixels, at least 1.
      width: width of the image in pixels, at least 1.
      words: data (`jax.random.key_data`) of a JAX key, k at most 4.
      epoch: epoch, counted from 0.
      place: index of the image in the order of that epoch.

    Returns:
      The box (left, top, right, bottom) in whole pixels.

    Deviations:
      The paper has an "aspect ratio chosen randomly between 3/4 and 4/3". The uniform
      distribution of its logarithm, the ten attempts and the central box after them are
      not in the paper, but in most implementations.

    References:
      Szegedy et al., Going Deeper with Convolutions, 2014, arXiv:1409.4842, section 6.
    """
    numbers = iter(uniforms(words, epoch=epoch, place=place, count=4 * ATTEMPTS))
    low, high = map(math.log, ASPECT)
    for _ in range(ATTEMPTS):
        share, tilt, right, down = (next(numbers) for _ in range(4))
        area = height * width * (AREA[0] + share * (AREA[1] - AREA[0]))
        ratio = math.exp(low + tilt * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= w <= width and 1 <= h <= height:
            left = math.floor(right * (width - w + 1))
            top = math.floor(down * (height - h + 1))
            return (left, top, left + w, top + h)
    return middle(height, width)


def middle(height: int, width: int) -> Box:
    """Returns the largest central box whose aspect ratio is in `ASPECT`.

    Args:
      height: height of the image in pixels, at least 1.
      width: width of the image in pixels, at least 1.

    Returns:
      The box (left, top, right, bottom) in whole pixels.
    """
    w = min(width, max(1, round(height * ASPECT[1])))
    h = min(height, max(1, round(width / ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return (left, top, left + w, top + h)


def resized(height: int, width: int, *, size: int) -> tuple[int, int]:
    """Computes the size to which an image is resized before its center crop.

    The shorter side becomes 256/224 times `size`; the longer side keeps the aspect
    ratio. Both are rounded.

    Args:
      height: height of the image in pixels, at least 1.
      width: width of the image in pixels, at least 1.
      size: height and width of the center crop in pixels, at least 1.

    Returns:
      Height and width of the resized image in pixels.
    """
    shorter = round(size * LARGER)
    if height <= width:
        return shorter, round(width * shorter / height)
    return round(height * shorter / width), shorter


def center(height: int, width: int, *, size: int) -> tuple[int, int]:
    """Computes the position of the center crop.

    Args:
      height: height of the resized image in pixels, at least `size`.
      width: width of the resized image in pixels, at least `size`.
      size: height and width of the center crop in pixels.

    Returns:
      Top and left edge of the crop in pixels.
    """
    return (height - size) // 2, (width - size) // 2
