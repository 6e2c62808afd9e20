"""What the masks, signs and magnitudes of lottery tickets each carry."""

from experiments.studies.signs import measure, report, variants
from experiments.studies.study import Study

STUDY = Study(
    name="signs",
    description="what masks, signs and magnitudes of tickets carry (several papers)",
    paper="Zhou et al. 2019, Gadhikar et al. 2024 and 2025, Adnan et al. 2025",
    title="Report: masks, signs and magnitudes of lottery tickets",
    settings=variants.SETTINGS,
    runs=variants.of_setting,
    measure=measure.measure,
    section=report.section,
)
