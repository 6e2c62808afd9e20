"""Saved pages of benchmarks: their numbers by row, and the comparison of two pages.

A row is the title of a table and the keys of the numbers in its data, joined by " / ".
"""

import json
import math
import statistics
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.benchmarks import timing

JOIN = " / "
SAME = ("date", "devices", "processor", "versions")  # what is printed of both pages
RATES = ("rates", "ratios", "tried")  # keys of numbers of which more is better
REMEDY = "give the .json file that --save wrote beside its .md"
Content = dict[str, Any]
Numbers = dict[str, list[float]]


def read(path: Path) -> Content:
    """Reads the JSON file of a saved page.

    Args:
      path: path of the file.

    Raises:
      ValueError: if it is no saved page; the message names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tables = content["tables"]
        if not all(isinstance(data, dict) for data in tables.values()):
            raise TypeError
    except OSError as error:
        raise ValueError(
            f"expected a saved page, got {path} ({error.strerror}); {REMEDY}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected a saved page, got {path}, which has no tables as JSON; {REMEDY}"
        ) from error
    return content


def numbers(tables: Mapping[str, Any]) -> Numbers:
    """Lists the numbers of tables: the repetitions by row.

    Args:
      tables: the data of each table by its title.

    Returns:
      The numbers by row. A single number is a list of one. Texts are left out.
    """
    return dict(_numbers(tables, ()))


def _numbers(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, list[float]]]:
    if isinstance(node, dict):
        for key, inner in node.items():
            yield from _numbers(inner, (*keys, str(key)))
    elif isinstance(node, list) and node and all(isinstance(x, dict) for x in node):
        # Records, one for each repetition.
        shared = [key for key in node[0] if all(key in record for record in node)]
        yield from _numbers({key: [x[key] for x in node] for key in shared}, keys)
    elif _is_number(node):
        yield JOIN.join(keys), [float(node)]
    elif isinstance(node, list) and node and all(map(_is_number, node)):
        yield JOIN.join(keys), [float(value) for value in node]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare(then: Content, now: Content, *, rising: Collection[str] = ()) -> str:
    """Compares two pages row by row.

    Args:
      then: content of the earlier page.
      now: content of the later page.
      rising: rows of which more is better, in addition to those of `RATES`. Of all
        other rows less is better.

    Returns:
      A Markdown table, and the rows that only one of the pages has. The last column
      says whether all repetitions are better or worse than all of the other page. Rows
      of single numbers that are equal, as of compiled programs, are counted and left
      out.
    """
    before, after = (numbers(page["tables"]) for page in (then, now))
    more = lambda row: row in rising or not {*RATES}.isdisjoint(row.split(JOIN))  # noqa: E731
    common = [row for row in before if row in after]
    equal = [
        row for row in common if len(before[row]) == 1 and before[row] == after[row]
    ]
    rows = [
        _compare(row, before[row], after[row], more_is_better=more(row))
        for row in common
        if row not in {*equal}
    ]
    header = ("row", "then", "now", "now / then", "changed beyond both spreads")
    machines = [
        f"{name}: {describe(then.get(name))}; {describe(now.get(name))}"
        for name in SAME
    ]
    note = "\n".join(
        [
            *("Then and now:\n", *(f"- {line}" for line in machines), ""),
            f"{len(equal)} rows of single numbers are equal and left out.",
            *_only("then", then, now),
            *_only("now", now, then),
        ]
    )
    return timing.markdown(timing.Table("Comparison", header, rows, note, {}))


def describe(fact: Any) -> str:
    """Formats a fact about a page, such as its date or its versions.

    Args:
      fact: the fact, as read from JSON.
    """
    if isinstance(fact, dict):
        return ", ".join(f"{name} {value}" for name, value in fact.items())
    return "unknown" if fact is None else str(fact)


def _compare(
    row: str, then: list[float], now: list[float], *, more_is_better: bool
) -> tuple[str, ...]:
    digits = decimals([*then, *now])
    medians = [statistics.median(values) for values in (then, now)]
    ratio = medians[1] / medians[0] if medians[0] else math.nan
    if len(then) == len(now) == 1 and then != now:
        changed = "one value each"
    elif min(now) > max(then) or max(now) < min(then):
        changed = "better" if (ratio > 1) == more_is_better else "worse"
    else:
        changed = "no"
    return (
        row,
        timing.format_spread(then, digits),
        timing.format_spread(now, digits),
        f"{ratio:.2f}",
        changed,
    )


def decimals(values: list[float]) -> int:
    """Returns the number of decimals with which all values have three digits.

    Args:
      values: numbers; may be empty.
    """
    least = min((abs(value) for value in values if value), default=1)
    if not math.isfinite(least):
        return 0
    return min(6, max(0, 2 - math.floor(math.log10(least))))


def _only(when: str, page: Content, other: Content) -> Iterator[str]:
    """Names the rows of one page only: a table, or rows of tables that both have."""
    missing: dict[str, list[str]] = {}
    for title, data in page["tables"].items():
        if title not in other["tables"]:
            missing[title] = []
            continue
        theirs = numbers({title: other["tables"][title]})
        rows = [row for row in numbers({title: data}) if row not in theirs]
        if rows:
            missing[title] = [row.removeprefix(title + JOIN) for row in rows]
    for title, rows in missing.items():
        what = "; ".join(rows) if rows else "the whole table"
        yield f"Only {when}: {title}: {what}."
