"""Where the state of training lies, and how the weights in it are divided.

A state in the form of files leads with replicates, which are spread over devices.
Weights may be divided besides over the devices that share a batch, and so is what
belongs to them; then it is the compiler that divides the program, and here it is told
how.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxsparse import multihost, transforms
from jaxsparse.training import mesh
from jaxsparse.training import state as state_lib
from jaxsparse.training.mesh import DATA, REPLICATE, MeshLayout
from jaxsparse.training.state import TrainState
from jaxsparse.types import Params


def state_specs(layout: MeshLayout, state: TrainState) -> TrainState:
    """Returns over which axes of the mesh each leaf of a state is divided."""
    # replicate_axes has None, which is no leaf, where a leaf is not batched.
    axes = state_lib.replicate_axes(state)
    alone = jax.tree.map(
        lambda axis, part: part if axis is None else state_lib.of_one(part),
        axes,
        state,
        is_leaf=lambda axis: axis is None,
    )
    return jax.tree.map(
        lambda axis, part: jax.tree.map(
            lambda spec: spec if axis is None else PartitionSpec(REPLICATE, *spec),
            part,
            is_leaf=_is_spec,
        ),
        axes,
        _specs_of_one(layout, alone),
        is_leaf=lambda axis: axis is None,
    )


def _specs_of_one(layout: MeshLayout, state: TrainState) -> TrainState:
    """Returns over which axes each leaf of one replicate's state is divided."""
    own = _weight_specs(layout, state.params)
    return transforms.state_specs(own, state.params, state)


def _is_spec(node: Any) -> bool:
    return isinstance(node, PartitionSpec)


def _weight_specs(layout: MeshLayout, params: Any) -> Any:
    """Returns how the weights of one replicate are divided."""
    if layout.division is None:
        return jax.tree.map(lambda _: PartitionSpec(), params)
    try:
        return transforms.weight_specs(
            params, axis=DATA, parts=layout.data_devices, **layout.division._asdict()
        )
    except ValueError as error:
        raise ValueError(f"config.run.weight_{error}") from error


def state_shardings(layout: MeshLayout, state: TrainState) -> TrainState:
    """Returns the sharding of each leaf of a state under jit."""
    return _shardings(layout, state_specs(layout, state))


def _shardings(layout: MeshLayout, specs: TrainState) -> TrainState:
    return jax.tree.map(lambda spec: mesh.of(layout, *spec), specs, is_leaf=_is_spec)


def constrain(layout: MeshLayout, state: TrainState) -> TrainState:
    """Has the compiler make a state [r ...] divided as it is to lie; for use in jit."""
    return jax.lax.with_sharding_constraint(state, state_shardings(layout, state))


def pin(layout: MeshLayout, state: TrainState) -> TrainState:
    """Has the compiler keep one replicate's state divided as it lies; for use in jit.

    Otherwise it may bring weights together before what else is done with them.
    """
    if not layout.divides:
        return state
    where = _shardings(layout, _specs_of_one(layout, state))
    return jax.lax.with_sharding_constraint(state, where)


def divide_batch(layout: MeshLayout, batch: Any) -> Any:
    """Has the compiler divide examples [b ...] over the devices that share them."""
    return jax.lax.with_sharding_constraint(batch, mesh.of(layout, DATA))


def make_gather(
    layout: MeshLayout, like: TrainState
) -> Callable[[Params], Params] | None:
    """Makes the function that brings the weights a network computes with together.

    Where the gradient is taken through it, that comes back summed and divided as the
    weights are; see `keeps`.

    Args:
      layout: how the run uses its devices.
      like: a state in the form of files, perhaps abstract.

    Returns:
      A function of the weights of one replicate, for use in jit; None where they are
      whole on every device.
    """
    if not layout.divides:
        return None
    specs = _weight_specs(layout, state_lib.of_one(like.params))

    return lambda params: jax.tree.map(
        lambda leaf, spec: _gather(layout, spec)(leaf) if spec else leaf, params, specs
    )


def _gather(layout: MeshLayout, spec: PartitionSpec) -> Callable[[Any], Any]:
    """Makes the function that brings one weight together, and divides its gradient."""

    def together(leaf: Any) -> Any:
        return jax.lax.with_sharding_constraint(leaf, mesh.of(layout))

    gather = jax.custom_vjp(together)

    def forward(leaf: Any) -> tuple[Any, None]:
        # Not `gather` again: `keeps` would not see what it does.
        return together(leaf), None

    def backward(_: None, gradient: Any) -> tuple[Any]:
        return (jax.lax.with_sharding_constraint(gradient, mesh.of(layout, *spec)),)

    gather.defvjp(forward, backward)
    return gather


def keeps(primitive: Any, *_: Any, **unused: Any) -> bool:
    """Says whether `jax.checkpoint` keeps a result: all but what is brought together.

    Weights would otherwise stay whole on every device, those of all layers at once,
    from the network's first layer to the gradient of its last.
    """
    del unused
    return primitive.name != "sharding_constraint"


def shard_state(layout: MeshLayout, state: TrainState) -> TrainState:
    """Brings a state in the form of files onto the devices.

    Args:
      layout: how the run uses its devices.
      state: leaves lead with the axis of replicates, counters are scalars.

    Returns:
      The same state, sharded; under pmap with a leading axis of devices besides.
    """
    if not layout.mapped:
        return to_checkpoint_layout(layout, state)
    count = layout.mesh.size
    stacked = mesh.of(layout, (REPLICATE, DATA))
    axes = state_lib.replicate_axes(state)
    return jax.tree.map(
        lambda axis, part: jax.tree.map(
            lambda leaf: (
                jax.device_put(jnp.broadcast_to(leaf, (count, *leaf.shape)), stacked)
                if axis is None
                else mesh.stack(layout, leaf)
            ),
            part,
        ),
        axes,
        state,
        is_leaf=lambda axis: axis is None,
    )


def to_checkpoint_layout(layout: MeshLayout, state: TrainState) -> TrainState:
    """Places a state in the form of files as it is under jit."""
    return multihost.device_put(state, state_shardings(layout, state))


def gather_state(layout: MeshLayout, state: TrainState) -> TrainState:
    """Undoes `place`; what it returns is placed as under jit."""
    if not layout.mapped:
        return state
    axes = state_lib.replicate_axes(state)

    def first(leaf: Any) -> Any:
        # Not leaf[0]: JAX counts a static slice of a random key as a use of it.
        return jax.lax.dynamic_index_in_dim(leaf, 0, keepdims=False)

    def gather(leaf: Any) -> Any:
        if layout.data_devices > 1:
            return first(leaf)
        return leaf.reshape(layout.replicates, *leaf.shape[2:])

    flat = jax.tree.map(
        lambda axis, part: jax.tree.map(
            lambda leaf: first(leaf) if axis is None else gather(leaf), part
        ),
        axes,
        state,
        is_leaf=lambda axis: axis is None,
    )
    return to_checkpoint_layout(layout, flat)
