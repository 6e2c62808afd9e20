"""ToST rerun (Jaiswal et al. 2022): every technique with every mask."""

from experiments.studies.study import Study
from experiments.studies.tost import analysis, report, variants

STUDY = Study(
    description="training sparse networks better with any mask (Jaiswal et al. 2022)",
    title="Report: training sparse networks better with any mask",
    variants=variants,
    analysis=analysis,
    report=report,
)
