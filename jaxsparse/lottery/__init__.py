"""Lottery tickets: iterative magnitude pruning, rewinding, and control experiments.

`imp` chooses the masks of the next level. `rewinding` defines the steps between which
levels train. `controls` makes the masks of the variants that a ticket is compared with,
and `instability` the random keys and copies for instability analysis. `tickets` stores
masks in files, and `elastic` transfers them to other depths. `plan` lists the stages of
a run. Nothing here trains: `runner` does.
"""
