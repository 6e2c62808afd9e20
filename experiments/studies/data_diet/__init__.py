"""Paul et al. 2022 rerun: tickets after pre-training on parts of the data.

`arms` lists the runs; `measuring` reads them and measures barriers and curvature;
`claims` says what each claim of the paper predicts; `page` words and draws what was
found.
"""

from pathlib import Path

from experiments.studies.data_diet import analysis, report, variants
from experiments.studies.data_diet.variants import SCALES, runs
from jaxsparse.reports import study

DESCRIPTION = "lottery tickets on a data diet (Paul et al. 2022)"
RESULTS = variants.NETWORKS

__all__ = ("DESCRIPTION", "RESULTS", "SCALES", "finish", "runs")


def finish(folder: Path, scale: str, data_dir: str) -> Path:
    """Measures the runs that have ended and writes the report; returns its page."""
    sections = []
    for network in variants.NETWORKS:
        found = analysis.measure(folder, network, scale, data_dir)
        if found:
            sections.append(report.section(network, scale, found))
    title = "Report: lottery tickets on a data diet"
    return study.write(title, sections, folder / "report")
