"""What the page of the study says of a network."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from experiments.studies import claims as claims_lib
from experiments.studies.tost import claims, figures, labels, variants
from jaxsparse.reports import study

Found = dict[str, Any]
RATE = 0.05  # of false discoveries among the gains that are called so

TITLES = {
    "mlp": "LeNet-300-100 on MNIST",
    "lenet": "LeNet-5 on MNIST",
    "resnet": "ResNet-32 on CIFAR-10",
}
LEARNED = 25  # percent, above which a network of ten classes has learned something
PUBLISHED_EPOCHS = 182  # on CIFAR; the paper trains on no MNIST
WRITTEN = (
    "Thresholds were written before any run of the study but a pilot of two runs, of "
    "which one seed had been seen; p are of one-sided t tests over seeds."
)


def section(network: str, scale: str, found: Found) -> study.Section:
    """Makes the part of the page on a network.

    Args:
      network: one of `arms.NETWORKS`.
      scale: one of `arms.SCALES`.
      found: what `measuring.measure` returned.
    """
    accuracies, gains = accuracy_frame(found), gain_frame(found)
    factors = factor_frame(found)
    resnet = network == "resnet"
    shortest = min(arm["epochs"] for _, _, arm in _each(found))
    enough = not resnet or shortest >= PUBLISHED_EPOCHS / 3
    return study.Section(
        name=network,
        title=TITLES[network],
        lines=_lines(network, found),
        claims=claims_lib.judge(claims.CLAIMS, found, long_enough=enough),
        about_claims=WRITTEN,
        tables=[
            study.Table(
                "Recipe × mask",
                "Test accuracy at the end of training in percent, mean ± sample "
                "standard deviation over n seeds. What is there for good is part of "
                "the network that is tested: other neurons, or skips with weights "
                "beyond those that are kept.",
                show_accuracies(accuracies),
            ),
            study.Table(
                "Gains",
                "Percentage points over no aid, seed by seed, mean ± sample standard "
                "deviation over n seeds. Helps, hurts: by two-sided paired t tests, "
                f"adjusted (q) so that at most {100 * RATE:g} % false discoveries are "
                "expected among all of this table (Benjamini and Hochberg); otherwise "
                "no difference is shown, which is not to say that there is none.",
                show_gains(gains),
                long=True,
            ),
            study.Table(
                "Rescaling",
                "Factors that kernels were multiplied by, mean ± sample standard "
                "deviation over n seeds; and at how many percent of the updates the "
                "gradient was longer than it may be, and was shortened instead.",
                show_factors(factors),
                long=True,
            ),
        ],
        frames={"accuracies": accuracies, "gains": gains, "factors": factors},
        figures={
            "gains": figures.gains(found, TITLES[network]),
            "training": figures.training(found, TITLES[network]),
        },
        captions=figures.CAPTIONS,
    )


def _each(found: Found) -> list[tuple[variants.Cell, str, Found]]:
    return [
        (cell, name, arm)
        for cell, entry in found["cells"].items()
        for name, arm in entry.items()
    ]


def _lines(network: str, found: Found) -> list[str]:
    """Says how long was trained, on how many seeds, and what is missing."""
    first = _each(found)[0][2]
    lines = [
        f"{first['steps']:,} updates, {first['epochs']:g} epochs, "
        f"{len(first['accuracy'])} seeds."
    ]
    if network == "resnet":
        part = first["epochs"] / PUBLISHED_EPOCHS
        lines.append(f"That is {part:.2g} of the published {PUBLISHED_EPOCHS} epochs.")
    else:
        lines.append(
            "The paper trains on CIFAR and Tiny ImageNet only: what its claims say of "
            "MNIST is an extrapolation."
        )
    return [*lines, *_dead(found), *claims_lib.not_here(found)]


def _dead(found: Found) -> list[str]:
    """Says which seeds never learned; a mean over them and others says little."""
    each = []
    for cell, name, arm in _each(found):
        count = sum(accuracy < LEARNED for accuracy in arm["accuracy"])
        if count:
            mask, at = _cell(cell.mask, cell.sparsity)
            seeds = f"{count} of {len(arm['accuracy'])}"
            each.append(f"{mask} {at} with {labels.ARMS[name]} ({seeds})")
    if not each:
        return []
    return [
        f"Seeds that end below {LEARNED} %, and so name a class or two: "
        f"{', '.join(each)}. They are part of all means and tests."
    ]


def accuracy_frame(found: Found) -> pd.DataFrame:
    """Tabulates accuracies: a row a cell, arm and seed."""
    rows = [
        {
            "mask": cell.mask,
            "sparsity_percent": cell.sparsity,
            "arm": name,
            "seed": seed,
            "test_accuracy_percent": accuracy,
            "kept": arm["kept"],
            "total": arm["total"],
            "live": arm["live"][seed],
            "updates": arm["steps"],
        }
        for cell, name, arm in _each(found)
        for seed, accuracy in enumerate(arm["accuracy"])
    ]
    return pd.DataFrame(rows)


def gain_frame(found: Found) -> pd.DataFrame:
    """Tabulates gains: a row a cell and arm, with the p of a test on it."""
    rows = []
    for cell, entry in found["cells"].items():
        for name in entry if "none" in entry else ():
            if name == "none":
                continue
            gain = claims.gain(entry, name)
            rows.append(
                {
                    "mask": cell.mask,
                    "sparsity_percent": cell.sparsity,
                    "arm": name,
                    "n": len(gain),
                    "gain_points": float(gain.mean()),
                    "sd_points": float(gain.std(ddof=1)) if len(gain) > 1 else np.nan,
                    "p": _p(gain),
                }
            )
    frame = pd.DataFrame(rows)
    if not frame.empty:
        known = frame["p"].notna()
        frame["q"] = np.nan
        if known.any():
            adjusted = stats.false_discovery_control(frame.loc[known, "p"])
            frame.loc[known, "q"] = adjusted
        frame["verdict"] = [
            verdict(row.gain_points, row.q) for row in frame.itertuples()
        ]
    return frame


def _p(gain: np.ndarray) -> float:
    """Tests whether the mean differs from 0, two-sided; NaN where none can be."""
    if len(gain) < 2 or claims_lib.are_alike(gain):
        return float("nan")
    return float(stats.ttest_1samp(gain, 0.0).pvalue)


def verdict(gain: float, q: float) -> str:
    """Says of a cell whether an aid helps there.

    Args:
      gain: in points, the mean over seeds.
      q: adjusted p of a two-sided test on it, perhaps NaN.
    """
    if not q < RATE:
        return "not shown"
    return "helps" if gain > 0 else "hurts"


def _cell(mask: str, sparsity: int) -> tuple[str, str]:
    return labels.MASKS[mask], f"{sparsity} %"


def show_accuracies(frame: pd.DataFrame) -> pd.DataFrame:
    """Words accuracies: a row a cell, a column an arm."""
    rows = []
    for (mask, at), part in frame.groupby(["mask", "sparsity_percent"], sort=False):
        called = dict(zip(("Mask", "Sparsity"), _cell(mask, at), strict=True))
        called["n"] = str(part["seed"].nunique())
        for arm, values in part.groupby("arm", sort=False):
            accuracy = values["test_accuracy_percent"].to_numpy()
            called[labels.ARMS[arm]] = claims_lib.spread(accuracy)
        rows.append(called)
    return pd.DataFrame(rows).fillna("")


def show_gains(frame: pd.DataFrame) -> pd.DataFrame:
    """Words gains and verdicts."""
    rows = []
    for row in frame.itertuples():
        mask, at = _cell(row.mask, row.sparsity_percent)
        sd = "" if np.isnan(row.sd_points) else f" ± {row.sd_points:.2f}"
        rows.append(
            {
                "Mask": mask,
                "Sparsity": at,
                "Aid": labels.ARMS[row.arm],
                "n": str(row.n),
                "Gain": f"{row.gain_points:+.2f}{sd}",
                "p": "" if np.isnan(row.p) else f"{row.p:.2g}",
                "q": "" if np.isnan(row.q) else f"{row.q:.2g}",
                "Verdict": row.verdict,
            }
        )
    return pd.DataFrame(rows)


def factor_frame(found: Found) -> pd.DataFrame:
    """Tabulates factors of rescaling: a row a cell, arm, seed and tensor."""
    rows = [
        {
            "mask": cell.mask,
            "sparsity_percent": cell.sparsity,
            "arm": name,
            "seed": seed,
            "tensor": tensor,
            "factor": factor,
            "constrained_percent": arm["constrained"][seed],
        }
        for cell, name, arm in _each(found)
        for tensor, factors in arm.get("factors", {}).items()
        for seed, factor in enumerate(factors)
    ]
    return pd.DataFrame(rows)


def show_factors(frame: pd.DataFrame) -> pd.DataFrame:
    """Words factors of kernels: a row a cell and arm, a column a kernel."""
    if frame.empty:
        return frame
    rows = []
    by = ["mask", "sparsity_percent", "arm"]
    for (mask, at, arm), part in frame.groupby(by, sort=False):
        called = dict(zip(("Mask", "Sparsity"), _cell(mask, at), strict=True))
        called |= {"Aid": labels.ARMS[arm], "n": str(part["seed"].nunique())}
        for tensor, values in part.groupby("tensor", sort=False):
            if tensor.endswith("kernel"):
                called[tensor] = claims_lib.spread(values["factor"].to_numpy())
        once = part.drop_duplicates("seed")
        share = once["constrained_percent"].to_numpy()
        called["Shortened"] = claims_lib.spread(share, digits=0)
        rows.append(called)
    return pd.DataFrame(rows).fillna("")
