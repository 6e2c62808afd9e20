"""Cached images are those that would be decoded, whatever happens to the cache."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxsparse import factory
from jaxsparse.data import datasets, folders, image_cache
from jaxsparse.data.dataset import Examples


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("JAXSPARSE_CACHE_DIR", str(folder))
    return folder / "images"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    generator = np.random.default_rng(1)
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "data" / "tree" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = generator.integers(0, 256, (5, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "data"


def read(root: Path, *, use_cache: bool = True) -> datasets.Read:
    return datasets.make_reader("tree", use_cache=use_cache)(data_dir=str(root))


def assert_same(got: datasets.Read, wanted: datasets.Read) -> None:
    for mine, other in zip(got[:2], wanted[:2], strict=True):
        for a, b in zip(mine, other, strict=True):
            assert type(a) is type(b) is np.ndarray
            assert (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides)
            assert a.flags.writeable
            np.testing.assert_array_equal(a, b)
    assert got[2] == wanted[2]


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(folders, "decode", decode)


def test_cached_arrays_are_the_decoded_ones(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = read(tree, use_cache=False)
    assert not cache.exists()
    assert_same(read(tree), wanted)
    forbid_decoding(monkeypatch)
    again = read(tree)
    assert_same(again, wanted)
    loaded = datasets.load("tree", data_dir=str(tree))
    assert_same((loaded.train, loaded.test, loaded.classes), wanted)
    # Changes stay in the process.
    again[0].images[0] = 0
    assert_same(read(tree), wanted)
    with pytest.raises(AssertionError, match="decoded"):
        read(tree, use_cache=False)


def test_changed_files_are_another_entry(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(tree)
    image = tree / "tree" / "train" / "a" / "2.png"
    content = image.read_bytes()
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(image)
    changed = read(tree)
    assert_same(changed, read(tree, use_cache=False))
    assert np.sum(changed[0].images != before[0].images) > 0
    assert len(list(cache.iterdir())) == 2
    image.write_bytes(content)
    forbid_decoding(monkeypatch)
    assert_same(read(tree), before)


def test_files_that_change_while_they_are_decoded_are_not_cached(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, decode = tree / "tree" / "train" / "a" / "2.png", folders.decode

    def slow(*listings: folders.Listing) -> tuple[Examples, Examples]:
        decoded = decode(*listings)
        Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(image)
        return decoded

    monkeypatch.setattr(folders, "decode", slow)
    read(tree)
    assert not cache.exists()


def truncate(folder: Path) -> None:
    path = folder / "train_images.npy"
    path.write_bytes(path.read_bytes()[:-1])


def flip_bit(folder: Path) -> None:
    path = folder / "test_images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_index(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    del index["arrays"]["test_labels"]
    (folder / "index.json").write_text(json.dumps(index))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "one bit": flip_bit,
    "empty": lambda folder: (folder / "train_labels.npy").write_bytes(b""),
    "missing": lambda folder: (folder / "test_images.npy").unlink(),
    "no index": lambda folder: (folder / "index.json").unlink(),
    "half an index": lambda folder: (folder / "index.json").write_text('{"classes": '),
    "another index": change_index,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_entry_is_a_warning_and_is_replaced(
    tree: Path, cache: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    wanted = read(tree, use_cache=False)
    read(tree)
    (entry,) = cache.iterdir()
    DAMAGES[damage](entry)
    with caplog.at_level(logging.WARNING):
        assert_same(read(tree), wanted)
        (record,) = caplog.records
        assert f"image cache {entry}: expected the arrays that were saved" in (
            record.getMessage()
        )
        assert_same(read(tree), wanted)
    assert len(caplog.records) == 1
    assert list(cache.iterdir()) == [entry]


def test_a_cache_that_cannot_be_written_is_a_warning(
    tree: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.parent.write_text("a file in place of the folder")
    with caplog.at_level(logging.WARNING):
        assert_same(read(tree), read(tree, use_cache=False))
    assert "expected a writable folder, got" in caplog.text
    assert "config.data.use_cache" in caplog.text


def test_a_disk_that_fills_leaves_nothing(
    tree: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(path: Path, array: np.ndarray) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with caplog.at_level(logging.WARNING):
        assert_same(read(tree), read(tree, use_cache=False))
    assert "No space left on device" in caplog.text
    assert list(cache.iterdir()) == []


def save_one(entry: Path) -> datasets.Read:
    part = Examples(np.zeros((3, 2, 2, 1), np.uint8), np.arange(3, dtype=np.int32))
    return image_cache.save(entry, (part, part, 7))


def test_an_entry_that_another_process_moves_away_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Listed, and no longer there when its time is read, as one being published.
    (tmp_path / ".new-other").symlink_to(tmp_path / "moved")
    save_one(tmp_path / "entry")
    assert image_cache.load(tmp_path / "entry") is not None
    assert caplog.text == ""


def test_an_entry_that_another_process_repairs_first_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entry = tmp_path / "entry"
    save_one(entry)
    (entry / "index.json").write_text("{")
    delete = shutil.rmtree
    repaired = []

    def repair_first(folder: Path, **options: bool) -> None:
        delete(folder, **options)
        if folder.name.startswith(".old-") and not repaired:
            repaired.append(folder)
            save_one(entry)

    monkeypatch.setattr(shutil, "rmtree", repair_first)
    save_one(entry)
    assert len(repaired) == 1
    assert caplog.text == ""
    assert image_cache.load(entry) is not None


WRITER = """
import sys
from pathlib import Path
import numpy as np
from jaxsparse.data import image_cache
from jaxsparse.data.dataset import Examples

images = np.arange(1_000_000, dtype=np.uint8).reshape(1000, 50, 20, 1)
part = Examples(images, np.arange(1000, dtype=np.int32))
print("ready", flush=True)
sys.stdin.readline()
for i in range(20):
    saved = image_cache.save(Path(sys.argv[1]) / f"entry-{i}", (part, part, 7))
    assert all(np.array_equal(*pair) for pair in zip(saved[0], part)), i
    assert saved[2] == 7
    # Mapped from the entry that is there in the end, of whichever process.
    assert saved[0].images is not part.images, i
"""


def test_processes_can_write_the_same_entries_at_once(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors) == (0, "")
    assert sorted(os.listdir(tmp_path)) == sorted(f"entry-{i}" for i in range(20))
    assert all(image_cache.load(path) is not None for path in tmp_path.iterdir())


def test_a_config_switches_the_cache_off(tree: Path, cache: Path) -> None:
    from helpers import tiny

    c = tiny.config({"data.name": "tree", "data.dir": str(tree)})
    c.data.validation = c.data.train_examples = c.data.test_examples = 0
    c.data.use_cache = False
    plain = factory.load_data(c)
    assert not cache.exists()
    c.data.use_cache = True
    assert_same(factory.load_data(c)[::2], plain[::2])
    assert len(list(cache.iterdir())) == 1
