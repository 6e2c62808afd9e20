"""The smallest network with BatchNorm, for what treats its statistics."""

import contextlib
from collections.abc import Iterator
from typing import Any

from flax import linen as nn

from jaxsparse import config as config_lib
from jaxsparse.models import layers


class NormMLP(nn.Module):
    """Two dense layers with a normalization between them."""

    norm: Any = layers.BATCH_NORM
    classes: int = 10

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        x = nn.Dense(6, use_bias=False, name="dense1")(x.reshape(len(x), -1))
        x = self.norm(use_running_average=not train, name="norm1")(x)
        return nn.Dense(self.classes, name="head")(nn.relu(x))


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Lets configs name it `norm_mlp`."""
    config_lib.register_model("norm_mlp", NormMLP, takes=("norm",))
    try:
        yield
    finally:
        config_lib.MODELS.remove("norm_mlp")
