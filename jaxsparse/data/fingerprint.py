"""Fingerprints of data: by which a run notices that its examples have changed.

Of images in memory every byte counts. Of images that stay in files (`stored`) names and
sizes count, in whatever folder they lie: a file whose content changed and whose size
did not is not noticed, since reading all of them would take as long as an epoch.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsparse.data import datasets, folders, image_files
from jaxsparse.data.dataset import Dataset, Examples, Images
from jaxsparse.data.image_files import StoredImages

BLOCKS = 64  # in which a split is hashed, so that a difference can be located
SPLITS = ("train", "validation", "test")

Fingerprint = Mapping[str, Any]  # as in a file of JSON


def of(dataset: Dataset) -> dict[str, Any]:
    """Computes the fingerprint of a dataset, as it is trained and evaluated on.

    0.3 s for CIFAR-10 on one core.

    Args:
      dataset: what `datasets.load` returns.

    Returns:
      The number of classes, and for each split how many examples it has, in all and of
      each class, and hashes of parts of its labels and images.
    """
    splits = {name: _of_split(getattr(dataset, name)) for name in SPLITS}
    return {"classes": dataset.classes, "splits": splits}


class Sizes(NamedTuple):
    """Sizes of a dataset.

    Attributes:
      examples: how many are trained on, validated on and tested on.
      image: height, width and channels.
      classes: how many there are.
    """

    examples: tuple[int, int, int]
    image: tuple[int, int, int]
    classes: int


def sizes(data: Fingerprint) -> Sizes:
    """Reads sizes from a fingerprint, perhaps read from a file.

    Raises:
      ValueError: if it is no fingerprint.
    """
    try:
        parts = [data["splits"][name] for name in SPLITS]
        shape = re.match(r"\((\d+), (\d+), (\d+), (\d+)\)", parts[0]["images"][0])
        _, *image = map(int, shape.groups())
        counts = tuple(int(part["examples"]) for part in parts)
        return Sizes(counts, tuple(image), int(data["classes"]))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no fingerprint of data ({error!r})") from error


def of_images(images: Images) -> str:
    """Returns one hash of images; of those in files, of their names and sizes."""
    return _hash("".join(_of_images(images)).encode())


def of_files(name: str, *, data_dir: str | None) -> str | None:
    """Hashes the files of a dataset: what a cache of decoded images can be named by.

    0.1 s for CIFAR-10 or MNIST on one core; of folders of small images, a quarter of
    the time that decoding them takes.

    Args:
      name: as for `datasets.load`, of a dataset that it reads itself.
      data_dir: as for `datasets.load`.

    Returns:
      A hash of the names and contents of the files, wherever their folder lies and
      whenever they were written; None for a dataset that has no folder.

    Raises:
      OSError: if a file or folder cannot be read.
    """
    found = datasets.folder(name, data_dir=data_dir)
    if found is None:
        return None
    sha = hashlib.sha256()
    for path in _files(found):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        sha.update(f"{path.relative_to(found).as_posix()}\0{content}\n".encode())
    return sha.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """Yields the files that readers of datasets look at, as they look at them.

    What is hidden is passed over, and links are followed.
    """
    splits = [folder / name for names in folders.SPLITS.values() for name in names]
    walks = [
        os.walk(x, onerror=_refuse, followlinks=True) for x in splits if x.is_dir()
    ]
    top = [path.name for path in folder.iterdir() if path.is_file()]
    for root, inner, names in itertools.chain([(folder, [], top)], *walks):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(root, x) for x in sorted(names) if not x.startswith("."))


def _refuse(error: OSError) -> None:
    raise error


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Words how a dataset differs from one that it should be.

    Args:
      before: what `of` returned, perhaps read from a file.
      now: likewise.

    Returns:
      A sentence's part for each difference; none for equal data.

    Raises:
      ValueError: if one of them is no fingerprint.
    """
    try:
        found = []
        if before["classes"] != now["classes"]:
            found.append(f"{before['classes']} classes before, {now['classes']} now")
        for name in SPLITS:
            pair = before["splits"][name], now["splits"][name]
            found += [f"{name}: {words}" for words in _of_pair(*pair)]
        return found
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no fingerprint of data ({error!r})") from error


def _of_split(examples: Examples) -> dict[str, Any]:
    labels = np.ascontiguousarray(examples.labels, "<i4")
    classes, counts = np.unique(labels, return_counts=True)
    return {
        "examples": len(labels),
        "by_class": {str(c): int(n) for c, n in zip(classes, counts, strict=True)},
        "labels": _in_blocks(len(labels), lambda rows: labels[rows].tobytes()),
        "images": _of_images(examples.images),
    }


def _of_images(images: Images) -> list[str]:
    if not isinstance(images, StoredImages):
        size = [str(images.shape)]
        return size + _in_blocks(len(images), lambda rows: _bytes(images[rows]))
    if not len(images):
        return [str(images.shape)]
    names, paths = list(images.source.parts()), images.source.paths
    rows = _hash(np.ascontiguousarray(images.rows, "<i8").tobytes())
    if len(paths) == len(images.source):  # a file for each image
        names = [names[row] for row in images.rows]
        paths = [paths[row] for row in images.rows]

    def listed(part: slice) -> bytes:
        pairs = zip(names[part], paths[part], strict=True)
        return "".join(f"{n} {os.path.getsize(path)}\n" for n, path in pairs).encode()

    return [f"{images.shape} {rows}", *_in_blocks(len(names), listed)]


def _bytes(array: np.ndarray) -> Any:
    return np.ascontiguousarray(array).data


def _in_blocks(count: int, content: Callable[[slice], Any]) -> list[str]:
    """Hashes parts of so many things, in threads."""
    parts = _parts(count)
    return image_files.in_threads(lambda i: _hash(content(parts[i])), range(len(parts)))


def _parts(count: int) -> list[slice]:
    each = max(1, -(-count // BLOCKS))
    return [slice(i, min(i + each, count)) for i in range(0, count, each)]


def _hash(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _of_pair(before: Fingerprint, now: Fingerprint) -> Iterator[str]:
    """Words how one split differs."""
    if before == now:
        return
    counts = before["examples"], now["examples"]
    if counts[0] != counts[1]:
        yield f"{counts[0]} examples before, {counts[1]} now"
    classes = sorted(before["by_class"].keys() | now["by_class"].keys(), key=int)
    pairs = [
        (c, before["by_class"].get(c, 0), now["by_class"].get(c, 0)) for c in classes
    ]
    moved = [f"{c} had {a} and has {b}" for c, a, b in pairs if a != b]
    if moved:
        more = f" and {len(moved) - 5} more" if len(moved) > 5 else ""
        yield f"class {', class '.join(moved[:5])}{more}"
    if counts[0] != counts[1]:
        return
    if before["labels"] != now["labels"]:
        yield f"labels differ {_where(before['labels'], now['labels'], counts[0])}"
    (shape, *old), (other, *new) = before["images"], now["images"]
    if shape != other:
        yield f"images of {shape} before, of {other} now"
    elif old != new:
        yield f"images differ {_where(old, new, counts[0])}"


def _where(before: list[str], now: list[str], count: int) -> str:
    """Words which examples are in the parts that differ."""
    pairs = list(zip(before, now, strict=False))
    changed = [i for i, (a, b) in enumerate(pairs) if a != b]
    if len(before) != len(now) or len(_parts(count)) != len(pairs):
        return "in the number or sizes of their files"
    first, last = _parts(count)[changed[0]], _parts(count)[changed[-1]]
    return f"among examples {first.start} to {last.stop - 1}, counted from 0"
