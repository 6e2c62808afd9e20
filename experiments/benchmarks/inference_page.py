"""The page of the times of predictions, made from its CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import environment, timing
from experiments.benchmarks.inference import BASE, METHODS
from experiments.benchmarks.timing import Table
from jaxsparse import metrics_log

INTRODUCTION = """
Weights are random, since they do not change the time; masks too, with the sparsity
divided among layers by ERK. In rows with *constant fan-in* all outputs of a layer have
the same number of active inputs, as in SRigL. The ViT has 4 blocks of width 128, 4
heads and 65 tokens. Layers with more than half of their weights stay dense. The methods
of a group are timed in turns in one process, with the same weights, and their logits
are compared with those of dense JAX first. Cells are how many times as fast as dense
JAX a method is: the median and the range over 5 turns, 3 for batches of 256. A batch
starts and ends in memory of NumPy. The memory allocator keeps freed memory for all
methods (`inference.keep_memory`); without this, page faults can double the time of
sparse forms. All times, and what `predict.auto` has chosen, are in the CSV file of the
same name.
""".strip()
Row = dict[str, Any]
TEXT = ("network", "method", "note")
AUTO = tuple(method for method in METHODS if method.startswith("predict.auto"))
OTHERS = ("PyTorch, dense", "PyTorch CSR", "ONNX Runtime, dense")


def read(path: Path) -> list[Row]:
    """Reads the rows of a file; none if it does not exist.

    Args:
      path: the CSV file.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {
                name: value if name in TEXT else float(value)
                for name, value in row.items()
                if value or name in TEXT
            }
            for row in csv.DictReader(file)
        ]


def write(out: Path, rows: Sequence[Row], argv: Sequence[str]) -> None:
    """Writes the CSV file and the page.

    Args:
      out: path of both files without their endings.
      rows: all rows.
      argv: the command line.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    names = ["network", "sparsity", "batch", "method", "ms", "ms_low", "ms_high"]
    names += ["ratio", "ratio_low", "ratio_high", "note"]
    lines = [",".join(names)]
    for row in rows:
        cells = [str(row.get(name, "")) for name in names]
        lines.append(",".join(f'"{c}"' if "," in c else c for c in cells))
    metrics_log.write_atomically(out.with_suffix(".csv"), "\n".join(lines) + "\n")
    metrics_log.write_atomically(out.with_suffix(".md"), page(rows, argv))


def page(rows: Sequence[Row], argv: Sequence[str]) -> str:
    """Words the page.

    Args:
      rows: all rows.
      argv: the command line.
    """
    facts = environment.describe(argv)
    versions = ", ".join(
        f"{name} {facts['versions'].get(name) or environment.version(name)}"
        for name in ("jax", "numpy", "scipy", "numba", "torch", "onnxruntime")
    )
    processor = facts["processor"].partition(",")[0]
    machine = (
        "`python experiments/inference.py`, with most other jobs stopped, on one core "
        f"of {processor}; Python {facts['python']}, {versions}."
    )
    parts = ["# Speed of predictions on a CPU", machine, INTRODUCTION]
    return "\n\n".join([*parts, *_reading(rows), *_tables(rows)]) + "\n"


def _groups(rows: Sequence[Row]) -> dict[tuple, dict[str, Row]]:
    """Returns the rows of each network, sparsity and batch size by method."""
    groups: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        key = row["network"], row["sparsity"], int(row["batch"])
        groups.setdefault(key, {})[row["method"]] = row
    return groups


def _is_faster(row: Row | None) -> bool:
    """Says whether a method was faster than dense JAX in every turn."""
    return row is not None and row.get("ratio_low", 0) > 1


def _reading(rows: Sequence[Row]) -> list[str]:
    """Words what the numbers show, network by network."""
    groups, found = _groups(rows), ["## Reading"]
    for network in dict.fromkeys(key[0] for key in groups):
        mine = {key[1:]: group for key, group in groups.items() if key[0] == network}
        lines = []
        for method in (*AUTO, *OTHERS):
            known = {k: g[method] for k, g in mine.items() if "ratio" in g[method]}
            if not known:
                continue
            fast = [key for key, row in known.items() if _is_faster(row)]
            best = max(known, key=lambda key: known[key]["ratio"])
            lines.append(
                f"- {method}: faster than dense JAX in every turn in {len(fast)} of "
                f"{len(known)} groups, at most {known[best]['ratio']:.2f} times as "
                f"fast ({_words(best)})."
            )
        none = [
            _words(key)
            for key, group in mine.items()
            if not any(_is_faster(group.get(m)) for m in METHODS if _is_sparse(m))
        ]
        if none:
            places = "; ".join(none)
            lines.append(f"- No sparse form is faster than dense JAX: {places}.")
        behind = [
            _words(key)
            for key, group in mine.items()
            if (best := _best(group, AUTO))
            and (other := _best(group, OTHERS))
            and best["ms"] > other["ms"]
        ]
        if behind:
            lines.append(
                "- PyTorch or ONNX Runtime is faster than predict.auto (medians): "
                f"{'; '.join(behind)}."
            )
        found += [f"**{network}.**", "\n".join(lines)]
    return [*found, *filter(None, [_missing(groups)])]


def _missing(groups: Any) -> str:
    """Names the groups of the networks on the page that were not measured."""
    sparsities = sorted({key[1] for key in groups})
    batches = sorted({key[2] for key in groups})
    missing = [
        f"{name} {_words((sparsity, batch))}"
        for name in dict.fromkeys(key[0] for key in groups)
        for batch in batches
        for sparsity in sparsities
        if (name, sparsity, batch) not in groups
    ]
    return f"Not measured: {'; '.join(missing)}." if missing else ""


def _is_sparse(method: str) -> bool:
    return method != BASE and not method.endswith(", dense")


def _best(group: dict[str, Row], methods: Sequence[str]) -> Row | None:
    """Returns the row with the shortest time."""
    known = [group[m] for m in methods if "ms" in group.get(m, {})]
    return min(known, key=lambda row: row["ms"], default=None)


def _words(key: tuple) -> str:
    return f"{key[0]:.0%}, batch {key[1]}"


def _tables(rows: Sequence[Row]) -> list[str]:
    """Makes a table for each network and batch size."""
    groups = _groups(rows)
    found = []
    for network, batch in dict.fromkeys((key[0], key[2]) for key in groups):
        columns = sorted(k[1] for k in groups if k[0] == network and k[2] == batch)
        lines = []
        for method in METHODS:
            cells = [groups[network, sparsity, batch][method] for sparsity in columns]
            if any("ratio" in row for row in cells):
                lines.append((method, *map(_cell, cells)))
        header = ("", *(f"{sparsity:.0%} sparse" for sparsity in columns))
        title = f"{network}, batch {batch}"
        found.append(timing.markdown(Table(title, header, lines, "", {})).strip())
    return found


def _cell(row: Row) -> str:
    if "ratio" not in row:
        return row["note"]
    if row["method"] == BASE:
        low, middle, high = (
            f"{row[name]:,.{0 if row[name] >= 100 else 3}f}"
            for name in ("ms_low", "ms", "ms_high")
        )
        return f"{middle} ms ({low} to {high})"
    low, high = row["ratio_low"], row["ratio_high"]
    return f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
