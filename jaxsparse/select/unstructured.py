"""Selection of single weights or, with a structure, of units of weights.

Without a structure, leaves keep their shape throughout. The masks are then the same
under `jit` and `vmap`, for any sharding and inside `shard_map`, and no sharded leaf is
gathered. With a structure, leaves are reshaped.
"""

import jax

from jaxsparse import masks
from jaxsparse.select import inputs, ranking, structured, structures, thresholds
from jaxsparse.select.inputs import AxisName
from jaxsparse.select.structures import Structure
from jaxsparse.select.thresholds import Ties
from jaxsparse.types import Count, Counts, Masks, Scores


def top_k_global(
    scores: Scores,
    count: Count,
    *,
    candidates: Masks | None = None,
    frozen: tuple[str, ...] = (),
    ties: Ties = "spread",
    axis_name: AxisName = None,
    structure: Structure | None = None,
) -> Masks:
    """Keeps the `count` highest scores over all layers together.

    -0.0 equals 0.0. float16 and bfloat16 are compared as float32, and float64 without
    rounding, so layers of different precision can compete. Concrete scores that are not
    finite raise an error, because they rank nothing. Traced scores cannot be checked:
    NaN ranks below every number, and `all_finite` detects it.

    Args:
      scores: real score of each weight, higher is better; None where a leaf is not
        prunable.
      count: number of weights to keep over all leaves that are not frozen. A concrete
        integer is checked against the number of candidates, or only against the sizes
        of the leaves if `candidates` is traced. A traced integer is clipped to the
        number of candidates; with 2**31 weights or more in these leaves, it must be
        int64.
      candidates: masks of the weights that may be kept; None allows every weight.
      frozen: shell patterns of leaf names. Matching leaves keep their mask in
        `candidates`, or every weight if that is None, and are not counted in `count`.
      ties: what to do with equal scores at the threshold. "spread" keeps exactly
        `count` weights and chooses among equal scores by a fixed pseudo-random order of
        positions, which spreads them evenly over layers and positions. It needs no
        random key and is the same for every sharding and at every call. "drop" keeps
        only scores strictly above the highest removed one, so equal scores at the
        threshold are all removed and fewer than `count` weights may be kept; open_lth
        does this.
      axis_name: inside `shard_map`, the mesh axis or axes along which every leaf is
        split by its first dimension; None outside `shard_map` or with a structure.
        `count` is still the count of the whole network.
      structure: structured sparsity with one row per leaf and units of equal size, such
        as `blocks((4, 4))`; None selects weights one by one. The score of a unit is the
        sum of its members' scores, in float32 or wider, and a unit is a candidate if
        all its members are. `ties` must be "spread". `count` is still a number of
        weights: a concrete integer must be a multiple of the members of a unit, and a
        traced one is rounded down to such a multiple.

    Returns:
      Boolean masks with the nesting of `scores`; None where the score is None.

    Raises:
      ValueError: if a count, a pattern, a tree or a leaf does not fit, or if a concrete
        score of a candidate is not finite.
      TypeError: if a count is not an integer, a score is not a real number or a mask is
        not boolean.

    Examples:
      >>> scores = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([1.0, 2.0])}
      >>> top_k_global(scores, 3)
      {'a': Array([ True,  True], dtype=bool), 'b': Array([False,  True], dtype=bool)}
    """
    if structure is not None:
        structured.check_options(structure, ties=ties, axis_name=axis_name)
    layers = inputs.read(scores, candidates, frozen, axis_name)
    selectable = [layer for layer in layers if not layer.frozen]
    ranking.check_finite(selectable)
    if structure is not None:
        structure = structures.bound(structure, scores)
        with inputs.wide(inputs.is_double(selectable)):
            kept = structured.top_k_global(structure, selectable, count)
        return inputs.write(scores, layers, kept)
    # `thresholds.keep` has one count per layer. If pooled, each is that of all layers.
    counts_to_keep = [inputs.read_count(count, selectable, "all layers", axis_name)]
    counts_to_keep *= len(selectable)
    with inputs.wide(inputs.is_double(selectable)):
        kept = thresholds.keep(
            selectable, counts_to_keep, pooled=True, ties=ties, axis_name=axis_name
        )
    return inputs.write(scores, layers, kept)


def top_k_per_layer(
    scores: Scores,
    counts: Counts,
    *,
    candidates: Masks | None = None,
    frozen: tuple[str, ...] = (),
    ties: Ties = "spread",
    axis_name: AxisName = None,
    structure: Structure | None = None,
) -> Masks:
    """Keeps the highest scores of each layer, as many as its count.

    -0.0 equals 0.0. Concrete scores that are not finite raise an error, because they
    rank nothing. Traced scores cannot be checked: NaN ranks below every number, and
    `all_finite` detects it.

    Args:
      scores: real score of each weight, higher is better; None where a leaf is not
        prunable.
      counts: number of weights to keep in each leaf, with the nesting of `scores`. A
        concrete integer is checked against the number of candidates, or only against
        the size of the leaf if `candidates` is traced. A traced integer is clipped to
        the number of candidates; for a leaf of 2**31 weights or more, it must be int64.
        The count of a frozen leaf is not read and may be None.
      candidates: masks of the weights that may be kept; None allows every weight.
      frozen: shell patterns of leaf names. Matching leaves keep their mask in
        `candidates`, or every weight if that is None.
      ties: what to do with equal scores at the threshold of a layer. "spread" keeps
        exactly the count and chooses among equal scores by a fixed pseudo-random order
        of positions, which spreads them evenly. It needs no random key and is the same
        for every sharding and at every call. "drop" keeps only scores strictly above
        the highest removed one, so equal scores at the threshold are all removed and
        fewer weights than the count may be kept; open_lth does this.
      axis_name: inside `shard_map`, the mesh axis or axes along which every leaf is
        split by its first dimension; None outside `shard_map` or with a structure.
        Counts are still those of whole leaves.
      structure: structured sparsity in which each row keeps the same number of units,
        such as `n_of_m(4)`; None selects weights one by one. The score of a unit is the
        sum of its members' scores, in float32 or wider. It is NaN if a member is NaN,
        or if infinities of both signs are added. Ties between units are broken
        differently in different rows; `ties` must be "spread". `counts` are still
        numbers of weights: a concrete integer must be a count that the structure can
        keep (`round_counts` rounds to one), and a traced one is rounded down to such a
        count. A unit is a candidate if all its members are. A row with fewer candidates
        than its share of the count keeps all of them.

    Returns:
      Boolean masks with the nesting of `scores`; None where the score is None.

    Raises:
      ValueError: if a count, a pattern, a tree or a leaf does not fit, or if a concrete
        score of a candidate is not finite. The message names the leaf.
      TypeError: if a count is not an integer, a score is not a real number or a mask is
        not boolean.

    Examples:
      >>> scores = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([1.0, 2.0])}
      >>> top_k_per_layer(scores, {"a": 1, "b": 0})
      {'a': Array([ True, False], dtype=bool), 'b': Array([False, False], dtype=bool)}
    """
    if structure is not None:
        structured.check_options(structure, ties=ties, axis_name=axis_name)
    layers = inputs.read(scores, candidates, frozen, axis_name)
    selectable = [layer for layer in layers if not layer.frozen]
    ranking.check_finite(selectable)
    by_name = dict(zip(masks.names(counts), jax.tree.leaves(counts), strict=True))
    names = {layer.name for layer in layers}
    # Frozen leaves may have a count, which is ignored, or None.
    if not {layer.name for layer in selectable} <= set(by_name) <= names:
        raise ValueError(
            f"counts: expected the leaves of scores, {sorted(names)}, got "
            f"{list(by_name)}"
        )
    if structure is not None:
        each = [by_name[layer.name] for layer in selectable]
        structure = structures.bound(structure, scores)
        with inputs.wide(inputs.is_double(selectable)):
            kept = structured.top_k_per_layer(structure, selectable, each)
        return inputs.write(scores, layers, kept)
    counts_to_keep = [
        inputs.read_count(by_name[layer.name], [layer], layer.name, axis_name)
        for layer in selectable
    ]
    with inputs.wide(inputs.is_double(selectable)):
        kept = thresholds.keep(
            selectable, counts_to_keep, pooled=False, ties=ties, axis_name=axis_name
        )
    return inputs.write(scores, layers, kept)
