"""The summary of the benchmarks: every number that has an aim, and whether it is met.

Some numbers without an aim stand beside them for comparison.
The numbers are those of the tables, found by the names of their rows (`saved_page`).
"""

import fnmatch
import operator
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import studies
from experiments.benchmarks import rows, saved_page, timing
from experiments.benchmarks.saved_page import JOIN, Numbers
from experiments.benchmarks.timing import Table

TITLE = "Summary"
SIGNS = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}


class Aim(NamedTuple):
    """One row of the summary.

    Attributes:
      row: what is measured.
      benchmark: the benchmark that measures it.
      limit: the aim, as "<= 5 s": a sign, a number and a unit; "" for no aim.
      of: pattern of the numbers' row, with * for any characters. Of several rows, the
        best is used.
      over: pattern of the numbers by which they are divided; "" for none.
      minus: pattern of the numbers that are subtracted; "" for none.
    """

    row: str
    benchmark: str
    limit: str
    of: str
    over: str = ""
    minus: str = ""


def _startup(row: str, limit: str, of: str) -> Aim:
    return Aim(row, "startup", limit, f"Time from command to first step / {of}")


def _digits(row: str, limit: str, of: str) -> Aim:
    return Aim(f"lth_digits, {row}", "lth_digits", limit, f"lth_digits: a run * / {of}")


def _reading(name: str, cache: str, limit: str) -> Aim:
    of = f"Reading datasets / seconds / {name} / {cache}"
    return Aim(f"reading {name}, {cache}", "reading", limit, of)


def _amortized(which: str, limit: str) -> Aim:
    table = f"A mask update in 100 steps: lenet_300_100, batch 128{which} / rates / "
    row = f"RigL, one mask update in 100 steps, LeNet-300-100{which}: time / dense"
    return Aim(row, "mask_updates", limit, f"{table}dense", over=f"{table}RigL")


def _amortized_library(library: str, which: str = "") -> Aim:
    table = (
        "Other libraries: RigL with a mask update in 100 steps, LeNet-300-100, batch "
        f"128{which} / milliseconds / "
    )
    row = (
        "RigL with uniform layers, one mask update in 100 steps, LeNet-300-100"
        f"{which}, {library}: time / dense"
    )
    over = f"{table}dense"
    return Aim(row, "other_libraries", "", f"{table}{library}", over=over)


def _state(method: str, limit: str) -> Aim:
    row = f"state beyond the optimizer's / float32 weights, {method}"
    of = f"State beyond the optimizer's: * / share / {method}"
    return Aim(row, "state_size", limit, of)


_SELECTED = "Selection from 11,* / global, 10 %, continuous / milliseconds / "
_VMAPPED = ", 4 vmapped replicates"
_SMALL = "ResNet-8, * / milliseconds / "
AIMS = (
    _startup("command to first line", "< 1 s", "full / first line"),
    _startup("command to first step, full cache", "<= 5 s", "full / total"),
    _startup("command to first step, empty cache", "<= 12 s", "empty / total"),
    _startup("programs of a plain run", "<= 10", "empty / programs"),
    _digits("the whole run", "<= 90 s", "seconds / whole run"),
    _digits("a bare scan of its steps", "", "seconds / a bare scan"),
    _digits("share that is not training", "<= 0.15", "share / not training"),
    _digits("a level of the second half / of the first", "<= 1.1", "growth"),
    *(
        Aim(
            f"reproduce.py --study={name} --scale=quick",
            "reproduction",
            "<= 180 s",
            f"reproduce.py --scale=quick / seconds / {name}",
        )
        for name in studies.NAMES
    ),
    *(
        _reading(name, cache, limit)
        for name in ("mnist", "cifar10")
        for cache, limit in (("empty cache", ""), ("full cache", "<= 1 s"))
    ),
    Aim(
        "LTH-MNIST, LeNet-300-100, 1 replicate: speed / PyTorch, cached batches",
        "mnist",
        ">= 2",
        f"LTH-MNIST: * / rates / {rows.SINGLE}",
        over=f"LTH-MNIST: * / rates / {rows.CACHED}",
    ),
    Aim(
        "ResNet-20, batch 128: speed / PyTorch",
        "conv",
        ">= 1",
        "Gradients of convolutions: resnet_20, * / rates / [!P]*",
        over="Gradients of convolutions: resnet_20, * / rates / PyTorch",
    ),
    Aim(
        "ResNet-8, width 8, 16 x 16 images, batch 128: a step",
        "small_resnet",
        "<= 12 ms",
        f"{_SMALL}1 replicate",
    ),
    Aim(
        "ResNet-8: time for a step of a replicate, 5 in one program / 1",
        "small_resnet",
        "<= 1",
        f"{_SMALL}5 replicates *",
        over=f"{_SMALL}1 replicate",
    ),
    Aim(
        "ResNet-8: time for a step / PyTorch",
        "small_resnet",
        "",
        f"{_SMALL}1 replicate",
        over=f"{_SMALL}PyTorch",
    ),
    Aim(
        "selecting 10 % of 11.2 million weights",
        "selection",
        "<= 50 ms",
        f"{_SELECTED}jaxsparse.select",
    ),
    Aim(
        "selecting 10 %: time / numpy.partition, which finds a threshold only",
        "selection",
        "",
        f"{_SELECTED}jaxsparse.select",
        over=f"{_SELECTED}numpy.partition",
    ),
    Aim(
        "selecting 10 %: time / jax.lax.top_k",
        "selection",
        "",
        f"{_SELECTED}jaxsparse.select",
        over=f"{_SELECTED}jax.lax.top_k",
    ),
    Aim(
        "selecting 10 %: counting passes over the scores",
        "passes",
        "<= 8",
        "Selection of 10 % in passes * / 11,* / counted",
    ),
    Aim(
        "selecting 10 %: time / one of these passes",
        "passes",
        "",
        "Selection of 10 % in passes * / 11,* / passes / jaxsparse.select",
    ),
    _amortized("", "<= 1.08"),
    _amortized(_VMAPPED, "<= 1.1"),
    *(_amortized_library(name) for name in ("jaxsparse", "jaxpruner")),
    *(
        _amortized_library(name, _VMAPPED)
        for name in ("jaxsparse", "jaxpruner", "jaxpruner, step not batched")
    ),
    Aim(
        "SET: a mask update of 11.2 million weights",
        "mask_updates",
        "<= 150 ms",
        "A mask update: 11,* / SET / milliseconds / with",
        minus="A mask update: 11,* / SET / milliseconds / without",
    ),
    *(_state(method, "<= 0.28") for method in ("fixed", "magnitude, global", "RigL")),
    *(_state(f"{method}, packed masks", "<= 0.07") for method in ("fixed", "RigL")),
)


def summarize(
    tables: Mapping[str, Any], measured: Sequence[str], *, skipped: Sequence[str] = ()
) -> Table:
    """Makes the table of all numbers with an aim, and of those they are compared with.

    Args:
      tables: the data of each table by its title.
      measured: names of the benchmarks that were run.
      skipped: names of those that only run by name, which get rows that say so.
    """
    found = saved_page.numbers(tables)
    lines, data = [], {}
    for aim in AIMS:
        if aim.benchmark in measured:
            try:
                values = evaluate(aim, found)
            except KeyError as error:
                reason = f"not measured: {_reason(error.args[0], tables)}"
                lines.append((aim.row, "", aim.limit, reason))
                continue
            lines.append((aim.row, _format(aim, values), aim.limit, judge(aim, values)))
            data[aim.row] = values
        elif aim.benchmark in skipped:
            reason = f"not measured: only with --only={aim.benchmark}"
            lines.append((aim.row, "", aim.limit, reason))
    note = "Medians, with the range of the repetitions; the median is compared."
    return Table(TITLE, ("", "value", "aim", "result"), lines, note, data)


def evaluate(aim: Aim, found: Numbers) -> list[float]:
    """Computes the numbers of an aim, one for each repetition.

    Args:
      aim: the row of the summary.
      found: numbers by row.

    Raises:
      KeyError: if the numbers of a pattern are missing; its argument is the pattern.
    """
    values = _find(aim.of, found, best=max if more_is_better(aim) else min)
    if aim.minus:
        less = _find(aim.minus, found)
        values = [a - b for a, b in zip(values, less, strict=True)]
    if aim.over:
        values = timing.ratios(values, _find(aim.over, found))
    return values


def more_is_better(aim: Aim) -> bool:
    """True for aims that are lower bounds, and for speeds without an aim.

    Args:
      aim: the row of the summary.
    """
    return aim.limit.startswith(">") or (not aim.limit and "speed" in aim.row)


def rising() -> set[str]:
    """Returns the rows of the summary of which more is better, as `saved_page` does."""
    return {f"{TITLE}{JOIN}{aim.row}" for aim in AIMS if more_is_better(aim)}


def _find(pattern: str, found: Numbers, best: Any = min) -> list[float]:
    rows = [row for row in found if fnmatch.fnmatchcase(row, pattern)]
    if not rows:
        raise KeyError(pattern)
    return best((found[row] for row in rows), key=statistics.median)


def _reason(pattern: str, tables: Mapping[str, Any]) -> str:
    """Returns why numbers are missing, as far as a table says so."""
    title, *_, last = pattern.split(JOIN)
    absent: dict[str, str] = {}
    for name, data in tables.items():
        if fnmatch.fnmatchcase(name, title):
            absent |= data.get("absent", {})
    reason = absent.get(last, absent.get("", "no such row"))
    return reason.removeprefix("not measured: ")


def judge(aim: Aim, values: Sequence[float]) -> str:
    """Returns "met" or "missed" by the median; "no aim" without a limit.

    Args:
      aim: the aim.
      values: a value of each repetition, at least one.

    Returns:
      The verdict, with the words "not in every turn" if others than the median differ.
    """
    if not aim.limit:
        return "no aim"
    sign, limit = aim.limit.split()[:2]
    verdicts = {SIGNS[sign](value, float(limit)) for value in values}
    met = SIGNS[sign](statistics.median(values), float(limit))
    word = "met" if met else "missed"
    return word if len(verdicts) == 1 else f"{word}, not in every turn"


def _format(aim: Aim, values: Sequence[float]) -> str:
    unit = aim.limit.split()[2:]
    shown = timing.format_spread(values, min(3, saved_page.decimals([*values])))
    return " ".join([shown, *unit])
