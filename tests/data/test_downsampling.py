"""Images averaged over windows of pixels: the pixels, and who sees them."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny
from helpers.images import write_tree
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import factory
from jaxsparse.data import dataset, datasets, downsampling, fingerprint
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.data.image_files import StoredImages
from jaxsparse.factory import models


def test_windows_are_averaged_and_halves_rounded_to_even() -> None:
    pixels = [
        [0, 1, 10, 20],
        [0, 1, 30, 40],  # 2 / 4, and 100 / 4
        [1, 2, 255, 255],
        [1, 2, 254, 255],  # 6 / 4, and 1019 / 4
    ]
    images = np.array(pixels, np.uint8).reshape(1, 4, 4, 1)
    got = downsampling.average(images, 2)
    assert got.dtype == np.uint8
    assert got[0, :, :, 0].tolist() == [[0, 25], [2, 255]]
    assert downsampling.average(images, 4).item() == 70  # 1127 / 16 is 70.4


@pytest.mark.parametrize("shape", [(3, 6, 12, 1), (2, 12, 6, 3), (6, 6, 2)])
@pytest.mark.parametrize("factor", [1, 2, 3, 6])
def test_means_are_exact(shape: tuple[int, ...], factor: int) -> None:
    """Compared with fractions; Python's `round` takes the even of two."""
    images = np.random.default_rng(factor).integers(0, 256, shape, np.uint8)
    got = downsampling.average(images, factor)
    *first, height, width, channels = shape
    assert got.shape == (*first, height // factor, width // factor, channels)
    for *where, row, column, channel in np.ndindex(got.shape):
        rows = slice(row * factor, (row + 1) * factor)
        columns = slice(column * factor, (column + 1) * factor)
        window = images[(*where, rows, columns, channel)]
        mean = Fraction(int(window.sum(dtype=int)), factor**2)
        assert got[(*where, row, column, channel)] == round(mean)


def test_the_largest_windows_do_not_overflow() -> None:
    images = np.broadcast_to(np.uint8(255), (4096, 4096, 1))
    assert downsampling.average(images, 4096).item() == 255


@pytest.mark.parametrize("factor", [0, 3, 8])
def test_windows_that_do_not_divide_the_images_are_refused(factor: int) -> None:
    words = f"downsample: .* 8 by 12 pixels, got {factor}; choose one of "
    with pytest.raises(ValueError, match=words + r"\[1, 2, 4\]"):
        downsampling.average(np.zeros((1, 8, 12, 3), np.uint8), factor)


def test_blocks_of_examples_are_averaged_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dataset, "BLOCK", 2)
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
    examples = Examples(images, np.arange(5, dtype=np.int32))
    got = dataset.downsample(examples, 2)
    np.testing.assert_array_equal(got.images, downsampling.average(images, 2))
    assert got.labels is examples.labels
    assert dataset.downsample(examples, 1) is examples


def of_digits(fields: dict[str, Any]) -> tuple[ConfigDict, Dataset]:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    return c, factory.load_data(c)


def test_a_run_sees_the_averaged_images_only() -> None:
    _, small = of_digits({"data.downsample": 2})
    _, large = of_digits({})
    for part in ("train", "validation", "test"):
        mine, full = getattr(small, part), getattr(large, part)
        np.testing.assert_array_equal(mine.labels, full.labels)
        np.testing.assert_array_equal(mine.images, downsampling.average(full.images, 2))
    # Those of all training examples, before the set is shortened.
    _, every = of_digits({"data.downsample": 2, "data.train_examples": 0})
    wanted = datasets.channel_statistics(every.train.images)
    assert (small.mean, small.std) == wanted != (large.mean, large.std)
    # Scores of one set of images are not taken for those of the other.
    assert fingerprint.of_images(small.train.images) != fingerprint.of_images(
        large.train.images
    )
    assert fingerprint.sizes(fingerprint.of(small)).image == (4, 4, 1)


def test_published_statistics_are_those_of_images_of_full_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(datasets.PUBLISHED, "digits", ((0.5,), (0.25,)))
    for factor, known in ((1, True), (2, False)):
        _, found = of_digits({"data.downsample": factor})
        assert ((found.mean, found.std) == ((0.5,), (0.25,))) == known


def test_images_in_files_are_averaged_when_they_are_decoded(tmp_path: Path) -> None:
    write_tree(tmp_path)
    fields = {"data.name": "imagenet", "data.dir": str(tmp_path)}
    fields |= {"data.image_size": 8, "data.validation": 8}
    fields |= {"data.train_examples": 0, "data.test_examples": 0}
    _, large = of_digits(fields)
    _, small = of_digits(fields | {"data.downsample": 2})
    images, full = small.train.images, large.train.images
    assert isinstance(images, StoredImages)
    assert images.shape == (16, 4, 4, 3)
    assert images.nbytes == full.nbytes // 4
    np.testing.assert_array_equal(images[:], downsampling.average(full[:], 2))
    drawn = {"words": np.array([[1, 2], [3, 4]], np.uint32), "epoch": 1}
    drawn |= {"places": np.array([5, 6])}
    rows = np.array([3, 0])
    np.testing.assert_array_equal(
        images.crops(rows, **drawn),
        downsampling.average(full.crops(rows, **drawn), 2),
    )
    assert (small.mean, small.std) == datasets.channel_statistics(images[:])
    # Other images of the same files and the same size.
    _, direct = of_digits(fields | {"data.image_size": 4})
    assert direct.train.images.shape == images.shape
    assert fingerprint.differences(fingerprint.of(direct), fingerprint.of(small))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data.downsample": 3},
            r"config.data.downsample: .*8 by 8 pixels, got 3; choose .*\[1, 2, 4, 8\]",
        ),
        (
            {"data.downsample": 3, "data.image_size": 32},
            "config.data.downsample: expected a divisor of data.image_size 32, got 3",
        ),
        (
            {"data.downsample": 2, "data.augment": "standard"},
            "config.data.augment: expected 'custom' with data.downsample 2, .*'stand",
        ),
        ({"data.downsample": 0}, "config.data.downsample: expected an integer from 1"),
    ],
)
def test_windows_that_do_not_fit_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        of_digits(fields)


def test_patches_are_of_the_averaged_image() -> None:
    c = tiny.config({"model.name": "vit_s_16", "data.image_size": 32})
    models.check(c)
    c.data.downsample = 4
    with pytest.raises(ValueError, match="multiple of 16, .* patches .* got 8; choose"):
        models.check(c)


def test_a_run_of_an_older_version_had_images_of_full_size() -> None:
    old = json.loads(tiny.config().to_json())
    del old["data"]["downsample"]
    assert config_lib.from_json(old).data.downsample == 1
    assert config_lib.digest(old) == config_lib.digest(tiny.config())
    changed = tiny.config({"data.downsample": 2})
    assert list(config_lib.differences(old, changed)) == [("data.downsample", 1, 2)]
