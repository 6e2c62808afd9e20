"""Frankle et al. (2020) and Maene et al. (2021) rerun: stability and tickets."""

from experiments.studies.stable_imp import cifar16, measure, report, variants
from experiments.studies.study import Study

__all__ = ("STUDY", "cifar16")

STUDY = Study(
    name="stable_imp",
    description="stability, and why lottery tickets win (Maene et al. 2021)",
    paper="Frankle et al. 2020, Maene et al. 2021",
    title="Report: why lottery tickets win",
    settings=variants.SETTINGS,
    runs=variants.of_setting,
    measure=measure.measure,
    section=report.section,
)
