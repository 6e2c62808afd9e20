"""Records of a stage are those of the whole file, each of which is read once."""

import json
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from jaxsparse import metrics_log
from jaxsparse.training.record_index import RecordIndex

STAGES = ("train", "level_00/ticket", "level_01/ticket")
ROW = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["eval", "timing", "time", "failed"]),
        "stage": st.sampled_from(STAGES),
        "step": st.integers(0, 5),
    },
    optional={"variant": st.sampled_from(["ticket", None]), "replicate": st.just(1)},
)
WANTED = [
    {},
    *({"stage": stage} for stage in STAGES),
    {"stage": "train", "kind": "timing"},
    {"kind": "failed", "variant": None},
    {"kind": "eval", "replicate": 1},
]


def assert_same(index: RecordIndex, path: Path) -> None:
    rows = metrics_log.read(path, fields=metrics_log.FIELDS)
    for wanted in WANTED:
        assert index.read(**wanted) == [
            row for row in rows if all(row.get(k) == v for k, v in wanted.items())
        ]
    for stage in STAGES:
        assert index.count(stage) == metrics_log.count(path, stage)


@hypothesis.given(
    batches=st.lists(
        st.tuples(
            st.sampled_from(["append", "tear", "keep", "sort", "delete"]),
            st.lists(ROW, max_size=4),
            st.integers(1, 60),
        ),
        max_size=6,
    )
)
def test_the_index_agrees_with_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, batches: list
) -> None:
    path = tmp_path_factory.mktemp("records") / "metrics.jsonl"
    index = RecordIndex(path)
    assert_same(index, path)
    for what, rows, number in batches:
        metrics_log.append(path, rows)
        if what == "tear":  # the process is killed, and another one continues
            path.write_bytes(path.read_bytes()[:-number])
            assert_same(index, path)
            index = RecordIndex(path)
            assert_same(index, path)
            metrics_log.keep_only(path, lambda row: True)
        elif what == "keep":
            whole = metrics_log.read(path)
            stays = [r for r in whole if r["stage"] != "train" or r["step"] < 3]
            removed = index.keep_only("train", lambda row: row["step"] < 3)
            assert removed == len(whole) - len(stays)
            assert metrics_log.read(path) == stays
        elif what == "sort":
            metrics_log.sort(path, key=lambda row: row["step"])
        elif what == "delete":
            path.unlink()
        assert_same(index, path)


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_torn_line_is_repaired(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"kind": "eval", "stage": "train", "step": step} for step in range(3)]
    metrics_log.append(path, rows)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    index = RecordIndex(path)
    # Without its newline only, a line is whole.
    kept = rows if cut == 1 else rows[:-1]
    assert index.read(stage="train") == kept
    assert index.count("train") == 2
    # Whichever stage begins.
    assert index.keep_only("level_01/ticket", lambda row: False) == 0
    assert index.read(stage="train") == kept
    metrics_log.append(path, rows[len(kept) :])
    assert path.read_bytes() == whole
    assert index.read(stage="train") == rows


def test_each_stage_reads_its_own_records_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parsed, parse = tmp_path / "metrics.jsonl", [], metrics_log.parse

    def count(line: str, place: str, **options: object) -> metrics_log.Record:
        parsed.append(line)
        return parse(line, place, **options)

    monkeypatch.setattr(metrics_log, "parse", count)
    index = RecordIndex(path)
    for number in range(10):
        stage = f"level_{number:02d}/ticket"
        index.keep_only(stage, lambda row: False)
        rows = [{"kind": "eval", "stage": stage, "step": i} for i in range(7)]
        metrics_log.append(path, rows)
        assert index.read(stage=stage) == rows
        assert index.read(kind="failed") == []
        assert index.count(stage) == 7
    # Once to index it, once to return it.
    assert len(parsed) == 10 * 7 * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "eval"', "invalid JSON"),
        ("[1]", r"expected a JSON object, got \[1\]"),
        ('{"kind": "eval", "stage": "train"}', r"without \['step'\]"),
    ],
)
def test_a_broken_line_is_an_error_that_names_it(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    row = {"kind": "eval", "stage": "train", "step": 3}
    path.write_text(f"{json.dumps(row)}\n")
    index = RecordIndex(path)
    assert index.read() == [row]
    with path.open("a") as file:
        file.write(f"{line}\n{json.dumps(row)}\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"metrics\.jsonl: line 2: .*{message}"):
            index.count("train")
