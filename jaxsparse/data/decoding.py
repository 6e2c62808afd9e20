"""Decodes images of one size to arrays, with Pillow.

Worker processes import this module (`processes`), so it imports little.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxsparse import metrics_log

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # number of channels -> Pillow's mode
FORMATS = ("PNG", "JPEG")  # the content decides which

# Pillow's modes of the accepted files, and whether images of a mode have colors.
_HAS_COLOR = {"1": False, "L": False, "RGB": True, "P": True}


def records(
    encoded: Sequence[bytes], *, shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "n h w c"]:
    """Decodes images in memory.

    Args:
      encoded: PNG or JPEG images.
      shape: height, width and number of channels (1, 3 or 4) of each image. Images with
        other channels are converted.

    Returns:
      The images.

    Raises:
      ValueError: if an image has another height or width.
      Exception: whatever Pillow raises for a damaged image.
    """
    mode, decoded = MODES[shape[-1]], np.empty((len(encoded), *shape), np.uint8)
    for i, content in enumerate(encoded):
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            pixels = np.asarray(
                picture if picture.mode == mode else picture.convert(mode)
            )
        if pixels.shape[:2] != shape[:2]:
            raise ValueError(
                f"an image of {pixels.shape[:2]} pixels, not {tuple(shape[:2])}"
            )
        # Pillow's grayscale arrays have no channel axis.
        decoded[i] = pixels.reshape(shape)
    return decoded


def file(path: Path) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """Decodes an image file.

    Args:
      path: path of a PNG or JPEG image with 8 bits per channel and without
        transparency.

    Returns:
      The image in RGB, and whether its mode has colors.

    Raises:
      ValueError: if the image is damaged or of another kind; the message names it.
      OSError: if the machine cannot read it.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            # A PNG of any of these modes may have transparency without alpha channel.
            mode, is_transparent = picture.mode, "transparency" in picture.info
            needed = mode in _HAS_COLOR and not is_transparent
            pixels = np.asarray(picture.convert("RGB")) if needed else None
    except Exception as error:  # Pillow raises OSError, SyntaxError and others
        if metrics_log.is_of_machine(error):
            raise
        raise ValueError(
            f"{path}: expected a PNG or JPEG image, got a damaged or missing file "
            f"({error}); unpack it again"
        ) from error
    if pixels is None:
        raise ValueError(
            f"{path}: expected 8 bits per channel and 1 channel (gray) or 3 (red, "
            "green, blue), got Pillow's mode "
            f"{mode}{' with transparency' * is_transparent}; convert it"
        )
    return pixels, _HAS_COLOR[mode]


def files(
    paths: Sequence[Path], *, shape: tuple[int, int, int]
) -> tuple[UInt8[np.ndarray, "n h w 3"], bool]:
    """Decodes image files of one size.

    Args:
      paths: paths of images such as `file` accepts.
      shape: height and width of the first image of the dataset, and 3.

    Returns:
      The images in RGB, and whether the mode of any of them has colors.

    Raises:
      ValueError: if an image is damaged, of another kind or of another size; the
        message names it.
      OSError: if the machine cannot read one.
    """
    decoded, any_color = np.empty((len(paths), *shape), np.uint8), False
    for i, path in enumerate(paths):
        pixels, has_color = file(path)
        if pixels.shape != shape:
            raise ValueError(
                f"{path}: expected {shape[0]} by {shape[1]} pixels, the size of the "
                f"first image, got {pixels.shape[0]} by {pixels.shape[1]}; resize all "
                "images to one size"
            )
        decoded[i] = pixels
        any_color |= has_color
    return decoded, any_color
