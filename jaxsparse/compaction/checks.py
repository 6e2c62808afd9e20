"""Checks of a smaller network against the one it was made of.

The program is traced again with the smaller parameters. Its numbers must be the same: a
factor computed from a width, such as the 1 / n of a mean over units, would differ.
Then both networks run on random inputs of several batch sizes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import rng
from jaxsparse.coupling.program import Program, trace

# Outputs may differ by this many units in the last place of their largest entry: sums
# of other lengths round differently. Fewer where a value of the network is less precise
# than float32, since 256 of them are as large as the outputs themselves.
LAST_PLACES = 256
LAST_PLACES_LOW = 8
MOST = 1 / 16  # no difference above this counts as rounding


def difference_of_programs(before: Program, after: Program) -> str:
    """Finds a number that changed with a width.

    Args:
      before: the network.
      after: the smaller network.

    Returns:
      What differs; empty if nothing does, or the operations are other ones, which are
      only checked by their outputs.
    """
    names = [[eqn.name for eqn in program.equations] for program in (before, after)]
    if names[0] != names[1]:
        return ""
    for old, new in zip(before.equations, after.equations, strict=True):
        for a, b in zip(old.inputs, new.inputs, strict=True):
            pair = before.constants.get(a), after.constants.get(b)
            if any(value is None or np.ndim(value) for value in pair):
                continue
            if not jnp.issubdtype(before.avals[a].dtype, jnp.floating):
                continue
            if not np.array_equal(*map(float, pair), equal_nan=True):
                return (
                    f"{old.name!r} by {float(pair[0]):g}, a number computed from a "
                    f"width, which would become {float(pair[1]):g}"
                )
    return ""


def tolerance(program: Program) -> float:
    """Returns the largest difference of outputs that is rounding, relative to them.

    Args:
      program: the network, whose least precise floating dtype decides.

    Returns:
      256 units in the last place from float32 on, 8 of a less precise dtype, and at
      most 1 / 16: a network in float8 is only reduced where its outputs stay close.
      0 for a network without floats.
    """
    floats = [x.dtype for x in program.avals if jnp.issubdtype(x.dtype, jnp.floating)]
    eps = max((float(jnp.finfo(dtype).eps) for dtype in floats), default=0.0)
    is_low = eps > jnp.finfo(jnp.float32).eps
    return min((LAST_PLACES_LOW if is_low else LAST_PLACES) * eps, MOST)


def random_inputs(example: tuple[Any, ...], seed: int, batch: int | None) -> Any:
    """Draws inputs.

    Args:
      example: inputs, for shapes and dtypes. Integers are drawn from the range of those
        given, or are 0 or 1 where there are none; booleans are drawn in any case.
      seed: seed of the random numbers, which have a larger scale for odd seeds.
      batch: length of the first axis of all arrays; None for that of the example.
    """
    generator = np.random.default_rng(seed)

    def draw(leaf: Any) -> Any:
        if rng.is_key(leaf):
            return leaf
        shape = leaf.shape if batch is None else (batch, *leaf.shape[1:])
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            values = generator.normal(size=shape) * (3.0 if seed % 2 else 1.0)
            return jnp.asarray(values, leaf.dtype)
        concrete = isinstance(leaf, jax.Array | np.ndarray) and leaf.size
        known = concrete and leaf.dtype != bool
        low, high = (int(leaf.min()), int(leaf.max())) if known else (0, 1)
        return jnp.asarray(generator.integers(low, high + 1, shape), leaf.dtype)

    return jax.tree.map(draw, example)


def batch_sizes(example: tuple[Any, ...]) -> list[int | None]:
    """Lists lengths of the first axis to try; that of the example is None.

    Args:
      example: inputs.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(example)]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) != 1 or None in lengths:
        return [None]
    (length,) = lengths
    return [None, 2 if length == 1 else 1, 3 if length == 5 else 5]


def difference(
    before: tuple[Callable[..., Any], Any],
    after: tuple[Callable[..., Any], Any],
    example: tuple[Any, ...],
) -> tuple[float, float]:
    """Compares the outputs of two networks on random inputs.

    Args:
      before: the network, called as `function(params, *inputs)`, and its parameters.
      after: the smaller network and its parameters.
      example: inputs, for shapes and dtypes.

    Returns:
      The largest difference of an output, absolute and relative to the largest
      finite entry of the same output. Infinite if outputs have other shapes, other
      integers, or other entries that are not finite.
    """
    worst = 0.0, 0.0
    # Parameters are arguments, so that they are not constants of the programs.
    old, new = jax.jit(before[0]), jax.jit(after[0])
    for number, batch in enumerate(batch_sizes(example)):
        for seed in (2 * number, 2 * number + 1):
            inputs = random_inputs(example, seed, batch)
            try:
                outputs = old(before[1], *inputs)
            except Exception:
                if batch is None:
                    raise
                break  # The network does not run with other batch sizes.
            gap = gap_of(outputs, new(after[1], *inputs))
            worst = max(worst[0], gap[0]), max(worst[1], gap[1])
    return worst


def gap_of(first: Any, second: Any) -> tuple[float, float]:
    """Compares two trees of outputs.

    Args:
      first: tree of arrays.
      second: tree of arrays to compare with it.

    Returns:
      The largest absolute and relative difference, as `difference` does.
    """
    if jax.tree.structure(first) != jax.tree.structure(second):
        return np.inf, np.inf
    worst = 0.0, 0.0
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return np.inf, np.inf
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            if not np.array_equal(a, b):
                return np.inf, np.inf
            continue
        wide = [np.asarray(x.astype(jnp.result_type(x, np.float32))) for x in (a, b)]
        finite = np.isfinite(wide[0])
        # Infinities and NaN have to be the same; only the others have a difference.
        if not np.array_equal(
            np.where(finite, 0, wide[0]),
            np.where(np.isfinite(wide[1]), 0, wide[1]),
            equal_nan=True,
        ):
            return np.inf, np.inf
        a, b = (values[finite] for values in wide)
        if a.size:
            gap = float(np.abs(a - b).max())
            largest = max(float(np.abs(a).max()), 1e-30)
            worst = max(worst[0], gap), max(worst[1], gap / largest)
    return worst


def first_line(error: Exception) -> str:
    """Returns what a reason quotes of an error: most of its first line.

    Args:
      error: the error.
    """
    return (str(error).splitlines() or [""])[0][:200]


def failure(
    apply: Callable[..., Any], small: Any, program: Program, example: tuple[Any, ...]
) -> tuple[str, Program]:
    """Traces the smaller network and compares the programs.

    Args:
      apply: the smaller network, called as `apply(small, *inputs)`.
      small: its parameters.
      program: the program of the whole network.
      example: inputs.

    Returns:
      Why the smaller network is not the same, empty if nothing was found; and the
      smaller network's program.
    """
    try:
        after = trace(apply, small, *example)
    except Exception as error:  # whatever the user's function raises
        line = first_line(error)
        return f"the function does not take smaller leaves ({line})", program
    shapes = [
        [(p.avals[n].shape, p.avals[n].dtype) for n in p.outputs]
        for p in (program, after)
    ]
    if shapes[0] != shapes[1]:
        return "outputs would have other shapes", after
    return difference_of_programs(program, after), after
