"""Checks of scores: whether they are finite, and how many tie at the threshold."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.select import inputs, structured, structures, units
from jaxsparse.select.inputs import Layer
from jaxsparse.select.structures import Structure
from jaxsparse.types import Masks, Scores

MAX_TIED_FRACTION = 0.01  # fraction of the candidates
MAX_TIED_IGNORED = 10  # weights; up to this many equal scores are normal in any network


class TiedScoresWarning(UserWarning):
    """Warns that positions, not scores, decided about more than 1% of the candidates.

    Ties of 10 weights or fewer do not warn. In small networks 1% may be a single
    weight, and a few equal scores are normal there. SynFlow scores of weights in series
    are equal, for example where one weight leads into a neuron and one leads out of it.
    """


class Tie(NamedTuple):
    """Numbers of weights that tie at the threshold, and that compete.

    Attributes:
      tied: number of weights whose score equals the threshold, float32; 0 if all of
        them are kept, so that the threshold does not divide them. With a structure,
        the weights of the units that tie; rows have a threshold each, and their ties
        are added. Approximate above 2**24.
      candidates: number of weights that compete, float32. Approximate above 2**24.
    """

    tied: Float[Array, ""]
    candidates: Float[Array, ""]


def all_finite(scores: Scores, candidates: Masks | None = None) -> Bool[Array, ""]:
    """Returns whether the scores of all candidates are finite.

    `top_k_global` and `top_k_per_layer` raise an error for concrete scores that are not
    finite. They cannot check traced scores, so call this function and skip the mask
    update if it returns False.

    Args:
      scores: real score of each weight; None where a leaf is not prunable.
      candidates: masks of the weights whose scores are checked; None checks every
        score.

    Returns:
      A boolean scalar; usable under `jit`, `vmap` and `lax.cond`. True for a tree
      without leaves.

    Raises:
      TypeError: if a score is not an array of real numbers or a mask is not boolean.

    Examples:
      >>> scores = {"w": jnp.array([1.0, jnp.nan])}
      >>> bool(all_finite(scores))
      False
      >>> bool(all_finite(scores, {"w": jnp.array([True, False])}))
      True
    """
    allowed = None if candidates is None else tree.named_leaves(candidates)
    for name, leaf in tree.named_leaves(scores).items():
        if allowed is None or name in allowed:
            inputs.check_score(name, leaf)
    for name, leaf in (allowed or {}).items():
        inputs.check_candidates(name, leaf, jnp.shape(leaf))
    leaves = jax.tree.leaves(scores)
    with inputs.wide(any(inputs.is_long_type(leaf.dtype) for leaf in leaves)):
        if candidates is None:
            finite = jax.tree.map(lambda score: jnp.all(jnp.isfinite(score)), scores)
        else:
            finite = masks_lib.tree_map(
                lambda mask, score: jnp.all(jnp.isfinite(score) | ~mask),
                candidates,
                scores,
            )
        return jnp.all(jnp.stack([*jax.tree.leaves(finite), jnp.array(True)]))


def check_finite(layers: list[Layer]) -> None:
    """Raises an error if concrete scores of candidates are not finite.

    Args:
      layers: leaves that are selected from. Traced scores or masks are not checked.

    Raises:
      ValueError: if a score is NaN or infinite; the message names each such layer and
        the number of such scores in it.
    """
    concrete = [
        layer
        for layer in layers
        if not isinstance(layer.score, jax.core.Tracer)
        and not isinstance(layer.candidates, jax.core.Tracer)
    ]
    if not concrete:
        return
    # Under `jit`, operations on concrete scores would be traced too.
    with jax.ensure_compile_time_eval(), inputs.wide(inputs.is_double(concrete)):
        counts = _count_not_finite(
            [layer.score for layer in concrete],
            [layer.candidates for layer in concrete],
        )
    bad = {
        layer.name: f"{count} of {layer.score.size}"
        for layer, count in zip(concrete, jax.device_get(counts), strict=True)
        if count
    }
    if bad:
        raise ValueError(
            f"scores: expected finite numbers, got NaN or infinity in {bad}; look for "
            "overflow in the function that computes them, or exclude these weights "
            "with `candidates=`"
        )


@jax.jit
def _count_not_finite(scores: list[Any], candidates: list[Any]) -> list[Any]:
    """Counts the scores of candidates in each layer that are NaN or infinite."""
    return [
        jnp.sum(~jnp.isfinite(score) & (True if allowed is None else allowed))
        for score, allowed in zip(scores, candidates, strict=True)
    ]


def count_ties(
    scores: Scores,
    kept: Masks,
    *,
    candidates: Masks | None = None,
    frozen: tuple[str, ...] = (),
    pooled: bool,
    structure: Structure | None = None,
) -> dict[str, Tie]:
    """Counts the weights that tie at the threshold, where not all of them are kept.

    Args:
      scores: the scores that were selected by; None where a leaf is not prunable.
      kept: the masks that were selected.
      candidates: masks of the weights that were allowed to be kept; None if all were.
      frozen: shell patterns of leaf names; matching leaves were not selected from and
        are not counted.
      pooled: whether all layers competed, or only the weights of each layer.
      structure: structured sparsity that was selected with; None for single weights.
        Units then tie and not weights, in each row on its own.

    Returns:
      The tie of each layer by the layer's name or, if pooled, a single one under the
      key "all layers". Its `tied` is 0 if the threshold divides no tie. Traced if the
      arguments are.
    """
    layers = inputs.read(scores, candidates, frozen, None)
    kept = tree.match_structure(
        kept, scores, fields=("kept", "scores"), same_leaves=True
    )
    selected = zip(layers, jax.tree.leaves(kept), strict=True)
    pairs = [(layer, mask) for layer, mask in selected if not layer.frozen]
    members = dict.fromkeys((layer.name for layer in layers), 1)
    with inputs.wide(inputs.is_double([layer for layer, _ in pairs])):
        if structure is not None:
            structure = structures.bound(structure, scores)
            for layer, _ in pairs:
                view = units.unit_view(structure, layer.name, layer.score.shape)
                members[layer.name] = view.members
            pairs = [_by_unit(structure, layer, mask) for layer, mask in pairs]
        in_rows = structure is not None
        groups = {"all layers": pairs} if pooled else {p[0].name: [p] for p in pairs}
        return {
            name: _tie(
                [layer.score for layer, _ in group],
                [layer.candidates for layer, _ in group],
                [mask for _, mask in group],
                in_rows=in_rows,
                members=members[group[0][0].name],
            )
            for name, group in groups.items()
        }


def warn_of_ties(ties: dict[str, Tie]) -> None:
    """Warns of divided ties that hold more than 1% of the candidates.

    They must also hold more than 10 weights. Warns once for all layers.

    Args:
      ties: concrete ties from `count_ties`, with or without a leading axis of
        replicates.

    Warns:
      TiedScoresWarning: if any tie is that large; the message gives its share by layer.
    """
    large = {}
    for name, tie in ties.items():
        tied = np.asarray(tie.tied)
        tied = np.where(tied > MAX_TIED_IGNORED, tied, 0)
        parts = tied / np.maximum(np.asarray(tie.candidates), 1)
        if np.max(parts, initial=0) > MAX_TIED_FRACTION:
            large[name] = f"{np.max(parts):.1%}"
    if large:
        arguments.warn(
            f"scores: expected at most {MAX_TIED_FRACTION:.0%} of the weights to tie "
            f"at the threshold, got {large}, so that positions and not scores decide "
            "which of them are kept; look for layers that are initialized with zeros, "
            "inputs that are always zero and scores that underflow, or choose another "
            "score or sparsity",
            TiedScoresWarning,
        )


def _by_unit(
    structure: Structure, layer: Layer, mask: Bool[Array, "..."]
) -> tuple[Layer, Bool[Array, "rows units"]]:
    """Converts a layer and its mask to an entry per unit, [rows, units]."""
    kept = units.to_units(structure, layer.name, mask)
    return structured.unit_layer(structure, layer), jnp.all(kept, axis=-1)


@functools.partial(jax.jit, static_argnames=("in_rows", "members"))
def _tie(
    scores: list[Any],
    candidates: list[Any],
    masks: list[Bool[Array, "..."]],
    *,
    in_rows: bool,
    members: int,
) -> Tie:
    """Counts the weights that score as low as the lowest kept score of these layers.

    Args:
      scores: scores of layers with one threshold. They have an entry per weight or,
        with a structure, per unit, [rows, units].
      candidates: which entries of each layer were allowed to be kept, or None.
      masks: which entries of each layer were kept.
      in_rows: whether every row has a threshold of its own.
      members: number of weights per entry.
    """
    axis = -1 if in_rows else None
    lowest_kept = [
        jnp.min(
            jnp.where(mask, score, jnp.inf),
            axis=axis,
            keepdims=in_rows,
            initial=jnp.inf,
        )
        for score, mask in zip(scores, masks, strict=True)
    ]
    # Layers that compete have a single row each.
    lowest = jnp.min(jnp.stack(lowest_kept), axis=0)
    tied, removed, competing = [], [], []
    for score, given, mask in zip(scores, candidates, masks, strict=True):
        allowed = jnp.ones_like(mask) if given is None else given
        at_threshold = (score == lowest) & allowed
        tied.append(jnp.sum(at_threshold, axis, jnp.float32, keepdims=in_rows))
        removed.append(jnp.any(at_threshold & ~mask, axis, keepdims=in_rows))
        competing.append(jnp.sum(allowed, dtype=jnp.float32))
    is_divided = jnp.any(jnp.stack(removed), axis=0)
    divided = jnp.sum(jnp.where(is_divided, sum(tied), 0.0))
    return Tie(members * divided, members * sum(competing))
