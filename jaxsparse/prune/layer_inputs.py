"""The inputs of every layer of a forward function, one layer after the other.

A forward function of any library is traced to one flat program, whose equations are
then computed in order. Where a prunable leaf multiplies a value that depends on the
inputs, in a `dot_general` or a convolution, that value is the input of the layer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxsparse import fan_axes, tree
from jaxsparse.coupling import program as program_lib
from jaxsparse.types import Masks, Params

PRODUCTS = ("dot_general", "conv_general_dilated")
# Operations that only move the weights of a leaf before they are multiplied.
MOVES = (
    *("reshape", "transpose", "squeeze", "broadcast_in_dim", "convert_element_type"),
    *("copy", "slice", "rev", "optimization_barrier"),
)

# The layer: a bilinear function of the leaf and of the layer's inputs.
Layer = Callable[[Array, Array], Array]


def visit(
    apply: Callable[..., Any],
    params: Params,
    inputs: tuple[Any, ...],
    masks: Masks,
    fn: Callable[[str, Array, Layer, Array], Array],
) -> Params:
    """Computes a forward function, and calls another one at each prunable layer.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode.
      params: any tree of parameters.
      inputs: arguments of `apply`, such as a batch of images.
      masks: only names are used: the leaves to visit.
      fn: called as `fn(name, leaf, layer, layer_inputs)`, where
        `layer(leaf, layer_inputs)` are the outputs of the layer without its bias. It
        returns the leaf to compute all that follows with.

    Returns:
      The parameters with the leaves that `fn` returned.

    Raises:
      ValueError: if a leaf is used by no layer or by more than one, or there are no
        examples; the message names the leaf.
    """
    # On GPUs, products of float32 are otherwise rounded to 10 bits of mantissa.
    with jax.default_matmul_precision("highest"):
        program = program_lib.trace(apply, params, *inputs)
    leaves, uses = tree.named_leaves(params), dict.fromkeys(tree.names(masks), 0)
    values = program_lib.given_values(program, inputs)
    # Of weights that are moved, how and from which leaf: leaves change on the way.
    moved: dict[int, tuple[str, Callable[[Array], Any]]] = {
        number: (name, lambda leaf: leaf) for name, number in program.leaves.items()
    }

    def read(number: int) -> Any:
        if number not in moved:
            return values[number]
        name, move = moved[number]
        return move(leaves[name])

    for eqn in program.equations:
        if eqn.name in MOVES and len(eqn.inputs) == 1 and eqn.inputs[0] in moved:
            name, move = moved[eqn.inputs[0]]
            moved[eqn.outputs[0]] = name, _then(move, eqn)
            continue
        owners = [moved.get(n, ("",))[0] for n in eqn.inputs]
        if eqn.name in PRODUCTS and sum(name in uses for name in owners) == 1:
            (side,) = (i for i, name in enumerate(owners) if name in uses)
            name, other = owners[side], eqn.inputs[1 - side]
            uses[name] += 1
            if not read(other).size:
                raise ValueError(
                    f"inputs: expected one or more examples, got inputs of shape "
                    f"{read(other).shape} at {name}"
                )
            layer = _layer(eqn, moved[eqn.inputs[side]][1], side)
            if uses[name] == 1:
                leaves[name] = fn(name, leaves[name], layer, read(other))
        results = program_lib.compute(eqn, [read(n) for n in eqn.inputs])
        values |= zip(eqn.outputs, results, strict=True)
    wrong = {name: count for name, count in uses.items() if count != 1}
    if wrong:
        raise ValueError(
            "apply: expected each prunable leaf to multiply the inputs of one layer, "
            f"in a dot_general or a convolution, got numbers of layers {wrong}; "
            "exclude these leaves with `prunable=`, or write out a scan over layers"
        )
    return jax.tree.unflatten(
        jax.tree.structure(params), [leaves[name] for name in tree.names(params)]
    )


def _then(
    move: Callable[[Array], Any], eqn: program_lib.Equation
) -> Callable[[Array], Any]:
    """Appends an equation to a move of weights."""
    return lambda leaf: program_lib.compute(eqn, [move(leaf)])[0]


def _layer(eqn: program_lib.Equation, move: Callable[[Array], Any], side: int) -> Layer:
    """Makes the layer of an equation whose operand `side` is the weight."""

    def layer(leaf: Array, given: Array) -> Array:
        operands = (move(leaf), given) if side == 0 else (given, move(leaf))
        return program_lib.compute(eqn, list(operands))[0]

    return layer


def square_sums(leaf: Array, layer: Layer, given: Array) -> Array:
    """Sums the squares of the inputs that each weight multiplies.

    Args:
      leaf: weights of the layer.
      layer: function of weights and inputs that is linear in both.
      given: inputs of the layer; a batch.

    Returns:
      For each weight, the sum over examples and positions, with the shape of the leaf.
    """
    # The derivative of the sum of all outputs is the sum of what a weight multiplies.
    outputs, pull = jax.vjp(lambda weights: layer(weights, jnp.square(given)), leaf)
    return pull(jnp.ones_like(outputs))[0]


def grams(
    axes: fan_axes.FanAxes, name: str, leaf: Array, layer: Layer, given: Array
) -> Float[Array, "stack fan_in fan_in"]:
    r"""Computes the Gram matrices :math:`X^T X` of the inputs of a layer.

    The gradient of half the squared outputs by the weights is :math:`X^T X W`. It is
    computed for unit vectors in place of the columns of :math:`W`, so this works for
    every product and convolution.

    Args:
      axes: layout of the leaf.
      name: its name, for error messages.
      leaf: weights of the layer.
      layer: function of weights and inputs that is linear in both.
      given: inputs of the layer; a batch.

    Returns:
      A Gram matrix for each of the leaf's separate matrices. The inputs of a neuron are
      in the order of `fan_axes.to_matrices`: positions, then features.
    """
    matrices = fan_axes.to_matrices(axes, name, leaf)
    stack, *inputs, outputs = matrices.shape
    fan_in = matrices[0, ..., 0].size

    def columns(start: Array) -> Array:
        units = jnp.arange(fan_in)[:, None] == start + jnp.arange(outputs)[None]
        units = jnp.tile(units.astype(leaf.dtype), (stack, 1)).reshape(matrices.shape)
        weights = fan_axes.from_matrices(axes, name, units, leaf.shape)
        found, pull = jax.vjp(lambda each: layer(each, given), weights)
        gram = fan_axes.to_matrices(axes, name, pull(found)[0])
        return gram.reshape(stack, fan_in, outputs)

    parts = lax.map(columns, jnp.arange(0, fan_in, outputs))
    return jnp.moveaxis(parts, 0, 2).reshape(stack, fan_in, -1)[..., :fan_in]


def hessians(
    axes: fan_axes.FanAxes,
    name: str,
    leaf: Array,
    layer: Layer,
    given: Array,
    *,
    damping: float,
) -> Float[Array, "stack fan_in fan_in"]:
    r"""Computes the Hessians :math:`X^T X + \lambda I` of a layer's squared error.

    Args:
      axes: layout of the leaf.
      name: its name, for error messages.
      leaf: weights of the layer.
      layer: function of weights and inputs that is linear in both.
      given: inputs of the layer; a batch.
      damping: :math:`\lambda` as a fraction of the mean of the diagonal.

    Returns:
      A Hessian for each of the leaf's separate matrices, as `grams`. Without any
      inputs, no weight matters to the outputs; it is then the identity, which makes
      methods prune by magnitude.
    """
    gram = grams(axes, name, leaf, layer, given)
    mean = jnp.mean(jnp.diagonal(gram, axis1=1, axis2=2), axis=1)
    extra = jnp.where(mean == 0, 1, damping * mean)
    return gram + extra[:, None, None] * jnp.eye(gram.shape[1])[None]
