"""Evci et al. 2020 rerun: all arms, what is measured on them, and the verdicts.

`arms` lists the runs; `measuring` computes what is known only after training and keeps
it as JSON; `claims` says what each claim of the paper predicts of these numbers, and
`published` has the paper's own. `reports.gradient_flow` makes a page of it all.
"""

from pathlib import Path
from typing import Any

from experiments.studies.gradient_flow import (
    analysis,
    claims,
    curvature,
    published,
    runs_reader,
    variants,
)
from experiments.studies.gradient_flow.variants import SCALES, runs
from jaxsparse.reports import gradient_flow

DESCRIPTION = "gradient flow, and how lottery tickets win (Evci et al. 2020)"
RESULTS = ("lenet", "mlp", "resnet")

__all__ = ("DESCRIPTION", "RESULTS", "SCALES", "finish", "runs")


def finish(folder: Path, scale: str, data_dir: str) -> Path:
    """Measures the runs that have ended and writes the report; returns its page."""
    findings = {}
    for network in variants.NETWORKS[scale]:
        study = runs_reader.Study(folder, network, scale, data_dir)
        found = analysis.measure(study)
        if found:
            findings[network] = _worded(study, found)
    return gradient_flow.write(findings, folder / "report")


def _worded(study: runs_reader.Study, found: dict[str, Any]) -> dict[str, Any]:
    """Puts what was found beside what was published, as the report takes it."""
    steps = max(study.records("prune", "eval"), key=lambda row: row["step"])["step"]
    flat = found | found["gradients"]
    label, whole = published.LABELS, published.STEPS[study.network]
    return {
        "title": published.TITLES[study.network],
        "steps": steps,
        "published_steps": whole,
        "arms": {
            arm: {"label": label[arm]}
            | _place(arm)
            | found["predictions"][arm]
            | published.PUBLISHED[study.network].get(arm, {})
            for arm in found["predictions"]
        },
        "gradient": flat["gradient"],
        "changes": flat["changes"],
        "segments": {
            key: part | {"label": f"{label[part['arm']]}, {part['moment']}"}
            for key, part in found["segments"].items()
        },
        "distances": found["distances"]
        | {"groups": [_called(g) for g in found["distances"].get("groups", ())]},
        "hessian": {
            arm: {"label": label[arm], "states": _compared(part["states"])}
            for arm, part in found["curvature"].items()
        },
        "signal": {
            name: {"label": SIGNALS[name]} | part
            for name, part in found["signals"].items()
        },
        "claims": [
            row if study.network == "lenet" else _of_lenet(row)
            for row in claims.judge(flat, steps=steps, whole=whole)
        ],
    }


def _of_lenet(row: dict[str, Any]) -> dict[str, Any]:
    """Says that what was published is of LeNet-5: of other networks nothing was."""
    return row | {"published": f"LeNet-5: {row['published']}"}


def _place(arm: str) -> dict[str, str]:
    """Says where an arm stands in the table of initialisations."""
    training, initialisation = published.INITIALISED.get(arm, ("", ""))
    return {"training": training, "initialisation": initialisation}


def _compared(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to the states after a change of masks what it made."""
    made = curvature.new_negatives(states)
    return [
        state | ({"new_negatives": made[place]} if place in made else {})
        for place, state in zip(map(curvature.place_of, states), states, strict=True)
    ]


def _called(group: str) -> str:
    arm, _, moment = group.partition(" ")
    return f"{published.LABELS[arm]} {moment}"


SIGNALS = {
    "dense": "dense, Glorot",
    "masked": "Glorot, masked",
    "layer": "Liu, by layer",
    "fan_in": "sparsity-aware, scale 1",
    "fan_in_he": "sparsity-aware, scale 2",
}
