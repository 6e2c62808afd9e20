"""Studies: what `experiments/reproduce.py` runs, as lists of runs.

Each module has `DESCRIPTION`, `SCALES` and `runs(scale)`; nothing here trains.
"""
