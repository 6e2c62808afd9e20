"""Recipes have the settings of the papers, as far as these are known."""

import importlib
from typing import Any

import pytest

# Maene et al. (2021), table 1 and section 3.2.
STABLE_IMP = {
    "replicates": 3,
    "lottery.levels": 25,
    "lottery.fraction": 0.2,
    "lottery.scope": "global",
    "lottery.rewind": "0step",
    "lottery.controls": ("reinitialized",),
    "instability.copies": 2,
    "instability.levels": (0, 5, 10, 15),
    "instability.compare_levels": True,
}
LENET = STABLE_IMP | {
    "data.name": "mnist",
    "model.name": "lenet_300_100",
    "data.batch_size": 60,
    "optimizer.name": "adam",
    "schedule.name": "constant",
    "schedule.learning_rate": 1.2e-3,
    "optimizer.weight_decay": 0.0,
    "init.kernel": "kaiming_uniform",
    "training.duration": "25ep",
}
RESNET = STABLE_IMP | {
    "data.name": "cifar10",
    "model.name": "resnet_20",
    "model.norm_affine": False,
    "data.batch_size": 1024,
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-5,
    "schedule.name": "step",
    "schedule.learning_rate": 0.1,
    "schedule.milestones": ("56ep", "71ep"),
    "init.kernel": "kaiming_normal",
    "training.duration": "85ep",
}
CONV_4 = RESNET | {
    "model.name": "conv_4",
    "model.norm_affine": True,
    "data.batch_size": 128,
    "schedule.name": "cosine",
    "schedule.learning_rate": 0.01,
    "schedule.milestones": (),
    "training.duration": "75ep",
}
# Jaiswal et al. (2022), defaults of the released code.
TOST = {
    "data.batch_size": 128,
    "data.validation": 5000,
    "data.augment": "standard",
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.weight_decay": 2e-4,
    "optimizer.weight_decay_mask": "all",
    "schedule.name": "step",
    "schedule.learning_rate": 0.1,
    "schedule.milestones": ("90ep", "135ep"),
    "schedule.gamma": 0.1,
    "training.duration": "182ep",
    "training.label_smoothing": 0.1,
    "training.smoothing_target": "others",
    "training.smoothing_schedule": "constant",
    "gradinit.steps": 180,
    "gradinit.learning_rate": 1e-2,
    "gradinit.step_size": 0.1,
    "gradinit.max_grad_norm": 1.0,
    "gradinit.min_factor": 0.01,
    "gradinit.clip": 1.0,
    "gradinit.batch_size": 128,
    "tost.activation": "swish",
    "tost.skips": "convolution",
    "tost.end": "90ep",
}
TOST_CIFAR = TOST | {
    "data.mean": (0.4914, 0.4822, 0.4465),
    "data.std": (0.2023, 0.1994, 0.2010),
}
# Frankle et al. (2020), instability analysis.
STABILITY = {
    "replicates": 3,
    "instability.copies": 3,
    "instability.points": 30,
    "instability.batch_stats": "interpolated",
}
# Training of ResNet-20 in open_lth, and Paul et al. (2022), section 5.2.
OPEN_LTH = {
    "data.name": "cifar10",
    "data.batch_size": 128,
    "model.name": "resnet_20",
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "schedule.name": "step",
    "schedule.learning_rate": 0.1,
    "schedule.milestones": ("80ep", "120ep"),
    "training.duration": "160ep",
    "lottery.fraction": 0.2,
}
DIET = OPEN_LTH | {
    "replicates": 4,
    "lottery.levels": 20,
    "lottery.rewind": "200step",
    "lottery.controls": (),
    "instability.copies": 2,
    "instability.start_steps": ("200step",),
}
# Evci et al. (2020), section 4.1, and flags of the released code.
IMAGENET = {
    "data.name": "imagenet2012",
    "data.image_size": 224,
    "data.flip": True,
    "data.drop_last": True,
    "model.name": "resnet_50",
    "init.kernel": "lecun_normal",
    "init.zero_init": ("*/norm3/scale",),
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 1e-4,
    "optimizer.weight_decay_mask": "kernels",
    "schedule.name": "step",
    "schedule.warmup": "5ep",
    "schedule.gamma": 0.1,
    "training.label_smoothing": 0.1,
}
RIGL_IMAGENET = IMAGENET | {
    "data.batch_size": 4096,
    "schedule.learning_rate": 1.6,
    "schedule.milestones": ("30ep", "70ep", "90ep"),
    "training.duration": "32000step",
    "sparse.method": "rigl",
    "sparse.distribution": "erk",
    "sparse.first_layer_dense": False,
    "sparse.drop_fraction": 0.3,
    "sparse.drop_schedule": "cosine",
    "sparse.update_every": "100step",
    "sparse.end_step": "25000step",
}
# Gale et al. (2019), names of the released checkpoints and flags of the code.
GMP_IMAGENET = IMAGENET | {
    "data.batch_size": 1024,
    "schedule.learning_rate": 0.4,
    "schedule.milestones": ("30ep", "60ep", "80ep"),
    "training.duration": "128000step",
    "sparse.method": "gmp",
    "sparse.distribution": "uniform",
    "sparse.first_layer_dense": False,
    "sparse.last_layer_dense": False,
    "sparse.schedule": "cubic",
    "sparse.begin_step": "40000step",
    "sparse.update_every": "2000step",
}
RECIPES: dict[str, dict[str, Any]] = {
    "rigl_imagenet": RIGL_IMAGENET | {"sparse.sparsity": 0.8},
    "rigl_imagenet:90": RIGL_IMAGENET | {"sparse.sparsity": 0.9},
    "gmp_imagenet": GMP_IMAGENET
    | {"sparse.sparsity": 0.8, "sparse.end_step": "100000step"},
    "gmp_imagenet:90": GMP_IMAGENET
    | {"sparse.sparsity": 0.9, "sparse.end_step": "76000step"},
    # Chen et al. (2021), README and flags of the released code.
    "rigl_vit_imagenet": {
        "data.batch_size": 512,
        "data.image_size": 224,
        "data.flip": True,
        "model.name": "vit_s_16",
        "optimizer.name": "adamw",
        "optimizer.b1": 0.9,
        "optimizer.b2": 0.999,
        "optimizer.eps": 1e-8,
        "optimizer.weight_decay": 0.05,
        "optimizer.weight_decay_mask": "kernels",
        "schedule.name": "cosine",
        "schedule.learning_rate": 5e-4,
        "schedule.warmup": "5ep",
        "training.duration": "600ep",
        "training.label_smoothing": 0.1,
        "sparse.method": "rigl",
        "sparse.sparsity": 0.6,
        "sparse.distribution": "erk",
        "sparse.grow": "gradient",
        "sparse.drop_fraction": 0.5,
        "sparse.drop_schedule": "cosine",
        "sparse.update_every": "15000step",
        "sparse.end_step": "80%",
    },
    "stability_mnist": STABILITY
    | {
        "data.name": "mnist",
        "data.batch_size": 60,
        "optimizer.name": "adam",
        "schedule.learning_rate": 1.2e-3,
        "training.duration": "24000step",
    },
    "stability_cifar": STABILITY | OPEN_LTH,
    "tost_cifar": TOST_CIFAR | {"data.name": "cifar10", "model.name": "resnet_32"},
    "tost_cifar:baseline": {
        "tost.activation": None,
        "tost.skips": None,
        "gradinit.steps": 0,
        "training.label_smoothing": 0.0,
        "training.duration": "182ep",
    },
    "tost_cifar100": TOST_CIFAR
    | {"data.name": "cifar100", "model.name": "cifar_resnet_18"},
    "tost_tiny_imagenet": TOST
    | {"data.name": "tiny_imagenet", "model.name": "cifar_resnet_18"},
    "stable_imp_mnist": LENET,
    "stable_imp_cifar": RESNET,
    "stable_imp_cifar:conv_4": CONV_4,
    "repel_mnist": LENET | {"data.batch_size": 1024, "solution_penalty.strength": 2.0},
    "repel_mnist:attract": LENET | {"solution_penalty.strength": -1.0},
    "repel_cifar": RESNET | {"solution_penalty.strength": 2.0},
    "repel_cifar:attract": RESNET
    | {"data.batch_size": 128, "solution_penalty.strength": -1.0},
    "diet_cifar": DIET
    | {
        "pretraining.subset": "easiest",
        "pretraining.size": 3200,
        "pretraining.balanced": True,
        "pretraining.label_noise": 0.0,
    },
    "diet_cifar:all": DIET | {"pretraining.subset": None, "pretraining.size": 0},
    "diet_cifar:scores": OPEN_LTH
    | {
        "replicates": 16,
        "training.duration": "7800step",
        "schedule.name": "constant",
        "schedule.milestones": (),
        "lottery.levels": 0,
        "lottery.rewind": "0step",
    },
    "diet_noise_cifar": DIET
    | {"pretraining.label_noise": 0.1, "data.label_noise": 0.0},
    "diet_mnist": {
        "data.name": "mnist",
        "model.name": "lenet_300_100",
        "replicates": 3,
        "lottery.rewind": "240step",
        "instability.copies": 2,
        "instability.start_steps": ("240step",),
        "pretraining.subset": "easiest",
        "pretraining.size": 3840,
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_settings_are_those_published(name: str) -> None:
    recipe, _, preset = name.partition(":")
    c = importlib.import_module(f"configs.{recipe}").get_config(preset)
    found = {}
    for field in RECIPES[name]:
        value = c
        for part in field.split("."):
            value = value[part]
        found[field] = value
    assert found == RECIPES[name]
