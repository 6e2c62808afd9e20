"""Runs from Python: trained by one call, opened by another, without their dataset."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

import jaxsparse
from jaxsparse import factory, metrics_log, tree
from jaxsparse import masks as masks_lib
from jaxsparse.lottery import tickets
from jaxsparse.reports import records
from jaxsparse.runner import run as run_lib
from jaxsparse.training.preemption import Preempted

FIELDS = {"lottery.levels": 1, "model.features": (12, 8), "training.duration": "1ep"}
FIELDS["schedule.milestones"] = ("4step",)
CONTROLS = ("reinitialized", "shuffled_layers", "dense_continued")
FIELDS["lottery.controls"] = CONTROLS


def listing(folder: Path) -> dict[str, bytes]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def started() -> dict[str, Any]:
    """The weights with which `fit` was called, by stage."""
    return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, started: dict[str, Any]) -> Path:
    """A lottery run of two replicates, trained by the call."""
    made = tmp_path_factory.mktemp("runs") / "a"
    sent: list[Any] = []
    fit = run_lib.train.fit

    def watched(trainer: Any, state: Any, *, stage: Any, **options: Any) -> Any:
        started[stage.name] = jax.tree.map(np.array, state.params)
        return fit(trainer, state, stage=stage, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_lib.train, "fit", watched)
        run = jaxsparse.run(
            tiny.config(FIELDS), str(made), metric_writers=[sent.extend]
        )
    assert run.levels() == [0, 1]
    assert sent == metrics_log.read(made / "metrics.jsonl")
    return made


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no data here")

    monkeypatch.setattr(factory.input_data.datasets, "load", refuse)


@pytest.mark.usefixtures("no_data")
def test_a_run_opens_without_its_dataset(folder: Path) -> None:
    before = listing(folder)
    run = jaxsparse.load(folder)
    assert run.config.model.features == (12, 8)
    table = run.records()
    of_tickets = table[(table.kind == "level") & (table.variant == "ticket")]
    assert list(of_tickets.kept) == [944, 944, 755, 755]
    both, second = run.masks(replicate=None), run.masks(1, replicate=1)
    tiny.check_equal(jax.tree.map(lambda leaf: leaf[1], both), second)
    params = run.params(level=1, replicate=1)
    numbers = table.level.max(), table.replicate.max().astype(int)  # of NumPy
    tiny.check_equal(run.params(*numbers), params)
    held = tickets.load(tickets.path_of(folder / "tickets", 1, 1), second)
    tiny.check_equal(second, held)
    kept = tree.named_leaves(second)
    for name, leaf in tree.named_leaves(params).items():
        if name in kept:
            assert not np.any(leaf[~kept[name]]), name
            assert np.any(leaf[kept[name]]), name
    logits = run.model().apply(run.variables(1, 1), jnp.ones((2, 8, 8, 1)), train=False)
    assert logits.shape == (2, 10)
    assert listing(folder) == before


def test_start_params_are_those_that_training_received(
    folder: Path, started: dict[str, Any]
) -> None:
    run = jaxsparse.load(folder)
    for level in (0, 1):
        received = started[f"level_{level:02d}/ticket"]
        tiny.check_equal(run.start_params(level, None), received)
    kept = tree.named_leaves(run.masks(1, 1))
    ticket = tree.named_leaves(run.start_params(replicate=1))
    assert all(not np.any(ticket[name][~mask]) for name, mask in kept.items())
    run.config.gradinit.steps = 3
    with pytest.raises(ValueError, match="config.gradinit.steps 0, got 3"):
        run.start_params(1)


@pytest.mark.usefixtures("no_data")
def test_controls_are_opened_by_their_variant(
    folder: Path, started: dict[str, Any]
) -> None:
    run = jaxsparse.load(folder)
    assert run.variants() == ["ticket", *CONTROLS]
    assert (run.levels(), run.levels("shuffled_layers")) == ([0, 1], [1])
    ticket = masks_lib.layer_counts(run.masks())
    for variant in CONTROLS:
        received = started[f"level_01/{variant}"]
        tiny.check_equal(run.start_params(1, None, variant=variant), received)
        params, mask = run.params(variant=variant), run.masks(variant=variant)
        tiny.check_equal(masks_lib.apply(mask, params), params)
        dense = variant == "dense_continued"
        assert (masks_lib.layer_counts(mask) == ticket) != dense
        tiny.check_equal(run.variables(variant=variant)["params"], params)
    with pytest.raises(ValueError, match=r"variant: expected one of \['ticket', 're"):
        run.masks(variant="random_mask")
    with pytest.raises(ValueError, match=r"one of \[1\] of variant 'reinitialized'"):
        run.params(0, variant="reinitialized")


def test_weights_are_those_that_were_measured(folder: Path) -> None:
    run = jaxsparse.load(folder)
    opened = factory.open_run(str(folder))
    functions = factory.make_eval_fns(run.config, opened.dataset, {})
    test, table = opened.dataset.test, run.records()
    evaluate = jax.jit(functions.evaluate)
    for level in (0, 1):
        _, right = evaluate(run.params(level), {}, (test.images, test.labels))
        row = table[(table.kind == "level") & (table.level == level)].iloc[0]
        assert row.variant == "ticket"
        assert float(right.mean()) == pytest.approx(row.test_accuracy)


def test_it_is_continued_and_other_experiments_are_refused(folder: Path) -> None:
    before = metrics_log.read(folder / "metrics.jsonl")
    assert jaxsparse.run(tiny.config(FIELDS), folder).levels() == [0, 1]
    assert metrics_log.read(folder / "metrics.jsonl") == before
    with pytest.raises(ValueError, match="another experiment.*learning_rate"):
        jaxsparse.run(tiny.config(FIELDS | {"schedule.learning_rate": 0.2}), folder)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda run: run.params(level=7), ValueError, r"expected one of \[0, 1\]"),
        (lambda run: run.params(level=1.0), TypeError, "level"),
        (lambda run: run.masks(replicate=2), ValueError, r"replicate: .*\[0, 2\)"),
        (lambda run: run.masks(replicate=True), TypeError, "replicate: expected"),
        (lambda run: jaxsparse.load(3), TypeError, "folder"),
        (lambda run: jaxsparse.load(""), ValueError, "folder: expected the path"),
        (
            lambda run: jaxsparse.load(run.folder / "no"),
            ValueError,
            "expected the directory of a run, got none",
        ),
        (lambda run: jaxsparse.run(run.config, None), TypeError, "workdir"),
        (
            lambda run: jaxsparse.run({}, run.folder / "a"),
            TypeError,
            "config",
        ),
        (
            lambda run: jaxsparse.run(run.config, "a", metric_writers=["b"]),
            TypeError,
            "metric_writers",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    folder: Path, call: Any, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        call(jaxsparse.load(folder))


@pytest.mark.usefixtures("no_data")
def test_a_run_without_sizes_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    run = jaxsparse.load(tmp_path)
    assert run.levels() == []
    assert list(run.records().columns) == list(metrics_log.FIELDS)
    with pytest.raises(ValueError, match="no level has been trained"):
        run.params()
    with pytest.raises(ValueError, match=r"data\.json.*repeat the command"):
        run.model()


def test_a_run_that_was_stopped_has_no_level(tmp_path: Path) -> None:
    def stop(rows: Any) -> None:
        raise Preempted("a step")

    with pytest.raises(Preempted):
        jaxsparse.run(tiny.config(FIELDS), tmp_path, metric_writers=[stop])
    assert jaxsparse.load(tmp_path).levels() == []


def test_packed_checkpoints_hold_the_same_bits(folder: Path, tmp_path: Path) -> None:
    fields = FIELDS | {"run.pack_checkpoints": True, "lottery.controls": ()}
    packed = tmp_path / "packed"
    tiny.train(packed, fields)
    # Level 1 once more, which is pruned by the packed weights of level 0.
    shutil.rmtree(packed / "checkpoints" / "level_01")
    shutil.rmtree(packed / "tickets" / "level_01")
    tiny.train(packed, fields)
    ends = sorted(p.relative_to(packed) for p in packed.rglob("last.json"))
    assert len(ends) == 2
    for end in ends:
        hashes = [
            metrics_log.read_object(place / end)["hash"] for place in (folder, packed)
        ]
        assert hashes[0] == hashes[1], end
        assert (packed / end).with_suffix("").joinpath("packed.npz").is_file()
    assert listing(packed)["metrics.jsonl"].count(b"\n") > 10
    runs = [jaxsparse.load(place) for place in (folder, packed)]
    for level in (0, 1):
        whole, sparse = (run.variables(level, None) for run in runs)
        tiny.check_equal(whole, sparse)
    sizes = [
        sum(map(len, listing(place / "checkpoints").values()))
        for place in (folder, packed)
    ]
    (read,) = records.read_runs([packed])
    shown = f"{sizes[1]:,} bytes in 3, 2 of them packed"
    assert read.environment["checkpoints"] == shown
