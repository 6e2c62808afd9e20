"""Published: the numbers of the paper for LeNet-5 at 95 %, and labels of variants.

Evci, Ioannou, Keskin, Dauphin, Gradient Flow in Sparse Neural Networks and How Lottery
Tickets Win, 2020, arXiv:2010.03533: the authors' post on it has the table of LeNet-5
(test accuracy, ensemble of 5, disagreement, disagreement with the pruned solution).
Nothing like it is published for the MLP, nor for the other variants; ResNet-20 takes
the place of the paper's ImageNet networks and has no published numbers.

The match between their rows and our variants is inferred: their "5 Diff. Pruned" is all
our pruning runs, and their "Pruned soln." the first, from which masks are taken; their
"Scratch (Diff. Init.)" is our Scratch, and their "Scratch" ours of one initialization.
"""

from typing import Any

from experiments.studies.gradient_flow.variants import AT_90

LABELS = {
    "prune": "gradual pruning",
    "pruned": "the pruned solution",
    "lt": "LT",
    "lt_150": "LT of update 150",
    "scratch": "Scratch",
    "scratch_same": "Scratch, one initialization",
    "scratch_plus": "Scratch+",
    "liu": "Scratch, Liu",
    "rigl": "RigL",
    "rigl_plus": "RigL+",
    "rigl_liu": "RigL, Liu",
    "rigl_inverted": "RigL inverted",
    "rigl_inverted_plus": "RigL+ inverted",
    "set": "SET",
    "set_plus": "SET+",
    "prune_restart": "prune restart",
    "small_dense": "small dense",
    "dense": "dense",
}

LABELS |= {f"{name}_90": f"{LABELS[name]}, 90 %" for name in AT_90}

# Variants that train the masks of the pruning run: by which method, from which weights.
INITIALIZED = {
    "scratch": ("static", "Glorot, masked"),
    "liu": ("static", "Liu et al., by layer"),
    "scratch_plus": ("static", "sparsity-aware"),
    "lt": ("static", "the ticket's"),
    "prune_restart": ("static", "the pruned solution"),
    "set": ("SET", "Glorot, masked"),
    "set_plus": ("SET", "sparsity-aware"),
    "rigl": ("RigL", "Glorot, masked"),
    "rigl_liu": ("RigL", "Liu et al., by layer"),
    "rigl_plus": ("RigL", "sparsity-aware"),
}

NETWORKS = 5  # of each published mean
LENET: dict[str, dict[str, Any]] = {
    "prune": {
        "published": [98.30, 0.23],
        "published_ensemble": 99.07,
        "published_disagreement": [0.0214, 0.0023],
        "published_with_pruned": [0.0197, 0.0019],
    },
    "pruned": {"published": [98.53, None]},
    "lt": {
        "published": [98.52, 0.02],
        "published_ensemble": 98.58,
        "published_disagreement": [0.0043, 0.0006],
        "published_with_pruned": [0.0089, 0.0002],
    },
    "scratch_same": {
        "published": [97.04, 0.15],
        "published_ensemble": 98.00,
        "published_disagreement": [0.0316, 0.0023],
        "published_with_pruned": [0.0278, 0.0020],
    },
    "scratch": {
        "published": [97.19, 0.33],
        "published_ensemble": 98.43,
        "published_disagreement": [0.0352, 0.0037],
        "published_with_pruned": [0.0278, 0.0032],
    },
    "prune_restart": {
        "published": [98.60, 0.01],
        "published_ensemble": 98.63,
        "published_disagreement": [0.0027, 0.0003],
        "published_with_pruned": [0.0077, 0.0003],
    },
}
PUBLISHED = {"lenet": LENET, "mlp": {}, "resnet8": {}, "resnet": {}}
TITLES = {
    "lenet": "LeNet-5 at 95 %",
    "mlp": "MLP 784-300-100-10 at 98 %",
    "resnet8": "ResNet-8 on CIFAR-10 at 16x16 pixels, at 95 %",
    "resnet": "ResNet-20, CIFAR-10, at 95 %",
}
# Updates of the recipe; for ResNets, those of 160 epochs.
STEPS = {"lenet": 11_719, "mlp": 11_719, "resnet8": 62_560, "resnet": 62_560}


def label_group(group: str) -> str:
    """Returns the label of a group of solutions.

    Args:
      group: variant and moment, such as "lt end".
    """
    variant, _, moment = group.partition(" ")
    return f"{LABELS[variant]} {moment}"
