"""Training of sparse networks: steps, chunks of steps, and stages of a run.

Functions in this package take networks, optimizers and numbers as arguments, never a
config; `factory` makes them from a config. All arrays of a run have a leading replicate
axis, even if there is only one replicate.
"""
