"""Paul et al. (2022) rerun: lottery tickets after pre-training on parts of the data."""

from experiments.studies.data_diet import measure, report, variants
from experiments.studies.study import Study

STUDY = Study(
    name="data_diet",
    description="lottery tickets on a data diet (Paul et al. 2022)",
    paper="Paul et al. 2022",
    title="Report: lottery tickets on a data diet",
    settings=variants.SETTINGS,
    runs=variants.of_setting,
    measure=measure.measure,
    section=report.section,
)
