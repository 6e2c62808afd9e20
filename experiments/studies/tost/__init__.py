"""Jaiswal et al. (2022) rerun: better training of sparse networks with any mask."""

from experiments.studies.study import Study
from experiments.studies.tost import measure, report, variants

STUDY = Study(
    name="tost",
    description="training sparse networks better with any mask (Jaiswal et al. 2022)",
    paper="Jaiswal et al. 2022",
    title="Report: training sparse networks better with any mask",
    settings=variants.SETTINGS,
    runs=variants.of_setting,
    measure=measure.measure,
    section=report.section,
)
