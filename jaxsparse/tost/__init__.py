"""ToST: techniques that help to train sparse networks with any mask.

Ghosts are parts of a network that help early in training and are absent at its end:
smooth activations that become ReLU (`soft_activations`), and bypasses of single
convolutions whose strength falls to 0 (`ghost_skips`). Only their strength changes from
step to step. It is a traced number (`annealing`), so annealing causes no recompilation.
`gradinit` scales the initial weights of each tensor for the given mask.

References:
  Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any
  Mask, 2022, arXiv:2206.12755.
"""
