"""What the page of the study says and shows of a network."""

from typing import Any

import numpy as np
import pandas as pd

from experiments.studies import claims as claims_lib
from experiments.studies.data_diet import analysis, claims, published, variants
from jaxsparse.reports import formatting, plot_curves, study, study_figures

Found = dict[str, Any]
TITLES = {
    "mnist": dict.fromkeys(variants.SCALES, "LeNet-300-100 on MNIST"),
    "cifar": {
        "quick": "LeNet-5 on 1,000 images of CIFAR-10",
        "cpu": "LeNet-5 on 5,000 images of CIFAR-10",
        "full": "ResNet-20 on CIFAR-10",
    },
}
PUBLISHED = (62_400, 20)  # updates and levels of ResNet-20 on CIFAR-10
PUBLISHED_SCORED = 7_800  # updates of the networks that score
WRITTEN = (
    "All thresholds were written before any run of this study. Arms with wrong labels "
    "joined the scale `cpu` when its others on MNIST were known."
)
MEASURES = {
    "mean_barrier": "mean barrier (nats)",
    "connected": f"connected fraction, up to {claims.CONNECTED:g} nats",
    "connected_0": "connected fraction, up to 0",
    "pretrained": "test accuracy after pre-training (%)",
    "instability": "instability (points of test error)",
    "sharpness_start": "largest eigenvalue after pre-training",
    "sharpness_end": "largest eigenvalue after dense training",
}
CAPTIONS = {
    "levels": "Test accuracy of tickets by the weights remaining.",
    "sizes": (
        "Test accuracy of tickets in late levels, by the number of examples that the "
        "network was pre-trained on; level lines: on all data."
    ),
    "barrier": (
        "Mean per-example barrier between dense networks that train from where tickets "
        "are rewound to, and late test accuracy of the tickets; one point an arm, of "
        "which there are n, bars are s.d. over seeds."
    ),
    "connected": (
        "Fraction of training examples that are linearly mode connected, and late test "
        "accuracy of the tickets."
    ),
    "pretrained": (
        "Test accuracy after pre-training, and late test accuracy of the tickets."
    ),
    "sharpness": (
        "Largest eigenvalue of the Hessian of the dense training loss, on its first "
        "examples, and late test accuracy of the tickets."
    ),
    "barriers": "Per-example barriers of all pairs and seeds, as fractions.",
}


def label(arm: str) -> str:
    """Names an arm for people."""
    names = {"k0": "all data, 0", "k1": "all data, k", "k2": "all data, 2k"}
    kind, _, size = arm.partition("_")
    plain = {"easy": "easiest", "random": "random", "hard": "hardest"}
    if kind == "noise":
        return f"{size} % wrong labels, k"
    return names.get(arm, f"{plain.get(kind, kind)} {size}, k")


def section(network: str, scale: str, found: Found) -> study.Section:
    """Makes the part of the page on a network.

    Args:
      network: one of `arms.NETWORKS`.
      scale: one of `arms.SCALES`.
      found: what `measuring.measure` returned.
    """
    levels, summary, ranks = levels_frame(found), arms_frame(found), ranks_frame(found)
    return study.Section(
        name=network,
        title=TITLES[network][scale],
        lines=_lines(network, scale, found),
        claims=claims_lib.judge(claims.CLAIMS, found),
        about_claims=WRITTEN,
        tables=[
            study.Table(
                "Tickets",
                "Test accuracy in percent, mean ± sample standard deviation over n "
                "seeds: of the dense network, of tickets in late levels and at the "
                "last; and what was measured before any ticket was sought. Connected "
                "are the percent of training examples with a barrier of at most "
                f"{claims.CONNECTED:g} nats.",
                show_arms(summary),
            ),
            study.Table(
                "Beside the published",
                "What tickets gain over those of 0 updates with as many weights "
                "remaining, in points of test accuracy, seed by seed; in brackets what "
                "is published of ResNet-20 on CIFAR-10, for as large a part of the "
                "data.",
                published.show(found, label=label),
            ),
            study.Table(
                "What predicts tickets",
                "Spearman's rank correlation over arms with the late accuracy of "
                "tickets, two-sided p. Eigenvalues are of the Hessian of the dense "
                f"training loss on the first {analysis.HESSIAN_EXAMPLES[scale]:,} "
                "examples.",
                show_ranks(ranks),
            ),
            study.Table(
                "Connected examples by class",
                f"Percent with a barrier of at most {claims.CONNECTED:g} nats, of all "
                "pairs and seeds.",
                show_classes(found),
                long=True,
            ),
            study.Table(
                "Levels",
                "Test accuracy of tickets in percent.",
                show_levels(levels),
                long=True,
            ),
        ],
        frames={"levels": levels, "arms": summary, "ranks": ranks},
        figures=figures(network, scale, found),
        captions=CAPTIONS,
    )


def _lines(network: str, scale: str, found: Found) -> list[str]:
    """Says how much of the published training there was."""
    entry, sizes = next(iter(found["arms"].values())), variants.SIZES[scale][network]
    steps, most = PUBLISHED
    lines = [
        f"{entry['steps']:,} updates a level ({entry['epochs']:g} epochs), "
        f"{entry['levels'][-1]} levels, k = {sizes.k}, {len(entry['ticket'])} seeds.",
        f"Published are {steps:,} updates ({entry['steps'] / steps:.1%} of them here), "
        f"{most} levels and k = {variants.SIZES['full']['cifar'].k}, of ResNet-20 on "
        "all of CIFAR-10."
        + (" The paper has nothing on MNIST." if network == "mnist" else ""),
    ]
    if "scored" in found:
        count, updates = found["scored"]
        lines.append(
            f"Examples were scored by {count} other networks after {updates:,} "
            f"updates; published are 16 after {PUBLISHED_SCORED:,} "
            f"({updates / PUBLISHED_SCORED:.1%} here)."
        )
    lines.append(claims_lib.of_segments(*entry["segment"]))
    return [*lines, *claims_lib.not_here(found)]


def levels_frame(found: Found) -> pd.DataFrame:
    """Tabulates accuracies: a row an arm, level and seed, in percent."""
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "level": level,
                "remaining_percent": entry["remaining"][i],
                "seed": r,
                "ticket_percent": accuracies[i],
            }
            for arm, entry in found["arms"].items()
            for r, accuracies in enumerate(entry["ticket"])
            for i, level in enumerate(entry["levels"])
        ]
    )


def arms_frame(found: Found) -> pd.DataFrame:
    """Tabulates what there is of every arm and seed."""
    rows = []
    for arm, entry in found["arms"].items():
        late = claims.late(entry)
        for r, accuracies in enumerate(entry["ticket"]):
            row = {"arm": arm, "seed": r, "rewind": entry["rewind"]}
            row |= {"dense": accuracies[0], "late": late[r], "last": accuracies[-1]}
            row |= {name: entry[name][r] for name in MEASURES}
            rows.append(row)
    return pd.DataFrame(rows)


def ranks_frame(found: Found) -> pd.DataFrame:
    """Tabulates rank correlations of measures with late accuracy, over arms."""
    rows = []
    for measure in MEASURES:
        try:
            rho, p, n = claims.correlation(found, measure)
        except claims_lib.Missing:
            continue
        rows.append({"measure": measure, "spearman": rho, "p": p, "arms": n})
    return pd.DataFrame(rows)


def show_arms(frame: pd.DataFrame) -> pd.DataFrame:
    """Words the means over seeds of every arm."""
    rows = []
    for arm, part in frame.groupby("arm", sort=False):
        row = {"Pre-training": label(str(arm)), "n": str(len(part))}
        row |= {
            "Dense": _mean(part["dense"]),
            "Tickets, late": _mean(part["late"]),
            "Last level": _mean(part["last"]),
            "After pre-training": _mean(part["pretrained"]),
            "Mean barrier": _mean(part["mean_barrier"], 4),
            "Connected": _mean(100 * part["connected"], 1),
            "At 0 nats": _mean(100 * part["connected_0"], 1),
            "Sharpness": _mean(part["sharpness_end"], 1),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def show_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Words the correlations."""
    return pd.DataFrame(
        [
            {
                "Measure": MEASURES[row["measure"]],
                "Correlation": f"{row['spearman']:+.2f}",
                "p": f"{row['p']:.2g}",
                "Arms": str(row["arms"]),
            }
            for _, row in frame.iterrows()
        ]
    )


def show_classes(found: Found) -> pd.DataFrame:
    """Words the connected fraction of each class, in percent."""
    return pd.DataFrame(
        [
            {"Pre-training": label(arm)}
            | {str(c): f"{100 * x:.0f}" for c, x in enumerate(entry["by_class"])}
            for arm, entry in found["arms"].items()
        ]
    )


def show_levels(frame: pd.DataFrame) -> pd.DataFrame:
    """Words the accuracy of every arm and level."""
    rows: dict[int, dict[str, Any]] = {}
    for (arm, level), part in frame.groupby(["arm", "level"], sort=False):
        left = part["remaining_percent"].iloc[0]
        row = rows.setdefault(
            level, {"Level": str(level), "Remaining": f"{left:.1f} %"}
        )
        row[label(str(arm))] = _mean(part["ticket_percent"])
    return pd.DataFrame(list(rows.values()))


def _mean(values: pd.Series, digits: int = 2) -> str:
    return formatting.plus_minus(values.mean(), values.std(), digits=digits)


def figures(network: str, scale: str, found: Found) -> dict[str, Any]:
    """Draws what there is; None for a figure without anything to show."""
    title, of = TITLES[network][scale], found["arms"]
    by_accuracy = {
        name: _scatter(found, measure, title)
        for name, measure in {
            "barrier": "mean_barrier",
            "connected": "connected",
            "pretrained": "pretrained",
            "sharpness": "sharpness_end",
        }.items()
    }
    return {
        "levels": _levels(of, title),
        "sizes": _sizes(network, scale, of, title),
        **by_accuracy,
        "barriers": _barriers(found, title),
    }


def _levels(of: dict[str, Found], title: str) -> Any:
    """Draws tickets of all data and of each kind of subset, a panel each."""
    base = [arm for arm in ("k0", "k1", "k2") if arm in of]
    panels = []
    for kind in ("", *variants.KINDS, "noise"):
        own = [arm for arm in of if kind and arm.startswith(f"{kind}_")]
        if kind and not own:
            continue
        lines = [
            plot_curves.Curve(label(arm), of[arm]["remaining"], of[arm]["ticket"])
            for arm in [*base, *own]
        ]
        name = label(f"{kind}_").split()[0] if kind in variants.KINDS else kind
        panels.append(plot_curves.Panel(name or "all data", lines))
    return plot_curves.curves(
        panels,
        x="weights remaining (%)",
        y="test accuracy (%)",
        title=title,
        scale="remaining",
    )


def _sizes(network: str, scale: str, of: dict[str, Found], title: str) -> Any:
    """Draws late accuracy by the size of the subset."""
    lines = []
    for kind in variants.KINDS:
        own = [s for s in variants.SIZES[scale][network].subsets if f"{kind}_{s}" in of]
        values = [claims.late(of[f"{kind}_{size}"]) for size in own]
        if own:
            name = label(f"{kind}_").split()[0]
            lines.append(plot_curves.Curve(name, own, np.transpose(values)))
    sizes = variants.SIZES[scale][network].subsets
    for arm in ("k0", "k1", "k2"):
        if arm in of:
            late = np.stack([claims.late(of[arm])] * len(sizes), axis=1)
            lines.append(plot_curves.Curve(label(arm), sizes, late))
    return plot_curves.curves(
        [plot_curves.Panel("", lines)],
        x="examples in pre-training",
        y="late test accuracy of tickets (%)",
        title=title,
        scale="log",
    )


def _scatter(found: Found, measure: str, title: str) -> Any:
    groups = []
    for kind in ("k", *variants.KINDS, "noise"):
        own = {
            arm: entry
            for arm, entry in found["arms"].items()
            if arm.startswith(f"{kind}_") or (kind == "k" and arm[1:].isdigit())
        }
        if not own:
            continue
        x = [np.asarray(entry[measure]) for entry in own.values()]
        y = [claims.late(entry) for entry in own.values()]
        names = {"k": "all data", "noise": "wrong labels"}
        groups.append(
            study_figures.Points(
                names.get(kind) or label(f"{kind}_").split()[0],
                [v.mean() for v in x],
                [v.mean() for v in y],
                [_sd(v) for v in x],
                [_sd(v) for v in y],
            )
        )
    note = ""
    try:
        rho, p, n = claims.correlation(found, measure)
        note = f"rank correlation {rho:+.2f}, p = {p:.2g}, {n} arms"
    except claims_lib.Missing:
        pass
    return study_figures.scatter(
        groups,
        x=MEASURES[measure],
        y="late test accuracy of tickets (%)",
        title=title,
        note=note,
    )


def _sd(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _barriers(found: Found, title: str) -> Any:
    """Draws how barriers are distributed: all data, and subsets of the usual size."""
    usual = [f"{kind}_{found['usual']}" for kind in variants.KINDS]
    lines = []
    for arm in ("k0", "k1", "k2", *usual):
        if arm not in found["arms"]:
            continue
        counts = np.asarray(found["arms"][arm]["histogram"], float)
        middles = (analysis.BINS[:-1] + analysis.BINS[1:]) / 2
        inner = counts[1:-1] / counts.sum()
        lines.append(plot_curves.Curve(label(arm), middles, inner[None]))
    return plot_curves.curves(
        [plot_curves.Panel("", lines)],
        x="barrier (nats), bins of 0.5",
        y="fraction of examples",
        title=title,
        spread="none",
    )
