"""Runs a traced program on abstract values, with one rule per JAX primitive.

The rules are of three kinds. A primitive that only moves data moves patterns in the
same way. A sum, a maximum or any other function of single entries transmits what
arrives through any of its operands. A product transmits a signal where the other factor
is present. Calls of other programs are entered.
"""

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxsparse.connectivity import abstract_values
from jaxsparse.connectivity.abstract_values import Constant, Signal, Value, Walk, Weight

Rule = Callable[[Any, list[Value], Walk], list[Value]]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions of one array that are zero at zero. A pruned weight stays zero under them,
# so the pattern of a weight does not change.
ZERO_AT_ZERO = _names(
    "abs asin asinh atan atanh cbrt ceil convert_element_type copy erf erf_inv "
    "expm1 floor log1p name neg real reduce_precision round sharding_constraint sign "
    "sin sinh sqrt square stop_gradient tan tanh"
)
# All functions of single entries. A gate or condition counts as an operand too.
ENTRYWISE = ZERO_AT_ZERO | _names(
    "acos acosh add add_any and atan2 bessel_i0e bessel_i1e clamp cos cosh digamma div "
    "eq erfc exp exp2 ge gt imag integer_pow is_finite le lgamma log log2 logistic lt "
    "max min ne nextafter not or pow rem rsqrt sub xor"
)
# Primitives that move data, with the number of operands that are data, as opposed to
# indices; None if all are.
MOVES = {
    "broadcast_in_dim": 1,
    "concatenate": None,
    "dynamic_slice": 1,
    "dynamic_update_slice": 2,
    "expand_dims": 1,
    "gather": 1,
    "pad": 2,
    "reshape": 1,
    "rev": 1,
    "slice": 1,
    "split": 1,
    "squeeze": 1,
    "stack": None,
    "tile": 1,
    "transpose": 1,
    "unstack": 1,
}
# Primitives that reduce many entries to one: over axes, cumulatively along an axis, and
# over windows.
GATHERS = _names(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum "
    "reduce_xor cumlogsumexp cummax cummin cumprod cumsum reduce_window_max "
    "reduce_window_min reduce_window_sum"
)
WINDOW = (
    *("window_dimensions", "window_strides", "padding"),
    *("base_dilation", "window_dilation"),
)
# Functions of two arrays that are linear in each, with the parameters to pass on.
# Others, such as the dtype of the result, describe the original arrays, not patterns.
PRODUCTS = {
    "mul": (jnp.multiply, ()),
    "dot_general": (lax.dot_general, ("dimension_numbers",)),
    "conv_general_dilated": (
        lax.conv_general_dilated,
        (
            *("window_strides", "padding", "lhs_dilation", "rhs_dilation"),
            *("dimension_numbers", "feature_group_count", "batch_group_count"),
        ),
    ),
}
CALLS = _names(
    "checkpoint closed_call core_call custom_jvp_call custom_vjp_call "
    "custom_vjp_call_jaxpr jit pjit remat remat2"
)
BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def run(
    jaxpr: core.Jaxpr, consts: list[Any], inputs: list[Value], walk: Walk
) -> list[Value]:
    """Runs a program on abstract values.

    Args:
      jaxpr: the program.
      consts: arrays of its constants.
      inputs: values of its arguments.
      walk: the pass, with its question; its lists are appended to.

    Returns:
      The values of the program's outputs.

    Raises:
      ValueError: if a primitive has no rule, or cannot be followed for these operands.
        The message names the primitive.
    """
    environment = dict(zip(jaxpr.constvars, map(Constant, consts), strict=True))
    environment |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        return (
            Constant(atom.val) if isinstance(atom, core.Literal) else environment[atom]
        )

    for eqn in jaxpr.eqns:
        results = _step(eqn, [read(atom) for atom in eqn.invars], walk)
        environment |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Runs one equation by the rule of its primitive."""
    name = eqn.primitive.name
    if name in CALLS:
        body = next(eqn.params[key] for key in BODIES if key in eqn.params)
        consts = list(getattr(body, "consts", ()))
        return run(getattr(body, "jaxpr", body), consts, values, walk)
    # Before looking for a rule, since constants may use any primitive, such as random
    # numbers or a sort.
    if all(isinstance(value, Constant) for value in values):
        return _constant(eqn, values)
    if name not in RULES:
        _raise_unsupported(
            "layers, elementwise functions, sums and products",
            f"the primitive {name!r}; write it in another form in `apply`, or end "
            "`apply` before it",
        )
    return RULES[name](eqn, values, walk)


def _raise_unsupported(expected: str, given: str) -> NoReturn:
    """Raises the ValueError for a forward function that cannot be followed."""
    raise ValueError(f"apply: expected {expected}, got {given}")


def _constant(eqn: core.JaxprEqn, values: list[Constant]) -> list[Value]:
    """Evaluates an equation of constants; unknown if any operand is unknown."""
    if any(value.value is None for value in values):
        return [Constant(None)] * len(eqn.outvars)
    return [Constant(x) for x in _bind(eqn, [v.value for v in values], eqn.params)]


def _bind(eqn: core.JaxprEqn, operands: list[Any], params: dict[str, Any]) -> list[Any]:
    """Applies the equation's primitive to other operands and parameters."""
    results = eqn.primitive.bind(*operands, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _avals(eqn: core.JaxprEqn) -> list[Any]:
    """Lists the shapes and dtypes of the equation's operands."""
    return [atom.aval for atom in eqn.invars]


def _like(values: list[Value], pattern: abstract_values.Pattern) -> Value:
    """Wraps a pattern as a signal if any of the values is one, else as a weight."""
    if any(isinstance(value, Signal) for value in values):
        return Signal(pattern)
    return Weight(pattern, abstract_values.leaves_of(values))


def _entrywise(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Transmits what arrives through any operand.

    Without a signal, the result is a weight. This requires that pruned weights stay
    zero: a function that is zero at zero, a sum of weights, or a weight divided by a
    constant.
    """
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    pairs = list(zip(values, _avals(eqn), strict=True))
    if any(isinstance(value, Signal) for value in values):
        # No path arrives through a constant. Leaving it out saves the sum.
        operands = [pair for pair in pairs if not isinstance(pair[0], Constant)]
        patterns = [
            abstract_values.arriving(value, aval, walk) for value, aval in operands
        ]
        return [Signal(abstract_values.joined(patterns, shape))]
    is_weight = [isinstance(value, Weight) for value in values]
    is_sum = name in ("add", "add_any", "sub") and all(is_weight)
    is_scaled = name == "div" and is_weight == [True, False]
    if not (name in ZERO_AT_ZERO or is_sum or is_scaled):
        _raise_changed_weights(eqn, values)
    patterns = [value.pattern for value in values if isinstance(value, Weight)]
    return [_like(values, abstract_values.joined(patterns, shape))]


def _raise_changed_weights(eqn: core.JaxprEqn, values: list[Value]) -> NoReturn:
    """Raises the ValueError for weights that may become nonzero where they are zero."""
    leaves = ", ".join(abstract_values.leaves_of(values))
    _raise_unsupported(
        "weights that are multiplied by a signal unchanged",
        f"{eqn.primitive.name!r} of the weights of {leaves}, which may turn zeros into "
        "nonzero values; use the weights unchanged, or exclude the leaves with "
        "`prunable=`",
    )


def _move(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Moves patterns in the same way as the data."""
    name = eqn.primitive.name
    count = MOVES[name] or len(values)
    data, indices = values[:count], values[count:]
    if name == "gather" and isinstance(indices[0], Signal):
        return [_look_up(eqn, data[0], indices[0], walk)]
    if any(not isinstance(v, Constant) or v.value is None for v in indices):
        _raise_unsupported(
            f"constant indices for {name!r}, or rows of a matrix that an input selects",
            "other indices that depend on inputs or parameters; pass the values that "
            "are looked up as inputs",
        )
    patterns = _patterns(data, _avals(eqn)[:count], walk)
    params = dict(eqn.params)
    # What `gather` fills in out of bounds, such as NaN, would be a path in a pattern.
    if "fill_value" in params:
        params["fill_value"] = 0.0
    moved = _bind(eqn, patterns + [value.value for value in indices], params)
    return [_like(data, result) for result in moved]


def _look_up(eqn: core.JaxprEqn, table: Value, index: Signal, walk: Walk) -> Value:
    """Selects rows of a matrix by an input, as in an embedding.

    This is the product of the matrix with a vector that is 1 at the row and 0
    elsewhere. Since any row may be selected, a path arrives at every entry of it.
    """
    numbers, shape = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape
    rank = len(index.pattern.shape)
    if not (
        len(shape) == 2
        and numbers.collapsed_slice_dims == numbers.start_index_map == (0,)
        and numbers.offset_dims == (rank - 1,)
        and tuple(eqn.params["slice_sizes"]) == (1, shape[1])
    ):
        _raise_unsupported(
            "rows of a matrix where an input selects entries by 'gather'",
            f"other parts of an array of shape {shape}; write it in another form",
        )
    rows = jnp.broadcast_to(index.pattern, (*index.pattern.shape[:-1], shape[0]))
    op = functools.partial(jnp.tensordot, axes=1)
    avals = [jax.ShapeDtypeStruct(rows.shape, rows.dtype), eqn.invars[0].aval]
    return abstract_values.multiply(op, [Signal(rows), table], avals, walk)


def _patterns(
    data: list[Value], avals: list[Any], walk: Walk
) -> list[abstract_values.Pattern]:
    """Returns the patterns of operands that are joined into one array.

    If one is a signal, these are the entries where a path arrives; otherwise the
    entries that are present.
    """
    pairs = zip(data, avals, strict=True)
    if any(isinstance(value, Signal) for value in data):
        return [abstract_values.arriving(value, aval, walk) for value, aval in pairs]
    return [abstract_values.present(value, aval) for value, aval in pairs]


def _select(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Selects patterns by a known condition; by an unknown one, transmits them all."""
    condition, *cases = values
    if not isinstance(condition, Constant) or condition.value is None:
        return _entrywise(eqn, values, walk)
    patterns = _patterns(cases, _avals(eqn)[1:], walk)
    return [_like(cases, lax.select_n(jnp.asarray(condition.value), *patterns))]


def _product(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Multiplies entry by entry, by contraction or by convolution."""
    function, names = PRODUCTS[eqn.primitive.name]
    op = functools.partial(function, **{key: eqn.params[key] for key in names})
    return [abstract_values.multiply(op, values, _avals(eqn), walk)]


def _gather_up(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Joins the entries that a reduction, a window or a cumulative function combines.

    Weights not yet multiplied by a signal may only be summed.
    """
    del walk
    if eqn.primitive.name != "reduce_sum" and isinstance(values[0], Weight):
        _raise_changed_weights(eqn, values)
    pattern, params = values[0].pattern, eqn.params
    if "axes" in params:
        total = jnp.sum(pattern, axis=tuple(params["axes"]))
    elif "reverse" in params:
        total = lax.cumsum(pattern, axis=params["axis"], reverse=params["reverse"])
    else:
        options = {key: params[key] for key in WINDOW}
        total = lax.reduce_window(pattern, 0.0, lax.add, **options)
    return [_like(values, abstract_values.saturate(total))]


def _pass(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Returns every operand unchanged."""
    del eqn, walk
    return values


RULES: dict[str, Rule] = (
    dict.fromkeys(ENTRYWISE, _entrywise)
    | dict.fromkeys(MOVES, _move)
    | dict.fromkeys(PRODUCTS, _product)
    | dict.fromkeys(GATHERS, _gather_up)
    | dict.fromkeys(("device_put", "optimization_barrier"), _pass)
    | {"select_n": _select}
)
