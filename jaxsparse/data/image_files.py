"""Images that stay in files and are decoded on access.

`StoredImages` replaces an array of images [n h w 3] for datasets larger than memory.
Indexing it gives the center crops of evaluation; its method `crops` gives the random
resized crops of training. The files are PNG or JPEG, whatever their suffix, of any
size, including grayscale and CMYK; all are decoded to RGB images of one size.
"""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8, UInt32
from PIL import Image

from jaxsparse.data import (
    downsampling,
    image_sources,
    random_resized_crop,
    thread_pool,
)
from jaxsparse.data.image_sources import CorruptImage, Source

CHANNELS = 3
MAX_NBYTES = 2**31  # largest size in bytes of a dataset that is decoded as a whole
# When Pillow shrinks an image, it scales the filter's support, which prevents aliasing.
RESAMPLING = Image.Resampling.BICUBIC
# Pillow's modes with at most 8 bits per channel. Transparency is dropped.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


@dataclasses.dataclass(frozen=True, eq=False)
class StoredImages:
    """Images in files, with the interface of an array uint8 [n side side 3].

    The side is `size` divided by `downsample`.

    Indexing with a slice or with integers decodes those images as for evaluation: each
    is resized, see `random_resized_crop.resized`, and center-cropped. `select` selects
    rows without decoding, and `crops` decodes random resized crops for training. Images
    are decoded in threads; results do not depend on the number of threads.

    Attributes:
      source: the encoded images.
      rows: row in `source` of each image, [n].
      size: height and width of decoded images in pixels, at least 1.
      downsample: height and width of the windows of pixels over which decoded images
        are averaged, see `downsampling.average`; a divisor of `size`.
    """

    source: Source
    rows: Int[np.ndarray, " n"]
    size: int
    downsample: int = 1

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Returns (n, side, side, 3)."""
        side = self.size // self.downsample
        return (len(self.rows), side, side, CHANNELS)

    @property
    def nbytes(self) -> int:
        """Returns the memory in bytes that all decoded images would take."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.rows)

    def select(self, rows: Any) -> "StoredImages":
        """Selects rows without decoding them.

        Args:
          rows: a slice, or an array of integers.
        """
        return dataclasses.replace(self, rows=self.rows[rows])

    def __getitem__(self, rows: Any) -> UInt8[np.ndarray, "*rows h w c"]:
        """Decodes images for evaluation: resized and center-cropped.

        Args:
          rows: a slice, an integer, or an array of integers of any shape.

        Returns:
          Images of the size in `shape` with 3 channels.

        Raises:
          CorruptImage: if a file is damaged or missing; the message names it.
          IndexError: if a row does not exist.
        """
        return self._decode(
            self.rows[rows], lambda _, picture: view(picture, self.size)
        )

    def __array__(
        self, dtype: Any = None, copy: bool | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """Decodes all images for evaluation: resized and center-cropped.

        Args:
          dtype: type of the result; None means uint8.
          copy: unused; the result is always a new array.

        Raises:
          ValueError: if the images would take more than `MAX_NBYTES` bytes.
        """
        # numpy calls this implicitly, so an unintended `np.asarray` of a large dataset
        # must fail at once and not fill the memory.
        del copy
        if self.nbytes > MAX_NBYTES:
            raise ValueError(
                f"images: expected at most {MAX_NBYTES / 2**30:.1f} GiB of images in "
                f"memory at once, got {len(self)} of {self.shape[1]}x{self.shape[2]} "
                f"pixels in files, {self.nbytes / 2**30:.1f} GiB; use fewer examples "
                "(config.data.train_examples, config.data.test_examples, or those of "
                "the analysis) or smaller images (config.data.image_size)"
            )
        return self[:].astype(dtype or self.dtype, copy=False)

    def crops(
        self,
        rows: Int[np.ndarray, " m"],
        *,
        words: UInt32[np.ndarray, "m k"],
        epoch: int,
        places: Int[np.ndarray, " m"],
    ) -> UInt8[np.ndarray, "m h w c"]:
        """Decodes random resized crops of images for training.

        Args:
          rows: row of each image.
          words: data (`jax.random.key_data`) of the key from which each image's crop is
            drawn, k at most 4.
          epoch: epoch of the crops, counted from 0.
          places: index of each image in the order of the epoch.

        Returns:
          Crops of the size in `shape`, drawn by `random_resized_crop.draw`. They depend
          on nothing but the arguments and the images.

        Raises:
          CorruptImage: if a file is damaged or missing; the message names it.
          IndexError: if a row does not exist.
        """

        def part(i: int, picture: Image.Image) -> Image.Image:
            box = random_resized_crop.draw(
                picture.height,
                picture.width,
                words=words[i],
                epoch=epoch,
                place=int(places[i]),
            )
            return picture.resize((self.size, self.size), RESAMPLING, box)

        return self._decode(self.rows[rows], part)

    def _decode(
        self,
        rows: Any,
        cut: Callable[[int, Image.Image], Image.Image],
    ) -> np.ndarray:
        flat_rows = np.reshape(rows, -1)
        decoded = np.empty((len(flat_rows), *self.shape[1:]), np.uint8)

        def decode_one(i: int) -> None:
            pixels = np.asarray(cut(i, decode(self.source, int(flat_rows[i]))))
            decoded[i] = downsampling.average(pixels, self.downsample)

        thread_pool.in_threads(decode_one, range(len(flat_rows)))
        return decoded.reshape(*np.shape(rows), *self.shape[1:])


def decode(source: Source, row: int) -> Image.Image:
    """Decodes one image to 8-bit RGB.

    EXIF rotations are not applied.

    Args:
      source: the encoded images.
      row: row of the image in `source`.

    Returns:
      The image at its own size.

    Raises:
      CorruptImage: if the image is damaged, missing, or of an unsupported kind; the
        message names it.
      OSError: if the system cannot read the file; the error names it.
    """
    expected, remedy = "a PNG or JPEG image", "unpack or prepare it again"
    with (
        image_sources.naming(source.name(row), expected, remedy),
        Image.open(io.BytesIO(source.read(row)), formats=_FORMATS) as opened,
    ):
        mode = opened.mode
        picture = _to_rgb(opened) if mode in MODES else None
    if picture is None:
        raise CorruptImage(
            f"{source.name(row)}: expected 8 bits per channel, got Pillow's mode "
            f"{mode}; convert it"
        )
    return picture


_FORMATS = ("PNG", "JPEG")


def _to_rgb(opened: Image.Image) -> Image.Image:
    # Pillow warns if a palette's transparency is lost in a conversion to RGB, but not
    # if an alpha channel is.
    if opened.mode in ("P", "PA"):
        opened = opened.convert("RGBA")
    return opened.convert("RGB")


def view(picture: Image.Image, size: int) -> Image.Image:
    """Resizes and center-crops an image for evaluation.

    Args:
      picture: an RGB image of any size.
      size: height and width of the result in pixels.

    Returns:
      The center crop.
    """
    height, width = random_resized_crop.resized(
        picture.height, picture.width, size=size
    )
    top, left = random_resized_crop.center(height, width, size=size)
    larger = picture.resize((width, height), RESAMPLING)
    return larger.crop((left, top, left + size, top + size))
