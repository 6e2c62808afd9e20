"""Sweeps over a grid of runs.

Which runs there are (`points`), who runs them (`engines`), how far they are
(`showing`), and the report on all (`grid`).
"""

ENGINES = ("local", "slurm")
