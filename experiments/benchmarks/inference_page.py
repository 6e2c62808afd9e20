"""The page of the times of predictions, made from its CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import row_origins, timing
from experiments.benchmarks.inference import BASE, METHODS
from experiments.benchmarks.timing import Table
from jaxsparse import metrics_log

# A column is disturbed if dense JAX takes more than so many times its shortest time.
MOST_NOISE = 1.2
INTRODUCTION = f"""
Weights and masks are random, with the sparsity divided among layers by ERK. The ViT has
4 blocks of width 128, 4 heads and 65 tokens. Layers with more than half of their
weights stay dense. A group is a network, a sparsity and a batch size. Its methods are
timed in turns in one process, after their logits have been compared with those of dense
JAX. Cells are how many times as fast as dense JAX in the same turns a method is: the
median and the range over 5 turns, 3 for batches of 256.

`predict.auto` runs after compaction, which removes units that random masks left without
inputs or readers; the section "Reading" says how much. All other methods run the whole
network, so part of the gain of `predict.auto` is that of a smaller network. Trained
networks lose other numbers of units; see [compaction](compaction-cpu.md). Where
`predict.auto` chose the program of dense JAX, the cell says *dense*, and what differs
from 1 is noise; or it says *compacted*, if that program has fewer units.

In rows with *constant fan-in* all outputs of a layer have the same number of active
inputs, as in SRigL. These are other masks than in the other rows, and logits are
compared with those of dense JAX with the same masks. Because of rounding, up to 7 %
fewer or 6 % more weights are active (ViT at 98 % and 99 %; LeNet-300-100: about 1 %).

Dense JAX runs the same program in all columns of a table. That its absolute times
differ between columns is noise of the machine. So compare methods within a column, and
do not compare columns with each other. A column is called *disturbed* if the median of
dense JAX is more than {MOST_NOISE} times its shortest time in any turn of the table.

Threads: PyTorch and ONNX Runtime are told to use one thread, and sparse products of
SciPy and Numba use one core. XLA, which computes dense JAX, condensed layers and other
parts of `predict`, uses all cores that the process may use. Their number is in the list
below: where it says *one core*, the script limited all methods to the same core.

A batch starts and ends in memory of NumPy. The memory allocator keeps freed memory for
all methods (`inference.keep_memory`); without this, page faults can double the time of
sparse forms. All times, and what `predict.auto` has chosen, are in the CSV file of the
same name.
""".strip()
Row = dict[str, Any]
REMOVED = "compaction removed "  # in a note, before a share of the parameters
TEXT = ("network", "method", "note", *row_origins.FIELDS)
COLUMNS = ("network", "sparsity", "batch", "method", "ms", "ms_low", "ms_high")
COLUMNS += ("ratio", "ratio_low", "ratio_high", "note", *row_origins.FIELDS)
AUTO = tuple(method for method in METHODS if method.startswith("predict.auto"))
OTHERS = ("PyTorch, dense", "PyTorch CSR", "ONNX Runtime, dense")
# Single forms of `predict.fixed`, and `predict.auto` with the same masks.
SINGLE = {"SciPy CSR": AUTO[0], "Numba direct": AUTO[0]}
SINGLE |= {"condensed, constant fan-in": AUTO[1]}


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


def write(out: Path, rows: Sequence[Row]) -> None:
    """Writes the CSV file and the page.

    Args:
      out: path of both files without their endings.
      rows: all rows.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    metrics_log.write_atomically(out.with_suffix(".csv"), text.getvalue())
    metrics_log.write_atomically(out.with_suffix(".md"), page(rows))


def page(rows: Sequence[Row]) -> str:
    """Words the page.

    Args:
      rows: all rows.
    """
    parts = [
        "# Speed of predictions on a CPU",
        "`python experiments/inference.py`",
        INTRODUCTION,
        row_origins.describe(
            rows, lambda row: f"{row['network']} {_words(_key(row)[1:])}"
        ),
    ]
    return "\n\n".join([*parts, *_reading(rows), *_tables(rows)]) + "\n"


def _key(row: Mapping[str, Any]) -> tuple:
    return row["network"], row["sparsity"], int(row["batch"])


def _groups(rows: Sequence[Row]) -> dict[tuple, dict[str, Row]]:
    """Returns the rows of each network, sparsity and batch size by method."""
    groups: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(_key(row), {})[row["method"]] = row
    return groups


def _disturbed(groups: Mapping[tuple, dict[str, Row]]) -> set[tuple]:
    """Returns the groups in which dense JAX took unusually long."""
    shortest: dict[tuple, float] = {}
    for (network, _, batch), group in groups.items():
        table, low = (network, batch), group[BASE]["ms_low"]
        shortest[table] = min(low, shortest.get(table, low))
    return {
        key
        for key, group in groups.items()
        if group[BASE]["ms"] > MOST_NOISE * shortest[key[0], key[2]]
    }


def _is_faster(row: Row | None) -> bool:
    """Says whether a method was faster than dense JAX in every turn."""
    return row is not None and row.get("ratio_low", 0) > 1


def _has_sparse_form(row: Row) -> bool:
    """Says whether a method was measured and had a sparse form for a layer.

    `predict.auto` may have chosen the dense program, and a form may fit no layer.
    """
    dense = row["method"] == BASE or row["method"].endswith(", dense")
    return "ratio" in row and not dense and not row["note"].startswith(("dense", "0 "))


def _reading(rows: Sequence[Row]) -> list[str]:
    """Words what the numbers show, network by network."""
    groups, found = _groups(rows), ["## Reading"]
    disturbed = _disturbed(groups)
    for network in dict.fromkeys(key[0] for key in groups):
        mine = {key: group for key, group in groups.items() if key[0] == network}
        lines = [_line(m, mine, disturbed) for m in (*AUTO, *OTHERS)]
        none = [
            key
            for key, group in mine.items()
            if not any(_has_sparse_form(r) and _is_faster(r) for r in group.values())
        ]
        lines += _list("No sparse form is faster than dense JAX in every turn", none)
        behind = [
            key
            for key, group in mine.items()
            if (auto := _best(group, AUTO[:1]))
            and (other := _best(group, OTHERS))
            and auto["ms"] > other["ms"]
        ]
        words = (
            "PyTorch or ONNX Runtime is faster than predict.auto (medians, same masks)"
        )
        lines += _list(words, behind)
        lines += _better_forms(mine)
        lines += _removed(mine)
        lines += _list("Disturbed", [key for key in mine if key in disturbed])
        found += [f"**{network}.**", "\n".join(filter(None, lines))]
    return [*found, *filter(None, [_missing(groups)])]


def _line(method: str, mine: Mapping[tuple, dict[str, Row]], disturbed: Any) -> str:
    """Words in how many groups of a network a method is faster; "" if in none known."""
    known = {
        key: group[method] for key, group in mine.items() if "ratio" in group[method]
    }
    if not known:
        return ""
    count, what = len(known), "faster than dense JAX in every turn"
    if method in AUTO:
        known = {key: row for key, row in known.items() if _has_sparse_form(row)}
        what = f"chose a sparse form in {len(known)} of {count} groups; {what}"
        count = len(known)
    fast = sum(map(_is_faster, known.values()))
    text = (
        f"- {method}: {what} in {fast} of {count}{'' if method in AUTO else ' groups'}"
    )
    calm = [key for key in known if key not in disturbed]
    if not calm:
        return f"{text}."
    best = max(calm, key=lambda key: known[key]["ratio"])
    ratio = f"{known[best]['ratio']:.2f}"
    return (
        f"{text}; outside of disturbed columns at most {ratio} times as fast "
        f"({_words(best[1:])})."
    )


def _list(words: str, keys: Sequence[tuple]) -> list[str]:
    """Makes a line with the groups of a network for which something holds."""
    return [f"- {words}: {'; '.join(_words(k[1:]) for k in keys)}."] if keys else []


def _better_forms(mine: Mapping[tuple, dict[str, Row]]) -> list[str]:
    """Makes a line with the groups in which `predict.auto` missed a faster form."""
    found = []
    for key, group in mine.items():
        for method, auto in SINGLE.items():
            single, chosen = group.get(method, {}), group.get(auto, {})
            if not single or not _has_sparse_form(single) or "ratio" not in chosen:
                continue
            if single["ratio_low"] > chosen["ratio_high"]:
                ratios = f"{single['ratio']:.2f} against {chosen['ratio']:.2f}"
                found.append(f"{_words(key[1:])} ({method}: {ratios})")
    words = (
        "A single form (`predict.fixed`) is faster than predict.auto with the same "
        "masks, and the ranges of their turns do not meet"
    )
    return [f"- {words}: {'; '.join(found)}."] if found else []


def _removed(mine: Mapping[tuple, dict[str, Row]]) -> list[str]:
    """Makes lines with what compaction removed before `predict.auto` ran."""
    found = []
    for method in AUTO:
        parts: dict[str, None] = {}
        for key, group in sorted(mine.items()):
            note = group[method]["note"] if method in group else ""
            if REMOVED in note:
                share = note.partition(REMOVED)[2].split()[0]
                share = "less than 0.1%" if share == "0.0%" else share
                parts[f"{share} at {key[1]:.0%}"] = None
        if parts:
            words = f"- {method}: compaction first removed parts of the parameters"
            found.append(f"{words}: {', '.join(parts)}.")
    return found


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


def _best(group: dict[str, Row], methods: Sequence[str]) -> Row | None:
    """Returns the row with the shortest time."""
    known = [group[m] for m in methods if "ms" in group.get(m, {})]
    return min(known, key=lambda row: row["ms"], default=None)


def _words(key: tuple) -> str:
    return f"{key[0]:.0%}, batch {key[1]}"


def _tables(rows: Sequence[Row]) -> list[str]:
    """Makes a table for each network and batch size."""
    groups = _groups(rows)
    disturbed, found = _disturbed(groups), []
    for network, batch in dict.fromkeys((key[0], key[2]) for key in groups):
        columns = sorted(k[1] for k in groups if k[0] == network and k[2] == batch)
        lines = []
        for method in METHODS:
            cells = [groups[network, sparsity, batch][method] for sparsity in columns]
            if any("ratio" in row for row in cells):
                lines.append((method, *map(_cell, cells)))
        header = [""]
        for sparsity in columns:
            noise = ", disturbed" if (network, sparsity, batch) in disturbed else ""
            header.append(f"{sparsity:.0%} sparse{noise}")
        title = f"{network}, batch {batch}"
        found.append(
            timing.markdown(Table(title, tuple(header), lines, "", {})).strip()
        )
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
    is_dense = row["method"] in AUTO and row["note"].startswith("dense")
    end = ", compacted" if REMOVED in row["note"] else ", dense"
    end = end if is_dense else ""
    return f"{row['ratio']:.2f} ({low:.2f} to {high:.2f}){end}"
