"""Sparsities and counts of single layers, by the patterns of their names."""

import numbers
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.distributions.counts import count_kept
from jaxsparse.types import Counts, Masks


@arguments.check(
    masks=arguments.masks,
    values=arguments.instance(Mapping),
    otherwise=arguments.fraction,
)
def by_glob(
    masks: Masks,
    values: Mapping[str, float | int],
    *,
    otherwise: float | Fraction,
) -> Counts:
    """Gives some layers their own sparsity or count, and all others a common sparsity.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      values: for shell patterns of leaf names, a sparsity (a float in [0, 1)) or a
        number of weights to keep (an integer). The first pattern that matches a name
        applies.
      otherwise: sparsity of each layer that no pattern matches, in [0, 1).

    Returns:
      A count for each prunable leaf, None elsewhere. Each is rounded separately. Layers
      with a sparsity keep at least 1 weight unless they are empty; an explicit count
      may be 0.

    Raises:
      ValueError: if a pattern matches no leaf, or a sparsity or count is out of range
        for a layer.
      TypeError: if a value is not a number, or is a boolean.

    Examples:
      >>> masks = {"a": jnp.ones((4, 5), bool), "b": jnp.ones((5, 6), bool)}
      >>> by_glob(masks, {"b": 12}, otherwise=0.9)
      {'a': 2, 'b': 12}
    """
    masks_lib.check_globs(tuple(values), masks_lib.names(masks), field="values")

    def count(name: str, leaf: Any) -> int:
        globs = [glob for glob in values if masks_lib.matches(name, (glob,))]
        value = values[globs[0]] if globs else otherwise
        # The type decides, not the value: 1 is a single weight, and 1.0 is a sparsity
        # that is out of range.
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            if globs:
                arguments.fraction(f"values[{globs[0]!r}]", value)
            return max(count_kept(leaf.size, value), min(1, leaf.size))
        if not 0 <= value <= leaf.size:
            raise ValueError(
                f"values[{globs[0]!r}]: expected 0 to {leaf.size} weights for {name}, "
                f"its size, got {value}; write a sparsity as a float"
            )
        return int(value)

    return tree.map_with_names(count, masks)
