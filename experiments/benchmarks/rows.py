"""Names of rows that compare with PyTorch, in a module that does not import torch."""

SINGLE = "jaxsparse, trainer, 1 replicate"
SEVERAL = "jaxsparse, trainer, 5 replicates"
LIBRARY = "jaxsparse as a library, NumPy batches"
CACHED = "PyTorch, cached batches"
COMPILED = "PyTorch, cached batches, torch.compile"
LOADER = "PyTorch, DataLoader"
MISSING = "not installed: pip install -e '.[benchmark]'"
