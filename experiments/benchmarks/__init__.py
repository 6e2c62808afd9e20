"""Benchmarks that `experiments/benchmark.py` runs.

Each benchmark is a function `measure` that returns tables. Machines are noisy and
shared. Therefore rows that are compared are timed in turns within one process, and a
table gives the median and the range over the repetitions.
"""
