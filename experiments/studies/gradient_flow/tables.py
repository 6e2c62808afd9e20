"""Tables: the measurements with all digits, and as text.

The `*_frame` functions make data frames with all digits, NaN for what is missing; the
`show_*` functions turn them into text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies import tables
from experiments.studies.gradient_flow import curvature, published

Found = dict[str, Any]
Pair = Sequence[float | None]


def variants_frame(setting: str, found: Found) -> pd.DataFrame:
    """Tabulates accuracies and disagreements beside the published ones.

    Args:
      setting: one of `variants.SETTINGS`.
      found: from `variants.arrange`.

    Returns:
      One row for each variant: `variant`, `label`, `n`, accuracies and their
      differences in percent and percentage points, differences in standard errors, and
      fractions of the test set; columns ending in "_sd" are sample standard deviations.
    """
    theirs = published.PUBLISHED[setting]
    return pd.DataFrame(
        [
            _variant(name, entry, theirs.get(name, {}))
            for name, entry in found["predictions"].items()
        ]
    )


def _variant(name: str, ours: Found, theirs: Found) -> dict[str, Any]:
    """Makes a row of `variants_frame`."""
    accuracy = pd.Series(ours.get("accuracy", ()), dtype=float)
    mean, sd, n = ours.get("summary", (accuracy.mean(), accuracy.std(), len(accuracy)))
    with_pruned = pd.Series(ours.get("with_pruned", ()), dtype=float)
    pairs = {
        "accuracy": (mean, sd),
        "with_pruned": (with_pruned.mean(), with_pruned.std()),
        **{name: ours.get(name, _NONE) for name in ("disagreement", "kl", "js")},
    }
    given = {
        "accuracy": theirs.get("published", _NONE),
        "disagreement": theirs.get("published_disagreement", _NONE),
        "with_pruned": theirs.get("published_with_pruned", _NONE),
    }
    row = {"variant": name, "label": published.LABELS[name], "n": n}
    row |= _pair("accuracy_percent", pairs["accuracy"])
    row |= _pair("published_accuracy_percent", given["accuracy"])
    row["difference"] = _difference(pairs["accuracy"], given["accuracy"], n)
    row["gain_points"] = ours.get("ensemble", np.nan)
    published_ensemble = theirs.get("published_ensemble", np.nan)
    row["published_ensemble_percent"] = published_ensemble
    row["published_gain_points"] = published_ensemble - given["accuracy"][0]
    row |= _pair("disagreement", pairs["disagreement"])
    row |= _pair("published_disagreement", given["disagreement"])
    row["with_pruned_n"] = with_pruned.count()
    row |= _pair("with_pruned", pairs["with_pruned"])
    for name in ("disagreement", "with_pruned"):
        row[f"{name}_difference"] = _difference(pairs[name], given[name], n)
    row |= _pair("published_with_pruned", given["with_pruned"])
    return row | _pair("kl", pairs["kl"]) | _pair("js", pairs["js"])


_NONE = (np.nan, np.nan)


def _pair(name: str, pair: Pair) -> dict[str, float]:
    """Makes the columns of a mean and its standard deviation."""
    mean, sd = (np.nan if value is None else float(value) for value in pair)
    return {name: mean, f"{name}_sd": sd}


def _difference(ours: Pair, theirs: Pair, n: int) -> float:
    """Returns ours minus the published mean of networks, in standard errors of this.

    Means over pairs of networks count as many units as there are networks.
    """
    mean, sd = (np.nan if value is None else value for value in theirs)
    error = np.hypot(ours[1] / np.sqrt(n), sd / np.sqrt(published.NETWORKS))
    # Without any spread there is no unit.
    return float((ours[0] - mean) / error) if error > 0 else np.nan


_LABELED = {"Variant": ("label", ""), "n": ("n", "")}


def show_accuracy(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats the accuracies of `variants_frame`.

    Args:
      frame: from `variants_frame`.
    """
    columns = _LABELED | {
        "Test accuracy (%)": ("accuracy_percent", ".2f ± "),
        "Published (%)": ("published_accuracy_percent", ".2f ± "),
        "Difference (s.e.)": ("difference", "+.1f"),
        "Published ensemble (%)": ("published_ensemble_percent", ".2f"),
        "Gain (points)": ("gain_points", "+.2f"),
        "Published gain (points)": ("published_gain_points", "+.2f"),
    }
    return tables.show(frame, columns)


def accuracies_frame(found: Found) -> pd.DataFrame:
    """Tabulates what is measured of every seed.

    Args:
      found: from `variants.arrange`.

    Returns:
      One row for each variant and seed: `variant`, `seed`, `accuracy_percent`, and
      `with_pruned`, the fraction of the test set on which the network and the pruned
      solution disagree. Variants of one mask in several orders of the data are named
      VARIANT_mask_NUMBER. Those of which only summaries were kept are left out.
    """
    parts, entries = [], dict(found["predictions"])
    for name, orders in found["orders"].items():
        if entries.get(name) not in orders:
            of_masks = {f"{name}_mask_{i}": entry for i, entry in enumerate(orders)}
            entries |= of_masks
    for name, entry in entries.items():
        accuracy = pd.Series(entry.get("accuracy", ()), dtype=float)
        with_pruned = pd.Series(entry.get("with_pruned", ()), dtype=float)
        measures = {"accuracy_percent": accuracy, "with_pruned": with_pruned}
        part = pd.DataFrame(measures).rename_axis("seed").reset_index()
        parts.append(part.assign(variant=name))
    columns = ["variant", "seed", "accuracy_percent", "with_pruned"]
    return tables.concat([p for p in parts if len(p)], columns)[columns]


def show_initializations(found: Found) -> pd.DataFrame:
    """Formats accuracies by method and initialization of variants of the same masks.

    Args:
      found: from `variants.arrange`.

    Returns:
      One row for each method, one column for each initialization, mean ± sample
      standard deviation (n), "" where there is no such variant.
    """
    cells: dict[str, dict[str, str]] = {}
    for name, entry in found["predictions"].items():
        if name in published.INITIALIZED:
            training, initialization = published.INITIALIZED[name]
            accuracy = pd.Series(entry.get("accuracy", ()), dtype=float)
            if accuracy.empty:
                continue
            words = f"{tables.mean(accuracy)} (n = {len(accuracy)})"
            cells.setdefault(training, {})[f"{initialization} (%)"] = words
    shown = pd.DataFrame.from_dict(cells, orient="index").fillna("")
    return shown.rename_axis("Training").reset_index()


def show_predictions(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats the disagreements of `variants_frame`.

    Args:
      frame: from `variants_frame`.
    """
    columns = _LABELED | {
        "Disagreement": ("disagreement", ".4f ± "),
        "Published disagreement": ("published_disagreement", ".4f ± "),
        "Difference (s.e.)": ("disagreement_difference", "+.1f"),
        "With pruned": ("with_pruned", ".4f ± "),
        "Published with pruned": ("published_with_pruned", ".4f ± "),
        "Difference with pruned (s.e.)": ("with_pruned_difference", "+.1f"),
        "KL (nats)": ("kl", ".4f ± "),
        "JS (nats)": ("js", ".4f ± "),
    }
    shown = tables.show(frame, columns)
    if "With pruned" in shown:  # in some variants, of fewer seeds
        texts, counts = shown["With pruned"], frame["with_pruned_n"].astype(str)
        fewer = (texts != "") & (frame["with_pruned_n"] != frame["n"])
        shown["With pruned"] = texts.mask(fewer, texts + " (n = " + counts + ")")
    return shown


def flow_frame(found: Found) -> pd.DataFrame:
    """Tabulates the gradient flow at the start, during, and at the end of training.

    Args:
      found: from `variants.arrange`.

    Returns:
      One row for each variant and step: `variant`, `label`, `step`, `n`, and `norm`,
      `effective` and `decrease` with their standard deviations.
    """
    gradient = found["gradients"]
    if not gradient:
        return pd.DataFrame()
    last, rows = max(max(entry["steps"]) for entry in gradient.values()), []
    for name, entry in gradient.items():
        steps = np.asarray(entry["steps"], float)
        apart = np.abs(steps[:, None] - last * np.array([0, 0.05, 0.2, 1]))
        for place in sorted(set(np.argmin(apart, axis=0).tolist())):
            row = {"variant": name, "label": published.LABELS[name]}
            row["step"] = steps[place]
            row["n"] = int(np.isfinite(np.asarray(entry["norm"])[:, place]).sum())
            for measure in ("norm", "effective", "decrease"):
                values = pd.Series(np.asarray(entry[measure])[:, place])
                row |= _pair(measure, (values.mean(), values.std()))
            rows.append(row)
    return pd.DataFrame(rows)


def show_flow(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats `flow_frame`.

    Args:
      frame: from `flow_frame`.
    """
    columns = {
        "Variant": ("label", ""),
        "Step": ("step", ",.0f"),
        "n": ("n", ""),
        "Norm": ("norm", ".4f ± "),
        "Effective": ("effective", ".4f ± "),
        "First-order decrease": ("decrease", ".1e ± "),
    }
    return tables.show(frame, columns)


def show_distances(distances: Mapping[str, Any]) -> pd.DataFrame:
    """Formats the L2 distances of variants from the pruned solution.

    Args:
      distances: by variant, distances by seed at its "start" and "end".
    """
    return pd.DataFrame(
        [
            {
                "Group": published.label_group(f"{name} {moment}"),
                "n": str(len(values)),
                "Distance (L2)": tables.mean(pd.Series(values, dtype=float)),
            }
            for name, moments in distances.items()
            for moment, values in moments.items()
        ]
    )


def hessian_frame(found: Found) -> pd.DataFrame:
    """Tabulates the curvature at every state.

    Args:
      found: from `variants.arrange`.

    Returns:
      One row for each state: `label` of the variant, `seed`, `step`, `moment`, `n`
      eigenvalues, number of `examples`, `negative`, `percent` of n that are negative,
      `least`, `greatest`, `change` of negatives over a mask update, and `top_error` and
      `bottom_error`, the largest relative error of Lanczos' method at each end, NaN
      where only one method was used.
    """
    rows = []
    for name, entry in found["curvature"].items():
        made = curvature.new_negatives(entry["states"])
        for state in entry["states"]:
            row = {name: state[name] for name in ("seed", "step", "moment")}
            row |= {"label": published.LABELS[name], "n": state["n"]}
            row |= {"examples": state["examples"]}
            row |= {"negative": state.get("negative", np.nan)}
            row["percent"] = 100 * row["negative"] / state["n"]
            ends = state.get("lanczos")
            exact = state.get("eigenvalues")
            values = np.sort(np.asarray(exact or ends["bottom"] + ends["top"], float))
            row |= {"least": values[0], "greatest": values[-1]}
            row["change"] = made.get(curvature.place_of(state), np.nan)
            for end, sign in (("top", -1), ("bottom", 1)):
                row[f"{end}_error"] = (
                    relative_error(ends[end], values, sign=sign)
                    if exact and ends
                    else np.nan
                )
            rows.append(row)
    return pd.DataFrame(rows)


def relative_error(ours: Any, exact: np.ndarray, *, sign: int) -> float:
    """Returns the largest relative error of eigenvalues at one end of a spectrum.

    Args:
      ours: approximate eigenvalues.
      exact: all eigenvalues.
      sign: 1 for the lowest eigenvalues, -1 for the highest.
    """
    ours = np.sort(sign * np.asarray(ours, float))[: len(exact)]
    exact = np.sort(sign * exact)[: len(ours)]
    if not len(ours):
        return np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.abs(ours - exact) / np.abs(exact)
    return float(np.max(np.where(ours == exact, 0.0, errors)))


def show_hessian(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats `hessian_frame`.

    Args:
      frame: from `hessian_frame`.
    """
    columns = {
        "Variant": ("label", ""),
        "Seed": ("seed", ".0f"),
        "Step": ("step", ",.0f"),
        "Mask update": ("moment", ""),
        "Active weights": ("n", ",.0f"),
        "Examples": ("examples", ",.0f"),
        "Negative": ("negative", ",.0f"),
        "Negative (%)": ("percent", ".1f"),
        "More negative than before": ("change", "+,.0f"),
        "Smallest": ("least", ".3g"),
        "Largest": ("greatest", ".3g"),
        "Error of Lanczos, bottom": ("bottom_error", ".1e"),
        "Error of Lanczos, top": ("top_error", ".1e"),
    }
    return tables.show(frame, columns)
