"""The tables of names that a config may use, and what is known of each entry.

A spec holds the function, the config fields that it reads, what it needs and its label
in reports: whatever must know about an entry reads it here. Nothing in this module
imports JAX, so that names are checked, and reports written, without it. `registering`
has the functions that add entries; `built_in` adds those of the package.
"""

import dataclasses
import functools
import hashlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from ml_collections import ConfigDict

from jaxsparse.config import naming

PACKAGE = "jaxsparse."
T = TypeVar("T", bound="Spec")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What every entry of a registry has.

    Attributes:
      name: what a config calls it.
      function: what is called; of the package's own "module:name", imported on use.
      label: what reports call it; "" for its name.
      options: config fields of its own and their defaults, by name. They stand in the
        config's section of the registry and are passed on as keyword arguments.
      file: in which it was registered, see `kept`; "" for the package's own.
    """

    name: str
    function: Callable[..., Any] | str
    label: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    file: str = dataclasses.field(default="", compare=False)

    @property
    def title(self) -> str:
        """The label, or else the name."""
        return self.label or self.name

    @property
    def is_built_in(self) -> bool:
        """Whether the package itself has registered it."""
        return isinstance(self.function, str) and self.function.startswith(PACKAGE)

    def load(self) -> Callable[..., Any]:
        """Returns the function, importing it if need be."""
        if isinstance(self.function, str):
            return pkgutil.resolve_name(self.function)
        return self.function

    def digest(self) -> str | None:
        """Hashes the function's source text; None if Python cannot find it."""
        text = source_of(self.function)
        return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreSpec(Spec):
    """A score: what each weight is worth; higher is kept.

    Attributes:
      needs: keyword arguments that the function takes besides `(params, masks)`, each
        one of `SCORE_NEEDS`.
      distribution: how the sparsity is divided over layers, unless the config says.
      varies: whether scoring again after some weights were removed can change scores.
    """

    needs: tuple[str, ...] = ()
    distribution: str = "global"
    varies: bool = True

    @property
    def needs_data(self) -> bool:
        """Whether the score is computed on training examples."""
        return "batches" in self.needs


# What a score can be given by name, all of one replicate:
SCORE_NEEDS = {
    "loss": "loss(params, batch, temperature=1.0), the mean cross-entropy in training",
    "batches": "(images [n b h w c], labels [n b]), normalized training examples",
    "apply": "apply(params, images), the logits in evaluation mode",
    "input_shape": "the shape of a batch of one image, (1, h, w, c)",
    "key": "a random key",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodSpec(Spec):
    """A method of sparse training: called with the inner optimizer, returns another.

    Attributes:
      arguments: fields of the config's section "sparse" that are passed on, and the
        name of the argument that each becomes. A field at "" or -1, which stand for
        the method's own value, is not passed on.
      reads: fields of that section that are read elsewhere on its behalf.
      receives: arguments that are no config fields: "key", a random key, and "axes",
        the layouts of the weights (`fan_axes`).
      requires: fields that must be given.
      distribution: how the function divides the sparsity, unless the config says.
      updates_masks: whether masks change in training.
      keeps_counts: whether it trains from masks it is given (`start.masks`) and keeps
        their number of weights.
      first_update: "start" or "one_interval" (`update_every`) after it, where the
        config has no `begin`; "" where the steps of mask updates are not known.
      include_end: whether the last mask update is at the end itself; or the name of the
        field that decides.
      finishes_at: field of the step at which the target sparsity is reached; "" if it
        is from the start.
      chooses: fields by which first masks are chosen, of no use with `start.masks`.
    """

    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reads: tuple[str, ...] = ()
    receives: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    distribution: str = "global"
    updates_masks: bool = True
    keeps_counts: bool = False
    first_update: str = ""
    include_end: bool | str = False
    finishes_at: str = ""
    chooses: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields of the section "sparse" that it reads."""
        return (*self.arguments, *self.reads, *self.options)

    def includes_end(self, section: ConfigDict) -> bool:
        """Says whether the last mask update is at the end, by the section "sparse"."""
        if isinstance(self.include_end, str):
            return bool(section[self.include_end])
        return self.include_end


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A network: called with `classes` and what it takes, returns a linen module.

    Attributes:
      arguments: fixed arguments of the function.
      takes: fields of the config's section "model", and what can be injected besides
        `act`: "norm", "conv", "pool", "skip", "dtype".
      blocks: how many sizes `model.features` must have; None for any number.
      rectifies: whether its activation is ReLU.
      patch: pixels that both sides of an image must be a multiple of.
    """

    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    takes: tuple[str, ...] = ()
    blocks: int | None = None
    rectifies: bool = False
    patch: int = 1

    def make(self, **fields: Any) -> Any:
        """Makes the module."""
        return self.load()(**self.arguments, **fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A dataset: called with `data_dir`, returns training and test examples, classes.

    Attributes:
      mean: of each channel on the [0, 1] scale; () to compute it.
      std: of each channel, likewise.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Registry(Mapping[str, T], Generic[T]):  # noqa: UP046  Python 3.11 has no other
    """Specs by name.

    Attributes:
      kind: what its entries are, in the singular.
      field: of the config, that names an entry.
      specs: all entries, in the order in which they were added.
    """

    def __init__(self, kind: str, field: str) -> None:
        """Makes an empty registry."""
        self.kind, self.field = kind, field
        self.specs: dict[str, T] = {}

    @property
    def section(self) -> str:
        """The section of the config that holds the options of its entries."""
        return self.field.partition(".")[0]

    def __getitem__(self, name: str) -> T:
        """Returns an entry."""
        return self.specs[name]

    def __iter__(self) -> Iterator[str]:
        """Yields the names."""
        return iter(self.specs)

    def __len__(self) -> int:
        """Counts the entries."""
        return len(self.specs)

    def __contains__(self, name: object) -> bool:
        """Says whether there is such an entry."""
        return name in self.specs

    def find(self, name: str, *, field: str = "") -> T:
        """Returns an entry.

        Args:
          name: of the entry.
          field: of the config, for the message; "" for the registry's own.

        Raises:
          ValueError: if there is none; names the nearest, and all there are.
        """
        if name not in self.specs:
            raise ValueError(
                f"config.{field or self.field}: unknown {name!r}; did you mean "
                f"{naming.nearest(name, list(self.specs))}? Registered are "
                f"{', '.join(self.specs)}; add one with "
                f"jaxsparse.register_{self.kind}({name!r}, ...) in the config file"
            )
        return self.specs[name]

    def add(self, spec: T) -> None:
        """Adds an entry; the same function again changes nothing.

        Raises:
          ValueError: if the name is taken by another function.
        """
        there = self.specs.get(spec.name)
        if there is not None and not _is_same(there, spec):
            raise ValueError(
                f"register_{self.kind}: {spec.name!r} is registered already, for "
                f"another function or with other options; choose another name"
                + (
                    ""
                    if there.is_built_in
                    else f", or call jaxsparse.config.{self.kind.upper()}S"
                    f".remove({spec.name!r}) first"
                )
            )
        self.specs[spec.name] = spec

    def remove(self, name: str) -> None:
        """Removes an entry that is not the package's own.

        Raises:
          ValueError: if there is none such.
        """
        own = [spec.name for spec in self.own()]
        if name not in own:
            raise ValueError(
                f"remove: expected one of {own}, which users registered, got {name!r}"
            )
        del self.specs[name]

    def restore(self, name: str, spec: T | None) -> None:
        """Puts back what stood under a name before; None for nothing."""
        self.specs.pop(name, None)
        if spec is not None:
            self.specs[name] = spec

    def own(self) -> list[T]:
        """Lists the entries that users have added."""
        return [spec for spec in self.specs.values() if not spec.is_built_in]


SCORES: Registry[ScoreSpec] = Registry("score", "sparse.score")
METHODS: Registry[MethodSpec] = Registry("method", "sparse.method")
MODELS: Registry[ModelSpec] = Registry("model", "model.name")
DATASETS: Registry[DatasetSpec] = Registry("dataset", "data.name")
EVERY: tuple[Registry[Any], ...] = (SCORES, METHODS, MODELS, DATASETS)


def options() -> Iterator[tuple[str, str, Any, str]]:
    """Yields the fields that entries add to configs.

    Yields:
      Section, field, default value, and which entry wants it, in words.
    """
    for registry in EVERY:
        for spec in registry.own():
            for field, value in spec.options.items():
                yield registry.section, field, value, f"{registry.kind} {spec.name!r}"


def describe() -> dict[str, dict[str, dict[str, Any]]]:
    """Describes what users registered, for the record: labels and hashes of sources."""
    return {
        registry.kind: {
            spec.name: {"label": spec.title, "source": spec.digest()}
            | ({"distribution": d} if (d := getattr(spec, "distribution", "")) else {})
            for spec in registry.own()
        }
        for registry in EVERY
        if registry.own()
    }


def source_of(function: Any) -> str | None:
    """Returns the source text of a function or class; None if there is none to find."""
    if isinstance(function, str):
        return function
    if isinstance(function, functools.partial):
        inner = source_of(function.func)
        given = f"{function.args!r} {sorted(function.keywords.items())!r}"
        return inner and inner + re.sub(r" at 0x[0-9a-f]+", "", given)
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return None


def _is_same(a: Spec, b: Spec) -> bool:
    """Says whether two specs are of the same text, perhaps executed twice."""
    if a.function is not b.function:
        texts = source_of(a.function), source_of(b.function)
        codes = [getattr(spec.function, "__code__", spec.function) for spec in (a, b)]
        if texts[0] != texts[1] or (texts[0] is None and codes[0] != codes[1]):
            return False
    return dataclasses.replace(a, function="") == dataclasses.replace(b, function="")
