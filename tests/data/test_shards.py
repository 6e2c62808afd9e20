"""Single records of TFDS's files, without TensorFlow, and every refusal."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from pictures import picture
from records_of_tfds import write_records
from tensorflow_datasets.proto import tf_example_pb2

from jaxsparse.data import datasets, shards, stored

SHARDS = {"train": [5, 3], "validation": [4]}
SIZE = 12


def record(number: int, label: int | None = None) -> bytes:
    """As TFDS writes imagenet2012; labels are 0 to 4, unless one is given."""
    encoded = io.BytesIO()
    picture(number, 20 + number, 30).save(encoded, "JPEG")
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["file_name"].bytes_list.value.append(f"{number}.JPEG".encode())
    feature["image"].bytes_list.value.append(encoded.getvalue())
    feature["label"].int64_list.value.append(number % 5 if label is None else label)
    return example.SerializeToString()


def write(
    root: Path, file_format: str, *, classes: int = 5, test: int | None = None
) -> Path:
    """Writes a folder of TFDS; `test` is the label of all examples of a test split."""
    folder = root / "imagenet2012" / "5.1.0"
    folder.mkdir(parents=True)
    tfds.features.FeaturesDict(
        {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=classes),
        }
    ).save_config(folder)
    described, number = [], 0
    splits = SHARDS if test is None else {"test": [3]} | SHARDS
    for split, lengths in splits.items():
        label = test if split == "test" else None
        for shard, length in enumerate(lengths):
            file = f"imagenet2012-{split}.{file_format}-{shard:05d}-of-"
            path = folder / f"{file}{len(lengths):05d}"
            numbers = range(number, number + length)
            write_records(path, [record(i, label) for i in numbers], file_format)
            number += length
        described.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(length) for length in lengths],
            }
        )
    info = {
        "fileFormat": file_format,
        "name": "imagenet2012",
        "splits": described,
        "version": "5.1.0",
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(shards, "CACHE", folder)
    return folder


def load(root: Path, **options: Any) -> Any:
    return datasets.load("imagenet2012", data_dir=str(root), size=SIZE, **options)


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_records_are_read_when_they_are_asked_for(
    file_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, file_format)
    data = load(tmp_path)
    assert data.classes == 5
    assert data.mean == (0.485, 0.456, 0.406)
    numbers = {"train": range(8), "test": range(8, 12)}
    for split, wanted in numbers.items():
        part = getattr(data, split)
        assert part.labels.tolist() == [i % 5 for i in wanted]
        seen = part.images[:]
        for i, number in enumerate(wanted):
            encoded = io.BytesIO()
            picture(number, 20 + number, 30).save(encoded, "JPEG")
            alone = stored.Files(())
            monkeypatch.setattr(
                stored.Files, "read", lambda *_, e=encoded: e.getvalue()
            )
            shown = stored.view(stored.decode(alone, 0), SIZE)
            np.testing.assert_array_equal(seen[i], np.asarray(shown))
    again = data.train.images[np.array([6, 0, 6])]
    np.testing.assert_array_equal(again, data.train.images[:][[6, 0, 6]])


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_test_split_without_labels_is_not_tested_on(
    file_format: str, tmp_path: Path
) -> None:
    write(tmp_path / "none", file_format, test=-1)
    assert load(tmp_path / "none").test.labels.tolist() == [
        i % 5 for i in range(11, 15)
    ]
    write(tmp_path / "some", file_format, test=2)
    assert load(tmp_path / "some").test.labels.tolist() == [2, 2, 2]


def test_labels_are_read_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, "array_record")
    first = load(tmp_path)
    assert len(list(cache.iterdir())) == 2
    asked: list[int] = []
    plain = shards.Records.label
    monkeypatch.setattr(
        shards.Records, "label", lambda self, row: asked.append(row) or plain(self, row)
    )
    np.testing.assert_array_equal(load(tmp_path).train.labels, first.train.labels)
    assert asked == []
    # Of other files they are read anew, and where they cannot be kept every time.
    for path in folder.glob("*train*"):
        path.touch()
    monkeypatch.setattr(shards, "CACHE", Path("/dev/null/none"))
    np.testing.assert_array_equal(load(tmp_path).train.labels, first.train.labels)
    assert sorted(asked) == sorted([*range(8), *range(4)])


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_few_files_are_open_at_once(
    file_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, file_format)
    wanted = load(tmp_path).train.images[:]
    monkeypatch.setattr(shards, "MOST_OPEN", 1)
    images = load(tmp_path).train.images
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(8), 5))
    np.testing.assert_array_equal(images[rows], wanted[rows])
    assert len(images.source._shards) == 1


def test_files_that_give_no_single_record_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "parquet")
    with pytest.raises(ValueError, match=r"data.size.*parquet.*--format=array_record"):
        load(tmp_path)


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize("harm", ["cut", "missing", "fewer"])
def test_damaged_files_are_named(file_format: str, harm: str, tmp_path: Path) -> None:
    folder = write(tmp_path, file_format)
    (path,) = folder.glob("*train*-00001-of*")
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif harm == "missing":
        path.unlink()
    else:
        path.unlink()
        write_records(path, [record(1)], file_format)
    with pytest.raises(ValueError, match=f"{path.name}.*(damaged|missing)"):
        load(tmp_path)


def test_a_record_that_is_no_image_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "array_record")
    (path,) = folder.glob("*train*-00001-of*")
    broken = tf_example_pb2.Example.FromString(record(3))
    broken.features.feature["image"].bytes_list.value[0] = b"no image"
    path.unlink()
    records = [record(1), broken.SerializeToString(), record(2)]
    write_records(path, records, "array_record")
    data = load(tmp_path)
    data.train.images[:6]
    with pytest.raises(ValueError, match=f"{path.name}, record 1: is damaged"):
        data.train.images[6:7]


def test_labels_of_no_class_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "tfrecord", classes=4)
    with pytest.raises(ValueError, match="a label outside 0 to 3"):
        load(tmp_path)


def test_images_of_all_sizes_do_not_fit_one_array(tmp_path: Path) -> None:
    write(tmp_path, "array_record")
    with pytest.raises(ValueError, match=r"one fixed size.*config.data.size"):
        datasets.load("imagenet2012", data_dir=str(tmp_path))
