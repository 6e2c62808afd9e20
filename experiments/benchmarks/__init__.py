"""The benchmark's parts; `experiments/benchmark.py` runs them.

Each section is a function that measures one question and returns tables. Machines are
noisy and shared, so what is compared is timed in turns within one process, and
reported as the median and the range over repetitions.
"""
