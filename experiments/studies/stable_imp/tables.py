"""Tables of the study: frames that are kept with all digits, and their words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxsparse.analysis import connectivity
from jaxsparse.reports import formatting

Found = dict[str, Any]
_WORDS = {
    "test": "Test",
    "train": "Train",
    "rise": "Rise",
    "l2": "Distance",
    "different": "Different",
}


def rounds_frame(found: Found) -> pd.DataFrame:
    """Tabulates accuracies: a row an arm, round and seed, in percent."""
    rows = []
    for arm, entry in found["arms"].items():
        for r, accuracies in enumerate(entry["ticket"]):
            for i, level in enumerate(entry["levels"]):
                control = entry["reinitialized"][r][i]
                rows.append(
                    {
                        "arm": arm,
                        "round": level,
                        "remaining_percent": entry["remaining"][i],
                        "seed": r,
                        "ticket_percent": accuracies[i],
                        "reinitialized_percent": control,
                        "gap_points": accuracies[i] - control,
                    }
                )
    return pd.DataFrame(rows)


def show_rounds(frame: pd.DataFrame, called: Mapping[str, str]) -> pd.DataFrame:
    """Words the accuracies of every round; arms as they are called."""
    if frame.empty:
        return frame
    rows = []
    for (arm, level), part in frame.groupby(["arm", "round"], sort=False):
        rows.append(
            {
                "Arm": called[arm],
                "Round": str(level),
                "Remaining": f"{part['remaining_percent'].iloc[0]:.1f} %",
                "n": str(len(part)),
                "Tickets": _mean(part["ticket_percent"]),
                "Reinitialised": _mean(part["reinitialized_percent"]),
                "Gap": _mean(part["gap_points"]),
            }
        )
    return pd.DataFrame(rows)


def stability_frame(found: Found) -> pd.DataFrame:
    """Tabulates instability and rises: a row an arm, round and seed, in points."""
    rows: dict[Any, dict[str, Any]] = {}

    def put(arm: str, level: Any, values: list[float], name: str) -> None:
        for seed, value in enumerate(values):
            key = (arm, int(level), seed)
            place = {"arm": arm, "round": int(level), "seed": seed}
            rows.setdefault(key, place)[name] = value

    for arm, entry in found["arms"].items():
        for level, values in entry["instability"].items():
            put(arm, level, values, "test")
        for level, values in entry["train_instability"].items():
            put(arm, level, values, "train")
        columns = np.asarray(entry["successive"]).T.tolist()
        for level, values in zip(entry["successive_levels"], columns, strict=True):
            put(arm, level, values, "rise")
    names = ["arm", "round", "seed", "test", "train", "rise"]
    ordered = sorted(rows.values(), key=lambda row: (row["round"], row["seed"]))
    table = pd.DataFrame(ordered, columns=names)
    order = {arm: place for place, arm in enumerate(found["arms"])}
    return table.sort_values("arm", key=lambda c: c.map(order), kind="stable")


def show_stability(
    found: Found, frame: pd.DataFrame, called: Mapping[str, str]
) -> pd.DataFrame:
    """Words the stability of every round, and whether it is stable and matching."""
    shown = show_means(frame, ["test", "train", "rise"], called)
    rows = []
    for arm, level in frame[["arm", "round"]].drop_duplicates().itertuples(index=False):
        entry = found["arms"][arm]
        pairs = {int(k): v for k, v in entry["instability"].items()}.get(level)
        said = {"Stable": "", "Matching": ""}
        if pairs is not None:
            ticket = np.asarray(entry["ticket"]) / 100
            judged = connectivity.classify_stability(
                np.asarray(pairs) / 100,
                accuracy=ticket[:, entry["levels"].index(level)],
                dense_accuracy=ticket[:, 0],
            )
            said["Stable"] = "yes" if judged.stable else "no"
            if level:  # a dense network has nothing to match
                said["Matching"] = "yes" if judged.matching else "no"
        rows.append(said)
    return shown.join(pd.DataFrame(rows))


def onset_frame(found: Found) -> pd.DataFrame:
    """Tabulates stability by update: a row a round, update and seed."""
    rows = []
    for line in found.get("onset", ()):
        for i, step in enumerate(line["steps"]):
            for r in range(len(line["instability"])):
                rows.append(
                    {
                        "round": line["level"],
                        "update": step,
                        "seed": r,
                        "test": line["instability"][r][i],
                        "train": line["train"][r][i],
                        "l2": line["l2"][r][i],
                        "different": line["disagreement"][r][i],
                    }
                )
    return pd.DataFrame(rows)


def solutions_frame(found: Found) -> pd.DataFrame:
    """Tabulates how the solutions of rounds lie: a row an arm, seed and pair."""
    rows = []
    for arm, entry in found["arms"].items():
        for seed, angles in enumerate(entry["angles"]):
            for i, j in zip(*np.triu_indices(len(angles), k=1), strict=True):
                rows.append(
                    {
                        "arm": arm,
                        "seed": seed,
                        "first": entry["labels"][i],
                        "second": entry["labels"][j],
                        "right_angles": angles[i][j],
                        "cosine": entry["cosines"][seed][i][j],
                        "distance": entry["distances"][seed][i][j],
                    }
                )
    return pd.DataFrame(rows)


def thresholds_frame(found: Found) -> pd.DataFrame:
    """Tabulates the largest magnitude pruned after a round: a row an arm and seed."""
    return pd.DataFrame(
        [
            {"arm": arm, "round": level, "seed": seed, "threshold": threshold}
            for arm, entry in found["arms"].items()
            for seed, line in enumerate(entry["thresholds"])
            for level, threshold in zip(entry["levels"], line, strict=False)
        ]
    )


def show_means(
    frame: pd.DataFrame, measures: list[str], called: Mapping[str, str]
) -> pd.DataFrame:
    """Words the mean over seeds of some measures, at each place."""
    if frame.empty:
        return frame
    places = [name for name in ("arm", "round", "update") if name in frame]
    rows = []
    for place, part in frame.groupby(places, sort=False):
        named = {
            name.capitalize(): called.get(value, str(value))
            for name, value in zip(places, place, strict=True)
        }
        words = {_WORDS[name]: _mean(part[name]) for name in measures}
        rows.append(named | {"n": str(len(part))} | words)
    return pd.DataFrame(rows)


def _mean(values: pd.Series) -> str:
    known = values.dropna()
    return formatting.plus_minus(known.mean(), known.std()) if len(known) else ""
