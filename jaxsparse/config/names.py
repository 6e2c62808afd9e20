"""Names that come with the package, so that they are checked before JAX is imported.

The tables in `build`, and what users register there, are complete only once `build` has
been imported, which takes seconds. A test compares the two.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxsparse.config import naming

BUILT_IN: dict[str, tuple[str, ...]] = {
    "model.name": (
        *("lenet_300_100", "lenet_5", "lenet_5_caffe", "conv_2", "conv_4", "conv_6"),
        *("resnet_20", "resnet_32", "resnet_44", "resnet_56", "resnet_110"),
        *("resnet_104", "cifar_resnet_18", "cifar_resnet_34", "cifar_resnet_50"),
        *("cifar_resnet_101", "cifar_resnet_152", "resnet_18", "resnet_50", "vgg_16"),
        *("vgg_11_bn", "vgg_13_bn", "vgg_16_bn", "vgg_19_bn", "mobilenet_v1"),
        *("mobilenet_v2", "vit_ti_16", "vit_s_16", "vit_b_16", "wide_resnet_16_8"),
        *("wide_resnet_22_2", "wide_resnet_28_10"),
    ),
    "sparse.method": (
        *("none", "static", "gmp", "one_shot", "set", "rigl", "mest", "snfs"),
        *("granet", "ac_dc", "ste", "top_kast", "sr_ste"),
    ),
    "sparse.score": (
        *("random", "magnitude", "snip", "grasp", "grasp_absolute", "synflow"),
    ),
    "optimizer.name": ("sgd", "adam", "adamw"),
    "init.kernel": (
        *("kaiming_normal", "kaiming_uniform", "glorot_normal", "glorot_uniform"),
        *("lecun_normal", "lecun_uniform", "orthogonal", "torch_default"),
    ),
    "init.bias": ("zeros", "torch_default"),
    "init.norm_scale": ("ones", "uniform"),
    "init.sparse": ("", "fan_in", "fan_out", "fan_average", "layer", "neuron"),
    "sparse.ablation": ("", "shuffled_layers", "inverted", "reinitialized"),
    "sparse.distribution": ("", "global", "uniform", "balanced", "er", "erk"),
    "lottery.controls": (
        *("reinitialized", "shuffled_layers", "shuffled_globally", "random_mask"),
        "dense_continued",
    ),
    "ghosts.activation": ("", "swish", "mish", "p_swish", "gelu"),
}


def check_built_in(config: ConfigDict) -> None:
    """Refuses names that nothing in the package has; names the nearest.

    Only for configs whose file registers nothing of its own.

    Args:
      config: may still hold other mistakes.

    Raises:
      ValueError: naming the field.
    """
    others = {field: list(names) for field, names in BUILT_IN.items()}
    for field, known in others.items():
        value: Any = config
        for part in field.split("."):
            value = value.get(part) if isinstance(value, ConfigDict) else None
        values = value if isinstance(value, tuple) else (value,)
        for name in values:
            if isinstance(name, str):
                naming.check_known(field, name, known, others=others)
