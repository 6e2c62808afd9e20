"""Counts that a structure can meet: as many units in every row.

Runs on the host, from names and shapes. Counts are of weights here as everywhere;
`distributions` and `schedules` make them and know nothing of structures.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from jaxsparse import arguments, tree
from jaxsparse.select import layers, structures
from jaxsparse.select.structures import Grid, Structure
from jaxsparse.types import Count, Counts, Masks


@arguments.check(
    structure=arguments.optional(arguments.instance(Structure)),
    masks=arguments.weights,
)
def fit(
    structure: Structure | None,
    masks: Masks | PyTree[jax.ShapeDtypeStruct],
    counts: Counts,
) -> Counts:
    """Rounds counts to those that a structure can meet, on the host.

    Args:
      structure: what the counts are for; None returns them as they came. Leaves that
        it was told to be dense, see `bind`, keep their counts.
      masks: which leaves are prunable; only names and shapes are used.
      counts: weights to keep of each leaf, integers known now; None where a leaf is
        not selected from.

    Returns:
      Python integers with the nesting of `counts`: the nearest multiples of rows times
      members, halves up. Their sum may differ from that of `counts`, by at most half
      such a step a leaf.

    Raises:
      ValueError: if a leaf does not fit the structure, a count is not of its leaf, or
        one above 0 would become 0, which leaves nothing of the layer; the message
        names the leaf.

    Examples:
      >>> masks = {"a": jnp.ones((8, 3), bool), "b": jnp.ones((4, 5), bool)}
      >>> fit(in_groups(4), masks, {"a": 9, "b": 7})
      {'a': 12, 'b': 5}
    """
    if structure is None:
        return counts
    structure = structures.bound(structure, masks)
    shapes = {name: leaf.shape for name, leaf in tree.named_leaves(masks).items()}
    unknown = sorted(set(tree.names(counts)) - set(shapes))
    if unknown:
        raise ValueError(
            f"counts: got the leaves {unknown}; wanted those of masks, {list(shapes)}"
        )

    def fit_leaf(name: str, count: Any) -> int:
        known = layers.as_integer(count, f"count of {name}")
        return _nearest(structure, name, shapes[name], known)

    return tree.map_with_names(fit_leaf, counts)


def look_up(table: Sequence[int], index: Int[Array, ""], total: int) -> Count:
    """Reads a traced count of a table, in int64 if that many weights need it.

    Args:
      table: counts, known now.
      index: which of them; int32.
      total: weights that compete, which `select` then numbers in int64 from 2**31 on.

    Returns:
      The count, in int32 or int64.
    """
    is_long = total >= layers.LIMIT
    with layers.wide(is_long):
        return jnp.asarray(np.array(table, np.int64 if is_long else np.int32))[index]


def step(view: Grid) -> int:
    """Returns how many weights one unit more in every row is; counts are its multiples.

    At least 1, so that an empty leaf has the one count 0.
    """
    return max(view.rows * view.members, 1)


def check_count(structure: Structure, name: str, view: Grid, count: int) -> None:
    """Refuses a count of weights that is not as many units in every row.

    Args:
      structure: what the leaf is viewed by.
      name: of the leaf, for the message.
      view: what `grid` says of the leaf.
      count: weights to keep.

    Raises:
      ValueError: if the count is not a multiple of `step`, or not of the leaf.
    """
    total = math.prod(view)
    if not 0 <= count <= total or count % step(view):
        raise ValueError(
            f"count of {name}: got {count}; wanted a multiple of {step(view)} from 0 "
            f"to {total}, for {structure}; round counts with `select.fit`"
        )


def _nearest(
    structure: Structure, name: str, shape: tuple[int, ...], count: int
) -> int:
    """Rounds one leaf's count, halves up."""
    total, each = math.prod(shape), step(structures.grid(structure, name, shape))
    if not 0 <= count <= total:
        raise ValueError(
            f"count of {name}: got {count}; wanted 0 to {total}, the weights it has"
        )
    fitted = (2 * count + each) // (2 * each) * each
    if count and not fitted:
        raise ValueError(
            f"count of {name}: got {count}, which {structure} rounds to 0 and leaves "
            f"nothing of the layer; wanted a multiple of {each} up to {total}; keep "
            "more, or leave the leaf out with `prunable=`"
        )
    return fitted
