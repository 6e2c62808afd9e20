"""Eigenvalues of the Hessian of the loss, in the active weights of a sparse network.

- `param_subspace`: the coordinates: active weights and parameters without a mask.
- `hvp`: Hessian-vector products, computed in microbatches.
- `exact`: the full Hessian and all its eigenvalues, for some thousands of coordinates.
- `lanczos`: the largest and smallest eigenvalues, for any number of coordinates.
- `slq`: estimates of the trace and the spectral density.
- `eigenvalues`: statistics of a spectrum, and their changes.

For a trained network and its masks, this computes the fraction of directions with
negative curvature:

    space = param_subspace.make(params, masks)
    found = exact.spectrum(loss, space, (images, labels), batch_size=1000)
    eigenvalues.summarize(found.eigenvalues)["negative_fraction"]

and this estimates it for a network whose Hessian is too large to be built:

    product = hvp.operator(loss, space, (images, labels), batch_size=1000)
    lanczos.extremes(product, param_subspace.size(space), key=key)
    slq.summarize(slq.density(product, param_subspace.size(space), key=key))
"""
