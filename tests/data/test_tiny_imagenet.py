"""Tiny ImageNet's own folders, and what is published of all sets."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from jaxsparse import config as config_lib
from jaxsparse import factory
from jaxsparse.data import datasets
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.factory import input_data

CLASSES = ("n01", "n03", "n02")


def save(path: Path, seed: int, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (4, 5, channels), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels).save(path, "PNG")
    return np.broadcast_to(pixels, (4, 5, 3))


def write(root: Path) -> tuple[list[tuple[np.ndarray, int]], ...]:
    """Writes folders as published; returns images and labels, by class and file."""
    folder, train = root / "tiny_imagenet", []
    for label, name in enumerate(sorted(CLASSES)):
        for i in range(3):
            path = folder / "train" / name / "images" / f"{name}_{i}.JPEG"
            train.append((save(path, 10 * label + i, 1 if i == 2 else 3), label))
        (folder / "train" / name / f"{name}_boxes.txt").write_text("a box")
    lines, test = [], []
    for i, label in enumerate((2, 0, 0, 1)):
        image = save(folder / "val" / "images" / f"val_{i}.JPEG", 100 + i)
        test.append((image, label))
        lines.append(f"val_{i}.JPEG\t{sorted(CLASSES)[label]}\t0\t1\t2\t3")
    lines.reverse()  # any order will do
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    save(folder / "test" / "images" / "test_0.JPEG", 1)  # nobody knows its label
    return train, test


def mixed(wanted: list[tuple[np.ndarray, int]]) -> list[tuple[np.ndarray, int]]:
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(wanted))
    return [wanted[i] for i in order]


def test_pixels_labels_and_order_are_exact(tmp_path: Path) -> None:
    wanted = write(tmp_path)
    dataset = datasets.load("tiny_imagenet", data_dir=str(tmp_path))
    assert dataset.classes == 3
    for got, part in zip((dataset.train, dataset.test), wanted, strict=True):
        for image, label, (pixels, number) in zip(*got, mixed(part), strict=True):
            np.testing.assert_array_equal(image, pixels)
            assert label == number
    assert dataset.mean == (0.480, 0.448, 0.397)
    assert dataset.std == (0.276, 0.269, 0.282)


def test_a_tree_of_images_will_do_too(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i, name in enumerate(CLASSES):
            save(tmp_path / "tiny_imagenet" / split / name / "0.png", i)
    dataset = datasets.load("tiny_imagenet", data_dir=str(tmp_path))
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (3, 3)


def test_splits_may_have_been_moved_into_classes(tmp_path: Path) -> None:
    train, test = write(tmp_path)
    folder = tmp_path / "tiny_imagenet"
    for i, (_, label) in enumerate(test):
        path = folder / "val" / "images" / f"val_{i}.JPEG"
        goal = folder / "val" / sorted(CLASSES)[label] / path.name
        goal.parent.mkdir(exist_ok=True)
        path.rename(goal)
    (folder / "val" / "images").rmdir()  # annotations are left, as most leave them
    dataset = datasets.load("tiny_imagenet", data_dir=str(tmp_path))
    test.sort(key=lambda pair: pair[1])
    for got, part in zip((dataset.train, dataset.test), (train, test), strict=True):
        for image, label, (pixels, number) in zip(*got, mixed(part), strict=True):
            np.testing.assert_array_equal(image, pixels)
            assert label == number


def _add_line(folder: Path) -> None:
    path = folder / "val" / "val_annotations.txt"
    path.write_text(path.read_text() + "val_9.JPEG\tn01\t0\t1\t2\t3\n")


def _repeat_line(folder: Path) -> None:
    path = folder / "val" / "val_annotations.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")


def _other_class(folder: Path) -> None:
    path = folder / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("n02", "n09"))


WRONG = {
    "line": (
        _add_line,
        r"val_annotations.txt: expected .*4 images.*got 5 labels in 5 lines",
    ),
    "twice": (_repeat_line, "4 images.*got 4 labels in 5 lines"),
    "class": (_other_class, r"expected the classes of .*train, got also \['n09'\]"),
    "image": (
        lambda folder: (folder / "val" / "images" / "val_1.JPEG").write_bytes(b"no"),
        r"val_1.JPEG: expected .*got a damaged or missing",
    ),
    "labels": (
        lambda folder: (folder / "val" / "val_annotations.txt").unlink(),
        "val_annotations.txt: expected the labels of .*got no file",
    ),
    "empty": (
        lambda folder: (folder / "train" / "n04" / "images").mkdir(parents=True),
        r"n04/images: expected images .*got none",
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_is_named(how: str, tmp_path: Path) -> None:
    write(tmp_path)
    damage, message = WRONG[how]
    damage(tmp_path / "tiny_imagenet")
    with pytest.raises(ValueError, match=message):
        datasets.load("tiny_imagenet", data_dir=str(tmp_path))


def test_an_absent_one_says_where_it_is_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unpack tiny-imagenet-200.zip"):
        datasets.load("tiny_imagenet", data_dir=str(tmp_path))


def dataset_of(channels: int) -> Dataset:
    some = Examples(
        np.random.default_rng(0).integers(0, 256, (8, 6, 6, channels), np.uint8),
        np.zeros(8, np.int32),
    )
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return Dataset(some, some, some, 10, zeros, ones)


@pytest.mark.parametrize("name", datasets.AUGMENTATIONS)
def test_published_changes_are_those_of_the_fields(name: str) -> None:
    wanted = datasets.AUGMENTATIONS[name]
    published = tiny.config({"data.name": name, "data.augment": "standard"})
    given = {"data.name": name, "data.flip": wanted.flip}
    given["data.crop_pad"] = wanted.crop_pad
    both = [input_data.make_augment(c) for c in (published, tiny.config(given))]
    if not any(wanted):
        assert both == [None, None]
        return
    images = jnp.asarray(dataset_of(3).train.images)
    found = [
        augment(images, key=jax.random.key(1), places=jnp.arange(8, dtype=jnp.int32))
        for augment in both
    ]
    np.testing.assert_array_equal(*found)
    assert (np.asarray(found[0]) != np.asarray(images)).any()


def test_random_parts_of_images_are_not_shifted_besides() -> None:
    for name, flip in (("cifar10", True), ("svhn_cropped", False)):
        c = tiny.config({"data.name": name, "data.augment": "standard"})
        c.data.image_size = 32
        config_lib.validate(c)
        assert input_data.augmentation(c.data) == (0, flip)


def test_published_numbers_are_these() -> None:
    none, usual = (0, False), (4, True)
    assert {
        **dict.fromkeys(("digits", "mnist", "fashion_mnist", "svhn_cropped"), none),
        **dict.fromkeys(("cifar10", "cifar100", "cinic10", "tiny_imagenet"), usual),
        **dict.fromkeys(("imagenet2012", "imagenet"), (0, True)),
    } == datasets.AUGMENTATIONS
    assert datasets.PUBLISHED["fashion_mnist"] == ((0.2860,), (0.3530,))
    svhn = ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
    assert datasets.PUBLISHED["svhn_cropped"] == svhn


def test_what_is_published_is_known_of_all_sets_with_published_numbers() -> None:
    assert datasets.PUBLISHED.keys() <= datasets.AUGMENTATIONS.keys()


def test_numbers_to_normalize_by_can_be_given() -> None:
    c = tiny.config({"data.mean": (0.5, 0.25, 0), "data.std": (0.5, 0.2, 1)})
    config_lib.validate(c)
    dataset = dataset_of(3)
    got = input_data.make_normalize(c, dataset)(jnp.asarray(dataset.train.images))
    pixels = dataset.train.images.astype(np.float64) / 255
    wanted = (pixels - [0.5, 0.25, 0.0]) / [0.5, 0.2, 1.0]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"data.mean": (0.5,)},
        "data.mean: expected as many numbers as data.std, 0, got (0.5,)",
    ),
    (
        {"data.mean": (0.5,), "data.std": (0.5,), "data.normalize": "scale"},
        "data.mean: expected None with data.normalize 'scale', got (0.5,)",
    ),
    (
        {"data.mean": (0.5,), "data.std": (0.0,)},
        "data.std: expected a tuple of numbers from 1e-6 to 1",
    ),
    ({"data.mean": (125.3,)}, "data.mean: expected a tuple of numbers from 0 to 1"),
    (
        {"data.augment": "standard", "data.flip": True},
        "data.augment: expected 'custom' with data.crop_pad 0 and data.flip True",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        config_lib.validate(tiny.config(fields))


def test_what_does_not_fit_the_data_is_refused(tmp_path: Path) -> None:
    three = {"data.mean": (0.5,) * 3, "data.std": (0.5,) * 3}
    for fields, message in (
        (three, r"data.mean: expected 1 numbers, .*got 3"),
        (
            {"data.augment": "standard", "data.name": "mine"},
            r"expected 'custom' for 'mine'",
        ),
    ):
        c = tiny.config(fields)
        data = factory.load_data(tiny.config())
        with pytest.raises(ValueError, match=message):
            factory.make_experiment(c, data, tmp_path)
