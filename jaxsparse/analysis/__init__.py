"""Analysis: what trained networks have in common, and where they lie.

Nothing here trains, and nothing decides what to prune. Every function takes
parameters, masks, logits or activations as they are, from wherever.

- `connectivity`: loss and error along the segment between two solutions, and the
  barrier on it.
- `similarity`: distances and angles between the weights of two solutions.
- `overlap`: what two masks share, and what they would share by chance.
- `rounds`: where pruning rounds cut weights, and how these lie around it.
- `predictions`: whether networks predict the same, and what they predict together.
- `representations`: whether networks represent inputs alike.
- `pairs`: any of these measures for all pairs of a stack, and its mean over pairs.
- `projection`: solutions as points in the plane.
- `gradient_flow`: how much a step can do, and how signals go through a network.
- `hessian`: the curvature of the loss.
"""
