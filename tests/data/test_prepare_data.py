"""The script that downloads: its messages where it cannot or need not download."""

import importlib.util
import subprocess
import sys
from pathlib import Path

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


def test_a_prepared_dataset_is_left_alone(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    done = run(root, "--dataset=mnist", "--data_dir=data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"mnist is already prepared in {folder}" in done.stdout
    assert f"--data_dir={tmp_path / 'data'}" in done.stdout
    assert (folder / "dataset_info.json").read_text() == "{}"


def test_folders_of_images_are_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "cifar100" / "train").mkdir(parents=True)
    done = run(root, "--dataset=cifar100", "--data_dir=data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cifar100 already exists as folders of images" in done.stdout
    assert [p.name for p in (tmp_path / "data" / "cifar100").iterdir()] == ["train"]


def test_what_tfds_does_not_have_is_unpacked_by_hand(
    root: Path, tmp_path: Path
) -> None:
    arguments = ("--dataset=cinic10", "--data_dir=data")
    done = run(root, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "TFDS does not have cinic10" in done.stderr
    assert "CINIC-10.tar.gz" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
    for split in ("train", "valid", "test"):
        (tmp_path / "data" / "cinic10" / split).mkdir(parents=True)
    done = run(root, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"cinic10 is already unpacked in {tmp_path / 'data'}" in done.stdout
    assert "--config.data.name=cinic10" in done.stdout


def test_digits_need_no_preparing(root: Path, tmp_path: Path) -> None:
    done = run(root, "--dataset=digits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing to prepare" in done.stdout


def test_a_failed_download_is_one_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = root / "experiments" / "prepare_data.py"
    spec = importlib.util.spec_from_file_location("prepare_data_under_test", script)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)

    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host\n" + "and so on\n" * 200)

    monkeypatch.setattr(program.tfds, "builder", fail)
    with pytest.raises(SystemExit) as caught:
        program.prepare("cifar10", data_dir="data", file_format="array_record")
    message = str(caught.value)
    assert "ConnectionError: no route to host\n" in message
    assert "error: cifar10 cannot be prepared in data" in message
    assert len(message.splitlines()) < 5
