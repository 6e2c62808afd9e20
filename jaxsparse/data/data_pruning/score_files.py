"""Files of scores: one .npz that also says what the scores are of.

Scores take many training runs to make and are read long after, by row. So a file knows
of which dataset its rows are, and is read for that dataset only.
"""

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int


class Provenance(NamedTuple):
    """What scores are of; made by `describe`.

    Attributes:
      score: its name, such as "el2n".
      dataset: its name, such as "cifar10".
      split: which part of the dataset, such as "train".
      examples: how many there are.
      replicates: training runs that the scores are means over.
      step: updates made before the scores were taken.
      config: digest of the configuration of those runs.
      labels: SHA-256 of the labels in their order, in hexadecimal.
      weights: hashes of the checkpoints that were scored, joined by commas; "" if there
        was none, as of forgetting.
      images: hash of the images, see `fingerprint.of_images`; "" if it is not known, as
        in older files.
    """

    score: str
    dataset: str
    split: str
    examples: int
    replicates: int
    step: int
    config: str
    labels: str
    weights: str = ""
    images: str = ""


LATER = ("replicates", "step", "weights")  # known when scores have been computed


class ScoreFile(NamedTuple):
    """What a file holds.

    Attributes:
      scores: one an example, in the order of the dataset.
      provenance: what they are of.
    """

    scores: Float64[np.ndarray, " n"]
    provenance: Provenance


def hash_labels(labels: Int[np.ndarray, " n"]) -> str:
    """Returns the SHA-256 of labels in their order, whatever their integer type."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def describe(
    labels: Int[np.ndarray, " n"],
    *,
    score: str,
    dataset: str,
    split: str,
    replicates: int,
    step: int,
    config: str,
    weights: str = "",
    images: str = "",
) -> Provenance:
    """Says what scores are of.

    Args:
      labels: of the dataset whose examples were scored, in its order.
      score: as in `Provenance`.
      dataset: as in `Provenance`.
      split: as in `Provenance`.
      replicates: as in `Provenance`; 1 or more.
      step: as in `Provenance`; not negative.
      config: as in `Provenance`.
      weights: as in `Provenance`.
      images: as in `Provenance`.

    Returns:
      The provenance, with the number of the labels and their hash.

    Raises:
      ValueError: if a number is out of range.
    """
    if replicates < 1 or step < 0:
        raise ValueError(
            f"replicates: got {replicates} at step {step}; wanted 1 or more, at a step "
            "counted from 0"
        )
    return Provenance(
        score=score,
        dataset=dataset,
        split=split,
        examples=len(labels),
        replicates=replicates,
        step=step,
        config=config,
        labels=hash_labels(labels),
        weights=weights,
        images=images,
    )


def check_free(path: Path, wanted: Provenance) -> None:
    """Refuses a file that scores could not be saved to; call it before computing them.

    Args:
      path: as of `save`.
      wanted: what the scores will be of, but for `LATER`, which nobody knows yet.

    Raises:
      ValueError: if there is something else: a folder, another file, or scores of
        something else.
      OSError: if the folder cannot be written to.
    """
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; wanted the name of a file to write")
    if path.exists():
        _refuse(path, _differences(_read(path).provenance, wanted, but=LATER))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent}: cannot be written to")


def save(
    path: Path, scores: Float[np.ndarray, " n"], *, provenance: Provenance
) -> None:
    """Writes scores, so that a kill leaves the whole file or none.

    A file that holds the very same is left as it is.

    Args:
      path: the file, ending in .npz; its folder is made.
      scores: one an example; +inf is a score, NaN is none. Kept in float64.
      provenance: what they are of.

    Raises:
      ValueError: if a score is NaN, their number is not that of the provenance, or the
        file exists and holds something else.
    """
    wide = scores.astype(np.float64)
    if len(wide) != provenance.examples or np.isnan(wide).any():
        raise ValueError(
            f"scores: got {len(wide)}, {np.isnan(wide).sum()} of them NaN; wanted "
            f"{provenance.examples} numbers, one for each example of the provenance"
        )
    if path.exists():
        _check_same(path, ScoreFile(wide, provenance))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            np.savez(file, scores=wide, provenance=json.dumps(provenance._asdict()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def load(path: Path, *, labels: Int[np.ndarray, "_"], images: str = "") -> ScoreFile:
    """Reads scores for a dataset, and refuses those of another.

    Args:
      path: a file that `save` wrote.
      labels: of the dataset the scores are wanted for, in its order.
      images: hash of its images, see `fingerprint.of_images`; "" not to compare them.

    Returns:
      The scores as they were saved, to the bit, and what they are of.

    Raises:
      ValueError: if the file is no file of scores, or its examples are not those of the
        labels by number or by hash, or of other images.
      FileNotFoundError: if there is no file.
    """
    saved = _read(path)
    of = saved.provenance
    if of.examples != len(labels):
        raise ValueError(
            f"{path}: scores of {of.examples} examples ({of.dataset}, {of.split}); the "
            f"dataset given has {len(labels)}; load the same split, with as much held "
            "out for validation, or score this one"
        )
    if of.labels != hash_labels(labels):
        raise ValueError(
            f"{path}: scores of examples ({of.dataset}, {of.split}) with labels of "
            f"SHA-256 {of.labels[:12]}; the dataset given has {len(labels)} too, but "
            f"of {hash_labels(labels)[:12]}: another dataset, order or noise; load the "
            "same one, or score this one"
        )
    if images and of.images and images != of.images:
        raise ValueError(
            f"{path}: scores of examples ({of.dataset}, {of.split}) with images of "
            f"hash {of.images[:12]}; the dataset given has equal labels, but images of "
            f"{images[:12]}: they have changed since; restore them, or score these"
        )
    return saved


def digest(path: Path) -> str:
    """Returns the SHA-256 of what a file holds, the same whenever it was written.

    Args:
      path: a file that `save` wrote.

    Returns:
      The hash of scores and provenance, in hexadecimal.

    Raises:
      ValueError: if the file is no file of scores.
      FileNotFoundError: if there is no file.
    """
    scores, provenance = _read(path)
    fields = provenance._asdict()
    if not provenance.images:  # older files do not have it, and keep their hashes
        del fields["images"]
    told = json.dumps(fields, sort_keys=True).encode()
    return hashlib.sha256(scores.astype("<f8").tobytes() + told).hexdigest()


def _read(path: Path) -> ScoreFile:
    """Reads a file, whatever its dataset."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            scores, text = arrays["scores"], arrays["provenance"].item()
        provenance = Provenance(**json.loads(text))
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: is no file of scores ({error}); wanted one that `save` wrote; "
            "make it again under another name, or move this one away"
        ) from error
    if scores.dtype != np.float64 or scores.shape != (provenance.examples,):
        raise ValueError(
            f"{path}: holds {scores.dtype} scores of shape {scores.shape} for "
            f"{provenance.examples} examples; wanted one float64 each; make it again"
        )
    return ScoreFile(scores, provenance)


def _check_same(path: Path, wanted: ScoreFile) -> None:
    """Refuses to lose what a file holds, unless it is what is wanted."""
    found = _read(path)
    names = _differences(found.provenance, wanted.provenance)
    if found.scores.tobytes() != wanted.scores.tobytes():
        names.append("scores")
    _refuse(path, names)


def _differences(
    found: Provenance, wanted: Provenance, *, but: tuple[str, ...] = ()
) -> list[str]:
    """Words the fields in which two provenances differ."""
    pairs = zip(found, wanted, strict=True)
    return [
        f"{name} ({was!r}, now {now!r})"
        for name, (was, now) in zip(Provenance._fields, pairs, strict=True)
        if was != now and name not in but and not (name == "images" and not was)
    ]


def _refuse(path: Path, names: list[str]) -> None:
    """Refuses to lose what differs in some fields."""
    if names:
        raise ValueError(
            f"{path}: exists, with other {', '.join(names)}; nothing was written; move "
            "the file away, or save under another name"
        )
