"""Studies: the experiments of papers, run again by `experiments/reproduce.py`.

Each module or package has `STUDY`; see `study.Study`.
"""

NAMES = ("data_diet", "gradient_flow", "sparse_training", "stable_imp", "tost")
SCALES = ("quick", "cpu", "full")  # of every study
