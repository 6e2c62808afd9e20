"""Registries of all that configs can name: scores, methods, networks and so on.

`specs` defines the entries, `registering` has the functions that add them, and
`built_in` adds those of the package.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from jaxsparse.config import naming
from jaxsparse.config.specs import (
    DatasetSpec,
    MethodSpec,
    ModelSpec,
    ReparameterizationSpec,
    ScoreSpec,
    Spec,
    source_of,
)

T = TypeVar("T", bound=Spec)


class Registry(Mapping[str, T], Generic[T]):  # noqa: UP046  other syntax needs 3.12
    """Specifications of entries by name.

    Attributes:
      kind: kind of the entries: "score", "method", "reparameterization", "model" or
        "dataset".
      field: dotted name of the config field that names an entry.
      specs: all entries, in the order in which they were added.
    """

    def __init__(self, kind: str, field: str) -> None:
        """Makes an empty registry.

        Args:
          kind: kind of the entries, as in `register_KIND`.
          field: dotted name of the config field that names an entry.
        """
        self.kind, self.field = kind, field
        self.specs: dict[str, T] = {}

    @property
    def section(self) -> str:
        """The section of the config that holds the options of its entries."""
        return self.field.partition(".")[0]

    def __getitem__(self, name: str) -> T:
        """Returns the entry of this name."""
        return self.specs[name]

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the entries."""
        return iter(self.specs)

    def __len__(self) -> int:
        """Returns the number of entries."""
        return len(self.specs)

    def __contains__(self, name: object) -> bool:
        """Returns whether an entry has this name."""
        return name in self.specs

    def find(self, name: str, *, field: str = "") -> T:
        """Returns an entry, or raises an error with suggestions.

        Args:
          name: name of the entry.
          field: dotted name of the config field for the message; "" for the registry's
            own field.

        Returns:
          The entry.

        Raises:
          ValueError: if no entry has the name; the message lists similar names and all
            names.
        """
        if name not in self.specs:
            raise ValueError(
                f"config.{field or self.field}: expected a registered {self.kind}, got "
                f"{name!r}; did you mean {naming.nearest(name, list(self.specs))}? "
                f"Registered are {', '.join(self.specs)}; add one with "
                f"jaxsparse.register_{self.kind}({name!r}, ...) in the config file"
            )
        return self.specs[name]

    def add(self, spec: T) -> None:
        """Adds an entry; adding an equal entry again has no effect.

        Args:
          spec: the entry.

        Raises:
          ValueError: if another function, or the same one with other options, has the
            name.
        """
        there = self.specs.get(spec.name)
        if there is not None and not _is_same(there, spec):
            raise ValueError(
                f"register_{self.kind}: expected a new name, got {spec.name!r}, which "
                "is registered already for another function or with other options; "
                "choose another name"
                + (
                    ""
                    if there.is_built_in
                    else f", or call jaxsparse.config.{self.kind.upper()}S"
                    f".remove({spec.name!r}) first"
                )
            )
        self.specs[spec.name] = spec

    def remove(self, name: str) -> None:
        """Removes an entry that a user has registered.

        Args:
          name: name of the entry.

        Raises:
          ValueError: if no user's entry has the name.
        """
        own = [spec.name for spec in self.own()]
        if name not in own:
            raise ValueError(
                f"remove: expected one of {own}, which are not of the package, got "
                f"{name!r}"
            )
        del self.specs[name]

    def restore(self, name: str, spec: T | None) -> None:
        """Restores the previous entry of a name.

        Args:
          name: name of the entry.
          spec: the previous entry; None if there was none.
        """
        self.specs.pop(name, None)
        if spec is not None:
            self.specs[name] = spec

    def own(self) -> list[T]:
        """Returns the entries that users have registered."""
        return [spec for spec in self.specs.values() if not spec.is_built_in]


SCORES: Registry[ScoreSpec] = Registry("score", "sparse.pai_score")
METHODS: Registry[MethodSpec] = Registry("method", "sparse.method")
REPARAMETERIZATIONS: Registry[ReparameterizationSpec] = Registry(
    "reparameterization", "sparse.reparameterization"
)
MODELS: Registry[ModelSpec] = Registry("model", "model.name")
DATASETS: Registry[DatasetSpec] = Registry("dataset", "data.name")
REGISTRIES: tuple[Registry[Any], ...] = (
    *(SCORES, METHODS, REPARAMETERIZATIONS),
    *(MODELS, DATASETS),
)


def options() -> Iterator[tuple[str, str, Any, str]]:
    """Yields the fields that users' entries add to configs.

    Yields:
      Section, field, default value, and the entry as text, such as "score 'mine'".
    """
    for registry in REGISTRIES:
        for spec in registry.own():
            for field, value in spec.options.items():
                yield registry.section, field, value, f"{registry.kind} {spec.name!r}"


def describe() -> dict[str, dict[str, dict[str, Any]]]:
    """Describes the entries that users have registered, for the run's records.

    Returns:
      By kind and name: the label, a hash of the source text (None if unknown) and, for
      scores and methods, the distribution of the sparsity.
    """
    return {
        registry.kind: {
            spec.name: {"label": spec.title, "source": spec.digest()}
            | ({"distribution": d} if (d := getattr(spec, "distribution", "")) else {})
            for spec in registry.own()
        }
        for registry in REGISTRIES
        if registry.own()
    }


def _is_same(a: Spec, b: Spec) -> bool:
    """Returns whether two entries have equal attributes and functions of equal text."""
    # A config file may be executed twice, which makes new but equal functions.
    if a.function is not b.function:
        # Functions without source text, as from `exec`, are compared by bytecode.
        texts = source_of(a.function), source_of(b.function)
        codes = [getattr(spec.function, "__code__", spec.function) for spec in (a, b)]
        if texts[0] != texts[1] or (texts[0] is None and codes[0] != codes[1]):
            return False
    return dataclasses.replace(a, function="") == dataclasses.replace(b, function="")
