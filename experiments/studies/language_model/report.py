"""Report: one table of losses and perplexities, and a figure over sparsity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies import claims as claims_lib
from experiments.studies import report as report_lib
from experiments.studies.effects import spread
from experiments.studies.language_model import claims, one_shot, variants
from jaxsparse.reports import plot_curves

LABELS = {
    "dense": "dense",
    "gmp": "GMP",
    "rigl": "RigL",
    "tickets": "IMP with rewinding",
} | {name: f"{label}, one-shot" for name, label in one_shot.LABELS.items()}
ABOUT_CLAIMS = (
    "Thresholds were written before any run of the scales `cpu` and `full`. All "
    "methods prune the same networks, so n counts these. No published number of large "
    "models can be compared with ours, so lengths are not compared either."
)


def section(
    setting: str, scale: str, measured: Mapping[str, Any]
) -> report_lib.Section:
    """Makes the section of the report on a setting.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      measured: measurements by variant.
    """
    del scale
    frame = losses_frame(measured)
    steps = max((m["steps"] for m in measured.values()), default=0)
    remaining = frame.loc[frame["sparsity_percent"] > 0]
    curve = pd.DataFrame(
        {
            "panel": "",
            "label": remaining["method"].map(LABELS),
            "replicate": remaining["seed"],
            "x": (100 - remaining["sparsity_percent"]).round(2),
            "y": np.exp(remaining["test_loss"]),
        }
    )
    return report_lib.Section(
        name=setting,
        title=variants.TITLES[setting],
        lines=[f"Each network is trained for {steps:,} steps."],
        claims=claims_lib.judge(claims.CLAIMS, measured, length=1.0),
        about_claims=ABOUT_CLAIMS,
        tables=[
            report_lib.Table(
                "Loss and perplexity",
                "Test loss in nats for each byte, and perplexity, its exponential: "
                "mean ± sample standard deviation over n seeds. The sparsity is that "
                "of the kernels of all blocks. One-shot methods prune the dense "
                "networks, with no training afterward; the weights of an output or of "
                "a layer compete with each other. Tickets are those of the last level.",
                show_losses(frame),
            )
        ],
        frames={"losses": frame},
        figures={
            "perplexity": None
            if curve.empty
            else plot_curves.curves(
                curve[list(plot_curves.COLUMNS)],
                x="weights kept in the blocks (%)",
                y="test perplexity",
                title=variants.TITLES[setting],
                scale="remaining",
            )
        },
        captions={"perplexity": "Test perplexity against the weights that are kept."},
    )


def losses_frame(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulates test losses: one row for each method, sparsity and seed.

    Args:
      measured: measurements by variant.
    """
    rows = []
    for name, m in measured.items():
        last = {"sparsity": m["sparsity"][-1:], "loss": [of[-1:] for of in m["loss"]]}
        entries = {name.partition("_")[0]: last} | m.get("one_shot", {})
        for method, entry in entries.items():
            for seed, losses in enumerate(entry["loss"]):
                pairs = zip(entry["sparsity"], losses, strict=True)
                rows += [(method, sparsity, seed, loss) for sparsity, loss in pairs]
    columns = ["method", "sparsity_percent", "seed", "test_loss"]
    return pd.DataFrame(rows, columns=columns)


def show_losses(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats losses and perplexities, from dense to sparse and by rising loss.

    Args:
      frame: from `losses_frame`.
    """
    groups = frame.groupby(["method", "sparsity_percent"])["test_loss"]
    order = groups.mean().reset_index()
    order = order.assign(place=order["sparsity_percent"].round())
    order = order.sort_values(["place", "test_loss"])
    return pd.DataFrame(
        [
            {
                "Method": LABELS[row.method],
                "Sparsity": f"{row.sparsity_percent:.1f} %",
                "n": str(len(losses)),
                "Test loss": spread(losses.to_numpy(), 3),
                "Perplexity": spread(np.exp(losses.to_numpy())),
            }
            for row in order.itertuples()
            for losses in [groups.get_group((row.method, row.sparsity_percent))]
        ]
    )
