"""Encoded images in files, and the errors that name a damaged one."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class CorruptImage(ValueError):
    """An image or its file is damaged, missing or of the wrong kind; names it."""


@contextlib.contextmanager
def naming(name: str, expected: str, remedy: str) -> Iterator[None]:
    """Converts errors in the context to `CorruptImage`, with the name of the file.

    This applies to missing files and to every error of a reader about the content.
    Errors of the machine pass unchanged: out of memory, too many open files, missing
    permission, a failing disk.

    Args:
      name: name of the file, or of the record read from it.
      expected: what the file or record should be, for the message.
      remedy: what the user can do; the end of the message.

    Raises:
      CorruptImage: if the content is damaged or the file is missing.
      OSError: if the system cannot read the file; `name` becomes its file name.
    """
    message = f"{name}: expected {expected}, got a damaged or missing file"
    try:
        yield
    except (CorruptImage, MemoryError):
        raise
    except OSError as error:
        # The `OSError`s that Pillow itself raises have no errno.
        if error.errno is None or isinstance(error, FileNotFoundError):
            raise CorruptImage(f"{message} ({error}); {remedy}") from error
        if error.filename is None:
            error.filename = name
        raise
    except Exception as error:  # each library has its own exceptions for damage
        raise CorruptImage(f"{message} ({error}); {remedy}") from error


@runtime_checkable
class Source(Protocol):
    """Encoded images in files, readable from several threads at once.

    Attributes:
      paths: paths of the files, one for each name that `parts` yields.
    """

    paths: Sequence[str]

    def __len__(self) -> int:
        """Returns the number of images."""

    def read(self, row: int) -> bytes:
        """Returns the encoded image of a row.

        Args:
          row: number of the example, from 0.
        """

    def name(self, row: int) -> str:
        """Returns the location of a row, for messages.

        Args:
          row: number of the example, from 0.
        """

    def parts(self) -> Iterator[str]:
        """Yields names of the files that do not depend on the dataset's location."""


class Files(NamedTuple):
    """A `Source` with one file per image.

    Attributes:
      paths: path of each image.
    """

    paths: tuple[str, ...]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.paths)

    def read(self, row: int) -> bytes:
        """Returns the content of a file.

        Args:
          row: number of the file, from 0.
        """
        with open(self.paths[row], "rb") as file:
            return file.read()

    def name(self, row: int) -> str:
        """Returns the path of a file.

        Args:
          row: number of the file, from 0.
        """
        return self.paths[row]

    def parts(self) -> Iterator[str]:
        """Yields the last two components of each path: folder and file name."""
        return ("/".join(path.split(os.sep)[-2:]) for path in self.paths)
