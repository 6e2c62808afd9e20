"""Reads the records of TFDS files in parquet, array_record and tfrecord format."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxsparse import extras


def _parquet(path: str) -> list[bytes]:
    # Readers of single formats are imported on use: each import takes half a second.
    extras.require("pyarrow", purpose="datasets in parquet files")
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).column("data").to_pylist()


def _array_record(path: str) -> list[bytes]:
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(path)
    try:
        return reader.read_all()
    finally:
        reader.close()


def spans(content: Any) -> Iterator[tuple[int, int]]:
    """Yields the position and the length of each record of a tfrecord file.

    A record consists of the length of its data (8 bytes), a checksum of the length (4
    bytes), the data, and a checksum of the data (4 bytes). The checksums are not
    verified, since CRC32C in Python would take longer than decoding. Instead, errors
    are detected by the framing, the number of records, and the checksums in the images
    themselves.

    Args:
      content: content of the file: bytes, or a memory map or memory view of them.

    Yields:
      Offset of a record's data in the file, and the length of the data, in bytes.

    Raises:
      ValueError: if the file ends inside a record.
    """
    start = 0
    while start < len(content):
        if start + 12 > len(content):
            raise ValueError("the file ends inside a record's header")
        (length,) = struct.unpack_from("<Q", content, start)
        if start + length + 16 > len(content):
            raise ValueError("the file ends inside a record")
        yield start + 12, length
        start += length + 16


def _tfrecord(path: str) -> Iterator[bytes]:
    content = memoryview(Path(path).read_bytes())
    for start, length in spans(content):
        yield bytes(content[start : start + length])


RECORDS = {"parquet": _parquet, "array_record": _array_record, "tfrecord": _tfrecord}
