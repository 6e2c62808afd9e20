"""The default config, the config files, and when two configs are the same."""

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from ml_collections import ConfigDict

from jaxsparse import config, connectivity, factory, masks
from jaxsparse.config import reference
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.factory import components, init_masks
from jaxsparse.factory.durations import Durations
from jaxsparse.lottery import imp


def test_the_default_config_is_valid() -> None:
    config.validate(config.default())
    factory.check_names(config.default())


def test_the_reference_of_the_fields_is_up_to_date(root: Path) -> None:
    page = (root / "configs" / "README.md").read_text(encoding="utf-8")
    assert reference.inserted(page) == page
    with pytest.raises(ValueError, match="page: expected the lines"):
        reference.inserted("# Configs")


def test_the_examples_of_the_configs_page_run(root: Path) -> None:
    page = (root / "configs" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    named = re.findall(r"--config\.([\w.]+)", page)
    assert named
    for field in named:
        assert field in config.FIELDS


CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
# By beginning of the name: what the data of a config looks like.
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar": (32, 32, 3)}
SHAPES |= {"cinic": (32, 32, 3), "tiny": (64, 64, 3), "imagenet": (224, 224, 3)}
SHAPES |= {"python_docs": (65, 1, 1)}


def presets(path: Path) -> list[str]:
    """Reads them from the refusal of one that no config has."""
    sys.path.insert(0, str(path.parent.parent))
    try:
        with pytest.raises(ValueError, match="no preset") as refused:
            importlib.import_module(f"configs.{path.stem}").get_config("0")
    finally:
        sys.path.pop(0)
    hint = str(refused.value).partition("did you mean ")[2].rstrip("?")
    return ["", *hint.removeprefix("one of ").split(", ")]


# What building a network depends on, but for sizes of layers and lengths of training.
PARTS = ("model", "sparse", "init", "tost", "lottery", "gradinit")
LENGTHS = {"sparse.begin_step", "sparse.end_step", "sparse.update_every"}
LENGTHS |= {"tost.end", "lottery.rewind", "lottery.levels", "lottery.finetune"}
SIZES = {"model.width", "model.features", "model.conv_channels"}
BUILT: set[str] = set()


def with_few_updates(length: Durations) -> Durations:
    """Makes mask updates rare: as many as there are have their counts tabulated."""
    sparse = dict(length.sparse)
    if "update_every" in sparse:
        sparse["update_every"] = max(sparse["update_every"], length.total // 4)
    return length._replace(sparse=sparse)


def is_like_another(c: ConfigDict, shape: tuple[int, ...]) -> bool:
    """Whether a network was built that differs in sizes and lengths only."""
    fields = {
        name: value
        for name, value in config.flatten(c).items()
        if name.partition(".")[0] in PARTS and name not in LENGTHS | SIZES
    }
    fields["gradinit.steps"] = fields["gradinit.steps"] > 0
    key = json.dumps([fields, shape], sort_keys=True, default=str)
    known = key in BUILT
    BUILT.add(key)
    return known


def try_paths(model: Any, like: Any, stats: Any, example: Any, held: Any) -> Any:
    """Finds operations that paths cannot be followed through, without gradients."""

    def forward(params: Any, inputs: Any) -> Any:
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), stats)
        variables = {"params": params, "batch_stats": ones}
        return model.apply(variables, inputs, train=False)

    order = connectivity.first_to_last(forward, like, held, example)
    return lambda _: order


@pytest.fixture(scope="module")
def traced_once() -> Iterator[None]:
    """Traces each network once for all configs, which takes most of building it."""

    def once(function: Callable[..., Any], model: int, given: slice) -> Any:
        known: dict[str, Any] = {}

        def call(*args: Any) -> Any:
            # The network, the images or masks, and what of the config matters.
            like = jax.tree.map(lambda leaf: getattr(leaf, "shape", leaf), args[given])
            key = repr((args[model], like, _ends(args[0])))
            if key not in known:
                # The arguments are kept, so that no address in a key has two meanings.
                known[key] = function(*args), args
            return known[key][0]

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(init_masks, "make_effective_count", try_paths)
        for module, name, model, given in (
            (components, "variable_shapes", 1, slice(2, 3)),
            (init_masks, "ends_kept_whole", 1, slice(4, 5)),
            (init_masks, "layouts", 0, slice(3, 4)),
            (init_masks, "make_effective_count", 0, slice(3, 5)),
        ):
            patch.setattr(module, name, once(getattr(module, name), model, given))
        yield


def _ends(first: Any) -> Any:
    if not isinstance(first, ConfigDict):
        return None
    c = first.sparse
    return c.first_layer_dense, c.last_layer_dense, c.prunable


@pytest.mark.parametrize(
    ("path", "preset"),
    [(path, preset) for path in CONFIGS for preset in presets(path)],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_every_config_is_valid_and_fits_its_network(
    path: Path,
    preset: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    traced_once: None,
) -> None:
    """Configs that differ in sizes of layers and lengths only share a network."""
    monkeypatch.syspath_prepend(root)
    module = importlib.import_module(f"configs.{path.stem}")
    c = module.get_config(preset)
    config.validate(c)
    factory.check_names(c)
    assert c.name.startswith(path.stem)
    command = f"Command: python experiments/train.py --config=configs/{path.name}"
    assert command in module.__doc__
    assert module.get_config.__doc__
    assert list(inspect.signature(module.get_config).parameters) == ["preset"]
    with pytest.raises(ValueError, match="has no preset 'quik'; did you mean quick"):
        module.get_config("quik")
    *sides, channels = next(v for k, v in SHAPES.items() if k in path.stem)
    shape = (*(side // c.data.downsample for side in sides), channels)
    length = factory.make_durations(c, steps_per_epoch=400)
    if is_like_another(c, shape):
        return
    # As many as rescaling takes at once.
    pixels = np.broadcast_to(np.zeros((), np.uint8), (384, *shape))
    some = Examples(pixels, np.zeros(384, np.int32))
    dataset = Dataset(some, some, some, 10, (0.0,) * shape[-1], (1.0,) * shape[-1])
    network = factory.make_network(c, dataset, with_few_updates(length))
    layers = network.masks
    assert (network.first_masks is None) == (c.sparse.method == "none")
    # Paths can be followed through the whole network, of which biases are no part.
    on_paths = [name for name in masks.names(layers) if not name.endswith("/bias")]
    assert sorted(network.count_effective(layers)) == on_paths
    rule = imp.PruningRule(
        layer_fractions=c.lottery.layer_fractions, exclude=c.lottery.exclude
    )
    imp.check(rule, layers, levels=1)
    assert masks.size(layers) > 0


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
        assert same == (names <= {"lottery.levels"})
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


@pytest.mark.parametrize("value", [False, True])
def test_a_field_that_came_later_had_its_default_value(value: bool) -> None:
    old = tiny.config().to_dict()
    del old["data"]["reshuffle_each_level"]
    new = tiny.config({"data.reshuffle_each_level": value})
    found = list(config.differences(old, new))
    assert found == [("data.reshuffle_each_level", False, True)] * value


# A config of the version before fields and values had their present names, and its hash
# then, with every field whose value was renamed.
OLD = {
    "name": "old",
    "data": {"order": "fresh", "normalize": "unit", "augment": "published", "dir": ""},
    "model": {"norm": "fixed", "maps": [3, 4], "features": []},
    "sparse": {
        "method": "rigl",
        "skip_inner": "no",
        "begin": "",
        "end": "75%",
        "drop_fraction": -1.0,
        "prunable": [],
    },
    "start": {"run": "", "replicate": -1},
    "pretraining": {"batch_size": 0},
    "run": {"weights": "sharded", "dispatch": "single", "checkpoint_every": ""},
}
OLD_HASH = "a0c780cc89"


def test_old_fields_and_values_are_translated() -> None:
    read = config.renames.with_new_names(OLD)
    c = config.from_json(read)
    config.validate(c)
    assert c.data.reshuffle_each_level is True and c.data.normalize == "scale"
    assert c.data.augment == "standard" and c.data.dir is None
    assert c.model.norm_affine is False and c.model.conv_channels == (3, 4)
    assert c.model.features is None and c.sparse.prunable is None
    assert c.sparse.skip_update is False and c.sparse.drop_fraction is None
    assert (c.sparse.begin_step, c.sparse.end_step) == (None, "75%")
    assert c.warm_start.run is None and c.warm_start.replicate is None
    assert c.pretraining.batch_size is None
    assert (c.run.fsdp, c.run.scan, c.run.checkpoint_every) == (True, False, None)
    assert list(config.differences(read, c)) == []
    assert config.digest(read) == config.digest(c) == OLD_HASH
    present = json.loads(c.to_json())
    assert config.renames.with_new_names(present) == present


def test_default_names_of_run_directories_are_what_they_were(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashes of all recipes, made by the version before the fields were renamed."""
    monkeypatch.syspath_prepend(root)
    path = Path(__file__).parent / "golden" / "config_hashes.json"
    golden = json.loads(path.read_text(encoding="utf-8"))
    found = {}
    for name in golden:
        file, _, preset = name.partition(":")
        module = importlib.import_module(f"configs.{file}")
        found[name] = config.digest(module.get_config(preset))
    assert found == golden


def test_every_field_is_scientific_but_those_of_the_run_and_of_files() -> None:
    c = config.default()
    operational = config.flatten(c).keys() - config.scientific(c).keys()
    assert {"data.dir", "run.devices", "run.keep_checkpoints"} <= operational
    others = {name for name in operational if not name.startswith("run.")}
    assert others == {"data.dir", "data.use_cache"}
