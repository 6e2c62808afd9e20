"""Which leaves have masks, and the dense masks to begin with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from jaxsparse import arguments, tree
from jaxsparse.tree import check_globs, matches, names
from jaxsparse.types import Masks, Params

KERNEL_NAMES = ("kernel", "weight", "w", "embedding")


def is_kernel(name: str, leaf: Any = None) -> bool:
    """Returns whether a leaf is a weight that pruning methods consider.

    Args:
      name: path of the leaf joined by slashes, such as "stage1/block0/conv/kernel".
      leaf: the parameter; only its rank and dtype are used.

    Returns:
      True for floating-point leaves with at least two axes whose last name is kernel,
      weight, w or embedding.

    Raises:
      TypeError: if `name` is not a string. This happens if `optax.inject_hyperparams`
        wraps a sparse method, because it calls function arguments as schedules.
    """
    # This function is a default argument of every sparse method.
    # `optax.inject_hyperparams` takes each callable argument for a schedule, and calls
    # it with the step count.
    if not isinstance(name, str):
        raise TypeError(
            f"name: expected the name of a leaf, got {name!r}; if the cause is "
            "optax.inject_hyperparams around a sparse method, move it inside: "
            "transforms.rigl(optax.inject_hyperparams(optax.adamw)(...), ...)"
        )
    return (
        name.rpartition("/")[2] in KERNEL_NAMES
        and len(leaf.shape) >= 2
        and jnp.issubdtype(leaf.dtype, jnp.floating)
    )


@arguments.check(globs=arguments.patterns)
def glob_filter(globs: tuple[str, ...]) -> Callable[[str, Any], bool]:
    """Makes a function that selects leaves by shell patterns, for `prunable` of `ones`.

    Args:
      globs: shell patterns of leaf names; patterns that begin with "!" exclude leaves.
        If all patterns exclude, all other leaves that `is_kernel` accepts are selected.

    Returns:
      A function of a leaf's name and the leaf that returns whether the leaf is
      selected.
    """
    excluded = tuple(glob[1:] for glob in globs if glob.startswith("!"))
    included = tuple(glob for glob in globs if not glob.startswith("!"))

    def is_selected(name: str, leaf: Any) -> bool:
        matched = matches(name, included) if included else is_kernel(name, leaf)
        return matched and not matches(name, excluded)

    return is_selected


def ones(
    params: Params | PyTree[jax.ShapeDtypeStruct],
    *,
    prunable: Callable[[str, Any], bool] | tuple[str, ...] = is_kernel,
) -> Masks:
    """Makes the dense masks, which keep every weight.

    Args:
      params: any tree of parameters or, since only names, shapes and dtypes are used,
        the result of `jax.eval_shape`.
      prunable: a function of a leaf's name and the leaf that returns False if the leaf
        gets the mask None; or shell patterns of leaf names. `("*/kernel", "!head/*")`
        selects leaves that match a pattern, except those that match one after "!".
        `("!head/*",)` selects all leaves that `is_kernel` accepts, with the same
        exception.

    Returns:
      Boolean masks with the shapes of the parameters, True everywhere; None at leaves
      that are not prunable.

    Raises:
      ValueError: if there are no parameters, no leaf is prunable, or a pattern matches
        no leaf; the message lists the names of the leaves.
      TypeError: if `prunable` is neither a function nor a tuple of patterns.

    Examples:
      >>> ones({"dense": {"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(2)}})
      {'dense': {'bias': None, 'kernel': Array([[ True,  True]], dtype=bool)}}
    """
    if not any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(params)):
        raise ValueError("params: expected a tree of parameters, got no array")
    if not callable(prunable):
        check_globs(prunable, field="prunable")
        # Excluding patterns must match a leaf as well, or they are misspelled.
        globs = tuple(glob.removeprefix("!") for glob in prunable)
        check_globs(globs, names(params), field="prunable")
    is_prunable = prunable if callable(prunable) else glob_filter(prunable)

    def make(name: str, leaf: Any) -> Bool[Array, "..."] | None:
        return jnp.ones(leaf.shape, bool) if is_prunable(name, leaf) else None

    result = tree.map_with_names(make, params)
    if not jax.tree.leaves(result):
        raise ValueError(
            "params: expected at least one prunable leaf, a floating-point leaf of two "
            f"or more axes named {', '.join(KERNEL_NAMES)}, got the leaves "
            f"{names(params)}; pass `prunable=` to choose others"
        )
    return result
