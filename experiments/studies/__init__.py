"""Studies: what `experiments/reproduce.py` runs, as lists of runs.

Each module has `DESCRIPTION`, `SCALES`, `RESULTS` (how the names of files worth keeping
begin), `runs(scale)`, and `finish(folder, scale, data_dir)`, which writes the report.
"""

NAMES = ("data_diet", "gradient_flow", "sparse_training", "stable_imp", "tost")
SCALES = ("quick", "cpu", "full")  # each module has these
