"""Maene et al. 2021 rerun: why tickets are found where training is stable.

`arms` lists the runs; `measuring` reads them and measures their weights; `claims` says
what each claim of the paper predicts; `page` words and draws what was found.
"""

from pathlib import Path

from experiments.studies.stable_imp import analysis, report, variants
from experiments.studies.stable_imp.variants import SCALES, runs
from jaxsparse.reports import study

DESCRIPTION = "stability, and why lottery tickets win (Maene et al. 2021)"
RESULTS = variants.NETWORKS

__all__ = ("DESCRIPTION", "RESULTS", "SCALES", "finish", "runs")


def finish(folder: Path, scale: str, data_dir: str) -> Path:
    """Measures the runs that have ended and writes the report; returns its page."""
    sections = []
    for network in variants.NETWORKS:
        found = analysis.measure(folder, network, scale, data_dir)
        if found:
            sections.append(report.section(network, scale, found))
    title = "Report: why lottery tickets win"
    return study.write(title, sections, folder / "report")
