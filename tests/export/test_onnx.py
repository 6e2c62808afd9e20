"""Networks in ONNX Runtime compute what they compute in JAX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import campaigns
from helpers.drawn_variables import drawn

from jaxsparse import export, masks, models
from jaxsparse.export import onnx_rules
from jaxsparse.models import layers

REASON = "onnx and onnxruntime are not installed (extra export)"
onnx = pytest.importorskip("onnx", reason=REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "lenet_300_100": (models.LeNet300100((6, 5)), (4, 4, 3)),
    "lenet_5": (models.LeNet5((2, 3), (7, 6)), (16, 16, 1)),
    "conv_2": (models.ConvNet(2, 2, (5,)), (8, 6, 3)),
    "resnet_basic": (models.CifarResNet(8, width=4), (8, 8, 3)),
    "resnet_identity": (models.CifarResNet(8, width=4, shortcut="identity"), (8, 8, 3)),
    "resnet_stem": (models.ImageNetResNet((1, 1), width=4, classes=10), (16, 16, 3)),
    "wide_resnet": (models.WideResNet(10, 2, 4), (8, 8, 3)),
    "vgg": (models.VGG((1, 1), (4, 8), 10, norm=layers.BATCH_NORM), (8, 8, 3)),
    "mobilenet_v1": (
        models.MobileNetV1((1, 1), (4, 8), (1, 1, 2), 4, 10),
        (8, 8, 3),
    ),
    "mobilenet_v2": (
        models.MobileNetV2((1, 2), (4, 8), (1, 1, 2), 4, 16, 2, 10),
        (8, 8, 3),
    ),
    "vit": (models.ViT(8, 2, 1, 4, 10), (8, 8, 3)),
}


def run(path: Path, *inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {f"input_{i}": x for i, x in enumerate(inputs)})


# The operations of the others all occur in these, or in the tests below.
ALWAYS = ("lenet_300_100", "lenet_5", "conv_2", "resnet_basic", "mobilenet_v2", "vit")


@pytest.mark.parametrize("name", campaigns.some(NETWORKS, always=ALWAYS))
def test_networks(tmp_path: Path, name: str) -> None:
    model, shape = NETWORKS[name]
    variables = drawn(model, shape)
    ticket = {"params": masks.ones(variables["params"])}
    generator = np.random.default_rng(1)
    ticket = jax.tree.map(
        lambda m: jnp.asarray(generator.random(m.shape) < 0.4), ticket
    )
    if "batch_stats" in variables:
        ticket["batch_stats"] = jax.tree.map(lambda _: None, variables["batch_stats"])
    path = tmp_path / "net.onnx"
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    size = export.onnx(path, apply, variables, images, masks=ticket)
    assert size == path.stat().st_size
    x = generator.normal(size=(5, *shape)).astype(np.float32)
    (theirs,) = run(path, x)
    ours = apply(masks.apply(ticket, variables), jnp.asarray(x))
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * np.abs(ours).max(), rtol=1e-4)
    # Pruned weights are zeros in the file.
    graph = onnx.load(path).graph
    zeros = sum((onnx.numpy_helper.to_array(c) == 0).sum() for c in graph.initializer)
    pruned = masks.size(ticket) - masks.num_active(ticket)
    assert zeros >= pruned
    if "batch_stats" in variables:  # which are folded
        assert not {node.op_type for node in graph.node} & {
            *("Sqrt", "Reciprocal", "Expand")
        }


def test_functions_of_several_inputs_and_outputs(tmp_path: Path) -> None:
    @jax.jit
    def apply(params: Any, x: Any, y: Any) -> dict[str, Any]:
        a = jnp.where(x > 0, x, x * 0.1)
        b = jax.nn.softmax(jax.nn.gelu(y, approximate=True) @ params["w"], axis=-1)
        c = nn.avg_pool(x[..., None, None], (2, 1), (2, 1), padding="SAME")
        d = jnp.clip(
            jnp.pad(jax.lax.slice_in_dim(x, 0, None, 2, 1), ((0, 0), (1, 2))), -0.5, 0.5
        )
        e = jnp.stack(jnp.split(y, 2, axis=1)).max(0) ** 3
        f = jnp.floor(3 * y).astype(jnp.int32)
        return {"a": a, "b": b, "c": c, "d": d, "e": e, "f": f, "g": y.argmax(1)}

    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), "f4")}
    x, y = jnp.ones((2, 8)), jnp.ones((2, 6))
    export.onnx(tmp_path / "net.onnx", apply, params, x, y)
    generator = np.random.default_rng(2)
    x, y = (generator.normal(size=(7, n)).astype(np.float32) for n in (8, 6))
    found = run(tmp_path / "net.onnx", x, y)
    wanted = jax.tree.leaves(apply(params, jnp.asarray(x), jnp.asarray(y)))
    for theirs, ours in zip(found, wanted, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


ACTIVATIONS = (
    *("celu", "elu", "gelu", "glu", "hard_sigmoid", "hard_silu", "hard_tanh"),
    *("leaky_relu", "log_sigmoid", "log_softmax", "logsumexp", "mish"),
    *("relu", "relu6", "selu", "sigmoid", "silu", "soft_sign", "softmax", "softplus"),
    *("sparse_plus", "sparse_sigmoid", "squareplus", "standardize", "tanh"),
)


def test_activation_functions(tmp_path: Path) -> None:
    @jax.jit
    def apply(scale: Any, x: Any) -> dict[str, Any]:
        return {name: getattr(jax.nn, name)(scale * x) for name in ACTIVATIONS}

    path, scale = tmp_path / "net.onnx", jnp.ones(())
    export.onnx(path, apply, scale, jnp.ones((2, 8)))
    x = np.concatenate([np.linspace(-30, 30, 115), [0, -1e-3, 1e-3, -1e-7, 1e-7]])
    x = x.reshape(15, 8).astype(np.float32)
    found = run(path, x)
    wanted = apply(scale, jnp.asarray(x))
    for theirs, name in zip(found, sorted(wanted), strict=True):
        np.testing.assert_allclose(
            theirs, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_functions_at_special_numbers(tmp_path: Path) -> None:
    @jax.jit
    def apply(p: Any, x: Any, y: Any, whole: Any) -> dict[str, Any]:
        yes, no = x > 0, y > 0
        return {
            "a": jnp.isfinite(x),
            "b": x != x,
            "c": x != y,
            "d": whole != 2 * whole - 3,
            "e": yes != no,
            "f": yes ^ no,
            "g": whole ^ (whole + 3),
            "h": jnp.expm1(p * y),
            "i": jnp.tan(y),
        }

    path, p, whole = tmp_path / "net.onnx", jnp.ones(()), np.arange(8, dtype=np.int32)
    x = np.array([np.nan, np.inf, -np.inf, 0, 1, -1, 5, 0.1], np.float32)
    y = np.array([0, 1e-8, -1e-8, 1e-3, -1e-3, 3, -30, 0.1], np.float32)
    export.onnx(path, apply, p, x, y, whole, dynamic_batch=False)
    wanted = jax.tree.leaves(apply(p, *map(jnp.asarray, (x, y, whole))))
    for theirs, ours in zip(run(path, x, y, whole), wanted, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_takes_tokens(tmp_path: Path, tied: bool) -> None:
    model = models.DecoderLM(8, 2, 1, 16, tied=tied)
    tokens = np.random.default_rng(0).integers(0, 16, (5, 6)).astype(np.int32)
    init = jax.jit(lambda key, x: model.init(key, x, train=False))
    variables = init(jax.random.key(0), tokens[:1])
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
    example = jax.ShapeDtypeStruct((1, 6), jnp.int32)
    export.onnx(tmp_path / "net.onnx", apply, variables, example)
    (theirs,) = run(tmp_path / "net.onnx", tokens)
    ours = np.asarray(apply(variables, jnp.asarray(tokens)))
    assert len(np.unique(ours.argmax(-1))) > 1  # outputs depend on the tokens
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * np.abs(ours).max(), rtol=1e-4)


def test_lookups_along_one_axis(tmp_path: Path) -> None:
    @jax.jit
    def apply(params: Any, x: Any, tokens: Any) -> tuple[Any, ...]:
        far = (40 * tokens).astype(jnp.int8)
        return (
            jnp.take(params["w"], jnp.abs(tokens), axis=1),
            jnp.take(params["w"], far, axis=0, mode="clip"),
            jnp.take(x, np.array([2, 0, -1]), axis=1),
            x[:, 1],
        )

    params = {"w": jnp.arange(24.0).reshape(3, 8)}
    generator = np.random.default_rng(3)
    x, tokens = generator.normal(size=(4, 5)).astype("f4"), np.int32([[2, -2, 1]] * 4)
    export.onnx(tmp_path / "net.onnx", apply, params, x, tokens)
    found = run(tmp_path / "net.onnx", x, tokens)
    wanted = apply(params, jnp.asarray(x), jnp.asarray(tokens))
    np.testing.assert_array_equal(wanted[1][0, :, 0], [16, 0, 16])  # clipped
    for theirs, ours in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(theirs, ours)


def test_what_has_no_rule_is_named(tmp_path: Path) -> None:
    def apply(params: Any, x: Any) -> Any:
        return jnp.sort(x @ params["w"])

    params, x = {"w": jnp.ones((3, 3))}, jnp.ones((2, 3))
    with pytest.raises(ValueError, match="primitive 'sort', which has no rule"):
        export.onnx(tmp_path / "net.onnx", apply, params, x)
    assert not (tmp_path / "net.onnx").exists()


def transposed(x: Any) -> Any:
    return jax.lax.conv_transpose(x[..., None], jnp.ones((2, 1, 1)), (2,), "SAME")


def neighbors(x: Any) -> Any:
    """Differences of neighbors in the batch."""
    first, last = (jax.lax.slice_in_dim(x, at, x.shape[0] - 1 + at) for at in (0, 1))
    return last - first


# Places and numbers of entries that are computed from the size of the batch.
COMPUTED: tuple[Callable, ...] = (
    neighbors,
    lambda x: jax.lax.slice_in_dim(x, 1, None),
    lambda x: jnp.split(x, [x.shape[0] - 1])[0],
    lambda x: jax.lax.pad(x, 0.0, ((0, x.shape[0], 0), (0, 0, 0))),
    lambda x: jnp.take(x, jnp.argmax(x, axis=1), axis=0, mode="clip"),
    lambda x: jax.lax.reduce_window(
        x[None, ..., None], 0.0, jax.lax.add, (1, x.shape[0], 1, 1), (1,) * 4, "VALID"
    ),
)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            lambda x: jnp.take_along_axis(x, (x > 0).astype(jnp.int32), axis=1),
            "expected a lookup of whole slices along one axis",
        ),
        (transposed, "expected convolutions that are not transposed"),
        (
            lambda x: jax.lax.reduce_window(
                x[..., None], 0.0, jax.lax.add, (2, 2, 1), (1, 1, 1), "VALID"
            ),
            "expected pooling over all axes but two",
        ),
        (
            lambda x: jax.lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1))),
            "expected padding at the edges",
        ),
        (
            lambda x: jax.lax.select_n(x.astype(jnp.int32), x, x, x),
            "expected a choice between two cases by a boolean, got 3",
        ),
        (
            lambda x: jnp.broadcast_to(x.reshape(-1), (3, 3 * x.shape[0])),
            "expected shapes in which the batch is an axis of its own",
        ),
        *(
            (function, "expected shapes in which the batch is an axis of its own")
            for function in COMPUTED
        ),
    ],
)
def test_what_onnx_cannot_do_is_named(
    tmp_path: Path, function: Callable, words: str
) -> None:
    def apply(params: Any, x: Any) -> Any:
        return function(x * params["w"])

    with pytest.raises(ValueError, match=words):
        export.onnx(tmp_path / "net.onnx", apply, {"w": jnp.ones(())}, jnp.ones((2, 3)))
    assert not (tmp_path / "net.onnx").exists()


def test_shapes_of_one_batch_size(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    apply = jax.jit(lambda p, x: (x @ p["w"]).reshape(3, 4))
    x = np.arange(6, dtype="f4").reshape(2, 3)
    params = {"w": jnp.arange(18.0).reshape(3, 6)}
    export.onnx(path, apply, params, x, dynamic_batch=False)
    np.testing.assert_array_equal(run(path, x)[0], apply(params, x))


def test_a_wrong_rule_is_found_before_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(onnx_rules.SAME, "tanh", "Sigmoid")
    params, x = {"w": jnp.eye(3)}, jnp.ones((2, 3))
    with pytest.raises(
        ValueError, match="expected from ONNX Runtime what JAX computes"
    ):
        export.onnx(tmp_path / "net.onnx", lambda p, x: jnp.tanh(x @ p["w"]), params, x)
    assert not (tmp_path / "net.onnx").exists()


def test_inputs_are_checked_first(tmp_path: Path) -> None:
    path, params = tmp_path / "net.onnx", {"w": jnp.ones(())}
    with pytest.raises(ValueError, match="inputs: expected at least one array"):
        export.onnx(path, lambda p: p["w"], params)
    with pytest.raises(ValueError, match=r"first axis.*\(3, 2\).*\(\).*dynamic_batch"):
        export.onnx(path, lambda p, x, y: x * y, params, jnp.ones((3, 2)), jnp.ones(()))
    with pytest.raises(ValueError, match="first axis of the same size"):
        export.onnx(path, lambda p, x, y: x, params, jnp.ones((3, 2)), jnp.ones(4))
    with pytest.raises(TypeError, match="inputs: .*expected an array.*got 'x'"):
        export.onnx(path, lambda p, x: x, params, "x")
    assert not path.exists()


def test_outputs_may_be_booleans_and_inputs_scalars(tmp_path: Path) -> None:
    path, params = tmp_path / "net.onnx", {"w": jnp.float32(2)}

    def apply(params: Any, x: Any) -> Any:
        return x > 0, params["w"] * x

    export.onnx(path, apply, params, jnp.ones(()), dynamic_batch=False)
    signs, doubled = run(path, np.array(-3, "f4"))
    assert signs.dtype == bool and not signs and doubled == -6


def test_masks_of_some_leaves_are_enough(tmp_path: Path) -> None:
    path, params = tmp_path / "net.onnx", {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}

    def apply(params: Any, x: Any) -> Any:
        return x @ params["a"] + params["b"][None]

    kept = jnp.array([[True, False, True], [False, True, True]])
    x = np.ones((1, 2), "f4")
    export.onnx(path, apply, params, x, masks={"a": kept})
    (found,) = run(path, x)
    np.testing.assert_array_equal(found, [[2, 2, 3]])
    with pytest.raises(ValueError, match="masks: c: expected the name and shape"):
        export.onnx(path, apply, params, x, masks={"c": kept})


def test_other_integers_are_found_before_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    monkeypatch.setitem(onnx_rules.SAME, "gt", "Less")
    with pytest.raises(ValueError, match="output_0: .*other bool values in 6 places"):
        export.onnx(
            path, lambda p, x: x > p["w"][None], {"w": jnp.zeros(3)}, jnp.ones((2, 3))
        )
    assert not path.exists()
