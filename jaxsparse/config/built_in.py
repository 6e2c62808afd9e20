"""Registers the scores, methods, networks and datasets of the package.

Functions are registered by name, as "module:function", and imported on use, so that
this module does not import JAX.
"""

from collections.abc import Mapping
from typing import Any

from jaxsparse.config.registering import (
    register_dataset,
    register_method,
    register_model,
    register_score,
)

_SCORES = "jaxsparse.factory.scores:"
_TRANSFORMS = "jaxsparse.transforms:"
_MODELS = "jaxsparse.models:"

register_score(
    "random",
    f"{_SCORES}random",
    needs=("key",),
    label="random",
    distribution="erk",
    varies=False,
)
register_score("magnitude", "jaxsparse.scores:magnitude", label="magnitude at init")
register_score("snip", f"{_SCORES}snip", needs=("loss", "batches"), label="SNIP")
register_score("grasp", f"{_SCORES}grasp", needs=("loss", "batches"), label="GraSP")
register_score(
    "grasp_absolute",
    f"{_SCORES}grasp_absolute",
    needs=("loss", "batches"),
    label="GraSP |.|",
)
register_score(
    "synflow", f"{_SCORES}synflow", needs=("apply", "input_shape"), label="SynFlow"
)

# Fields of the section "sparse" that several methods read.
_WHERE = ("sparsity", "distribution", "prunable", "dense")
_STORED = (*_WHERE, "pack_masks")  # by methods that store sparse weights
_AROUND = ("layer_sparsity", "first_layer_dense", "last_layer_dense")
_WHEN = ("begin_step", "end_step", "update_every")
_DROP = ("drop_fraction", "drop_schedule", "allow_regrow", "zero_regrown")
_GROWTH = ("grow_batch_size", "grow_batch_start")
_GRADUAL = ("schedule", "initial_sparsity", "min_layer_density", "structure")
_CHOSEN = (
    "pai_score",
    "score_iterations",
    "regrow",
    "score_batches",
    "score_batch_size",
)
_CHOSEN += ("ablation", "prune_disconnected", "min_layer_density")
# Records of options that the arguments of several methods are passed in.
_LAYERS = {"layers": f"{_TRANSFORMS}LayerOptions"}
_RAMP = _LAYERS | {"ramp": f"{_TRANSFORMS}SparsityRamp"}
_DYNAMIC: dict[str, Any] = {
    "receives": ("key", "axes"),
    "keeps_counts": True,
    "first_update": "one_interval",
}

register_method(
    "none", f"{_TRANSFORMS}fixed", label="dense", updates_masks=False, distribution=""
)
register_method(
    "static",
    f"{_TRANSFORMS}fixed",
    reads=(*_STORED, *_AROUND, *_CHOSEN, "structure"),
    updates_masks=False,
    keeps_counts=True,
    chooses=(
        *("pai_score", "distribution", "layer_sparsity", "structure"),
        *("score_iterations", "regrow"),
        *("ablation", "prune_disconnected", "dense"),
    ),
)
register_method(
    "gmp",
    f"{_TRANSFORMS}gradual_magnitude",
    arguments=(*_STORED, *_WHEN, *_GRADUAL),
    records=_RAMP,
    reads=_AROUND,
    receives=("axes",),
    requires=("end_step", "begin_step"),
    label="GMP",
    distribution="uniform",
    first_update="start",
    include_end=True,
    finishes_at="end_step",
)
register_method(
    "one_shot",
    f"{_TRANSFORMS}one_shot_magnitude",
    arguments={field: field for field in (*_STORED, "structure", "min_layer_density")}
    | {"begin_step": "step"},
    records=_LAYERS,
    reads=_AROUND,
    receives=("axes",),
    requires=("begin_step",),
    label="one-shot magnitude",
    first_update="start",
    include_end=True,
    finishes_at="begin_step",
)
register_method(
    "set",
    f"{_TRANSFORMS}sparse_evolution",
    arguments=(*_STORED, *_WHEN, *_DROP, "drop_by_sign", "skip_update"),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}SparseEvolutionOptions"},
    reads=_AROUND,
    label="SET",
    distribution="er",
    **_DYNAMIC,
)
register_method(
    "rigl",
    f"{_TRANSFORMS}rigl",
    arguments=(*_STORED, *_WHEN, *_DROP, "structure", "grow", "skip_update"),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}RigLOptions"},
    reads=(*_AROUND, *_GROWTH),
    label="RigL",
    distribution="erk",
    **_DYNAMIC,
)
register_method(
    "mest",
    f"{_TRANSFORMS}mest",
    arguments=(*_STORED, *_WHEN, *_DROP, "structure", "soft_bound"),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}MESTOptions"},
    reads=_AROUND,
    label="MEST",
    distribution="uniform",
    include_end="soft_bound",
    **_DYNAMIC,
)
register_method(
    "snfs",
    f"{_TRANSFORMS}snfs",
    arguments=(*_STORED, *_WHEN, *_DROP, "skip_update"),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}SNFSOptions"},
    reads=_AROUND,
    label="SNFS",
    distribution="uniform",
    **_DYNAMIC,
)
register_method(
    "granet",
    f"{_TRANSFORMS}granet",
    arguments=(
        *(*_STORED, *_WHEN, "drop_fraction", "drop_schedule", "zero_regrown"),
        *("schedule", "initial_sparsity", "min_layer_density"),
    ),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}GraNetOptions"},
    reads=(*_AROUND, *_GROWTH),
    receives=("key", "axes"),
    requires=("end_step",),
    label="GraNet",
    distribution="erk",
    first_update="start",
    include_end=True,
    finishes_at="end_step",
)
register_method(
    "ac_dc",
    f"{_TRANSFORMS}ac_dc",
    arguments=(*_STORED, *_WHEN, "structure", "min_layer_density"),
    records=_LAYERS,
    reads=_AROUND,
    receives=("axes",),
    requires=("end_step", "begin_step"),
    label="AC/DC",
    first_update="start",
    include_end=True,
    finishes_at="end_step",
)
register_method(
    "ste",
    f"{_TRANSFORMS}straight_through",
    arguments=(*_WHERE, *_WHEN, *_GRADUAL),
    records=_RAMP,
    reads=_AROUND,
    receives=("axes",),
    label="straight-through",
    distribution="uniform",
    finishes_at="end_step",
)
register_method(
    "top_kast",
    f"{_TRANSFORMS}top_kast",
    arguments={
        field: field
        for field in (*_WHERE, "update_every", "backward_sparsity", "min_layer_density")
    }
    | {"outside_regularization": "regularization"},
    records=_LAYERS,
    reads=_AROUND,
    receives=("axes",),
    label="Top-KAST",
    distribution="uniform",
)
register_method(
    "sr_ste",
    "jaxsparse.factory.methods:sr_ste",
    arguments={field: field for field in ("prunable", "dense", "structure", "sparsity")}
    | {"outside_regularization": "decay"},
    records=_LAYERS,
    receives=("axes",),
    label="SR-STE",
)


def _network(
    name: str,
    function: str,
    takes: tuple[str, ...],
    *,
    rectifies: bool = True,
    blocks: int | None = None,
    patch: int = 1,
    **arguments: Any,
) -> None:
    register_model(
        name,
        function if ":" in function else f"{_MODELS}{function}",
        takes=(*takes, "dtype"),
        arguments=arguments,
        rectifies=rectifies,
        blocks=blocks,
        patch=patch,
    )


_LENET_5 = ("features", "conv_channels", "padding", "conv", "pool", "skip")
_VGG = ("features", "conv", "pool", "skip")
_CIFAR_RESNET = ("width", "norm", "conv", "skip")
_STAGES = ("features", "norm", "conv", "skip")
_BLOCKS: Mapping[int, tuple[tuple[int, ...], str]] = {
    18: ((2, 2, 2, 2), "basic"),
    34: ((3, 4, 6, 3), "basic"),
    50: ((3, 4, 6, 3), "bottleneck"),
    101: ((3, 4, 23, 3), "bottleneck"),
    152: ((3, 8, 36, 3), "bottleneck"),
}


def _resnet(name: str, depth: int, stem: str) -> None:
    per_stage, block = _BLOCKS[depth]
    more: dict[str, Any] = {"block": block, "stem": stem}
    # The spec's `blocks` is the number of stages; the network's is the number of blocks
    # in each stage. `_network` cannot pass both under one name.
    register_model(
        name,
        f"{_MODELS}ResNet",
        takes=(*_STAGES, "dtype"),
        arguments={"blocks": per_stage, **more},
        rectifies=True,
        blocks=len(per_stage),
    )


def _vgg_bn(name: str, per_stage: tuple[int, ...]) -> None:
    register_model(
        name,
        f"{_MODELS}VGG",
        takes=("features", "norm", "conv", "pool", "skip", "dtype"),
        arguments={"blocks": per_stage, "use_bias": True},
        rectifies=True,
        blocks=len(per_stage),
    )


def _mobilenet(name: str, function: str, strides: tuple[int, ...]) -> None:
    """Registers a MobileNet.

    Args:
      name: name in configs.
      function: name of the module class in `jaxsparse.models`.
      strides: strides for images of 32x32 or 64x64 pixels; ImageNet needs others.
    """
    _network(name, function, _STAGES, blocks=len(strides) - 1, strides=strides)


_network("lenet_300_100", "LeNet300100", ("features",))
_network("lenet_5", "LeNet5", _LENET_5)
_network("lenet_5_caffe", "LeNet5Caffe", _LENET_5)
for _depth in (2, 4, 6):
    _network(f"conv_{_depth}", "ConvNet", ("features", "conv", "pool"), depth=_depth)
for _depth in (8, 14, 20, 32, 44, 56, 110):
    _network(
        f"resnet_{_depth}", "CifarResNet", _CIFAR_RESNET, depth=_depth, block="basic"
    )
_network("resnet_104", "CifarResNet", _CIFAR_RESNET, depth=104, block="bottleneck")
for _depth in _BLOCKS:
    _resnet(f"cifar_resnet_{_depth}", _depth, "cifar")
for _depth in (18, 50):
    _resnet(f"resnet_{_depth}", _depth, "imagenet")
_network("vgg_16", "VGG", _VGG, blocks=5)
_vgg_bn("vgg_11_bn", (1, 1, 2, 2, 2))
_vgg_bn("vgg_13_bn", (2, 2, 2, 2, 2))
_vgg_bn("vgg_16_bn", (2, 2, 3, 3, 3))
_vgg_bn("vgg_19_bn", (2, 2, 4, 4, 4))
_mobilenet("mobilenet_v1", "MobileNetV1", (1, 1, 2, 2, 2, 2))
_mobilenet("mobilenet_v2", "MobileNetV2", (1, 1, 1, 2, 2, 1, 2, 1))
for _name, _width, _heads in (("ti", 192, 3), ("s", 384, 6), ("b", 768, 12)):
    _network(
        f"vit_{_name}_16",
        "jaxsparse.factory.models:vit",
        ("features",),
        rectifies=False,
        blocks=1,
        patch=16,
        width=_width,
        heads=_heads,
    )
for _depth, _widen in ((16, 8), (22, 2), (28, 10)):
    _network(
        f"wide_resnet_{_depth}_{_widen}",
        "WideResNet",
        _CIFAR_RESNET,
        depth=_depth,
        widen=_widen,
    )

_DATASETS = "jaxsparse.data.datasets:"
register_dataset("digits", "jaxsparse.data.digits:read")
register_dataset("cinic10", f"{_DATASETS}read_cinic10")
register_dataset("tiny_imagenet", f"{_DATASETS}read_tiny_imagenet")
