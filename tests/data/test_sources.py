"""Reading prepared folders: every format, every way it can go wrong."""

import errno
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.tfds_records import write_records
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from jaxsparse import config
from jaxsparse.data import datasets, names, sources, tfds_folders, tfds_records
from jaxsparse.data.dataset import Examples

# CIFAR-like and MNIST-like; two shards, of different lengths, in the training set.
SHARDS = {"train": [17, 4], "test": [9]}
CLASSES = 5
FORMATS = ("parquet", "array_record", "tfrecord")


def serialize(image: np.ndarray, label: int, number: int) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
        encoded, "PNG"
    )
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["id"].bytes_list.value.append(f"example_{number}".encode())
    feature["image"].bytes_list.value.append(encoded.getvalue())
    feature["label"].int64_list.value.append(label)
    return example.SerializeToString()


def make_examples(total: int, channels: int, seed: int) -> Examples:
    generator = np.random.default_rng(seed)
    shape = (total, 6, 4, channels)
    images = generator.integers(0, 256, shape, dtype=np.uint8)
    labels = generator.integers(0, CLASSES, total, dtype=np.int32)
    return Examples(images, labels)


def write_dataset(
    root: Path,
    *,
    file_format: str = "parquet",
    name: str = "tiny",
    version: str = "1.0.0",
    channels: int = 3,
    seed: int = 0,
    splits: tuple[str, str] = ("train", "test"),
) -> dict[str, Examples]:
    """Writes a folder as TFDS would; returns what reading it must give."""
    folder = root / name / version
    folder.mkdir(parents=True)
    tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(6, 4, channels)),
            "label": tfds.features.ClassLabel(num_classes=CLASSES),
        }
    ).save_config(folder)
    written, described = {}, []
    for split, lengths in zip(splits, SHARDS.values(), strict=True):
        examples = make_examples(sum(lengths), channels, seed)
        records = [
            serialize(image, int(label), number)
            for number, (image, label) in enumerate(zip(*examples, strict=True))
        ]
        for shard, length in enumerate(lengths):
            file = f"{name}-{split}.{file_format}-{shard:05d}-of-{len(lengths):05d}"
            start = sum(lengths[:shard])
            write_records(folder / file, records[start : start + length], file_format)
        described.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(length) for length in lengths],
            }
        )
        written[split] = examples
    info = {
        "fileFormat": file_format,
        "name": name,
        "splits": described,
        "version": version,
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return written


def assert_same(got: Examples, wanted: Examples) -> None:
    np.testing.assert_array_equal(got.images, wanted.images)
    np.testing.assert_array_equal(got.labels, wanted.labels)
    assert got.images.dtype == np.uint8
    assert got.labels.dtype == np.int32


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_gives_back_exactly_what_was_written(
    tmp_path: Path, offline: None, file_format: str, channels: int
) -> None:
    written = write_dataset(tmp_path, file_format=file_format, channels=channels)
    train, test, classes = sources.read("tiny", data_dir=str(tmp_path))
    assert_same(train, written["train"])
    assert_same(test, written["test"])
    assert classes == CLASSES


@pytest.mark.parametrize("file_format", ["parquet", "array_record"])
def test_our_decoding_agrees_with_that_of_tfds(
    tmp_path: Path, file_format: str
) -> None:
    write_dataset(tmp_path, file_format=file_format)
    train, _, _ = sources.read("tiny", data_dir=str(tmp_path))
    builder = tfds.builder_from_directory(tmp_path / "tiny" / "1.0.0")
    theirs = list(builder.as_data_source("train"))
    np.testing.assert_array_equal(train.images, [one["image"] for one in theirs])
    np.testing.assert_array_equal(train.labels, [one["label"] for one in theirs])


def test_the_latest_version_is_read_unless_one_is_named(tmp_path: Path) -> None:
    old = write_dataset(tmp_path, version="9.0.0", seed=1)
    new = write_dataset(tmp_path, version="10.0.0", seed=2)
    (tmp_path / "tiny" / "11.0.0.incompleteABC").mkdir()
    (tmp_path / "tiny" / "11.0.0.incompleteABC" / "dataset_info.json").write_text("{}")
    (tmp_path / "tiny" / "12.0.0").mkdir()  # without a description
    assert_same(sources.read("tiny", data_dir=str(tmp_path))[0], new["train"])
    assert_same(sources.read("tiny:9.0.0", data_dir=str(tmp_path))[0], old["train"])
    with pytest.raises(tfds_folders.DatasetNotPrepared, match="8.0.0"):
        sources.read("tiny:8.0.0", data_dir=str(tmp_path))


def test_validation_stands_in_for_a_missing_test_split(tmp_path: Path) -> None:
    written = write_dataset(tmp_path, splits=("train", "validation"))
    _, test, _ = sources.read("tiny", data_dir=str(tmp_path))
    assert_same(test, written["validation"])


def test_other_splits_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, splits=("a", "b"))
    with pytest.raises(ValueError, match="expected the splits train"):
        sources.read("tiny", data_dir=str(tmp_path))


def test_the_folder_comes_from_the_argument_then_tfds_then_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "variable"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert names.root_folder("relative") == tmp_path / "relative"
    assert names.root_folder("~/here") == tmp_path / "home" / "here"
    assert names.root_folder(None) == tmp_path / "variable"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert names.root_folder(None) == tmp_path / "home" / "tensorflow_datasets"


def test_an_unprepared_dataset_names_every_way_out_at_once(
    tmp_path: Path, offline: None
) -> None:
    start = time.monotonic()
    with pytest.raises(tfds_folders.DatasetNotPrepared) as caught:
        datasets.load("cifar10", data_dir=str(tmp_path))
    assert time.monotonic() - start < 2
    message = str(caught.value)
    for part in (
        "'cifar10'",
        str(tmp_path),
        "--config.data.dir=FOLDER",
        "pip install -e '.[prepare]'",
        "python experiments/prepare_data.py --dataset=cifar10 --data_dir=",
        "--config=configs/lth_digits.py",
    ):
        assert part in message
    assert "did you mean" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("cifer10", "cifar10 or "),
        ("CIFAR10", "cifar10 or "),
        ("../mnist", "mnist?"),
        ("cifar:3.0.2", "cifar10 or "),
        ("digts", "digits?"),
        ("my_on", "my_own?"),
    ],
)
def test_a_misspelled_name_is_one_line_with_the_nearest_first(
    tmp_path: Path, offline: None, name: str, near: str
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(config.DATASETS.specs, "my_own", None)
        wanted = f"config.data.name: expected .*got {name!r}; did you mean {near}"
        with pytest.raises(tfds_folders.DatasetNotPrepared, match=f"^{wanted}.*$"):
            datasets.load(name, data_dir=str(tmp_path))
        with pytest.raises(ValueError, match=f"^{wanted}.*$"):
            names.check(name, data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["mnist", "cifar10:3.0.2", "digits", "qq", "cifar"])
def test_names_that_may_be_right_are_not_doubted(tmp_path: Path, name: str) -> None:
    (tmp_path / "cifar").mkdir()
    names.check(name, data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["", "a b"])
def test_a_name_like_no_other_is_told_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        tfds_folders.DatasetNotPrepared,
        match="expected the dataset .*got no such folder",
    ):
        datasets.load(name, data_dir=str(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "noise"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_damaged_file_is_named(tmp_path: Path, file_format: str, damage: str) -> None:
    write_dataset(tmp_path, file_format=file_format)
    (file,) = (tmp_path / "tiny" / "1.0.0").glob("tiny-test*")
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        noise = bytes(255 - byte for byte in content)
        damaged = {"cut": content[: len(content) // 2], "empty": b"", "noise": noise}
        file.write_bytes(damaged[damage])
    with pytest.raises(
        ValueError, match="tiny-test.*: expected .*got a damaged or missing"
    ):
        sources.read("tiny", data_dir=str(tmp_path))


def test_a_damaged_image_in_a_sound_frame_is_noticed(tmp_path: Path) -> None:
    write_dataset(tmp_path, file_format="tfrecord")
    (file,) = (tmp_path / "tiny" / "1.0.0").glob("tiny-test*")
    content = bytearray(file.read_bytes())
    pixels = content.index(b"IDAT") + 8
    content[pixels] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match="tiny-test.*: expected .*got a damaged or missing"
    ):
        sources.read("tiny", data_dir=str(tmp_path))


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_a_damaged_description_is_named(tmp_path: Path, file: str) -> None:
    write_dataset(tmp_path)
    (tmp_path / "tiny" / "1.0.0" / file).write_text("{broken")
    with pytest.raises(ValueError, match="got a description that cannot be read"):
        sources.read("tiny", data_dir=str(tmp_path))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_description_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, nested: bool
) -> None:
    """TFDS imports the module of any class that a description names."""
    write_dataset(tmp_path)
    (tmp_path / "evil_features.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    evil = {"pythonClassName": "evil_features.Image", "jsonFeature": {"json": "{}"}}
    if legacy:
        evil = {"type": "evil_features.Image", "content": {}}
    if nested and legacy:
        evil = {"type": "tensorflow_datasets.Text", "content": json.dumps(evil)}
    elif nested:
        kind = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
        inner = {"image": evil}
        evil = {"pythonClassName": kind, "featuresDict": {"features": inner}}
    path = tmp_path / "tiny" / "1.0.0" / "features.json"
    path.write_text(json.dumps(evil))
    with pytest.raises(ValueError, match="expected only classes of TFDS itself"):
        sources.read("tiny", data_dir=str(tmp_path))
    assert "evil_features" not in sys.modules


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (
            ["900000000000"],
            "900000000000 examples of shape .*more than fit into memory",
        ),
        (["9000000000000000000"], "examples in train .*got 9000000000000000000"),
        (["-5", "26"], r"in files of \[-5, 26\]"),
        (["0"], "examples in train .*got 0"),
        ([], "examples in train .*got 0"),
    ],
)
def test_counts_that_cannot_be_are_one_error(
    tmp_path: Path, lengths: list[str], words: str
) -> None:
    write_dataset(tmp_path)
    path = tmp_path / "tiny" / "1.0.0" / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"][0]["shardLengths"] = lengths
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=words):
        sources.read("tiny", data_dir=str(tmp_path))


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_error_of_the_machine_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    write_dataset(tmp_path, file_format=file_format)

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setitem(tfds_records.RECORDS, file_format, fail)
    with pytest.raises(OSError, match="Too many open files"):
        sources.read("tiny", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "features",
    [
        {"image": tfds.features.Image(shape=(None, None, 3))},
        {"image": tfds.features.Image(shape=(6, 4, 3))},
        {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=2),
        },
    ],
)
def test_what_is_no_image_classification_is_refused(
    tmp_path: Path, features: dict[str, tfds.features.FeatureConnector]
) -> None:
    write_dataset(tmp_path)
    folder = tmp_path / "tiny" / "1.0.0"
    tfds.features.FeaturesDict(features).save_config(folder)
    with pytest.raises(ValueError, match="expected the features `image`"):
        sources.read("tiny", data_dir=str(tmp_path))


def test_tensorflow_is_never_imported(root: Path, tmp_path: Path) -> None:
    """One process reads all formats."""
    for file_format in FORMATS:
        write_dataset(tmp_path / file_format, file_format=file_format)
    # TFDS asks whether TensorFlow is there, so it is; importing it ends the program.
    fake = tmp_path / "installed" / "tensorflow"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise SystemExit('TensorFlow was imported')")
    program = (
        "import pathlib, sys\n"
        "from jaxsparse.data import datasets\n"
        f"for file_format in {list(FORMATS)!r}:\n"
        f"    folder = pathlib.Path({str(tmp_path)!r}) / file_format\n"
        "    data = datasets.load('tiny', data_dir=str(folder))\n"
        "    print(data.train.images.shape, 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{fake.parent}{os.pathsep}{root}"},
        timeout=60,
    )
    assert done.stdout == "(21, 6, 4, 3) False\n" * len(FORMATS), done.stderr


@pytest.mark.skipif(
    "JAXSPARSE_DATA_DIR" not in os.environ, reason="set JAXSPARSE_DATA_DIR to real data"
)
@pytest.mark.parametrize(("name", "total"), [("mnist", 60_000), ("cifar10", 50_000)])
def test_real_data_has_its_published_size_and_statistics(name: str, total: int) -> None:
    data = datasets.load(name, data_dir=os.environ["JAXSPARSE_DATA_DIR"])
    assert len(data.train.labels) == total
    assert len(data.test.labels) == 10_000
    assert set(data.train.labels) == set(range(10))
    mean, std = datasets.channel_statistics(data.train.images)
    np.testing.assert_allclose(mean, data.mean, atol=5e-4)
    # Wide enough for copies of CIFAR-10 that were stored as JPEG.
    np.testing.assert_allclose(std, data.std, atol=3e-3)
