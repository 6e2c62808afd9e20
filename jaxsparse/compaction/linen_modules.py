"""Compaction of linen modules: the same class with other widths."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn

from jaxsparse import arguments, tree
from jaxsparse.compaction import checks, compacted, linen_fields
from jaxsparse.compaction.compacted import Compacted
from jaxsparse.compaction.linen_fields import Integer, Shapes
from jaxsparse.models import layers
from jaxsparse.types import Masks


@arguments.check(
    module=arguments.instance(nn.Module),
    variables=arguments.weights,
    round_to=arguments.integer(1),
)
def compact_linen(
    module: nn.Module,
    variables: Any,
    masks: Masks,
    example: Any,
    *,
    round_to: int = 1,
    **call: Any,
) -> Compacted:
    """Removes dead neurons and channels of a linen module; see `compact`.

    The smaller module has the class of the given one. To find its new widths, each
    field that is an integer is enlarged, and the axes that grow are those that it
    determines. Integers may also stand in tuples, lists, mappings and dataclasses, and
    in modules among the fields, as in `nn.Sequential`; the first 200 are tried. A field
    called `widths` that is a mapping or None, as in all networks of `models`, receives
    the widths of layers by name. Units whose removal the module does not allow stay,
    and the report says so: those of widths that are not fields, and those for which two
    fields would have to change together, such as the number of heads and the width of
    an attention layer.

    Args:
      module: the module, whose fields define the widths.
      variables: its variables, such as {"params": ..., "batch_stats": ...}.
      masks: masks of the active weights, with the nesting of `variables` or of its
        collection "params".
      example: an input, or a tuple of all inputs; see `compact`.
      round_to: the number of units of a layer that stay is rounded up to a multiple of
        this; a layer with fewer units than that multiple keeps all. 1 or more.
      **call: keyword arguments of the call in inference mode, such as `train=False`.

    Returns:
      The smaller network: variables as `params`, and the `module`.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if `variables` has no leaves, or `masks` are not boolean or do not
        fit.

    Examples:
      >>> lenet = models.LeNet300100(features=(6, 5))
      >>> images = jnp.ones((1, 4, 4, 1))
      >>> variables = lenet.init(jax.random.key(0), images, train=False)
      >>> ticket = masks.ones(variables["params"])
      >>> ticket["head"]["kernel"] = ticket["head"]["kernel"].at[2:].set(False)
      >>> small = compact_linen(lenet, variables, ticket, images, train=False)
      >>> small.module.features, dict(small.module.widths)
      ((6, 5), {'dense2': 2})
    """
    inputs = example if isinstance(example, tuple) else (example,)
    is_whole = set(tree.names(masks)) <= set(tree.names(variables))

    def apply_of(module: nn.Module) -> Callable[..., Any]:
        return lambda variables, *inputs: module.apply(variables, *inputs, **call)

    made: dict[Any, nn.Module] = {}

    @functools.cache
    def find() -> list[Integer]:
        init = functools.partial(_init_shapes, inputs=inputs, call=call)
        return linen_fields.integers(module, _shapes(variables), init)

    def smaller(small: Any) -> nn.Module:
        key = tuple(_shapes(small).items())
        if key not in made:
            made[key] = resized(module, variables, small, inputs, call, find)
        return made[key]

    def rebuild(small: Any) -> Callable[..., Any]:
        return apply_of(smaller(small))

    found = compacted.run(
        apply_of(module),
        variables,
        masks,
        inputs,
        rebuild=rebuild,
        to=round_to,
        prefix="" if is_whole else "params/",
    )
    return found._replace(module=smaller(found.params))


def resized(
    module: nn.Module,
    variables: Any,
    small: Any,
    inputs: tuple[Any, ...],
    call: dict[str, Any],
    find: Callable[[], list[Integer]],
) -> nn.Module:
    """Makes a module of the same class for smaller variables.

    Args:
      module: the module.
      variables: its variables.
      small: the smaller variables.
      inputs: example of each input.
      call: keyword arguments of the call.
      find: finds the integers among the fields that determine axes, from
        `linen_fields.integers`; called only if they are needed.

    Returns:
      The module.

    Raises:
      ValueError: if no fields give these shapes, naming a leaf, or `init` of the module
        fails, by which the fields are found.
    """
    before, wanted = _shapes(variables), _shapes(small)
    if before == wanted:
        return module
    init = functools.partial(_init_shapes, inputs=inputs, call=call)
    result = _with_named_widths(module, before, wanted)
    if result is None or _misfit(init(result), wanted) is not None:
        result = linen_fields.fit(module, find(), before, wanted, init)
    try:
        shapes = _shapes_of(result, inputs, call)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(
            f"module: expected a {type(module).__name__} that can be initialized, to "
            "find the fields that determine its widths, got an error of `init` "
            f"({checks.first_line(error)}); mend it"
        ) from error
    changed = {name: shape for name, shape in wanted.items() if shape != before[name]}
    name = _misfit(shapes, changed) or _misfit(shapes, wanted)
    if name is not None:
        raise ValueError(
            f"{name}: expected fields of {type(module).__name__} with which it has the "
            f"shape {wanted[name]}, got {shapes.get(name)}; make this width a field"
        )
    return result


def _misfit(given: Shapes | None, wanted: Shapes) -> str | None:
    """Names the first leaf whose shape is not the wanted one; None if all fit."""
    for name, shape in wanted.items():
        if given is None or given.get(name, shape) != shape:
            return name
    return None


def _shapes(variables: Any) -> Shapes:
    return {name: leaf.shape for name, leaf in tree.named_leaves(variables).items()}


def _shapes_of(
    module: nn.Module, inputs: tuple[Any, ...], call: dict[str, Any]
) -> Shapes:
    """Returns the shapes of a module's variables."""
    init = functools.partial(module.init, **call)
    return _shapes(jax.eval_shape(init, jax.random.key(0), *inputs))


def _init_shapes(
    module: nn.Module, *, inputs: tuple[Any, ...], call: dict[str, Any]
) -> Shapes | None:
    """Returns the same; None if the module cannot be made."""
    try:
        return _shapes_of(module, inputs, call)
    except Exception:  # whatever the user's module raises
        return None


def _with_named_widths(module: Any, before: Shapes, wanted: Shapes) -> nn.Module | None:
    """Gives the field `widths` the widths of layers that changed, by name.

    Returns:
      The module; None without such a field, or if it holds or takes anything else.
    """
    old = getattr(module, "widths", ())
    if not (old is None or isinstance(old, Mapping)):
        return None
    widths = dict(old or {})
    for name, shape in wanted.items():
        layer, _, leaf = name.removeprefix("params/").rpartition("/")
        if leaf in layers.WEIGHTS and shape[-1] != before[name][-1]:
            widths[layer] = shape[-1]
    try:
        return module.clone(widths=widths)
    except Exception:  # whatever the user's class raises
        return None
