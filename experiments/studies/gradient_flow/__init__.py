"""Evci et al. (2020) rerun: gradient flow in sparse networks."""

from experiments.studies.gradient_flow import measure, report, variants
from experiments.studies.study import Study

STUDY = Study(
    name="gradient_flow",
    description="gradient flow in sparse networks (Evci et al. 2020)",
    paper="Evci et al. 2020",
    title="Report: gradient flow in sparse networks",
    settings=variants.SETTINGS,
    runs=variants.of_setting,
    measure=measure.measure,
    section=report.section,
)
