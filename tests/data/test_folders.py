"""Folders of images: exact pixels, labels and order, and every refusal by its words."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow_datasets.core import file_adapters
from tensorflow_datasets.proto import tf_example_pb2

from jaxsparse.data import datasets, folders, tfds_folders

HEIGHT, WIDTH = 4, 6


def pixels(seed: int, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)


def save(path: Path, image: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(path)
    return image


def mixed(images: list[np.ndarray], labels: list[int]) -> tuple[list, list]:
    """Puts what folders give into the order in which it is trained on."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(labels))
    return [images[i] for i in order], [labels[i] for i in order]


def write(
    root: Path,
    *,
    name: str = "mine",
    splits: tuple[str, ...] = ("train", "test"),
    classes: tuple[str, ...] = ("ant", "Bee", "cat"),
    channels: int = 3,
) -> dict[str, tuple[list[np.ndarray], list[int]]]:
    """Writes a tree; returns the images and labels that reading each split gives."""
    wanted = {}
    for s, split in enumerate(splits):
        images, labels = [], []
        # Capitals before small letters, and 10 before 9: by code point.
        for label, kind in enumerate(sorted(classes)):
            for file in ("10.png", "9.png", f"b{s}.PNG")[: 3 - label % 2]:
                image = pixels(len(labels) + 100 * s, channels)
                images.append(save(root / name / split / kind / file, image))
                labels.append(label)
        wanted[split] = (images, labels)
    return wanted


def check(got: object, images: list[np.ndarray], labels: list[int]) -> None:
    np.testing.assert_array_equal(got.images, np.stack(images))
    np.testing.assert_array_equal(got.labels, labels)
    assert got.images.dtype == np.uint8
    assert got.labels.dtype == np.int32
    assert got.images.flags.c_contiguous


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_labels_and_order_are_exact(tmp_path: Path, channels: int) -> None:
    wanted = write(tmp_path, channels=channels)
    train, test, classes = folders.read("mine", data_dir=str(tmp_path))
    check(train, *wanted["train"])
    check(test, *wanted["test"])
    assert classes == 3
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]  # Bee, ant, cat


@settings(max_examples=15, deadline=None)
@given(
    st.dictionaries(
        st.text("aBz09-_ é.", min_size=1, max_size=5).filter(
            lambda name: name[0] != "." and name.strip(". ") == name
        ),
        st.sets(st.text("aZ09é_", min_size=1, max_size=4), min_size=1, max_size=3),
        min_size=1,
        max_size=4,
    ).filter(lambda tree: len({name.casefold() for name in tree}) == len(tree))
)
def test_any_names_come_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, set[str]]
) -> None:
    root, wanted = tmp_path_factory.mktemp("tree"), []
    for label, kind in enumerate(sorted(tree)):
        for stem in sorted(f"{stem}.png" for stem in tree[kind]):
            image = pixels(len(wanted))
            for split in ("train", "test"):
                save(root / "mine" / split / kind / stem, image)
            wanted.append((image, label))
    train, test, classes = folders.read("mine", data_dir=str(root))
    for got in (train, test):
        check(got, *map(list, zip(*wanted, strict=True)))
    assert classes == len(tree)


def test_validation_is_read_if_asked_for_and_stands_in_for_a_test_split(
    tmp_path: Path,
) -> None:
    wanted = write(tmp_path, splits=("train", "valid", "test"))
    root = str(tmp_path)
    train, test, _ = folders.read("mine", data_dir=root)
    check(train, *wanted["train"])
    check(test, *wanted["test"])
    train, test, _ = folders.read("mine", data_dir=root, with_validation=True)
    parts = zip(wanted["train"], wanted["valid"], strict=True)
    check(train, *(first + second for first, second in parts))
    check(test, *wanted["test"])
    wanted = write(tmp_path, name="other", splits=("train", "val"))
    train, test, _ = folders.read("other", data_dir=root)
    check(train, *wanted["train"])
    check(test, *wanted["val"])


@pytest.mark.parametrize("valid", ["valid", "validation"])
def test_cinic10_trains_on_two_thirds_with_the_published_statistics(
    tmp_path: Path, valid: str
) -> None:
    wanted = write(tmp_path, name="cinic10", splits=("train", valid, "test"))
    for file in ("README.md", "synsets-to-cifar-10-classes.txt"):
        (tmp_path / "cinic10" / file).write_text("of the archive")
    data = datasets.load("cinic10", data_dir=str(tmp_path))
    parts = zip(wanted["train"], wanted[valid], strict=True)
    check(data.train, *mixed(*(first + second for first, second in parts)))
    check(data.test, *mixed(*wanted["test"]))
    assert data.mean == (0.4789, 0.4723, 0.4305)
    assert data.std == (0.2421, 0.2383, 0.2587)
    assert data.classes == 3


def test_the_first_so_many_are_a_sample(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for i in range(40):
            save(tmp_path / "mine" / split / "ab"[i // 20] / f"{i}.png", pixels(i))
    data = datasets.load("mine", data_dir=str(tmp_path), examples=(None, 10))
    # Golden: a change here changes the rows that every recorded score is of.
    assert data.test.labels.tolist() == [0, 1, 0, 1, 1, 0, 0, 1, 0, 0]
    np.testing.assert_array_equal(np.bincount(data.train.labels), [20, 20])
    for image, label in zip(*data.train, strict=True):
        (which,) = [i for i in range(40) if np.array_equal(image, pixels(i))]
        assert label == which // 20


def test_one_image_with_colors_makes_all_of_three_channels(tmp_path: Path) -> None:
    wanted = write(tmp_path, channels=1)
    colored = save(tmp_path / "mine" / "test" / "cat" / "9.png", pixels(5))
    train, test, _ = folders.read("mine", data_dir=str(tmp_path))
    check(train, [np.repeat(a, 3, axis=2) for a in wanted["train"][0]], train.labels)
    images = [np.repeat(a, 3, axis=2) for a in wanted["test"][0]]
    images[wanted["test"][1].index(2) + 1] = colored
    check(test, images, test.labels)


def test_every_way_to_store_pixels_exactly_is_read(tmp_path: Path) -> None:
    write(tmp_path, classes=("ant",))
    train = tmp_path / "mine" / "train" / "ant"
    gray = pixels(1, 1)
    bits = Image.fromarray(gray[..., 0]).convert("1")
    bits.save(train / "c1.png")
    palette = np.array([[9, 8, 7], [250, 0, 3]], np.uint8)
    indices = pixels(2, 1)[..., 0] % 2
    indexed = Image.fromarray(indices)
    indexed.putpalette(palette.tobytes())
    indexed.save(train / "c2.png")
    Image.fromarray(np.full((HEIGHT, WIDTH), 77, np.uint8)).save(train / "c3.jpeg")
    Image.fromarray(pixels(3)).save(train / "c4.jpg", format="PNG")  # by its content
    images = folders.read("mine", data_dir=str(tmp_path))[0].images[-4:]
    on_or_off = np.where(np.asarray(bits), np.uint8(255), np.uint8(0))
    np.testing.assert_array_equal(images[0], np.stack([on_or_off] * 3, axis=-1))
    np.testing.assert_array_equal(images[1], palette[indices])
    assert (images[2] == 77).all()
    np.testing.assert_array_equal(images[3], pixels(3))


def test_hidden_files_are_passed_over_and_links_followed(tmp_path: Path) -> None:
    wanted = write(tmp_path)
    folder = tmp_path / "mine"
    (folder / ".git").mkdir()
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "ant" / "._9.png").write_bytes(b"no image")
    (folder / "test" / ".DS_Store").write_bytes(b"no image")
    target = (folder / "train" / "ant" / "9.png").rename(tmp_path / "elsewhere")
    (folder / "train" / "ant" / "9.png").symlink_to(target)
    (folder / "test").rename(tmp_path / "tests")
    (folder / "test").symlink_to(tmp_path / "tests")
    train, test, _ = folders.read("mine", data_dir=str(tmp_path))
    check(train, *wanted["train"])
    check(test, *wanted["test"])


def write_tfds(root: Path, name: str, tree: Path, classes: list[str]) -> None:
    """Prepares the very files of a tree as TFDS would."""
    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(HEIGHT, WIDTH, 3)),
            "label": tfds.features.ClassLabel(names=classes),
        }
    ).save_config(folder)
    described = []
    for split in ("train", "test"):
        records = []
        for label, kind in enumerate(classes):
            for file in sorted((tree / split / kind).iterdir()):
                example = tf_example_pb2.Example()
                feature = example.features.feature
                feature["image"].bytes_list.value.append(file.read_bytes())
                feature["label"].int64_list.value.append(label)
                records.append(example.SerializeToString())
        adapter = file_adapters.ADAPTER_FOR_FORMAT[
            file_adapters.FileFormat("array_record")
        ]
        file = folder / f"{name}-{split}.array_record-00000-of-00001"
        adapter.write_examples(file, enumerate(records))
        described.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(len(records))],
            }
        )
    info = {"fileFormat": "array_record", "name": name, "version": "1.0.0"}
    (folder / "dataset_info.json").write_text(json.dumps(info | {"splits": described}))


def test_what_tfds_prepared_is_equal_and_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = write(tmp_path, name="cifar100")
    root = str(tmp_path)
    tree = datasets.load("cifar100", data_dir=root)
    check(tree.train, *mixed(*wanted["train"]))
    check(tree.test, *mixed(*wanted["test"]))
    write_tfds(tmp_path, "cifar100", tmp_path / "cifar100", ["Bee", "ant", "cat"])
    read_folders = folders.read
    monkeypatch.setattr(folders, "read", None)  # would fail if it were called
    prepared = datasets.load("cifar100", data_dir=root)
    unmixed = read_folders("cifar100", data_dir=root)
    check(prepared.train, list(unmixed[0].images), unmixed[0].labels)
    check(prepared.test, list(unmixed[1].images), unmixed[1].labels)
    assert tree[3:] == prepared[3:]
    assert prepared.mean == (0.5071, 0.4865, 0.4409)


def test_statistics_are_published_ones_only_of_as_many_channels(tmp_path: Path) -> None:
    write(tmp_path, name="mnist", channels=3)
    data = datasets.load("mnist", data_dir=str(tmp_path))
    assert (data.mean, data.std) == datasets.channel_statistics(data.train.images)


def stored(image: np.ndarray | Image.Image, kind: str = "PNG", **how: int) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


SOUND = Image.fromarray(pixels(0))
CONTENT = stored(SOUND)
# What one image is replaced by.
CONTENTS = {
    "cut": CONTENT[: len(CONTENT) // 2],
    "empty": b"",
    "noise": bytes(255 - byte for byte in CONTENT),
    "chunk": CONTENT.replace(b"IDAT", b"IDAS"),
    "gif": stored(SOUND, "GIF"),
    "cmyk": stored(SOUND.convert("CMYK"), "JPEG"),
    "clear palette": stored(SOUND.quantize(4), transparency=0),
    "deep": stored(np.full((HEIGHT, WIDTH), 999, np.uint16)),
    "alpha": stored(pixels(0, 4)),
    "size": stored(pixels(0)[:3]),
}


def replace_by_link(folder: Path) -> None:
    (folder / "train" / "ant" / "9.png").unlink()
    (folder / "train" / "ant" / "9.png").symlink_to(folder / "nowhere.png")


def replace_by_folder(folder: Path) -> None:
    (folder / "train" / "ant" / "9.png").unlink()
    (folder / "train" / "ant" / "9.png").mkdir()


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(folder.parent.parent / f"away_{path.name}")


# What is done to the folder of a tree of train and test.
DEEDS = {
    "broken link": replace_by_link,
    "folder": replace_by_folder,
    "text": lambda at: (at / "train" / "ant" / "notes.txt").write_text("ant"),
    "beside": lambda at: (at / "train" / "1.png").write_bytes(CONTENT),
    "beside test": lambda at: (at / "test" / "1.png").write_bytes(CONTENT),
    "less": lambda at: (at / "test" / "cat").rename(at / "cat"),
    "no images": lambda at: empty(at / "test" / "cat"),
    "no classes": lambda at: empty(at / "train"),
    "twice": lambda at: [(at / split).mkdir() for split in ("valid", "val")],
}
IMAGE = "train/ant/9.png: "
REFUSALS = {
    **dict.fromkeys(
        ("cut", "empty", "noise", "chunk", "gif", "broken link", "folder"),
        IMAGE + "expected a PNG or JPEG image, got a damaged or missing file .*unpack",
    ),
    "cmyk": IMAGE + "expected 8 bits .* 1 channel .*mode CMYK;",
    "clear palette": IMAGE + "expected 8 bits .*mode P with transparency;",
    "deep": IMAGE + "expected 8 bits .*mode I;16;",
    "alpha": IMAGE + "expected 8 bits .*mode RGBA;",
    "size": IMAGE + "expected 4 by 6 pixels, .*first image, got 3 by 6",
    "text": "train/ant/notes.txt: expected only images, .png, .jpg, .jpeg",
    "beside": "train/1.png: expected only folders, one per class, got a file",
    "beside test": r"test: expected the 3 classes of train, got 4, .*\['1.png'\]",
    "less": r"test: expected the 3 classes of train, got 2, .*\['cat'\]",
    "no images": "test/cat: expected images of the class, got none",
    "no classes": "train: expected a folder of images for each class, got an empty",
    "twice": "mine: expected one of .*got valid and val; move one of them",
}


@pytest.mark.parametrize("how", REFUSALS)
def test_what_is_wrong_is_named(tmp_path: Path, how: str) -> None:
    write(tmp_path)
    if how in CONTENTS:
        (tmp_path / "mine" / "train" / "ant" / "9.png").write_bytes(CONTENTS[how])
    else:
        DEEDS[how](tmp_path / "mine")
    place = re.escape(f"{tmp_path}/") + "(mine/)?"
    with pytest.raises(ValueError, match=place + REFUSALS[how]) as refused:
        datasets.load("mine", data_dir=str(tmp_path))
    assert not isinstance(refused.value, tfds_folders.DatasetNotPrepared)


@pytest.mark.parametrize("missing", ["train", "valid", "test"])
def test_an_absent_cinic10_says_what_where_and_whence(
    tmp_path: Path, missing: str
) -> None:
    splits = [split for split in ("train", "valid", "test") if split != missing]
    write(tmp_path, name="cinic10", splits=tuple(splits))
    with pytest.raises(tfds_folders.DatasetNotPrepared) as refused:
        datasets.load("cinic10", data_dir=str(tmp_path))
    message = str(refused.value)
    for part in (
        f"{tmp_path / 'cinic10'}/SPLIT/CLASS of images for the dataset 'cinic10', "
        f"got no {missing}.",
        "--config.data.dir=FOLDER",
        "CINIC-10.tar.gz",
        "arXiv:1810.03505",
    ):
        assert part in message


def test_an_absent_test_split_and_an_absent_dataset(tmp_path: Path) -> None:
    write(tmp_path, splits=("train",))
    with pytest.raises(tfds_folders.DatasetNotPrepared, match="got no test"):
        datasets.load("mine", data_dir=str(tmp_path))
    wanted = re.escape(f"{tmp_path}/cifar100/train/CLASS/*.png")
    with pytest.raises(tfds_folders.DatasetNotPrepared, match=wanted):
        datasets.load("cifar100", data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["", ".", "../mine", "mine:1.0.0", "a/mine"])
def test_a_name_is_of_a_folder_in_the_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    write(tmp_path / "mine" / "a")
    with pytest.raises(tfds_folders.DatasetNotPrepared, match="got no such folder"):
        datasets.load(name, data_dir=str(tmp_path / "mine"))
