"""Tables: the measurements with all digits, and as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies import tables
from experiments.studies.stable_imp.cifar16 import CONTROLLED, label_setting
from jaxsparse.analysis import mode_connectivity

Found = dict[str, Any]
_HEADINGS = {
    "variant": "Variant",
    "level": "Level",
    "update": "Update",
    "test": "Instability, test",
    "train": "Instability, train",
    "rise": "Rise from the level before",
    "l2": "Distance",
    "different": "Different",
    "ticket_percent": "Tickets",
    "reinitialized_percent": "Reinitialized",
    "shuffled_layers_percent": "Shuffled layers",
    "random_mask_percent": "Random mask",
    "gap_points": "Gap",
}


CONTROLS = ("reinitialized", "shuffled_layers", "random_mask")


def all_runs(found: Found) -> Found:
    """Returns the measurements of all runs that prune, by variant.

    Args:
      found: the measurements of the study.
    """
    return found["variants"] | {f"k_{k}": run for k, run in found["rewound"].items()}


def levels_frame(found: Found) -> pd.DataFrame:
    """Tabulates accuracies: one row for each variant, level and seed, in percent.

    Args:
      found: the measurements of the study.
    """
    table = tables.concat(
        [
            tables.by_seed(
                {"level": entry["levels"], "remaining_percent": entry["remaining"]},
                {"ticket_percent": entry["ticket"]}
                | {f"{name}_percent": of for name, of in entry["controls"].items()},
                variant=variant,
            )
            for variant, entry in all_runs(found).items()
        ]
    )
    if "reinitialized_percent" in table:
        gap = table["ticket_percent"] - table["reinitialized_percent"]
        table["gap_points"] = gap
    return table


def stability_frame(found: Found) -> pd.DataFrame:
    """Tabulates instability and rises: one row for each variant, level and seed.

    Args:
      found: the measurements of the study.
    """
    parts = []
    for variant, entry in found["variants"].items():
        rises = np.asarray(entry["successive"]).T
        for name, values in (
            ("test", entry["instability"]),
            ("train", entry["train_instability"]),
            ("rise", dict(zip(entry["successive_levels"], rises, strict=True))),
        ):
            if values:
                levels, each = list(map(int, values)), np.transpose([*values.values()])
                part = tables.by_seed({"level": levels}, {name: each}, variant=variant)
                parts.append(part)
    by, names = ["variant", "level", "seed"], ["test", "train", "rise"]
    if not parts:
        return pd.DataFrame(columns=[*by, *names])
    # Each part has one of the measures.
    table = pd.concat(parts).groupby(by, sort=False).first().reset_index()
    order = {variant: place for place, variant in enumerate(found["variants"])}
    return table.reindex(columns=[*by, *names]).sort_values(
        by, key=lambda c: c.map(order) if c.name == "variant" else c, ignore_index=True
    )


def onset_frame(found: Found) -> pd.DataFrame:
    """Tabulates stability by update: one row for each level, update and seed.

    Args:
      found: the measurements of the study.
    """
    fields = {"test": "instability", "train": "train", "l2": "l2"}
    fields["different"] = "disagreement"
    parts = [
        tables.by_seed(
            {"update": line["steps"]},
            {name: line[field] for name, field in fields.items()},
            level=line["level"],
        ).sort_values("update", kind="stable")
        for line in found.get("onset", ())
    ]
    return tables.concat(parts)


def settings_frame(found: Found) -> pd.DataFrame:
    """Tabulates dense networks and tickets by setting: one row for each seed.

    Args:
      found: the measurements of the study.

    Returns:
      Columns `setting`, `seed`, and for "dense", "k_0" and "k_150" (tickets by
      rewinding step) the test accuracy in percent, `ROLE_percent`, and instabilities in
      points, `ROLE_from_STEP`, of copies from a step; NaN where there are none.
    """
    rows = []
    for setting, entries in found.get("settings", {}).items():
        measures = {}
        for role, entry in entries.items():
            measures[f"{role}_percent"] = np.asarray(entry["ticket"], float)[:, -1]
            for line in entry["onset"]:
                values = np.asarray(line["instability"], float)
                for step, column in zip(line["steps"], values.T, strict=True):
                    if step in CONTROLLED:
                        measures[f"{role}_from_{step}"] = column
        frame = pd.DataFrame({name: pd.Series(of) for name, of in measures.items()})
        frame.insert(0, "seed", range(len(frame)))
        rows.append(frame.assign(setting=setting))
    return tables.concat(rows)


def show_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats dense networks and tickets by setting.

    Args:
      frame: from `settings_frame`.
    """
    headings = {"dense": "dense networks"} | {
        f"k_{k}": f"tickets of update {k}" for k in CONTROLLED
    }
    columns = {
        f"Accuracy, {words} (%)": (f"{role}_percent", 1, 2)
        for role, words in headings.items()
    } | {
        f"Instability, {words}, copies from {step}": (f"{role}_from_{step}", 1, 2)
        for role, words in headings.items()
        for step in CONTROLLED
    }
    there = {words: of for words, of in columns.items() if of[0] in frame}
    shown = tables.means(frame, ["setting"], there)
    if len(shown):
        shown["setting"] = shown["setting"].map(label_setting)
    return shown.rename(columns={"setting": "Setting"})


def solutions_frame(found: Found) -> pd.DataFrame:
    """Tabulates angles and distances: one row for each variant, seed and pair.

    Args:
      found: the measurements of the study.
    """
    measures = {"right_angles": "angles", "cosine": "cosines", "distance": "distances"}
    return pd.DataFrame(
        [
            {
                "variant": variant,
                "seed": seed,
                "first": entry["labels"][i],
                "second": entry["labels"][j],
            }
            | {name: entry[field][seed][i][j] for name, field in measures.items()}
            for variant, entry in found["variants"].items()
            for seed, angles in enumerate(entry["angles"])
            for i, j in zip(*np.triu_indices(len(angles), k=1), strict=True)
        ]
    )


def thresholds_frame(found: Found) -> pd.DataFrame:
    """Tabulates pruning thresholds: one row for each variant, seed and level.

    Args:
      found: the measurements of the study.
    """
    return tables.concat(
        [
            tables.by_seed(
                {"level": entry["levels"][: len(entry["thresholds"][0])]},
                {"threshold": entry["thresholds"]},
                variant=variant,
            )
            for variant, entry in found["variants"].items()
        ]
    )


def show_levels(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Formats the accuracies of every level.

    Args:
      frame: from `levels_frame`.
      labels: labels of variants.
    """
    if frame.empty:
        return frame
    measures = ["ticket_percent", *(f"{name}_percent" for name in CONTROLS)]
    measures = [name for name in (*measures, "gap_points") if name in frame]
    shown = show_means(frame, measures, labels)
    places = frame.drop_duplicates(["variant", "level"])
    remaining = [f"{percent:.1f} %" for percent in places["remaining_percent"]]
    shown.insert(2, "Remaining", remaining)
    shown.insert(3, "n", shown.pop("n"))
    return shown


def show_stability(
    found: Found, frame: pd.DataFrame, labels: Mapping[str, str]
) -> pd.DataFrame:
    """Formats the stability of every level, and whether it is stable and matching.

    Args:
      found: from `variants.arrange`.
      frame: from `stability_frame`.
      labels: labels of variants.
    """
    shown = show_means(frame, ["test", "train", "rise"], labels)
    places = frame[["variant", "level"]].drop_duplicates()
    rows = [
        _judge(found["variants"][variant], level)
        for variant, level in places.itertuples(index=False)
    ]
    return shown.join(pd.DataFrame(rows))


def _judge(entry: Found, level: int) -> dict[str, str]:
    """Judges whether a level is stable and matching; "" for a level without copies."""
    judged = {"Stable": "", "Matching": ""}
    pairs = {int(k): v for k, v in entry["instability"].items()}.get(level)
    if pairs is None:
        return judged
    ticket = np.asarray(entry["ticket"]) / 100
    verdict = mode_connectivity.classify_stability(
        np.asarray(pairs) / 100,
        accuracy=ticket[:, entry["levels"].index(level)],
        dense_accuracy=ticket[:, 0],
    )
    judged["Stable"] = "yes" if verdict.stable else "no"
    if level:  # a dense network has nothing to match
        judged["Matching"] = "yes" if verdict.matching else "no"
    return judged


def show_means(
    frame: pd.DataFrame, measures: Sequence[str], labels: Mapping[str, str]
) -> pd.DataFrame:
    """Formats the means of measures over seeds.

    Args:
      frame: one row for each place (variant, level, update) and seed.
      measures: columns that are averaged; missing values are left out.
      labels: labels of variants.
    """
    if frame.empty:
        return frame
    places = [name for name in ("variant", "level", "update") if name in frame]
    columns = {_HEADINGS[name]: (name, 1, 2) for name in measures}
    shown = tables.means(frame, places, columns)
    if "variant" in shown:
        shown["variant"] = shown["variant"].map(labels)
    shown = shown.rename(columns=_HEADINGS)
    return shown.astype(dict.fromkeys(shown.columns, str))
