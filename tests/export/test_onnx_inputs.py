"""Which inputs and dtypes ONNX files take, and what ONNX itself refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsparse import compaction, export, masks, tree
from jaxsparse.export import onnx_rules

REASON = "onnx and onnxruntime are not installed (extra export)"
onnx = pytest.importorskip("onnx", reason=REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)

ONE = {"w": jnp.ones(())}


def run(path: Path, *inputs: Any) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {f"input_{i}": x for i, x in enumerate(inputs)})


def test_files_have_the_oldest_version_for_their_operators(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    export.onnx(path, lambda p, x: p["w"] * x, ONE, jnp.ones((1, 2)))
    model = onnx.load(path)
    assert [each.version for each in model.opset_import] == [18]
    assert model.ir_version == 8  # ONNX 1.13, which introduced this set of operators
    assert onnx.helper.find_min_ir_version_for(model.opset_import) == 8


def test_compared_inputs_have_the_range_of_the_example(tmp_path: Path) -> None:
    seen: list[list[np.ndarray]] = []

    def apply(params: Any, *inputs: Any) -> Any:
        if not isinstance(inputs[0], jax.core.Tracer):
            seen.append([np.asarray(each) for each in inputs])
        tokens, kept, pixels, x = inputs
        rows = jnp.take(params["w"], tokens, axis=0)
        return jnp.where(kept, rows, x) + pixels

    tokens = np.full((1, 60), 5, np.int32)
    tokens[0, :2] = 3, 9
    kept = np.ones((1, 60), bool)
    pixels = jax.ShapeDtypeStruct((1, 60), jnp.uint8)
    x = jnp.ones((1, 60))
    params = {"w": jnp.arange(10.0)}
    export.onnx(tmp_path / "net.onnx", apply, params, tokens, kept, pixels, x)
    assert [inputs[0].shape for inputs in seen] == [(1, 60), (3, 60)]
    drawn = [
        set(np.concatenate(each, axis=None).tolist())
        for each in zip(*seen, strict=True)
    ]
    assert drawn[:3] == [{3, 4, 5, 6, 7, 8, 9}, {False, True}, {0, 1}]
    assert min(drawn[3]) < -1 and max(drawn[3]) > 1


def test_a_network_that_is_wrong_for_a_large_token_only_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather = onnx_rules.RULES["gather"]

    def clipped(graph: Any, eqn: Any, values: list) -> Any:
        largest = np.asarray(2, eqn.invars[1].aval.dtype)
        return gather(graph, eqn, [values[0], graph.add("Min", values[1], largest)])

    monkeypatch.setitem(onnx_rules.RULES, "gather", clipped)

    def apply(params: Any, tokens: Any) -> Any:
        return jnp.take(params["w"], tokens, axis=0)

    params = {"w": jnp.arange(10.0)}
    tokens, path = jnp.arange(10)[None], tmp_path / "net.onnx"
    with pytest.raises(ValueError, match="output_0: expected from ONNX Runtime what"):
        export.onnx(path, apply, params, tokens)
    export.onnx(path, apply, params, tokens[:, :3])  # no token is above 2


@pytest.mark.parametrize("wide", [np.float64, np.int64])
def test_files_take_the_dtypes_in_which_jax_computes(tmp_path: Path, wide: Any) -> None:
    path, params = tmp_path / "net.onnx", {"w": np.arange(3.0)[:, None]}
    example = np.array([[1, 2]], wide)
    narrow = np.float32 if wide == np.float64 else np.int32

    def apply(params: Any, x: Any) -> Any:
        return x * 2, jnp.take(params["w"], x.astype(jnp.int32), axis=0)

    for given in (example, jax.ShapeDtypeStruct((1, 2), wide)):
        export.onnx(path, apply, params, given)
        twice, rows = run(path, np.array([[2, 1]], narrow))
        assert twice.dtype == narrow and rows.dtype == np.float32
        np.testing.assert_array_equal(twice, [[4, 2]])
        np.testing.assert_array_equal(rows, [[[2], [1]]])


def test_integers_have_operators_of_their_own(tmp_path: Path) -> None:
    def apply(params: Any, x: Any) -> tuple[Any, ...]:
        del params
        return jax.nn.relu(x), x & 6, x | 1, ~x, jnp.maximum(0, -x)

    path = tmp_path / "net.onnx"
    export.onnx(path, apply, ONE, np.int32([[-9, 9]]))
    found = run(path, np.int32([[-3, 5]]))
    # In two's complement -3 ends with the bits 101, and 5 is 101.
    wanted = [[0, 5], [4, 4], [-3, 5], [2, -6], [3, 0]]
    for theirs, ours in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(theirs, [ours])


def shifted(x: Any) -> Any:
    """A convolution whose padding is negative."""
    kernel = jnp.ones((1, 1, 2))
    return jax.lax.conv_general_dilated(x[:, None], kernel, (1,), [(-1, 0)])


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda x: x.astype(jnp.int8) ** 3, "Pow"),
        (lambda x: x.astype(jnp.int16).argmax(1), "ArgMax"),
        (shifted, "Conv"),
        (lambda x: x.astype(jnp.bfloat16) @ jnp.ones((3, 2), jnp.bfloat16), "MatMul"),
        (lambda x: jnp.sin(x.astype(jnp.bfloat16)), "Sin"),
    ],
)
def test_operators_that_are_refused_are_named(
    tmp_path: Path, function: Callable, operator: str
) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(
        ValueError, match=rf"that ONNX.* accepts, got its .*\b{operator}"
    ):
        export.onnx(path, lambda p, x: function(p["w"] * x), ONE, jnp.ones((2, 3)))
    assert not path.exists()


def test_outputs_may_be_infinite_or_nan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apply(params: Any, x: Any) -> Any:
        zero = 0 * params["w"] * x
        return jnp.where(x > 0, x, -jnp.inf), jnp.log(jnp.abs(zero)), zero / zero

    path = tmp_path / "net.onnx"
    export.onnx(path, apply, ONE, jnp.ones((1, 8)))
    found = run(path, np.float32([[2, -1] * 4]))
    wanted = [[2, -np.inf] * 4, [-np.inf] * 8, [np.nan] * 8]
    for theirs, ours in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(theirs, [ours])
    monkeypatch.setitem(onnx_rules.SAME, "log", "Abs")
    with pytest.raises(ValueError, match="output_1: .*where JAX has infinities or NaN"):
        export.onnx(tmp_path / "wrong.onnx", apply, ONE, jnp.ones((1, 8)))
    assert not (tmp_path / "wrong.onnx").exists()


def test_random_keys_of_an_nnx_module_do_not_matter(tmp_path: Path) -> None:
    rngs = nnx.Rngs(0)
    module = nnx.Sequential(
        nnx.Linear(3, 4, rngs=rngs),
        nnx.Dropout(0.5, rngs=rngs),
        nnx.relu,
        nnx.Linear(4, 2, rngs=rngs),
    )
    module.eval()
    kernels = [np.asarray(module.layers[i].kernel[...]) for i in (0, 3)]
    ticket = masks.ones(nnx.state(module, nnx.Param))
    kept = jnp.ones((4, 2), bool).at[1].set(False)  # nothing reads the second unit
    ticket["layers"][3]["kernel"].set_value(kept)
    small = compaction.compact_nnx(module, ticket, jnp.ones((1, 3)))
    dtypes = [str(leaf.dtype) for leaf in tree.named_leaves(small.params).values()]
    assert any(dtype.startswith("key") for dtype in dtypes)
    path = tmp_path / "net.onnx"
    export.onnx(path, small.apply, small.params, jnp.ones((1, 3)))
    x = np.float32([[1, 2, 3], [-1, 0, 2]])
    hidden = np.maximum(x @ kernels[0], 0) * np.float32([1, 0, 1, 1])
    np.testing.assert_allclose(run(path, x)[0], hidden @ kernels[1], rtol=1e-5)


def test_numbers_drawn_in_the_network_are_constants(tmp_path: Path) -> None:
    def apply(params: Any, x: Any) -> Any:
        one, two = jax.random.split(params["key"])
        return x + jax.random.normal(one, (1, 3)), x * jax.random.uniform(two, (1, 3))

    params = {"key": jax.random.key(7)}
    path, x = tmp_path / "net.onnx", np.float32([[1, 2, 3]])
    export.onnx(path, apply, params, x)
    for theirs, ours in zip(run(path, x), apply(params, x), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-6)


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    path, keys = tmp_path / "net.onnx", jax.random.split(jax.random.key(0), 2)
    with pytest.raises(TypeError, match="inputs: 0/k: expected real numbers.*got key<"):
        export.onnx(path, lambda p, x: p["w"], ONE, {"k": keys})
    with pytest.raises(TypeError, match="inputs: 0: expected real .*got complex64"):
        export.onnx(path, lambda p, x: x.real, ONE, jnp.ones((2, 3), jnp.complex64))
    with pytest.raises(ValueError, match="outputs that are numbers.*keys in output_1"):
        export.onnx(path, lambda p, x: (x, p["k"]), {"k": keys}, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="masks: k: expected .*no such leaf"):
        ticket = {"k": jnp.ones(2, bool)}
        export.onnx(path, lambda p, x: x, {"k": keys}, jnp.ones(2), masks=ticket)
    assert not path.exists()
