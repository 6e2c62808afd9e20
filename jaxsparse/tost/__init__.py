"""ToST: aids for training a sparse network with whatever mask it has.

Ghosts help early in training and are gone at its end: smooth activations that fade to
ReLU (`neurons`) and bypasses of single convolutions that fade to nothing (`skips`).
What is traced is one number a step (`fading`), so that nothing is compiled anew while
they fade. `rescaling` scales the initial weights of each layer for the mask they have.

References:
  Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any
  Mask, 2022, arXiv:2206.12755.
"""
