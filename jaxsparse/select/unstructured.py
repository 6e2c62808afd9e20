"""Selection of weights, one by one or, where a structure is given, by its units.

Without a structure leaves keep their shape from end to end, so masks are the same
under `jit` and `vmap`, on any sharding and inside `shard_map`, and no sharded leaf is
gathered. With one, leaves are reshaped.
"""

import jax

from jaxsparse import masks
from jaxsparse.select import bisection, inputs, ranking, structured, structures
from jaxsparse.select.bisection import Ties
from jaxsparse.select.inputs import AxisName
from jaxsparse.select.structures import Structure
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
    """Keeps the `count` best weights of all layers together.

    -0.0 equals 0.0, and float16 and bfloat16 compare as float32, float64 as it is, so
    layers of different precision can compete. Scores that are not finite rank nothing
    and are refused. Traced scores cannot be: among them NaN ranks below every number;
    see `all_finite`.

    Args:
      scores: what each weight is worth, real numbers; None where a leaf is not
        prunable.
      count: weights to keep over all layers that are not ignored. An integer that is
        known now is checked, against the sizes alone if `candidates` is traced; a
        traced one is clipped to what there is. With 2**31 weights or more in these
        layers a traced one must be int64.
      candidates: masks outside which nothing is kept; None allows every weight.
      frozen: shell patterns of leaf names whose masks stay as `candidates` has them and
        whose weights are not counted.
      ties: "spread" keeps exactly `count` and, of equal scores at the threshold, a
        fixed choice that is spread evenly over layers and positions: by a pseudo-random
        order of positions that needs no key and is the same on every layout of devices
        and at every call. "drop" keeps
        only scores strictly above the best one that must go, so equal scores at the
        threshold all go and fewer than `count` may be kept; open_lth does this.
      axis_name: inside `shard_map`, the mesh axis or axes along which every leaf is
        split by its first dimension. `count` is still that of the whole network.
      structure: which weights stand or fall together, such as `blocks((4, 4))`; of one
        row in each leaf, and units of equally many members. `count` is still of
        weights, and checked or rounded down as in `per_layer`. None selects weights one
        by one.

    Returns:
      Masks; None where the score is None.

    Raises:
      ValueError: if a count, a pattern, a tree or a leaf does not fit, or a score that
        may be selected is not finite; see the message.
      TypeError: if a count is not an integer, a score not a number or a mask not
        boolean.

    Examples:
      >>> scores = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([1.0, 2.0])}
      >>> globally(scores, 3)
      {'a': Array([ True,  True], dtype=bool), 'b': Array([False,  True], dtype=bool)}
    """
    if structure is not None:
        structured.check_options(structure, ties=ties, axis_name=axis_name)
    layers = inputs.read(scores, candidates, frozen, axis_name)
    chosen = [layer for layer in layers if not layer.frozen]
    ranking.check_finite(chosen)
    if structure is not None:
        structure = structures.bound(structure, scores)
        with inputs.wide(inputs.is_double(chosen)):
            kept = structured.top_k_global(structure, chosen, count)
        return inputs.write(scores, layers, kept)
    wanted = [inputs.read_count(count, chosen, "all layers", axis_name)]
    wanted *= len(chosen)
    with inputs.wide(inputs.is_double(chosen)):
        kept = bisection.keep(
            chosen, wanted, pooled=True, ties=ties, axis_name=axis_name
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
    """Keeps the best weights of each layer, as many as its count says.

    Args:
      scores: what each weight is worth; None where a leaf is not prunable.
      counts: weights to keep, with the nesting of `scores`, checked or clipped as in
        `globally`. That of an ignored leaf is not read and may be None.
      candidates: as in `globally`, and so are the others.
      frozen: as above.
      ties: as above, layer by layer.
      axis_name: as above; None with a structure.
      structure: which weights stand or fall together, and of which each row keeps
        equally many, such as `in_groups(4)`. A unit is worth the sum of its members'
        scores, in float32 or better: NaN if a member is NaN, or infinities of both
        signs meet. Among equal units those of different rows are chosen differently;
        `ties` must be "spread". `counts` are of weights: a Python integer must be a
        multiple that the structure can meet (see `fit`), a traced one is rounded down
        to one. A unit is allowed if all its members are `candidates`, and a row that is
        allowed fewer units than it should keep keeps those. None selects weights
        one by one.

    Returns:
      Masks; None where the score is None.

    Raises:
      ValueError: if a count, a pattern, a tree or a leaf does not fit, or a score that
        may be selected is not finite; the message names the leaf.
      TypeError: as `globally`.

    Examples:
      >>> scores = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([1.0, 2.0])}
      >>> per_layer(scores, {"a": 1, "b": 0})
      {'a': Array([ True, False], dtype=bool), 'b': Array([False, False], dtype=bool)}
    """
    if structure is not None:
        structured.check_options(structure, ties=ties, axis_name=axis_name)
    layers = inputs.read(scores, candidates, frozen, axis_name)
    chosen = [layer for layer in layers if not layer.frozen]
    ranking.check_finite(chosen)
    by_name = dict(zip(masks.names(counts), jax.tree.leaves(counts), strict=True))
    names = {layer.name for layer in layers}
    if not {layer.name for layer in chosen} <= set(by_name) <= names:
        raise ValueError(
            f"counts: got the leaves {list(by_name)}; wanted {sorted(names)}, as scores"
        )
    if structure is not None:
        each = [by_name[layer.name] for layer in chosen]
        structure = structures.bound(structure, scores)
        with inputs.wide(inputs.is_double(chosen)):
            kept = structured.top_k_per_layer(structure, chosen, each)
        return inputs.write(scores, layers, kept)
    wanted = [
        inputs.read_count(by_name[layer.name], [layer], layer.name, axis_name)
        for layer in chosen
    ]
    with inputs.wide(inputs.is_double(chosen)):
        kept = bisection.keep(
            chosen, wanted, pooled=False, ties=ties, axis_name=axis_name
        )
    return inputs.write(scores, layers, kept)
