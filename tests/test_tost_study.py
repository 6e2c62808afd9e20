"""The study of ToST's techniques: its variants, its claims and its report."""

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny, tiny_studies

from experiments.studies import driver, tost
from experiments.studies.run_reader import Reader
from experiments.studies.runs import Run, read
from experiments.studies.tost import measure, variants
from experiments.studies.tost.variants import Cell
from jaxsparse import factory, metrics_log, transforms
from jaxsparse.training import preemption

GRID = variants.Grid(
    f"{tiny_studies.RECIPE}:static",
    ("tickets",),
    (80,),
    ("smoothing",),
    (variants.Limit(("activation_released",), ("random", "snip"), (80,)),),
)


def small(patch: pytest.MonkeyPatch) -> Any:
    """Makes it a study of one network on digits."""
    patch.setitem(variants.GRIDS, "quick", {"mlp": GRID})
    runs = variants.of_setting("mlp", "quick")
    return tiny_studies.as_tiny(tost.STUDY, runs, "mlp")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a study that has run through, and what is measured of its runs."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        made = small(patch)
        found = tiny_studies.train(made, folder)
        short = {name.removeprefix("mlp_"): entry for name, entry in found.items()}
        return folder, variants.arrange("mlp", "quick", short)


@pytest.fixture(scope="module")
def whole(study: tuple[Path, dict[str, Any]]) -> Path:
    return study[0]


@pytest.fixture(scope="module")
def found(study: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return study[1]


def test_every_variant_of_every_cell_is_measured(found: dict[str, Any]) -> None:
    """The study of three runs that all tests here share: one that prunes, and two."""
    assert list(found["cells"]) == [Cell("tickets", 80)]
    for entry in found["cells"].values():
        assert entry.keys() == {"none", *GRID.techniques}


def test_all_techniques_are_those_that_are_tried_alone() -> None:
    for scale, networks in variants.GRIDS.items():
        for network, grid in networks.items():
            for cell in variants.cells(grid):
                fields = variants.of_cell(grid, cell)
                assert fields["none"] == {}
                absent, forms = set(), set()
                for names, masks, sparsities in grid.limited:
                    there = cell.mask in masks and cell.sparsity in sparsities
                    absent |= set() if there else set(names)
                    forms |= set(names) & variants.FORMS.keys()
                if "all" in fields:
                    alone = [variants.TECHNIQUES[n].items() for n in grid.techniques]
                    together = {k: v for items in alone for k, v in items}
                    assert together.items() <= fields["all"].items(), (scale, network)
                else:
                    assert len(grid.techniques) == 1
                wanted = {*grid.techniques, *forms} - absent
                assert fields.keys() | {"all"} == {"none", "all", *wanted}
    assert set(variants.GRIDS["cpu"]["mlp"].masks) == {
        *("random", "snip", "synflow", "tickets")
    }
    assert variants.GRIDS["cpu"]["mlp"].sparsities == (95, 98, 99)


def test_masks_of_cifar16_keep_as_many_weights_whatever_their_kind() -> None:
    """In the last layer all of them, as tickets do, and the same of the others."""
    kept: dict[int, set[int]] = {}
    for run in tost.STUDY.all_runs("cifar16"):
        _, mask, at, *variant = run.name.split("_")
        if variant != ["none"] or mask in ("dense", "tickets"):
            continue
        c = read(run)
        assert c.sparse.prunable == ("*kernel", "!head/kernel")
        erk = mask == "random"  # scores compete over all layers
        assert c.sparse.distribution == ("erk" if erk else "global")
        kept.setdefault(int(at), set()).add(c.sparse.sparsity)
    assert kept == {90: {0.9}, 95: {0.95}, 98: {0.98}}
    (pruning,) = [
        read(one)
        for one in tost.STUDY.all_runs("cifar16")
        if one.name == "resnet8_pruning_98"
    ]
    assert pruning.lottery.exclude == ("head/kernel",)
    assert (1 - pruning.lottery.fraction) ** 4 == pytest.approx(0.02)


def test_accuracies_are_those_recorded(whole: Path, found: dict[str, Any]) -> None:
    for cell, entry in found["cells"].items():
        for name, arm in entry.items():
            rows = metrics_log.read(whole / cell.named("mlp", name) / "metrics.jsonl")
            ends = [row for row in rows if row["kind"] == "level"]
            ends.sort(key=lambda row: row["replicate"])
            assert arm["accuracy"] == [100 * row["test_accuracy"] for row in ends]
            steps, curve = arm["curve"]
            assert (steps[0], steps[-1], arm["steps"]) == (0, 12, 12)
            assert [values[-1] for values in curve] == arm["accuracy"]


@functools.cache
def opened(folder: Path, name: str) -> factory.TrainedRun:
    return factory.open_run(folder / name)


def held(folder: Path, name: str, moment: str) -> tuple[Any, Any]:
    state = factory.load_state(opened(folder, name), moment)
    return state.params, transforms.get_masks(state.opt_state)


def test_variants_of_a_cell_share_weights_and_masks(
    whole: Path, found: dict[str, Any]
) -> None:
    counts = {}
    for cell, entry in found["cells"].items():
        params, _ = held(whole, cell.named("mlp", "none"), "init")
        _, last = held(whole, cell.named("mlp", "none"), "train/last")
        counts[cell] = {arm["kept"] for arm in entry.values()}
        for name in entry.keys() - {"none"}:
            tiny.check_equal(held(whole, cell.named("mlp", name), "init")[0], params)
            tiny.check_equal(
                held(whole, cell.named("mlp", name), "train/last")[1], last
            )
        if cell.mask == "tickets":
            source = variants.source(cell, "mlp")
            moment = f"level_{variants.QUICK_LEVELS:02d}/ticket/last"
            theirs = held(whole, source, moment)[1]
            tiny.check_equal(last["dense1"], theirs["dense1"])
            tiny.check_equal(params, held(whole, source, "init")[0])
    # 512 weights between the images and the hidden layer.
    assert counts == {Cell("tickets", 80): {102}}


@pytest.mark.campaign
def test_a_killed_study_resumes_to_identical_results(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = small(monkeypatch), iter(range(1000))

    @contextlib.contextmanager
    def listening() -> Any:
        yield lambda: 15 if next(asked) in (3, 9) else 0

    monkeypatch.setattr(preemption, "listening", listening)
    tasks = tiny_studies.tasks(made, tmp_path)
    for _ in range(2):
        with pytest.raises(preemption.Preempted):
            driver.run_all(tasks)
    assert driver.run_all(tasks) == []
    for task in tasks:
        last = f"level_{read(task.run).lottery.levels:02d}/ticket/last"
        again, once = (
            factory.load_state(factory.open_run(folder / task.run.name), last)
            for folder in (tmp_path, whole)
        )
        tiny.check_equal(again, once)


def test_the_page_has_tables_and_figures(whole: Path) -> None:
    report = whole / "report"
    text = (report / "mlp.md").read_text(encoding="utf-8")
    assert "| tickets | 80 % | 2 |" in text
    assert "12 updates" in text and "2 seeds" in text
    for name in ("gains", "training"):
        assert (report / f"mlp_{name}.png").stat().st_size > 10_000
    assert len((report / "mlp_accuracies.csv").read_text().splitlines()) == 1 + 2 * 2


def test_records_of_rescaling_are_read(tmp_path: Path) -> None:
    rows = [
        {"factors": {"a/kernel": 0.5 + r}, "objective": [1], "constrained": [r, 0]}
        for r in (0, 1)
    ]
    (tmp_path / "gradinit.json").write_text(json.dumps(rows))
    (tmp_path / "metrics.jsonl").write_text("")
    reader = Reader(Run("", "", {}), tmp_path, "")
    assert measure.of_factors(reader) == {
        "factors": {"a/kernel": [0.5, 1.5]},
        "constrained": [0.0, 50.0],
    }
    (tmp_path / "gradinit.json").unlink()
    assert measure.of_factors(reader) == {}
