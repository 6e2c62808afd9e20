"""Counts of steps that are none are refused by name, before anything is traced."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from helpers import flat_options

from jaxsparse import distributions, durations, masks, select, transforms
from jaxsparse.transforms import update_schedules


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    # Types are checked in tests alone; what is said is said without.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


SGD = optax.sgd(0.1)
PARAMS = {"head": {"kernel": jnp.ones((4, 4))}}
t = transforms
WHEN = {"sparsity": 0.5, "begin_step": 2, "end_step": 8, "update_every": 2}
TOP = {"sparsity": 0.5, "backward_sparsity": 0.2}
# Methods, arguments that are right, and those of them that count steps.
METHODS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    method.__name__: (method, WHEN, ("begin_step", "end_step", "update_every"))
    for method in (
        *(t.gradual_magnitude, t.granet, t.ac_dc, t.straight_through),
        *(t.sparse_evolution, t.rigl, t.snfs, t.mest, t.east, t.neurrev),
    )
} | {
    "one_shot_magnitude": (
        t.one_shot_magnitude,
        {"sparsity": 0.5, "step": 3},
        ("step",),
    ),
    "dynadiag": (t.dynadiag, {"sparsity": 0.5, "end_step": 8}, ("end_step",)),
    "top_kast": (t.top_kast, TOP | {"update_every": 1}, ("update_every",)),
    "sr_ste": (t.sr_ste, {"n": 2, "m": 4, "update_every": 1}, ("update_every",)),
    "granet, stop": (t.granet, WHEN | {"stop_step": 9}, ("stop_step",)),
}
METHODS["granet"] = (t.granet, WHEN, METHODS["granet"][2])
CASES = [(name, field) for name, (_, _, fields) in METHODS.items() for field in fields]
WRONG = (1.0, 1.5, math.nan, math.inf, "3", True, np.float32(2), -1, 2**31, 10**12)


@pytest.mark.parametrize(("name", "field"), CASES)
def test_what_counts_no_steps_is_refused(name: str, field: str) -> None:
    make, right, _ = METHODS[name]
    for value in WRONG:
        with pytest.raises((TypeError, ValueError), match=f"^{field}: expected .*got"):
            flat_options.call(make, SGD, **right | {field: value})
    with pytest.raises(
        TypeError, match=f"^{field}: expected .*got a JAX array.*inject_hyper"
    ):
        flat_options.call(make, SGD, **right | {field: jnp.int32(3)})
    flat_options.call(make, SGD, **right | {field: np.int64(right[field])})


def test_hyperparameters_are_injected_inside() -> None:
    tx = optax.inject_hyperparams(transforms.rigl)(SGD, sparsity=0.5, end_step=9)
    with pytest.raises(TypeError, match=r"^update_every: .*rigl\(optax.inject"):
        tx.init(PARAMS)
    inner = optax.inject_hyperparams(optax.sgd)(0.1)
    tx = transforms.rigl(inner, sparsity=0.5, update_every=2, end_step=9)
    jax.eval_shape(tx.init, PARAMS)


def test_tables_are_no_longer_than_a_million_changes() -> None:
    far = WHEN | {"end_step": 2**31 - 1, "update_every": 1}
    for make in (t.rigl, t.gradual_magnitude, t.ac_dc):
        if make is t.ac_dc:  # needs no table
            make(SGD, **far)
            continue
        with pytest.raises(ValueError, match="^update_every: expected at most 1,000,0"):
            make(SGD, **far)
    t.rigl(SGD, **far, updates=t.RigLOptions(drop_schedule="constant"))
    assert (
        len(update_schedules.update_steps(update_schedules.UpdateSchedule(0, 1, 10**6)))
        == 10**6
    )


REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "steps_per_epoch: expected .*got 1.5": (
        durations.to_steps,
        {"duration": "2ep", "steps_per_epoch": 1.5},
    ),
    "steps_per_epoch: expected .*got nan": (
        durations.to_steps,
        {"duration": "2ep", "steps_per_epoch": math.nan},
    ),
    "total: expected .*got inf": (
        durations.to_steps,
        {"duration": "10%", "steps_per_epoch": 3, "total": math.inf},
    ),
    "levels: expected .*got 1.5": (
        durations.kept_per_level,
        {"total": 10, "fraction": 0.2, "levels": 1.5},
    ),
    "levels: expected .*got 1000000000000": (
        durations.kept_per_level,
        {"total": 10, "fraction": 0.2, "levels": 10**12},
    ),
    "total: expected .*got 10.5": (
        durations.kept_per_level,
        {"total": 10.5, "fraction": 0.2, "levels": 2},
    ),
    "fraction: expected .*got nan": (
        durations.kept_per_level,
        {"total": 10, "fraction": math.nan, "levels": 2},
    ),
    "end_step: expected .*got None": (
        t.gradual_magnitude,
        {"inner": SGD} | WHEN | {"end_step": None},
    ),
    "inner: expected .*got None": (t.gradual_magnitude, {"inner": None} | WHEN),
    "inner: expected .*got 3": (t.sr_ste, {"inner": 3}),
    "sparsity: expected .*got 1000": (
        distributions.count_kept,
        {"total": 10, "sparsity": 10**400},
    ),
    "packed: expected .*got None": (masks.unpack, {"packed": None, "template": {}}),
    "packed masks: w: expected .*got int64": (
        masks.unpack,
        {"packed": {"w": [1]}, "template": {"w": jnp.ones(8, bool)}},
    ),
    "scores: a: expected an array": (select.all_finite, {"scores": {"a": "x"}}),
    "candidates: a: expected a boolean array": (
        select.all_finite,
        {"scores": {"a": jnp.ones(3)}, "candidates": {"a": jnp.ones(3)}},
    ),
    r"kept: a: expected shape \(3,\).*got \(4,\)": (
        select.count_ties,
        {
            "scores": {"a": jnp.ones(3)},
            "kept": {"a": jnp.ones(4, bool)},
            "pooled": True,
        },
    ),
    "kept: expected .*got nan": (
        durations.open_lth_kept,
        {"kept": math.nan, "fraction": 0.2},
    ),
    "sparsity: expected .*got nan": (
        t.gradual_magnitude,
        {"inner": SGD} | WHEN | {"sparsity": math.nan},
    ),
    "initial_sparsity: expected .*got inf": (
        t.straight_through,
        {"inner": SGD} | WHEN | {"initial_sparsity": math.inf},
    ),
    "schedule: expected a function with finite values": (
        t.gradual_magnitude,
        {"inner": SGD} | WHEN | {"schedule": lambda progress: math.nan},
    ),
    "schedule: expected sparsities": (
        t.gradual_magnitude,
        {"inner": SGD} | WHEN | {"schedule": [0.1, 0.2, math.nan, 0.5]},
    ),
    "gradient_weight: expected .*got nan": (
        t.mest,
        {"inner": SGD} | WHEN | {"gradient_weight": math.nan},
    ),
    "regularization: expected .*got inf": (
        t.top_kast,
        {"inner": SGD} | TOP | {"regularization": math.inf},
    ),
    "decay: expected .*got nan": (t.sr_ste, {"inner": SGD, "decay": math.nan}),
    "n: expected .*got 1.5": (t.sr_ste, {"inner": SGD, "n": 1.5}),
    "prunable: expected no value together with masks": (
        t.fixed,
        {"inner": SGD, "masks": PARAMS, "prunable": ("*",)},
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_arguments_are_refused_by_name(message: str) -> None:
    function, arguments = REFUSED[message]
    with pytest.raises((ValueError, TypeError), match="^" + message):
        flat_options.call(function, **arguments)


@pytest.mark.parametrize("latent", [False, True])
def test_a_missing_gradient_is_named(latent: bool) -> None:
    make = t.straight_through if latent else t.rigl
    options = {} if latent else {"update_every": 2, "end_step": 9}
    tx = make(SGD, sparsity=0.5, **options)
    params = PARAMS | {"scale": jnp.ones(3)}
    state = jax.eval_shape(tx.init, params)
    with pytest.raises(ValueError, match="^grads: expected a gradient for head/kern"):
        tx.update({"head": {"kernel": None}, "scale": params["scale"]}, state, params)


def test_fixed_takes_other_leaves() -> None:
    params = {"head": {"table": jnp.ones((4, 4))}}
    state = transforms.fixed(SGD, prunable=("*/table",)).init(params)
    assert [*jax.tree.leaves(state.masks)][0].all()


def test_what_has_no_mask_is_no_score() -> None:
    # Such as a random key among the parameters.
    params = {"a": jnp.ones(1), "rng": jax.random.key(0)}
    assert select.all_finite(params, {"a": jnp.array([True]), "rng": None})
