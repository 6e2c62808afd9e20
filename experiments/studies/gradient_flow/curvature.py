"""Curvature: spectra of the Hessian, at states saved during training."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.gradient_flow import variants
from experiments.studies.run_reader import Reader
from jaxsparse import masks as masks_lib
from jaxsparse.analysis.hessian import eigenvalues, exact, hvp, lanczos, param_subspace

if TYPE_CHECKING:
    from experiments.studies.gradient_flow.measure import RunFunctions

# Variants whose curvature is measured.
VARIANTS = ("lt", "scratch", "scratch_plus", "rigl", "rigl_plus", "set")
# Seeds that are measured around mask updates; one for other variants.
SEEDS = {"rigl": 3, "rigl_plus": 3}
EXAMPLES = 1000
FEW = 100  # of runs that train for at most 1,000 steps, or on at most 2,000 examples
LARGEST = 3000  # weights whose spectrum is computed exactly
# Networks whose whole spectrum would take too long; only its ends are computed.
SLOW = ("resnet8",)
STEPS = 50  # of Lanczos' method, where the spectrum is not exact


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


def of_states(run_fns: "RunFunctions") -> dict[str, Any]:
    """Computes the spectra of the states that a run saved.

    Args:
      run_fns: the run.

    Returns:
      "states", each from `spectrum`; {} for a network whose states are not saved.
    """
    name = variants.setting_of(run_fns.reader.name)
    if name not in variants.CURVED:
        return {}
    states = [
        spectrum(run_fns, place, compare=not index)
        for index, place in enumerate(places(run_fns.reader))
    ]
    return {"states": states}


def places(reader: Reader) -> list[Place]:
    """Lists the states of a run whose spectra are computed: those it saved.

    Args:
      reader: the run.
    """
    variant = variants.variant_of(reader.name)
    changes = {row["step"] - 1 for row in reader.of_kind("mask_update")}
    kept = [
        int(step.removesuffix("step")) for step in reader.config["analysis"]["save_at"]
    ]
    steps = [step for step in kept if step - 1 not in kept]
    count = min(SEEDS.get(variant, 1), reader.config["replicates"])
    found = []
    for seed in range(count):
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
    """Compares the negative eigenvalues after mask updates with those before.

    Args:
      states: from `spectrum`, for several places of one variant.

    Returns:
      For every place after a mask update that also has the place before, both with
      exact spectra: negatives after minus those before, by one threshold for both.
    """
    return {
        place: eigenvalues.compare(before["eigenvalues"], after["eigenvalues"])[
            "new_negatives"
        ]
        for place, (before, after) in _pairs(states).items()
        if "eigenvalues" in before and "eigenvalues" in after
    }


def falls(states: list[dict[str, Any]]) -> dict[Place, float]:
    """Compares the least eigenvalue after mask updates with that before.

    Args:
      states: from `spectrum`, for several places of one variant.

    Returns:
      By how much it fell, for every place after a mask update that also has the place
      before. Pairs are left out in which rounding errors of the largest eigenvalue
      exceed both least ones: units without any weight give BatchNorm eigenvalues up to
      1e7.
    """
    return {
        place: _least(before) - _least(after)
        for place, (before, after) in _pairs(states).items()
        if max(map(_error, (before, after)))
        < max(abs(_least(before)), abs(_least(after)))
    }


def _error(state: dict[str, Any]) -> float:
    """Returns the rounding error of the eigenvalues of a state, see `tolerance`."""
    largest = state.get("eigenvalues") or sum(state["lanczos"].values(), [])
    return eigenvalues.tolerance(largest) * np.sqrt(state["n"] / len(largest))


def _pairs(
    states: list[dict[str, Any]],
) -> dict[Place, tuple[dict[str, Any], dict[str, Any]]]:
    """Returns the states before and after each mask update."""
    found = {place_of(state): state for state in states}
    return {
        place: (found[before], after)
        for place, after in found.items()
        if place.moment == "after"
        and (before := place._replace(moment="before")) in found
    }


def _least(state: dict[str, Any]) -> float:
    """Returns the least eigenvalue of a state, exact if the spectrum is."""
    return min(state.get("eigenvalues") or state["lanczos"]["bottom"])


def spectrum(
    run_fns: "RunFunctions", place: Place, *, compare: bool = False
) -> dict[str, Any]:
    """Computes the spectrum of a state; of a large network, only its ends.

    Args:
      run_fns: the run.
      place: the state.
      compare: whether to compute the ends by Lanczos' method also if the spectrum is
        exact, which takes half as long again.

    Returns:
      "n" eigenvalues, the number of "examples" and the place; "eigenvalues" with their
      summary, unless there are more than `LARGEST` or the network is one of `SLOW`; and
      "lanczos", the ends "top" and "bottom", if there are no eigenvalues or with
      `compare`.
    """
    reader = run_fns.reader
    here = reader.solutions(reader.saved(place.step))[place.seed]
    params, masks = here
    if place.moment == "after":
        # The state one update later has the masks; its weights have been trained.
        later = reader.solutions(reader.saved(place.step + 1))
        masks = later[place.seed].masks
    train = reader.run.dataset.train
    steps = max(row["step"] for row in reader.of_kind("eval"))
    count = FEW if len(train.labels) <= 2000 or steps <= 1000 else EXAMPLES
    batch = (jnp.asarray(train.images[:count]), jnp.asarray(train.labels[:count]))
    space = param_subspace.make(masks_lib.apply(masks, params), masks)
    n, setting = param_subspace.size(space), variants.setting_of(reader.name)
    small = n <= LARGEST and setting not in SLOW
    found = {**place._asdict(), "n": n, "examples": count}
    if compare or not small:
        product = hvp.operator(run_fns.functions.loss, space, batch, batch_size=count)
        few = {} if small else {"steps": STEPS}
        ends = lanczos.extremes(product, n, key=jax.random.key(0), **few)
        found["lanczos"] = {
            "top": np.asarray(ends.top).tolist(),
            "bottom": np.asarray(ends.bottom).tolist(),
        }
    if small:
        whole = exact.spectrum(run_fns.functions.loss, space, batch, batch_size=count)
        summary = eigenvalues.summarize(whole.eigenvalues)
        found["eigenvalues"] = whole.eigenvalues.tolist()
        found["negative"] = int(summary.pop("negatives"))
        found |= summary
    return found
