"""Rows of the comparison with PyTorch; named here because torch may be absent."""

SINGLE = "jaxsparse, trainer, 1 replicate"
SEVERAL = "jaxsparse, trainer, 5 replicates"
LIBRARY = "jaxsparse as a library, numpy batches"
CACHED = "PyTorch, cached batches"
COMPILED = "PyTorch, cached batches, torch.compile"
LOADER = "PyTorch, DataLoader"
