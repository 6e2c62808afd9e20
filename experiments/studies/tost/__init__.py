"""ToST rerun (Jaiswal et al. 2022): every aid with every mask.

`arms` lists the runs; `measuring` reads what they recorded; `claims` says what each
claim of the paper predicts; `page` words what was found and `figures` draws it.
"""

from pathlib import Path

from experiments.studies.tost import analysis, report, variants
from experiments.studies.tost.variants import SCALES, runs
from jaxsparse.reports import study

DESCRIPTION = "training sparse networks better with any mask (Jaiswal et al. 2022)"
RESULTS = variants.NETWORKS

__all__ = ("DESCRIPTION", "RESULTS", "SCALES", "finish", "runs")


def finish(folder: Path, scale: str, data_dir: str) -> Path:
    """Reads the runs that have ended and writes the report; returns its page."""
    sections = []
    for network in variants.GRIDS[scale]:
        found = analysis.measure(folder, network, scale, data_dir)
        if found:
            sections.append(report.section(network, scale, found))
    title = "Report: training sparse networks better with any mask"
    return study.write(title, sections, folder / "report")
