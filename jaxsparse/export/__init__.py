"""Finished networks for other programs: safetensors, PyTorch and ONNX; and back.

    run = jaxsparse.load("runs/digits")
    variables, ticket = run.variables(), run.masks()
    export.safetensors("ticket.safetensors", variables, {"params": ticket})
    state = export.torch_state_dict(run.model(), variables)
    apply = lambda variables, x: run.model().apply(variables, x, train=False)
    export.onnx("ticket.onnx", apply, variables, images)

`safetensors_files` describes packed files and has a reader in NumPy. The packages
belong to the extras `export` and `torch`; each function names those that it lacks. The
script `experiments/export.py` exports a run from the command line.
"""

from jaxsparse.export.onnx_files import onnx
from jaxsparse.export.safetensors_files import Loaded, from_safetensors, safetensors
from jaxsparse.export.torch_weights import (
    Imported,
    from_torch,
    torch_arrays,
    torch_state_dict,
)

__all__ = (
    "Imported",
    "Loaded",
    "from_safetensors",
    "from_torch",
    "onnx",
    "safetensors",
    "torch_arrays",
    "torch_state_dict",
)
