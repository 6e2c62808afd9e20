"""Wrong arguments of what is done with trained networks: refused by their names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers.wrong_arguments import (
    BOTH,
    FIT,
    KEY,
    MASKS,
    PARAMS,
    SOLUTION,
    TWO,
    Call,
    X,
    apply,
    check,
    loss,
    refused_early,
    traced,
)

from jaxsparse import connectivity
from jaxsparse.analysis import (
    embedding,
    gradient_flow,
    imp_rounds,
    mask_overlap,
    mode_connectivity,
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

SPACE = param_subspace.make(PARAMS, MASKS)
QUADRATURE = slq.Quadrature(np.ones((2, 1)), np.ones((2, 1)), 4, "float32")
SPECTRUM = eigenvalues.Spectrum(np.ones(2), 2, 0, 1, "float32", 0.0, None)
TICKET = {"path": "ticket.npz"}
LEVEL = {"folder": ".", "level": 1}
STACKED = jax.tree.map(lambda leaf: leaf[None], MASKS)


def saved(function: Callable[..., Any]) -> Callable[..., Any]:
    """Reads a ticket that is there."""

    def call(**arguments: Any) -> Any:
        tickets.save(TICKET["path"], MASKS)
        return function(**arguments)

    return call


CALLS = {
    "paths.live": Call(
        lambda apply, params, masks: connectivity.live(apply, params, masks, X),
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
        traced(mode_connectivity.interpolate),
        {"start": PARAMS, "end": PARAMS, "alpha": 0.5},
        {"start": "fitting weights", "end": "fitting weights"},
    ),
    "analysis.barrier": Call(
        mode_connectivity.barrier,
        {"values": np.ones(3), "alphas": (0.0, 0.5, 1.0), "baseline": "linear"},
    ),
    "analysis.connected_fraction": Call(
        mode_connectivity.connected_fraction, {"barriers": np.ones(3), "threshold": 0.5}
    ),
    "training.allocate": Call(
        solution_penalty.allocate, {"masks": MASKS, "capacity": 2}
    ),
}


@pytest.mark.parametrize("label", CALLS)
def test_a_wrong_argument_is_refused_by_its_name(
    label: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # else it refuses
    check(CALLS[label])
