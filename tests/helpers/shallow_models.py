"""The networks of the ImageNet recipes with one block, to compile quickly."""

import functools

from jaxsparse import config, models

SHALLOW = {
    "resnet_50": config.ModelSpec(
        name="resnet_50",
        function=functools.partial(models.ResNet, (1,)),
        takes=("features", "norm", "conv", "skip", "dtype"),
    ),
    "vit_s_16": config.ModelSpec(
        name="vit_s_16",
        function=lambda features, **fields: models.ViT(*features, depth=1, **fields),
        takes=("features", "dtype"),
    ),
}
