"""The script that downloads: its messages where it cannot or need not download."""

import importlib.util
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def run(root: Path, *flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # The package comes by PYTHONPATH: it need not be installed to test it.
    return subprocess.run(
        [sys.executable, str(root / "experiments" / "prepare_data.py"), *flags],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PYTHONPATH": str(root), "HOME": str(cwd), "PATH": ""},
        timeout=60,
    )


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None,
    reason="TensorFlow is installed: this would download",
)
def test_missing_tensorflow_is_one_line_with_the_remedy(
    root: Path, tmp_path: Path
) -> None:
    done = run(root, "--dataset=cifar10", f"--data_dir={tmp_path}/data", cwd=tmp_path)
    assert done.returncode == 1
    assert "tensorflow" in done.stderr
    assert "pip install -e '.[prepare]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """The script as a module; the other tests call it without a process."""
    root = Path(__file__).resolve().parent.parent.parent
    script = root / "experiments" / "prepare_data.py"
    spec = importlib.util.spec_from_file_location("prepare_data_under_test", script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def prepare(
    program: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[str], str]:
    """Calls the program's `main` in a folder; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(name: str) -> str:
        given = {"dataset": name, "data_dir": "data", "manual_dir": None}
        given["format"] = "array_record"
        for flag, value in given.items():
            holder = types.SimpleNamespace(name=flag, value=value)
            monkeypatch.setattr(program, f"_{flag.upper()}", holder)
        program.main([])
        return capsys.readouterr().out

    return call


def test_a_prepared_dataset_is_left_alone(prepare: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    printed = prepare("mnist")
    assert f"mnist is already prepared in {folder}" in printed
    assert f"--data_dir={tmp_path / 'data'}" in printed
    assert (folder / "dataset_info.json").read_text() == "{}"


def test_folders_of_images_are_left_alone(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "data" / "cifar100" / "train").mkdir(parents=True)
    assert "cifar100 already exists as folders of images" in prepare("cifar100")
    assert [p.name for p in (tmp_path / "data" / "cifar100").iterdir()] == ["train"]


def test_what_tfds_does_not_have_is_unpacked_by_hand(
    prepare: Any, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="TFDS does not have cinic10") as caught:
        prepare("cinic10")
    assert "CINIC-10.tar.gz" in str(caught.value)
    assert not (tmp_path / "data").exists()
    for split in ("train", "valid", "test"):
        (tmp_path / "data" / "cinic10" / split).mkdir(parents=True)
    printed = prepare("cinic10")
    assert f"cinic10 is already unpacked in {tmp_path / 'data'}" in printed
    assert "--config.data.name=cinic10" in printed


def test_digits_need_no_preparing(prepare: Any) -> None:
    assert "nothing to prepare" in prepare("digits")


def test_a_failed_download_is_one_error(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host\n" + "and so on\n" * 200)

    monkeypatch.setattr(program.tfds, "builder", fail)
    with pytest.raises(SystemExit) as caught:
        program.prepare("cifar10", data_dir="data", file_format="array_record")
    message = str(caught.value)
    assert "ConnectionError: no route to host\n" in message
    assert "error: cifar10 cannot be prepared in data" in message
    assert len(message.splitlines()) < 5
