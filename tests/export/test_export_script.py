"""The script experiments/export.py, on a run trained for the test."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import commands, tiny

import jaxsparse
from jaxsparse import export, masks, tree

# So few weights remain after a level that some neurons have none, but outputs still
# depend on the images.
SMALL = {
    "model.features": (12, 8),
    "lottery.fraction": 0.95,
    "training.duration": "1ep",
    "lottery.levels": 1,
}
SMALL |= {"schedule.milestones": ("4step",), "lottery.controls": ()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs") / "a"
    tiny.train(made, SMALL)
    return made


Ran = dict[str, tuple[Path, list[str], int]]


@pytest.fixture(scope="module")
def ran(root: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The written file, the lines and the exit code of each command."""
    out = tmp_path_factory.mktemp("files")
    words = {"safetensors": ["--replicate=1"], "torch": ["--masks", "--level=1"]}
    words |= {"onnx": [], "missing": ["--level=7"], "small": ["--compact"]}
    words |= {"small_torch": ["--compact"]}
    formats = {"torch": "torch", "onnx": "onnx", "small": "onnx"}
    formats |= {"small_torch": "torch"}
    endings = {"torch": "pt", "onnx": "onnx", "small": "onnx", "small_torch": "pt"}
    files = {n: out / f"{n}.{endings.get(n, 'safetensors')}" for n in words}
    listed = [
        [
            *("experiments/export.py", str(folder)),
            *(f"--format={formats.get(name, 'safetensors')}", f"--out={files[name]}"),
            *more,
        ]
        for name, more in words.items()
    ]
    found = commands.run_all(root, listed, "jaxsparse", "jaxsparse.export")
    return {name: (files[name], *each) for name, each in zip(words, found, strict=True)}


def test_packed_file_of_a_run(folder: Path, ran: Ran) -> None:
    pytest.importorskip("safetensors", reason="extra export")
    out, lines, code = ran["safetensors"]
    assert code == 0, lines
    assert f"{out.stat().st_size:,} bytes" in lines[-1]
    run = jaxsparse.load(folder)
    loaded = export.from_safetensors(out, {"params": run.params(1, 1)})
    tiny.check_equal(loaded.params["params"], run.params(1, 1))
    tiny.check_equal(loaded.masks["params"], run.masks(1, 1))
    out, lines, code = ran["missing"]
    assert code == 1 and not out.exists()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert "level: expected one of [0, 1]" in lines[0]


def test_state_dict_of_a_run(folder: Path, ran: Ran) -> None:
    torch = pytest.importorskip("torch", reason="extra torch")
    out, lines, code = ran["torch"]
    assert code == 0, lines
    state = torch.load(out)
    assert state["fc1.weight_mask"].shape == (12, 64)
    run = jaxsparse.load(folder)
    assert int(state["fc1.weight_mask"].sum()) == int(
        tree.named_leaves(run.masks(1, 0))["dense1/kernel"].sum()
    )


def test_onnx_file_of_a_run(folder: Path, ran: Ran) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra export")
    pytest.importorskip("onnx", reason="extra export")
    out, lines, code = ran["onnx"]
    assert code == 0, lines
    session = onnxruntime.InferenceSession(str(out))
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
    (theirs,) = session.run(None, {"input_0": x})
    run = jaxsparse.load(folder)
    ours = run.model().apply(run.variables(), jnp.asarray(x), train=False)
    assert np.ptp(np.asarray(ours), axis=0).max() > 0.1  # outputs are not constant
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
    assert masks.sparsity(run.masks()) > 0


def test_compacted_onnx_file_of_a_run(folder: Path, ran: Ran) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra export")
    onnx = pytest.importorskip("onnx", reason="extra export")
    out, lines, code = ran["small"]
    assert code == 0, lines
    found = re.fullmatch(r"compaction: (\S+) of (\S+) parameters stay", lines[-2])
    assert found and found[2] == "974"  # 64-12-8-10 with biases
    stay = int(found[1].replace(",", ""))
    sizes = [int(np.prod(each.dims)) for each in onnx.load(str(out)).graph.initializer]
    assert stay < 974 and stay <= sum(sizes) < 974
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
    (theirs,) = onnxruntime.InferenceSession(str(out)).run(None, {"input_0": x})
    run = jaxsparse.load(folder)
    ours = run.model().apply(run.variables(), jnp.asarray(x), train=False)
    assert np.ptp(np.asarray(ours), axis=0).max() > 0.1  # outputs are not constant
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_compacted_state_dict_of_a_run(folder: Path, ran: Ran) -> None:
    torch = pytest.importorskip("torch", reason="extra torch")
    from helpers import torch_networks

    out, lines, code = ran["small_torch"]
    assert code == 0, lines
    state = torch.load(out)
    assert lines[-2].startswith("layers are narrower than in the classes of torchvisi")
    sizes = [state[f"fc{i}.weight"].shape for i in (1, 2, 3)]
    assert sizes[0][0] < 12 or sizes[1][0] < 8  # of 64-12-8-10
    widths = [sizes[0][1], *(size[0] for size in sizes)]
    network = torch_networks.Flat([], widths, []).eval()
    network.load_state_dict(state, strict=True)
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
    with torch.no_grad():
        theirs = network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    run = jaxsparse.load(folder)
    ours = run.model().apply(run.variables(), jnp.asarray(x), train=False)
    assert np.ptp(np.asarray(ours), axis=0).max() > 0.1  # outputs are not constant
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
