"""Maene et al. (2021) rerun: why tickets are found where training is stable."""

from experiments.studies.stable_imp import analysis, report, variants
from experiments.studies.study import Study

STUDY = Study(
    description="stability, and why lottery tickets win (Maene et al. 2021)",
    title="Report: why lottery tickets win",
    variants=variants,
    analysis=analysis,
    report=report,
)
