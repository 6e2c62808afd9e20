"""Images in files: what is seen of them, when they are decoded, and what is refused."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.images import CLASSES, picture, write_tree
from PIL import Image

from jaxsparse.data import (
    dataset,
    datasets,
    folders,
    image_files,
    image_sources,
    random_resized_crop,
)
from jaxsparse.data.dataset import Examples
from jaxsparse.data.image_files import StoredImages

SIZE = 14


class Counting:
    """Images in memory, which counts how often each is read."""

    paths = ()

    def __init__(self, count: int = 12) -> None:
        self.encoded = []
        for i in range(count):
            into = io.BytesIO()
            picture(i, 30 + 3 * i, 40 + i).save(into, "PNG")
            self.encoded.append(into.getvalue())
        self.read_rows: list[int] = []

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, row: int) -> bytes:
        self.read_rows.append(row)
        return self.encoded[row]

    def name(self, row: int) -> str:
        return f"number {row}"

    def parts(self) -> Any:
        return iter([])


def some(source: Any = None) -> StoredImages:
    source = Counting() if source is None else source
    return StoredImages(source, np.arange(len(source)), SIZE)


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys's kernel with a = -1/2, as in Pillow."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def along(pixels: np.ndarray, length: int) -> np.ndarray:
    """Resizes the first axis to a length, averaging where it gets shorter."""
    ratio = pixels.shape[0] / length
    width = max(ratio, 1)
    rows = []
    for i in range(length):
        middle = (i + 0.5) * ratio
        weights = cubic((np.arange(pixels.shape[0]) + 0.5 - middle) / width)
        rows.append(np.tensordot(weights / weights.sum(), pixels, 1))
    return np.clip(np.round(rows), 0, 255)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    narrow = along(pixels.swapaxes(0, 1).astype(float), width).swapaxes(0, 1)
    return along(narrow, height)


def test_evaluation_sees_the_middle_of_the_resized_image() -> None:
    images = some()
    seen = images[:]
    assert (seen.shape, seen.dtype) == ((12, SIZE, SIZE, 3), np.uint8)
    for i, got in enumerate(seen):
        pixels = np.asarray(picture(i, 30 + 3 * i, 40 + i))
        height, width = pixels.shape[:2]
        shorter = 16  # 14 * 256 / 224
        if height <= width:
            large = resize(pixels, shorter, round(width * shorter / height))
        else:
            large = resize(pixels, round(height * shorter / width), shorter)
        top, left = ((n - SIZE) // 2 for n in large.shape[:2])
        wanted = large[top : top + SIZE, left : left + SIZE]
        assert np.abs(got.astype(float) - wanted).max() <= 1


def test_training_sees_the_part_that_is_drawn() -> None:
    images = some()
    rows, places = np.array([3, 3, 11]), np.array([7, 8, 7])
    words = np.array([[1, 2], [1, 2], [5, 6]], np.uint32)
    seen = images.crops(rows, words=words, epoch=2, places=places)
    for i, row in enumerate(rows):
        pixels = np.asarray(picture(row, 30 + 3 * row, 40 + row))
        box = random_resized_crop.draw(
            *pixels.shape[:2], words=words[i], epoch=2, place=int(places[i])
        )
        left, top, right, bottom = box
        wanted = resize(pixels[top:bottom, left:right], SIZE, SIZE)
        # Pillow computes in integers, twice.
        assert np.abs(seen[i].astype(float) - wanted).max() <= 2
    assert not np.array_equal(seen[0], seen[1])
    # In any company they are the same.
    alone = [
        images.crops(
            rows[i : i + 1],
            words=words[i : i + 1],
            epoch=2,
            places=places[i : i + 1],
        )
        for i in range(3)
    ]
    np.testing.assert_array_equal(np.concatenate(alone), seen)


def test_it_stands_where_an_array_does() -> None:
    images = some()
    array = np.asarray(images)
    assert images.shape == array.shape
    assert (images.dtype, images.ndim) == (array.dtype, array.ndim)
    assert (images.nbytes, len(images)) == (array.nbytes, len(array))
    rows = np.array([[3, 0], [11, 3]])
    for index in (slice(2, 7), slice(0), rows[0], rows, np.array([], int), 5):
        np.testing.assert_array_equal(images[index], array[index])
    with pytest.raises(IndexError):
        images[np.array([12])]


def test_nothing_is_decoded_before_it_is_asked_for() -> None:
    source = Counting()
    every = Examples(some(source), np.arange(12, dtype=np.int32))
    array = Examples(np.asarray(every.images), every.labels)
    source.read_rows.clear()

    def divide(some: Examples) -> list[Examples]:
        train, held_out = dataset.split(some, validation=5, seed=1)
        mixed = dataset.mix(train, seed=2)
        _, none = dataset.split(some, validation=0, seed=1)
        rows = np.array([4, 0])
        parts = [train, held_out, mixed, dataset.first(mixed, 3), none]
        return [*parts, dataset.take(mixed, rows)]

    lazy, whole = divide(every), divide(array)
    assert [(part.images.shape, part.images.nbytes) for part in lazy] == [
        (part.images.shape, part.images.nbytes) for part in whole
    ]
    assert source.read_rows == []
    for part, wanted in zip(lazy, whole, strict=True):
        np.testing.assert_array_equal(part.labels, wanted.labels)
        np.testing.assert_array_equal(part.images[:], wanted.images)
    source.read_rows.clear()
    lazy[2].images[1:3]
    assert sorted(source.read_rows) == sorted(lazy[2].labels[1:3])


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    into = io.BytesIO()
    image.save(into, kind, **options)
    return into.getvalue()


class Given(Counting):
    def __init__(self, *encoded: bytes) -> None:
        super().__init__(0)
        self.encoded = list(encoded)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "JPEG"), ("RGB", "PNG"), ("1", "PNG")]
    + [("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "PNG")],
)
def test_all_kinds_of_images_become_red_green_and_blue(mode: str, kind: str) -> None:
    shown = picture(1, 40, 40).convert(mode)
    (seen,) = some(Given(encode(shown, kind)))[:]
    (wanted,) = some(Given(encode(shown.convert("RGB"), "PNG")))[:]
    near = 16 if kind == "JPEG" else 0
    assert np.abs(seen.astype(int) - wanted).max() <= near
    if mode in ("L", "LA", "1"):
        np.testing.assert_array_equal(seen[..., 0], seen[..., 2])


def test_a_transparent_palette_gives_its_colors() -> None:
    shown = picture(1, 40, 40).convert("P")
    clear = encode(shown, "PNG", transparency=bytes([0, 128, 255]))
    (seen,), (wanted,) = some(Given(clear))[:], some(Given(encode(shown, "PNG")))[:]
    np.testing.assert_array_equal(seen, wanted)


def test_a_damaged_image_is_named() -> None:
    whole = encode(picture(1, 40, 40), "JPEG")
    deep = encode(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG")
    gif = encode(picture(1, 40, 40), "GIF")
    images = some(Given(whole, whole[:-100], b"no image", deep, gif))
    assert images[:1].shape == (1, SIZE, SIZE, 3)
    for row, words in ((1, "damaged"), (2, "damaged"), (3, "I;16"), (4, "damaged")):
        with pytest.raises(ValueError, match=f"number {row}: expected .*{words}"):
            images[row : row + 1]
        with pytest.raises(ValueError, match=f"number {row}: "):
            images.crops(
                np.array([0, row]),
                words=np.zeros((2, 2), np.uint32),
                epoch=0,
                places=np.arange(2),
            )
    gone = some(image_sources.Files(("/nowhere/a.JPEG",)))
    with pytest.raises(
        ValueError, match="/nowhere/a.JPEG: expected .*got a damaged or missing"
    ):
        gone[:]


def test_a_set_may_be_far_larger_than_what_is_held() -> None:
    # A million images of 224x224: 150 GB once they are decoded.
    rows = np.random.default_rng(0).integers(0, 12, 1_000_000)
    images = StoredImages(Counting(), rows, 224)
    assert images.nbytes > 150e9
    tracemalloc.start()
    try:
        part = dataset.mix(Examples(images, rows.astype(np.int32)), seed=0)
        part.images[10:14]
        part.images.crops(
            np.arange(999_990, 1_000_000),
            words=np.zeros((10, 2), np.uint32),
            epoch=0,
            places=np.arange(10),
        )
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 40e6


def test_a_tree_of_images_is_listed_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path)
    read: list[int] = []
    plain = image_sources.Files.read
    monkeypatch.setattr(
        image_sources.Files,
        "read",
        lambda self, row: read.append(row) or plain(self, row),
    )
    data = datasets.load(
        "imagenet",
        data_dir=str(tmp_path),
        size=SIZE,
        validation=4,
        examples=(9, None),
    )
    assert read == []
    shapes = [part.images.shape for part in data[:3]]
    assert shapes == [(n, SIZE, SIZE, 3) for n in (9, 4, 9)]
    assert data.classes == 3
    assert data.mean == datasets.PUBLISHED["imagenet2012"][0]
    assert data.std == (0.229, 0.224, 0.225)
    for part, folder in ((data.train, "train"), (data.test, "val")):
        paths = [part.images.source.paths[row] for row in part.images.rows]
        for path, label in zip(paths, part.labels, strict=True):
            assert Path(path).parent == tmp_path / "imagenet" / folder / CLASSES[label]
    path = data.train.images.source.paths[data.train.images.rows[2]]
    with Image.open(path) as shown:
        wanted = np.asarray(image_files.view(shown, SIZE))
    np.testing.assert_array_equal(data.train.images[2:3][0], wanted)
    assert len(read) == 1


def test_images_without_labels_beside_a_validation_split_are_pointed_at(
    tmp_path: Path,
) -> None:
    write_tree(tmp_path)
    test = tmp_path / "imagenet" / "test"
    test.mkdir()
    picture(0, 30, 30).save(test / "0.JPEG")
    words = "/test: .*classes of train.*no labels, move it, and val becomes"
    with pytest.raises(ValueError, match=words):
        datasets.load("imagenet", data_dir=str(tmp_path), size=SIZE)
    with pytest.raises(ValueError) as caught:
        folders.list_tree("imagenet", data_dir=str(tmp_path), with_validation=True)
    assert "no labels" not in str(caught.value)


def test_channels_of_unknown_sets_are_measured_on_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, "mine")
    monkeypatch.setattr(datasets, "SAMPLE", 5)
    data = datasets.load("mine", data_dir=str(tmp_path), size=SIZE)
    wanted = datasets.channel_statistics(data.train.images[:5])
    assert (data.mean, data.std) == wanted


def test_sets_with_readers_of_their_own_are_refused() -> None:
    with pytest.raises(ValueError, match="size: expected 0 for 'digits'.*got 8"):
        datasets.load("digits", size=8)
