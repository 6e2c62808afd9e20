"""Score files: .npz files with the scores of examples and their provenance.

Scores take many training runs to compute, are used much later, and are matched to
examples by row. A file therefore records its dataset, and loading it for another
dataset is an error.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from jaxsparse.data.data_pruning.provenance import (
    Provenance,
    describe,
    hash_labels,
)

__all__ = (
    "Provenance",
    "ScoreFile",
    "check_free",
    "describe",
    "digest",
    "hash_labels",
    "load",
    "save",
)


# Fields that may be known only after scores are computed.
LATER = ("replicates", "step", "weights")


class ScoreFile(NamedTuple):
    """Content of a score file.

    Attributes:
      scores: score of each example, in the order of the dataset; float64.
      provenance: origin of the scores.
    """

    scores: Float64[np.ndarray, " n"]
    provenance: Provenance


def check_free(
    path: Path, expected: Provenance, *, later: Collection[str] = LATER
) -> None:
    """Checks that scores can be saved to a file, before they are computed.

    Creates the folder of the file if it does not exist.

    Args:
      path: the score file to be written, ending in .npz.
      expected: provenance of the scores to be computed.
      later: fields of it that are not yet known and are not compared.

    Raises:
      ValueError: if `path` is a folder, a file of another kind, or a file of scores
        with another provenance.
      OSError: if the folder is not writable.
    """
    if path.is_dir():
        raise ValueError(f"{path}: expected the name of a file to write, got a folder")
    if path.exists():
        _raise_if_different(
            path, _differences(read(path).provenance, expected, ignored=later)
        )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"{path.parent}: expected a writable folder, got one without permission"
        )


def save(
    path: Path, scores: Float[np.ndarray, " n"], *, provenance: Provenance
) -> None:
    """Writes a score file atomically.

    If the process is killed, either the complete file exists or none. An existing file
    with the same content is not rewritten.

    Args:
      path: the score file, ending in .npz; its folder is created.
      scores: score of each example; +inf is allowed, NaN is not. Stored as float64.
      provenance: origin of the scores.

    Raises:
      ValueError: if a score is NaN, if the number of scores differs from that of the
        provenance, or if the file exists with other content.
    """
    values = scores.astype(np.float64)
    if len(values) != provenance.examples or np.isnan(values).any():
        raise ValueError(
            f"scores: expected {provenance.examples} numbers, one for each example of "
            f"the provenance, got {len(values)}, {np.isnan(values).sum()} of them NaN"
        )
    if path.exists():
        _check_same(path, ScoreFile(values, provenance))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, scores=values, provenance=json.dumps(provenance.to_dict()))
            # On disk before it is renamed: otherwise a crash of the machine could leave
            # an incomplete file under the final name.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, *, labels: Int[np.ndarray, "_"], images: str = "") -> ScoreFile:
    """Reads a score file and checks that it belongs to a dataset.

    Args:
      path: a file written by `save`.
      labels: labels of the dataset for which the scores are used, in its order.
      images: hash of its images from `fingerprint.of_images`; "" skips the comparison.

    Returns:
      The scores, bitwise equal to the saved ones, and their provenance.

    Raises:
      ValueError: if the file is not a score file, or if the number of examples, the
        labels or the images differ from those of the dataset.
      FileNotFoundError: if the file does not exist.
    """
    saved = read(path)
    provenance = saved.provenance
    if provenance.examples != len(labels):
        raise ValueError(
            f"{path}: expected scores of {len(labels)} examples, the size of the "
            f"dataset, got {provenance.examples} ({provenance.dataset}, "
            f"{provenance.split}); load the same split with the same number of "
            "validation examples, or score this dataset"
        )
    if provenance.hashes.labels != hash_labels(labels):
        raise ValueError(
            f"{path}: expected scores of examples with labels of SHA-256 "
            f"{hash_labels(labels)[:12]}, those of the dataset, got "
            f"{provenance.hashes.labels[:12]} ({provenance.dataset}, "
            f"{provenance.split}); load the same dataset in the same order and with "
            "the same label noise, or score this one"
        )
    known = provenance.hashes.images
    if images and known and images != known:
        raise ValueError(
            f"{path}: expected scores of examples with images of hash {images[:12]}, "
            f"those of the dataset, got {known[:12]} "
            f"({provenance.dataset}, {provenance.split}); the images have changed "
            "since; restore them, or score these"
        )
    return saved


def digest(path: Path) -> str:
    """Hashes the content of a score file, independent of when it was written.

    Args:
      path: a file written by `save`.

    Returns:
      SHA-256 of scores and provenance, in hexadecimal.

    Raises:
      ValueError: if the file is not a score file.
      FileNotFoundError: if the file does not exist.
    """
    scores, provenance = read(path)
    fields = provenance.to_dict()
    if (
        not provenance.hashes.images
    ):  # older files lack this field; their hash must not change
        del fields["images"]
    text = json.dumps(fields, sort_keys=True).encode()
    return hashlib.sha256(scores.astype("<f8").tobytes() + text).hexdigest()


def read(path: Path) -> ScoreFile:
    """Reads a score file of any dataset; `load` also checks that it is of one.

    Args:
      path: a file written by `save`.

    Raises:
      ValueError: if the file is not a score file.
      FileNotFoundError: if the file does not exist.
    """
    try:
        # A pickle could execute code.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            scores, text = arrays["scores"], arrays["provenance"].item()
        provenance = Provenance.from_dict(json.loads(text))
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected a score file that `save` wrote, got another file "
            f"({error}); compute the scores again under another name, or move this file"
        ) from error
    if scores.dtype != np.float64 or scores.shape != (provenance.examples,):
        raise ValueError(
            f"{path}: expected {provenance.examples} scores in float64, one per "
            f"example, got {scores.dtype} of shape {scores.shape}; compute them again"
        )
    return ScoreFile(scores, provenance)


def _check_same(path: Path, expected: ScoreFile) -> None:
    """Checks that an existing file has the content that would be written to it."""
    saved = read(path)
    names = _differences(saved.provenance, expected.provenance)
    if saved.scores.tobytes() != expected.scores.tobytes():
        names.append("scores")
    _raise_if_different(path, names)


def _differences(
    saved: Provenance, expected: Provenance, *, ignored: Collection[str] = ()
) -> list[str]:
    """Describes the fields in which two provenances differ, except `ignored` ones."""
    now = expected.to_dict()
    return [
        f"{name} ({before!r}, now {now[name]!r})"
        for name, before in saved.to_dict().items()
        if before != now[name]
        and name not in ignored
        # Older files lack the hashes of images and of weights.
        and not (name in ("images", "weights") and not before)
    ]


def _raise_if_different(path: Path, names: list[str]) -> None:
    """Raises `ValueError` if an existing file differs in any of the named fields."""
    if names:
        raise ValueError(
            f"{path}: expected no file or one with the same content, got one with "
            f"other {', '.join(names)}; nothing was written; move the file, or save "
            "under another name"
        )
