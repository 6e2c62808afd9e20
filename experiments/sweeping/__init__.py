"""Grids of runs: which there are (`grid`), who runs them (`engines`), one table."""
