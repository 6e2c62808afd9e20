"""Sweeps over a grid of runs.

`points` lists the runs, `executors` runs them, `monitor` shows their progress, and
`report` writes the report over all of them.
"""

EXECUTORS = ("local", "slurm")
