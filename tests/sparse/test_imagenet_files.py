"""The recipes for ImageNet from files to tickets, so small that a CPU can do it."""

import importlib
import math
from pathlib import Path
from typing import Any

import jax
import pytest
from helpers import tiny
from helpers.campaigns import some
from helpers.images import write_tree
from helpers.shallow_models import SHALLOW

from jaxsparse import config, distributions, factory, masks, metrics_log, transforms
from jaxsparse.data.image_files import StoredImages
from jaxsparse.runner import run as run_lib
from jaxsparse.training import input_pipeline

STEPS = 8
SMALL = {
    "model.dtype": "float32",
    "data.batch_size": 8,
    "data.test_examples": 0,
    "training.duration": f"{STEPS}step",
    "evaluation.every": f"{STEPS}step",
    "sparse.update_every": "2step",
    "sparse.end_step": "6step",
    "run.devices": 1,
    "run.tensorboard": False,
    "run.checkpoint_every": None,
}
RESNET = {"data.image_size": 16, "model.features": (4,)}
RECIPES = {
    "rigl_imagenet:quick": RESNET | {"schedule.milestones": ("6step",)},
    "gmp_imagenet:90_quick": RESNET
    | {"schedule.milestones": ("6step",), "sparse.begin_step": "2step"},
    "rigl_vit_imagenet:quick": {"data.image_size": 16, "model.features": (12,)},
}


RESNET_AND_VIT = ("rigl_imagenet:quick", "rigl_vit_imagenet:quick")


@pytest.mark.parametrize("name", some(RECIPES, always=RESNET_AND_VIT))
def test_a_recipe_trains_from_files_to_exact_counts(
    name: str, root: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.syspath_prepend(root)
    for model, family in SHALLOW.items():
        monkeypatch.setitem(config.MODELS.specs, model, family)
    write_tree(tmp_path, "imagenet2012")  # 24 images to train on, of 3 classes
    recipe, _, preset = name.partition(":")
    c = importlib.import_module(f"configs.{recipe}").get_config(preset)
    c.update_from_flattened_dict(SMALL | RECIPES[name])
    c.data.dir = str(tmp_path)
    config.validate(c)
    factory.check_names(c)
    data = factory.load_data(c)
    assert isinstance(data.train.images, StoredImages)
    made = factory.make_experiment(c, data, tmp_path)
    assert isinstance(made.trainer.feed, input_pipeline.HostFeed)
    run_lib.run(made, tiny.desk(tmp_path))
    state = tiny.load(tmp_path, "train/last", made)
    held = transforms.get_masks(state.opt_state)
    one = jax.tree.map(lambda leaf: leaf[0], held)
    wanted = distributions.NAMES[c.sparse.distribution](one, c.sparse.sparsity)
    layers = masks.layer_counts(one)
    counts = jax.tree.leaves(wanted)
    assert [layer.num_active for layer in layers.values()] == counts
    total = sum(layer.size for layer in layers.values())
    if c.sparse.distribution == "erk":
        assert sum(counts) == distributions.count_kept(total, c.sparse.sparsity)
    found = metrics_log.read(tmp_path / "metrics.jsonl")
    losses = [row for row in found if row["kind"] in ("train", "eval")]
    assert {row["step"] for row in losses} == {0, STEPS}
    assert all(
        math.isfinite(value)
        for row in losses
        for field, value in row.items()
        if field.endswith("loss") and value is not None
    )
