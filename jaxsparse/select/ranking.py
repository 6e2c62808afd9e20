"""Whether scores rank anything: finite, and not mostly equal at the threshold."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxsparse import masks as masks_lib
from jaxsparse import tree
from jaxsparse.select import layers as layers_lib
from jaxsparse.select.layers import Layer
from jaxsparse.types import Masks, Scores

MOST_TIED = 0.01
FEW_TIED = 10  # weights; so many, and fewer, may share a score in any network


class TiedScoresWarning(UserWarning):
    """Positions, and not scores, decided about more than 1 % of the candidates.

    And about more than 10 weights: in small networks 1 % may be one weight, and a few
    equal scores are no fault there. SynFlow's are equal at weights in series, as where
    one weight leads into a neuron and one out of it.
    """


class Tie(NamedTuple):
    """Weights of equal score that a threshold divides.

    Attributes:
      tied: how many weights have the score at the threshold, 0 if all of them are kept.
      candidates: how many weights competed. Both are approximate above 2**24.
    """

    tied: Float[Array, ""]
    candidates: Float[Array, ""]


def all_finite(scores: Scores, within: Masks | None = None) -> Bool[Array, ""]:
    """Returns whether every score that may be selected by is finite.

    Scores known on the host are refused by `globally` and `per_layer` if they are not.
    Traced scores cannot be: ask here, and skip what the selection is for.

    Args:
      scores: what each weight is worth; None where a leaf is not prunable.
      within: masks outside which scores are not read; None reads every score.

    Returns:
      A boolean scalar; usable under `jit`, `vmap` and `lax.cond`. True for a tree
      without leaves.

    Raises:
      TypeError: if a score is no array of real numbers or a mask not boolean.

    Examples:
      >>> scores = {"w": jnp.array([1.0, jnp.nan])}
      >>> bool(all_finite(scores))
      False
      >>> bool(all_finite(scores, {"w": jnp.array([True, False])}))
      True
    """
    allowed = None if within is None else tree.named_leaves(within)
    for name, leaf in tree.named_leaves(scores).items():
        if allowed is None or name in allowed:
            layers_lib.check_score(name, leaf)
    for name, leaf in (allowed or {}).items():
        layers_lib.check_within(name, leaf, jnp.shape(leaf))
    leaves = jax.tree.leaves(scores)
    with layers_lib.wide(any(layers_lib.is_long_type(leaf.dtype) for leaf in leaves)):
        if within is None:
            finite = jax.tree.map(lambda score: jnp.all(jnp.isfinite(score)), scores)
        else:
            finite = masks_lib.tree_map(
                lambda mask, score: jnp.all(jnp.isfinite(score) | ~mask), within, scores
            )
        return jnp.all(jnp.stack([*jax.tree.leaves(finite), jnp.array(True)]))


def check_finite(layers: list[Layer]) -> None:
    """Refuses scores that are known now, may be selected and are not finite.

    Args:
      layers: what is selected from. Of traced scores nothing is known.

    Raises:
      ValueError: naming each layer that has such scores and how many.
    """
    bad = {}
    for name, score, within, _ in layers:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in (score, within)):
            continue
        is_long = layers_lib.is_long_type(score.dtype)
        with jax.ensure_compile_time_eval(), layers_lib.wide(is_long):
            infinite = ~jnp.isfinite(score)
            if within is not None:
                infinite &= within
            if jnp.any(infinite):
                bad[name] = f"{jnp.sum(infinite)} of {score.size}"
    if bad:
        raise ValueError(
            f"scores: expected finite numbers, got NaN or infinity in {bad}; look for "
            "overflow in what computes them, or leave these weights out with `within=`"
        )


def count_ties(
    scores: Scores,
    kept: Masks,
    *,
    within: Masks | None = None,
    ignored: tuple[str, ...] = (),
    pooled: bool,
) -> dict[str, Tie]:
    """Counts the weights that share the score at the threshold, where some must go.

    Args:
      scores: what was selected by.
      kept: the masks that were selected, weight by weight.
      within: as in `globally`.
      ignored: as in `globally`.
      pooled: whether all layers competed, or each on its own.

    Returns:
      The tie of "all layers", or of each layer by its name; traced or not, as the
      arguments are. Without weights in it where the threshold divides no tie.
    """
    layers = layers_lib.read(scores, within, ignored, None)
    kept = tree.match_structure(
        kept, scores, fields=("kept", "scores"), same_leaves=True
    )
    chosen = zip(layers, jax.tree.leaves(kept), strict=True)
    pairs = [(layer, mask) for layer, mask in chosen if not layer.ignored]
    with layers_lib.wide(layers_lib.is_double([layer for layer, _ in pairs])):
        if pooled:
            return {"all layers": _tie(pairs)}
        return {pair[0].name: _tie([pair]) for pair in pairs}


def warn_of_ties(ties: dict[str, Tie], *, stacklevel: int) -> None:
    """Warns once if ties of more than 1 % of the candidates, and 10, were divided.

    Args:
      ties: from `count_ties`, known now; with a leading axis of replicates or without.
      stacklevel: as in `warnings.warn`: 2 is whoever called the function that calls.
    """
    large = {}
    for name, tie in ties.items():
        tied = np.asarray(tie.tied)
        tied = np.where(tied > FEW_TIED, tied, 0)
        parts = tied / np.maximum(np.asarray(tie.candidates), 1)
        if np.max(parts, initial=0) > MOST_TIED:
            large[name] = f"{np.max(parts):.1%}"
    if large:
        warnings.warn(
            f"scores: of the weights that compete, those with exactly the score at the "
            f"threshold are {large}, too many to be kept or dropped together: their "
            "positions decide, spread evenly, and not their scores; look for layers "
            "that begin at zero, inputs that are always zero and scores that "
            "underflow, or choose another score or sparsity",
            TiedScoresWarning,
            stacklevel=stacklevel + 1,
        )


def _tie(pairs: list[tuple[Layer, Bool[Array, "..."]]]) -> Tie:
    """Counts the tie at the lowest score that is kept, among all these layers."""
    lows = [
        jnp.min(jnp.where(mask, layer.score, jnp.inf), initial=jnp.inf)
        for layer, mask in pairs
    ]
    lowest = jnp.min(jnp.stack(lows))
    tied, gone, candidates = [], [], []
    for layer, mask in pairs:
        within = jnp.ones_like(mask) if layer.within is None else layer.within
        at_threshold = (layer.score == lowest) & within
        tied.append(jnp.sum(at_threshold, dtype=jnp.float32))
        gone.append(jnp.any(at_threshold & ~mask))
        candidates.append(jnp.sum(within, dtype=jnp.float32))
    is_divided = jnp.any(jnp.stack(gone))
    return Tie(jnp.where(is_divided, sum(tied), 0.0), sum(candidates))
