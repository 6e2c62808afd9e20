"""The ImageNet recipes, on generated data so small that a CPU can train on them."""

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import some
from helpers.shallow_models import SHALLOW

from jaxsparse import config, factory, masks, metrics_log, transforms
from jaxsparse.data import dataset, datasets
from jaxsparse.runner import run as run_lib


def generated(*, data_dir: Any) -> tuple[dataset.Examples, dataset.Examples, int]:
    """64 images of 32x32, of 5 classes that differ in brightness."""
    del data_dir
    labels = (np.arange(64) % 5).astype(np.int32)
    noise = np.random.default_rng(0).integers(0, 60, (64, 32, 32, 3))
    images = (noise + 40 * labels[:, None, None, None]).astype(np.uint8)
    made = dataset.Examples(images, labels)
    return made, dataset.take(made, np.arange(20)), 5


FEATURES = {"quick": (4,), "vgg_quick": (4, 8, 8, 16, 16)}


@pytest.mark.parametrize("preset", some(FEATURES, always=("quick",)))
def test_the_recipes_train_and_measure(
    preset: str, root: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """All laws of a recipe on one run, of a ResNet-50 with one block."""
    monkeypatch.syspath_prepend(root)
    monkeypatch.setitem(datasets.READERS, "imagenet2012", generated)
    monkeypatch.setitem(config.MODELS.specs, "resnet_50", SHALLOW["resnet_50"])
    module = importlib.import_module("configs.gradient_flow_imagenet")
    c = module.get_config(preset)
    c.run.devices, c.run.tensorboard = 1, False
    c.data.image_size = 0
    c.analysis.examples = 16
    c.model.features = FEATURES[preset]
    config.validate(c)
    factory.check_names(c)
    made = factory.make_experiment(c, factory.load_data(c), tmp_path)
    run_lib.run(made, tiny.desk(tmp_path))
    # The last normalization of a residual block begins at zero.
    for name, block in tiny.load(tmp_path, "init", made).params.items():
        if "block" in name:
            assert not np.any(np.asarray(block["norm3"]["scale"]))
            assert np.all(np.asarray(block["norm2"]["scale"]) == 1)
    state = tiny.load(tmp_path, "train/last", made)
    held = transforms.get_masks(state.opt_state)
    for name, layer in masks.layer_counts(held).items():
        # The first convolution is dense, all others are pruned alike.
        first = name in ("conv/kernel", "conv1/kernel")
        exact = layer.size if first else layer.size * 0.2
        assert layer.num_active in (math.floor(exact), math.ceil(exact)), name
    found = metrics_log.read(tmp_path / "metrics.jsonl")
    norms = [row for row in found if row["kind"] == "gradient_norm"]
    assert [row["step"] for row in norms if not row["step"] % 5][:2] == [0, 5]
    assert all(math.isfinite(row["norm"]) and row["norm"] > 0 for row in norms)
    changes = [row["step"] for row in found if row["kind"] == "mask_update"]
    assert changes == ([] if preset == "quick" else [6, 11])
