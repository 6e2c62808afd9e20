"""Paul et al. (2022) rerun: tickets after pre-training on parts of the data."""

from experiments.studies.data_diet import analysis, report, variants
from experiments.studies.study import Study

STUDY = Study(
    description="lottery tickets on a data diet (Paul et al. 2022)",
    title="Report: lottery tickets on a data diet",
    variants=variants,
    analysis=analysis,
    report=report,
)
