"""Every method of sparse training, compared at equal sparsity."""

from experiments.studies.methods import measure, report, variants
from experiments.studies.study import Study

STUDY = Study(
    name="methods",
    description="every method of sparse training at equal sparsity",
    paper="several papers",
    title="Report: methods of sparse training",
    settings=variants.SETTINGS,
    runs=variants.of_setting,
    measure=measure.measure,
    section=report.section,
)
