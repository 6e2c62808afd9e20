"""Texts as windows of bytes: each byte is predicted once, training before test."""

import sys
from pathlib import Path

import numpy as np
import pytest

from jaxsparse import config, factory
from jaxsparse.data import datasets, text
from jaxsparse.data.dataset import Examples

TEXT = bytes(range(97, 123)) * 3  # 78 bytes


def as_bytes(examples: Examples) -> list[bytes]:
    assert examples.images.dtype == np.uint8
    assert examples.images.shape[2:] == (1, 1)
    assert examples.labels.dtype == np.int32 and not examples.labels.any()
    assert len(examples.labels) == len(examples.images)
    return [bytes(window.reshape(-1)) for window in examples.images]


@pytest.mark.parametrize("context", [1, 3, 7])
def test_each_byte_is_predicted_once_and_test_bytes_come_last(context: int) -> None:
    train, test, classes = text.split(TEXT, context=context, test_part=4)
    assert classes == 256
    for part, expected in ((train, TEXT[:59]), (test, TEXT[59:])):
        windows = as_bytes(part)
        assert {len(window) for window in windows} == {context + 1}
        predicted = b"".join(window[1:] for window in windows)
        assert predicted == expected[1 : len(predicted) + 1]
        assert len(expected) - 1 - len(predicted) < context
        read = b"".join(window[:-1] for window in windows)
        assert read == expected[: len(read)]


def test_a_text_needs_a_window_in_both_parts() -> None:
    with pytest.raises(ValueError, match=r"context: expected fewer bytes than the 7 "):
        text.split(TEXT, context=7)
    text.split(TEXT, context=6)


def test_the_help_of_python_is_about_half_a_megabyte_of_ascii_text() -> None:
    train, test, classes = text.read_python_docs(context=50)
    sizes = [len(part.labels) for part in (train, test)]
    assert 400_000 < 50 * sum(sizes) < 900_000 and classes == 256
    assert abs(sizes[0] / sizes[1] - 9) < 0.1
    letters = np.mean(train.images >= ord("a"))
    assert letters > 0.5
    assert "context" in config.default().data
    loaded = datasets.load("python_docs")
    assert loaded.train.images.shape[1:] == (65, 1, 1)


def test_a_python_without_its_help_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    c = config.default()
    c.data.name = "python_docs"
    with pytest.raises(ValueError, match=r"config\.data\.name: expected the module py"):
        factory.load_data(c)


def test_a_text_file_is_a_dataset_of_its_own(tmp_path: Path) -> None:
    def novel(*, data_dir: str | None, context: int) -> tuple:
        return text.read_file("novel.txt", data_dir=data_dir, context=context)

    config.register_dataset("novel", novel, predicts="next_token")
    try:
        c = config.default()
        c.data.name, c.data.dir, c.data.context = "novel", str(tmp_path), 5
        with pytest.raises(ValueError, match=r"config\.data\.dir: .*'novel\.txt', got"):
            factory.load_data(c)
        (tmp_path / "novel.txt").write_bytes(TEXT)
        loaded = factory.load_data(c)
        assert as_bytes(loaded.train)[0] == b"abcdef"
        assert (loaded.mean, loaded.std) == ((0.0,), (1.0,))
    finally:
        config.DATASETS.remove("novel")
    with pytest.raises(ValueError, match="predicts: expected one of"):
        config.register_dataset("novel", novel, predicts="tokens")
