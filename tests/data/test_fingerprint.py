"""Fingerprints: every change of the examples is noticed and located."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from jaxsparse import factory, metrics_log
from jaxsparse.data import datasets, fingerprint
from jaxsparse.data.data_pruning import score_files
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.training import data_record, workdir

CLASSES = 3


def make(count: int = 200) -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(1, 256, (count, 4, 4, 1), dtype=np.uint8)
    whole = Examples(images, np.arange(count, dtype=np.int32) % CLASSES)
    parts = [Examples(*(a[rows] for a in whole)) for rows in (slice(100), slice(0))]
    test = Examples(*(a[100:] for a in whole))
    return Dataset(*parts, test, CLASSES, (0.5,), (0.5,))


def change(dataset: Dataset, how: str) -> Dataset:
    images, labels = (np.array(a) for a in dataset.train)
    if how == "black":
        images[41] = 0
    elif how == "one bit":
        images[99, 3, 3] ^= 1
    elif how == "relabeled":
        labels[7] = 2
    elif how == "swapped":
        images[[4, 90]] = images[[90, 4]]
    elif how == "removed":
        images, labels = np.delete(images, 5, 0), np.delete(labels, 5)
    elif how == "reshaped":
        images = images.reshape(-1, 2, 8, 1)
    return dataset._replace(train=Examples(images, labels))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("black", ["train: images differ among examples 40 to 41, counted from 0"]),
        ("one bit", ["train: images differ among examples 98 to 99, counted from 0"]),
        (
            "relabeled",
            [
                "train: class 1 had 33 and has 32, class 2 had 33 and has 34",
                "train: labels differ among examples 6 to 7, counted from 0",
            ],
        ),
        ("swapped", ["train: images differ among examples 4 to 91, counted from 0"]),
        (
            "removed",
            [
                "train: 100 examples before, 99 now",
                "train: class 2 had 33 and has 32",
            ],
        ),
        (
            "reshaped",
            ["train: images of (100, 4, 4, 1) before, of (100, 2, 8, 1) now"],
        ),
    ],
)
def test_each_change_is_noticed_and_located(how: str, words: list[str]) -> None:
    dataset = make()
    before = json.loads(json.dumps(fingerprint.of(dataset)))
    assert fingerprint.differences(before, fingerprint.of(make())) == []
    now = change(dataset, how)
    assert fingerprint.differences(before, fingerprint.of(now)) == words
    same = fingerprint.of_images(now.train.images) == fingerprint.of_images(
        dataset.train.images
    )
    assert same == (how == "relabeled")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_split_counts(split: str) -> None:
    dataset = make()
    fewer = Examples(*(a[1:] for a in dataset.test))
    now = dataset._replace(**{split: fewer})
    found = fingerprint.differences(fingerprint.of(dataset), fingerprint.of(now))
    count = len(getattr(dataset, split).labels)
    assert found[0] == f"{split}: {count} examples before, 99 now"


@pytest.mark.parametrize("damaged", [{}, {"classes": 3}, {"classes": 3, "splits": []}])
def test_what_is_no_fingerprint_is_refused(damaged: dict) -> None:
    with pytest.raises(ValueError, match="data: expected a fingerprint"):
        fingerprint.differences(damaged, fingerprint.of(make()))


def write_tree(root: Path) -> None:
    generator = np.random.default_rng(1)
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = root / "tree" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")


def test_images_in_files_count_by_name_and_size(tmp_path: Path) -> None:
    write_tree(tmp_path)

    def find() -> dict:
        return fingerprint.of(datasets.load("tree", data_dir=str(tmp_path), size=4))

    before, files_before = find(), fingerprint.of_files("tree", data_dir=str(tmp_path))
    image = tmp_path / "tree" / "train" / "a" / "2.png"
    content = image.read_bytes()
    Image.new("RGB", (9, 9)).save(image)
    assert fingerprint.of_files("tree", data_dir=str(tmp_path)) != files_before
    (found,) = fingerprint.differences(before, find())
    assert found.startswith("train: images differ ")
    image.write_bytes(content)
    assert fingerprint.differences(before, find()) == []
    moved = tmp_path / "tree" / "train" / "b" / "9.png"
    image.rename(moved)
    found = fingerprint.differences(before, find())
    assert found[0] == "train: class 0 had 4 and has 3, class 1 had 4 and has 5"
    moved.rename(image)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tree").rename(tmp_path / "elsewhere" / "tree")
    there = str(tmp_path / "elsewhere")
    now = fingerprint.of(datasets.load("tree", data_dir=there, size=4))
    assert fingerprint.differences(before, now) == []
    assert fingerprint.of_files("tree", data_dir=there) == files_before


def test_the_hash_of_files_depends_on_what_is_read_of_them_alone(
    tmp_path: Path,
) -> None:
    write_tree(tmp_path)
    train = tmp_path / "tree" / "train"

    def find() -> str | None:
        return fingerprint.of_files("tree", data_dir=str(tmp_path))

    before = find()
    image = train / "a" / "2.png"
    os.utime(image, (0, 0))
    (train / ".hidden").mkdir()
    (train / ".hidden" / "x").write_text("?")
    (train / "a" / ".DS_Store").write_text("?")
    (tmp_path / "tree" / "notes").mkdir()
    (tmp_path / "tree" / "notes" / "x").write_text("?")
    assert find() == before
    content = image.read_bytes()
    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    assert find() != before
    image.write_bytes(content)
    (train / "b" / "0.png").rename(train / "b" / "00.png")  # may change their order
    assert find() != before
    (train / "b" / "00.png").rename(train / "b" / "0.png")
    # A class that lies elsewhere, behind a link.
    (train / "a").rename(tmp_path / "elsewhere")
    (train / "a").symlink_to(tmp_path / "elsewhere")
    assert find() == before
    (tmp_path / "elsewhere" / "2.png").write_bytes(content[:-1])
    assert find() != before


def test_a_run_records_the_hash_of_the_files_it_reads_whole(tmp_path: Path) -> None:
    write_tree(tmp_path)
    found = {}
    for size in (0, 4):
        c = tiny.config({"data.name": "tree", "data.dir": str(tmp_path)})
        c.data.image_size, c.data.validation = size, 2
        c.data.train_examples = c.data.test_examples = 0
        folder = tmp_path / f"run{size}"
        dataset = factory.load_data(c)
        with workdir.opened(folder, c, command="", execution_plan={}, dataset=dataset):
            found[size] = metrics_log.read_object(folder / data_record.FILE)["files"]
    # Of images that stay in their files the contents are not read.
    wanted = fingerprint.of_files("tree", data_dir=str(tmp_path))
    assert found == {0: wanted, 4: None}


def test_a_dataset_without_files_has_no_hash_of_them() -> None:
    assert fingerprint.of_files("digits", data_dir="/nowhere") is None


def test_scores_know_the_images_they_are_of(tmp_path: Path) -> None:
    labels, scores = np.arange(5), np.arange(5.0)
    said = dict(score="el2n", dataset="d", split="train", config="c")
    of = score_files.describe(labels, replicates=1, step=1, **said).with_images("aaa")
    score_files.save(tmp_path / "new.npz", scores, provenance=of)
    older = of.with_images("")
    score_files.save(tmp_path / "old.npz", scores, provenance=older)
    for name in ("new", "old"):
        score_files.load(tmp_path / f"{name}.npz", labels=labels, images="aaa")
    score_files.load(tmp_path / "old.npz", labels=labels, images="bbb")
    with pytest.raises(ValueError, match="images of hash .*got aaa .*have changed"):
        score_files.load(tmp_path / "new.npz", labels=labels, images="bbb")
    assert score_files.digest(tmp_path / "new.npz") != score_files.digest(
        tmp_path / "old.npz"
    )
    score_files.check_free(tmp_path / "old.npz", of)
