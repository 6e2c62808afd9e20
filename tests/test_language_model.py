"""A run of a language model from its recipe to its report, and one-shot pruning."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsparse
from configs import rigl_python_docs
from experiments.studies import claims as claims_lib
from experiments.studies import records as study_records
from experiments.studies.language_model import (
    STUDY,
    claims,
    measure,
    one_shot,
    report,
    variants,
)
from experiments.studies.run_reader import Reader
from experiments.studies.runs import Run
from jaxsparse import masks
from jaxsparse.reports import figures, page, plot_style, records, tables
from jaxsparse.reports import methods as methods_lib


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RigL that grows by other examples, with gradient norms: all read tokens."""
    c = rigl_python_docs.get_config("quick")
    c.data.context = 8
    c.data.train_examples, c.data.test_examples = 48, 20
    c.model.width, c.model.heads = 8, 2
    c.training.duration, c.evaluation.every = "6step", "3step"
    c.schedule.warmup, c.sparse.update_every = "1step", "2step"
    c.sparse.sparsity, c.sparse.grow_batch_size = 0.5, 8
    c.analysis.gradient_every, c.analysis.examples = "6step", 16
    c.evaluation.batch_size = 16  # the last batch is padded
    c.run.tensorboard = False
    place = tmp_path_factory.mktemp("runs") / "decoder_dense"
    jaxsparse.run(c, place)
    return place


def windows(part: Any) -> np.ndarray:
    return part.images[..., 0, 0].astype(np.int32)


def test_losses_of_a_run_are_means_over_tokens(folder: Path) -> None:
    run, reader = (
        jaxsparse.load(folder),
        Reader(Run("decoder_dense", "", {}), folder.parent, ""),
    )
    last = [row for row in reader.rows if row["kind"] == "level"]
    tokens = windows(reader.run.dataset.test)
    assert tokens.shape == (20, 9)
    apply = jax.jit(functools.partial(run.model().apply, train=False))
    example = run.example_images()
    assert example.dtype == jnp.int32  # multiples of 255 / 7, rounded down
    assert example.tolist() == [[0, 36, 72, 109, 145, 182, 218, 255]]
    for row in last:
        variables = run.variables(replicate=row["replicate"])
        logits = np.asarray(apply(variables, jnp.asarray(tokens[:, :-1])), np.float64)
        logits -= np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
        each = np.take_along_axis(logits, tokens[:, 1:, None], axis=-1)
        assert row["test_loss"] == pytest.approx(-each.mean(), rel=1e-5)
        right = np.argmax(logits, axis=-1) == tokens[:, 1:]
        assert row["test_accuracy"] == pytest.approx(right.mean())
    held = run.masks(replicate=0)
    assert masks.names(held) == [n for n in masks.names(held) if n.startswith("block1")]
    assert masks.sparsity(held) == pytest.approx(0.5, abs=0.01)
    kinds = {row["kind"] for row in reader.rows}
    assert {"gradient_norm", "mask_stats", "flops"} <= kinds


def test_reports_show_perplexity(folder: Path, tmp_path: Path) -> None:
    runs = records.read_runs([folder])
    level = records.frame(runs, "level")
    wanted = np.exp(level["test_loss"])
    assert list(tables.in_percent(runs)["test_perplexity"]) == list(wanted)
    row = methods_lib.methods_table(runs).iloc[0]
    assert row["test_perplexity"] == pytest.approx(wanted.mean())
    assert row["test_perplexity_sd"] == pytest.approx(wanted.std(ddof=1))
    labels = [axes.get_ylabel() for axes in figures.curves(runs[0], title="").axes]
    assert labels[0] == "test perplexity"
    page.write([folder], tmp_path)
    text = (tmp_path / "methods.md").read_text()
    assert f"| {wanted.mean():.2f} ± {wanted.std(ddof=1):.2f} |" in text
    assert "Test perplexity" in text


def test_reports_on_images_have_no_perplexity(folder: Path, tmp_path: Path) -> None:
    saved = json.loads((folder / "config.json").read_text())
    saved["model"]["name"] = "lenet_300_100"
    (tmp_path / "config.json").write_text(json.dumps(saved))
    rows = (folder / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(rows)
    runs = records.read_runs([tmp_path])
    assert list(methods_lib.methods_table(runs)) == list(methods_lib.COLUMNS)
    assert "test_perplexity" not in tables.levels_table(runs)


# Weights that RigL has pruned already are all zero, whichever are kept.
@pytest.mark.filterwarnings("ignore::jaxsparse.select.ranking.TiedScoresWarning")
def test_one_shot_pruning_of_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of the inputs of each output is kept, the largest by magnitude."""
    monkeypatch.setattr(one_shot, "SPARSITIES", (0.75,))
    monkeypatch.setattr(one_shot, "CALIBRATION", 4)
    reader = Reader(Run("decoder_dense", "", {}), folder.parent, "")
    found = measure.measure(reader, lambda name: reader)
    assert found["sparsity"] == pytest.approx([50], abs=1)
    assert np.shape(found["loss"]) == (2, 1)
    pruned_once = found["one_shot"]
    assert sorted(pruned_once) == sorted(one_shot.LABELS)
    assert {np.shape(each["loss"]) for each in pruned_once.values()} == {(2, 1)}
    # Of 8 or 21 inputs 2 or 5 are kept for each output, of a layer 75 % go.
    params = reader.solutions(reader.end())[0].params
    tokens = windows(reader.run.dataset.test)

    def quartered(path: Any, leaf: jax.Array) -> jax.Array:
        if "block1" not in jax.tree_util.keystr(path) or leaf.ndim < 2:
            return leaf
        order = np.argsort(np.argsort(-np.abs(leaf), axis=0, kind="stable"), axis=0)
        return jnp.where(order < len(leaf) // 4, leaf, 0)

    run = jaxsparse.load(folder)
    pruned = {"params": jax.tree_util.tree_map_with_path(quartered, params)}
    apply = jax.jit(functools.partial(run.model().apply, train=False))
    logits = apply(pruned, jnp.asarray(tokens[:, :-1]))
    each = jax.nn.log_softmax(logits).reshape(-1, 256)
    wanted = -np.mean(np.asarray(each)[np.arange(160), tokens[:, 1:].reshape(-1)])
    assert pruned_once["magnitude_output"]["loss"][0][0] == pytest.approx(
        wanted, rel=1e-4
    )


def measured(losses: list[float], sparsities: list[float]) -> dict[str, Any]:
    return {"sparsity": sparsities, "loss": [losses, losses], "steps": 10}


def test_the_page_has_one_row_for_each_method_and_sparsity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = measured([1.0], [0.0])
    values = {"alps": 1.3, "obs": 1.4, "wanda": 1.5, "magnitude": 2.0}
    sparsities = [50.0, 60.0, 70.0, 80.0, 90.4]  # that of 90 % is rounded
    dense["one_shot"] = {
        f"{name}_layer": {"loss": [[loss] * 5] * 2, "sparsity": sparsities}
        for name, loss in values.items()
    }
    found = {"dense": dense, "rigl_80": measured([1.25], [80.0])}
    found["tickets_80"] = measured([1.0, 1.1, 1.2], [0.0, 50.0, 80.0])
    section = report.section("decoder", "cpu", found)
    shown = section.tables[0].shown
    assert len(shown) == 1 + 20 + 1 + 1
    assert set(shown["Sparsity"]) == {
        *("0.0 %", "50.0 %", "60.0 %", "70.0 %", "80.0 %", "90.4 %")
    }
    assert list(shown.iloc[0][["Method", "n", "Perplexity"]]) == [
        "dense",
        "2",
        "2.72 ± 0.00",
    ]
    at_80 = shown.loc[shown["Sparsity"] == "80.0 %", "Method"]
    assert list(at_80) == [
        "IMP with rewinding",
        "RigL",
        "ALPS by layer, one-shot",
        "SparseGPT by layer, one-shot",
        "Wanda by layer, one-shot",
        "magnitude by layer, one-shot",
    ]
    runs = variants.of_setting("decoder", "cpu")
    assert len(runs) == 10
    for run in runs:
        if (name := run.name.removeprefix("decoder_")) in found:
            recipe = study_records.recipe(run, runs, STUDY.version)
            record = study_records.Record(recipe, found[name])
            study_records.save(study_records.path_of(tmp_path, run), record)
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")
    path = STUDY.report("cpu", tmp_path, tmp_path / "page").with_name("decoder.md")
    lines = path.read_text(encoding="utf-8").split("\n")
    (missing,) = [line for line in lines if "Not measured" in line]
    names = ("gmp_80", "gmp_50", "rigl_50", "tickets_50")
    names += ("gmp_90", "rigl_90", "tickets_90")
    wanted = ", ".join(f"`decoder_{name}`" for name in names)
    assert missing.endswith(f"Not measured: {wanted}.")
    assert "Not run" not in "\n".join(lines)


def of_methods(wanda: float, obs: float, alps: float) -> dict[str, Any]:
    """Losses of three networks, and those after pruning: magnitude costs 0.5 nats."""
    noise = np.array([-0.03, 0.0, 0.03])
    costs = dict(
        zip(
            (claims.MAGNITUDE, claims.WANDA, claims.OBS, claims.ALPS),
            (0.5, wanda, obs, alps),
            strict=True,
        )
    )
    own = np.array([0.004, -0.002, -0.002])  # of each network and method
    pruned = {
        name: {
            "loss": [
                [2 + of + cost + more] * 5
                for of, more in zip(noise, np.roll(own, k), strict=True)
            ]
        }
        for k, (name, cost) in enumerate(costs.items())
    }
    dense = {"loss": [[2 + of] for of in noise], "sparsity": [0.0], "steps": 10}
    return {"dense": dense | {"one_shot": pruned}}


@pytest.mark.parametrize(
    ("costs", "verdicts"),
    [
        ((0.3, 0.2, 0.1), [claims_lib.REPRODUCED] * 6),
        ((0.6, 0.7, 0.8), [claims_lib.CONTRADICTED] * 6),
    ],
)
def test_claims_on_methods_that_prune_at_once(
    costs: tuple[float, ...], verdicts: list[str]
) -> None:
    judged = claims_lib.judge(claims.CLAIMS, of_methods(*costs), length=1.0)
    assert [one.verdict for one in judged] == verdicts
    assert judged[0].effect.n == 3
    assert (
        "Wanda by output" in judged[0].effect.words
        and "at 50 %" in judged[0].effect.words
    )


def test_claims_without_a_cost_or_a_run() -> None:
    free = of_methods(0.3, 0.2, 0.1)
    pruned = free["dense"]["one_shot"][claims.MAGNITUDE]
    gains = zip(free["dense"]["loss"], (-0.11, -0.1, -0.09), strict=True)
    pruned["loss"] = [[of[0] + gain] * 5 for of, gain in gains]
    judged = claims_lib.judge(claims.CLAIMS, free, length=1.0)
    assert {one.verdict for one in judged} == {claims_lib.ABSENT}
    judged = claims_lib.judge(claims.CLAIMS, {}, length=1.0)
    assert {one.verdict for one in judged} == {claims_lib.NOT_MEASURED}
