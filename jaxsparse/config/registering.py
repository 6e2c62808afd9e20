"""Functions that register entries for configs to use, such as scores and methods.

Call them in the config file that uses the entry, outside of `get_config`. A run copies
the files that registered its entries to its directory and executes the copies when it
is opened, see `kept`. Repeating the same call has no effect. Each function can be used
as a decorator: `@register_score("mine")`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxsparse.config import entries, registries, specs
from jaxsparse.config.specs import (
    DatasetSpec,
    MaskUpdateRules,
    MethodSpec,
    ModelSpec,
    ReparameterizationSpec,
    ScoreSpec,
)

# Fields of the section "model" that only some networks use.
SIZES = ("width", "depth", "heads", "features", "conv_channels", "padding")
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
    """Adds a score, for `sparse.pai_score` and `lottery.score`.

    Args:
      name: name in configs, a valid Python identifier.
      function: called as `function(params, masks)` for one replicate, with the keyword
        arguments named in `needs` and `options`. It returns scores: a tree with the
        structure of `masks`, where each leaf has the shape of its mask and is finite.
        The weights with the highest scores are kept. It is traced by JAX. Omit it to
        use this function as a decorator.
      needs: further keyword arguments of `function`: "loss" `(params, batch,
        temperature=)`, "batches" (images [n b h w c] and labels [n b]), "apply"
        `(params, images)` and "apply_train", the same in training mode, "input_shape"
        (1, h, w, c) and "key", a random key.
      label: name in reports; "" for `name`.
      options: default values of additional fields under `config.sparse`, passed to
        `function` as keyword arguments; bool, int, float, str or tuple.
      distribution: how the sparsity is divided among layers if the config does not set
        it: "global" or a name in `distributions.NAMES`.
      varies: whether scores can change when some weights are pruned;
        if not, `sparse.score_iterations` must be 1.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: if another function has the name, a name in `needs` is unknown, or an
        option is already a config field.
      TypeError: if `function` is not a function.

    Examples:
      >>> @jaxsparse.register_score("smallest", label="smallest first")
      ... def smallest(params, ones):
      ...     return masks.tree_map(lambda _, w: -abs(w), ones, params)
    """
    unknown = [need for need in needs if need not in specs.SCORE_NEEDS]
    if unknown:
        raise ValueError(
            f"needs: expected names of {list(specs.SCORE_NEEDS)}, got {unknown}"
        )
    fields = {"needs": tuple(needs), "distribution": distribution, "varies": varies}
    fields |= {"label": label, "options": dict(options or {})}
    return entries.add(registries.SCORES, ScoreSpec, name, function, fields)


def register_method(
    name: str,
    function: Function | str | None = None,
    *,
    arguments: Mapping[str, str] | tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
    label: str = "",
    **more: Any,
) -> Any:
    """Registers a sparse training method, for `sparse.method`.

    Args:
      name: name in configs, a valid Python identifier.
      function: called as `function(inner, **arguments)` with an optax optimizer;
        returns an optimizer that contains exactly one sparse optimizer, such as
        `transforms.sparsify` makes. Omit it to use this function as a decorator.
      arguments: fields of the config's section "sparse" that are passed to `function`;
        a mapping from field to argument if names differ. `begin_step`, `end_step` and
        `update_every` are converted to numbers of steps. A field that is None is not
        passed. A config may not set fields of the section that neither `arguments` nor
        `options` nor `reads` names.
      options: default values of additional fields under `config.sparse`, passed to
        `function` as keyword arguments; bool, int, float, str or tuple.
      label: name in reports; "" for `name`.
      **more: further attributes of `MethodSpec`: `receives` (`("key",)` for a random
        key), `records`, `requires`, `reads`, `distribution`, `keeps_counts`,
        `chooses`; and those of `MaskUpdateRules`: `updates_masks`, `first_update`,
        `include_end`, `finishes_at`, `finishes_after`, `grows`, `gradient`.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: if another function has the name, a field or an attribute is unknown,
        or an option is already a config field.
      TypeError: if `function` is not a function.

    Examples:
      >>> @jaxsparse.register_method("dense_start", arguments={"begin_step": "step"})
      ... def dense_start(inner, *, step):
      ...     return transforms.one_shot_magnitude(inner, sparsity=0.9, step=step)
    """
    if not isinstance(arguments, Mapping):
        arguments = {field: field for field in arguments}
    listed = [name for name in more if name in MaskUpdateRules.__dataclass_fields__]
    rules = MaskUpdateRules(**{name: more.pop(name) for name in listed})
    given = {"options": dict(options or {}), "label": label} | more
    given["mask_updates"] = rules
    unknown = set(more) - (set(MethodSpec.__dataclass_fields__) - {"mask_updates"})
    if unknown:
        raise ValueError(
            f"register_method: expected attributes of MethodSpec, got {sorted(unknown)}"
        )
    entries.check_fields(
        {*arguments, *more.get("reads", ()), *more.get("requires", ())}
    )
    given["arguments"] = dict(arguments)
    return entries.add(registries.METHODS, MethodSpec, name, function, given)


def register_reparameterization(
    name: str,
    function: Function | str | None = None,
    *,
    arguments: Mapping[str, str] | tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
    label: str = "",
    grows_from_zero: bool = True,
) -> Any:
    """Registers a reparameterization of the weights, for `sparse.reparameterization`.

    Args:
      name: name in configs, a valid Python identifier.
      function: called as `function(**arguments)`; returns what
        `transforms.reparameterize` takes: a `transforms.Reparameterization`, or a
        function of the parameters that returns those of single leaves by name. Omit it
        to use this function as a decorator.
      arguments: fields of the config's section "sparse" that are passed to `function`;
        a mapping from field to argument if names differ. Durations are converted to
        numbers of steps. A field that is None is not passed.
      options: default values of additional fields under `config.sparse`, passed to
        `function` as keyword arguments; bool, int, float, str or tuple.
      label: name in reports; "" for `name`.
      grows_from_zero: whether a weight of exactly zero has a gradient. If not, configs
        with methods that grow weights from zero are refused.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: if another function has the name, a field is unknown, or an option is
        already a config field.
      TypeError: if `function` is not a function.

    Examples:
      >>> @jaxsparse.register_reparameterization("halves")
      ... def halves():
      ...     return transforms.Reparameterization(
      ...         init=lambda weight: {"a": weight / 2, "b": weight / 2},
      ...         forward=lambda parts, step: parts["a"] + parts["b"],
      ...     )
    """
    if not isinstance(arguments, Mapping):
        arguments = {field: field for field in arguments}
    entries.check_fields({*arguments})
    fields = {"arguments": dict(arguments), "options": dict(options or {})}
    fields |= {"label": label, "grows_from_zero": grows_from_zero}
    return entries.add(
        registries.REPARAMETERIZATIONS, ReparameterizationSpec, name, function, fields
    )


def register_model(
    name: str,
    function: Function | str | None = None,
    *,
    takes: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
    label: str = "",
    **more: Any,
) -> Any:
    """Registers a network, for `model.name`.

    Args:
      name: name in configs, a valid Python identifier.
      function: function or module class, called with the keyword argument `classes`
        (number of classes) and those named in `takes` and `options`. It returns a linen
        module that is called as `module(images, train=)`. Omit it to use this function
        as a decorator.
      takes: keyword arguments of `function`: fields of the config's section "model"
        ("width", "depth", "heads", "features", "conv_channels", "padding", "dtype"),
        and injected layers ("norm", "conv", "pool", "skip").
      options: default values of additional fields under `config.model`, passed to
        `function` as keyword arguments; bool, int, float, str or tuple.
      label: name in reports; "" for `name`.
      **more: further attributes of `ModelSpec`: `arguments`, `blocks`, `rectifies`,
        `patch`, `predicts`.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: if another function has the name, a name in `takes` is unknown, or an
        option is already a config field.
      TypeError: if `function` is not a function.

    Examples:
      >>> @jaxsparse.register_model("tiny", options={"hidden": 32})
      ... class Tiny(nn.Module):
      ...     classes: int
      ...     hidden: int
      ...
      ...     @nn.compact
      ...     def __call__(self, images, *, train):
      ...         x = nn.relu(nn.Dense(self.hidden)(images.reshape(len(images), -1)))
      ...         return nn.Dense(self.classes)(x)
    """
    unknown = set(takes) - {*SIZES, *INJECTED}
    if unknown:
        raise ValueError(
            f"takes: expected names of {[*SIZES, *INJECTED]}, got {sorted(unknown)}"
        )
    fields = {"takes": tuple(takes), "options": dict(options or {}), "label": label}
    return entries.add(registries.MODELS, ModelSpec, name, function, fields | more)


def register_dataset(
    name: str,
    function: Function | str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    label: str = "",
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    predicts: str = "classes",
) -> Any:
    """Registers a dataset, for `data.name`.

    Args:
      name: name in configs, a valid Python identifier.
      function: called with the keyword argument `data_dir` (None if the config does not
        set it), those named in `options` and, for a text, `context`, the value of
        `data.context`. It returns training and test examples, as
        `data.dataset.Examples`, and the number of classes. Omit it to use this function
        as a decorator.
      options: default values of additional fields under `config.data`, passed to
        `function` as keyword arguments; bool, int, float, str or tuple.
      label: name in reports; "" for `name`.
      mean: mean of each channel on the [0, 1] scale; () computes mean and standard
        deviation from the training images.
      std: standard deviation of each channel on the [0, 1] scale; () if `mean` is ().
      predicts: what networks predict: "classes" of images, or the "next_token" after
        each token of a text, whose examples are those of `data.text.split`.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: if another function has the name, an option is already a config field,
        or `predicts` has another value.
      TypeError: if `function` is not a function.

    Examples:
      >>> @jaxsparse.register_dataset("noise", options={"size": 300})
      ... def noise(*, data_dir, size):
      ...     images = np.random.default_rng(0).integers(0, 256, (size, 8, 8, 1))
      ...     labels = np.arange(size) % 3
      ...     examples = data.dataset.Examples(
      ...         images.astype(np.uint8), labels.astype(np.int32)
      ...     )
      ...     training = data.dataset.take(examples, np.arange(size // 2))
      ...     test = data.dataset.take(examples, np.arange(size // 2, size))
      ...     return training, test, 3
    """
    if predicts not in specs.PREDICTS:
        raise ValueError(
            f"predicts: expected one of {specs.PREDICTS}, got {predicts!r}"
        )
    fields = {"options": dict(options or {}), "label": label, "mean": mean, "std": std}
    fields["predicts"] = predicts
    return entries.add(registries.DATASETS, DatasetSpec, name, function, fields)
