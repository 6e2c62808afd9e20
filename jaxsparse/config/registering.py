"""Adding scores, methods, networks and datasets by name, for configs to use.

Call these in the config file that uses the entry, outside of `get_config`. A run keeps
the files that registered what it uses, and they are executed again when it is opened,
see `kept`; the same call again changes nothing. Each function is a decorator too:
`@register_score("mine")`.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from jaxsparse.config import registries, schema
from jaxsparse.config.registries import (
    DatasetSpec,
    MethodSpec,
    ModelSpec,
    Registry,
    ScoreSpec,
)

# What arguments of methods are called, where not as the field.
STEPS = {"begin": "begin_step", "end": "end_step"}
# Fields that not every network has a use for.
SIZES = ("width", "features", "maps", "padding")
INJECTED = ("norm", "conv", "pool", "skip", "dtype")

Function = Callable[..., Any]


def register_score(
    name: str,
    function: Function | str | None = None,
    *,
    needs: tuple[str, ...] = (),
    label: str = "",
    options: Mapping[str, Any] | None = None,
    distribution: str = "global",
    varies: bool = True,
) -> Any:
    """Adds a score, for `sparse.score` and `lottery.score`.

    Args:
      name: what configs call it.
      function: called as `function(params, masks)` for one replicate, with the keyword
        arguments that `needs` and `options` name; returns scores, a tree like `masks`,
        each of its mask's shape and finite; higher is kept. It is traced. As a
        decorator, leave it out.
      needs: further arguments that it takes, of "loss" `(params, batch, temperature=)`,
        "batches" (images [n b h w c] and labels [n b]), "apply" `(params, images)`,
        "input_shape" and "key".
      label: what reports call it; "" for its name.
      options: config fields of its own under `config.sparse` and their defaults; a
        bool, int, float, str or tuple each.
      distribution: how the sparsity is divided over layers, unless the config says:
        "global" or a name of `distributions.NAMES`.
      varies: whether scoring again after some weights were removed can change scores;
        if not, `sparse.iterations` must be 1.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: if the name is taken by another function, or an argument is unknown.

    Examples:
      >>> @register_score("smallest", label="smallest first")
      ... def smallest(params, masks):
      ...     return masks_lib.tree_map(lambda _, w: -abs(w), masks, params)
    """
    unknown = [need for need in needs if need not in registries.SCORE_NEEDS]
    if unknown:
        raise ValueError(
            f"needs: expected names of {list(registries.SCORE_NEEDS)}, got {unknown}"
        )
    fields = {"needs": tuple(needs), "distribution": distribution, "varies": varies}
    fields |= {"label": label, "options": dict(options or {})}
    return _register(registries.SCORES, ScoreSpec, name, function, fields)


def register_method(
    name: str,
    function: Function | str | None = None,
    *,
    arguments: Mapping[str, str] | tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
    label: str = "",
    **more: Any,
) -> Any:
    """Adds a method of sparse training, for `sparse.method`.

    Args:
      name: what configs call it.
      function: called as `function(inner, **arguments)` with an optax optimizer,
        returns one that contains one sparse optimizer, such as `transforms.sparsify`
        makes. As a decorator, leave it out.
      arguments: fields of the config's section "sparse" that it takes; a mapping from
        field to argument where names differ. `begin`, `end` and `update_every` come as
        numbers of updates, `begin` and `end` as `begin_step` and `end_step`. A field at
        "" or -1 is not passed on. Fields of the section that no argument or option
        names are refused in a config.
      options: config fields of its own under `config.sparse` and their defaults.
      label: what reports call it; "" for its name.
      **more: further attributes of `MethodSpec`: `receives=("key",)` for a random key,
        `requires`, `reads`, `distribution`, `keeps_counts`, `first_update`,
        `include_end`, `finishes_at`, `updates_masks`.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: if the name is taken by another function, or a field is unknown.

    Examples:
      >>> @register_method("dense_start", arguments={"begin": "step"})
      ... def dense_start(inner, *, step):
      ...     return transforms.one_shot_magnitude(inner, sparsity=0.9, step=step)
    """
    if not isinstance(arguments, Mapping):
        arguments = {field: STEPS.get(field, field) for field in arguments}
    given = {"options": dict(options or {}), "label": label} | more
    unknown = set(more) - set(MethodSpec.__dataclass_fields__)
    if unknown:
        raise ValueError(
            f"register_method: expected attributes of MethodSpec, got {sorted(unknown)}"
        )
    section = schema.default().sparse
    named = {*arguments, *more.get("reads", ()), *more.get("requires", ())}
    if named - set(section):
        raise ValueError(
            f"arguments: expected fields of config.sparse, got "
            f"{sorted(named - set(section))}; declare fields of its own as options"
        )
    given["arguments"] = dict(arguments)
    return _register(registries.METHODS, MethodSpec, name, function, given)


def register_model(
    name: str,
    function: Function | str | None = None,
    *,
    takes: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
    label: str = "",
    **more: Any,
) -> Any:
    """Adds a network, for `model.name`.

    Args:
      name: what configs call it.
      function: called with `classes=` and what `takes` and `options` name, returns a
        linen module that is called as `module(images, train=)`. A module class will do.
        As a decorator, leave it out.
      takes: fields of the config's section "model" that it takes ("width", "features",
        "maps", "padding", "dtype"), and layers to inject: "norm", "conv", "pool",
        "skip".
      options: config fields of its own under `config.model` and their defaults.
      label: what reports call it; "" for its name.
      **more: further attributes of `ModelSpec`.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: if the name is taken by another function, or an argument is unknown.

    Examples:
      >>> register_model("tiny", Tiny, options={"hidden": 32})
    """
    unknown = set(takes) - {*SIZES, *INJECTED}
    if unknown:
        raise ValueError(
            f"takes: expected names of {[*SIZES, *INJECTED]}, got {sorted(unknown)}"
        )
    fields = {"takes": tuple(takes), "options": dict(options or {}), "label": label}
    return _register(registries.MODELS, ModelSpec, name, function, fields | more)


def register_dataset(
    name: str,
    function: Function | str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    label: str = "",
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
) -> Any:
    """Adds a dataset, for `data.name`.

    Args:
      name: what configs call it.
      function: called with `data_dir=` (None unless the config says) and `options`;
        returns training and test `data.examples.Examples` and the number of classes.
        As a decorator, leave it out.
      options: config fields of its own under `config.data` and their defaults.
      label: what reports call it; "" for its name.
      mean: of each channel on the [0, 1] scale; () to compute it from training images.
      std: of each channel, likewise.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: if the name is taken by another function.

    Examples:
      >>> register_dataset("noise", noise)
    """
    fields = {"options": dict(options or {}), "label": label, "mean": mean, "std": std}
    return _register(registries.DATASETS, DatasetSpec, name, function, fields)


def _register(
    registry: Registry[Any],
    make: type[registries.Spec],
    name: str,
    function: Function | str | None,
    fields: Mapping[str, Any],
) -> Any:
    """Adds an entry, or returns the decorator that does."""
    if function is None:
        return lambda given: _register(registry, make, name, given, fields)
    if not (callable(function) or isinstance(function, str)):
        raise TypeError(
            f"register_{registry.kind}: expected a function, got "
            f"{type(function).__name__}"
        )
    wrong = [k for k, v in fields["options"].items() if not _is_plain(v)]
    if wrong or not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(
            f"register_{registry.kind}: expected a name of letters, digits and "
            f"underscores, and options that are a bool, int, float, str or tuple, got "
            f"{name!r} and options {wrong}"
        )
    before = registry.get(name)
    registry.add(make(name=name, function=function, file=_caller(), **fields))
    if fields["options"]:
        try:
            schema.default()  # refuses options that are fields of others
        except ValueError:
            registry.restore(name, before)
            raise
    return function


def _caller() -> str:
    """Names the file that registers; "" for the package itself.

    Calls may come through the checks of types that tests have.
    """
    frame, own = sys._getframe(), (__name__, "jaxtyping._decorator")
    while frame.f_back and frame.f_globals.get("__name__") in own:
        frame = frame.f_back
    inside = frame.f_globals.get("__name__", "").startswith(registries.PACKAGE)
    return "" if inside else frame.f_code.co_filename


def _is_plain(value: Any) -> bool:
    return type(value) in (bool, int, float, str, tuple)
