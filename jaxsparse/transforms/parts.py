"""Reparameterizations: their parts as entries of a leaf, and as one tree for each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxsparse import tree
from jaxsparse.types import Params, Step

# What the weights of one leaf are computed from, by name.
Parts = dict[str, Array]
OTHERS = "others"  # name of the leaves that are trained directly


class Reparameterization(NamedTuple):
    """How the weights of a leaf are computed from other, trained parameters.

    All functions are called for one leaf at a time and must be traceable. "Parts" are
    the arrays that a leaf is computed from, as a dict from name to array.

    Attributes:
      init: called as `init(weight)` with initial weights; returns the parts whose
        weights these are.
      forward: called as `forward(parts, step)`; returns the weights, with the shape of
        `weight`. Gradients go through it; `pass_gradient` makes them straight-through
        ones.
      frozen: names of the parts that are not trained.
      penalty: called as `penalty(parts, step)`; returns a scalar whose gradient is
        added to that of the loss. None for no penalty.
      adjust: called as `adjust(parts, step)` after each step of the optimizer; returns
        the parts to go on with, also frozen ones. None to change nothing.
    """

    init: Callable[[Array], Parts]
    forward: Callable[[Parts, Step], Array]
    frozen: tuple[str, ...] = ()
    penalty: Callable[[Parts, Step], Array] | None = None
    adjust: Callable[[Parts, Step], Parts] | None = None


# Called with the parameters; returns the reparameterization of each leaf by its name.
ByName = Callable[[Params], Mapping[str, Reparameterization]]


@jax.custom_vjp
def pass_gradient(value: Array, stored: Array) -> Array:
    """Returns a value, whose gradient passes straight through to other parameters.

    Args:
      value: the result, which gets no gradient; of the dtype of `stored`.
      stored: parameters of the same shape, whose gradient is that of the result.

    Examples:
      >>> signs = lambda stored: transforms.pass_gradient(jnp.sign(stored), stored)
      >>> jax.vjp(signs, jnp.array([0.5, -2.0]))[1](jnp.array([3.0, 4.0]))
      (Array([3., 4.], dtype=float32),)
    """
    del stored
    return value


pass_gradient.defvjp(
    lambda value, stored: (value, None), lambda _, grad: (jnp.zeros_like(grad), grad)
)


class ReparameterizedState(NamedTuple):
    """State of `reparameterize`.

    Attributes:
      step: number of updates made so far; int32 scalar, counted from 0.
      trained: by name of the part, a tree with the nesting of the parameters; None
        where a leaf lacks the part.
      frozen: the parts that are not trained, in the same way.
      inner_state: state of the wrapped optimizer, for the trained parts and, under the
        name "others", the leaves that are trained directly.
    """

    step: Step
    trained: dict[str, Any]
    frozen: dict[str, Any]
    inner_state: optax.OptState


class ProjectedState(NamedTuple):
    """State of `project`, within that of the masks.

    Attributes:
      step: number of updates made so far; int32 scalar, counted from 0.
      inner_state: state of the wrapped optimizer.
    """

    step: Step
    inner_state: optax.OptState


def split(maps: list[Any], parts: list[Parts]) -> tuple[list[Parts], list[Parts]]:
    """Separates the parts of each leaf into trained and frozen ones.

    Args:
      maps: the reparameterization of each leaf; None where it has none.
      parts: the parts of each leaf.

    Returns:
      The trained parts and the frozen parts of each leaf.
    """
    frozen = [() if each is None else each.frozen for each in maps]
    return (
        [
            {name: part for name, part in own.items() if name not in names}
            for own, names in zip(parts, frozen, strict=True)
        ],
        [
            {name: part for name, part in own.items() if name in names}
            for own, names in zip(parts, frozen, strict=True)
        ],
    )


def with_others(maps: list[Any], parts: list[Parts], leaves: list[Any]) -> list[Parts]:
    """Adds the leaves that are trained directly.

    Args:
      maps: the reparameterization of each leaf; None where it has none.
      parts: the parts of each leaf, none for these.
      leaves: the leaves, or their gradients.
    """
    return [
        {OTHERS: leaf} if each is None else own
        for each, own, leaf in zip(maps, parts, leaves, strict=True)
    ]


def to_trees(parts: list[Parts], structure: Any) -> dict[str, Any]:
    """Makes one tree of each part, with None where a leaf lacks it.

    Args:
      parts: the parts of each leaf.
      structure: the structure of the parameters.
    """
    # The part comes first, so that the paths of its leaves end like those of the
    # parameters: `state_reset` and `sharding` match them by this.
    names = sorted({name for own in parts for name in own})
    return {
        name: structure.unflatten([own.get(name) for own in parts]) for name in names
    }


def by_leaf(trees: dict[str, Any], structure: Any) -> list[Parts]:
    """Lists the parts of each leaf, the inverse of `to_trees`.

    Args:
      trees: by name of the part, a tree of it.
      structure: the structure of the parameters.
    """
    columns = {name: structure.flatten_up_to(parts) for name, parts in trees.items()}
    return [
        {name: column[i] for name, column in columns.items() if column[i] is not None}
        for i in range(structure.num_leaves)
    ]


def is_reparameterization(name: str, value: Any) -> None:
    """Checks that a value reparameterizes leaves, as an argument check.

    Args:
      name: name of the argument.
      value: its value.

    Raises:
      TypeError: if it is neither a reparameterization nor a function.
    """
    if not (isinstance(value, Reparameterization) or callable(value)):
        raise TypeError(
            f"{name}: expected a Reparameterization, or a function of the parameters "
            f"that returns those of leaves by name, got {value!r}"
        )


def of_names(found: ByName, params: Params) -> dict[str, Reparameterization]:
    """Calls the function that returns the reparameterizations of single leaves.

    Args:
      found: the function.
      params: the parameters.

    Raises:
      TypeError: if it returns anything else, or raises a TypeError.
    """
    expected = (
        "reparameterization: expected a Reparameterization, or a function of the "
        "parameters that returns those of leaves by name"
    )
    remedy = "pass what a maker returns, as in `powerpropagation(2.0)`"
    name = getattr(found, "__name__", type(found).__name__)
    try:
        by_name = found(params)
    except TypeError as error:
        raise TypeError(
            f"{expected}; {name} raised an error when it was called with them; {remedy}"
        ) from error
    is_mapping = isinstance(by_name, Mapping)
    values = by_name.values() if is_mapping else [by_name]
    wrong = [each for each in values if not isinstance(each, Reparameterization)]
    if wrong or not is_mapping:
        kind = type(wrong[0] if wrong and is_mapping else by_name).__name__
        raise TypeError(f"{expected}, got {kind} from {name}; {remedy}")
    return dict(by_name)


def check_parts(maps: list[Any], parts: list[Any], params: Params) -> None:
    """Checks the parts of each leaf, and what is computed from them.

    Args:
      maps: the reparameterization of each leaf; None where it has none.
      parts: what `init` returned for it.
      params: the parameters.

    Raises:
      ValueError: if something does not fit; the message names the first such leaf.
    """
    leaves = tree.named_leaves(params).items()
    for (name, leaf), each, own in zip(leaves, maps, parts, strict=True):
        if each is not None:
            _check_leaf(name, leaf, each, own)


def _check_leaf(name: str, leaf: Any, each: Reparameterization, own: Any) -> None:
    where = f"reparameterization: {name}: expected"
    if not isinstance(own, dict):
        raise ValueError(
            f"{where} a dict from name to array from `init`, got {type(own).__name__}"
        )
    if isinstance(each.frozen, str) or not {*each.frozen} <= {*own}:
        raise ValueError(
            f"{where} `frozen` to be a tuple of names of parts, {sorted(own)}, got "
            f"{each.frozen!r}"
        )
    step = jax.ShapeDtypeStruct((), jnp.int32)
    shape = jax.eval_shape(each.forward, own, step).shape
    if OTHERS in own or shape != leaf.shape:
        raise ValueError(
            f"{where} weights of shape {leaf.shape}, from parts none of which is "
            f"called {OTHERS!r}, got shape {shape} from {sorted(own)}"
        )
    if each.penalty is not None:
        shape = jax.eval_shape(each.penalty, own, step).shape
        if shape:
            raise ValueError(f"{where} a scalar from `penalty`, got shape {shape}")
    if each.adjust is not None:
        before, after = (
            jax.tree.map(jnp.shape, found)
            for found in (own, jax.eval_shape(each.adjust, own, step))
        )
        if before != after:
            raise ValueError(
                f"{where} parts of the same names and shapes from `adjust`, {before}, "
                f"got {after}"
            )
