"""Whether scores rank anything: finite, and not mostly equal at the threshold."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxsparse import masks as masks_lib
from jaxsparse.select.layers import Layer
from jaxsparse.types import Masks, Scores


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

    Examples:
      >>> scores = {"w": jnp.array([1.0, jnp.nan])}
      >>> bool(all_finite(scores))
      False
      >>> bool(all_finite(scores, {"w": jnp.array([True, False])}))
      True
    """
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
        with jax.ensure_compile_time_eval():
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
