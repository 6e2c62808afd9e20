"""Measure: test losses, and the sparsity of the blocks."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.studies.language_model import one_shot
from experiments.studies.run_reader import Reader, table


def measure(reader: Reader, other: Callable[[str], Reader]) -> dict[str, Any]:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: not used: runs are compared by their measurements.

    Returns:
      "sparsity", of the kernels of all blocks in percent, and "loss", test losses in
      nats [seeds levels], of the ticket of each level or of the only network; "steps",
      the last training step; and "one_shot", from `one_shot.measure`, of the dense run.
    """
    del other
    rows = reader.tickets()
    _, sparsities = table(rows, "level", _sparsity)
    _, losses = table(rows, "level", lambda row: row["test_loss"])
    found: dict[str, Any] = {
        "sparsity": sparsities.mean(axis=0).tolist(),
        "loss": losses.tolist(),
        "steps": max(row["step"] for row in rows),
    }
    if reader.name.endswith("_dense"):
        found["one_shot"] = one_shot.measure(reader)
    return found


def _sparsity(row: Mapping[str, Any]) -> float:
    """Returns the percentage of the weights of the blocks that are zero."""
    counts = [n for name, n in row["layers"].items() if name.startswith("block")]
    kept, size = map(sum, zip(*counts, strict=True))
    return 100 * (1 - kept / size)
