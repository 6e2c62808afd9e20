"""Variants of the scale `cifar16`: ResNet-8 on CIFAR-10 at 16x16 pixels.

Stability (Frankle et al. 2020), two levels that each remove 60 % of the weights:

- `dense`: dense networks, with copies from several updates.
- `k_K`: tickets that are rewound to update K, with copies from there.

Iterative pruning from initialization (Maene et al. 2021), eight levels of 20 %:

- `unstable`: as `dense`, with three controls of some levels.
- `stable_NAME`: with warm-up over half of training, and with `STABILIZER`.

Part 2 has stability at other rates and batch sizes (`SETTINGS`), pruning at four levels
of 36 %, and repulsion and attraction there (`STRENGTHS`). Part 3 has stability in
longer training and in a wider network (`LARGER`): how sensitive the setting is.

Before the thresholds were written, only dense networks and tickets of updates 0 and 150
had been seen, without copies. Warm-up was to make training stable, as the paper's does
beside large batches. It does not here, so that claims about stable training lacked what
they presume. The stabilizer, large batches with warm-up, was then chosen by the
instability of dense networks alone, see `STABILIZER`.

Deviations from Maene et al.: eight of 25 levels, or four that prune more; controls of
few levels; copies of few levels, which are compared with the level itself and not with
each other; and what makes training stable.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.studies.claims import SIGNIFICANT
from experiments.studies.runs import Run
from experiments.studies.stable_imp.quantities import moves_apart, moves_together
from jaxsparse.training import solution_penalty

SETTING = "resnet8"
STARTS = (0, 50, 150, 300, 600)
CONTROLLED = (0, 150)  # rewinding steps whose tickets have controls
# What differs from batches of 128 at a rate of 0.2 without warm-up.
SETTINGS: dict[str, dict[str, Any]] = {
    "rate_0.03": {"schedule.learning_rate": 0.03},
    "rate_0.1": {"schedule.learning_rate": 0.1},
    "rate_0.4": {"schedule.learning_rate": 0.4},
    "warmup": {"schedule.warmup": "2ep"},
    "batch_512": {"data.batch_size": 512},
    "batch_1024": {"data.batch_size": 1024},
    "batch_1024_warmup": {"data.batch_size": 1024, "schedule.warmup": "2ep"},
}
# The first setting found in which dense networks are stable. Their instability from
# initialization, in points: 37.95 ± 4.29 without (n = 5), 13.34 ± 4.47 with warm-up
# (n = 5), 7.56 ± 2.43 at a rate of 0.03 (n = 3), 2.60 ± 1.57 at this rate with warm-up
# (n = 3), 4.06 ± 1.87 in batches of 1,024 (n = 5), 0.69 ± 0.15 in these with warm-up
# (n = 5). Nothing had been pruned at the last four.
STABILIZER = "batch_1024_warmup"
LARGER: dict[str, dict[str, Any]] = {
    "epochs_12": {"training.duration": "12ep"},
    "epochs_30": {"training.duration": "30ep"},
    "width_16": {"model.width": 16},
}
# Multiples of the published strengths; see `penalized`.
STRENGTHS = (1, 5, 25)
_PARENT = {"instability.copies": 1, "instability.pairs": "parent"}
_FOUR = {
    "lottery.levels": 4,
    "lottery.fraction": 0.36,
    "lottery.control_levels": (2, 4),
}
_CONTROLS = ("reinitialized", "shuffled_layers", "random_mask")


def runs() -> list[Run]:
    """Lists the runs, those that others start from first."""
    return [
        Run(f"{SETTING}_{name}", f"configs/{recipe}_cifar16.py", fields, part=part)
        for part, listed in enumerate((_first(), _second(), _third()), start=1)
        for name, recipe, fields in listed
    ]


def _first() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Lists name, recipe and fields of part 1."""
    yield from _stability("", {}, STARTS)
    at = {"lottery.controls": _CONTROLS, "lottery.control_levels": (4, 8)}
    at |= _PARENT | {"instability.levels": (0, 4, 8)}
    yield "unstable", "stable_imp", at
    for name in ("warmup", STABILIZER):
        yield f"stable_{name}", "stable_imp", at | SETTINGS[name]


def _second() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Lists name, recipe and fields of part 2."""
    pruned = _FOUR | _PARENT | {"instability.levels": (4,)}
    alone = _FOUR | {"instability.copies": 0}  # compared by accuracy and angle only
    unstable = {"lottery.dense_run": f"../{SETTING}_dense"}
    stable = SETTINGS[STABILIZER] | {
        "lottery.dense_run": f"../{SETTING}_dense_{STABILIZER}"
    }
    for name, fields in SETTINGS.items():
        # These two are compared in claims; the others add points to a curve.
        few = {} if name in (STABILIZER, "batch_1024") else {"replicates": 3}
        yield from _stability(f"_{name}", fields | few, (0, 150))
        if name not in ("warmup", STABILIZER):
            dense = {"lottery.dense_run": f"../{SETTING}_dense_{name}"}
            yield f"pruned_{name}", "stable_imp", pruned | fields | few | dense
    yield "unstable_4", "stable_imp", pruned | unstable
    yield "stable_4", "stable_imp", pruned | stable
    for times in STRENGTHS:
        repel = {"solution_penalty.strength": times * solution_penalty.REPEL}
        attract = {"solution_penalty.strength": times * solution_penalty.ATTRACT}
        yield f"repelled_{times}", "stable_imp", alone | repel | stable
        yield f"attracted_{times}", "stable_imp", alone | attract | unstable


def _third() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Lists name, recipe and fields of part 3."""
    for name, fields in LARGER.items():
        yield from _stability(f"_{name}", fields | {"replicates": 3}, (0, 150))


def _stability(
    suffix: str, fields: dict[str, Any], starts: tuple[int, ...]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Lists dense networks with copies, and tickets of every rewinding step."""
    steps = tuple(f"{step}step" for step in starts)
    copied = {"lottery.levels": 0, "lottery.rewind": "0step"}
    copied |= {"instability.copies": 2, "instability.start_steps": steps}
    kept = {"instability.levels": (0,), "analysis.save_at": steps[1:]}
    kept["instability.compare_levels"] = False
    yield f"dense{suffix}", "stability", fields | copied | kept
    for step in starts:
        own = {"lottery.rewind": f"{step}step", "instability.levels": (2,)}
        own |= {"instability.start_steps": (f"{step}step",)}
        own["lottery.dense_run"] = f"../{SETTING}_dense{suffix}"
        own |= {"instability.points": 11, "instability.examples": 2000}
        if suffix or step not in CONTROLLED:
            own["lottery.controls"] = ()
        yield f"k_{step}{suffix}", "lth", fields | own | _PARENT


def batches(measured: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arranges the instability of dense networks from initialization by batch size.

    Args:
      measured: measurements by variant.

    Returns:
      "small" and "large", each with "instability" of level 0; without those that are
      not measured.
    """
    found = {}
    for role, name in (("small", "dense"), ("large", "dense_batch_1024")):
        for line in measured.get(name, {}).get("onset", []):
            if not line["level"] and 0 in line["steps"]:
                first = line["steps"].index(0)
                values = [seed[first] for seed in line["instability"]]
                found[role] = {"instability": {0: values}}
    return found


def penalized(pruned: Mapping[str, Any]) -> dict[str, Any]:
    """Arranges the runs of four levels by role.

    Of repulsion and attraction, the weakest strength counts that is shown to move
    successive levels (`quantities.moves_apart`, `moves_together`), or the strongest if
    none is.

    Args:
      pruned: measurements of runs that prune iteratively, by variant.

    Returns:
      "stable", "unstable", "repelled" and "attracted", as far as they are measured. The
      last two only if all strengths are, with the "strength" in words.
    """
    plain = {
        "repelled": ("stable", moves_apart),
        "attracted": ("unstable", moves_together),
    }
    roles = {role: f"{role}_4" for role, _ in plain.values()}
    found = {role: pruned[name] for role, name in roles.items() if name in pruned}
    for kind, (role, moves) in plain.items():
        names = {f"{kind}_{times}": times for times in STRENGTHS}
        if role not in found or any(name not in pruned for name in names):
            continue
        moved = [n for n in names if moves(found[role], pruned[n]).p < SIGNIFICANT]
        name = (moved or [*names])[0 if moved else -1]
        found[kind] = {**pruned[name], "strength": f"{names[name]} times as published"}
    return found


def label(variant: str) -> str:
    """Returns the label of a variant.

    Args:
      variant: its name, without that of the setting.
    """
    words = {
        "dense": "dense",
        "k": "tickets of update",
        "unstable": "no stabilizer",
        "stable": label_setting(STABILIZER),
        **{f"stable_{name}": label_setting(name) for name in SETTINGS},
        "unstable_4": "no stabilizer, 4 levels",
        "stable_4": f"{label_setting(STABILIZER)}, 4 levels",
    }
    if variant in words:
        return words[variant]
    for name in (*SETTINGS, *LARGER):
        if variant.endswith(f"_{name}"):
            return f"{label(variant.removesuffix(f'_{name}'))}, {label_setting(name)}"
    kind, _, number = variant.rpartition("_")
    if kind in ("repelled", "attracted"):
        return f"{kind}, {number} times the published strength"
    return f"{words.get(kind, kind)} {number}".strip() if kind else variant


def label_setting(name: str) -> str:
    """Returns the label of a setting.

    Args:
      name: a key of `SETTINGS` or `LARGER`; "" for the setting that these change.
    """
    if name in ("", "warmup"):
        return "warm-up" if name else "batches of 128, rate 0.2"
    if name.endswith("_warmup"):
        return f"{label_setting(name.removesuffix('_warmup'))}, warm-up"
    kind, _, value = name.partition("_")
    words = {"rate": "rate {:g}", "batch": "batches of {:,g}", "epochs": "{:g} epochs"}
    return (words | {"width": "width {:g}"})[kind].format(float(value))


def of_settings(measured: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arranges measurements by setting.

    Args:
      measured: measurements by variant.

    Returns:
      By setting, "" for that of part 1: the measurements of "dense", "k_0" and "k_150",
      as far as they are there. Settings without any are left out.
    """
    roles = ("dense", *(f"k_{step}" for step in CONTROLLED))
    found = {
        name: {
            role: measured[key]
            for role in roles
            if (key := f"{role}_{name}".removesuffix("_")) in measured
        }
        for name in ("", *SETTINGS, *LARGER)
    }
    return {name: entries for name, entries in found.items() if entries}
