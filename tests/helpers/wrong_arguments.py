"""What an argument of each kind may never be, and whether a call says so."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers import flat_options

from jaxsparse import rng, transforms
from jaxsparse.analysis import similarity

KEY = jax.random.key(0)
PARAMS = {"a": {"kernel": jnp.arange(1.0, 13.0).reshape(4, 3), "bias": jnp.ones(3)}}
MASKS = {"a": {"kernel": jnp.arange(12).reshape(4, 3) % 2 == 0, "bias": None}}
TURNED = jax.tree.map(jnp.transpose, PARAMS)
TURNED_MASKS = jax.tree.map(jnp.transpose, MASKS)
SCORES = {"a": {"kernel": jnp.arange(12.0).reshape(4, 3), "bias": None}}
X = np.linspace(0.0, 1.0, 8, dtype=np.float32).reshape(2, 4)
SOLUTION = similarity.Solution(PARAMS, MASKS)
INNER = optax.sgd(0.1)

NAN, INF, THING = float("nan"), float("inf"), object()
# What an argument of each kind may never be.
WRONG: dict[str, list[Any]] = {
    "fraction": [NAN, INF, -0.1, 1.5, np.int64(2), "x", THING],
    "integer": [NAN, INF, 1.5, 2.0, np.float32(2), -1, "x", THING],
    "number": [NAN, INF, "x", THING],
    "name": ["nothing", 3, THING],
    "patterns": ["*", 3, (3,), ("nothing/*",)],
    "prunable": ["*", 3, (3,), ("nothing/*",)],
    "real": [NAN, "x", THING],
    "masks": [3, THING, PARAMS, {}],
    "fitting masks": [3, THING, PARAMS, {}, TURNED_MASKS, {"b": MASKS}],
    "weights": [3, THING, {}],
    "fitting weights": [3, THING, {}, TURNED, {"b": PARAMS}],
    "function": [3, "x", THING],
    "solution": [3, THING],
    "boolean": [3, THING, PARAMS],
    "globs": ["*", 3, (3,)],
    "numbers": [3, THING, {}, {"b": SCORES}],
    "fitting tree": [TURNED_MASKS, {"b": MASKS}],
    "stack": [3, THING, {}],
    "counts": [THING, {"a": {"kernel": 1.5, "bias": None}}, {"b": 3}],
    "part": [NAN, INF, -0.1, 1.5, "x", THING],
    "structure": [3, "blocks", THING],
    "sides": [3, (2,), (0, 1), (1.5, 1), "xy", THING],
    "axes": [3, "xyz", {"nothing/*": "io"}, THING],
    "sizes": [3, "x", THING],
    "values by glob": [
        *(3, "x", THING, {"nothing/*": 3}, {"a/*": True}, {"a/*": np.True_}),
        *({"a/*": NAN}, {"a/*": 1.5}, {"a/*": 13}, {"a/*": "x"}),
    ],
    "state": [3, THING, PARAMS],
    "path": [3, THING, None],
}
KINDS = {
    "fraction": (
        *("sparsity", "initial_sparsity", "backward_sparsity", "drop_fraction"),
        *("min_layer_density", "fraction", "initial", "final", "otherwise"),
    ),
    "integer": (
        *("begin_step", "end_step", "update_every", "step", "level", "levels", "parts"),
        *(
            "iterations",
            "total",
            "count",
            "until",
            "end",
            "dimensions",
            "starts",
            "classes",
        ),
        *("bins", "capacity", "n", "m", "stop_step", "steps_per_epoch", "examples"),
        *("steps", "min_size", "kept", "top", "bottom", "probes", "batch_size"),
        *("columns_at_once", "size", "replicates"),
    ),
    "number": (
        *("decay", "regularization", "gain", "scale", "limit", "tolerance"),
        *("learning_rate", "momentum", "epsilon", "width"),
        *("start_temperature", "end_temperature"),
    ),
    "real": ("threshold",),
    "name": (
        *("distribution", "schedule", "drop_schedule", "fan", "kernel", "bias", "at"),
        *("norm_scale", "form", "subspace", "average", "baseline", "ties", "name"),
        *("layout",),
    ),
    "patterns": ("dense", "frozen", "exclude", "zero_init", "include"),
    "prunable": ("prunable",),
    "masks": ("masks",),
    "fitting masks": ("candidates", "inner", "outer", "next_masks"),
    "weights": ("params", "scores", "grads"),
    "function": ("loss", "apply", "score", "measure", "make_batch", "fn", "product"),
    "solution": ("solution",),
}
KIND = {name: kind for kind, names in KINDS.items() for name in names}


class Call(NamedTuple):
    """A call that works, and what its arguments are where the name does not say it."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    kinds: dict[str, str] = {}


def method(make: Callable[..., Any], **arguments: Any) -> Call:
    """A method and the beginning of its training."""

    def call(**arguments: Any) -> Any:
        return jax.eval_shape(flat_options.call(make, INNER, **arguments).init, PARAMS)

    defaults = flat_options.defaults(make)
    if "drop_schedule" in flat_options.fields(make):
        defaults |= {"drop_fraction": 0.3, "drop_schedule": "cosine"}
    if make not in (transforms.fixed, transforms.sr_ste):
        defaults["distribution"] = "uniform"
    return Call(call, defaults | arguments)


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Computes nothing: what is refused is refused before."""
    return lambda **arguments: jax.eval_shape(lambda: function(**arguments))


def refused_early(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles nothing: what goes as far as a compiled program was not refused."""

    def call(**arguments: Any) -> Any:
        with jax.disable_jit():
            return function(**arguments)

    return call


def loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((batch @ params["a"]["kernel"] + params["a"]["bias"][None]) ** 2)


def apply(params: Any, x: Any) -> jax.Array:
    return x @ params["a"]["kernel"] + params["a"]["bias"][None]


TWO = {"first": MASKS, "second": MASKS}
BOTH = {"first": "fitting masks", "second": "fitting masks"}
FIT = {"masks": "fitting masks", "params": "fitting weights"}
WHEN = {"update_every": 2, "end_step": 9, "begin_step": 1}
SCORED = {"scores": "numbers"}  # scores of a part of the weights are scores


def fresh(call: Call) -> dict[str, Any]:
    """Gives the call keys that nothing was drawn with yet."""
    return {
        name: jax.random.clone(value)
        if isinstance(value, jax.Array) and rng.is_key(value)
        else value
        for name, value in call.arguments.items()
    }


def fault(call: Call, name: str, wrong: Any) -> str | None:
    """Says what is wrong with how a wrong argument is taken; None if nothing."""
    try:
        call.function(**(fresh(call) | {name: wrong}))
    except (ValueError, TypeError) as error:
        if re.search(rf"\b{name}\b", str(error)):
            return None
        return f"{name}={wrong!r}: {type(error).__name__}: {str(error)[:200]}"
    except Exception as error:
        return f"{name}={wrong!r}: {type(error).__name__}: {str(error)[:200]}"
    return f"{name}={wrong!r}: no error"


def check(call: Call) -> None:
    """The call works, and no wrong argument is taken or refused by another's name."""
    call.function(**fresh(call))
    tried = [
        fault(call, name, wrong)
        for name in call.arguments
        for wrong in WRONG.get(call.kinds.get(name, KIND.get(name, "any")), [])
    ]
    assert [each for each in tried if each] == []
