"""The schema, the config files, and when two configs are the same experiment."""

import ast
import copy
import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny

from jaxsparse import config, factory, masks
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.lottery import imp


def test_every_rule_is_of_a_field_and_the_defaults_keep_them_all() -> None:
    assert config.RULES.keys() <= config.flatten(config.default()).keys()
    config.validate(config.default())
    factory.check_names(config.default())


def test_every_field_has_a_comment(root: Path) -> None:
    source = (root / "jaxsparse" / "config" / "schema.py").read_text(encoding="utf-8")
    lines = source.splitlines()
    default = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "default"
    )
    fields = [
        (ast.unparse(node.targets[0]).removeprefix("c."), node)
        for node in default.body
        if isinstance(node, ast.Assign) and "ConfigDict" not in ast.unparse(node.value)
    ]
    assert {name for name, _ in fields} == config.flatten(config.default()).keys()
    bare = [
        name
        for name, node in fields
        if not re.search(
            r"#\s*\S{2,}", "\n".join(lines[node.lineno - 1 : node.end_lineno])
        )
    ]
    assert bare == []


CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
# By beginning of the name: what the data of a config looks like.
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar": (32, 32, 3)}
SHAPES |= {"cinic": (32, 32, 3), "tiny": (64, 64, 3), "imagenet": (224, 224, 3)}


def variants(path: Path) -> list[str]:
    """Reads them from the refusal of one that no config has."""
    sys.path.insert(0, str(path.parent.parent))
    try:
        with pytest.raises(ValueError, match="no variant") as refused:
            importlib.import_module(f"configs.{path.stem}").get_config("0")
    finally:
        sys.path.pop(0)
    hint = str(refused.value).partition("did you mean ")[2].rstrip("?")
    return ["", *hint.removeprefix("one of ").split(", ")]


@pytest.mark.parametrize(
    ("path", "variant"),
    [(path, variant) for path in CONFIGS for variant in variants(path)],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_every_config_is_valid_and_fits_its_network(
    path: Path, variant: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    module = importlib.import_module(f"configs.{path.stem}")
    c = module.get_config(variant)
    config.validate(c)
    factory.check_names(c)
    assert c.name.startswith(path.stem)
    command = f"Command: python experiments/train.py --config=configs/{path.name}"
    assert command in module.__doc__
    assert module.get_config.__doc__
    shape = next(v for k, v in SHAPES.items() if k in path.stem)
    # As many as rescaling takes at once.
    pixels = np.broadcast_to(np.zeros((), np.uint8), (384, *shape))
    some = Examples(pixels, np.zeros(384, np.int32))
    dataset = Dataset(some, some, some, 10, (0.0,) * shape[-1], (1.0,) * shape[-1])
    network = factory.make_network(
        c, dataset, factory.make_durations(c, steps_per_epoch=400)
    )
    layers = network.masks
    assert (network.first_masks is None) == (c.sparse.method == "none")
    assert network.live is not None
    rule = imp.PruningRule(
        layer_fractions=c.lottery.layer_fractions, exclude=c.lottery.exclude
    )
    imp.check(rule, layers, levels=1)
    assert masks.size(layers) > 0
    with pytest.raises(ValueError, match="has no variant 'quik'; did you mean quick"):
        module.get_config("quik")


def test_differences_are_of_scientific_fields_and_levels_may_grow() -> None:
    old = tiny.config()

    def found(fields: dict) -> list:
        new = tiny.config(fields)
        read = json.loads(old.to_json())
        assert list(config.differences(read, json.loads(new.to_json()))) == list(
            config.differences(old, new)
        )
        same = config.digest(old) == config.digest(new)
        names = {name for name, _, _ in config.differences(old, new)}
        assert same == (names <= {config.GROWING})
        return list(config.differences(old, new))

    assert found({}) == []
    assert found({"run.devices": 4, "run.parallelism": "pmap", "data.dir": "/x"}) == []
    assert found({"lottery.levels": 3}) == []
    assert found({"lottery.levels": 1}) == [("lottery.levels", 2, 1)]
    assert found({"seeds.data": 1}) == [("seeds.data", 0, 1)]
    assert found({"lottery.controls": ("reinitialized",), "data.flip": True}) == [
        ("data.flip", False, True),
        ("lottery.controls", [], ["reinitialized"]),
    ]


@pytest.mark.parametrize("value", ["same", "fresh"])
def test_a_field_that_came_later_had_its_default_value(value: str) -> None:
    old = copy.deepcopy(config.flatten(tiny.config()))
    old.pop("data.order")
    nested: dict = {}
    for name, value in old.items():
        *sections, last = name.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    found = list(config.differences(nested, tiny.config({"data.order": value})))
    changed = value != config.default().data.order
    assert found == [("data.order", "same", value)] * changed


def test_every_field_is_scientific_but_those_of_the_run_and_the_folder() -> None:
    c = config.default()
    operational = config.flatten(c).keys() - config.scientific(c).keys()
    assert {"data.dir", "run.devices", "run.keep_checkpoints"} <= operational
    assert all(name == "data.dir" or name.startswith("run.") for name in operational)
