"""Names and shapes of state dicts are those of other code; PyTorch is not needed.

The files in `state_dicts` have the names and shapes of the tensors of other networks,
one tensor a line, as their own code gives them. Their first line names this code.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.drawn_variables import drawn

from jaxsparse import export, models, tree
from jaxsparse.export import torch_layout
from jaxsparse.models import layers

FOLDER = Path(__file__).parent / "state_dicts"
COUNTER = "num_batches_tracked"  # of BatchNorm, which JAX does not count
SMALL = (1, 1, 2, 2, 2, 2)  # strides for images of 32x32 pixels
# The network and the side of its images, by file.
NETWORKS: dict[str, tuple[nn.Module, int]] = {
    "torchvision_resnet18": (
        models.ImageNetResNet((2, 2, 2, 2), block="basic"),
        224,
    ),
    "torchvision_resnet50": (models.ImageNetResNet(), 224),
    "torchvision_mobilenet_v2": (models.MobileNetV2(act=nn.relu6), 224),
    "timm_vit_tiny_patch16_224": (models.ViT(192, 3), 224),
    "pytorch_cifar_vgg16": (
        models.VGG(classes=10, norm=layers.BATCH_NORM, use_bias=True),
        32,
    ),
    "pytorch_cifar_mobilenet": (models.MobileNetV1(strides=SMALL, classes=10), 32),
    "xternalz_wide_resnet_28_10": (models.WideResNet(28, 10), 32),
}


def read(name: str) -> dict[str, tuple[int, ...]]:
    _, *lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines]
    return {key: tuple(map(int, sizes)) for key, *sizes in rows}


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_those_of_other_code(name: str) -> None:
    model, side = NETWORKS[name]
    theirs = read(name)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shapes = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), images
    )
    named = tree.named_leaves(shapes)
    ours = {
        entry.key: torch_layout.torch_shape(entry, named)
        for entry in torch_layout.entries(model, shapes)
    }
    counters = {key: () for key in theirs if key.endswith(COUNTER)}
    owners = {key.rpartition(".")[0] for key in ours if key.endswith("running_var")}
    assert set(counters) == {f"{owner}.{COUNTER}" for owner in owners}
    assert ours | counters == theirs


def test_every_list_is_compared() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(NETWORKS)


def test_counters_of_batches_are_in_the_arrays() -> None:
    model = models.CifarResNet(8, width=4)
    arrays = export.torch_arrays(model, drawn(model, (8, 8, 3)))
    counters = {key for key in arrays if key.endswith(COUNTER)}
    norms = {key for key in arrays if key.endswith("running_mean")}
    assert len(norms) == 9  # one after each of 7 convolutions, and in 2 shortcuts
    assert counters == {key.replace("running_mean", COUNTER) for key in norms}


def test_tensors_of_any_kind_may_be_pruned() -> None:
    """Masks of torch.nn.utils.prune, applied to a bias and to a normalization."""
    model, images = models.CifarResNet(8, width=4), jnp.ones((1, 8, 8, 3))
    arrays = export.torch_arrays(model, drawn(model, (8, 8, 3)))
    scale, bias = np.float32([1, 2, 3, 4]), np.float32([5, np.nan, 7, -0.0])
    del arrays["bn1.weight"], arrays["layer1.0.bn2.bias"]
    arrays["bn1.weight_orig"] = scale
    arrays["bn1.weight_mask"] = np.float32([1, 0, 0, 1])
    arrays["layer1.0.bn2.bias_orig"] = bias
    arrays["layer1.0.bn2.bias_mask"] = np.float32([0, 0, 1, 1])
    found = export.from_torch(model, arrays, images)
    params = found.variables["params"]
    np.testing.assert_array_equal(params["norm"]["scale"], [1, 0, 0, 4])
    np.testing.assert_array_equal(
        params["stage1_block0"]["norm2"]["bias"], [0, 0, 7, 0]
    )
    assert found.masks["norm"]["scale"] is None  # which is not prunable
    named: dict[str, Any] = tree.named_leaves(found.masks)
    assert all(mask.all() for mask in named.values())
