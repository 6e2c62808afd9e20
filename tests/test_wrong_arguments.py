"""Wrong arguments of public functions: a ValueError or TypeError that names them."""

import functools
import math
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import jaxtyping
import pytest
from helpers import flat_options
from helpers.wrong_arguments import (
    FIT,
    INNER,
    KEY,
    MASKS,
    PARAMS,
    SCORED,
    SCORES,
    WHEN,
    Call,
    X,
    apply,
    check,
    fault,
    loss,
    method,
    traced,
)

from jaxsparse import (
    distributions,
    durations,
    fan_axes,
    initializers,
    masks,
    prune,
    scores,
    select,
    transforms,
    tree,
)
from jaxsparse.transforms import update_schedules

CALENDAR = update_schedules.UpdateSchedule(0, 2, 9, True)
SELECTED = {"scores": SCORES, "candidates": MASKS, "frozen": (), "ties": "spread"}
PRUNED = {"params": PARAMS, "sparsity": 0.5, "dense": (), "prunable": ("*/kernel",)}
PRUNED |= {"distribution": "global", "min_layer_density": 0.0}
AXES = fan_axes.parse("io")
ORTHOGONAL = {"gain": 1.0, "key": KEY}
DISTRIBUTED = {"masks": MASKS, "sparsity": 0.5, "dense": ()}
STATE = transforms.fixed(INNER, masks=MASKS).init(PARAMS)


def metainit(**arguments: Any) -> Any:
    """MetaInit, with the fields of its options as arguments."""
    fields = initializers.MetaInitOptions._fields
    chosen = {name: arguments.pop(name) for name in fields}
    options = initializers.MetaInitOptions(**chosen)
    return initializers.metainit(**arguments, options=options)


CALLS = {
    "masks.ones": Call(masks.ones, {"params": PARAMS, "prunable": ("*/kernel",)}),
    "masks.apply": Call(masks.apply, {"masks": MASKS, "params": PARAMS}, FIT),
    "masks.by_globs": Call(masks.glob_filter, {"globs": ("*",)}, {"globs": "globs"}),
    "masks.tree_map": Call(
        masks.tree_map, {"fn": lambda mask: mask, "masks": MASKS}, {"masks": "any"}
    ),
    "masks.kept": Call(masks.num_active, {"masks": MASKS}, {"masks": "boolean"}),
    "masks.sparsity": Call(masks.sparsity, {"masks": MASKS}, {"masks": "boolean"}),
    "masks.by_layer": Call(masks.layer_counts, {"masks": MASKS}, {"masks": "boolean"}),
    "masks.size": Call(masks.size, {"masks": MASKS}, {"masks": "sizes"}),
    "masks.pack": Call(masks.pack, {"masks": MASKS}, {"masks": "boolean"}),
    "tree.match_structure": Call(
        tree.match_structure,
        {"tree": MASKS, "template": MASKS},
        {"tree": "fitting tree", "template": "fitting tree"},
    ),
    "tree.map_with_names": Call(
        tree.map_with_names, {"fn": lambda name, leaf: leaf, "tree": PARAMS}
    ),
    "tree.matches": Call(
        tree.matches, {"name": "a", "globs": ("a",)}, {"name": "any", "globs": "globs"}
    ),
    "tree.check_globs": Call(
        lambda globs: tree.check_globs(globs, ["a"], field="globs"),
        {"globs": ("a",)},
        {"globs": "globs"},
    ),
    "tree.leading_axis": Call(
        lambda stack: tree.leading_axis(stack, field="stack"),
        {"stack": X},
        {"stack": "stack"},
    ),
    "select.globally": Call(select.top_k_global, SELECTED | {"count": 3}, SCORED),
    "select.per_layer": Call(
        select.top_k_per_layer,
        SELECTED | {"counts": {"a": {"kernel": 3, "bias": None}}},
        SCORED | {"counts": "any"},
    ),
    "select.top_k_global_at_least": Call(
        select.top_k_global_at_least,
        SELECTED | {"count": 3, "minimums": {"a": {"kernel": 1, "bias": None}}},
        SCORED | {"minimums": "any"},
    ),
    "select.floors": Call(
        lambda masks, min_layer_density, frozen: select.floors(
            masks, min_layer_density, frozen=frozen
        ),
        {"masks": MASKS, "min_layer_density": 0.5, "frozen": ()},
        {"min_layer_density": "part", "frozen": "globs"},
    ),
    "select.fit": Call(
        select.round_counts,
        {
            "structure": select.n_of_m(2),
            "masks": MASKS,
            "counts": {"a": {"kernel": 6, "bias": None}},
        },
        {"structure": "structure", "counts": "any", "masks": "weights"},
    ),
    "select.n_of_m": Call(select.n_of_m, {"size": 2}),
    "select.blocks": Call(select.blocks, {"size": (2, 1)}, {"size": "sides"}),
    "select.bind": Call(
        lambda structure, dense, axes: select.bind(
            structure, PARAMS, dense=dense, axes=axes
        ),
        {"structure": select.n_of_m(2), "dense": (), "axes": None},
        {"structure": "structure", "axes": "axes", "dense": "globs"},
    ),
    "select.grid": Call(
        select.unit_view,
        {"structure": select.n_of_m(2), "name": "a", "shape": (4, 3)},
        {"structure": "structure", "name": "any", "shape": "any"},
    ),
    "prune.prune": Call(
        lambda **arguments: flat_options.call(prune.prune, **arguments),
        PRUNED | {"structure": None, "axes": None},
        {"axes": "axes"},
    ),
    "prune.prune_iteratively": Call(
        lambda **arguments: flat_options.call(prune.prune_iteratively, **arguments),
        PRUNED
        | {
            "score": scores.magnitude,
            "iterations": 1,
            "schedule": "linear",
            "axes": None,
        },
        {"axes": "axes"},
    ),
    "fan_axes.of_tree": Call(
        fan_axes.of_tree,
        {"tree": PARAMS, "axes": "io"},
        {"axes": "axes"},
    ),
    "fan_axes.parse": Call(fan_axes.parse, {"layout": "io"}, {"layout": "axes"}),
    "fan_axes.fans": Call(
        fan_axes.fans,
        {"axes": AXES, "name": "a", "shape": (4, 3)},
        {"axes": "solution", "name": "any", "shape": "any"},
    ),
    "fan_axes.of_linen": Call(
        lambda apply, params: fan_axes.of_linen(apply, params, X),
        {"apply": apply, "params": PARAMS},
    ),
    "masks.is_nested": Call(masks.is_nested, {"inner": MASKS, "outer": MASKS}),
    "distributions.count_kept": Call(
        distributions.count_kept, {"total": 9, "sparsity": 0.5}
    ),
    "distributions.uniform": Call(distributions.uniform, DISTRIBUTED),
    "distributions.erdos_renyi": Call(distributions.erdos_renyi, DISTRIBUTED),
    "distributions.erdos_renyi_kernel": Call(
        distributions.erdos_renyi_kernel, DISTRIBUTED
    ),
    "distributions.balanced": Call(distributions.balanced, DISTRIBUTED),
    "distributions.divide": Call(
        distributions.divide, DISTRIBUTED | {"distribution": "uniform"}
    ),
    "distributions.by_glob": Call(
        distributions.by_glob,
        {"masks": MASKS, "values": {"a/*": 3}, "otherwise": 0.5},
        {"values": "values by glob"},
    ),
    "durations.to_steps": Call(
        durations.to_steps,
        {"duration": "2ep", "steps_per_epoch": 3, "total": 9},
        {"duration": "name"},
    ),
    "durations.kept_per_level": Call(
        durations.kept_per_level, {"total": 9, "fraction": 0.2, "levels": 2}
    ),
    "durations.open_lth_kept": Call(
        durations.open_lth_kept, {"kept": 9, "fraction": 0.2}
    ),
    "update_schedules.make_update_schedule": Call(
        update_schedules.make_update_schedule, WHEN | {"include_end": True}
    ),
    "update_schedules.drop_fractions": Call(
        update_schedules.drop_fractions,
        {"update_schedule": CALENDAR, "fraction": 0.3, "schedule": "cosine"},
        {"fraction": "any"},  # messages call it drop_fraction, as the methods do
    ),
    "transforms.fixed": method(transforms.fixed, masks=MASKS),
    "transforms.gradual_magnitude": method(
        transforms.gradual_magnitude, sparsity=0.5, **WHEN
    ),
    "transforms.one_shot_magnitude": method(
        transforms.one_shot_magnitude, sparsity=0.5, step=3
    ),
    "transforms.granet": method(transforms.granet, sparsity=0.5, **WHEN, stop_step=20),
    "transforms.ac_dc": method(transforms.ac_dc, sparsity=0.5, **WHEN),
    "transforms.rigl": method(transforms.rigl, sparsity=0.5, **WHEN),
    "transforms.sparse_evolution": method(
        transforms.sparse_evolution, sparsity=0.5, **WHEN
    ),
    "transforms.mest": method(transforms.mest, sparsity=0.5, **WHEN),
    "transforms.east": method(transforms.east, sparsity=0.5, **WHEN),
    "transforms.neurrev": method(transforms.neurrev, sparsity=0.5, **WHEN),
    "transforms.dynadiag": method(transforms.dynadiag, sparsity=0.5, end_step=9),
    "transforms.snfs": method(transforms.snfs, sparsity=0.5, **WHEN),
    "transforms.straight_through": method(transforms.straight_through, sparsity=0.5),
    "transforms.top_kast": method(
        transforms.top_kast, sparsity=0.5, backward_sparsity=0.2
    ),
    "transforms.sr_ste": method(transforms.sr_ste),
    "transforms.apply_updates": Call(
        transforms.apply_updates,
        {"params": PARAMS, "updates": PARAMS, "opt_state": STATE},
        {
            "params": "fitting weights",
            "updates": "fitting weights",
            "opt_state": "state",
        },
    ),
    "transforms.weight_specs": Call(
        transforms.weight_specs,
        {"params": PARAMS, "axis": "d", "parts": 2, "min_size": 4},
    ),
    "initializers.initialize": Call(
        traced(initializers.initialize),
        {
            "template": PARAMS,
            "kernel": "kaiming_normal",
            "bias": "zeros",
            "norm_scale": "ones",
            "zero_init": (),
            "key": KEY,
        },
    ),
    "initializers.per_neuron": Call(
        initializers.per_neuron, {"fan": "in", "distribution": "normal", "scale": 1.0}
    ),
    "initializers.sparsity_aware": Call(
        initializers.sparsity_aware,
        {
            "params": PARAMS,
            "masks": MASKS,
            "fan": "in",
            "distribution": "normal",
            "scale": 1.0,
            "key": KEY,
        },
    ),
    "initializers.exact_orthogonal": Call(
        initializers.exact_orthogonal,
        ORTHOGONAL | {"params": PARAMS, "counts": {"a": {"kernel": 6, "bias": None}}},
        {"counts": "counts"},
    ),
    "initializers.sparse_orthogonal": Call(
        initializers.sparse_orthogonal,
        ORTHOGONAL | {"shape": (4, 3), "count": 6},
        {"shape": "any"},
    ),
    "initializers.gaussian_batches": Call(
        initializers.gaussian_batches, {"shape": (2, 4), "classes": 3}
    ),
    "initializers.gradient_quotient": Call(
        traced(initializers.gradient_quotient),
        {"loss": loss, "params": PARAMS, "masks": MASKS, "batch": X, "epsilon": 1e-5},
        FIT,
    ),
    "initializers.metainit": Call(
        traced(metainit),
        {
            "loss": loss,
            "params": PARAMS,
            "masks": MASKS,
            "make_batch": lambda key: X,
            "steps": 1,
            "learning_rate": 0.1,
            "momentum": 0.9,
            "epsilon": 1e-5,
            "min_ndim": 2,
            "key": KEY,
        },
        FIT | {"min_ndim": "integer"},
    ),
    "scores.magnitude": Call(scores.magnitude, {"params": PARAMS, "masks": MASKS}),
    "scores.random": Call(traced(scores.random), {"masks": MASKS, "key": KEY}),
    "scores.snip": Call(
        traced(scores.snip),
        {"loss": loss, "params": PARAMS, "masks": MASKS, "batches": X[None]},
        FIT,
    ),
    "scores.grasp": Call(
        traced(scores.grasp),
        {"loss": loss, "params": PARAMS, "masks": MASKS, "batches": X[None]},
        FIT,
    ),
}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("end_step", math.nan), ("update_every", 1.5), ("end_step", 10**12)],
)
@pytest.mark.parametrize(
    "label", [label for label in CALLS if "update_every" in CALLS[label].arguments]
)
def test_step_counts_that_are_none_are_refused_at_once(
    label: str, name: str, wrong: Any
) -> None:
    started = time.monotonic()
    assert fault(CALLS[label], name, wrong) is None
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("label", CALLS)
def test_a_wrong_argument_is_refused_by_its_name(
    label: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # else it refuses
    check(CALLS[label])


SPARSE = {"sparsity": 0.5, "update_every": 2, "end_step": 9}
KEYED = {
    name: functools.partial(getattr(transforms, name), INNER, **SPARSE)
    for name in (
        "rigl",
        "sparse_evolution",
        "mest",
        "snfs",
        "granet",
        "east",
        "neurrev",
    )
}
KEYED["sparsify"] = functools.partial(transforms.sparsify, INNER, masks.ones)


@pytest.mark.parametrize("name", KEYED)
def test_what_is_no_key_is_refused_before_init(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for wrong in (3, "x", jnp.ones(2)):
        with pytest.raises(TypeError, match="key: expected a random key"):
            KEYED[name](key=wrong)


def test_updates_in_another_order_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="opt_state: expected .*got 0"):
        transforms.apply_updates(PARAMS, STATE, PARAMS)
    with pytest.raises(ValueError, match="updates: expected only leaves of params"):
        transforms.apply_updates(STATE, PARAMS, STATE)
