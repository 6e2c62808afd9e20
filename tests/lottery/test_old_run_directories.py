"""Run directories that an older version wrote are continued, opened and reported.

`tests/golden/old_runs.tar.gz` has two runs of version 0.1.0 as of November 2026, which
were interrupted: "rigl" trains a small network by RigL with GradInit and records
gradients, "lottery" prunes it twice. Config fields, record kinds and files have the
names of that version.
"""

import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxsparse
from jaxsparse import config, masks, metrics_log, old_names
from jaxsparse.reports import page, records


@pytest.fixture
def old_runs(root: Path, tmp_path: Path) -> Path:
    with tarfile.open(root / "tests" / "golden" / "old_runs.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def rows_of(folder: Path) -> list[metrics_log.Record]:
    return metrics_log.read(folder / "metrics.jsonl", fields=metrics_log.FIELDS)


def test_it_is_continued_where_it_stopped(old_runs: Path) -> None:
    folder = old_runs / "rigl"
    before = rows_of(folder)
    c = config.from_json(config.renames.read(folder / "config.json"))
    assert c.sparse.skip_update is False and c.gradinit.steps == 2
    jaxsparse.run(c, folder, report=False)
    # It trained on from the checkpoint of step 4: what was recorded up to it is kept.
    kept = [row for row in before if row["step"] <= 4]
    rows = rows_of(folder)
    assert rows[: len(kept)] == kept
    assert {row["stage"] for row in rows} == {"level_00/ticket"}
    kinds = {"gradient_norm", "eval", "mask_stats", "train", "level", "timing"}
    kinds |= {"flops"}
    assert {row["kind"] for row in rows} == kinds
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert not any(f'"{name}":' in text for name in old_names.RECORD_FIELDS)
    counts = [row["kept"] for row in rows if row["kind"] in ("mask_stats", "level")]
    assert set(counts) == {224}  # half of 448 weights
    run = jaxsparse.load(folder)
    params, ticket = run.params(replicate=0), run.masks(replicate=0)
    kernel, mask = params["dense1"]["kernel"], ticket["dense1"]["kernel"]
    assert not np.any(np.asarray(kernel)[~np.asarray(mask)])
    (read,) = records.read_runs([folder])
    assert read.ended
    assert not (folder / "gradinit.json").exists()  # its factors were learned before


def test_it_is_opened_and_reported(old_runs: Path, tmp_path: Path) -> None:
    folder = old_runs / "lottery"
    run = jaxsparse.load(folder)
    assert run.levels() == [0, 1]
    assert masks.num_active(run.masks(level=1, replicate=1)) == 358  # 0.8 of 448
    frame = run.records()
    assert set(frame["variant"]) == {"ticket", "reinitialized"}
    levels = frame[frame["kind"] == "level"]
    assert sorted(set(levels["density"])) == [358 / 448, 1]
    page.write([folder], tmp_path / "report")
    table = pd.read_csv(tmp_path / "report" / "levels.csv")
    assert table.loc[table["level"] == 1, "n"].tolist() == [2]
