"""Report: the section of the study on a setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies import claims as claims_lib
from experiments.studies import effects, tables
from experiments.studies import report as report_lib
from experiments.studies.effects import spread
from experiments.studies.methods import claims, variants
from jaxsparse.reports import flop_costs, method_figures, plot_curves

# Whether runs of the scale had been seen.
ABOUT_CLAIMS = {
    True: "Thresholds were written when a table of an earlier version had been seen.",
    False: "All thresholds were written before any run of this study at this scale. "
    "Other studies of the same network had been seen: `tost` with random, SNIP, "
    "SynFlow and ticket masks, and `gradient_flow` with SET and RigL.",
}
NOTES = {
    "resnet8": (
        "Layers are sparsified by ERK for random masks, SET, RigL, SRigL, CHTs and "
        "GMP, uniformly for `random uniform`, and by one threshold over all layers for "
        "SNIP, SynFlow, NTK-SAP, AC/DC and tickets.",
        "Training FLOPs leave out the choice of masks at initialization, for which "
        "SNIP reads 5,000 examples and NTK-SAP 20 times 640, where training reads "
        "199,680. They are interpolated for GMP, which changes the number of weights "
        "several times between evaluations.",
        "SWAMP was trained at 95 % only. Its accuracies are those of the means of four "
        "networks, its curve those of single ones, and its training FLOPs count for "
        "each of the four also the 150 steps that they share.",
        "STR, continuous sparsification and proximal L1 are left out, because it would "
        "take a search to reach a given sparsity.",
    )
}


def section(
    setting: str, scale: str, measured: Mapping[str, Any]
) -> report_lib.Section:
    """Makes the section of the report on a setting.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      measured: measurements by variant.
    """
    title, frame = variants.TITLES[setting], accuracy_frame(measured)
    names = [run.name for run in variants.of_setting(setting, scale)]
    found = claims.of_runs([name.removeprefix(f"{setting}_") for name in names])
    length = claims.LENGTHS.get((setting, scale), 1.0)
    curves = _curves(measured, "curve")
    layers = pd.DataFrame({name: m["layers"] for name, m in measured.items()}).T
    costs = flop_costs.draw(training_costs(measured), title=title)
    return report_lib.Section(
        name=setting,
        title=title,
        lines=list(NOTES.get(setting, ())),
        claims=claims_lib.judge(found, measured, length=length),
        about_claims=ABOUT_CLAIMS[scale in claims_lib.SEEN],
        tables=[
            report_lib.Table(
                "Methods",
                "Test accuracy in percent, mean ± sample standard deviation over n "
                "seeds, and the 90 % confidence interval of the mean. Training FLOPs "
                "are multiples of those of the dense network. Effective sparsity "
                "counts weights on no path from input to output as pruned; ever "
                "active: percent of the weights that were active at some step.",
                show_methods(measured),
            )
        ],
        frames={"accuracies": frame},
        figures={
            "accuracy": plot_curves.curves(
                remaining(measured),
                x="weights kept (%)",
                y="test accuracy (%)",
                title=title,
                scale="remaining",
            ),
            "training": plot_curves.curves(
                curves, x="updates", y="test accuracy (%)", title=title, scale="steps"
            ),
            "exploration": _exploration(measured, title),
            "densities": method_figures.densities(
                layers, names=[_label(name) for name in layers.index], title=title
            ),
            **({} if costs is None else {"flops": costs}),
        },
        captions={
            "accuracy": "Test accuracy against the percentage of weights kept.",
            "training": "Test accuracy during training, by sparsity.",
            "exploration": "Weights that were active at some step so far.",
            "densities": "Percentage of each layer that each method keeps.",
            "flops": "Test accuracy against FLOPs of training, as multiples of dense.",
        },
    )


def remaining(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulates accuracy against the percentage of weights kept, for `plot_curves`.

    Args:
      measured: measurements by variant.
    """
    rows = [
        ("", method_of(name), seed, 100 - round(_sparsity(m, "kept"), 2), accuracy)
        for name, m in measured.items()
        for seed, accuracy in enumerate(m["accuracy"])
        if "small_dense" not in name  # all of its weights are kept
    ]
    return pd.DataFrame(rows, columns=plot_curves.COLUMNS)


def method_of(name: str) -> str:
    """Returns the label of the method of a variant.

    Args:
      name: the variant, such as "rigl_95".
    """
    return _label(name).partition(", ")[0]


def training_costs(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulates accuracy and training FLOPs, for `flop_costs.draw`.

    Args:
      measured: measurements by variant.
    """
    columns = ["label", "run", "level", "replicate"]
    columns += ["test_accuracy", "training_multiple"]
    dense = _dense_flops(measured)
    rows = [
        (method_of(name), name, 0, seed, accuracy, flops / dense)
        for name, m in measured.items()
        for seed, (accuracy, flops) in enumerate(
            zip(m["accuracy"], _flops(m), strict=False)
        )
    ]
    return pd.DataFrame(rows, columns=columns)


def _label(name: str) -> str:
    """Returns the label of a variant, with its sparsity."""
    method, _, sparsity = name.rpartition("_")
    return f"{method.replace('_', ' ')}, {sparsity} %" if method else name


def _sparsity(entry: Mapping[str, Any], kind: str) -> float:
    return 100 * (1 - np.sum(entry[kind]) / np.sum(entry["total"]))


def accuracy_frame(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulates accuracies: one row for each variant and seed.

    Args:
      measured: measurements by variant.
    """
    return pd.DataFrame(
        [
            {"variant": name, "seed": seed, "test_accuracy_percent": accuracy}
            | {kind: m[kind][seed] for kind in ("kept", "effective", "total")}
            for name, m in measured.items()
            for seed, accuracy in enumerate(m["accuracy"])
        ]
    )


def show_methods(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Formats the results, from dense to sparse and by falling accuracy.

    Args:
      measured: measurements by variant.
    """
    order = sorted(
        measured.items(),
        key=lambda pair: (
            int(pair[0].rpartition("_")[2]) if "_" in pair[0] else 0,
            -np.mean(pair[1]["accuracy"]),
        ),
    )
    return pd.DataFrame(
        [
            {
                "Method": _label(name),
                "Sparsity": f"{_sparsity(m, 'kept'):.2f} %",
                "Weights kept": f"{np.mean(m['kept']):,.0f}",
                "n": str(len(m["accuracy"])),
                "Test accuracy": spread(m["accuracy"]),
                "90 % interval": _interval(m["accuracy"]),
                "Training FLOPs": _cost(m, _dense_flops(measured)),
                "Effective sparsity": f"{_sparsity(m, 'effective'):.2f} %",
                "Ever active": f"{np.mean(m['explored'][1], axis=0)[-1]:.1f} %"
                if m["explored"][0]
                else "",
            }
            for name, m in order
        ]
    )


def _interval(accuracies: Sequence[float]) -> str:
    """Formats the 90 % confidence interval of a mean; "" for a single value."""
    interval = effects.above(accuracies).interval
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def _flops(entry: Mapping[str, Any]) -> pd.Series:
    """Returns the FLOPs of training by seed; NaN where unknown."""
    return pd.Series(entry.get("training_flops", ()), dtype=float)


def _dense_flops(measured: Mapping[str, Any]) -> float:
    """Returns the FLOPs of training the dense network; NaN if it is missing."""
    return float(_flops(measured.get("dense", {})).mean())


def _cost(entry: Mapping[str, Any], dense: float) -> str:
    """Formats training FLOPs as a multiple of dense training; "" where unknown."""
    multiple = _flops(entry).mean() / dense
    return f"{multiple:.2f}x" if multiple == multiple else ""


def _curves(measured: Mapping[str, Any], kind: str) -> pd.DataFrame:
    """Makes the rows of lines by step, one panel for each sparsity."""
    parts = []
    for name, m in measured.items():
        method, _, sparsity = name.rpartition("_")
        panel = f"{sparsity} %" if method else "dense"
        parts.append(tables.lines(*m[kind], panel=panel, label=name))
    table = tables.concat(parts, plot_curves.COLUMNS)
    return table[table["x"] > 0]  # untrained networks would flatten the curves


def _exploration(measured: Mapping[str, Any], title: str) -> Any:
    """Draws the weights that were ever active; None if no method changes masks."""
    table = _curves({n: m for n, m in measured.items() if m["explored"][0]}, "explored")
    if table.empty:
        return None
    columns = {"x": "step", "y": "explored"}
    table = table.rename(columns=columns).assign(run=table["label"])
    return method_figures.exploration(table, title=title)
