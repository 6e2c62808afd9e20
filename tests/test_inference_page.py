"""Pages of measured predictions and of compaction, made from rows."""

import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.benchmarks import (
    compaction_page,
    inference,
    inference_page,
    row_origins,
)
from experiments.benchmarks import inference_networks as networks
from jaxsparse import masks

NOTES = {"predict.auto": "mixed: 2 csr", "SciPy CSR": "2 of 3 layers"}
AUTO, ONNX = "predict.auto", "ONNX Runtime, dense"
ORIGIN = {"processor": "P", "cores": "1", "python": "3", "versions": "jax 1"}


def group(network: str, sparsity: float, ms: float = 8.0, **ratios: tuple) -> list:
    rows = []
    for method in inference.METHODS:
        row: dict[str, Any] = {"network": network, "sparsity": sparsity, "batch": 1}
        row |= {"method": method, "note": NOTES.get(method, "")} | ORIGIN
        found = (1.0, 1.0, 1.0) if method == inference.BASE else ratios.get(method)
        if found:
            names = ("ratio", "ratio_low", "ratio_high")
            row |= dict(zip(names, found, strict=True))
            row |= {"ms": ms / found[0], "ms_low": ms / 1.1, "ms_high": 1500.0}
        rows.append(row)
    return rows


ROWS = [
    *group("A", 0.9, **{AUTO: (0.9, 0.8, 1.2), ONNX: (2.0, 1.5, 2.5)}),
    *group("A", 0.98, **{AUTO: (3.0, 2.5, 3.5), ONNX: (2.0, 1.5, 2.5)}),
    *group("B", 0.98, **{AUTO: (1.5, 0.9, 1.8)}),
]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert inference_page.read(tmp_path / "none.csv") == []
    inference_page.write(tmp_path / "page", ROWS)
    assert inference_page.read(tmp_path / "page.csv") == ROWS


def test_the_page_says_where_nothing_is_faster() -> None:
    text = inference_page.page(ROWS)
    assert (
        "- predict.auto: chose a sparse form in 2 of 2 groups; faster than dense JAX "
        "in every turn in 1 of 2; outside of disturbed columns at most 3.00 times as "
        "fast (98%, batch 1)." in text
    )
    nothing = "- No sparse form is faster than dense JAX in every turn"
    assert f"{nothing}: 90%, batch 1." in text
    assert "predict.auto (medians, same masks): 90%, batch 1." in text
    assert f"{nothing}: 98%, batch 1." in text  # B
    assert "Not measured: B 90%, batch 1." in text
    assert "| predict.auto | 0.90 (0.80 to 1.20) | 3.00 (2.50 to 3.50) |" in text
    assert "8.000 ms (7.273 to 1,500)" in text
    assert "disturbed |" not in text and "- Disturbed" not in text


def test_a_dense_program_that_was_chosen_is_no_sparse_form() -> None:
    rows = group("A", 0.9, **{AUTO: (1.4, 1.3, 1.5), "SciPy CSR": (1.2, 1.1, 1.3)})
    chosen = {AUTO: "dense; compaction removed 9.0% of the parameters"}
    chosen |= {"SciPy CSR": "0 of 3 layers"}
    changed = [row | {"note": chosen.get(row["method"], "")} for row in rows]
    text = inference_page.page(changed)
    assert "sparse form in 0 of 1 groups; faster than dense JAX in every turn" in text
    assert "- No sparse form is faster than dense JAX in every turn: 90%" in text
    assert "| predict.auto | 1.40 (1.30 to 1.50), compacted |" in text
    first = "- predict.auto: compaction first removed parts of the parameters"
    assert f"{first}: 9.0% at 90%." in text
    whole = [row | {"note": row["note"].partition(";")[0]} for row in changed]
    assert "| predict.auto | 1.40 (1.30 to 1.50), dense |" in inference_page.page(whole)
    assert "compaction first" not in inference_page.page(whole)
    assert "1.50), dense" not in inference_page.page(rows)
    assert "No sparse form" not in inference_page.page(rows)


def test_the_committed_pages_are_those_of_their_csv_files(
    root: Path, tmp_path: Path
) -> None:
    results = root / "experiments" / "results"
    rows = inference_page.read(results / "inference-cpu.csv")
    committed = (results / "inference-cpu.md").read_text(encoding="utf-8")
    assert inference_page.page(rows) == committed
    name = "compaction-cpu"
    shutil.copy(results / f"{name}.csv", tmp_path)
    compaction_page.write_page(tmp_path / name)
    committed = (results / f"{name}.md").read_text(encoding="utf-8")
    assert (tmp_path / f"{name}.md").read_text(encoding="utf-8") == committed


def test_single_forms_faster_than_the_chosen_ones_are_listed() -> None:
    numba, condensed = "Numba direct", "condensed, constant fan-in"
    fixed_auto = "predict.auto, constant fan-in"
    rows = group("A", 0.9, **{AUTO: (1.48, 1.45, 1.5), numba: (1.89, 1.85, 1.93)})
    # The ranges meet.
    rows += group("A", 0.95, **{AUTO: (1.5, 1.4, 1.6), numba: (1.8, 1.6, 2.0)})
    # Other masks than those of predict.auto.
    rows += group("A", 0.98, **{AUTO: (1.1, 1.0, 1.2), condensed: (1.8, 1.7, 2.0)})
    rows += group("B", 0.9, **{AUTO: (3.0, 2.9, 3.1), numba: (2.0, 1.9, 2.1)})
    both = {fixed_auto: (1.0, 0.9, 1.1), condensed: (1.3, 1.2, 1.4)}
    rows += group("B", 0.98, **both)
    lines = inference_page.page(rows).splitlines()
    found = [line for line in lines if "ranges of their turns do not meet" in line]
    assert [line.partition(" not meet: ")[2] for line in found] == [
        "90%, batch 1 (Numba direct: 1.89 against 1.48).",
        "98%, batch 1 (condensed, constant fan-in: 1.30 against 1.00).",
    ]


def test_columns_with_a_slow_dense_network_are_disturbed() -> None:
    fast = {AUTO: (2.0, 1.9, 2.1)}
    rows = group("A", 0.9, **fast) + group("A", 0.95, 8.7, **fast)
    rows += group("A", 0.98, 8.8, **{AUTO: (5.0, 4.9, 5.1)})  # 8 / 1.1 * 1.2 = 8.73
    text = inference_page.page(rows)
    assert "|  | 90% sparse | 95% sparse | 98% sparse, disturbed |" in text
    assert "- Disturbed: 98%, batch 1." in text
    assert "in every turn in 3 of 3; outside of disturbed columns at most 2.00" in text


def test_rows_keep_the_machine_that_measured_them(tmp_path: Path) -> None:
    other = ORIGIN | {"processor": "Q", "cores": ""}
    rows = ROWS[:-1] + [ROWS[-1] | other]
    inference_page.write(tmp_path / "page", rows)
    again = inference_page.read(tmp_path / "page.csv")
    inference_page.write(tmp_path / "page", again)
    assert inference_page.read(tmp_path / "page.csv")[-1]["processor"] == "Q"
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert (
        "- P, one core, Python 3, jax 1: A 90%, batch 1; A 98%, batch 1; B 98%, batch"
        in text
    )
    assert "- Q, number of cores not recorded, Python 3, jax 1: B 98%, batch 1." in text


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_all_threads_run_on_one_core() -> None:
    threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    before = {thread: os.sched_getaffinity(thread) for thread in threads}
    try:
        row_origins.use_one_core()
        assert {len(os.sched_getaffinity(thread)) for thread in threads} == {1}
        found = row_origins.record(["jax"])
    finally:
        for thread, cores in before.items():
            os.sched_setaffinity(thread, cores)
    assert found["cores"] == "1" and found["versions"] == f"jax {jax.__version__}"


@pytest.mark.parametrize("constant", [False, True])
def test_networks_have_the_sparsity_and_the_numbers_of_inputs(constant: bool) -> None:
    made = networks.make("LeNet-300-100", 0.9, 3, constant=constant)
    assert made.images.shape == (3, 28, 28, 1)
    ticket = made.masks["params"]
    assert masks.sparsity(ticket) == pytest.approx(0.9, abs=0.01 if constant else 1e-5)
    for name in ("dense1", "dense2"):
        mask = np.asarray(ticket[name]["kernel"])
        kernel = np.asarray(made.variables["params"][name]["kernel"])
        np.testing.assert_array_equal(mask, kernel != 0)
        assert (len(set(mask.sum(0).tolist())) == 1) == constant


def test_the_page_of_compaction(tmp_path: Path) -> None:
    row = {"network": "A", "sparsity": 0.98, "parameters": 1000, "macs": 4000}
    row |= {"parameters_after": 250, "macs_after": 1000, "difference": 1e-7}
    row |= {"accuracy": 0.5}
    row |= {"onnx_bytes": 1234, "safetensors_bytes": 567}
    for batch in (1, 256):
        names = (f"ms_{batch}_before", f"ms_{batch}_after", f"ratio_{batch}")
        row |= dict.fromkeys(names, "1 (1 to 2)")
    row |= ORIGIN
    whole = row | {"network": "B", "parameters_after": 1000, "macs_after": 4000}
    loop = row | {"network": "C", "macs": None, "macs_after": None}
    compaction_page.write_rows(tmp_path / "page", [row, whole, loop])
    compaction_page.write_page(tmp_path / "page")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert (
        "- A: 75.0% of the parameters and 75.0% of the multiply-adds go; 1 (1" in text
    )
    assert "- B: nothing can be removed." in text
    assert "- C: 75.0% of the parameters and an unknown part of the multiply" in text
    assert (
        "| A | 98.00% | 50.00% | 1,000 | 250 | 4,000 | 1,000 | 1.0e-07 | 1,234 bytes |"
        in text
    )
    assert "| C | 98.00% | 50.00% | 1,000 | 250 | unknown | unknown |" in text
    assert "- P, one core, Python 3, jax 1: all rows." in text
    assert len((tmp_path / "page.csv").read_text().splitlines()) == 4
