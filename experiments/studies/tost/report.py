"""Report: the section of the study on a setting."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from experiments.studies import claims as claims_lib
from experiments.studies import report as report_lib
from experiments.studies.effects import spread
from experiments.studies.tost import claims, figures, variants
from experiments.studies.tost.variants import LABELS, MASK_LABELS, Cell

Found = dict[str, Any]
RATE = 0.05  # false discoveries among the gains that help or hurt
LEARNED = 25  # percent; below it, a network of ten classes has learned almost nothing
PUBLISHED_EPOCHS = 182  # on CIFAR; the paper does not train on MNIST
TITLES = {
    "mlp": "LeNet-300-100 on MNIST",
    "lenet": "LeNet-5 on MNIST",
    "resnet8": "ResNet-8 on CIFAR-10 at 16x16 pixels",
    "resnet": "ResNet-32 on CIFAR-10",
}
_PILOT = (
    " Of a pilot, the accuracy of one seed with random masks at 98 % had been seen "
    "before they were first written."
)
_CELL = ["mask", "sparsity_percent"]


def section(
    setting: str, scale: str, measured: Mapping[str, Any]
) -> report_lib.Section | None:
    """Makes the section of the report on a setting; None without runs to show.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      measured: measurements by variant.
    """
    found = variants.arrange(setting, scale, measured)
    if not found["cells"]:
        return None
    accuracies, gains = accuracy_frame(found), gain_frame(found)
    factors = factor_frame(found)
    shortest = min(entry["epochs"] for _, _, entry in _each(found))
    return report_lib.Section(
        name=setting,
        title=TITLES[setting],
        lines=_lines(setting, found),
        claims=claims_lib.judge(
            claims_lib.at_scale(claims.CLAIMS, scale),
            found,
            length=shortest / PUBLISHED_EPOCHS,
        ),
        about_claims=claims_lib.about_thresholds(claims.CLAIMS, scale) + _PILOT,
        tables=[
            report_lib.Table(
                "Technique × mask",
                "Test accuracy at the end of training in percent, mean ± sample "
                "standard deviation over n seeds. Techniques that are never removed "
                "are part of the network that is tested: other activations, or skips "
                "with weights in addition to those that are kept.",
                _spreads(accuracies, _CELL, "variant", "test_accuracy_percent"),
            ),
            report_lib.Table(
                "Gains",
                "Percentage points over no technique, seed by seed, mean ± sample "
                "standard deviation over n seeds. Helps, hurts: by two-sided paired "
                "t-tests, adjusted (q) so that at most "
                f"{100 * RATE:g} % false discoveries are expected among all of this "
                "table (Benjamini and Hochberg). Not shown: no significant difference.",
                show_gains(gains),
                long=True,
            ),
            report_lib.Table(
                "GradInit",
                "Factors that kernels were multiplied by, mean ± sample standard "
                "deviation over n seeds; and the percentage of updates in which the "
                "gradient norm was above its maximum, so that it was reduced instead.",
                show_factors(factors),
                long=True,
            ),
        ],
        frames={"accuracies": accuracies, "gains": gains, "factors": factors},
        figures={
            "gains": figures.gains(found, TITLES[setting]),
            "training": figures.training(found, TITLES[setting]),
        },
        captions=figures.CAPTIONS,
    )


def _each(found: Found) -> list[tuple[Cell, str, Found]]:
    """Lists cell, variant and measurements of all runs."""
    return [
        (cell, name, entry)
        for cell, named in found["cells"].items()
        for name, entry in named.items()
    ]


def _lines(setting: str, found: Found) -> list[str]:
    """Describes the length of training, the seeds, and what is missing."""
    first = _each(found)[0][2]
    lines = [
        f"{first['steps']:,} updates, {first['epochs']:g} epochs, "
        f"{len(first['accuracy'])} seeds."
    ]
    if setting.startswith("resnet"):
        part = first["epochs"] / PUBLISHED_EPOCHS
        lines.append(f"That is {part:.2g} of the published {PUBLISHED_EPOCHS} epochs.")
    else:
        lines.append(
            "The paper trains on CIFAR and Tiny ImageNet only: its claims are "
            "extrapolated to MNIST."
        )
    failed = []
    for cell, name, entry in _each(found):
        count = sum(accuracy < LEARNED for accuracy in entry["accuracy"])
        if count:
            where = f"{MASK_LABELS[cell.mask]} {cell.sparsity} % with {LABELS[name]}"
            failed.append(f"{where} ({count} of {len(entry['accuracy'])})")
    if failed:
        lines.append(
            f"Seeds that end below {LEARNED} %: {', '.join(failed)}. They are part of "
            "all means and tests."
        )
    return lines


def accuracy_frame(found: Found) -> pd.DataFrame:
    """Tabulates accuracies: one row for each cell, variant and seed.

    Args:
      found: the measurements of the study.
    """
    return pd.DataFrame(
        [
            {
                "mask": cell.mask,
                "sparsity_percent": cell.sparsity,
                "variant": name,
                "seed": seed,
                "test_accuracy_percent": accuracy,
                "kept": entry["kept"],
                "total": entry["total"],
                "effective_params": entry["effective_params"][seed],
                "updates": entry["steps"],
            }
            for cell, name, entry in _each(found)
            for seed, accuracy in enumerate(entry["accuracy"])
        ]
    )


def gain_frame(found: Found) -> pd.DataFrame:
    """Tabulates gains: one row for each cell and variant, with a two-sided test.

    Args:
      found: the measurements of the study.
    """
    rows = []
    for cell, name, _ in _each(found):
        if name == "none" or "none" not in found["cells"][cell]:
            continue
        gain = claims.gain(found["cells"][cell], name)
        rows.append(
            {
                "mask": cell.mask,
                "sparsity_percent": cell.sparsity,
                "variant": name,
                "n": len(gain),
                "gain_points": float(gain.mean()),
                "sd_points": float(gain.std(ddof=1)) if len(gain) > 1 else np.nan,
                "p": _p(gain),
            }
        )
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    known = frame["p"].notna()
    frame["q"] = np.nan
    if known.any():
        frame.loc[known, "q"] = stats.false_discovery_control(frame.loc[known, "p"])
    pairs = zip(frame["gain_points"], frame["q"], strict=True)
    frame["verdict"] = [verdict(gain, q) for gain, q in pairs]
    return frame


def _p(gain: np.ndarray) -> float:
    """Tests whether the mean differs from 0, two-sided; NaN if it cannot be tested."""
    if len(gain) < 2 or np.ptp(gain) <= 1e-9 * np.max(np.abs(gain)):
        return float("nan")
    return float(stats.ttest_1samp(gain, 0.0).pvalue)


def verdict(gain: float, q: float) -> str:
    """Judges whether a technique helps in a cell.

    Args:
      gain: mean over seeds, in points.
      q: adjusted p-value of a two-sided test; may be NaN.
    """
    if not q < RATE:
        return "not shown"
    return "helps" if gain > 0 else "hurts"


def factor_frame(found: Found) -> pd.DataFrame:
    """Tabulates factors: one row for each cell, variant, seed and tensor.

    Args:
      found: the measurements of the study.
    """
    return pd.DataFrame(
        [
            {
                "mask": cell.mask,
                "sparsity_percent": cell.sparsity,
                "variant": name,
                "seed": seed,
                "tensor": tensor,
                "factor": factor,
                "constrained_percent": entry["constrained"][seed],
            }
            for cell, name, entry in _each(found)
            for tensor, factors in entry.get("factors", {}).items()
            for seed, factor in enumerate(factors)
        ]
    )


def _spreads(
    frame: pd.DataFrame, rows: list[str], columns: str, values: str
) -> pd.DataFrame:
    """Formats means over seeds, with a row and a column for each value of fields."""
    groups = frame.groupby([*rows, columns], sort=False)[values]
    cells = groups.agg(lambda each: spread(each.to_numpy()))
    order = list(frame[columns].unique())
    wide = cells.unstack(columns, sort=False)[order].fillna("")
    counts = frame.groupby(rows, sort=False)["seed"].nunique().astype(str)
    return _labeled(wide.rename(columns=LABELS).assign(n=counts).reset_index(), rows)


def _labeled(frame: pd.DataFrame, rows: list[str]) -> pd.DataFrame:
    """Formats the fields that identify a row, which come first, before n."""
    formats = {
        "mask": ("Mask", MASK_LABELS.get),
        "sparsity_percent": ("Sparsity", "{} %".format),
        "variant": ("Technique", LABELS.get),
    }
    shown = {formats[name][0]: frame[name].map(formats[name][1]) for name in rows}
    rest = [name for name in frame if name not in (*rows, "n")]
    return pd.DataFrame(shown | {"n": frame["n"].astype(str)} | dict(frame[rest]))


def show_gains(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats `gain_frame`.

    Args:
      frame: from `gain_frame`.
    """
    if frame.empty:
        return frame
    sds = [f" ± {sd:.2f}" if sd == sd else "" for sd in frame["sd_points"]]
    made = frame[[*_CELL, "variant", "n"]].assign(
        Gain=[f"{g:+.2f}{sd}" for g, sd in zip(frame["gain_points"], sds, strict=True)],
        p=[f"{p:.2g}" if p == p else "" for p in frame["p"]],
        q=[f"{q:.2g}" if q == q else "" for q in frame["q"]],
        Verdict=frame["verdict"],
    )
    return _labeled(made, [*_CELL, "variant"])


def show_factors(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats the factors of kernels: one row for each cell and variant.

    Args:
      frame: from `factor_frame`.
    """
    if frame.empty:
        return frame
    rows = [*_CELL, "variant"]
    kernels = frame.loc[frame["tensor"].str.endswith("kernel")]
    shown = _spreads(kernels, rows, "tensor", "factor")
    each = frame.drop_duplicates([*rows, "seed"]).groupby(rows, sort=False)
    constrained = each["constrained_percent"].agg(
        lambda values: spread(values.to_numpy(), digits=0)
    )
    return shown.assign(Reduced=constrained.to_numpy())
