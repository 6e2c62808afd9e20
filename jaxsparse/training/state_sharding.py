"""Placement of the training state on devices, including sharded parameters (FSDP).

In the checkpoint layout all leaves lead with the replicate axis, which is spread over
devices. The weights of a replicate, and whatever belongs to them, can also be sharded
over the devices that share its batch. In that case the compiler partitions the program,
and the functions here set the sharding constraints.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxsparse import multihost, transforms
from jaxsparse.training import mesh, placement
from jaxsparse.training import state as state_lib
from jaxsparse.training.mesh import DATA, REPLICATE, MeshLayout
from jaxsparse.training.state import TrainState
from jaxsparse.types import Params


def state_specs(layout: MeshLayout, state: TrainState) -> TrainState:
    """Returns the partition spec of each leaf of a state.

    Args:
      layout: mesh of devices and placement of arrays on it.
      state: a state in the checkpoint layout, possibly abstract: leaves lead with the
        replicate axis, counters are scalars.

    Returns:
      A state of PartitionSpecs: the replicate axis first, then the axes over which the
      leaf is sharded within a replicate.
    """
    # `replicate_axes` marks shared counters with None, which JAX does not treat as a
    # leaf unless `is_leaf` says so.
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
    """Returns the partition spec of each leaf of one replicate's state."""
    own = _weight_specs(layout, state.params)
    return transforms.state_specs(own, state.params, state)


def _is_spec(node: Any) -> bool:
    return isinstance(node, PartitionSpec)


def _weight_specs(layout: MeshLayout, params: Any) -> Any:
    """Returns the partition spec of each weight of one replicate.

    Raises:
      ValueError: if a sharding rule does not fit the weights; the message names the
        config field.
    """
    if layout.division is None:
        return jax.tree.map(lambda _: PartitionSpec(), params)
    try:
        return transforms.weight_specs(
            params, axis=DATA, parts=layout.data_devices, **layout.division._asdict()
        )
    except ValueError as error:
        raise ValueError(f"config.run.fsdp_{error}") from error


def state_shardings(layout: MeshLayout, state: TrainState) -> TrainState:
    """Returns the sharding of each leaf of a state under jit.

    Args:
      layout: mesh of devices and placement of arrays on it.
      state: a state in the checkpoint layout, possibly abstract.
    """
    return _shardings(layout, state_specs(layout, state))


def _shardings(layout: MeshLayout, specs: TrainState) -> TrainState:
    return jax.tree.map(lambda spec: mesh.of(layout, *spec), specs, is_leaf=_is_spec)


def constrain(layout: MeshLayout, state: TrainState) -> TrainState:
    """Constrains a state [r ...] to its sharding; for use under jit.

    Args:
      layout: mesh of devices and placement of arrays on it.
      state: the state, under jit.
    """
    return jax.lax.with_sharding_constraint(state, state_shardings(layout, state))


def pin(layout: MeshLayout, state: TrainState) -> TrainState:
    """Constrains one replicate's state to its sharding; for use under jit.

    Without the constraint the compiler may all-gather weights before operations that do
    not need them whole. Does nothing if parameters are not sharded.

    Args:
      layout: mesh of devices and placement of arrays on it.
      state: state of one replicate, without the replicate axis.
    """
    if not layout.divides:
        return state
    where = _shardings(layout, _specs_of_one(layout, state))
    return jax.lax.with_sharding_constraint(state, where)


def divide_batch(layout: MeshLayout, batch: Any) -> Any:
    """Shards a batch [b ...] over the devices that share it; for use under jit.

    Args:
      layout: mesh of devices and placement of arrays on it.
      batch: pytree of arrays [b ...], under jit.
    """
    return jax.lax.with_sharding_constraint(batch, mesh.of(layout, DATA))


def make_gather(
    layout: MeshLayout, like: TrainState
) -> Callable[[Params], Params] | None:
    """Makes the function that all-gathers the weights a network computes with.

    Gradients taken through the function are summed over devices and sharded like the
    weights. `jax.checkpoint` with the policy `keeps` discards the gathered weights
    after their use.

    Args:
      layout: mesh of devices and placement of arrays on it.
      like: a state in the checkpoint layout, possibly abstract.

    Returns:
      A function of the weights of one replicate, for use under jit; None if every
      device holds whole weights.
    """
    if not layout.divides:
        return None
    specs = _weight_specs(layout, state_lib.of_one(like.params))

    return lambda params: jax.tree.map(
        lambda leaf, spec: _gather(layout, spec)(leaf) if spec else leaf, params, specs
    )


def _gather(layout: MeshLayout, spec: PartitionSpec) -> Callable[[Any], Any]:
    """Makes the function that all-gathers one weight and shards its gradient."""

    def together(leaf: Any) -> Any:
        return jax.lax.with_sharding_constraint(leaf, mesh.of(layout))

    gather = jax.custom_vjp(together)

    def forward(leaf: Any) -> tuple[Any, None]:
        # Calls `together` and not `gather`: inside a custom_vjp, `keeps` would not see
        # the constraint, and the gathered weight would be saved.
        return together(leaf), None

    def backward(_: None, gradient: Any) -> tuple[Any]:
        return (jax.lax.with_sharding_constraint(gradient, mesh.of(layout, *spec)),)

    gather.defvjp(forward, backward)
    return gather


def keeps(primitive: Any, *_: Any, **unused: Any) -> bool:
    """Returns whether `jax.checkpoint` saves a result: all but gathered weights.

    If they were saved, every device would hold the whole weights of all layers at once,
    from the forward pass of the first layer to the backward pass of the last.

    Args:
      primitive: JAX primitive that computes the result.
      *_: further positional arguments of a policy; unused.
      **unused: parameters of the primitive; unused.

    Returns:
      Whether the result is saved for the backward pass.
    """
    del unused
    return primitive.name != "sharding_constraint"


def shard_state(layout: MeshLayout, state: TrainState) -> TrainState:
    """Moves a state from the checkpoint layout to the devices.

    Args:
      layout: mesh of devices and placement of arrays on it.
      state: leaves lead with the replicate axis, counters are scalars.

    Returns:
      The same state, sharded. Under pmap all leaves have an additional leading axis of
      devices.
    """
    state = to_checkpoint_layout(layout, state)
    return _stack_state(layout)(state) if layout.mapped else state


@functools.cache
def _stack_state(layout: MeshLayout) -> Callable[[TrainState], TrainState]:
    """Makes the compiled function that adds pmap's axis of devices to all leaves."""

    def add_axis(leaf: Any, axis: int | None) -> Any:
        # pmap needs an axis of devices on every leaf, so shared counters are copied.
        if axis is None:
            return jnp.broadcast_to(leaf, (layout.mesh.size, *leaf.shape))
        return placement.add_device_axis(layout, leaf)

    # One program for all leaves: separate operations would be compiled for every shape.
    return jax.jit(
        functools.partial(_map_with_axes, add_axis),
        out_shardings=mesh.of(layout, (REPLICATE, DATA)),
    )


def _map_with_axes(change: Callable[[Any, int | None], Any], state: Any) -> Any:
    """Maps a function of each leaf and its replicate axis, None for shared counters."""
    return jax.tree.map(
        lambda axis, part: jax.tree.map(lambda leaf: change(leaf, axis), part),
        state_lib.replicate_axes(state),
        state,
        is_leaf=lambda axis: axis is None,
    )


def to_checkpoint_layout(layout: MeshLayout, state: TrainState) -> TrainState:
    """Shards a state in the checkpoint layout as under jit.

    Args:
      layout: mesh of devices and placement of arrays on it.
      state: the state [r ...].
    """
    return multihost.device_put(state, state_shardings(layout, state))


def put_start(layout: MeshLayout, tree: Any) -> Any:
    """Moves what a state is made from to the devices that will hold the state.

    Weights, masks and keys come from files, from the host or from other programs. In
    one place, they share the program of `state.start`.

    Args:
      layout: mesh of devices and placement of arrays on it.
      tree: arrays [r ...]; sharded parameters, which have their place, are returned.
    """
    if layout.divides:
        return tree
    return multihost.device_put(tree, mesh.of(layout, REPLICATE))


def gather_state(layout: MeshLayout, state: TrainState) -> TrainState:
    """Returns a state in the checkpoint layout; the inverse of `shard_state`.

    Args:
      layout: mesh of devices and placement of arrays on it.
      state: state as `shard_state` returned it.

    Returns:
      The state without an axis of devices, sharded as under jit.
    """
    if not layout.mapped:
        return state
    return to_checkpoint_layout(layout, _unstack_state(layout)(state))


@functools.cache
def _unstack_state(layout: MeshLayout) -> Callable[[TrainState], TrainState]:
    """Makes the compiled function that removes pmap's axis of devices again."""

    def remove_axis(leaf: Any, axis: int | None) -> Any:
        if axis is None or layout.data_devices > 1:
            # Not `leaf[0]`: JAX's key-reuse checker counts a static slice of a random
            # key as a use of the key.
            return jax.lax.dynamic_index_in_dim(leaf, 0, keepdims=False)
        return leaf.reshape(layout.replicates, *leaf.shape[2:])

    return jax.jit(functools.partial(_map_with_axes, remove_axis))
