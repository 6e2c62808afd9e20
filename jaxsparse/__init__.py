"""Sparse neural networks in JAX: masks as pytrees, sparsity as an optax wrapper.

Import the modules, not names: `from jaxsparse import masks, select, transforms`.
"""

__version__ = "0.1.0"
