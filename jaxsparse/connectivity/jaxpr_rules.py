"""Runs a traced program on patterns: one rule for each primitive of JAX.

What a rule may say: data that is only moved is moved; a sum, a maximum or any
function of single entries passes whatever of its operands arrives; a product lets a
signal through where the other factor is. Functions are entered.
"""

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxsparse.connectivity import abstract_values
from jaxsparse.connectivity.abstract_values import Constant, Signal, Value, Walk, Weight

Rule = Callable[[Any, list[Value], Walk], list[Value]]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions of one array that are zero at zero, so that a weight stays what it is.
ZERO_AT_ZERO = _names(
    "abs asin asinh atan atanh cbrt ceil convert_element_type copy copy_p erf erf_inv "
    "expm1 floor log1p name neg real reduce_precision round sharding_constraint sign "
    "sin sinh sqrt square stop_gradient tan tanh"
)
# The other functions of single entries. A gate or condition counts as an operand.
ENTRYWISE = ZERO_AT_ZERO | _names(
    "acos acosh add add_any and atan2 bessel_i0e bessel_i1e clamp cos cosh digamma div "
    "eq erfc exp exp2 ge gt imag integer_pow is_finite le lgamma log logistic lt max "
    "min ne nextafter not or pow rem rsqrt sub xor"
)
# How many operands are data, the rest being indices; None if all are.
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
    "transpose": 1,
}
# Many entries into one: over axes, up to a place on an axis, and in windows.
GATHERS = _names(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum "
    "reduce_xor cumlogsumexp cummax cummin cumprod cumsum reduce_window_max "
    "reduce_window_min reduce_window_sum"
)
WINDOW = (
    *("window_dimensions", "window_strides", "padding"),
    *("base_dilation", "window_dilation"),
)
# Functions of two arrays, linear in each, and the parameters to hand on.
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
    """Runs a program on values.

    Args:
      jaxpr: the program.
      consts: values of its constants, which are arrays.
      inputs: values of its arguments.
      walk: what is asked; its lists are added to.

    Returns:
      The values of what the program returns.

    Raises:
      ValueError: for a primitive that there is no rule for, naming it.
    """
    known = dict(zip(jaxpr.constvars, map(Constant, consts), strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        return Constant(atom.val) if isinstance(atom, core.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        results = _step(eqn, [read(atom) for atom in eqn.invars], walk)
        known |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Runs one equation, by the rule of its primitive."""
    name = eqn.primitive.name
    if name in CALLS:
        body = next(eqn.params[key] for key in BODIES if key in eqn.params)
        consts = list(getattr(body, "consts", ()))
        return run(getattr(body, "jaxpr", body), consts, values, walk)
    if all(isinstance(value, Constant) for value in values):
        return _constant(eqn, values)
    if name not in RULES:
        _refuse(
            f"the primitive {name!r} is not known to `paths`",
            "functions of layers, sums and products; put another form into `apply`, or "
            "stop it before that point",
        )
    return RULES[name](eqn, values, walk)


def _refuse(what: str, wanted: str) -> NoReturn:
    raise ValueError(f"apply: {what}; wanted {wanted}")


def _constant(eqn: core.JaxprEqn, values: list[Constant]) -> list[Value]:
    """Computes what depends on no input, unless it depends on what is not known."""
    if any(value.value is None for value in values):
        return [Constant(None)] * len(eqn.outvars)
    return [Constant(x) for x in _bind(eqn, [v.value for v in values], eqn.params)]


def _bind(eqn: core.JaxprEqn, operands: list[Any], params: dict[str, Any]) -> list[Any]:
    """Applies the primitive itself, whatever it does, to other operands."""
    results = eqn.primitive.bind(*operands, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _avals(eqn: core.JaxprEqn) -> list[Any]:
    return [atom.aval for atom in eqn.invars]


def _like(values: list[Value], pattern: abstract_values.Pattern) -> Value:
    """Wraps a pattern made of values: a signal if one of them is, else a weight."""
    if any(isinstance(value, Signal) for value in values):
        return Signal(pattern)
    return Weight(pattern, abstract_values.leaves_of(values))


def _entrywise(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Passes what arrives by any operand; a weight only if it keeps its zeros."""
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    pairs = list(zip(values, _avals(eqn), strict=True))
    if any(isinstance(value, Signal) for value in values):
        # A constant brings nothing, and is left out to save the sum.
        followed = [pair for pair in pairs if not isinstance(pair[0], Constant)]
        arrived = [
            abstract_values.arriving(value, aval, walk) for value, aval in followed
        ]
        return [Signal(abstract_values.joined(arrived, shape))]
    kept = [isinstance(value, Weight) for value in values]
    is_sum = name in ("add", "add_any", "sub") and all(kept)
    is_scaled = name == "div" and kept == [True, False]
    if not (name in ZERO_AT_ZERO or is_sum or is_scaled):
        _refuse_weights(eqn, values)
    patterns = [value.pattern for value in values if isinstance(value, Weight)]
    return [_like(values, abstract_values.joined(patterns, shape))]


def _refuse_weights(eqn: core.JaxprEqn, values: list[Value]) -> NoReturn:
    leaves = ", ".join(abstract_values.leaves_of(values))
    _refuse(
        f"the weights of {leaves} meet {eqn.primitive.name!r} before any input, after "
        "which a weight of zero need not be zero",
        "weights to be used as they are, or leaves that are not prunable",
    )


def _move(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Moves patterns as the data is moved."""
    name = eqn.primitive.name
    count = MOVES[name] or len(values)
    data, rest = values[:count], values[count:]
    if any(not isinstance(v, Constant) or v.value is None for v in rest):
        _refuse(
            f"the indices of {name!r} depend on inputs or parameters",
            "indices that are known; let what is looked up be the input",
        )
    patterns = _patterns(data, _avals(eqn)[:count], walk)
    params = dict(eqn.params)
    if "fill_value" in params:
        params["fill_value"] = 0.0
    moved = _bind(eqn, patterns + [value.value for value in rest], params)
    return [_like(data, result) for result in moved]


def _patterns(
    data: list[Value], avals: list[Any], walk: Walk
) -> list[abstract_values.Pattern]:
    """Returns what arrives beside a signal, or what is there beside a weight."""
    pairs = zip(data, avals, strict=True)
    if any(isinstance(value, Signal) for value in data):
        return [abstract_values.arriving(value, aval, walk) for value, aval in pairs]
    return [abstract_values.present(value, aval) for value, aval in pairs]


def _select(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Chooses as a known condition does; else any operand may come through."""
    condition, *cases = values
    if not isinstance(condition, Constant) or condition.value is None:
        return _entrywise(eqn, values, walk)
    patterns = _patterns(cases, _avals(eqn)[1:], walk)
    return [_like(cases, lax.select_n(jnp.asarray(condition.value), *patterns))]


def _product(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Multiplies entry by entry, by contraction, or by convolution."""
    function, names = PRODUCTS[eqn.primitive.name]
    op = functools.partial(function, **{key: eqn.params[key] for key in names})
    return [abstract_values.multiply(op, values, _avals(eqn), walk)]


def _gather_up(eqn: core.JaxprEqn, values: list[Value], walk: Walk) -> list[Value]:
    """Joins what lies along axes, in windows, or earlier on an axis."""
    del walk
    if eqn.primitive.name != "reduce_sum" and isinstance(values[0], Weight):
        _refuse_weights(eqn, values)
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
    """Returns every operand as it came."""
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
