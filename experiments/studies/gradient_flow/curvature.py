"""Curvature: exact spectra of the Hessian, at states saved during training."""

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.studies.gradient_flow import variants
from experiments.studies.gradient_flow.runs_reader import STAGE, NetworkRuns
from jaxsparse import masks as masks_lib
from jaxsparse.analysis.hessian import eigenvalues, exact, hvp, lanczos, param_subspace
from jaxsparse.stages import saved_state_name

# Variants whose curvature is measured, and the number of examples by scale.
VARIANTS = ("lt", "scratch", "scratch_plus", "rigl", "set")
EXAMPLES = {"quick": 100, "cpu": 1000, "full": 60_000}
# Seeds that are measured around mask updates; one for other variants.
SEEDS = {"rigl": 3}


class Place(NamedTuple):
    """The state whose spectrum is computed.

    Attributes:
      seed: replicate of the variant.
      step: updates done.
      moment: "before" or "after" a mask update, with the same weights; otherwise "".
    """

    seed: int
    step: int
    moment: str


def places(runs: NetworkRuns, variant: str) -> list[Place]:
    """Lists the states of a variant whose spectra are computed: those it saved.

    Args:
      runs: runs of a network.
      variant: one of its variants.
    """
    changes = {row["step"] - 1 for row in runs.records(variant, "mask_update")}
    kept = variants.SAVED[runs.scale]
    steps = [step for step in kept if step - 1 not in kept]
    found = []
    for seed in runs.seeds(variant)[: SEEDS.get(variant, 1)]:
        for step in steps:
            if step in changes:
                found += [Place(seed, step, when) for when in ("before", "after")]
            elif not seed:
                found.append(Place(seed, step, ""))
    return found


def place_of(state: dict[str, Any]) -> Place:
    """Returns the place of a state that `spectrum` returned.

    Args:
      state: from `spectrum`.
    """
    return Place(*(state[field] for field in Place._fields))


def new_negatives(states: list[dict[str, Any]]) -> dict[Place, float]:
    """Counts the new negative eigenvalues after mask updates.

    Args:
      states: from `spectrum`, for several places of one variant.

    Returns:
      For every place after a mask update that also has the place before: negatives
      after minus those before, by one threshold for both.
    """
    found = {place_of(state): state["eigenvalues"] for state in states}
    return {
        place: eigenvalues.compare(found[before], values)["new_negatives"]
        for place, values in found.items()
        if place.moment == "after"
        and (before := place._replace(moment="before")) in found
    }


def spectrum(runs: NetworkRuns, *, variant: str, place: Place) -> dict[str, Any]:
    """Computes the spectrum of the Hessian of the loss, exactly and by Lanczos' method.

    Args:
      runs: runs of a network.
      variant: one of its variants.
      place: the state.
    """
    params, masks = runs.solution(
        variant, saved_state_name(STAGE, place.step), place.seed
    )
    if place.moment == "after":
        # The state one update later has the masks; its weights have been trained.
        later = saved_state_name(STAGE, place.step + 1)
        masks = runs.solution(variant, later, place.seed).masks
    batch = runs.examples(EXAMPLES[runs.scale])
    size = min(len(batch[1]), 1000)
    space = param_subspace.make(masks_lib.apply(masks, params), masks)
    loss = runs.functions().loss
    found = exact.spectrum(loss, space, batch, batch_size=size)
    product = hvp.operator(loss, space, batch, batch_size=size)
    ends = lanczos.extremes(product, found.n, key=jax.random.key(0))
    summary = eigenvalues.summarize(found.eigenvalues)
    return {
        **place._asdict(),
        "eigenvalues": found.eigenvalues.tolist(),
        "negative": int(summary.pop("negatives")),
        **summary,
        "examples": found.examples,
        "lanczos": {
            "top": np.asarray(ends.top).tolist(),
            "bottom": np.asarray(ends.bottom).tolist(),
        },
    }
