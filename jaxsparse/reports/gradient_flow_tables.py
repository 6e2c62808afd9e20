"""Gradient-flow tables: what the study of gradient flow found, in rows and words.

The `*_table` functions make data frames with all digits of what
`gradient_flow_findings.read` returns, NaN for what is missing; the `show_*` functions
turn those into text with headings for people, "" for what is missing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxsparse.reports import formatting

Found = Mapping[str, Any]


def variants_table(found: Found) -> pd.DataFrame:
    """Tabulates how right the arms are and how alike their seeds predict.

    Args:
      found: findings on one network, from `gradient_flow_findings.read`.

    Returns:
      One row an arm, with all columns always, NaN for what is missing: `arm`, `label`,
      `n`, accuracies and their differences in percent and percentage points,
      differences in deviations, and fractions of the test set; columns ending in "_sd"
      are sample deviations.
    """
    return pd.DataFrame([_variant(arm, entry) for arm, entry in found["arms"].items()])


def _variant(variant: str, entry: Found) -> dict[str, Any]:
    """Makes a row of `arms_table`."""
    accuracy = pd.Series(entry.get("accuracy", ()), dtype=float)
    with_pruned = pd.Series(entry.get("with_pruned", ()), dtype=float)
    ours = (accuracy.mean(), accuracy.std())
    published = entry.get("published", (np.nan, np.nan))
    row = {"arm": variant, "label": entry["label"], "n": accuracy.count()}
    row |= _pair("accuracy_percent", ours)
    row |= _pair("published_accuracy_percent", published)
    row["difference"] = _difference(ours, published)
    for name, mean in (("", ours[0]), ("published_", published[0])):
        ensemble = entry.get(f"{name}ensemble", np.nan)
        row[f"{name}ensemble_percent"] = ensemble
        row[f"{name}gain_points"] = ensemble - mean
    for name in ("disagreement", "published_disagreement"):
        row |= _pair(name, entry.get(name))
    row["with_pruned_n"] = with_pruned.count()
    row |= _pair("with_pruned", (with_pruned.mean(), with_pruned.std()))
    for name in ("disagreement", "with_pruned"):
        published = entry.get(f"published_{name}", (np.nan, np.nan))
        pair = (row[name], row[f"{name}_sd"])
        row[f"{name}_difference"] = _difference(pair, published)
    for name in ("published_with_pruned", "kl", "js"):
        row |= _pair(name, entry.get(name))
    return row


def _difference(ours: Any, published: Any) -> float:
    """Returns ours less the published mean, in units of both deviations together."""
    spread = np.hypot(ours[1], published[1])
    # Without any spread there is no unit.
    return float((ours[0] - published[0]) / spread) if spread > 0 else np.nan


def show_initialisations(found: Found) -> pd.DataFrame:
    """Makes text of accuracies by how an arm trains and how it is initialised.

    Args:
      found: findings on one network, from `gradient_flow_findings.read`.

    Returns:
      One row a way of training, one column an initialisation, mean ± sample deviation
      (n), "" where there is no such arm; empty if no arm says what it is.
    """
    cells: dict[str, dict[str, str]] = {}
    for entry in found["arms"].values():
        accuracy = pd.Series(entry.get("accuracy", ()), dtype=float).dropna()
        if entry["training"] and len(accuracy):
            mean = formatting.plus_minus(accuracy.mean(), accuracy.std(), digits=2)
            row = cells.setdefault(entry["training"], {})
            row[entry["initialisation"]] = f"{mean} (n = {len(accuracy)})"
    columns = list(dict.fromkeys(name for row in cells.values() for name in row))
    shown = pd.DataFrame(
        [[row.get(name, "") for name in columns] for row in cells.values()],
        columns=[f"{name} (%)" for name in columns],
    )
    shown.insert(0, "Training", list(cells))
    return shown


def _pair(name: str, pair: Any) -> dict[str, float]:
    """Makes the columns of a mean and its deviation."""
    mean, sd = (np.nan, np.nan) if pair is None else pair
    return {name: float(mean), f"{name}_sd": float(sd)}


def show_accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of what `arms_table` says of accuracy; no column is all blank."""
    shown = pd.DataFrame({"Arm": table["label"], "n": table["n"].astype(str)})
    shown["Test accuracy (%)"] = _means(table, "accuracy_percent", 2)
    shown["Published (%)"] = _means(table, "published_accuracy_percent", 2)
    shown["Difference (s.d.)"] = _numbers(table["difference"], "+.1f")
    shown["Ensemble (%)"] = _numbers(table["ensemble_percent"], ".2f")
    published = table["published_ensemble_percent"]
    shown["Published ensemble (%)"] = _numbers(published, ".2f")
    shown["Gain (points)"] = _numbers(table["gain_points"], "+.2f")
    shown["Published gain (points)"] = _numbers(table["published_gain_points"], "+.2f")
    return _without_blanks(shown)


def show_predictions(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of what `arms_table` says of predictions; no column is all blank."""
    shown = pd.DataFrame({"Arm": table["label"], "n": table["n"].astype(str)})
    shown["Disagreement"] = _means(table, "disagreement", 4)
    shown["Published disagreement"] = _means(table, "published_disagreement", 4)
    shown["Difference (s.d.)"] = _numbers(table["disagreement_difference"], "+.1f")
    shown["With pruned"] = [
        f"{words} (n = {others})" if words and others != n else words
        for words, n, others in zip(
            *(_means(table, "with_pruned", 4), table["n"], table["with_pruned_n"]),
            strict=True,
        )
    ]
    shown["Published with pruned"] = _means(table, "published_with_pruned", 4)
    shown["Difference with pruned (s.d.)"] = _numbers(
        table["with_pruned_difference"], "+.1f"
    )
    shown["KL (nats)"] = _means(table, "kl", 4)
    shown["JS (nats)"] = _means(table, "js", 4)
    return _without_blanks(shown)


def _means(table: pd.DataFrame, name: str, digits: int) -> list[str]:
    """Makes text of a measure and its deviation, "" for none."""
    return [
        "" if pd.isna(mean) else formatting.plus_minus(mean, sd, digits=digits)
        for mean, sd in zip(table[name], table[f"{name}_sd"], strict=True)
    ]


def _numbers(values: pd.Series, form: str) -> list[str]:
    """Makes text of numbers, "" for none."""
    return ["" if pd.isna(value) else format(value, form) for value in values]


def _without_blanks(shown: pd.DataFrame) -> pd.DataFrame:
    """Leaves out the columns that say nothing."""
    return shown.loc[:, (shown != "").any()]


def flow_table(found: Found) -> pd.DataFrame:
    """Tabulates the gradient flow at the beginning, on the way and at the end.

    Args:
      found: findings on one network, from `gradient_flow_findings.read`.

    Returns:
      One row an arm and step: `arm`, `label`, `step`, `n` and, each with its sample
      deviation, `norm`, `effective` and `decrease`; NaN for what is missing.
    """
    last = max(entry["steps"].max() for entry in found["gradient"].values())
    rows = []
    for arm, entry in found["gradient"].items():
        apart = np.abs(entry["steps"][:, None] - last * np.array([0, 0.05, 0.2, 1]))
        for place in sorted(set(np.argmin(apart, axis=0).tolist())):
            row = {"arm": arm, "label": entry["label"], "step": entry["steps"][place]}
            row["n"] = int(np.isfinite(entry["norm"][:, place]).sum())
            for name in ("norm", "effective", "decrease"):
                values = pd.Series(entry[name][:, place] if name in entry else np.nan)
                row |= _pair(name, (values.mean(), values.std()))
            rows.append(row)
    return pd.DataFrame(rows)


def show_flow(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of `flow_table`; no column is all blank."""
    shown = pd.DataFrame({"Arm": table["label"]})
    shown["Step"] = _numbers(table["step"], ",.0f")
    shown["n"] = table["n"].astype(str)
    shown["Norm"] = _means(table, "norm", 4)
    shown["Effective"] = _means(table, "effective", 4)
    shown["First-order decrease"] = [
        "" if pd.isna(mean) else f"{mean:.1e}" + ("" if pd.isna(sd) else f" ± {sd:.1e}")
        for mean, sd in zip(table["decrease"], table["decrease_sd"], strict=True)
    ]
    return _without_blanks(shown)


def distances_table(found: Found) -> pd.DataFrame:
    """Tabulates how far groups of solutions lie from the pruned one, the first.

    Args:
      found: findings on one network that have distances.

    Returns:
      `n`, `mean` and `sd` of the L2 distance, by group; the pruned one itself does not
      count.
    """
    table = pd.DataFrame(
        {"group": found["distances"]["groups"], "l2": found["distances"]["matrix"][0]}
    )
    by_group = table.iloc[1:].groupby("group", sort=False)["l2"]
    return by_group.agg(n="count", mean="mean", sd="std").reset_index()


def show_distances(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of `distances_table`."""
    shown = pd.DataFrame({"Group": table["group"], "n": table["n"].astype(str)})
    means = zip(table["mean"], table["sd"], strict=True)
    shown["Distance (L2)"] = [
        formatting.plus_minus(mean, sd, digits=2) for mean, sd in means
    ]
    return shown


def hessian_table(found: Found) -> pd.DataFrame:
    """Tabulates the curvature at every state.

    Args:
      found: findings on one network, from `gradient_flow_findings.read`.

    Returns:
      One row a state, NaN for what is missing: `label` of the arm, `seed`, `step`,
      `moment`, `n` eigenvalues, on so many `examples`, `negative`, `fraction` of n in
      [0, 1], `least` and `greatest`, `top_error` and `bottom_error` (the largest
      relative error of Lanczos at that end), and `change` of negatives over a change of
      masks.
    """
    return pd.DataFrame(
        [
            {"label": entry["label"], **_curvature(state)}
            for entry in found["hessian"].values()
            for state in entry["states"]
        ]
    )


def _curvature(state: Found) -> dict[str, Any]:
    """Makes a row of `hessian_table`, but for the label."""
    row = {name: state[name] for name in ("seed", "step", "moment")}
    row |= {name: state.get(name, np.nan) for name in ("n", "examples", "negative")}
    row["fraction"] = row["negative"] / row["n"] if row["n"] else np.nan
    values = state.get("eigenvalues", np.array([np.nan]))
    row |= {"least": values[0], "greatest": values[-1]}
    row["change"] = state.get("new_negatives", np.nan)
    lanczos = state["lanczos"]
    row["top_error"] = _relative_error(lanczos.get("top", ()), values, sign=-1)
    row["bottom_error"] = _relative_error(lanczos.get("bottom", ()), values, sign=1)
    return row


def _relative_error(ours: Any, exact: np.ndarray, *, sign: int) -> float:
    """Returns the largest relative error at the bottom, or for sign -1 at the top."""
    ours = np.sort(sign * np.asarray(ours, float))[: len(exact)]
    exact = np.sort(sign * exact)[: len(ours)]
    if not len(ours):
        return np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.abs(ours - exact) / np.abs(exact)
    return float(np.max(np.where(ours == exact, 0.0, errors)))


def show_hessian(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of `hessian_table`; no column is all blank."""
    table = table.assign(percent=100 * table["fraction"])
    shown = pd.DataFrame({"Arm": table["label"]})
    shown["Seed"] = _numbers(table["seed"], ".0f")
    shown["Step"] = _numbers(table["step"], ",.0f")
    shown["Change of masks"] = table["moment"]
    columns = {
        "n": ("Eigenvalues (n)", ",.0f"),
        "examples": ("Examples", ",.0f"),
        "negative": ("Negative", ",.0f"),
        "percent": ("Negative (%)", ".1f"),
        "change": ("More negative than before", "+,.0f"),
        "least": ("Smallest", ".3g"),
        "greatest": ("Largest", ".3g"),
        "bottom_error": ("Error of Lanczos, bottom", ".1e"),
        "top_error": ("Error of Lanczos, top", ".1e"),
    }
    for name, (heading, form) in columns.items():
        shown[heading] = _numbers(table[name], form)
    return _without_blanks(shown)
