"""The script experiments/export.py, on a run trained for the test."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

import jaxsparse
from jaxsparse import export, masks, tree

SMALL = {"model.features": (12, 8), "training.duration": "1ep", "lottery.levels": 1}
SMALL |= {"schedule.milestones": ("4step",), "lottery.controls": ()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs") / "a"
    tiny.train(made, SMALL)
    return made


def script(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "experiments" / "export.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one run directory, got 0"),
        (["RUN"], "--format: missing"),
        (
            ["RUN", "--format=onnx", "--out=a.pt"],
            "--out: expected a file ending in .onnx",
        ),
        (["nowhere", "--format=onnx", "--out=a.onnx"], "expected a run directory"),
        (
            ["RUN", "--format=onnx", "--out=a.onnx", "--masks"],
            "--masks: expected only with --format=torch",
        ),
    ],
)
def test_wrong_commands_are_one_line(
    root: Path, folder: Path, words: list[str], message: str
) -> None:
    ran = script(root, *(str(folder) if word == "RUN" else word for word in words))
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1
    assert message in ran.stderr


def test_packed_file_of_a_run(root: Path, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="extra export")
    out = tmp_path / "ticket.safetensors"
    words = (str(folder), "--format=safetensors", f"--out={out}", "--replicate=1")
    ran = script(root, *words)
    assert ran.returncode == 0, ran.stderr
    assert f"{out.stat().st_size:,} bytes" in ran.stdout
    run = jaxsparse.load(folder)
    loaded = export.from_safetensors(out, {"params": run.params(1, 1)})
    tiny.check_equal(loaded.params["params"], run.params(1, 1))
    tiny.check_equal(loaded.masks["params"], run.masks(1, 1))
    missing = script(root, *words, "--level=7")
    assert "level: expected one of [0, 1]" in missing.stderr
    assert missing.stderr.count("\n") == 1


def test_state_dict_of_a_run(root: Path, folder: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="extra torch")
    out = tmp_path / "ticket.pt"
    words = (str(folder), "--format=torch", f"--out={out}", "--masks", "--level=1")
    ran = script(root, *words)
    assert ran.returncode == 0, ran.stderr
    state = torch.load(out)
    assert state["fc1.weight_mask"].shape == (12, 64)
    run = jaxsparse.load(folder)
    assert int(state["fc1.weight_mask"].sum()) == int(
        tree.named_leaves(run.masks(1, 0))["dense1/kernel"].sum()
    )


def test_onnx_file_of_a_run(root: Path, folder: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra export")
    pytest.importorskip("onnx", reason="extra export")
    out = tmp_path / "ticket.onnx"
    ran = script(root, str(folder), "--format=onnx", f"--out={out}")
    assert ran.returncode == 0, ran.stderr
    session = onnxruntime.InferenceSession(str(out))
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
    (theirs,) = session.run(None, {"input_0": x})
    run = jaxsparse.load(folder)
    ours = run.model().apply(run.variables(), jnp.asarray(x), train=False)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
    assert masks.sparsity(run.masks()) > 0
