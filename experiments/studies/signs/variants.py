"""Variants: tickets with their own and with newly drawn signs and magnitudes.

ResNet-8 on CIFAR-10 at 16x16 pixels, 5 seeds, two levels that each remove 60 % of the
weights. Here tickets need rewinding: rewound to step 150 they train as well as the
dense network, rewound to initialization they do not. Tickets of initialization are not
divided into parts, since there is little to divide: in the study `stable_imp` they are
2.64 ± 3.93 points above reinitialized ones, n = 5.

- `dense`: the dense network of all tickets.
- `k_150`: tickets that are rewound to step 150, and controls of the last level, which
  keep the masks and the signs (`random_magnitudes`), the masks and the magnitudes
  (`random_signs`), the masks without either (`random_weights`), or the weights with
  masks that are shuffled within layers (`shuffled_layers`). In all of these, leaves
  without masks stay those of the ticket: scales, shifts and statistics of BatchNorm,
  and the bias of the head. New magnitudes have the scale of the initializer, which in
  some layers is up to a third smaller than that of the ticket; random signs keep the
  scale of the ticket.
- `plain` and `sign_in`: the masks of the tickets of `k_150` with weights of other
  initial seeds, trained as usual and by Sign-In, which lets signs change. Weight decay
  acts on both factors of Sign-In's weights, so it is half as large there: products
  decay as fast as weights do in `plain`, but all other leaves half as fast.
- `plain_half`: as `plain`, with half of the weight decay everywhere.
- `other`: the dense network of those initial weights.
- `aligned_0`: the masks of `plain` with their units in another order, on the same
  initial weights. In that order, the activations of `dense` are most like those of
  `other`, both at the end of training.
- `unaligned_150` and `aligned_150`: the masks of `plain` and those of `aligned_0`, on
  the weights that `other` has at step 150, trained for the remaining steps.

Scale `quick` trains 30 steps with 2 seeds. The other scales have no runs.
"""

from typing import Any

from experiments.studies.runs import Run
from jaxsparse import stages

SETTING = "resnet8"
SETTINGS = (SETTING,)
LEVELS = 2
START = 150  # rewinding step
OTHER = f"{SETTING}_other"
CONTROLS = ("random_magnitudes", "random_signs", "random_weights", "shuffled_layers")
_QUICK = (":quick", 3, "30step")  # preset, later rewinding step, length of training
LABELS = {
    "ticket": "masks, signs and magnitudes",
    "random_magnitudes": "masks, signs, and leaves that have no mask",
    "random_signs": "masks, magnitudes, and leaves that have no mask",
    "random_weights": "masks, and leaves that have no mask",
    "shuffled_layers": "signs and magnitudes, masks shuffled",
}


def of_setting(setting: str, scale: str) -> list[Run]:
    """Lists the runs of the setting, those that others start from first.

    Args:
      setting: `SETTING`.
      scale: one of `studies.SCALES`.
    """
    if scale not in ("quick", "cifar16"):
        return []
    preset, late, whole = ("", 150, "4ep") if scale == "cifar16" else _QUICK
    tickets, dense = f"configs/lth_cifar16.py{preset}", f"{setting}_dense"
    shared = {"data.reshuffle_each_level": True, "analysis.save_at": (f"{late}step",)}
    listed = [Run(dense, f"configs/dense_cifar16.py{preset}", shared)]
    fields: dict[str, Any] = {
        "lottery.rewind": f"{late}step",
        "lottery.controls": CONTROLS,
        "lottery.dense_run": f"../{dense}",
    }
    listed.append(Run(f"{setting}_k_{START}", tickets, fields))
    given: dict[str, Any] = {
        "sparse.method": "static",
        "sparse.sparsity": 0.84,
        "warm_start.run": f"../{setting}_k_{START}",
        "warm_start.masks": stages.level_end(LEVELS, levels=LEVELS),
        "seeds.init": 1,
        "analysis.save_at": ("0step",),
    }
    half = {"optimizer.weight_decay": 5e-4}  # half of the recipe's
    # Rescaled as in `configs/sign_in_mnist.py`, every second epoch until half of
    # training, which in four epochs is once.
    sign_in = half | {
        "sparse.reparameterization": "sign_in",
        "sparse.rescale_every": "780step" if scale == "cifar16" else "10step",
        "sparse.rescale_until": "50%",
    }
    recipe = f"configs/dense_cifar16.py{preset}"
    listed.append(Run(f"{setting}_plain", recipe, given))
    listed.append(Run(f"{setting}_plain_half", recipe, given | half))
    listed.append(Run(f"{setting}_sign_in", recipe, given | sign_in))
    listed.append(Run(f"{setting}_other", recipe, shared | {"seeds.init": 1}))
    aligned = f"configs/aligned_cifar16.py{preset}"
    runs = {
        "seeds.init": 1,
        "analysis.save_at": ("0step",),
        "warm_start.run": f"../{setting}_other",
        "warm_start.masks_run": f"../{setting}_k_{START}",
    }
    begun = {"warm_start.weights": "init", "training.duration": whole}
    listed.append(Run(f"{setting}_aligned_0", aligned, runs | begun))
    naive = runs | {"warm_start.align": None}
    listed.append(Run(f"{setting}_unaligned_{START}", aligned, naive))
    listed.append(Run(f"{setting}_aligned_{START}", aligned, runs))
    return listed


def is_of_other(name: str) -> bool:
    """Returns whether a run trains masks on the weights of `OTHER`, aligned or not.

    Args:
      name: name of the run.
    """
    return "aligned" in name


def has_given_masks(name: str) -> bool:
    """Returns whether a run trains masks of tickets on other weights.

    Args:
      name: name of the run.
    """
    return is_of_other(name) or name.endswith(("plain", "plain_half", "sign_in"))


def label(variant: str) -> str:
    """Returns the label of a run.

    Args:
      variant: its name, without that of the setting.
    """
    names = {
        "dense": "dense",
        "plain": "masks of step 150, other weights",
        "plain_half": "masks of step 150, other weights, half the weight decay",
        "sign_in": "masks of step 150, other weights, Sign-In",
        "other": "dense, other weights",
        "aligned_0": "masks of step 150, other weights, aligned",
        "unaligned_150": "masks of step 150, other weights of step 150",
        "aligned_150": "masks of step 150, other weights of step 150, aligned",
    }
    return names.get(variant, f"rewound to step {variant.removeprefix('k_')}")
