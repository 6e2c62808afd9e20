"""Exact spectra of the Hessian, at states that arms kept while they trained."""

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.studies.gradient_flow import variants
from experiments.studies.gradient_flow.runs_reader import STAGE, Study
from jaxsparse import masks as masks_lib
from jaxsparse.analysis.hessian import eigenvalues, exact, hvp, lanczos, param_subspace
from jaxsparse.stages import saved_state_name

# Arms whose curvature is looked at, on how many examples, by scale.
ARMS = ("lt", "scratch", "scratch_plus", "rigl", "set")
EXAMPLES = {"quick": 100, "cpu": 1000, "full": 60_000}
# Seeds that are looked at around changes of masks; one elsewhere.
SEEDS = {"rigl": 3}


class Place(NamedTuple):
    """Where a spectrum is taken.

    Attributes:
      seed: of the arm.
      step: updates done.
      moment: "before" or "after" a change of masks, of the same weights; else "".
    """

    seed: int
    step: int
    moment: str


def places(study: Study, arm: str) -> list[Place]:
    """Lists where spectra of an arm are taken: at the states it kept."""
    changes = {row["step"] - 1 for row in study.records(arm, "change")}
    kept = variants.KEPT[study.scale]
    steps = [step for step in kept if step - 1 not in kept]
    found = []
    for seed in study.seeds(arm)[: SEEDS.get(arm, 1)]:
        for step in steps:
            if step in changes:
                found += [Place(seed, step, when) for when in ("before", "after")]
            elif not seed:
                found.append(Place(seed, step, ""))
    return found


def place_of(state: dict[str, Any]) -> Place:
    """Says where what `at` returned was taken."""
    return Place(*(state[field] for field in Place._fields))


def new_negatives(states: list[dict[str, Any]]) -> dict[Place, float]:
    """Counts the negative eigenvalues that changes of masks made.

    Args:
      states: what `at` returned for several places of one arm.

    Returns:
      For every place after a change of which the one before is there: negatives after
      less those before, by one threshold for both.
    """
    found = {place_of(state): state["eigenvalues"] for state in states}
    return {
        place: eigenvalues.compare(found[before], values)["new_negatives"]
        for place, values in found.items()
        if place.moment == "after"
        and (before := place._replace(moment="before")) in found
    }


def at(study: Study, *, arm: str, place: Place) -> dict[str, Any]:
    """Takes the spectrum of the loss's Hessian at a place, exactly and by Lanczos."""
    params, masks = study.solution(arm, saved_state_name(STAGE, place.step), place.seed)
    if place.moment == "after":
        # The state one update later has the masks; its weights have been trained.
        later = saved_state_name(STAGE, place.step + 1)
        masks = study.solution(arm, later, place.seed).masks
    batch = study.examples(EXAMPLES[study.scale])
    size = min(len(batch[1]), 1000)
    space = param_subspace.make(masks_lib.apply(masks, params), masks)
    loss = study.functions().loss
    found = exact.spectrum(loss, space, batch, batch_size=size)
    product = hvp.operator(loss, space, batch, batch_size=size)
    ends = lanczos.extremes(product, found.n, key=jax.random.key(0))
    said = eigenvalues.summarise(found.eigenvalues)
    return {
        **place._asdict(),
        "eigenvalues": found.eigenvalues.tolist(),
        "negative": int(said.pop("negatives")),
        **said,
        "examples": found.examples,
        "lanczos": {
            "top": np.asarray(ends.top).tolist(),
            "bottom": np.asarray(ends.bottom).tolist(),
        },
    }
