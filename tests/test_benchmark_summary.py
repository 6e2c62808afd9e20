"""The summary of the benchmarks, and the comparison of saved pages."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import benchmark
from experiments.benchmarks import aims, rows, saved_page, timing
from experiments.benchmarks.aims import Aim

SPEEDS = {"a": [4.0, 5.0, 6.0], "b": [2.0, 2.5, 2.0]}


def saved(root: Path) -> dict[str, Any]:
    return saved_page.read(root / "experiments" / "results" / "benchmark-cpu.json")


def test_numbers_are_found_by_title_and_keys() -> None:
    table = timing.rate_table("t", SPEEDS, unit="u", base="a", absent={"c": "none"})
    runs = [{"total": 1, "step": 2.5}, {"total": 3, "step": 0.5, "more": 1}]
    tables = {"t": table.data, "s": {"full": runs, "count": 7, "exact": True}}
    assert saved_page.numbers(tables) == {
        "t / rates / a": [4.0, 5.0, 6.0],
        "t / rates / b": [2.0, 2.5, 2.0],
        "s / full / total": [1.0, 3.0],
        "s / full / step": [2.5, 0.5],
        "s / count": [7.0],
    }


def test_rows_have_changed_if_their_ranges_do_not_meet() -> None:
    tables = {"a": [1, 2, 3], "b": [1, 2], "rates": {"c": [1, 2]}, "n": 4, "m": 4}
    then = {"date": "d1", "tables": {"t": tables}}
    tables = {"a": [3, 4, 5], "b": [3, 4], "rates": {"c": [3, 4]}, "n": 4, "m": 5}
    now = {"date": "d2", "tables": {"t": tables}}
    lines = saved_page.compare(then, now).splitlines()
    title = "| row | then | now | now / then | changed beyond both spreads |"
    assert lines[2] == title
    a, b, c, m = lines[4:8]
    assert a == ("| t / a | 2.00 (1.00 to 3.00) | 4.00 (3.00 to 5.00) | 2.00 | no |")
    # Less is better, but for rates.
    assert b.endswith("| 2.33 | worse |") and c.endswith("| 2.33 | better |")
    assert m.endswith("| 1.25 | one value each |")
    assert "- date: d1; d2" in lines and "- processor: unknown; unknown" in lines
    assert "1 rows of single numbers are equal and left out." in lines


def verdicts(rows: dict[str, Any]) -> list[str]:
    """How rows compare that are all twice as much now."""
    then, now = {"tables": rows}, {"tables": double(rows)}
    lines = saved_page.compare(then, now, rising=aims.rising()).splitlines()
    return [line.split(" | ")[-1].rstrip(" |") for line in lines if "| 2.00 |" in line]


def double(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: double(inner) for key, inner in node.items()}
    return [2 * value for value in node]


def test_more_is_better_of_rates_ratios_and_all_that_was_tried() -> None:
    keys = ("rates", "ratios", "tried", "milliseconds", "share")
    table = {key: {"PyTorch, 1 thread": [4, 5]} for key in keys}
    assert verdicts({"t": table}) == [*["better"] * 3, *["worse"] * 2]


def test_a_row_of_the_summary_is_better_in_the_direction_of_its_aim() -> None:
    aimed = {
        "LTH-MNIST, LeNet-300-100, 1 replicate: speed / PyTorch, cached batches": 1,
        "ResNet-20, batch 128: speed / PyTorch": 1,
        "selecting 10 % of 11.2 million weights": 0,  # <= 50 ms
        "ResNet-8: time for a step / PyTorch": 0,  # no aim
    }
    assert {*aimed} <= {aim.row for aim in aims.AIMS}
    found = verdicts({aims.TITLE: {row: [4, 5] for row in aimed}})
    assert found == [("worse", "better")[more] for more in aimed.values()]
    for limit, row in ((">= 2", "a"), ("", "speed / b")):
        assert aims.more_is_better(Aim(row, "", limit, ""))
    for limit, row in (("<= 2 s", "speed"), ("", "time / b")):
        assert not aims.more_is_better(Aim(row, "", limit, ""))


def test_rows_of_one_page_are_named() -> None:
    then = {"tables": {"t": {"a": [1], "b": {"c": [1], "d": [2]}}, "gone": {"a": [1]}}}
    now = {"tables": {"t": {"a": [2]}, "new": {"a": [0.5]}}}
    text = saved_page.compare(then, now)
    assert "Only then: t: b / c; b / d." in text
    assert "Only then: gone: the whole table." in text
    assert "Only now: new: the whole table." in text


def test_a_page_is_equal_to_itself(root: Path) -> None:
    text = saved_page.compare(saved(root), saved(root))
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len(table) > 40
    assert {(ratio, changed) for *_, ratio, changed in table[2:]} == {("1.00", "no |")}
    assert "Only" not in text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tables": {"t": [1]}}', "# Page"])
def test_other_files_are_no_saved_pages(text: str, tmp_path: Path) -> None:
    path = tmp_path / "page.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="^expected a saved page, got .*page.json"):
        saved_page.read(path)
    with pytest.raises(ValueError, match="No such file.*; give the .json file"):
        saved_page.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("values", "decimals"), [([0.25, 3], 3), ([158, 154], 0), ([5.4, 0], 2), ([0], 2)]
)
def test_three_digits_are_shown(values: list[float], decimals: int) -> None:
    assert saved_page.decimals(values) == decimals


def test_values_of_the_summary_are_of_repetitions() -> None:
    found = {"t / a": [4.0, 6.0], "t / b": [2.0, 2.0], "t / c": [9.0, 9.0]}
    assert aims.evaluate(Aim("", "", "<= 1", "t / a"), found) == [4.0, 6.0]
    over = Aim("", "", ">= 1", "t / a", over="t / b")
    assert aims.evaluate(over, found) == [2.0, 3.0]
    minus = Aim("", "", "<= 1", "t / a", minus="t / b")
    assert aims.evaluate(minus, found) == [2.0, 4.0]
    # Of several rows the best: the fastest, or that which takes least.
    assert aims.evaluate(Aim("", "", ">= 1", "t / *"), found) == [9.0, 9.0]
    assert aims.evaluate(Aim("", "", "<= 1 s", "t / *"), found) == [2.0, 2.0]


@pytest.mark.parametrize(
    ("limit", "value", "result"),
    [
        *(("< 1 s", 0.9, "met"), ("< 1 s", 1.0, "missed"), ("<= 1 s", 1.0, "met")),
        *((">= 2", 2.0, "met"), (">= 2", 1.99, "missed"), ("", 5.0, "no aim")),
    ],
)
def test_medians_are_judged(limit: str, value: float, result: str) -> None:
    assert aims.judge(Aim("", "", limit, ""), [value] * 3) == result
    wide = aims.judge(Aim("", "", limit, ""), [0.0, value, 100.0])
    assert wide == (f"{result}, not in every turn" if limit else result)


def test_rows_without_numbers_say_why() -> None:
    title = "LTH-MNIST: x"
    absent = dict.fromkeys((rows.CACHED,), rows.MISSING)
    mnist = {"rates": {rows.SINGLE: [1.0]}, "absent": absent}
    reading = timing.absent_table("Reading datasets", "not measured: no folder")
    tables = {title: mnist, reading.title: reading.data}
    measured = ("mnist", "reading", "conv")
    table = aims.summarize(tables, measured, skipped=("reproduction",))
    results = {row[0]: row[3] for row in table.rows}
    assert len(results) == len(table.rows)
    of = {aim.row: aim.benchmark for aim in aims.AIMS}
    assert {of[row] for row in results} == {*measured, "reproduction"}
    expected = {
        "mnist": f"not measured: {rows.MISSING}",
        "reading": "not measured: no folder",
        "conv": "not measured: no such row",
        "reproduction": "not measured: only with --only=reproduction",
    }
    assert {(of[row], reason) for row, reason in results.items()} == {*expected.items()}
    assert table.data == {}


def test_every_aim_is_of_a_benchmark_and_has_a_limit_that_can_be_judged() -> None:
    assert len({aim.row for aim in aims.AIMS}) == len(aims.AIMS)
    for aim in aims.AIMS:
        assert aim.benchmark in benchmark.BENCHMARKS
        sign, limit = (aim.limit or "= 1").split()[:2]
        beside = [aims.judge(aim, [float(limit) * factor]) for factor in (0.9, 1.1)]
        expected = {"<": ["met", "missed"], ">": ["missed", "met"], "=": ["no aim"] * 2}
        assert beside == expected[sign[0]]
    assert {*benchmark.LONG} <= {aim.benchmark for aim in aims.AIMS}


def test_aims_are_found_in_the_committed_page(root: Path) -> None:
    content = saved(root)
    names = [name for name in benchmark.BENCHMARKS if name not in benchmark.LONG]
    table = aims.summarize(content["tables"], names, skipped=benchmark.LONG)
    page = root / "experiments" / "results" / "benchmark-cpu.md"
    summary = page.read_text(encoding="utf-8").partition("### Summary")[2]
    summary = summary.partition("###")[0]
    then = {line.split(" | ")[0]: line for line in summary.splitlines()}
    lines = timing.markdown(table).splitlines()
    now = {line.split(" | ")[0]: line for line in lines if line.startswith("| ")}
    # Rows may have been added or renamed since the page was measured.
    same = [row for row in now if row in then]
    assert len(same) >= 0.8 * len(now)
    assert {row: now[row] for row in same} == {row: then[row] for row in same}
    kept = content["tables"][aims.TITLE]
    assert all(kept[row] == table.data[row] for row in kept if row in table.data)
    assert len({*kept} & {*table.data}) >= 0.8 * len(kept)
    json.dumps(table.data)


@pytest.mark.parametrize("which", ["", ", 4 vmapped replicates"])
def test_jaxpruner_is_compared_with_jaxsparse_in_the_same_table(which: str) -> None:
    title = "Other libraries: RigL with a mask update in 100 steps, LeNet-300-100, "
    times = {"dense": [2.0], "jaxsparse": [3.0], "jaxpruner": [5.0]}
    times["jaxpruner, step not batched"] = [7.0]
    tables = {f"{title}batch 128{which}": {"milliseconds": times}}
    table = aims.summarize(tables, ["other_libraries"])
    start = "RigL with uniform layers, one mask update in 100 steps, LeNet-300-100"
    found = {
        row.removeprefix(f"{start}{which}, ").removesuffix(": time / dense"): values
        for row, values in table.data.items()
    }
    expected = {"jaxsparse": [1.5], "jaxpruner": [2.5]}
    if which:
        expected["jaxpruner, step not batched"] = [3.5]
    assert found == expected
    assert {row[3] for row in table.rows if row[0] in table.data} == {"no aim"}
