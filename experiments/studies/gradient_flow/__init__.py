"""Evci et al. (2020) rerun: gradient flow in sparse networks and lottery tickets."""

from experiments.studies.gradient_flow import analysis, report, variants
from experiments.studies.study import Study

STUDY = Study(
    description="gradient flow, and how lottery tickets win (Evci et al. 2020)",
    title="Report: gradient flow in sparse networks",
    variants=variants,
    analysis=analysis,
    report=report,
)
