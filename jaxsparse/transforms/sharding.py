"""Which weights are divided over devices, and along which axis (FSDP).

Weights too many for one device are divided over several; their masks, and what the
optimiser and the method remember of them, are divided alike. No wrapper knows of that:
selection counts over all devices, so nothing of a weight's size is gathered by `update`
or by `init`, if they are compiled with these specifications.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import state_reset
from jaxsparse.types import Params

# Shell patterns of names, and the axis that leaves of these names are divided along;
# None leaves them whole. The first that matches decides.
Rules = tuple[tuple[str, int | None], ...]
Shaped = Params | PyTree[jax.ShapeDtypeStruct]

LEAST = 2**16  # numbers of a leaf that is worth dividing


class _Divided(NamedTuple):
    """A leaf's shape, and how it is divided."""

    shape: tuple[int, ...]
    spec: PartitionSpec


@arguments.check(
    params=arguments.weights, parts=arguments.integer(1), least=arguments.integer(0)
)
def weight_specs(
    params: Shaped,
    *,
    axis: str,
    parts: int,
    rules: Rules = (),
    least: int = LEAST,
) -> PyTree[PartitionSpec]:
    """Chooses how weights are divided over an axis of a mesh.

    Args:
      params: weights; only names and shapes are used, so they may be abstract.
      axis: name of the axis of the mesh.
      parts: devices along it.
      rules: pairs of a shell pattern and an axis of the leaf, counted from 0, or from
        -1 backwards, or None; the first whose pattern matches a leaf's name decides.
      least: numbers that a leaf no rule matches must have to be divided.

    Returns:
      A PartitionSpec a leaf. Without a rule it is the longest axis that so many parts
      divide, of equally long ones the first, and the last only where no other can be:
      a count over a divided last axis costs one sum a row instead of one in all.

    Raises:
      ValueError: if a rule matches no leaf, or names an axis that a leaf does not have
        or that cannot be divided equally; the message names the leaf.

    Examples:
      >>> params = {"up": {"kernel": jnp.zeros((512, 2048)), "bias": jnp.zeros(2048)}}
      >>> weight_specs(params, axis="data", parts=8)["up"]["kernel"]
      PartitionSpec('data',)

    References:
      Rajbhandari, Rasley, Ruwase, He. ZeRO: Memory Optimizations Toward Training
      Trillion Parameter Models. 2019. arXiv:1910.02054 (stage 3).
    """
    names = masks_lib.names(params)
    for pattern, _ in rules:
        if not any(masks_lib.matches(name, (pattern,)) for name in names):
            raise ValueError(
                f"rules: the pattern {pattern!r} matches no leaf; wanted one of, or a "
                f"pattern over, {names}"
            )

    def choose(name: str, leaf: Any) -> PartitionSpec:
        found = [at for glob, at in rules if masks_lib.matches(name, (glob,))]
        at = _asked(name, leaf.shape, parts, found[0]) if found else None
        if not found and np.prod(leaf.shape) >= least:
            at = _longest(leaf.shape, parts)
        if at is None or parts == 1:
            return PartitionSpec()
        return PartitionSpec(*(None,) * at, axis)

    return tree.map_with_names(choose, params)


def _longest(shape: tuple[int, ...], parts: int) -> int | None:
    """Returns the axis to divide a leaf along; None if none can be."""
    able = [at for at, size in enumerate(shape) if size and not size % parts]
    early = [at for at in able if at < len(shape) - 1] or able
    return max(early, key=lambda at: shape[at], default=None)


def _asked(name: str, shape: tuple[int, ...], parts: int, at: int | None) -> int | None:
    """Checks the axis that a rule names, and counts it from the front."""
    if at is None:
        return None
    if not -len(shape) <= at < len(shape):
        there = f"{-len(shape)} to {len(shape) - 1}, or " if shape else ""
        raise ValueError(
            f"rules: axis {at} of {name}, which has the shape {shape}; wanted {there}"
            "None"
        )
    if shape[at] % parts:
        raise ValueError(
            f"rules: axis {at} of {name} has {shape[at]} entries, which {parts} "
            "devices cannot share equally; wanted another axis, or None"
        )
    return at % len(shape)


def state_specs(specs: PyTree[PartitionSpec], params: Shaped, state: Any) -> Any:
    """Divides whatever belongs to weights as the weights are: masks, momenta, memory.

    Args:
      specs: what `weight_specs` returned, or of your own, one PartitionSpec a leaf.
      params: the weights, perhaps abstract.
      state: an optimiser's state, gradients, masks or scores, perhaps abstract.

    Returns:
      A PartitionSpec for each leaf of `state`. A leaf belongs to a weight if its path
      ends in the weight's and their shapes are equal; all others are whole everywhere:
      counters, keys, and what an optimiser keeps in other shapes or under other names,
      such as factored moments and whatever `optax.flatten` wraps.

    Examples:
      >>> specs = weight_specs(params, axis="data", parts=8)
      >>> state = jax.eval_shape(tx.init, params)
      >>> place = lambda spec: NamedSharding(mesh, spec)
      >>> shardings = jax.tree.map(place, state_specs(specs, params, state))
      >>> state = jax.jit(tx.init, out_shardings=shardings)(params)
    """
    divided = jax.tree.map(lambda leaf, spec: _Divided(leaf.shape, spec), params, specs)
    owners = state_reset.matching_leaves(
        divided, is_leaf=lambda node: isinstance(node, _Divided)
    )

    def choose(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        found = state_reset.matching_leaf(path, leaf.shape, owners)
        return PartitionSpec() if found is None else found.spec

    return jax.tree_util.tree_map_with_path(choose, state)
