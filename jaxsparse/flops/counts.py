"""Densities of masks."""

from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks


def densities(masks: Masks) -> dict[str, float]:
    """Returns the fraction of active weights of each leaf, by name.

    Args:
      masks: concrete masks of one replicate.

    Examples:
      >>> densities({"w": jnp.array([True, False, False, False]), "b": None})
      {'w': 0.25}
    """
    counts = masks_lib.layer_counts(masks)
    return {name: c.num_active / max(1, c.size) for name, c in counts.items()}
