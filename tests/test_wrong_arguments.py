"""Wrong arguments of public functions: a ValueError or TypeError that names them."""

import functools
import inspect
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from jaxsparse import connectivity as connectivity_lib
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
from jaxsparse.analysis import (
    connectivity,
    embedding,
    gradient_flow,
    imp_rounds,
    mask_overlap,
    pairwise,
    predictions,
    similarity,
)
from jaxsparse.analysis.hessian import (
    eigenvalues,
    exact,
    hvp,
    lanczos,
    param_subspace,
    slq,
)
from jaxsparse.lottery import controls, imp, instability, tickets
from jaxsparse.tost import annealing
from jaxsparse.training import solution_penalty
from jaxsparse.transforms import update_schedules

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
        return jax.eval_shape(make(INNER, **arguments).init, PARAMS)

    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.default not in (inspect.Parameter.empty, None)
    }
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


def saved(function: Callable[..., Any]) -> Callable[..., Any]:
    """Reads a ticket that is there."""

    def call(**arguments: Any) -> Any:
        tickets.save(TICKET["path"], MASKS)
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
CALENDAR = update_schedules.UpdateSchedule(0, 2, 9, True)
SELECTED = {"scores": SCORES, "candidates": MASKS, "frozen": (), "ties": "spread"}
SCORED = {"scores": "numbers"}  # scores of a part of the weights are scores
PRUNED = {"params": PARAMS, "sparsity": 0.5, "dense": (), "prunable": ("*/kernel",)}
PRUNED |= {"distribution": "global", "min_layer_density": 0.0}
SPACE = param_subspace.make(PARAMS, MASKS)
AXES = fan_axes.parse("io")
ORTHOGONAL = {"gain": 1.0, "key": KEY}
DISTRIBUTED = {"masks": MASKS, "sparsity": 0.5, "dense": ()}
QUADRATURE = slq.Quadrature(np.ones((2, 1)), np.ones((2, 1)), 4, "float32")
SPECTRUM = eigenvalues.Spectrum(np.ones(2), 2, 0, 1, "float32", 0.0, None)
STATE = transforms.fixed(INNER, masks=MASKS).init(PARAMS)
TICKET = {"path": "ticket.npz"}
LEVEL = {"folder": ".", "level": 1}
STACKED = jax.tree.map(lambda leaf: leaf[None], MASKS)
CALLS = {
    "masks.ones": Call(masks.ones, {"params": PARAMS, "prunable": ("*/kernel",)}),
    "masks.apply": Call(masks.apply, {"masks": MASKS, "params": PARAMS}, FIT),
    "masks.by_globs": Call(masks.glob_filter, {"globs": ("*",)}, {"globs": "globs"}),
    "masks.tree_map": Call(
        masks.tree_map,
        {"fn": lambda mask: mask, "masks": MASKS},
        {"masks": "any"},
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
        prune.prune, PRUNED | {"structure": None, "axes": None}, {"axes": "axes"}
    ),
    "prune.prune_iteratively": Call(
        lambda **arguments: prune.prune_iteratively(**arguments),
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
        traced(initializers.metainit),
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
    "paths.live": Call(
        lambda apply, params, masks: connectivity_lib.live(apply, params, masks, X),
        {"apply": apply, "params": PARAMS, "masks": MASKS},
        FIT,
    ),
    "tost.anneal": Call(
        traced(annealing.anneal),
        {"step": 1, "end": 4, "form": "linear"},
        {"step": "any"},
    ),
    "tost.sharpen": Call(
        traced(annealing.sharpen),
        {"step": 1, "end": 4, "initial": 1.0, "final": 9.0},
        {"step": "any", "initial": "number", "final": "number"},
    ),
    "lottery.layer_counts": Call(
        imp.layer_counts, {"masks": MASKS, "level": 1, "rule": imp.PruningRule()}
    ),
    "lottery.masks_of": Call(
        controls.masks_of,
        {
            "name": "dense_continued",
            "masks": jax.tree.map(lambda leaf: leaf[None], MASKS),
            "level": 1,
            "keys": KEY[None],
            "exclude": (),
        },
        {"masks": "any"},
    ),
    "lottery.shuffle_layers": Call(
        traced(controls.shuffle_layers), {"masks": MASKS, "key": KEY, "exclude": ()}
    ),
    "lottery.tickets.save": Call(
        tickets.save, TICKET | {"masks": MASKS}, {"path": "path"}
    ),
    "lottery.tickets.load": Call(
        saved(tickets.load),
        TICKET | {"template": MASKS},
        {"path": "path", "template": "masks"},
    ),
    "lottery.tickets.read": Call(saved(tickets.read), TICKET, {"path": "path"}),
    "lottery.tickets.path_of": Call(
        tickets.path_of,
        LEVEL | {"replicate": 0},
        {"folder": "path", "replicate": "integer"},
    ),
    "lottery.tickets.save_level": Call(
        tickets.save_level,
        LEVEL | {"masks": STACKED, "replicates": 1},
        {"folder": "path"},
    ),
    "lottery.tickets.save_final": Call(
        tickets.save_final, {"folder": ".", "masks": STACKED}, {"folder": "path"}
    ),
    "lottery.tickets.load_level": Call(
        tickets.load_level,
        LEVEL | {"template": MASKS, "replicates": 1},
        {"folder": "path", "template": "masks"},
    ),
    "lottery.data_keys": Call(
        traced(instability.data_keys), {"keys": KEY[None], "count": 2}
    ),
    "lottery.copies": Call(
        traced(instability.copies), {"tree": PARAMS, "count": 2}, {"tree": "any"}
    ),
    "lottery.pairs": Call(instability.pairs, {"count": 2}),
    "hessian.make": Call(
        param_subspace.make, {"params": PARAMS, "masks": MASKS, "include": ("*",)}, FIT
    ),
    "hessian.blocks": Call(
        hvp.microbatches,
        {"batches": X, "batch_size": 1},
        {"batches": "stack"},
    ),
    "hessian.operator": Call(
        hvp.operator,
        {"loss": loss, "space": SPACE, "batches": X, "batch_size": 1},
        {"space": "solution", "batches": "stack"},
    ),
    "hessian.matrix": Call(
        refused_early(exact.matrix),
        {
            "loss": loss,
            "space": SPACE,
            "batches": X,
            "batch_size": 1,
            "columns_at_once": 16,
        },
        {"space": "solution", "batches": "stack"},
    ),
    "hessian.extremes": Call(
        refused_early(lanczos.extremes),
        {
            "product": lambda v: v,
            "n": 1,
            "top": 1,
            "bottom": 0,
            "steps": 1,
            "key": KEY,
        },
    ),
    "hessian.trace": Call(
        refused_early(slq.trace),
        {"product": lambda v: v, "n": 1, "probes": 2, "key": KEY},
    ),
    "hessian.density": Call(
        refused_early(slq.density),
        {"product": lambda v: v, "n": 1, "probes": 2, "steps": 1, "key": KEY},
    ),
    "hessian.smooth": Call(
        slq.smooth,
        {"quadrature": QUADRATURE, "points": np.zeros(2), "width": 0.1},
        {"quadrature": "solution"},
    ),
    "hessian.quadrature.summarize": Call(
        slq.summarize,
        {"quadrature": QUADRATURE, "threshold": 0.1},
        {"quadrature": "solution"},
    ),
    "hessian.summarize": Call(
        eigenvalues.summarize,
        {"eigenvalues": [1.0, -1.0], "threshold": 0.1},
        {},
    ),
    "hessian.compare": Call(
        eigenvalues.compare,
        {"before": [1.0], "after": [2.0], "threshold": 0.1},
        {},
    ),
    "hessian.dense": Call(
        eigenvalues.dense,
        {"spectrum": SPECTRUM, "masks": MASKS},
        {"spectrum": "solution"},
    ),
    "analysis.measure": Call(
        traced(gradient_flow.measure),
        {"grads": PARAMS, "masks": MASKS},
        {"grads": "fitting weights", "masks": "fitting masks"},
    ),
    "analysis.gradient": Call(
        traced(gradient_flow.gradient),
        {"loss": loss, "params": PARAMS, "masks": MASKS, "batch": X},
        FIT,
    ),
    "analysis.mask_overlap": Call(mask_overlap.mask_overlap, TWO, BOTH),
    "analysis.chance_overlap": Call(mask_overlap.chance_overlap, TWO, BOTH),
    "analysis.ensemble": Call(
        traced(predictions.ensemble), {"logits": X[None], "average": "probabilities"}
    ),
    "analysis.pca": Call(embedding.pca, {"vectors": X, "dimensions": 1}),
    "analysis.mds": Call(
        embedding.mds,
        {
            "distances": np.ones((3, 3)) - np.eye(3),
            "dimensions": 1,
            "starts": 1,
            "iterations": 1,
            "tolerance": 1e-3,
            "key": KEY,
        },
    ),
    "analysis.pruning_threshold": Call(
        imp_rounds.pruning_threshold, {"solution": SOLUTION, "next_masks": MASKS}
    ),
    "analysis.histogram": Call(
        imp_rounds.histogram, {"solution": SOLUTION, "limit": 1.0, "bins": 4}
    ),
    "analysis.join": Call(traced(similarity.join), TWO | {"subspace": "union"}, BOTH),
    "analysis.flatten": Call(
        traced(similarity.flatten), {"solution": SOLUTION, "subspace": "all"}
    ),
    "analysis.l2_distance": Call(
        traced(similarity.l2_distance),
        {"first": SOLUTION, "second": SOLUTION, "subspace": "all"},
        {"first": "solution", "second": "solution"},
    ),
    "analysis.pairwise": Call(
        pairwise.pairwise, {"measure": lambda a, b: jnp.sum(a - b), "stack": X}
    ),
    "analysis.interpolate": Call(
        traced(connectivity.interpolate),
        {"start": PARAMS, "end": PARAMS, "alpha": 0.5},
        {"start": "fitting weights", "end": "fitting weights"},
    ),
    "analysis.barrier": Call(
        connectivity.barrier,
        {"values": np.ones(3), "alphas": (0.0, 0.5, 1.0), "baseline": "linear"},
    ),
    "analysis.connected_fraction": Call(
        connectivity.connected_fraction, {"barriers": np.ones(3), "threshold": 0.5}
    ),
    "training.allocate": Call(
        solution_penalty.allocate, {"masks": MASKS, "capacity": 2}
    ),
}


def fresh(call: Call) -> dict[str, Any]:
    """Gives the call keys that nothing was drawn with yet."""
    return {
        name: jax.random.clone(value)
        if isinstance(value, jax.Array)
        and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
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


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("end_step", NAN), ("update_every", 1.5), ("end_step", 10**12)],
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
    call = CALLS[label]
    call.function(**fresh(call))
    tried = [
        fault(call, name, wrong)
        for name in call.arguments
        for wrong in WRONG.get(call.kinds.get(name, KIND.get(name, "any")), [])
    ]
    assert [each for each in tried if each] == []


SPARSE = {"sparsity": 0.5, "update_every": 2, "end_step": 9}
KEYED = {
    name: functools.partial(getattr(transforms, name), INNER, **SPARSE)
    for name in ("rigl", "sparse_evolution", "mest", "snfs", "granet")
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
