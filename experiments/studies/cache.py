"""What was measured of runs that have ended, kept as JSON beside them."""

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxsparse import metrics_log

PRECISION = "highest"  # of products, whatever a device would do by itself


def once(
    path: Path, of: Mapping[str, Any], compute: Callable[[], Any], *, label: str
) -> Any:
    """Reads what was computed of the same, else computes and keeps it.

    Args:
      path: the file.
      of: what it depends on: hashes of checkpoints, sizes, a version of the code that
        computes it. The kind of device is added.
      compute: makes what JSON can hold, in full float32.
      label: shown when it is computed.
    """
    mark = json.loads(json.dumps(dict(of)))
    mark |= {"backend": jax.default_backend(), "precision": PRECISION}
    if path.exists():
        # Damaged: computed again.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["of"] == mark:
                return kept["found"]
    print(f"measuring {label}", file=sys.stderr)
    with jax.default_matmul_precision(PRECISION):
        found = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    metrics_log.write_atomically(path, json.dumps({"of": mark, "found": found}) + "\n")
    return found
