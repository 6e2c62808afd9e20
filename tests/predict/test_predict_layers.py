"""Layers as matrices: every form computes what the operation of JAX computes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsparse.coupling.program import trace
from jaxsparse.predict import direct, forms, geometry, host_layers, layers, numpy_rules

# Products of small integers have no rounding, so that results are equal.
Array = np.ndarray


def integers(shape: tuple[int, ...], seed: int, density: float = 1.0) -> Array:
    draw = np.random.default_rng(seed)
    values = draw.integers(-3, 4, shape) * (draw.random(shape) < density)
    return values.astype(np.float32)


CONVOLUTIONS = {
    "same": ((7, 9), (3, 3), (1, 1), "SAME", (1, 1)),
    "stride": ((8, 9), (3, 3), (2, 2), "SAME", (1, 1)),
    "uneven": ((10, 11), (3, 2), (1, 3), "VALID", (2, 1)),
    "patches": ((8, 8), (4, 4), (4, 4), "VALID", (1, 1)),
    "skipping": ((8, 8), (1, 1), (2, 2), "VALID", (1, 1)),
    "dilated": ((9, 9), (3, 3), (2, 2), "SAME", (2, 2)),
    "cropped": ((8, 8), (3, 3), (1, 1), ((-1, 2), (1, -2)), (1, 1)),
    "sequence": ((9,), (3,), (2,), "SAME", (1,)),
    "volume": ((4, 5, 3), (2, 3, 2), (1, 2, 1), "SAME", (1, 1, 1)),
}


def only_layer(apply: Any, params: Any, x: Array) -> layers.Layer:
    folded = layers.fold(trace(apply, params, x), params)
    (layer,) = folded.layers.values()
    return layer


@pytest.mark.parametrize("form", ["csr", "direct"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_are_products_with_planes(case: str, form: str) -> None:
    if form == "direct":
        pytest.importorskip("numba", reason="extra predict")
    size, window, strides, padding, dilation = CONVOLUTIONS[case]
    letters = "DHW"[-len(size) :]
    order = (f"N{letters}C", f"{letters}IO", f"NC{letters}")

    def apply(kernel: Any, x: Any) -> Any:
        return lax.conv_general_dilated(
            *(x, kernel, strides, padding),
            rhs_dilation=dilation,
            dimension_numbers=order,
        )

    x = integers((2, *size, 4), 0)
    kernel = integers((*window, 4, 5), 1, density=0.4)
    host = host_layers.make(only_layer(apply, kernel, x), form)
    result = host.after(jnp.asarray(host.multiply(host.before(jnp.asarray(x)))))
    np.testing.assert_array_equal(result, apply(kernel, x))


EINSUMS = ("bi,io->bo", "oi,bi->ob", "bti,iho->btho", "iho,tib->hotb", "bthd,hdo->bto")


@pytest.mark.parametrize("form", ["csr", "direct"])
@pytest.mark.parametrize("text", EINSUMS)
def test_products_are_products_with_columns(text: str, form: str) -> None:
    if form == "direct":
        pytest.importorskip("numba", reason="extra predict")
    sizes = dict(zip("biothd", (3, 4, 5, 2, 3, 2), strict=True))
    operands = text.split("->")[0].split(",")
    arrays = [
        integers(tuple(sizes[c] for c in names), seed, density=0.5)
        for seed, names in enumerate(operands)
    ]
    # The signal is the operand with the batch.
    first = "b" not in operands[0]

    def apply(weight: Any, x: Any) -> Any:
        return jnp.einsum(text, *((weight, x) if first else (x, weight)))

    weight, x = arrays if first else arrays[::-1]
    host = host_layers.make(only_layer(apply, weight, x), form)
    assert host.is_view
    result = host.after(host.multiply(host.before(x)))
    np.testing.assert_array_equal(result, apply(weight, x))


def test_operations_that_are_no_layers() -> None:
    kernel, x = np.ones((3, 3, 1, 4), np.float32), np.ones((2, 8, 8, 4), np.float32)
    names = ("NHWC", "HWIO", "NHWC")

    def grouped(kernel: Any, x: Any) -> Any:
        return lax.conv_general_dilated(
            *(x, kernel, (1, 1), "SAME"), dimension_numbers=names, feature_group_count=4
        )

    def transposed(kernel: Any, x: Any) -> Any:
        return lax.conv_transpose(x[..., :1], kernel, (2, 2), "SAME")

    def batched(kernel: Any, x: Any) -> Any:
        return jnp.einsum("bhwc,hwic->bhwi", x[:, :3, :3], kernel)

    def activations(kernel: Any, x: Any) -> Any:
        return jnp.einsum("bhwc,bhwd->bcd", x, x * kernel[0, 0, 0, 0])

    for apply in (grouped, transposed, batched, activations):
        assert layers.fold(trace(apply, kernel, x), kernel).layers == {}


def test_a_weight_is_what_the_program_multiplies_by() -> None:
    params = {
        "scale": np.full((1, 3), 2.0, np.float32),
        "kernel": integers((3, 4), 0, density=0.5),
    }

    def apply(params: Any, x: Any) -> Any:
        return x @ (params["scale"] * params["kernel"].T).T

    layer = only_layer(apply, params, np.ones((1, 3), np.float32))
    assert layer.name == "kernel"
    np.testing.assert_array_equal(layer.matrix, 2 * params["kernel"].T)


@pytest.mark.parametrize("columns", [1, forms.MOST_COLUMNS, forms.MOST_COLUMNS + 1])
def test_condensed_matrices_hold_all_active_weights(columns: int) -> None:
    matrix = integers((6, 20), 2, density=0.8)
    matrix[3] = 0  # an output without inputs
    stored = forms.condense(matrix)
    assert stored is not None
    counts = np.count_nonzero(matrix, axis=1)
    assert stored.values.shape == (6, counts.max())
    again = np.zeros_like(matrix)
    np.add.at(again, (np.arange(6)[:, None], stored.indices), stored.values)
    np.testing.assert_array_equal(again, matrix)
    x = integers((20, columns), 3)
    result = jax.jit(forms.multiply_condensed)(*map(jnp.asarray, (*stored, x)))
    np.testing.assert_array_equal(result, matrix @ x)


def test_uneven_matrices_are_not_condensed() -> None:
    matrix = np.zeros((4, 9), np.float32)
    matrix[:, 0] = 1
    assert forms.condense(matrix) is not None
    matrix[0] = 1  # 9 + 3 weights would become 4 times 9
    assert forms.condense(matrix) is None


SMALL = (-2.0, -0.5, 0.25, 1.5)
OPERATIONS = {
    "add": lambda x: x + 2.0,
    "sub": lambda x: 1.0 - x,
    "mul": lambda x: x * x,
    "max": jax.nn.relu,
    "min": lambda x: jnp.minimum(x, 0.5),
    "neg": lambda x: -x,
    "abs": abs,
    "exp": jnp.exp,
    "log": lambda x: jnp.log(abs(x)),
    "sqrt": lambda x: jnp.sqrt(abs(x)),
    "square": jnp.square,
    "tanh": jnp.tanh,
    "erf": lax.erf,
    "erfc": lax.erfc,
    "logistic": jax.nn.sigmoid,
    "stop_gradient": lax.stop_gradient,
    "copy": jnp.copy,
    "broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (3, 4, 2), (1,)),
    "reshape": lambda x: x.reshape(2, 2),
    "slice": lambda x: x[1:4:2],
    "transpose": lambda x: x.reshape(2, 2).T,
    "squeeze": lambda x: lax.squeeze(x[:1], (0,)),
    "concatenate": lambda x: jnp.concatenate([x, x[:2]]),
    "select_n": lambda x: lax.select_n(np.array([True, False] * 2), x, 2 * x),
    "reduce_sum": lambda x: x.reshape(2, 2).sum(1),
    "reduce_max": lambda x: x.reshape(2, 2).max(0),
    "reduce_min": lambda x: x.reshape(2, 2).min(0),
}


@pytest.mark.parametrize("name", numpy_rules.OPERATIONS)
def test_operations_of_numpy_are_those_of_jax(name: str) -> None:
    x = np.array(SMALL, np.float32)
    program = trace(lambda params, x: OPERATIONS[name](x), x, x)
    values = dict(program.constants) | {program.inputs[0]: x}
    ran = set()
    for eqn in program.equations:
        rule = numpy_rules.rule(eqn, program.avals)
        given = [np.asarray(values[number], np.float32) for number in eqn.inputs]
        if eqn.name == "select_n":
            given[0] = given[0].astype(bool)
        ours = rule(*given) if rule else layers.evaluate(eqn, *given)
        ran |= {eqn.name} if rule else set()
        values.update(zip(eqn.outputs, ours, strict=True))
    result = values[program.outputs[0]]
    assert name in ran
    np.testing.assert_allclose(result, OPERATIONS[name](jnp.asarray(x)), rtol=1e-6)


def test_integers_and_booleans_stay_in_xla() -> None:
    x = np.arange(4)
    for apply in (lambda p, x: x + 1, lambda p, x: x > 2):
        (eqn, *_) = trace(apply, x, x).equations
        assert numpy_rules.rule(eqn, trace(apply, x, x).avals) is None


def test_planes_of_a_strided_convolution() -> None:
    # Two remainders along each position; the third entry of a window is one further.
    made = geometry.Convolution(
        (0, 3, 1, 2), (0, 3, 1, 2), (3, 3), (2, 2), (1, 1), ((0, 1), (0, 1)), 1, (4, 4)
    )
    planes = direct.planes_of(made)
    assert planes.sizes == (5, 5)
    assert planes.shifts[:3] == ((0, 0), (1, 0), (0, 1))
    assert planes.shifts[6] == (0, 5)
