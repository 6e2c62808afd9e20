"""Files of the format safetensors, read by its package and by the documented reader."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsparse import compaction, export, masks, tree
from jaxsparse.export import safetensors_files

NEEDED = "the package safetensors is not installed (extra export)"
files = pytest.importorskip("safetensors.numpy", reason=NEEDED)


def weights(*shape: int, dtype: Any = np.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


PARAMS = {
    "conv": {"bias": weights(4), "kernel": weights(3, 3, 2, 4)},
    "half": {"kernel": weights(5, 7, dtype=jnp.bfloat16)},
    "out": [weights(4, 3, dtype=jnp.float16), jnp.zeros((), jnp.int32)],
}
MASKS = {
    "conv": {"bias": None, "kernel": PARAMS["conv"]["kernel"] > 0.3},
    "half": {"kernel": jnp.arange(35).reshape(5, 7) % 3 == 0},
    "out": [jnp.zeros((4, 3), bool), None],
}


def expected(name: str) -> np.ndarray:
    """A leaf with zeros outside its mask."""
    leaf, masks = tree.named_leaves(PARAMS)[name], tree.named_leaves(MASKS)
    values = np.array(leaf)
    if name in masks:
        values[~np.asarray(masks[name])] = 0
    return values


@pytest.fixture(scope="module")
def read() -> Callable[[Path], dict[str, np.ndarray]]:
    """The reader in the documentation, as a user would copy it."""
    documented = safetensors_files.__doc__ or ""
    code = textwrap.dedent(documented[documented.index("    import json") :])
    assert len(code.splitlines()) <= 35
    assert set(re.findall(r"^import (\w+)", code, re.MULTILINE)) == {"json", "numpy"}
    names: dict[str, Any] = {}
    exec(code, names)
    return names["read"]


@pytest.mark.parametrize("packed", [True, False])
def test_documented_reader_reads_every_leaf(
    tmp_path: Path, read: Callable[[Path], dict[str, np.ndarray]], packed: bool
) -> None:
    path = tmp_path / "a.safetensors"
    size = export.safetensors(path, PARAMS, MASKS, packed=packed)
    assert size == path.stat().st_size
    found = read(path)
    assert sorted(found) == sorted(tree.named_leaves(PARAMS))
    for name, leaf in found.items():
        want = expected(name)
        assert leaf.dtype == (np.float32 if "half" in name else want.dtype), name
        np.testing.assert_array_equal(leaf, want.astype(leaf.dtype), err_msg=name)


@pytest.mark.parametrize("packed", [True, False])
def test_round_trip_is_bit_for_bit(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "a.safetensors"
    export.safetensors(str(path), PARAMS, MASKS, packed=packed)
    loaded = export.from_safetensors(path, jax.eval_shape(lambda: PARAMS))
    assert jax.tree.structure(loaded.params) == jax.tree.structure(PARAMS)
    for name, leaf in tree.named_leaves(loaded.params).items():
        assert np.asarray(leaf).tobytes() == expected(name).tobytes(), name
    masks = tree.named_leaves(loaded.masks)
    assert sorted(masks) == (sorted(tree.named_leaves(MASKS)) if packed else [])
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, tree.named_leaves(MASKS)[name])


def test_dense_file_is_read_by_the_package_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    export.safetensors(path, PARAMS, MASKS, packed=False)
    found = files.load_file(path)
    assert sorted(found) == sorted(tree.named_leaves(PARAMS))
    np.testing.assert_array_equal(found["conv/kernel"], expected("conv/kernel"))


def test_weights_outside_the_masks_are_not_in_a_packed_file(tmp_path: Path) -> None:
    params = {"w": jnp.full((64, 64), jnp.nan).at[0].set(1.0)}
    masks = {"w": jnp.zeros((64, 64), bool).at[0].set(True)}
    path = tmp_path / "a.safetensors"
    size = export.safetensors(path, params, masks)
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert size == 8 + header + 64 * 64 // 8 + 2 * 8 + 64 * 4
    loaded = export.from_safetensors(path, params)
    assert float(jnp.sum(loaded.params["w"])) == 64.0


def test_errors_name_leaf_and_remedy(tmp_path: Path) -> None:
    path, params = tmp_path / "a.safetensors", {"kernel": jnp.ones((2, 2))}
    wrong = {"kernel": jnp.ones((2, 3), bool)}
    with pytest.raises(ValueError, match=r"masks: kernel: expected .*\(2, 2\), got"):
        export.safetensors(path, params, wrong)
    with pytest.raises(ValueError, match="'a:b'; rename the leaf"):
        export.safetensors(path, {"a:b": jnp.ones(2)})
    export.safetensors(path, params)
    other = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"bias: expected .*\(2,\), got no such leaf"):
        export.from_safetensors(path, other)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="expected a file of the safetensors format"):
        export.from_safetensors(path, params)


@pytest.mark.parametrize("change", ["bits", "values", "part"])
def test_a_damaged_packed_leaf_is_refused(tmp_path: Path, change: str) -> None:
    path, params = tmp_path / "a.safetensors", {"w": jnp.arange(1.0, 17.0)}
    export.safetensors(path, params, {"w": jnp.arange(16) % 2 == 0})
    tensors = files.load_file(path)
    if change == "bits":
        tensors["w:mask"] = tensors["w:mask"][:1]
    elif change == "values":
        tensors["w:values"] = tensors["w:values"][1:]
    else:
        del tensors["w:values"]
    files.save_file(tensors, path)
    with pytest.raises(ValueError, match="packed weights: w: expected"):
        export.from_safetensors(path, params)


def test_random_keys_of_an_nnx_module_come_back(
    tmp_path: Path, read: Callable[[Path], dict[str, np.ndarray]]
) -> None:
    rngs = nnx.Rngs(3)
    layers = nnx.Linear(4, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
    module = nnx.Sequential(*layers, nnx.relu, nnx.Linear(3, 2, rngs=rngs))
    module.eval()
    ticket = masks.ones(nnx.state(module, nnx.Param))
    small = compaction.compact_nnx(module, ticket, jnp.ones((1, 4)))
    path = tmp_path / "a.safetensors"
    export.safetensors(path, small.params, small.masks)
    leaves = tree.named_leaves(small.params)
    keys = {n: leaf for n, leaf in leaves.items() if str(leaf.dtype).startswith("key")}
    assert keys
    abstract = jax.eval_shape(lambda: small.params)
    for template in (small.params, abstract):
        loaded = export.from_safetensors(path, template)
        found = tree.named_leaves(loaded.params)
        assert list(found) == list(leaves)
        for name, leaf in leaves.items():
            assert found[name].dtype == leaf.dtype and found[name].shape == leaf.shape
            same = jax.random.key_data if name in keys else np.asarray
            np.testing.assert_array_equal(same(found[name]), same(leaf))
        x = jnp.arange(4.0)[None]
        np.testing.assert_array_equal(
            small.apply(loaded.params, x), small.apply(small.params, x)
        )
    for name, key in keys.items():
        np.testing.assert_array_equal(read(path)[name], jax.random.key_data(key))
    other = {name: jax.random.key(0, impl="rbg") for name in keys}
    with pytest.raises(ValueError, match=r"key: expected .*\(4,\), got \(2,\)"):
        export.from_safetensors(path, leaves | other)


def test_random_keys_have_no_masks(tmp_path: Path) -> None:
    params = {"a": jnp.ones(2), "k": jax.random.split(jax.random.key(0), 2)}
    with pytest.raises(ValueError, match="masks: k: expected .*no such leaf"):
        export.safetensors(tmp_path / "a", params, {"a": None, "k": jnp.ones(2, bool)})
