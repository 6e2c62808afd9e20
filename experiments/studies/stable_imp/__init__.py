"""Maene et al. 2021 rerun: why tickets are found where training is stable.

`arms` lists the runs; `measuring` reads them and measures their weights; `claims` says
what each claim of the paper predicts; `page` words and draws what was found.
"""

from pathlib import Path

from experiments.studies.stable_imp import arms, measuring, page
from experiments.studies.stable_imp.arms import SCALES, runs
from jaxsparse.reports import study

DESCRIPTION = "stability, and why lottery tickets win (Maene et al. 2021)"
RESULTS = arms.NETWORKS

__all__ = ("DESCRIPTION", "RESULTS", "SCALES", "finish", "runs")


def finish(folder: Path, scale: str, data_dir: str) -> Path:
    """Measures the runs that have ended and writes the report; returns its page."""
    sections = []
    for network in arms.NETWORKS:
        found = measuring.measure(folder, network, scale, data_dir)
        if found:
            sections.append(page.section(network, scale, found))
    title = "Report: why lottery tickets win"
    return study.write(title, sections, folder / "report")
