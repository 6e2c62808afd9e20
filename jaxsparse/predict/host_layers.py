"""Layers outside of XLA: what comes before and after their product, and the product."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxsparse.predict import direct, forms
from jaxsparse.predict.geometry import Product
from jaxsparse.predict.layers import Layer


class HostLayer(NamedTuple):
    """A layer outside of XLA.

    Attributes:
      before: brings the signal into the order of the product; may be traced.
      multiply: the product, on arrays of NumPy.
      after: brings the result into its own shape; may be traced.
      is_view: whether `before` and `after` only change shapes, so that they work on
        arrays of NumPy too.
    """

    before: Callable[[Any], Any]
    multiply: Callable[[Any], Any]
    after: Callable[[Any], Any]
    is_view: bool


def make(layer: Layer, form: str) -> HostLayer:
    """Stores a layer in a form outside of XLA.

    Args:
      layer: the layer.
      form: "csr" or "direct".
    """
    geometry, is_view = layer.geometry, isinstance(layer.geometry, Product)
    if form == "csr":
        multiply = forms.Csr(layer.matrix)
        return HostLayer(geometry.columns, multiply, geometry.restore, is_view)
    return HostLayer(
        functools.partial(direct.spread, geometry),
        direct.Direct(layer.matrix, geometry),
        functools.partial(direct.gather, geometry),
        is_view,
    )
