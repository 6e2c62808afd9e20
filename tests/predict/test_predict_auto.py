"""Predictors compute what the network computes, and have the forms measured fastest."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import masks, predict
from jaxsparse.coupling.program import trace
from jaxsparse.predict import forms, layers, segments, steps, timing
from jaxsparse.predict.timing import Time

SHAPE = (2, 6, 6, 3)


def draw(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def keep_largest(leaf: Any) -> Any:
    """Keeps 40 % of the inputs of each output."""
    sizes = abs(np.asarray(leaf)).reshape(-1, leaf.shape[-1])
    kept = sizes > np.quantile(sizes, 0.6, axis=0)
    return jnp.asarray(kept.reshape(leaf.shape))


WEIGHTS = {
    "conv": draw((3, 3, 3, 8), 0),
    "conv2": draw((3, 3, 8, 8), 1),
    "scale": 1 + abs(draw((8,), 2)),
    "query": draw((8, 8), 3),
    "key": draw((8, 8), 4),
    "head": draw((8, 5), 5),
}
PARAMS = {name: jnp.asarray(leaf) for name, leaf in WEIGHTS.items()}
MASKS = {
    name: None if leaf.ndim == 1 else keep_largest(leaf)
    for name, leaf in PARAMS.items()
}


def apply(params: Any, x: Any) -> Any:
    """A residual block, and two layers that read the same signal."""

    def conv(x: Any, kernel: Any) -> Any:
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=names
        )

    x = jax.nn.relu(conv(x, params["conv"]))
    scale = jnp.expand_dims(1 / jnp.sqrt(params["scale"]), (0, 1, 2))
    x = jax.nn.relu(x + scale * conv(x, params["conv2"]))
    x = x.mean((1, 2))
    x = jnp.tanh(x @ params["query"]) * jax.nn.relu(x @ params["key"])
    return {"logits": x @ params["head"], "features": x}


@pytest.fixture(scope="module")
def folded() -> layers.Folded:
    active = masks.apply(MASKS, PARAMS)
    return layers.fold(trace(apply, active, jnp.ones(SHAPE)), active)


@pytest.fixture(scope="module")
def expected() -> Any:
    x = draw(SHAPE, 9)
    return x, jax.jit(apply)(masks.apply(MASKS, PARAMS), x)


def run(compiled: segments.Compiled, x: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(("features", "logits"), segments.run(compiled, [x]), strict=True))


@pytest.mark.parametrize("form", ["dense", "condensed", "csr", "direct"])
def test_every_form_computes_the_network(
    form: str, folded: layers.Folded, expected: Any
) -> None:
    if form == "direct":
        pytest.importorskip("numba", reason="extra predict")
    names = [layer.name for layer in folded.layers.values()]
    assert names == ["conv", "conv2", "query", "key", "head"]
    taken = folded.layers if form != "dense" else {}
    plan = steps.make(folded, dict.fromkeys(taken, form))
    compiled = segments.build(plan)
    # Layers in XLA divide nothing; query and key run in the same part.
    assert len(compiled.segments) == (5 if form in ("csr", "direct") else 1)
    x, outputs = expected
    for name, value in run(compiled, x).items():
        np.testing.assert_allclose(value, outputs[name], rtol=1e-5, atol=1e-5)


def test_parts_in_numpy_compute_the_same(folded: layers.Folded, expected: Any) -> None:
    heads = [n for n, layer in folded.layers.items() if "conv" not in layer.name]
    compiled = segments.build(steps.make(folded, dict.fromkeys(heads, "csr")))
    in_numpy = tuple(part.numpy is not None for part in compiled.segments)
    assert in_numpy == (False, True, True)  # the convolutions have no rule
    x, outputs = expected
    for name, value in run(compiled._replace(in_numpy=in_numpy), x).items():
        np.testing.assert_allclose(value, outputs[name], rtol=1e-5, atol=1e-5)


def pretend(monkeypatch: pytest.MonkeyPatch, fastest: Callable[[str], float]) -> None:
    """Replaces measured times by a function of the name of what is measured."""

    def interleave(jobs: Mapping[str, Any], *, seconds: float) -> dict[str, Time]:
        assert seconds > 0
        for job in jobs.values():
            job()
        return {name: Time(*[float(fastest(name))] * 3) for name in jobs}

    monkeypatch.setattr(timing, "interleave", interleave)
    monkeypatch.setattr(timing, "singles", interleave)


def chosen(predictor: predict.Predictor) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for trial in predictor.trials:
        if trial.chosen:
            found.setdefault(trial.part, []).append(trial.form)
    return found


def test_the_fastest_form_is_chosen(
    monkeypatch: pytest.MonkeyPatch, expected: Any
) -> None:
    times = {"csr": 1, "condensed": 2, "dense": 3, "direct": 4, "numpy": 1, "xla": 2}
    times |= {"mixed: 5 csr": 0.5}
    pretend(monkeypatch, lambda name: times.get(name, 2.5))
    predictor = predict.auto(apply, PARAMS, MASKS, jnp.ones(SHAPE))
    assert set(predictor.forms.values()) == {"csr"}
    taken = chosen(predictor)
    assert taken.pop("whole") == ["mixed: 5 csr"]
    parts = {part: taken.pop(part) for part in [*taken] if "part" in part}
    assert [*parts.values()] == [["numpy"]] * len(parts) and parts
    assert taken == {name: ["csr"] for name in predictor.forms}
    tried = {(trial.part, trial.form) for trial in predictor.trials}
    every = ("dense", "csr", "direct", "condensed")
    assert tried >= {(name, form) for name in predictor.forms for form in every}
    assert len(str(predictor).splitlines()) == 2 + len(predictor.trials)
    x, outputs = expected
    for name, value in predictor(x).items():
        assert isinstance(value, np.ndarray)
        np.testing.assert_allclose(value, outputs[name], rtol=1e-5, atol=1e-5)


def test_a_mixed_program_that_is_slower_as_a_whole_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, expected: Any
) -> None:
    times = {"csr": 1, "condensed": 2}
    pretend(monkeypatch, lambda name: times.get(name, 3 + len(name)))
    predictor = predict.auto(apply, PARAMS, MASKS, jnp.ones(SHAPE))
    assert set(predictor.forms.values()) == {"dense"}
    assert chosen(predictor)["whole"] == ["dense"]
    assert any(t.part == "whole" and "csr" in t.form for t in predictor.trials)
    x, outputs = expected
    np.testing.assert_allclose(predictor(x)["logits"], outputs["logits"], rtol=1e-5)


def test_a_program_with_other_outputs_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrong(forms.Csr):
        def __call__(self, columns: Any) -> np.ndarray:
            return super().__call__(columns) * np.float32(1.001)

    monkeypatch.setattr(forms, "Csr", Wrong)
    pretend(monkeypatch, lambda name: {"csr": 1}.get(name, 2 + len(name)))
    predictor = predict.auto(apply, PARAMS, MASKS, jnp.ones(SHAPE))
    assert chosen(predictor)["whole"] == ["dense"]
    notes = {t.form: t.note for t in predictor.trials if t.part == "whole"}
    assert notes["mixed: 5 csr"] == "outputs differ"
    assert notes["mixed: 3 condensed"] == ""


def test_dead_units_are_removed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, len)
    weights = {"a": jnp.asarray(draw((6, 8), 0)), "b": jnp.asarray(draw((8, 3), 1))}
    ticket = masks.ones(weights, prunable=lambda name, leaf: True)
    ticket["a"] = ticket["a"].at[:, 3:].set(False)

    def mlp(params: Any, x: Any) -> Any:
        return jax.nn.relu(x @ params["a"]) @ params["b"]

    pretend(monkeypatch, lambda name: 1 if name == "compacted" else 2)
    predictor = predict.auto(mlp, weights, ticket, jnp.ones((4, 6)))
    assert chosen(predictor)["whole"] == ["compacted"]
    x = draw((4, 6), 3)
    expected = mlp(masks.apply(ticket, weights), x)
    np.testing.assert_allclose(predictor(x), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def small() -> predict.Predictor:
    weights = {"a": np.ones((4, 2), np.float32)}
    return predict.auto(
        lambda p, x: x @ p["a"], weights, {"a": None}, np.ones((1, 4), np.float32)
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((np.ones((2, 4), np.float32),), r"expected shape \(1, 4\).*batch size"),
        ((np.ones((1, 4)),), "dtype float32, got .*float64"),
        (([[1.0] * 4],), "expected arrays as in the example"),
        ((np.ones((1, 4), np.float32),) * 2, "expected arrays as in the example"),
    ],
)
def test_other_inputs_are_refused(
    small: predict.Predictor, inputs: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small(*inputs)
    np.testing.assert_array_equal(small(np.ones((1, 4), np.float32)), [[4.0, 4.0]])


@pytest.mark.parametrize(
    ("params", "ticket", "example", "message"),
    [
        (PARAMS, MASKS, 3.0, "example: expected arrays with entries, got 3.0"),
        (PARAMS, MASKS, (), "example: expected at least one array"),
        (PARAMS, MASKS, np.ones((0, 3)), "example: expected arrays with entries"),
        (
            *(PARAMS, MASKS, jax.ShapeDtypeStruct(SHAPE, jnp.float32)),
            "example: expected arrays",
        ),
        (PARAMS, {"head": jnp.ones(3, bool)}, draw(SHAPE, 0), "masks: head: expected"),
        (PARAMS, {"head": PARAMS["head"]}, draw(SHAPE, 0), "head"),
    ],
)
def test_wrong_arguments_are_refused(
    params: Any, ticket: Any, example: Any, message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        predict.auto(apply, params, ticket, example)


def test_traced_arguments_are_refused() -> None:
    words = "example: expected .* JAX; make the predictor outside of jax.jit"
    with pytest.raises(TypeError, match=words):
        jax.jit(lambda x: predict.auto(apply, PARAMS, MASKS, x))(draw(SHAPE, 0))
    with pytest.raises(TypeError, match=words):
        jax.jit(lambda x: predict.fixed(apply, PARAMS, MASKS, x, form="csr"))(
            draw(SHAPE, 0)
        )
    with pytest.raises(TypeError, match="apply"):
        predict.auto(None, PARAMS, MASKS, draw(SHAPE, 0))


@pytest.mark.parametrize("form", ["csr", "condensed"])
def test_predictors_of_one_form(form: str, expected: Any) -> None:
    predictor = predict.fixed(apply, PARAMS, MASKS, jnp.ones(SHAPE), form=form)
    convolution = "dense" if form == "condensed" else form
    wanted = dict.fromkeys(("query", "key", "head"), form)
    assert predictor.forms == wanted | {"conv": convolution, "conv2": convolution}
    assert predictor.trials == ()
    x, outputs = expected
    for name, value in predictor(x).items():
        np.testing.assert_allclose(value, outputs[name], rtol=1e-5, atol=1e-5)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="form: expected one of .*'csr'"):
        predict.fixed(apply, PARAMS, MASKS, jnp.ones(SHAPE), form="cs")
