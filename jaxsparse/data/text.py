"""Texts as datasets for next-token prediction; a token is a byte.

An example is a window of consecutive bytes of the text, stored like an image with one
row for each byte and one channel. A network reads all bytes of a window but the last,
and predicts all but the first. Labels are zeros and have no meaning.
"""

import importlib

import numpy as np

from jaxsparse.data import names
from jaxsparse.data.dataset import Examples

CLASSES = 256  # values of a byte
TEST_PART = 10  # one in so many bytes, at the end of a text, is test data


def split(
    text: bytes, *, context: int, test_part: int = TEST_PART
) -> tuple[Examples, Examples, int]:
    """Divides a text into training and test windows.

    The last bytes of the text are the test data, so both parts are contiguous. Windows
    do not overlap, but the last byte of each, which is only predicted, is also the
    first of the next: each byte of a part is predicted once, except the first. Bytes
    that do not fill the last window of a part are left out.

    Args:
      text: the text, in any encoding with one or more bytes for each character.
      context: number of bytes that a network reads at once, t; 1 or more.
      test_part: one in so many bytes is test data, rounded down; 2 or more.

    Returns:
      Training windows and test windows, each uint8 [n t+1 1 1], in the order of the
      text, and the number of classes, 256.

    Raises:
      ValueError: if a part has fewer bytes than a window.

    Examples:
      >>> train, test, _ = split(b"abcdefghijkl", context=2, test_part=3)
      >>> [bytes(window.reshape(-1)) for window in train.images]
      [b'abc', b'cde', b'efg']
      >>> [bytes(window.reshape(-1)) for window in test.images]
      [b'ijk']
    """
    first_test = len(text) - len(text) // test_part
    parts = text[:first_test], text[first_test:]
    if min(map(len, parts)) <= context:
        raise ValueError(
            f"context: expected fewer bytes than the {min(map(len, parts))} of the "
            f"test or training part of the text, got {context}; read fewer at once, or "
            "choose a longer text"
        )
    return *(_windows(part, context) for part in parts), CLASSES


def _windows(text: bytes, context: int) -> Examples:
    """Returns the windows of a part of a text."""
    tokens = np.frombuffer(text, np.uint8)
    count = (len(tokens) - 1) // context
    overlapping = np.lib.stride_tricks.sliding_window_view(tokens, context + 1)
    windows = overlapping[: count * context : context].copy()
    return Examples(windows[:, :, None, None], np.zeros(count, np.int32))


def read_python_docs(
    *, data_dir: str | None = None, context: int = 64
) -> tuple[Examples, Examples, int]:
    """Reads the topics of Python's own help, about half a megabyte of English.

    They are part of CPython's standard library (`pydoc_data.topics`), and so differ a
    little between versions of Python: a run can only be continued with the version that
    it began with. Topics are joined in alphabetical order.

    Args:
      data_dir: unused; all readers have the same signature.
      context: number of bytes that a network reads at once.

    Returns:
      Training windows, test windows and the number of classes, as `split` does.

    Raises:
      ValueError: if the installation of Python has no topics, or fewer than a window.
    """
    del data_dir
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ModuleNotFoundError as error:
        raise ValueError(
            "name: expected the module pydoc_data.topics of Python's standard library "
            f"for 'python_docs', got none ({error}); install the complete standard "
            "library, or register a text of your own with data.text.read_file"
        ) from error
    text = "\n".join(topics[name] for name in sorted(topics))
    return split(text.encode(), context=context)


def read_file(
    name: str, *, data_dir: str | None, context: int
) -> tuple[Examples, Examples, int]:
    """Reads a text file from the folder of datasets, for readers of your own.

    Args:
      name: name of the file, with its extension.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
      context: number of bytes that a network reads at once.

    Returns:
      Training windows, test windows and the number of classes, as `split` does.

    Raises:
      ValueError: if there is no such file, or it has fewer bytes than a window needs.

    Examples:
      >>> @jaxsparse.register_dataset("novel", predicts="next_token")
      ... def novel(*, data_dir, context):
      ...     return read_file("novel.txt", data_dir=data_dir, context=context)
    """
    path = names.root_folder(data_dir) / name
    if not path.is_file():
        raise ValueError(
            f"dir: expected a folder with the text file {name!r}, got {path.parent}, "
            "which has none; put the file there, or set config.data.dir"
        )
    return split(path.read_bytes(), context=context)
