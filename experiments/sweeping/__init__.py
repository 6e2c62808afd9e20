"""Sweeps over a grid of runs.

`points` lists the runs, `executors` runs them, `gpus` divides the GPUs among local
jobs, `monitor` shows the progress, and `report` writes the report over all runs.
"""

EXECUTORS = ("local", "slurm")
