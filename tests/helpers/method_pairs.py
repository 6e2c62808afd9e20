"""Methods around optimizers: every method once, and how a pair of them is made."""

from typing import Any

import optax
from helpers.methods import METHODS
from helpers.optimizers import INSIDE, OUTSIDE, SGD

# Optimizers that differ in what they remember, in what they need and in what is around.
INNER: dict[str, Any] = {
    name: INSIDE[name]
    for name in (
        *("sgd", "momentum", "nesterov", "adam", "adamw", "lion", "rmsprop"),
        *("adagrad", "adafactor", "lamb", "muon", "novograd", "schedule free"),
        *("clipped", "hyperparameters", "accumulating", "apply if finite"),
        *("partitioned", "plateau", "noise added"),
    )
} | {
    "adafactor, factored": optax.adafactor(
        0.01, momentum=0.9, min_dim_size_to_factor=4
    ),
    "lookahead": optax.lookahead(SGD, sync_period=3, slow_step_size=0.5),
}
OUTER = {
    name: OUTSIDE[name]
    for name in ("outer accumulating", "outer apply if finite", "outer partition")
}
OPTIMIZERS = [*INNER, *OUTER]
# Every method once, around optimizers that differ; all other pairs are a campaign.
PAIRS = {
    "fixed": "outer partition",
    "gradual_magnitude": "adamw",
    "gradual_magnitude global": "outer accumulating",
    "one_shot_magnitude": "lamb",
    "sparse_evolution": "nesterov",
    "sparse_evolution blocks": "lion",
    "rigl": "momentum",
    "rigl inverted": "noise added",
    "rigl restarts": "muon",
    "rigl fan_in": "outer apply if finite",
    "rigl n_of_m": "novograd",
    "srigl": "momentum",
    "mest": "plateau",
    "mest soft_bound": "hyperparameters",
    "neurrev": "momentum",
    "neurrev restarts": "adamw",
    "snfs": "schedule free",
    "granet": "lookahead",
    "chts": "adam",
    "chts decay": "momentum",
    "east": "momentum",
    "cycles of set": "adam",
    "ac_dc": "adafactor, factored",
    "ac_dc keeps memory": "clipped",
    "straight_through": "partitioned",
    "straight_through gradual": "accumulating",
    "top_kast": "apply if finite",
    "sr_ste": "rmsprop",
    "weight_sparse": "lamb",
    "proximal_l1": "momentum",
    "learned_threshold": "adamw",
    "continuous_sparsification": "adam",
    "dynadiag": "adam",
    "edge_popup": "momentum",
    "s_ste": "lion",
    "gem_miner": "sgd",
    "fixed powerpropagation": "partitioned",
    "rigl sign_in": "adamw",
    "top_kast powerpropagation": "adamw",
}


def build(method: str, optimizer: str, around: Any = lambda inner: inner) -> Any:
    """Makes a method around an optimizer of the tables, itself within `around`."""
    inner = around(INNER.get(optimizer, INSIDE["adam"]))
    outer = OUTER.get(optimizer, lambda tx: tx)
    return outer(METHODS[method].make(inner))
