"""Training: what a step, an epoch and a run are.

Functions here take networks, optimisers and numbers by name, never a config;
`build` makes them from one. Everything a run computes carries a leading axis of
replicates, also where there is only one.
"""
