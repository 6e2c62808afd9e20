"""Sharding of parameters, and of the optimizer state that belongs to them (FSDP).

Parameters that are too large for one device are sharded over several. Their masks,
their optimizer state and the method's memory are sharded in the same way. The wrappers
need no changes for this: selection counts weights over all devices, so neither `update`
nor `init` gathers anything of the size of a parameter, if they are compiled with these
specifications.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import mask_codes, state_reset
from jaxsparse.types import Params

# Shell patterns of leaf names, and the array axis to shard matching leaves along; None
# leaves them unsharded. The first matching pattern counts.
Rules = tuple[tuple[str, int | None], ...]
Shaped = Params | PyTree[jax.ShapeDtypeStruct]

MIN_SIZE = 2**16  # elements; smaller leaves are not worth sharding


class _Sharded(NamedTuple):
    """Shape and sharding of a parameter.

    Attributes:
      shape: shape of the whole parameter.
      spec: its PartitionSpec.
    """

    shape: tuple[int, ...]
    spec: PartitionSpec


@arguments.check(
    params=arguments.weights, parts=arguments.integer(1), min_size=arguments.integer(0)
)
def weight_specs(
    params: Shaped,
    *,
    axis: str,
    parts: int,
    rules: Rules = (),
    min_size: int = MIN_SIZE,
) -> PyTree[PartitionSpec]:
    """Chooses how parameters are sharded over a mesh axis.

    Args:
      params: the parameters, perhaps abstract: only names and shapes are used.
      axis: name of the mesh axis.
      parts: number of devices along that axis.
      rules: pairs of a shell pattern of leaf names and the array axis to shard matching
        leaves along. The axis is counted from 0, or backwards from -1; None leaves a
        leaf unsharded. The first matching rule counts.
      min_size: minimum number of elements that a leaf without a matching rule must have
        to be sharded.

    Returns:
      A PartitionSpec for each leaf. A leaf without a matching rule is sharded along its
      longest axis whose length is divisible by `parts`; the first of several equally
      long ones. The last axis is chosen only if no other is divisible, since a count
      over a sharded last axis costs one sum per row instead of one in total.

    Raises:
      ValueError: if a rule matches no leaf, or names an axis that a leaf does not have
        or whose length is not divisible by `parts`; the message names the leaf or the
        pattern.

    Examples:
      >>> params = {"up": {"kernel": jnp.zeros((512, 2048)), "bias": jnp.zeros(2048)}}
      >>> weight_specs(params, axis="data", parts=8)["up"]["kernel"]
      P('data',)

    References:
      Rajbhandari, Rasley, Ruwase, He. ZeRO: Memory Optimizations Toward Training
      Trillion Parameter Models. 2019. arXiv:1910.02054 (stage 3).
    """
    globs = [glob for glob, _ in rules]
    masks_lib.check_globs(globs, masks_lib.names(params), field="rules")

    def spec_of(name: str, leaf: Any) -> PartitionSpec:
        matched = [at for glob, at in rules if masks_lib.matches(name, (glob,))]
        at = _checked_axis(name, leaf.shape, parts, matched[0]) if matched else None
        if not matched and np.prod(leaf.shape) >= min_size:
            at = _longest_axis(leaf.shape, parts)
        if at is None or parts == 1:
            return PartitionSpec()
        return PartitionSpec(*(None,) * at, axis)

    return tree.map_with_names(spec_of, params)


def _longest_axis(shape: tuple[int, ...], parts: int) -> int | None:
    """Chooses the axis to shard a leaf along if no rule matches it.

    Args:
      shape: shape of the leaf.
      parts: number of devices.

    Returns:
      An axis, counted from 0; None if no axis is divisible by `parts`.
    """
    divisible = [at for at, size in enumerate(shape) if size and not size % parts]
    # A count over a sharded last axis costs one sum per row instead of one in total.
    preferred = [at for at in divisible if at < len(shape) - 1] or divisible
    return max(preferred, key=lambda at: shape[at], default=None)


def _checked_axis(
    name: str, shape: tuple[int, ...], parts: int, at: int | None
) -> int | None:
    """Checks the axis that a rule gives, and converts it to an axis counted from 0.

    Args:
      name: name of the leaf, for error messages.
      shape: shape of the leaf.
      parts: number of devices.
      at: the axis, perhaps negative; None to leave the leaf unsharded.

    Returns:
      The axis, or None.

    Raises:
      ValueError: if the leaf has no such axis, or its length is not divisible by
        `parts`.
    """
    if at is None:
        return None
    if not -len(shape) <= at < len(shape):
        axes = f"an axis from {-len(shape)} to {len(shape) - 1}, or " if shape else ""
        raise ValueError(
            f"rules: expected {axes}None for {name}, which has shape {shape}, got {at}"
        )
    if shape[at] % parts:
        raise ValueError(
            f"rules: expected an axis of {name} with a length divisible by {parts}, "
            f"the number of devices, got axis {at} of length {shape[at]}; choose "
            "another axis, or None"
        )
    return at % len(shape)


def state_specs(specs: PyTree[PartitionSpec], params: Shaped, state: Any) -> Any:
    """Shards everything that belongs to parameters like them: masks, momenta, memory.

    Args:
      specs: one PartitionSpec for each leaf of `params`, for example from
        `weight_specs`.
      params: the parameters, perhaps abstract.
      state: an optimizer state, gradients, masks or scores, perhaps abstract.

    Returns:
      A PartitionSpec for each leaf of `state`. A leaf belongs to a parameter if its key
      path ends with the parameter's key path and their shapes are equal. Packed codes
      of weights are sharded like the weights, unless these are sharded along the packed
      axis; such codes are replicated. All other
      leaves are replicated: counters, keys, and optimizer state with other shapes or
      names, such as factored moments and everything that `optax.flatten` wraps.

    Examples:
      >>> devices = jax.devices()[:1]
      >>> mesh = jax.make_mesh((1,), ("data",), devices=devices)
      >>> specs = weight_specs(params, axis="data", parts=1)
      >>> tx = transforms.rigl(optax.adamw(1e-3), sparsity=0.9, end_step=75_000)
      >>> state = jax.eval_shape(tx.init, params)
      >>> place = lambda spec: jax.sharding.NamedSharding(mesh, spec)
      >>> shardings = jax.tree.map(place, state_specs(specs, params, state))
      >>> state = jax.jit(tx.init, out_shardings=shardings)(params)
    """
    sharded = jax.tree.map(lambda leaf, spec: _Sharded(leaf.shape, spec), params, specs)
    parameters = state_reset.matching_leaves(
        sharded, is_leaf=lambda node: isinstance(node, _Sharded)
    )

    def spec_of(path: tuple[Any, ...], leaf: Any) -> Any:
        if mask_codes.is_packed(leaf):
            spec, axis = find(path, leaf.shape), len(leaf.shape) + leaf.axis
            # The packed axis is shorter and need not be divisible.
            is_divided = axis < len(spec) and spec[axis] is not None
            return leaf.replace(packed=PartitionSpec() if is_divided else spec)
        return find(path, leaf.shape)

    def find(path: tuple[Any, ...], shape: tuple[int, ...]) -> PartitionSpec:
        matched = state_reset.matching_leaf(path, shape, parameters)
        return PartitionSpec() if matched is None else matched.spec

    return jax.tree_util.tree_map_with_path(
        spec_of, state, is_leaf=mask_codes.is_packed
    )
