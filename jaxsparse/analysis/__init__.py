"""Measurements on trained networks: similarity, mode connectivity, curvature.

Nothing here trains or prunes. Every function takes parameters, masks, logits or
activations as they are, whatever produced them.

- `mode_connectivity`: loss and error along the linear path between two solutions, and
  the error barrier on it.
- `similarity`: distances and angles between the weights of two solutions.
- `mask_overlap`: the active weights that two masks share, and how many they would share
  by chance.
- `imp_rounds`: the magnitude at which a level of iterative magnitude pruning cuts, and
  the distribution of the weights.
- `predictions`: agreement of the predictions of networks, and ensembles of them.
- `representations`: similarity of the representations of two layers (CKA).
- `soups`: averages of networks with one mask, and their statistics of BatchNorm.
- `lottery_pools`: tickets of neighboring sparsities, interpolated to a better one.
- `pairwise`: any of these measures for all pairs in a stack, and its mean over pairs.
- `embedding`: solutions as points in the plane.
- `gradient_flow`: norms of gradients, and the propagation of signals through a network.
- `hessian`: eigenvalues of the Hessian of the loss.
"""
