"""Writes files of records as TFDS does, tfrecord too without TensorFlow."""

import struct
from pathlib import Path

from tensorflow_datasets.core import file_adapters


def crc32c(content: bytes) -> int:
    """The checksum of TFRecord, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_tfrecord(path: Path, records: list[bytes]) -> None:
    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            for part in (length, record):
                file.write(part + struct.pack("<I", crc32c(part)))


def write_records(path: Path, records: list[bytes], file_format: str) -> None:
    if file_format == "tfrecord":  # TFDS's own writer needs TensorFlow
        write_tfrecord(path, records)
        return
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(file_format)]
    adapter.write_examples(path, enumerate(records))
