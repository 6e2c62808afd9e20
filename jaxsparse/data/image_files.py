"""Images that stay in files, and are decoded when they are asked for.

`StoredImages` stands where an array of images [n h w 3] does, of a set that no memory
holds. What it is asked for by index it gives as evaluation sees it; what training sees
are its `crops`. Files of all sizes will do, PNG or JPEG whatever they are called, grey
ones and CMYK too; all become red, green, blue of one size.
"""

import contextlib
import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8, UInt32
from PIL import Image

from jaxsparse.data import random_resized_crop

CHANNELS = 3
WHOLE = 2**31  # bytes that a set may take where all of it is asked for
# Averages over as many pixels as become one, as Pillow does it.
RESAMPLING = Image.Resampling.BICUBIC
# Pillow's names for what has 8 bits a channel. Of those with transparency the colours
# are taken.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


Made = TypeVar("Made")


class CorruptImage(ValueError):
    """What lies in a file is not what should; the message names it."""


@contextlib.contextmanager
def naming(name: str, what: str) -> Iterator[None]:
    """Names the file that turns out to be damaged inside.

    Missing files count as such, and all that readers raise of a content. What is of the
    machine passes: no memory, too many open files, no permission, a disk that fails.

    Args:
      name: of the file, or of what is read of it.
      what: to do then, the end of the message.

    Raises:
      Damaged: naming it.
      OSError: what the system said, with the name.
    """
    try:
        yield
    except (CorruptImage, MemoryError):
        raise
    except OSError as error:
        # Pillow's own have no number.
        if error.errno is None or isinstance(error, FileNotFoundError):
            raise CorruptImage(
                f"{name}: is damaged or missing: {error}{what}"
            ) from error
        if error.filename is None:
            error.filename = name
        raise
    except Exception as error:  # several libraries' kinds of "damaged"
        raise CorruptImage(f"{name}: is damaged or missing: {error}{what}") from error


@runtime_checkable
class Source(Protocol):
    """Encoded images, in files; safe to ask from several threads.

    Attributes:
      paths: of the files, one for each of `parts`.
    """

    paths: Sequence[str]

    def __len__(self) -> int:
        """Returns how many there are."""

    def read(self, row: int) -> bytes:
        """Returns the encoded image of a row."""

    def name(self, row: int) -> str:
        """Says where a row lies, for messages."""

    def parts(self) -> Iterator[str]:
        """Names the files, alike wherever the folder of the set lies."""


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

    def parts(self) -> Iterator[str]:
        """Names the files by their folders and themselves."""
        return ("/".join(path.split(os.sep)[-2:]) for path in self.paths)


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
          Damaged: if a file is damaged or missing, naming it.
          IndexError: if there is no such row.
        """
        return self._decode(
            self.rows[rows], lambda _, picture: view(picture, self.size)
        )

    def __array__(
        self, dtype: Any = None, copy: bool | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """Decodes all images as evaluation sees them.

        Raises:
          ValueError: if they would take more than `WHOLE` bytes.
        """
        del copy
        if self.nbytes > WHOLE:
            raise ValueError(
                f"images: came {len(self)} of {self.size}x{self.size} pixels that are "
                f"in files, to have in memory at once, {self.nbytes / 2**30:.1f} GiB; "
                f"wanted {WHOLE / 2**30:.1f} GiB at most; ask for fewer examples "
                "(config.data.train_examples, config.data.test_examples, or those of "
                "the analysis), or for smaller images (config.data.size)"
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
        """Decodes images as training sees them, a random part of each.

        Args:
          rows: which images.
          words: for each, the data of the key that its part is drawn from.
          epoch: in which they are seen.
          places: for each, where in the order of the epoch.

        Returns:
          Parts that depend on nothing else; see `crops.draw`.

        Raises:
          Damaged: if a file is damaged or missing, naming it.
          IndexError: if there is no such row.
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
        flat = np.reshape(rows, -1)
        into = np.empty((len(flat), *self.shape[1:]), np.uint8)

        def one(i: int) -> None:
            into[i] = np.asarray(cut(i, decode(self.source, int(flat[i]))))

        in_threads(one, range(len(flat)))
        return into.reshape(*np.shape(rows), *self.shape[1:])


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Makes the threads of a process; a fork of it has none of them."""
    return ThreadPoolExecutor(cores(), f"images-{process}")


def in_threads(task: Callable[[int], Made], numbers: Iterable[int]) -> list[Made]:
    """Does tasks in as many threads as there are cores, and waits for all.

    All who call share these threads, so a task must not call this itself.
    """
    return list(_pool(os.getpid()).map(task, numbers))


def decode(source: Source, row: int) -> Image.Image:
    """Decodes one image into red, green and blue of 8 bits.

    A rotation that a JPEG's camera noted is not applied.

    Raises:
      Damaged: if it is damaged, missing, or of another kind, naming it.
      OSError: if the system cannot read it, naming it.
    """
    what = "; wanted a PNG or JPEG image; unpack or prepare it again"
    with (
        naming(source.name(row), what),
        Image.open(io.BytesIO(source.read(row)), formats=_FORMATS) as found,
    ):
        mode = found.mode
        picture = _coloured(found) if mode in MODES else None
    if picture is None:
        raise CorruptImage(
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
    height, width = random_resized_crop.resized(
        picture.height, picture.width, size=size
    )
    top, left = random_resized_crop.center(height, width, size=size)
    larger = picture.resize((width, height), RESAMPLING)
    return larger.crop((left, top, left + size, top + size))
