"""Makes the reparameterization of a config, and checks that its method allows it."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import transforms
from jaxsparse.config.specs import MethodSpec, ReparameterizationSpec
from jaxsparse.factory.durations import Durations, config_context


def fields(config: ConfigDict) -> tuple[str, ...]:
    """Returns the fields of the section "sparse" that a reparameterization uses.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if the name is unknown, or the method grows weights from zero and the
        reparameterization has no gradient there.
    """
    c, own = config.sparse, ("reparameterization",)
    if not c.reparameterization:
        return own
    spec = config_lib.REPARAMETERIZATIONS.find(c.reparameterization)
    grows = config_lib.METHODS.find(c.method).mask_updates.grows
    if grows and not spec.grows_from_zero:
        raise ValueError(
            "config.sparse.reparameterization: expected one under which weights of "
            f"zero have gradients, since sparse.method {c.method!r} grows weights from "
            f"zero, got {c.reparameterization!r}; choose another of the two"
        )
    return (*own, "prunable", *spec.fields)


def make_reparameterized(
    config: ConfigDict, length: Durations, *, prunable: Any
) -> Callable[[Any], Any]:
    """Makes the function that reparameterizes the weights of a dense optimizer.

    Args:
      config: a validated config.
      length: durations of the config in steps.
      prunable: which leaves are reparameterized, as in `transforms.reparameterize`.

    Returns:
      A function from an optax optimizer to another; the identity if the config has no
      reparameterization.
    """
    c = config.sparse
    if not c.reparameterization:
        return lambda inner: inner
    spec = config_lib.REPARAMETERIZATIONS.find(c.reparameterization)
    names = {argument: field for field, argument in spec.arguments.items()}
    with config_context("sparse", names):
        made = spec.load()(**read_arguments(spec, c, length.sparse))
    return lambda inner: transforms.reparameterize(inner, made, prunable=prunable)


def read_arguments(
    spec: MethodSpec | ReparameterizationSpec, c: ConfigDict, values: dict[str, Any]
) -> dict[str, Any]:
    """Reads the arguments of an entry's function from its fields.

    Args:
      spec: a method or a reparameterization.
      c: the section "sparse" of a config.
      values: what replaces the values of fields, such as durations in steps.
    """
    arguments = {field: c[field] for field in spec.options}
    for field, argument in spec.arguments.items():
        value = values.get(field, c[field])
        if value is not None:  # None selects the default of the function
            arguments[argument] = value
    return arguments
