"""Every method of sparse training at equal sparsity.

Scales `quick` and `cpu` train LeNet-300-100 on MNIST at 95 % and 98 %, all methods as
in `configs/random_mnist.py`: `quick` for 300 updates with 2 seeds; `cpu` with 5 seeds
for 4,690 updates, 10 epochs, two fifths of the published length, with as many mask
updates. `full` trains the published 11,719 updates, and ResNet-20 on CIFAR-10 at 90 %
and 95 % for 160 epochs with 3 seeds, all methods as in `configs/random_cifar.py`: for a
GPU.

Settings without a recipe in `configs/` are ours: SNFS, GraNet, MEST and AC/DC update
masks after every twentieth of training, up to three quarters of it (AC/DC after a dense
tenth); GraNet starts at 50 %, as in its paper; Top-KAST trains twice as many weights as
it computes with, chosen every 100 updates; straight-through masks are chosen at every
update; tickets are those of 7 levels, rewound to initialization, that end at the
sparsity of the other methods.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies import report as report_lib
from experiments.studies import run_reader, tables
from experiments.studies.effects import spread
from experiments.studies.run_reader import Reader
from experiments.studies.runs import Run
from experiments.studies.study import Study
from jaxsparse.reports import flop_costs, method_figures, plot_curves

LEVELS = 7  # of iterative pruning, to exactly the sparsity of the other methods
# Hidden sizes of dense networks with about as many weights: 784-a-b-10.
SMALL = {0.95: (16, 29), 0.98: (6, 39)}
SPARSITIES = {"mnist": (0.95, 0.98), "cifar": (0.9, 0.95)}
TITLES = {"mnist": "LeNet-300-100 on MNIST", "cifar": "ResNet-20 on CIFAR-10"}


def runs(setting: str, scale: str) -> list[Run]:
    """Lists the runs of a setting, by sparsity.

    Args:
      setting: one of `SPARSITIES`.
      scale: one of `studies.SCALES`.
    """
    if scale == "cifar16" or (setting == "cifar" and scale != "full"):
        return []
    return _of_setting(setting, SPARSITIES[setting], scale)


def measure(reader: Reader, other: Callable[[str], Reader]) -> dict[str, Any]:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: not used: runs are compared by their measurements.

    Returns:
      By seed: "accuracy" in percent, "kept", "effective" and "total", numbers of
      weights; "layers", the percentage of each layer that is kept, averaged; "curve"
      and "explored", accuracies and percentages of weights that were ever active, by
      step; "training_flops", multiples of dense training, [] where unknown.
    """
    del other
    rows = reader.last()
    counts = [r for r in reader.last("mask_stats") if r.get("ever_active") is not None]
    explored = run_reader.table(
        counts, "step", lambda row: 100 * row["ever_active"] / row["total"]
    )
    names = rows[0]["layers"]
    return {
        "training_flops": [row["training_multiple"] for row in reader.last("flops")],
        "accuracy": list(map(run_reader.accuracy, rows)),
        "kept": [row["kept"] for row in rows],
        "effective": [row["effective_params"] for row in rows],
        "total": [row["total"] for row in rows],
        "layers": {
            name: float(
                np.mean([100 * np.divide(*row["layers"][name]) for row in rows])
            )
            for name in names
        },
        "curve": reader.curve(),
        "explored": (explored[0], explored[1].tolist()),
    }


def section(
    setting: str, scale: str, measured: Mapping[str, Any]
) -> report_lib.Section:
    """Makes the section of the report on a setting.

    Args:
      setting: one of `SPARSITIES`.
      scale: one of `studies.SCALES`.
      measured: measurements by variant.
    """
    del scale
    title, frame = TITLES[setting], accuracy_frame(measured)
    curves = _curves(measured, "curve")
    layers = pd.DataFrame({name: m["layers"] for name, m in measured.items()}).T
    costs = flop_costs.draw(training_costs(measured), title=title)
    return report_lib.Section(
        name=setting,
        title=title,
        tables=[
            report_lib.Table(
                "Methods",
                "Test accuracy in percent, mean ± sample standard deviation over n "
                "seeds. Effective sparsity counts weights on no path from input to "
                "output as pruned; ever active: percent of the weights that were "
                "active at some step.",
                show_methods(measured),
            )
        ],
        frames={"accuracies": frame},
        figures={
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
            "training": "Test accuracy during training, by sparsity.",
            "exploration": "Weights that were active at some step so far.",
            "densities": "Percentage of each layer that each method keeps.",
            "flops": "Test accuracy against FLOPs of training, as multiples of dense.",
        },
    )


def training_costs(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulates accuracy and training FLOPs, for `flop_costs.draw`.

    Args:
      measured: measurements by variant.
    """
    columns = ["label", "run", "level", "replicate"]
    columns += ["test_accuracy", "training_multiple"]
    rows = [
        (_label(name).partition(", ")[0], name, 0, seed, accuracy, multiple)
        for name, m in measured.items()
        for seed, (accuracy, multiple) in enumerate(
            zip(m["accuracy"], m.get("training_flops", ()), strict=False)
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
                "Effective sparsity": f"{_sparsity(m, 'effective'):.2f} %",
                "Ever active": f"{np.mean(m['explored'][1], axis=0)[-1]:.1f} %"
                if m["explored"][0]
                else "",
            }
            for name, m in order
        ]
    )


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


def _of_setting(data: str, sparsities: tuple[float, ...], scale: str) -> list[Run]:
    preset = ":quick" if scale == "quick" else ""
    short = {"training.duration": "4690step"} if scale == "cpu" else {}
    listed = [Run(f"{data}_dense", f"configs/random_{data}.py{preset}", DENSE | short)]
    for sparsity in sparsities:
        for name, base, fields in _methods(sparsity, data):
            if scale == "cpu" and base in ("set", "rigl", "rigl_erk"):
                fields = fields | {"sparse.update_every": "200step"}
            folder = f"{data}_{name}_{round(100 * sparsity)}"
            recipe = f"configs/{base}_{data}.py{preset}"
            listed.append(Run(folder, recipe, fields | short))
    return listed


# Removes the sparse training of the recipe `random`.
DENSE = {"sparse.method": "none", "sparse.sparsity": 0.9}


def _methods(sparsity: float, data: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Lists name, recipe and differing fields of the methods at a sparsity."""
    at = {"sparse.sparsity": sparsity}
    fraction = 1 - (1 - sparsity) ** (1 / LEVELS)
    tickets = {"lottery.levels": LEVELS, "lottery.fraction": fraction}
    often = {"sparse.update_every": "5%", "sparse.end_step": "75%"}
    more = {
        "snfs": often,
        "granet": often,
        "mest": often,
        "ac_dc": often | {"sparse.begin_step": "10%"},
        "ste": {"sparse.update_every": "1step"},
        "top_kast": {
            "sparse.backward_sparsity": round(1 - 2 * (1 - sparsity), 6),
            # Its own regularization replaces weight decay.
            "sparse.outside_regularization": 2e-4,
            "optimizer.weight_decay": 0.0,
            "optimizer.weight_decay_mask": "all",
        },
    }
    methods = [
        ("random_uniform", "random", {"sparse.distribution": "uniform"}),
        ("random_erk", "random", {"sparse.distribution": "erk"}),
        ("magnitude", "random", {"sparse.pai_score": "magnitude"}),
        ("snip", "snip", {}),
        ("grasp", "grasp", {}),
        ("grasp_absolute", "grasp", {"sparse.pai_score": "grasp_absolute"}),
        ("synflow", "synflow", {}),
        ("set", "set", {}),
        ("rigl", "rigl", {}),
        ("rigl_erk", "rigl_erk", {}),
        *(
            (name, "random", {"sparse.method": name} | own)
            for name, own in more.items()
        ),
        ("gmp", "gmp", {}),
    ]
    listed = [(name, base, at | fields) for name, base, fields in methods]
    listed.append(("tickets", "random", DENSE | tickets))
    if data == "mnist":
        sizes = {"model.features": SMALL[sparsity]}
        listed.append(("small_dense", "random", DENSE | sizes))
    return listed


STUDY = Study(
    name="sparse_training",
    description="every method of sparse training at equal sparsity",
    title="Report: sparse training",
    settings=tuple(SPARSITIES),
    runs=runs,
    measure=measure,
    section=section,
)
