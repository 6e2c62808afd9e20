import math

import pandas as pd
import pytest

from jaxsparse import metrics_log
from jaxsparse.reports import formatting, tables
from jaxsparse.reports import records as records_lib


def row(table, *, variant, level, column="variant"):
    rows = table.loc[(table[column] == variant) & (table["level"] == level)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_means_and_sample_deviations(make_run, records):
    table = tables.levels_table(records_lib.read_runs([make_run("a", records)]))
    dense = row(table, variant="ticket", level=0)
    assert dense["n"] == 3
    assert dense["weights_remaining"] == 100.0
    assert math.isclose(dense["test_accuracy"], 91.0)
    assert math.isclose(dense["test_accuracy_sd"], 1.0)
    ticket = row(table, variant="ticket", level=1)
    assert math.isclose(ticket["test_accuracy"], 93.0)
    assert math.isclose(ticket["test_accuracy_sd"], 1.0)
    assert math.isclose(ticket["early_stop_step"], 200.0)
    assert math.isclose(ticket["early_stop_step_sd"], 100.0)
    control = row(table, variant="random_mask", level=1)
    assert control["n"] == 2
    assert math.isclose(control["test_accuracy"], 90.5)
    assert math.isclose(control["test_accuracy_sd"], math.sqrt(0.5))


def test_variants_are_in_one_order_unknown_ones_last(make_run, make_record):
    variants = ["stranger", "dense_continued", "random_mask", "ticket"]
    found = [make_record(name, 1, 0, 0.9) for name in variants]
    table = tables.levels_table(records_lib.read_runs([make_run("a", found)]))
    assert list(table["variant"]) == [
        "ticket",
        "random_mask",
        "dense_continued",
        "stranger",
    ]


def test_pairs_are_of_the_same_replicate(make_run, make_record):
    found = [
        make_record("ticket", 1, 0, 0.95),
        make_record("ticket", 1, 1, 0.90),
        make_record("ticket", 1, 2, 0.10),  # has no partner
        make_record("random_mask", 1, 1, 0.88),
        make_record("random_mask", 1, 0, 0.94),
        make_record("random_mask", 2, 0, 0.50),  # has no ticket
    ]
    table = tables.paired_table(records_lib.read_runs([make_run("a", found)]))
    assert len(table) == 1
    pairs = row(table, variant="random_mask", level=1, column="control")
    assert pairs["n"] == 2
    assert math.isclose(pairs["difference"], 1.5)
    assert math.isclose(pairs["difference_sd"], math.sqrt(0.5))
    assert pairs["weights_remaining"] == 80.0


def test_a_single_replicate_has_no_deviation(make_run, make_record):
    runs = records_lib.read_runs([make_run("a", [make_record("ticket", 0, 0, 0.9)])])
    table = tables.levels_table(runs)
    assert math.isnan(table.loc[0, "test_accuracy_sd"])
    assert formatting.show_levels(table).loc[0, "Test accuracy (%)"] == "90.00"


def test_layers_of_the_ticket(make_run, records):
    (run,) = records_lib.read_runs([make_run("a", records)])
    table = tables.layers_table(run)
    assert list(table.columns) == ["all layers", "hidden/kernel", "output/kernel"]
    assert list(table.index) == [0, 1]
    assert table.loc[1].tolist() == pytest.approx([80.0, 100 * 70 / 90, 100.0])


def test_a_torn_last_line_is_forgiven(make_run, records):
    folder = make_run("a", records, torn='{"kind": "level", "st')
    assert metrics_log.read(folder / "metrics.jsonl") == records


def test_a_broken_line_in_the_middle_is_not(make_run):
    folder = make_run("a", [], torn='{"kind": "le\n{"kind": "timing"}\n')
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl: line 1: expected .*got invalid JSON"
    ):
        records_lib.read_runs([folder])


def test_a_line_that_is_no_object_is_refused(make_run):
    folder = make_run("a", [], torn="[1]\n")
    with pytest.raises(ValueError, match=r"line 1: expected a JSON object, got \[1\]"):
        records_lib.read_runs([folder])


def test_the_last_word_about_a_moment_counts(make_run, make_record):
    found = [make_record("ticket", 0, 0, 0.1), make_record("ticket", 0, 0, 0.9)]
    table = tables.levels_table(records_lib.read_runs([make_run("a", found)]))
    assert table["n"].tolist() == [1]
    assert table["test_accuracy"].tolist() == [90.0]


def test_no_validation_set_leaves_the_columns_out(make_run, make_record):
    nothing = dict.fromkeys(
        ["early_stop_step", "early_stop_test_accuracy", "validation_accuracy"]
    )
    found = [make_record("ticket", 0, r, 0.9, **nothing) for r in range(2)]
    table = tables.levels_table(records_lib.read_runs([make_run("a", found)]))
    assert "Early-stop step" not in formatting.show_levels(table)
    assert formatting.show_levels(table).loc[0, "Test accuracy (%)"] == "90.00 ± 0.00"


def test_no_records_make_empty_tables(make_run):
    runs = records_lib.read_runs([make_run("a", [])])
    assert tables.levels_table(runs).empty
    assert tables.paired_table(runs).empty
    assert tables.layers_table(runs[0]).empty
    assert formatting.summary(tables.levels_table(runs)) == []


def test_runs_are_told_apart_by_name(make_run, records):
    folders = [make_run("b", records), make_run("a", records)]
    table = tables.levels_table(records_lib.read_runs(folders))
    assert list(table["run"].unique()) == ["b", "a"]
    assert "Run" in formatting.show_levels(table)


def test_folders_of_one_name_are_called_by_their_paths(make_run, records):
    folders = [make_run("x/a", records), make_run("y/a", records)]
    names = [run.name for run in records_lib.read_runs(folders)]
    assert names == [str(folder) for folder in folders]


def test_refusals_name_the_folder(make_run, tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: not a run"):
        records_lib.read_runs([tmp_path])
    folder = make_run("a", [])
    with pytest.raises(ValueError, match="expected one or more, each once"):
        records_lib.read_runs([folder, folder])
    with pytest.raises(ValueError, match="expected one or more"):
        records_lib.read_runs([])
    (folder / "config.json").write_text("[]")
    with pytest.raises(
        ValueError, match=r"config\.json: expected a JSON object, got a list"
    ):
        records_lib.read_runs([folder])


def test_summary_finds_the_sparsest_matching_ticket(make_run, make_record):
    accuracies = [0.90, 0.95, 0.90, 0.80]
    found = [make_record("ticket", n, 0, a) for n, a in enumerate(accuracies)]
    table = tables.levels_table(records_lib.read_runs([make_run("a", found)]))
    dense, best, matching = formatting.summary(table)
    assert "90.00 %" in dense
    assert "95.00 % at 80.0 % of the weights (level 1)" in best
    assert "90.00 % at 64.0 % of the weights (level 2)" in matching


@pytest.mark.parametrize(
    ("value", "written"),
    [(100.0, "100"), (51.2, "51.2"), (8.59, "8.6"), (0.916, "0.92"), (0.0, "0")],
)
def test_percentages_read_as_in_the_papers(value, written):
    assert formatting.percent(value) == written


def test_markdown_escapes_bars():
    shown = pd.DataFrame({"a|b": ["<i>"], "c": ["1"]})
    assert formatting.markdown(shown) == "| a\\|b | c |\n| --- | --- |\n| <i> | 1 |\n"
