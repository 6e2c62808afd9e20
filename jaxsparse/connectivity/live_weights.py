"""Questions about paths, each answered by one pass forward and one back."""

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
    """How many weights of one layer exist and connect.

    Attributes:
      live: weights kept on a path from an input to an output.
      kept: weights the mask keeps.
      total: weights the layer has.
    """

    live: int
    kept: int
    total: int


@arguments.check(
    apply=arguments.function, params=arguments.weights, masks=arguments.masks
)
def live(apply: Apply, params: Any, masks: Masks, *inputs: Any) -> Masks:
    """Finds the kept weights that lie on a path from an input to an output.

    A path runs through kept weights. It passes every activation, maximum, average and
    sum; a product of two values that both depend on inputs, as in a gate, passes
    either. A normalisation passes each feature; one that computes its mean from the
    features (LayerNorm, a softmax) connects all of them, as it does in the network.
    Biases and other parameters that are not prunable are not known: they begin no
    path and end none.

    The other weights may be removed, and outputs stay the same, if every neuron that
    no input reaches has the value zero, as with biases of zero and activations that
    are zero at zero. Without this condition only those that are not `used` may go.

    Works under `jit` and `vmap` over masks. Costs about as much as a gradient of the
    network on the inputs, so give one example.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode; any tree of outputs.
        Arrays that it closes over, such as statistics, are constants.
      params: parameters, of which only shapes and dtypes are used, as those from
        `jax.eval_shape`.
      masks: which weights exist; None where a leaf is not prunable.
      *inputs: arrays or shapes, `jax.ShapeDtypeStruct`; every entry of them begins
        paths.

    Returns:
      Masks within `masks`.

    Raises:
      ValueError: if `apply` uses a primitive that has no rule, such as `scan` or
        a sort, looks up rows by an input, or changes weights so that zeros need not
        stay zero; or if `masks` do not fit `params`.

    Examples:
      >>> params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 1))}
      >>> masks = {"a": jnp.array([[True, True], [False, False]])}
      >>> masks["b"] = jnp.array([[True], [False]])
      >>> apply = lambda params, x: jax.nn.relu(x @ params["a"]) @ params["b"]
      >>> live(apply, params, masks, jnp.ones((1, 2)))["a"]
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
    """Finds the kept weights at the end of a path from an input, wherever they lead.

    A weight that multiplies no input and nothing made of one, such as an embedding of
    positions, is not reached.

    Args:
      apply: as in `live`, and so are the others.
      params: as above.
      masks: as above.
      *inputs: as above.

    Returns:
      Masks within `masks`.

    Raises:
      ValueError: as `live`.
    """
    return _answer("reached", apply, params, masks, inputs)


@arguments.check(
    apply=arguments.function, params=arguments.weights, masks=arguments.masks
)
def used(apply: Apply, params: Any, masks: Masks, *inputs: Any) -> Masks:
    """Finds the kept weights at the start of a path to an output, reached or not.

    The outputs do not depend on the weights that are not used, whatever the inputs,
    biases and activations. So those may always be removed.

    Args:
      apply: as in `live`, and so are the others.
      params: as above.
      masks: as above.
      *inputs: as above.

    Returns:
      Masks within `masks`.

    Raises:
      ValueError: as `live`.
    """
    return _answer("used", apply, params, masks, inputs)


@arguments.check(
    apply=arguments.function, params=arguments.weights, masks=arguments.masks
)
def first_to_last(apply: Apply, params: Any, masks: Masks, *inputs: Any) -> list[str]:
    """Lists the prunable leaves in the order in which the network uses them.

    That is the order in which their weights meet what depends on an input, as the
    program runs; trees are in the order of names, in which the last layer may come
    first. Nothing is computed.

    Args:
      apply: as in `live`, and so are the others.
      params: as above.
      masks: as above; only names and shapes are used.
      *inputs: as above.

    Returns:
      Names as in `masks.names`; without leaves that meet no input.

    Raises:
      ValueError: as `live`.

    Examples:
      >>> first_to_last(model.apply, variables, masks.dense(variables), images)
      ['params/conv1/kernel', 'params/dense1/kernel', 'params/head/kernel']
    """
    walk = Walk("live", [], [])
    flow = _flow(walk, apply, params, masks, inputs)
    shapes = [
        jax.ShapeDtypeStruct(m.shape, jnp.float32) for m in jax.tree.leaves(masks)
    ]
    jax.eval_shape(flow, shapes)
    return list(dict.fromkeys(walk.order))


def by_layer(masks: Masks, live: Masks) -> dict[str, LayerPaths]:
    """Counts the live and kept weights of each prunable leaf, by name.

    Args:
      masks: which weights exist.
      live: which of them are live, from `live`.

    Returns:
      Counts in the order of the tree's leaves.

    Raises:
      ValueError: if `live` has other leaves than `masks`, or weights outside them.
    """
    kept, alive = masks_lib.layer_counts(masks), masks_lib.layer_counts(live)
    if list(kept) != list(alive) or not masks_lib.is_nested(live, masks):
        raise ValueError(
            f"live: got {list(alive)}; wanted the leaves {list(kept)} of `masks`, and "
            "only weights that those keep; are they of other masks, or swapped?"
        )
    return {
        name: LayerPaths(alive[name].kept, count.kept, count.total)
        for name, count in kept.items()
    }


def effective_sparsity(masks: Masks, live: Masks) -> float:
    """Returns the fraction of prunable weights that are removed or not live.

    Args:
      masks: which weights exist.
      live: which of them are live, from `live`.

    Returns:
      A fraction in [0, 1], at least `masks.sparsity(masks)`.

    Raises:
      ValueError: as `by_layer`.

    References:
      Vysogorets and Kempe. Connectivity Matters: Neural Network Pruning Through the
      Lens of Effective Sparsity. 2021. arXiv:2107.02306, section 3.
    """
    counts = by_layer(masks, live).values()
    return 1.0 - sum(c.live for c in counts) / sum(c.total for c in counts)


def _answer(
    question: str, apply: Apply, params: Any, masks: Masks, inputs: tuple[Any, ...]
) -> Masks:
    """Says of each kept weight whether the answer depends on it."""
    leaves, treedef = jax.tree.flatten(masks)
    flow = _flow(Walk(question, [], []), apply, params, masks, inputs)
    slopes = jax.grad(flow)([leaf.astype(jnp.float32) for leaf in leaves])
    found = [leaf & (slope > 0) for leaf, slope in zip(leaves, slopes, strict=True)]
    return jax.tree.unflatten(treedef, found)


def _flow(
    walk: Walk, apply: Apply, params: Any, masks: Masks, inputs: tuple[Any, ...]
) -> Callable[[list[Pattern]], Float[Array, ""]]:
    """Makes what arrives a function of the connections there are."""
    _check(params, masks)
    traced = jax.make_jaxpr(apply)(params, *inputs)
    names, known = masks_lib.names(params), masks_lib.names(masks)

    def flow(patterns: list[Pattern]) -> Float[Array, ""]:
        weights = {
            name: Weight(pattern, (name,))
            for name, pattern in zip(known, patterns, strict=True)
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
    """Refuses masks that are not of these parameters."""
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
                f"masks: {name} has shape {leaf.shape}; wanted {shapes.get(name)}, as "
                "in params; are they of another network?"
            )
