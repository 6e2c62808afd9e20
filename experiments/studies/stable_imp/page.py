"""What the page of the study says and shows of a network."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies import verdicts
from experiments.studies.stable_imp import arms, claims
from jaxsparse.reports import study, study_figures, study_lines, text

Found = dict[str, Any]
TITLES = {
    "quick": {
        "mnist": "LeNet-300-100 on 2,000 images of MNIST",
        "cifar": "LeNet-5 on 1,000 images of CIFAR-10",
    },
    "cpu": {
        "mnist": "LeNet-300-100 on MNIST",
        "cifar": "LeNet-5 on 5,000 images of CIFAR-10",
    },
    "full": {"mnist": "LeNet-300-100 on MNIST", "cifar": "ResNet-20 on CIFAR-10"},
}
# Epochs and rounds as published: of LeNet-300-100; of ResNet-20, or of Conv-4.
PUBLISHED = {"mnist": (25, 25), "cifar": (85, 25)}
PUBLISHED_SMALL = (75, 25)
WRITTEN = (
    "All thresholds were written before any run of the study had pruned; the batch "
    "sizes were chosen by the instability of dense networks alone."
)
CAPTIONS = {
    "onset": (
        "Instability, of test error in percentage points, between children that begin "
        "at an update of training and differ in the order of data only."
    ),
    "onset_segments": "Test error between two children, by the update they begin at.",
    "rounds": (
        "Test accuracy of tickets rewound to initialisation and of the same masks with "
        "fresh weights, by the weights remaining."
    ),
    "stability": (
        "Instability of rounds, and how far the test error rises between a round and "
        "the one before, in percentage points."
    ),
    "angles": (
        "Angular distance between the solutions of rounds, over the weights that both "
        "have, in right angles, averaged over seeds; the last row and column are the "
        "initialisation."
    ),
    "thresholds": (
        "Largest magnitude that was pruned after each round: the pruning threshold."
    ),
    "histogram": (
        "Weights of the first seed at the round next to 10.7 % remaining; lines: where "
        "they are cut next."
    ),
}


def section(network: str, scale: str, found: Found) -> study.Section:
    """Makes the part of the page on a network.

    Args:
      network: one of `arms.NETWORKS`.
      scale: one of `arms.SCALES`.
      found: what `measuring.measure` returned.
    """
    levels, stability, onset = (
        rounds_frame(found),
        stability_frame(found),
        onset_frame(found),
    )
    called = {arm: label(arm, network, scale) for arm in found["arms"]}
    return study.Section(
        name=network,
        title=TITLES[scale][network],
        lines=_lines(network, scale, found),
        claims=verdicts.judge(claims.CLAIMS, found),
        about_claims=WRITTEN,
        tables=[
            study.Table(
                "Rounds",
                "Test accuracy in percent, mean ± sample standard deviation over n "
                "seeds. The gap is that of tickets to controls, seed by seed.",
                show_rounds(levels, called),
                long=True,
            ),
            study.Table(
                "Stability",
                "Percentage points, mean ± sample standard deviation over n seeds: "
                "instability between children of a round, and the rise of the error "
                "between a round and the one before.",
                show_means(stability, ["test", "train", "rise"], called),
            ),
            study.Table(
                "Onset of stability",
                "Instability in percentage points of error, distance over all "
                "parameters, and test examples classified differently in percent, "
                "between children that begin at an update.",
                show_means(onset, ["test", "train", "l2", "different"], called),
            ),
        ],
        frames={"rounds": levels, "stability": stability, "onset": onset},
        figures=figures(network, scale, found),
        captions=CAPTIONS,
    )


def label(arm: str, network: str, scale: str) -> str:
    """Names an arm for people."""
    sizes = arms.BATCHES[scale][network]
    names = {
        "small": f"batches of {sizes.small}",
        "large": f"batches of {sizes.large}",
        "repelled": f"{sizes.large}, repelled",
        "attracted": f"{sizes.small}, attracted",
    }
    plain = arm.removeprefix("batch_").replace("_warmup", ", warm-up")
    return names.get(arm, f"batches of {plain}")


def _lines(network: str, scale: str, found: Found) -> list[str]:
    """Says how much of the published training there was."""
    whole, most = PUBLISHED[network]
    if scale != "full" and network == "cifar":
        whole, most = PUBLISHED_SMALL
    lines = []
    for arm, entry in found["arms"].items():
        called, epochs = label(arm, network, scale), entry["epochs"]
        lines.append(
            f"{called}: {entry['steps']:,} updates a round, {epochs:g} of {whole} "
            f"published epochs ({epochs / whole:.0%}), {entry['levels'][-1]} of {most} "
            f"rounds, {len(entry['ticket'])} seeds."
        )
    return lines


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


_WORDS = {
    "test": "Test",
    "train": "Train",
    "rise": "Rise",
    "l2": "Distance",
    "different": "Different",
}


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
    return text.plus_minus(known.mean(), known.std()) if len(known) else ""


def figures(network: str, scale: str, found: Found) -> dict[str, Any]:
    """Draws what there is; None for a figure without anything to show."""
    title = TITLES[scale][network]
    of = {label(arm, network, scale): entry for arm, entry in found["arms"].items()}
    return _of_onset(found.get("onset", []), title) | {
        "rounds": _accuracies(of, title),
        "stability": _stability(of, title),
        "angles": _angles(of, title),
        "thresholds": study_lines.curves(
            [
                study_lines.Panel(
                    "",
                    [
                        study_lines.Curve(name, e["remaining"][:-1], e["thresholds"])
                        for name, e in of.items()
                    ],
                )
            ],
            x="weights remaining (%)",
            y="pruning threshold",
            title=title,
            scale="remaining",
        ),
        "histogram": _histogram(of, title),
    }


def _of_onset(onset: list[Found], title: str) -> dict[str, Any]:
    curves = [
        study_lines.Curve(
            "dense" if line["level"] == 0 else f"round {line['level']}",
            line["steps"],
            line["instability"],
        )
        for line in onset
    ]
    threshold = (100 * claims.STABLE, "stable below 2")
    segments = [
        study_lines.Panel(
            "dense" if line["level"] == 0 else f"round {line['level']}",
            [
                study_lines.Curve(f"from {part['step']}", part["alphas"], part["error"])
                for part in line["segments"]
            ],
        )
        for line in onset
    ]
    return {
        "onset": study_lines.curves(
            [study_lines.Panel("", curves, threshold)],
            x="update at which children begin",
            y="instability (points)",
            title=title,
            scale="steps",
        ),
        "onset_segments": study_lines.segments(segments, title=title, ordered=True),
    }


def _accuracies(of: dict[str, Found], title: str) -> Any:
    panels = []
    for name, entry in of.items():
        lines = [
            study_lines.Curve("tickets", entry["remaining"], entry["ticket"]),
            study_lines.Curve(
                "reinitialised", entry["remaining"], entry["reinitialized"]
            ),
        ]
        panels.append(study_lines.Panel(name, lines))
    return study_lines.curves(
        panels,
        x="weights remaining (%)",
        y="test accuracy (%)",
        title=title,
        scale="remaining",
    )


def _stability(of: dict[str, Found], title: str) -> Any:
    threshold = (100 * claims.STABLE, "stable below 2")
    children, rises = [], []
    for name, entry in of.items():
        at = dict(zip(entry["levels"], entry["remaining"], strict=True))
        levels = sorted(map(int, entry["instability"]))
        if levels:
            by = {int(k): v for k, v in entry["instability"].items()}
            values = np.asarray([by[level] for level in levels]).T
            places = [at[level] for level in levels]
            children.append(study_lines.Curve(name, places, values))
        if entry["successive_levels"]:
            places = [at[level] for level in entry["successive_levels"]]
            rises.append(study_lines.Curve(name, places, entry["successive"]))
    return study_lines.curves(
        [
            study_lines.Panel("children of a round", children, threshold),
            study_lines.Panel("a round and the one before", rises, threshold),
        ],
        x="weights remaining (%)",
        y="rise of the test error (points)",
        title=title,
        scale="remaining",
    )


def _angles(of: dict[str, Found], title: str) -> Any:
    if not of:
        return None
    entries = {name: np.mean(e["angles"], axis=0) for name, e in of.items()}
    labels = max((e["labels"] for e in of.values()), key=len)
    alike = {name: m for name, m in entries.items() if len(m) == len(labels)}
    measure = study_figures.Measure("right angles", alike, (0.0, 1.0))
    return study_figures.matrices([measure], labels=labels, axis="round", title=title)


def _histogram(of: dict[str, Found], title: str) -> Any:
    """Draws the weights at the round that is next to 10.7 % remaining."""
    entries, edges = [], None
    for name, entry in of.items():
        levels = entry["remaining"][: len(entry["thresholds"][0])]
        if not levels:
            continue
        place = int(np.argmin(np.abs(np.log(np.asarray(levels) / 10.7))))
        counts = np.asarray(entry["histograms"][place]["counts"])
        own = np.asarray(entry["histograms"][place]["edges"])
        edges = own if edges is None or own[-1] > edges[-1] else edges
        values = np.repeat((own[:-1] + own[1:]) / 2, counts)
        threshold = entry["thresholds"][0][place]
        entries.append(study_figures.Values(name, values, threshold))
    return study_figures.histograms(entries, x="weight", title=title, bins=60)
