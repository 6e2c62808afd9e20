"""Lottery tickets: iterative magnitude pruning, rewinding, and its controls.

`levels` chooses the masks of the next level, `rewinding` the weights it starts from,
`controls` the masks and weights that a ticket is compared with, `tickets` keeps masks
in files, and `experiment` runs it all and continues where it was stopped.
"""
