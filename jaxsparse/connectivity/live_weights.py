"""Connectivity of weights, computed by one forward and one backward pass."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsparse import arguments
from jaxsparse import masks as masks_lib
from jaxsparse.connectivity import abstract_values, jaxpr_rules
from jaxsparse.connectivity.abstract_values import (
    Constant,
    Pattern,
    Signal,
    Value,
    Walk,
    Weight,
)
from jaxsparse.types import Masks

Apply = Callable[..., Any]


class LayerPaths(NamedTuple):
    """Numbers of active and live weights of one layer.

    Attributes:
      num_live: number of active weights on a path from an input to an output.
      num_active: number of active weights.
      size: number of weights of the layer.
    """

    num_live: int
    num_active: int
    size: int


@arguments.check(
    apply=arguments.function, params=arguments.weights, masks=arguments.masks
)
def live(apply: Apply, params: Any, masks: Masks, *inputs: Any) -> Masks:
    """Finds the active weights that lie on a path from an input to an output.

    A path consists of active weights. It passes through every activation, maximum,
    average and sum. A product of two values that both depend on inputs, as in a gate,
    transmits paths of either. A normalization transmits each feature. If it computes
    its mean from the features (LayerNorm, softmax), it connects all of them, as in the
    network itself. Biases and other parameters that are not prunable are unknown: no
    path starts or ends at them.

    The other weights may be removed without changing the outputs, if every neuron that
    no input reaches is zero. That is the case for biases of zero and activations that
    are zero at zero. Without this condition, only weights that are not `used` may be
    removed.

    Works under `jit`, and under `vmap` over masks. The cost is about that of a gradient
    of the network on the inputs, so pass a single example.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode; returns any tree of
        outputs. Arrays that it closes over, such as batch statistics, are constants.
      params: parameters, or their shapes from `jax.eval_shape`; only shapes and dtypes
        are used.
      masks: masks of the active weights; None where a leaf is not prunable.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`; paths start at every entry.

    Returns:
      Masks of the live weights, a subset of `masks`.

    Raises:
      ValueError: if `apply` uses a primitive without a rule, such as `scan` or a sort,
        looks up anything but rows of a matrix by an input, or changes weights so that
        zeros need not stay zero; or if `masks` do not fit `params`.

    Examples:
      >>> params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 1))}
      >>> ticket = {"a": jnp.array([[True, True], [False, False]])}
      >>> ticket["b"] = jnp.array([[True], [False]])
      >>> apply = lambda params, x: jax.nn.relu(x @ params["a"]) @ params["b"]
      >>> live(apply, params, ticket, jnp.ones((1, 2)))["a"]
      Array([[ True, False],
             [False, False]], dtype=bool)

    References:
      Vysogorets and Kempe. Connectivity Matters: Neural Network Pruning Through the
      Lens of Effective Sparsity. 2021. arXiv:2107.02306, section 3.
    """
    return _answer("live", apply, params, masks, inputs)


@arguments.check(
    apply=arguments.function, params=arguments.weights, masks=arguments.masks
)
def reached(apply: Apply, params: Any, masks: Masks, *inputs: Any) -> Masks:
    """Finds the active weights that a path from an input reaches, wherever they lead.

    A weight that is multiplied neither by an input nor by anything computed from one,
    such as a position embedding, is not reached.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode; returns any tree of
        outputs. Arrays that it closes over, such as batch statistics, are constants.
      params: parameters, or their shapes from `jax.eval_shape`; only shapes and dtypes
        are used.
      masks: masks of the active weights; None where a leaf is not prunable.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`; paths start at every entry.

    Returns:
      Masks of the reached weights, a subset of `masks`.

    Raises:
      ValueError: if `apply` uses a primitive without a rule, such as `scan` or a sort,
        looks up anything but rows of a matrix by an input, or changes weights so that
        zeros need not stay zero; or if `masks` do not fit `params`.
    """
    return _answer("reached", apply, params, masks, inputs)


@arguments.check(
    apply=arguments.function, params=arguments.weights, masks=arguments.masks
)
def used(apply: Apply, params: Any, masks: Masks, *inputs: Any) -> Masks:
    """Finds the active weights from which a path leads to an output, reached or not.

    The outputs do not depend on weights that are not used, whatever the inputs, biases
    and activations. Such weights can always be removed.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode; returns any tree of
        outputs. Arrays that it closes over, such as batch statistics, are constants.
      params: parameters, or their shapes from `jax.eval_shape`; only shapes and dtypes
        are used.
      masks: masks of the active weights; None where a leaf is not prunable.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`; paths start at every entry.

    Returns:
      Masks of the used weights, a subset of `masks`.

    Raises:
      ValueError: if `apply` uses a primitive without a rule, such as `scan` or a sort,
        looks up anything but rows of a matrix by an input, or changes weights so that
        zeros need not stay zero; or if `masks` do not fit `params`.
    """
    return _answer("used", apply, params, masks, inputs)


@arguments.check(
    apply=arguments.function, params=arguments.weights, masks=arguments.masks
)
def first_to_last(apply: Apply, params: Any, masks: Masks, *inputs: Any) -> list[str]:
    """Lists the prunable leaves in the order in which the network uses them.

    This is the order in which their weights are multiplied by values that depend on an
    input. Trees are ordered by name instead, so the last layer may come first in them.
    The function only traces `apply` and evaluates nothing.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode; returns any tree of
        outputs. Arrays that it closes over, such as batch statistics, are constants.
      params: parameters, or their shapes from `jax.eval_shape`; only shapes and dtypes
        are used.
      masks: defines the prunable leaves; only names and shapes are used.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      Leaf names as in `masks.names`, without leaves that are never multiplied by such a
      value.

    Raises:
      ValueError: if `apply` uses a primitive without a rule, such as `scan` or a sort,
        looks up anything but rows of a matrix by an input, or changes weights so that
        zeros need not stay zero; or if `masks` do not fit `params`.

    Examples:
      >>> params = {"head": jnp.ones((3, 1)), "hidden": jnp.ones((2, 3))}
      >>> apply = lambda params, x: jax.nn.relu(x @ params["hidden"]) @ params["head"]
      >>> ones = masks.ones(params, prunable=("*",))
      >>> first_to_last(apply, params, ones, jnp.ones((1, 2)))
      ['hidden', 'head']
    """
    walk = Walk("live", [], [])
    flow = _flow(walk, apply, params, masks, inputs)
    shapes = [
        jax.ShapeDtypeStruct(m.shape, jnp.float32) for m in jax.tree.leaves(masks)
    ]
    jax.eval_shape(flow, shapes)
    return list(dict.fromkeys(walk.order))


def by_layer(masks: Masks, live: Masks) -> dict[str, LayerPaths]:
    """Counts the active and the live weights of each prunable leaf.

    Args:
      masks: masks of the active weights.
      live: masks of the live weights, from the function `live`.

    Returns:
      Counts by leaf name, in the order of the tree's leaves.

    Raises:
      ValueError: if `live` has other leaves than `masks`, or is not a subset of
        `masks`.
    """
    active_counts, live_counts = map(masks_lib.layer_counts, (masks, live))
    if list(active_counts) != list(live_counts) or not masks_lib.is_nested(live, masks):
        raise ValueError(
            f"live: expected a subset of masks, with the leaves {list(active_counts)}, "
            f"got other weights or leaves, {list(live_counts)}; pass masks first, then "
            "the result of `live` for them"
        )
    return {
        name: LayerPaths(live_counts[name].num_active, count.num_active, count.size)
        for name, count in active_counts.items()
    }


def effective_sparsity(masks: Masks, live: Masks) -> float:
    """Returns the fraction of prunable weights that are removed or not live.

    Args:
      masks: masks of the active weights.
      live: masks of the live weights, from the function `live`.

    Returns:
      A fraction in [0, 1], at least `masks.sparsity(masks)`.

    Raises:
      ValueError: if `live` has other leaves than `masks`, or is not a subset of
        `masks`.

    References:
      Vysogorets and Kempe. Connectivity Matters: Neural Network Pruning Through the
      Lens of Effective Sparsity. 2021. arXiv:2107.02306, section 3.
    """
    counts = by_layer(masks, live).values()
    return 1.0 - sum(c.num_live for c in counts) / sum(c.size for c in counts)


def _answer(
    question: str, apply: Apply, params: Any, masks: Masks, inputs: tuple[Any, ...]
) -> Masks:
    """Finds the active weights on which the answer to a question depends.

    Args:
      question: "live", "reached" or "used".
      apply: called as `apply(params, *inputs)`.
      params: parameters or their shapes.
      masks: masks of the active weights; None where a leaf is not prunable.
      inputs: trees of arrays or shapes.

    Returns:
      Masks of these weights, a subset of `masks`.
    """
    leaves, treedef = jax.tree.flatten(masks)
    flow = _flow(Walk(question, [], []), apply, params, masks, inputs)
    # The gradient with respect to a mask is positive where a path runs through the
    # weight, so one backward pass answers for all weights. It is positive, too, where
    # an inactive weight would be on a path.
    gradients = jax.grad(flow)([leaf.astype(jnp.float32) for leaf in leaves])
    answers = [
        leaf & (slope > 0) for leaf, slope in zip(leaves, gradients, strict=True)
    ]
    return jax.tree.unflatten(treedef, answers)


def _flow(
    walk: Walk, apply: Apply, params: Any, masks: Masks, inputs: tuple[Any, ...]
) -> Callable[[list[Pattern]], Float[Array, ""]]:
    """Makes a scalar function of masks that sums what arrives where paths end.

    Args:
      walk: the pass, with its question; running the function appends to its lists.
      apply: called as `apply(params, *inputs)`; traced here.
      params: parameters or their shapes.
      masks: masks that the function's argument replaces, for names and shapes.
      inputs: trees of arrays or shapes.

    Returns:
      A function of a list of float32 patterns, one per leaf of `masks`, that returns a
      float32 scalar. Paths end at outputs or, for "reached", at weights.
    """
    _check(params, masks)
    traced = jax.make_jaxpr(apply)(params, *inputs)
    names, prunable = masks_lib.names(params), masks_lib.names(masks)

    def flow(patterns: list[Pattern]) -> Float[Array, ""]:
        weights = {
            name: Weight(pattern, (name,))
            for name, pattern in zip(prunable, patterns, strict=True)
        }
        start: list[Value] = [weights.get(name, Constant(None)) for name in names]
        for leaf in jax.tree.leaves(inputs):
            start.append(Signal(jnp.ones(jnp.shape(leaf), jnp.float32)))
        results = jaxpr_rules.run(traced.jaxpr, traced.consts, start, walk)
        arrived = [
            jnp.sum(abstract_values.arriving(result, aval, walk))
            for result, aval in zip(results, traced.out_avals, strict=True)
        ]
        ends = walk.meetings if walk.question == "reached" else arrived
        return sum(ends, jnp.zeros(()))

    return flow


def _check(params: Any, masks: Masks) -> None:
    """Raises a ValueError if a mask fits no parameter of its name."""
    shapes = dict(
        zip(
            masks_lib.names(params),
            map(jnp.shape, jax.tree.leaves(params)),
            strict=True,
        )
    )
    for name, leaf in zip(masks_lib.names(masks), jax.tree.leaves(masks), strict=True):
        if shapes.get(name) != leaf.shape:
            raise ValueError(
                f"masks: {name}: expected shape {shapes.get(name)}, as in params, got "
                f"{leaf.shape}; pass masks of the same network"
            )
