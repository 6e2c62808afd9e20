"""A small language model, pruned after, during and before its training."""

from experiments.studies.language_model import measure, report, variants
from experiments.studies.study import Study

STUDY = Study(
    name="language_model",
    description="a small decoder: sparse training, tickets, one-shot pruning",
    paper="Sun et al. 2023, Frantar and Alistarh 2023, Meng et al. 2024",
    title="Report: a small language model",
    settings=variants.SETTINGS,
    runs=variants.of_setting,
    measure=measure.measure,
    section=report.section,
    version=3,
)
