"""Single records of TFDS's files, without TensorFlow, and every refusal."""

import errno
import io
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.images import picture
from helpers.tfds_records import write_records
from tensorflow_datasets.proto import tf_example_pb2

from jaxsparse.data import (
    dataset,
    datasets,
    image_files,
    image_sources,
    labels,
    record_files,
    tfds_folders,
)

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
    monkeypatch.setattr(labels, "cache_folder", lambda: folder)
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
            alone = image_sources.Files(("alone",))
            monkeypatch.setattr(
                image_sources.Files, "read", lambda *_, e=encoded: e.getvalue()
            )
            shown = image_files.view(image_files.decode(alone, 0), SIZE)
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
    plain = record_files.Records.labels
    monkeypatch.setattr(
        record_files.Records,
        "labels",
        lambda self, shard: asked.append(shard) or plain(self, shard),
    )
    np.testing.assert_array_equal(load(tmp_path).train.labels, first.train.labels)
    assert asked == []
    # Of other files they are read anew, and where they cannot be kept every time.
    for path in folder.glob("*train*"):
        path.touch()
    for nowhere in (Path("/dev/null/none"), None):
        monkeypatch.setattr(labels, "cache_folder", lambda n=nowhere: n)
        np.testing.assert_array_equal(load(tmp_path).train.labels, first.train.labels)
        assert sorted(asked) == [0, 0, 1]
        asked.clear()


@pytest.mark.parametrize("harm", ["empty", "cut", "short", "wide", "pickled"])
def test_labels_that_were_not_kept_whole_are_read_again(
    harm: str, tmp_path: Path, cache: Path
) -> None:
    write(tmp_path, "array_record")
    wanted = load(tmp_path).train.labels
    for path in cache.iterdir():
        if harm in ("empty", "cut"):
            path.write_bytes(path.read_bytes()[: 0 if harm == "empty" else -5])
        else:
            kind = {"wide": np.int64, "pickled": object}.get(harm, np.int32)
            np.save(path, np.zeros(3 if harm == "short" else 8, kind))
    np.testing.assert_array_equal(load(tmp_path).train.labels, wanted)
    for path in cache.iterdir():
        assert np.load(path).dtype == np.int32
    assert len(list(cache.iterdir())) == 2


def test_labels_that_cannot_be_written_leave_nothing_behind(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path, "array_record")
    monkeypatch.setattr(np, "save", full)
    assert len(load(tmp_path).train.labels) == 8
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_no_more_files_are_open_than_there_is_room_for(
    file_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, file_format)
    wanted, opened = load(tmp_path).train.images[:], []
    monkeypatch.setattr(record_files, "max_open_files", lambda files: 1)
    open_shard = record_files.SHARDS[file_format]

    def counted(path: str) -> Any:
        opened.append(path)
        return open_shard(path)

    monkeypatch.setitem(record_files.SHARDS, file_format, counted)
    images = load(tmp_path).train.images
    opened.clear()
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(8), 5))
    np.testing.assert_array_equal(images[rows], wanted[rows])
    if file_format == "array_record":  # room for one of two files
        assert len(opened) > 2
    else:  # what keeps no file open is found out once
        assert len(opened) <= 2


def test_a_file_is_opened_once_while_others_are_used(tmp_path: Path) -> None:
    class Slow:
        opened: ClassVar[list[str]] = []

        def __init__(self, path: str) -> None:
            self.opened.append(path)
            if path == "slow":
                assert going_on.wait(20)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, number: int) -> bytes:
            return record(0)

        def __iter__(self) -> Any:
            return iter([record(0)])

    going_on = threading.Event()
    records = record_files.Records(
        ["slow", "fast"], [1, 1], again="", open_shard=Slow, stays_open=True
    )
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(records.label, 0) for _ in range(2)]
        assert records.label(1) == 0
        going_on.set()
        assert [each.result() for each in waiting] == [0, 0]
    assert sorted(Slow.opened) == ["fast", "slow"]


def test_room_is_made_for_more_files(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    limits = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))
    assert record_files.max_open_files(1000) == 1000
    assert limits["now"] == (2024, 4096)
    assert record_files.max_open_files(5000) == 4096 - 2024 + 2024 // 4
    assert limits["now"] == (4096, 4096)
    assert record_files.max_open_files(5000) == 1024
    limits["now"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert record_files.max_open_files(5000) == 5000


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_what_the_system_refuses_is_not_called_damage(
    number: int, file_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, file_format)

    def refuse(path: str, *_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(record_files, "open", refuse, raising=False)
    with pytest.raises(OSError, match=str(folder)) as caught:
        load(tmp_path)
    assert caught.value.errno == number


def test_damage_is_said_once(tmp_path: Path) -> None:
    folder = write(tmp_path, "array_record")
    data = load(tmp_path)
    (path,) = folder.glob("*train*-00001-of*")
    images = load(tmp_path).train.images  # labels were kept, and no file is open
    path.unlink()
    assert data.train.images[5:6].shape == (1, SIZE, SIZE, 3)
    with pytest.raises(image_sources.CorruptImage, match=path.name) as caught:
        images[5:6]
    assert str(caught.value).count("damaged or missing") == 1


def test_files_are_named_with_their_lengths(tmp_path: Path) -> None:
    digests = []
    for folder in ("here", "there"):
        write(tmp_path / folder, "array_record")
        data = load(tmp_path / folder)
        digests.append(dataset.digest(data))
    assert digests[0] == digests[1] != dataset.digest(data._replace(classes=6))
    names = [f"imagenet2012-train.array_record-0000{i}-of-00002" for i in (0, 1)]
    lengths = [f"{name} {n}" for name, n in zip(names, (5, 3), strict=True)]
    assert list(data.train.images.source.parts()) == lengths


def test_files_that_give_no_single_record_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "parquet")
    with pytest.raises(
        ValueError, match=r"^size: expected 0 .*parquet.*got 12.*--format=array_record"
    ):
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
    with pytest.raises(ValueError, match=f"{path.name}.*(damaged|missing|got none)"):
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
    with pytest.raises(
        ValueError, match=f"{path.name}, record 1: expected .*got a damaged"
    ):
        data.train.images[6:7]


def test_labels_of_no_class_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "tfrecord", classes=4)
    with pytest.raises(ValueError, match="expected labels from 0 to 3"):
        load(tmp_path)


def test_what_is_not_prepared_is_said_to_need_files_had_by_hand(
    tmp_path: Path,
) -> None:
    with pytest.raises(tfds_folders.DatasetNotPrepared) as caught:
        load(tmp_path)
    said = str(caught.value)
    for words in ("img_train.tar and", f"{tmp_path}/downloads/manual", "--manual_dir"):
        assert words in said
    with pytest.raises(tfds_folders.DatasetNotPrepared) as caught:
        datasets.load("cifar10", data_dir=str(tmp_path))
    assert "manual" not in str(caught.value)


def test_images_of_all_sizes_do_not_fit_one_array(tmp_path: Path) -> None:
    write(tmp_path, "array_record")
    with pytest.raises(ValueError, match=r"one fixed size.*config.data.image_size"):
        datasets.load("imagenet2012", data_dir=str(tmp_path))
