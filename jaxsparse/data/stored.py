"""Images that stay in files, and are decoded when they are asked for.

`StoredImages` stands where an array of images [n h w 3] does, of a set that no memory
holds. What it is asked for by index it gives as evaluation sees it; what training sees
are its `crops`. Files of all sizes will do, PNG or JPEG whatever they are called, grey
ones and CMYK too; all become red, green, blue of one size.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8, UInt32
from PIL import Image

from jaxsparse.data import crops

CHANNELS = 3
# Averages over as many pixels as become one, as Pillow does it.
RESAMPLING = Image.Resampling.BICUBIC
# Pillow's names for what has 8 bits a channel. Of those with transparency the colours
# are taken.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


@runtime_checkable
class Source(Protocol):
    """Encoded images, in files; safe to ask from several threads."""

    def __len__(self) -> int:
        """Returns how many there are."""

    def read(self, row: int) -> bytes:
        """Returns the encoded image of a row."""

    def name(self, row: int) -> str:
        """Says where a row lies, for messages."""


class Files(NamedTuple):
    """A file for each image.

    Attributes:
      paths: of the images.
    """

    paths: tuple[str, ...]

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self.paths)

    def read(self, row: int) -> bytes:
        """Reads a file whole."""
        with open(self.paths[row], "rb") as file:
            return file.read()

    def name(self, row: int) -> str:
        """Returns the path of a file."""
        return self.paths[row]


@dataclasses.dataclass(frozen=True, eq=False)
class StoredImages:
    """Images in files, as an array uint8 [n size size 3] that is not in memory.

    An index by a slice or by integers decodes those images: the shorter side becomes
    `crops.resized`, and the middle is cut out. `select` takes rows without that, and
    `crops` gives what training sees. Images are decoded in threads; no result depends
    on how many.

    Attributes:
      source: where they lie.
      rows: which of the source, in order [n].
      size: height and width of what is decoded, at least 1.
    """

    source: Source
    rows: Int[np.ndarray, " n"]
    size: int

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Returns (n, size, size, 3)."""
        return (len(self.rows), self.size, self.size, CHANNELS)

    @property
    def nbytes(self) -> int:
        """Returns how much memory all images would take."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        """Returns how many images there are."""
        return len(self.rows)

    def select(self, rows: Any) -> "StoredImages":
        """Returns the given rows, a slice or integers, and decodes nothing."""
        return dataclasses.replace(self, rows=self.rows[rows])

    def __getitem__(self, rows: Any) -> UInt8[np.ndarray, "*rows h w c"]:
        """Decodes images as evaluation sees them.

        Args:
          rows: a slice, or integers in any number of axes.

        Raises:
          ValueError: if a file is damaged, naming it.
          IndexError: if there is no such row.
        """
        return self._decode(
            self.rows[rows], lambda _, picture: view(picture, self.size)
        )

    def __array__(
        self, dtype: Any = None, copy: bool | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """Decodes all images as evaluation sees them."""
        del copy
        return self[:].astype(dtype or self.dtype, copy=False)

    def crops(
        self,
        rows: Int[np.ndarray, " m"],
        *,
        words: UInt32[np.ndarray, "m k"],
        epoch: int,
        places: Int[np.ndarray, " m"],
    ) -> UInt8[np.ndarray, "m h w c"]:
        """Decodes images as training sees them, a random part of each.

        Args:
          rows: which images.
          words: for each, the data of the key that its part is drawn from.
          epoch: in which they are seen.
          places: for each, where in the order of the epoch.

        Returns:
          Parts that depend on nothing else; see `crops.draw`.

        Raises:
          ValueError: if a file is damaged, naming it.
          IndexError: if there is no such row.
        """

        def part(i: int, picture: Image.Image) -> Image.Image:
            box = crops.draw(
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
        flat = np.reshape(rows, -1)
        into = np.empty((len(flat), *self.shape[1:]), np.uint8)

        def one(i: int) -> None:
            into[i] = np.asarray(cut(i, decode(self.source, int(flat[i]))))

        _in_threads(one, range(len(flat)))
        return into.reshape(*np.shape(rows), *self.shape[1:])


def _in_threads(task: Callable[[int], None], numbers: Iterable[int]) -> None:
    """Does tasks in as many threads as the process has cores, and waits for all."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(task, numbers):
            pass


def decode(source: Source, row: int) -> Image.Image:
    """Decodes one image into red, green and blue of 8 bits.

    A rotation that a JPEG's camera noted is not applied.

    Raises:
      ValueError: if it is damaged, missing, or of another kind, naming it.
    """
    try:
        encoded = io.BytesIO(source.read(row))
        with Image.open(encoded, formats=_FORMATS) as found:
            mode = found.mode
            wanted = mode in MODES
            picture = _coloured(found) if wanted else None
    except Exception as error:  # Pillow raises OSError, SyntaxError and others
        raise ValueError(
            f"{source.name(row)}: is damaged or missing: {error}; wanted a PNG or JPEG "
            "image; unpack or prepare it again"
        ) from error
    if picture is None:
        raise ValueError(
            f"{source.name(row)}: is {mode}, as Pillow says; wanted 8 bits a channel; "
            "convert it"
        )
    return picture


_FORMATS = ("PNG", "JPEG")


def _coloured(found: Image.Image) -> Image.Image:
    if found.mode in ("P", "PA"):  # Pillow warns where their transparency is dropped
        found = found.convert("RGBA")
    return found.convert("RGB")


def view(picture: Image.Image, size: int) -> Image.Image:
    """Returns what evaluation sees of an image: the middle of it, resized."""
    height, width = crops.resized(picture.height, picture.width, size=size)
    top, left = crops.center(height, width, size=size)
    larger = picture.resize((width, height), RESAMPLING)
    return larger.crop((left, top, left + size, top + size))
