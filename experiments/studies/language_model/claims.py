"""Claims of papers on one-shot pruning, and what must be observed for each.

Thresholds were written before any run of the scale `cpu`. Claims are judged on test
losses in nats for each byte, network by network: all methods prune the same dense
networks, without training afterward. Weights compete as in each paper: those of an
output for Wanda, those of a layer for the others. What papers report of large language
models is given in words, since no number of theirs can be compared with ours.
"""

from collections.abc import Callable

import numpy as np

from experiments.studies import effects
from experiments.studies.claims import Claim, Found, Premise, entries
from experiments.studies.effects import Effect, spread
from experiments.studies.language_model import one_shot

MAGNITUDE, WANDA = "magnitude_layer", "wanda_output"
OBS, ALPS = "obs_layer", "alps_layer"
COST = 0.01  # nats that pruning by magnitude must cost, so that methods can differ


def losses(found: Found, percent: int, *names: str) -> list[np.ndarray]:
    """Returns test losses in nats by network [n].

    Args:
      found: measurements by run.
      percent: sparsity of the pruned networks.
      *names: "dense", or names in `one_shot.LABELS`.

    Raises:
      NotMeasured: if the dense run or a method is missing.
    """
    (run,) = entries(found, "dense")
    place = [round(100 * sparsity) for sparsity in one_shot.SPARSITIES].index(percent)
    pruned = {
        name: [of[place] for of in each["loss"]]
        for name, each in run["one_shot"].items()
    }
    listed = {"dense": [of[0] for of in run["loss"]]} | pruned
    return [np.asarray(values, float) for values in entries(listed, *names)]


def _costs(percent: int) -> Premise:
    """Presumes that pruning by magnitude makes networks worse."""

    def evaluate(found: Found) -> Effect:
        dense, pruned = losses(found, percent, "dense", MAGNITUDE)
        return effects.above(pruned - dense, COST)

    name = f"magnitude pruning at {percent} % costs more than {COST} nats"
    return Premise(name, evaluate)


def _lower(name: str, other: str, percent: int) -> Callable[[Found], Effect]:
    """Tests whether one method leaves a lower loss than another."""

    def evaluate(found: Found) -> Effect:
        ours, theirs = losses(found, percent, name, other)
        one, two = one_shot.LABELS[name], one_shot.LABELS[other]
        words = f"{one} {spread(ours, 3)}, {two} {spread(theirs, 3)} at {percent} %"
        of = f"{two} minus {one}, nats"
        return effects.above(theirs - ours).said(words, of=of)

    return evaluate


def _claim(
    name: str, statement: str, published: str, method: str, other: str, percent: int
) -> Claim:
    return Claim(
        f"{name}, {percent} %",
        statement,
        published,
        f"test loss after pruning with {one_shot.LABELS[method]} below that with "
        f"{one_shot.LABELS[other]} at {percent} %",
        _lower(method, other, percent),
        (_costs(percent),),
    )


_WANDA = "Weights times the norms of their inputs choose better than magnitudes."
_OBS = "Correcting the weights that stay is better than only choosing them."
_ALPS = "Choosing all weights of a layer together is better than one after the other."
_SUN = "lower perplexity for LLaMA at 50 % (Sun et al. 2023, arXiv:2306.11695)"
_FRANTAR = "lower perplexity than by magnitude for OPT and BLOOM at 50 % (Frantar and "
_FRANTAR += "Alistarh 2023, arXiv:2301.00774); close to Wanda at 50 % (Sun et al. 2023)"
_MENG = "lower perplexity for OPT and LLaMA from 50 to 90 % (Meng et al. 2024, "
_MENG += "arXiv:2406.07831)"
CLAIMS = tuple(
    _claim(*words, *methods, percent)
    for words, methods in (
        (("Wanda above magnitude", _WANDA, _SUN), (WANDA, MAGNITUDE)),
        (("SparseGPT above Wanda", _OBS, _FRANTAR), (OBS, WANDA)),
        (("ALPS above SparseGPT", _ALPS, _MENG), (ALPS, OBS)),
    )
    for percent in (50, 80)
)
