"""Cache: measurements of runs that have ended, kept as JSON beside them."""

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxsparse import metrics_log

PRECISION = "highest"  # of matrix products, whatever the device uses by default


def cached_json(
    path: Path, of: Mapping[str, Any], compute: Callable[[], Any], *, label: str
) -> Any:
    """Reads a measurement from a file, or computes it and writes the file.

    Args:
      path: the file.
      of: what the measurement depends on: hashes of checkpoints, sizes, a version of
        the code that computes it. The kind of device is added. A file with other values
        is replaced.
      compute: computes the measurement in full float32; it must be valid JSON.
      label: printed when the measurement is computed.
    """
    mark = json.loads(json.dumps(dict(of)))
    mark |= {"backend": jax.default_backend(), "precision": PRECISION}
    if path.exists():
        # A damaged file is computed again.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["of"] == mark:
                return kept["found"]
    print(f"measuring {label}", file=sys.stderr)
    with jax.default_matmul_precision(PRECISION):
        found = compute()
    metrics_log.write_atomically(path, json.dumps({"of": mark, "found": found}) + "\n")
    return found
