"""Which part of an image a network sees: drawn in training, the middle in evaluation.

Pure functions of sizes and numbers; nothing here holds pixels. Boxes are (left, top,
right, bottom) in pixels of the image.
"""

import math

import numpy as np
from jaxtyping import UInt32

Box = tuple[int, int, int, int]

AREA = (0.08, 1.0)  # of the image, evenly distributed
ASPECT = (3 / 4, 4 / 3)  # width by height, its logarithm evenly distributed
ATTEMPTS = 10
LARGER = 256 / 224  # shorter side in evaluation, of the crop's


def uniforms(
    words: UInt32[np.ndarray, " k"], *, epoch: int, place: int, count: int
) -> list[float]:
    """Draws the random numbers of one image in one epoch.

    They are the output of Philox (Salmon, Moraes, Dror, Shaw 2011, Parallel Random
    Numbers: As Easy as 1, 2, 3), whose key are the words and whose counter the epoch,
    the place and how many were drawn: no two images share any, and none needs those
    before it. numpy promises the stream of a bit generator for ever, and of nothing
    above it.

    Args:
      words: data of a JAX key, at most four.
      epoch: counted from 0.
      place: in the order of that epoch.
      count: numbers to draw.

    Returns:
      Numbers in [0, 1), multiples of 2^-53.
    """
    key = np.zeros(4, np.uint32)
    key[: len(words)] = words
    counter = np.array([0, 0, place, epoch], np.uint64)
    bits = np.random.Philox(key=key.view("<u8"), counter=counter).random_raw(count)
    return ((bits >> np.uint64(11)) * 2.0**-53).tolist()


def draw(
    height: int,
    width: int,
    *,
    words: UInt32[np.ndarray, " k"],
    epoch: int,
    place: int,
) -> Box:
    """Draws a part of an image to train on.

    A box of 8 to 100 % of the area and of an aspect ratio of 3/4 to 4/3, anywhere in
    the image; where ten are too high or too wide, the middle.

    Args:
      height: of the image, at least 1.
      width: of the image, at least 1.
      words: see `uniforms`.
      epoch: see `uniforms`.
      place: see `uniforms`.

    Returns:
      A box of whole pixels.

    Deviations:
      The paper draws "aspect ratio chosen randomly between 3/4 and 4/3"; that its
      logarithm is even, ten attempts and what follows them are ours, as in most code.

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
    """Returns the largest box in the middle whose aspect ratio may be drawn."""
    w = min(width, max(1, round(height * ASPECT[1])))
    h = min(height, max(1, round(width / ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return (left, top, left + w, top + h)


def resized(height: int, width: int, *, size: int) -> tuple[int, int]:
    """Returns height and width of an image in evaluation, before it is cut.

    The shorter side has 256/224 of the pixels that are left, rounded, and the longer
    one as many as keep the proportions, rounded.

    Args:
      height: of the image, at least 1.
      width: of the image, at least 1.
      size: pixels a side that are left.
    """
    shorter = round(size * LARGER)
    if height <= width:
        return shorter, round(width * shorter / height)
    return round(height * shorter / width), shorter


def center(height: int, width: int, *, size: int) -> tuple[int, int]:
    """Returns where the middle of so many pixels a side begins: top and left."""
    return (height - size) // 2, (width - size) // 2
