"""Fields of linen modules that give the wanted widths are told from all others."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxsparse import compaction, masks


class Particular(nn.Module):
    """Refuses values of its fields, as users' classes may, and ignores others."""

    widths: Any = None
    parts: int = 3
    even: int = 4
    units: int = 5
    unused: int = 7
    negative: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.widths or self.parts != 3:
            raise ValueError("expected 3 parts, and no widths")

    @nn.compact
    def __call__(self, x: Any) -> Any:
        if self.even % 2:
            raise ValueError("expected an even number")
        x = nn.relu(nn.Dense(self.units, name="hidden")(x))
        x = nn.relu(nn.Dense(self.even, name="even")(x))
        return nn.Dense(2, name="head")(-x if self.negative else x)


def test_fields_that_cannot_change_are_left_out() -> None:
    module, x = Particular(), jnp.zeros((1, 4))
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), shapes)
    active = masks.ones(variables["params"])
    active["even"]["kernel"] = active["even"]["kernel"].at[1].set(False)
    small = compaction.compact_linen(module, variables, active, x)
    assert small.module == Particular(units=4)
    assert small.params["params"]["hidden"]["kernel"].shape == (4, 4)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A record of sizes, as users' modules may have."""

    hidden: int = 5
    classes: int = 2


class Recorded(nn.Module):
    """Its widths are in a record and a mapping, and in a module that it is given."""

    first: nn.Module
    sizes: Sizes
    more: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(self.first(x))
        x = nn.relu(nn.Dense(self.sizes.hidden, name="second")(x))
        x = nn.relu(nn.Dense(self.more["third"], name="third")(x))
        return nn.Dense(self.sizes.classes, name="head")(x)


def pruned(
    module: nn.Module, *rows: tuple[str, Any], x: Any = None
) -> compaction.Compacted:
    """Compacts a module after all that reads some units was pruned."""
    x = jnp.zeros((1, 4)) if x is None else x
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), shapes)
    active = masks.ones(variables["params"])
    for layer, row in rows:
        active[layer]["kernel"] = active[layer]["kernel"].at[row].set(False)
    return compaction.compact_linen(module, variables, active, x)


def test_the_layers_of_a_sequence_get_narrower() -> None:
    module = nn.Sequential([nn.Dense(6), nn.relu, nn.Dense(5), nn.relu, nn.Dense(2)])
    small = pruned(module, ("layers_2", 1), ("layers_2", 3), ("layers_4", 0))
    assert [small.module.layers[i].features for i in (0, 2, 4)] == [4, 4, 2]
    assert small.report.parameters == (4 * 6 + 6 + 35 + 12, 4 * 4 + 4 + 20 + 10)


def test_widths_in_records_mappings_and_modules() -> None:
    module = Recorded(nn.Dense(6), Sizes(), {"third": 4})
    small = pruned(module, ("second", 2), ("third", 1), ("head", 3))
    assert small.module.first.features == 5
    assert small.module.sizes == Sizes(hidden=4)
    assert dict(small.module.more) == {"third": 3}


class Wide(nn.Module):
    """Two of its layers have one width."""

    units: int = 5

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Dense(self.units, name="a")(x))
        return nn.Dense(2, name="c")(nn.relu(nn.Dense(self.units, name="b")(x)))


def test_the_reason_names_a_leaf_that_was_to_change() -> None:
    small = pruned(Wide(), ("b", 1))  # a unit of the first layer
    assert small.module == Wide()
    assert small.report.whole["params/a/kernel", 1] == (
        "params/a/bias: expected fields of Wide with which it has the shape (4,), got "
        "(5,); make this width a field"
    )


@pytest.mark.parametrize("padding", ["VALID", "SAME", 1])
@pytest.mark.parametrize("gone", [1, 3])
def test_sizes_of_convolutions_are_no_widths(padding: Any, gone: int) -> None:
    """They change the length of the axis that is flattened."""
    module = nn.Sequential(
        [
            nn.Conv(4, (3, 3), padding=padding),
            nn.relu,
            lambda x: x.reshape(x.shape[0], -1),
            nn.Dense(6),
            nn.relu,
            nn.Dense(2),
        ]
    )
    small = pruned(
        *(module, ("layers_3", slice(0, None, 4)), ("layers_5", 2)),
        *([("layers_3", slice(i, None, 4)) for i in range(1, gone)]),
        x=jnp.zeros((1, 8, 8, 3)),
    )
    conv = small.module.layers[0]
    assert (conv.features, conv.kernel_size, conv.padding) == (
        4 - gone,
        (3, 3),
        padding,
    )
    assert conv.strides == 1 and small.module.layers[3].features == 5


class Both(nn.Module):
    """Applies the module that it is given twice, under two names."""

    one: nn.Module
    again: nn.Module
    hidden: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.one, nn.Dense) and self.one.features > self.hidden:
            raise ValueError("expected a wider hidden layer")

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Dense(self.hidden, name="hidden")(x))
        x = nn.relu(self.one(x)) + nn.relu(self.again(2 * x))
        return nn.Dense(2, name="head")(x)


def test_a_module_in_two_fields_remains_one_and_values_change_together() -> None:
    layer = nn.Dense(5)
    rows = [("one", row) for row in (0, 1, 2)] + [("head", row) for row in (1, 2)]
    small = pruned(Both(layer, layer), *rows)
    assert small.module.one is small.module.again
    assert (small.module.one.features, small.module.hidden) == (3, 3)


class Loaded(nn.Module):
    """Its variables come from a file."""

    units: int = 5

    @nn.compact
    def __call__(self, x: Any) -> Any:
        if self.is_initializing():
            raise RuntimeError("load the variables\nof this module")
        x = nn.relu(nn.Dense(self.units, name="hidden")(x))
        return nn.Dense(2, name="head")(x)


def test_a_module_that_cannot_be_initialized_stays_and_says_so() -> None:
    sizes = {"hidden": (4, 5), "head": (5, 2)}
    params = {
        name: {"kernel": jnp.full(size, 0.5), "bias": jnp.ones(size[1])}
        for name, size in sizes.items()
    }
    active = masks.ones(params)
    active["head"]["kernel"] = active["head"]["kernel"].at[1].set(False)
    x = jnp.zeros((1, 4))
    small = compaction.compact_linen(Loaded(), {"params": params}, active, x)
    assert small.module == Loaded()
    assert small.report.removed == {}
    assert small.report.whole["params/hidden/kernel", 1] == (
        "module: expected a Loaded that can be initialized, to find the fields that "
        "determine its widths, got an error of `init` (load the variables); mend it"
    )
