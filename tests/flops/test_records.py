"""FLOPs in the records of runs, and their report."""

from pathlib import Path
from typing import Any

import pytest
from helpers import tiny

from jaxsparse import flops, metrics_log
from jaxsparse.reports import flop_costs, records
from jaxsparse.runner import flop_records
from jaxsparse.stages import PRETRAINING

LAYERS = {"dense1": 64 * 12, "dense2": 12 * 8, "head": 8 * 10}
MACS = flops.Macs({f"{name}/kernel": n for name, n in LAYERS.items()}, 0)
DENSE = 2 * sum(LAYERS.values())
SMALL = {"model.features": (12, 8), "training.duration": "2ep"}
SMALL |= {"schedule.milestones": ("4step",)}


def rows(folder: Path, kind: str = "flops") -> list[dict[str, Any]]:
    found = metrics_log.read(folder / "metrics.jsonl")
    return [row for row in found if row["kind"] == kind]


def level(folder: Path, row: dict[str, Any]) -> dict[str, float]:
    """Densities at the end of the stage of a record."""
    (found,) = (
        other["layers"]
        for other in rows(folder, "level")
        if other["stage"] == row["stage"] and other["replicate"] == row["replicate"]
    )
    return {name: kept / total for name, (kept, total) in found.items()}


@pytest.fixture(scope="module")
def lottery(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("runs") / "lottery"
    fields = {"lottery.levels": 2, "lottery.rewind": "4step"}
    fields["lottery.controls"] = ("reinitialized", "dense_continued")
    return folder, tiny.train(folder, SMALL | fields)


def test_a_ticket_costs_all_levels_before_it(lottery: tuple[Path, Any]) -> None:
    folder, made = lottery
    epoch = made.trainer.epoch
    each = (epoch.steps - 1) * epoch.batch_size + epoch.last_batch
    found = {(r["variant"], r["level"], r["replicate"]): r for r in rows(folder)}
    dense = 3 * DENSE * 2 * each
    before = found[PRETRAINING, 0, 0]
    assert before["stage_training_flops"] == 3 * DENSE * 4 * epoch.batch_size
    total = before["stage_training_flops"]
    for number in range(3):
        row = found["ticket", number, 0]
        density = level(folder, row)
        sparse = flops.inference(MACS, density)
        assert row["inference_flops"] == pytest.approx(sparse)
        assert row["dense_inference_flops"] == DENSE
        assert row["dense_training_flops"] == dense
        assert row["stage_training_flops"] == pytest.approx(
            3 * sparse * (2 * each - 4 * epoch.batch_size)
        )
        total += row["stage_training_flops"]
        assert row["training_flops"] == pytest.approx(total)
        assert row["training_multiple"] == pytest.approx(total / dense)
        assert not row["interpolated"]
    # A control needs the ticket's masks, and its own training in place of the ticket's.
    control, ticket = found["reinitialized", 2, 0], found["ticket", 1, 0]
    assert control["training_flops"] == pytest.approx(
        ticket["training_flops"] + control["stage_training_flops"]
    )
    # Dense training that continues costs as much as all its levels.
    continued = found["dense_continued", 2, 0]
    assert continued["inference_multiple"] == 1.0
    stages = [before, found["ticket", 0, 0], found["dense_continued", 1, 0], continued]
    assert continued["training_flops"] == pytest.approx(
        sum(row["stage_training_flops"] for row in stages)
    )


def test_parameters_are_those_of_the_network(lottery: tuple[Path, Any]) -> None:
    folder, _ = lottery
    found = [row for row in rows(folder) if row["variant"] != PRETRAINING]
    assert found
    for row in found:
        assert row["dense_params"] == sum(LAYERS.values()) + 12 + 8 + 10
        density = level(folder, row)
        kept = sum(round(n * density[f"{k}/kernel"]) for k, n in LAYERS.items())
        assert row["params"] == kept + 12 + 8 + 10


def test_the_report_has_a_table_and_a_figure(lottery: tuple[Path, Any]) -> None:
    runs = records.read_runs([lottery[0]])
    shown = flop_costs.show(runs[0])
    assert list(shown["Level"]) == ["0", "1", "2"]
    assert shown["Inference FLOPs (x dense)"].iloc[0] == "1x"
    multiples = [float(x.rstrip("x")) for x in shown["Training FLOPs (x dense)"]]
    assert multiples == sorted(multiples) and multiples[0] == 1.0 < multiples[1]
    figure = flop_costs.by_training(runs, title="digits")
    assert figure is not None
    ((axes,),) = [figure.axes]
    assert axes.get_xlabel() == "training FLOPs (x dense)"


FIELDS = {"sparse.sparsity": 0.8, "replicates": 1, "evaluation.every": "3step"}
FIELDS |= {"lottery.levels": 0, "lottery.controls": ()}
UPDATES = {"sparse.update_every": "4step", "sparse.end_step": "10step"}
METHODS = {
    "rigl": (UPDATES, "updates"),
    "top_kast": ({"sparse.backward_sparsity": 0.5}, "backward"),
}


@pytest.mark.parametrize("method", list(METHODS))
def test_methods_follow_their_formulas(tmp_path: Path, method: str) -> None:
    more, gradient = METHODS[method]
    uniform = {"sparse.distribution": "uniform", "sparse.method": method}
    made = tiny.run(tmp_path, SMALL | FIELDS | uniform | more)
    (row,) = rows(tmp_path)
    account = made.task.flops
    assert account is not None and account.gradient == gradient
    assert account.macs == MACS
    epoch, stop = made.trainer.epoch, row["step"]
    density = level(tmp_path, row)
    sparse = flops.inference(MACS, density)
    each = (epoch.steps - 1) * epoch.batch_size + epoch.last_batch
    assert stop == 2 * epoch.steps
    wanted = 2 * sparse * 2 * each
    if gradient == "backward":
        trained = dict(zip(density, made_densities(0.5), strict=True))
        wanted += flops.inference(MACS, trained) * 2 * each
    else:
        updates = [step for step in account.updates if step < stop]
        assert updates and all(step % 4 == 0 for step in updates)
        sizes = [
            epoch.last_batch
            if step % epoch.steps == epoch.steps - 1
            else epoch.batch_size
            for step in updates
        ]
        wanted += sparse * 2 * each + sum(sizes) * (DENSE - sparse)
    assert row["stage_training_flops"] == pytest.approx(wanted)
    assert not row["interpolated"]


def made_densities(sparsity: float) -> list[float]:
    """Densities of the layers with a uniform sparsity, exact counts."""
    return [round((1 - sparsity) * n) / n for n in LAYERS.values()]


def test_gradual_pruning_is_between_dense_and_sparse(tmp_path: Path) -> None:
    fields = {"sparse.method": "gmp", "sparse.begin_step": "2step"}
    fields |= {"sparse.end_step": "10step", "sparse.update_every": "5step"}
    made = tiny.run(tmp_path, SMALL | FIELDS | fields)
    (row,) = rows(tmp_path)
    assert row["inference_multiple"] < row["training_multiple"] < 1
    # Evaluated more often than masks are updated, so the sum is exact.
    assert not row["interpolated"]
    stats = [s for s in rows(tmp_path, "mask_stats")]
    counted = {
        s["step"]: {k: a / b for k, (a, b) in s["layers"].items()} for s in stats
    }
    examples = flop_records.example_counter(made.trainer.epoch)
    total = 0.0
    density = counted[0]
    for step in range(row["step"]):
        count = examples(step + 1) - examples(step)
        total += 3 * flops.inference(MACS, density) * count
        if step in made.task.flops.updates:
            after = min(s for s in counted if s > step)
            density = counted[after]
    assert row["stage_training_flops"] == pytest.approx(total)
