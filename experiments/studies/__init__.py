"""Studies: the experiments of papers, run again by `experiments/reproduce.py`.

Each package has `STUDY`; see `study.Study`.
"""

# In the order in which runs of equal rank are trained.
NAMES = (
    *("stable_imp", "data_diet", "tost", "gradient_flow", "methods", "signs"),
    "language_model",
)
SCALES = ("quick", "cpu", "cifar16", "full")
