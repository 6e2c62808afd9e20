"""Pages of measured predictions and of compaction, made from rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks import compaction_page, inference, inference_page
from experiments.benchmarks import inference_networks as networks
from jaxsparse import masks


def group(network: str, sparsity: float, **ratios: tuple[float, float, float]) -> list:
    rows = []
    for method in inference.METHODS:
        row: dict[str, Any] = {"network": network, "sparsity": sparsity, "batch": 1}
        row |= {"method": method, "note": ""}
        found = (1.0, 1.0, 1.0) if method == inference.BASE else ratios.get(method)
        if found:
            names = ("ratio", "ratio_low", "ratio_high")
            row |= dict(zip(names, found, strict=True))
            row |= {"ms": 8 / found[0], "ms_low": 1.0, "ms_high": 1500.0}
        rows.append(row)
    return rows


AUTO, ONNX = "predict.auto", "ONNX Runtime, dense"
ROWS = [
    *group("A", 0.9, **{AUTO: (0.9, 0.8, 1.2), ONNX: (2.0, 1.5, 2.5)}),
    *group("A", 0.98, **{AUTO: (3.0, 2.5, 3.5), ONNX: (2.0, 1.5, 2.5)}),
    *group("B", 0.98, **{AUTO: (1.5, 0.9, 1.8)}),
]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert inference_page.read(tmp_path / "none.csv") == []
    inference_page.write(tmp_path / "page", ROWS, ["inference.py"])
    assert inference_page.read(tmp_path / "page.csv") == ROWS


def test_the_page_says_where_nothing_is_faster(tmp_path: Path) -> None:
    text = inference_page.page(ROWS, ["inference.py"])
    assert (
        "- predict.auto: faster than dense JAX in every turn in 1 of 2 groups" in text
    )
    assert "at most 3.00 times as fast (98%, batch 1)" in text
    assert "- No sparse form is faster than dense JAX: 90%, batch 1." in text
    assert "faster than predict.auto (medians): 90%, batch 1." in text
    assert "- No sparse form is faster than dense JAX: 98%, batch 1." in text  # B
    assert "Not measured: B 90%, batch 1." in text
    assert "| predict.auto | 0.90 (0.80 to 1.20) | 3.00 (2.50 to 3.50) |" in text
    assert "8.000 ms (1.000 to 1,500)" in text


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
    row |= {"onnx_bytes": 1234, "safetensors_bytes": 567}
    for batch in (1, 256):
        names = (f"ms_{batch}_before", f"ms_{batch}_after", f"ratio_{batch}")
        row |= dict.fromkeys(names, "1 (1 to 2)")
    whole = row | {"network": "B", "parameters_after": 1000, "macs_after": 4000}
    compaction_page.write(tmp_path / "page", [row, whole], ["compaction.py"])
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert (
        "- A: 75.0% of the parameters and 75.0% of the multiply-adds go; 1 (1" in text
    )
    assert "- B: nothing can be removed." in text
    assert (
        "| A | 98.00% | 1,000 | 250 | 4,000 | 1,000 | 1.0e-07 | 1,234 bytes |" in text
    )
    assert len((tmp_path / "page.csv").read_text().splitlines()) == 3
