"""Networks of PyTorch with weights from JAX, and back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsparse import compaction, export, masks, models, tree
from jaxsparse.export import torch_names
from jaxsparse.models import layers

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (pip install torch)"
)
from helpers import torch_networks as nets  # noqa: E402
from helpers.drawn_variables import drawn  # noqa: E402

V2 = models.MobileNetV2((1, 2), (4, 8), (1, 1, 2), 4, 16, 2, 10, act=nn.relu6)
NETWORKS: dict[str, tuple[nn.Module, Callable[[], Any], tuple[int, ...]]] = {
    "lenet_300_100": (
        models.LeNet300100((6, 5)),
        lambda: nets.Flat([], [48, 6, 5, 10], []),
        (4, 4, 3),
    ),
    "lenet_5": (
        models.LeNet5((2, 3), (7, 6)),
        lambda: nets.Flat([(1, 2, 5, 2), (2, 3, 5, 0)], [12, 7, 6, 10], [1, 2]),
        (16, 16, 1),
    ),
    "lenet_5_caffe": (
        models.LeNet5Caffe((2, 3), (7,)),
        lambda: nets.Flat([(1, 2, 5, 0), (2, 3, 5, 0)], [18, 7, 10], [1, 2]),
        (20, 24, 1),
    ),
    "conv_4": (
        models.ConvNet(4, 2, (5,)),
        lambda: nets.Flat(
            [(3, 2, 3, 1), (2, 2, 3, 1), (2, 4, 3, 1), (4, 4, 3, 1)],
            [24, 5, 10],
            [2, 4],
        ),
        (8, 12, 3),
    ),
    "resnet_basic": (
        models.CifarResNet(8, width=4),
        lambda: nets.ResNet([4, 8, 16], bottleneck=False, stem=False),
        (8, 8, 3),
    ),
    "resnet_bottleneck": (
        models.ImageNetResNet((1, 1), width=4, classes=10),
        lambda: nets.ResNet([4, 8], bottleneck=True, stem=True),
        (16, 16, 3),
    ),
    "wide_resnet": (
        models.WideResNet(10, 2, 4),
        lambda: nets.WideResNet(4, 2),
        (8, 8, 3),
    ),
    "vgg": (
        models.VGG((1, 2), (4, 8), 10),
        lambda: nets.VGG([4, "M", 8, 8], norm=False),
        (8, 8, 3),
    ),
    "vgg_normalized": (
        models.VGG((1, 2), (4, 8), 10, norm=layers.BATCH_NORM, use_bias=True),
        lambda: nets.VGG([4, "M", 8, 8], norm=True),
        (8, 8, 3),
    ),
    "mobilenet_v1": (
        models.MobileNetV1((1, 1), (4, 8), (1, 1, 2), 4, 10),
        lambda: nets.MobileV1(4, [(4, 1), (8, 2)]),
        (8, 8, 3),
    ),
    "mobilenet_v2": (
        V2,
        lambda: nets.MobileV2(4, [(4, 1), (8, 2), (8, 1)], 16),
        (8, 8, 3),
    ),
    "vit": (models.ViT(8, 2, 1, 4, 10), lambda: nets.ViT(8, 2, 4, 4), (8, 8, 3)),
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_outputs_are_equal_and_the_way_back_is_exact(name: str) -> None:
    model, make, shape = NETWORKS[name]
    variables = drawn(model, shape)
    ticket = masks.ones(variables["params"])
    generator = np.random.default_rng(1)
    ticket = jax.tree.map(
        lambda m: jnp.asarray(generator.random(m.shape) < 0.5), ticket
    )
    variables["params"] = masks.apply(ticket, variables["params"])
    network = make().eval()
    state = export.torch_state_dict(model, variables, channels=shape[-1])
    network.load_state_dict(state, strict=True)
    images = generator.normal(size=(3, *shape)).astype(np.float32)
    with torch.no_grad():
        theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
    ours = apply(variables, jnp.asarray(images))
    # Both compute in float32, in other orders of the sums.
    np.testing.assert_allclose(theirs, ours, atol=3e-6 * np.abs(ours).max(), rtol=3e-5)
    back = export.from_torch(model, network.state_dict(), images)
    for given, found in ((variables, back.variables), (ticket, back.masks)):
        assert jax.tree.structure(given) == jax.tree.structure(found)
        for leaf, other in zip(
            jax.tree.leaves(given), jax.tree.leaves(found), strict=True
        ):
            assert leaf.dtype == other.dtype
            np.testing.assert_array_equal(leaf, other)


def test_mobilenet_v2_of_torchvision_has_relu6() -> None:
    _, make, shape = NETWORKS["mobilenet_v2"]
    variables, network = drawn(V2, shape), make().eval()
    network.load_state_dict(export.torch_state_dict(V2, variables), strict=True)
    # So large that activations are beyond 6.
    images = 50 * np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    with torch.no_grad():
        theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    ours = V2.apply(variables, jnp.asarray(images), train=False)
    np.testing.assert_allclose(theirs, ours, atol=3e-6 * np.abs(ours).max(), rtol=3e-5)
    other = V2.clone(act=nn.relu).apply(variables, jnp.asarray(images), train=False)
    assert not np.allclose(theirs, other, rtol=0.01)


def test_a_compacted_network_keeps_the_order_of_flattened_channels() -> None:
    model, _, shape = NETWORKS["lenet_5"]
    variables = drawn(model, shape)
    ticket = masks.ones(variables["params"])
    # Nothing reads the first channel of conv2, and the second unit of dense1.
    flat = ticket["dense1"]["kernel"].reshape(4, 3, 7).at[:, 0].set(False)
    ticket["dense1"]["kernel"] = flat.reshape(12, 7)
    ticket["dense2"]["kernel"] = ticket["dense2"]["kernel"].at[1].set(False)
    variables["params"] = masks.apply(ticket, variables["params"])
    images = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    small = compaction.compact_linen(model, variables, ticket, images, train=False)
    network = nets.Flat([(1, 2, 5, 2), (2, 2, 5, 0)], [8, 6, 6, 10], [1, 2]).eval()
    state = export.torch_state_dict(small.module, small.params)
    network.load_state_dict(state, strict=True)
    with torch.no_grad():
        theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    ours = model.apply(variables, jnp.asarray(images), train=False)
    np.testing.assert_allclose(theirs, ours, atol=3e-6 * np.abs(ours).max(), rtol=3e-5)


def test_masks_are_those_of_torch_prune() -> None:
    from torch.nn.utils import prune

    model, make, shape = NETWORKS["conv_4"]
    variables = drawn(model, shape)
    network = make().eval()
    network.load_state_dict(export.torch_state_dict(model, variables), strict=True)
    for name, module in network.named_modules():
        if name.startswith(("conv", "fc")):
            prune.l1_unstructured(module, "weight", amount=0.5)
            prune.l1_unstructured(module, "bias", amount=0.5)
    images = jnp.ones((2, *shape))
    found = export.from_torch(model, network.state_dict(), images)
    # Weights outside the masks are not zero in `weight_orig`.
    kernels = tree.named_leaves(found.masks)
    biases = {
        name: leaf != 0
        for name, leaf in tree.named_leaves(found.variables["params"]).items()
        if name not in kernels
    }
    for name, leaf in (kernels | biases).items():
        kept = np.asarray(tree.named_leaves(variables["params"])[name])
        half = leaf.size - round(leaf.size / 2)
        assert int(leaf.sum()) == half, name
        np.testing.assert_array_equal(
            np.sort(abs(kept[leaf])), np.sort(abs(kept), None)[-half:]
        )
    again = export.torch_state_dict(model, variables, found.masks)
    theirs = network.state_dict()
    weights = {key for key in theirs if "weight" in key}
    assert {key for key in again if "weight" in key} == weights
    assert all(torch.equal(again[key], theirs[key]) for key in weights)
    with torch.no_grad():
        theirs = network(torch.ones(2, shape[2], *shape[:2])).numpy()
    ours = model.apply(found.variables, images, train=False)
    np.testing.assert_allclose(theirs, ours, atol=3e-6, rtol=3e-5)


def test_the_network_of_the_benchmark_runs_on_a_state_dict() -> None:
    """ResNet-8 of experiments/benchmarks, which was written for other tests.

    Its layers have the names of the leaves, so each is loaded by its name in PyTorch.
    """
    from experiments.benchmarks import torch_resnet

    model, _, shape = NETWORKS["resnet_basic"]
    variables = drawn(model, shape)
    zeros = jax.tree.map(jnp.zeros_like, variables["params"])
    network = torch_resnet.Network(zeros, masks.ones(zeros)).eval()
    state = export.torch_state_dict(model, variables)
    rename = torch_names.renamer(model)
    paths = {name.rpartition("/")[0] for name in tree.names(zeros)}
    assert len(paths) == len(network.layers) == 19
    for path in paths:
        prefix = f"{rename(path)}."
        own = {
            key.removeprefix(prefix): state.pop(key)
            for key in list(state)
            if key.startswith(prefix)
        }
        network.layers[path.replace("/", "_")].load_state_dict(own, strict=True)
    assert not state
    images = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    with torch.no_grad():
        theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    ours = model.apply(variables, jnp.asarray(images), train=False)
    np.testing.assert_allclose(theirs, ours, atol=3e-6 * np.abs(ours).max(), rtol=3e-5)


def test_masks_of_any_part_of_a_joint_tensor_are_written() -> None:
    model, _, shape = NETWORKS["vit"]
    variables = drawn(model, shape)
    generator = np.random.default_rng(1)

    def draw(name: str, leaf: Any) -> jax.Array | None:
        is_chosen = name.endswith(("key/kernel", "value/kernel"))
        return jnp.asarray(generator.random(leaf.shape) < 0.5) if is_chosen else None

    ticket = tree.map_with_names(draw, variables["params"])
    arrays = export.torch_arrays(model, variables, ticket)
    mask = arrays["blocks.0.attn.qkv.weight_mask"]
    assert "blocks.0.attn.qkv.weight" not in arrays
    assert mask[:8].all()  # query
    found = tree.named_leaves(ticket)
    for i, part in enumerate(("key", "value"), start=1):
        kept = found[f"block1/attention/{part}/kernel"]
        np.testing.assert_array_equal(mask[8 * i : 8 * (i + 1)].T, kept)


def test_bfloat16_survives_both_ways() -> None:
    model, _, shape = NETWORKS["vit"]
    variables = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16), drawn(model, shape)
    )
    state = export.torch_state_dict(model, variables)
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    parallel = {f"module.{key}": tensor for key, tensor in state.items()}
    found = export.from_torch(model, parallel, images).variables
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(found), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_wrong_networks_and_names_are_refused() -> None:
    model, _, shape = NETWORKS["resnet_basic"]
    variables, images = drawn(model, shape), jnp.ones((1, *shape))
    arrays = export.torch_arrays(model, variables)
    arrays["extra"] = arrays.pop("fc.weight")
    with pytest.raises(ValueError, match=r"missing \['fc.weight'\].*\['extra'\]"):
        export.from_torch(model, arrays, images)
    wide = models.CifarResNet(8, width=8)
    with pytest.raises(ValueError, match=r"state_dict: bn1.*\(8,\), got \(4,\)"):
        export.from_torch(wide, export.torch_arrays(model, variables), images)
    with pytest.raises(ValueError, match="network of jaxsparse.models.*got Dense"):
        export.torch_arrays(nn.Dense(2), {"params": {"kernel": jnp.ones((2, 2))}})
    flat = models.LeNet300100((3,))
    with pytest.raises(ValueError, match="channels: expected.*48 inputs, got None"):
        export.torch_arrays(flat, drawn(flat, (4, 4, 3)))
    ghost = {"params": {**variables["params"], "skip2": {"kernel": jnp.ones((1, 1))}}}
    with pytest.raises(ValueError, match="skip2/kernel.*has no name in PyTorch"):
        export.torch_arrays(model, ghost)


def test_wrong_state_dicts_and_shapes_are_refused() -> None:
    model, _, shape = NETWORKS["conv_4"]
    arrays, images = (
        export.torch_arrays(model, drawn(model, shape)),
        jnp.ones((1, *shape)),
    )
    with pytest.raises(TypeError, match="state_dict: expected a Mapping, got 'net.pt'"):
        export.from_torch(model, "net.pt", images)  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match=r"images: expected images .*got \(8, 12, 3\)"):
        export.from_torch(model, arrays, images[0])
    with pytest.raises(ValueError, match="images: expected images .*got tuple"):
        export.from_torch(model, arrays, images.shape)
    # 8 x 20 pixels make 2 x 5 x 4 features, where the state dict has 2 x 3 x 4.
    wide = jnp.ones((1, 8, 20, 3))
    with pytest.raises(ValueError, match=r"fc1.*kernel, \(5, 40\), got \(5, 24\)"):
        export.from_torch(model, arrays, wide)
    uneven = arrays | {"fc1.weight": np.ones((5, 25))}
    with pytest.raises(ValueError, match=r"fc1.*kernel, \(5, 24\), got \(5, 25\)"):
        export.from_torch(model, uneven, images)
    weight = arrays["fc1.weight"]
    pruned = {key: array for key, array in arrays.items() if key != "fc1.weight"}
    pruned |= {"fc1.weight_orig": weight, "fc1.weight_mask": np.ones((24, 5))}
    with pytest.raises(ValueError, match=r"fc1.weight_mask.*\(5, 24\), got \(24, 5\)"):
        export.from_torch(model, pruned, images)
    vit, _, shape = NETWORKS["vit"]
    joint = export.torch_arrays(vit, drawn(vit, shape))
    joint["blocks.0.attn.qkv.weight"] = np.ones((25, 8))
    with pytest.raises(ValueError, match=r"qkv.*\(24, 8\), got \(25, 8\)"):
        export.from_torch(vit, joint, jnp.ones((1, *shape)))
