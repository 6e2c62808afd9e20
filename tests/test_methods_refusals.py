"""Arguments that methods refuse, by name; nothing is compiled."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from helpers import flat_options, methods

from jaxsparse import masks, select, transforms

SGD = optax.sgd(0.1, momentum=0.9)
PARAMS = methods.make_params(dtype="float32")
END = {"sparsity": 0.5, "end_step": 9}
t = transforms
REFUSED: dict[str, tuple[Any, dict]] = {
    "drop_by_sign": (
        t.sparse_evolution,
        {"sparsity": 0.5, "structure": select.fan_in()},
    ),
    "grow: expected one of .*got 'most'": (
        t.rigl,
        END | {"update_every": 3, "grow": "most"},
    ),
    "drop_fraction: expected .*got 1.5": (
        t.rigl,
        END | {"update_every": 3, "drop_fraction": 1.5},
    ),
    "drop_schedule: expected 'cosine'.*got 'linear'": (
        t.rigl,
        END | {"update_every": 3, "drop_schedule": "linear"},
    ),
    "end_step: expected the step at which .*got None": (t.rigl, {"sparsity": 0.5}),
    "end_step: expected .*soft_bound.*got None": (
        t.mest,
        {"sparsity": 0.5, "soft_bound": True},
    ),
    "end_step: expected .*101, with update_every=100 and no begin_step, got 9": (
        *(t.rigl, END),
    ),
    "end_step: expected .*8, with begin_step=7, got 5": (
        *(t.rigl, {"sparsity": 0.5, "begin_step": 7, "end_step": 5}),
    ),
    "update_every: expected .*got 0": (t.rigl, END | {"update_every": 0}),
    "begin_step: expected .*got -1": (t.rigl, END | {"begin_step": -1}),
    "gradient_weight: expected .*got -1": (t.mest, END | {"gradient_weight": -1.0}),
    "momentum: expected .*got 1.0": (t.snfs, END | {"momentum": 1.0}),
    "negative_drop_fraction: expected .*got 1.5": (
        *(t.neurrev, END | {"negative_drop_fraction": 1.5}),
    ),
    "density_factor: expected .*got 0.5": (t.east, END | {"density_factor": 0.5}),
    "cycles: expected .*got -1": (t.east, END | {"cycles": -1}),
    "cycle_part: expected .*got 1.5": (t.east, END | {"cycle_part": 1.5}),
    "allow_regrow: expected True with east": (
        t.east,
        END | {"update_every": 3, "allow_regrow": False},
    ),
    "stop_step: expected .*got 5; choose a later one": (
        t.granet,
        END | {"update_every": 3, "stop_step": 5},
    ),
    "schedule: expected sparsities that never decrease": (
        t.gradual_magnitude,
        END | {"begin_step": 0, "initial_sparsity": 0.6},
    ),
    "schedule: expected one of .*got 'cubed'": (
        t.gradual_magnitude,
        END | {"begin_step": 0, "schedule": "cubed"},
    ),
    "schedule: expected .*got 1 ending in 0.5": (
        t.gradual_magnitude,
        END | {"begin_step": 0, "schedule": [0.5]},
    ),
    "min_layer_density: expected .*got 0.1 with distribution 'uniform'": (
        t.gradual_magnitude,
        END | {"begin_step": 0, "min_layer_density": 0.1},
    ),
    "backward_sparsity: expected .*got 0.6": (
        t.top_kast,
        {"sparsity": 0.5, "backward_sparsity": 0.6},
    ),
    "regularization: expected .*got -1": (
        t.top_kast,
        {"sparsity": 0.5, "backward_sparsity": 0.4, "regularization": -1.0},
    ),
    "n: expected .*m=4, got 5": (t.sr_ste, {"n": 5}),
    "decay: expected .*got -1": (t.sr_ste, {"decay": -1.0}),
    "first/kernel: expected .*got 8": (t.sr_ste, {"n": 1, "m": 3}),
    "sparsity: expected .*got 1.0": (t.rigl, {"sparsity": 1.0, "end_step": 500}),
    "sparsity: expected .*got -": (t.straight_through, {"sparsity": -0.1}),
    "sparsity: expected to keep .* of 144 weights.*got 36": (
        t.ac_dc,
        {"begin_step": 1, "update_every": 2, "dense": ("second/*",)}
        | (END | {"sparsity": 0.75}),
    ),
    "distribution: expected one of .*got 'erl'": (
        t.rigl,
        {"sparsity": 0.5, "end_step": 500, "distribution": "erl"},
    ),
    r"dense: expected patterns .*got \'third/\*\', which matches none": (
        t.mest,
        {"sparsity": 0.5, "end_step": 500, "dense": ("third/*",)},
    ),
    r"prunable: expected patterns .*got \'third/\*\', which matches none": (
        t.straight_through,
        {"sparsity": 0.5, "prunable": ("third/*",)},
    ),
    "schedule": (t.straight_through, {"sparsity": 0.5, "schedule": [0.1, 0.2]}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_arguments_are_refused_by_name(message: str) -> None:
    make, options = REFUSED[message]
    with pytest.raises(ValueError, match="^" + message):
        jax.eval_shape(flat_options.call(make, SGD, **options).init, PARAMS)


STEPS = {"begin_step": 0, "end_step": 900}
BY_SPARSITY = {
    t.gradual_magnitude: STEPS,
    t.one_shot_magnitude: {"step": 3},
    t.ac_dc: STEPS | {"update_every": 100},
    t.straight_through: {},
    t.top_kast: {"backward_sparsity": 0.0},
} | dict.fromkeys(
    (t.sparse_evolution, t.rigl, t.mest, t.snfs, t.granet, t.east, t.neurrev),
    {"end_step": 900},
)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, math.nan])
@pytest.mark.parametrize("make", BY_SPARSITY)
def test_sparsities_are_checked_when_a_method_is_made(
    make: Any, sparsity: float
) -> None:
    with pytest.raises(ValueError, match="^sparsity: expected a fraction to remove"):
        make(SGD, sparsity=sparsity, **BY_SPARSITY[make])


@pytest.mark.parametrize("make", [t.straight_through, t.top_kast, t.sr_ste])
def test_latent_methods_need_params(make: Any) -> None:
    options = {"sparsity": 0.5} if make is not t.sr_ste else {}
    options |= {"backward_sparsity": 0.4} if make is t.top_kast else {}
    tx = make(SGD, **options)
    state = jax.eval_shape(tx.init, PARAMS)
    with pytest.raises(ValueError, match="^params: expected the dense .*got None"):
        tx.update(PARAMS, state)


def test_dense_by_patterns() -> None:
    both = masks.ones(PARAMS, prunable=("*/kernel",))
    assert masks.names(both) == ["first/kernel", "second/kernel"]
    one = masks.ones(PARAMS, prunable=("*/kernel", "!first/*"))
    assert masks.names(one) == ["second/kernel"]
    assert one["first"] == {"bias": None, "kernel": None}
    for globs, name in ((("third/*",), "third"), (("*/kernel", "!third"), "third")):
        with pytest.raises(
            ValueError, match=f"^prunable: expected patterns .*got '{name}"
        ):
            masks.ones(PARAMS, prunable=globs)


def test_redistribution_of_more_weights_than_int32_counts_is_refused() -> None:
    leaf = jax.ShapeDtypeStruct((2**16, 2**15), jnp.bfloat16)
    params = {name: {"kernel": leaf} for name in "abc"}
    tx = transforms.snfs(
        SGD,
        sparsity=0.1,
        updates=transforms.SNFSOptions(drop_fraction=0.5),
        end_step=200,
    )
    with pytest.raises(
        ValueError, match="drop_fraction: expected .*got 0.5 of 6442450944"
    ):
        jax.eval_shape(tx.init, params)
