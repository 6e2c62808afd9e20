"""What is recorded of two networks, against plain code; BatchNorm included."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import norm_mlp, tiny

from jaxsparse import config as config_lib
from jaxsparse import factory, metrics_log
from jaxsparse.factory import instability as factory_instability
from jaxsparse.lottery import instability
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.runner.start import stage_trainer
from jaxsparse.stages import saved_state_name

NORM = {
    "model.name": "norm_mlp",
    "init.norm_scale": "uniform",
    "instability.copies": 2,
    "instability.points": 3,
    "instability.examples": 30,
    "data.validation": 0,
    "run.steps_per_call": 1,
}


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with norm_mlp.registered():
        yield


def networks(c: Any, dataset: Any) -> Any:
    """Two sets of a replicate, whose running statistics differ."""
    network = factory.make_network(
        c, dataset, factory.make_durations(c, steps_per_epoch=6)
    )
    params, stats = network.initialize(jax.random.split(jax.random.key(0), 2))
    share = jnp.array([0.5, 0.9])
    stats = jax.tree.map(
        lambda leaf: leaf * share[:, None] + 0.3 * share[:, None], stats
    )
    return [
        jax.tree.map(lambda leaf, r=r: leaf[r : r + 1], (params, stats)) for r in (0, 1)
    ]


def plain(logits: Any, params: Any, stats: Any, part: Any) -> tuple[float, float]:
    """Mean loss and error on some examples, in numpy but for the network itself."""
    rows = np.asarray(logits(params, stats, part[0]), np.float64)
    losses = np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(rows)), part[1]]
    return float(np.mean(losses)), float(np.mean(rows.argmax(axis=1) != part[1]))


@pytest.mark.parametrize("batch_stats", ["interpolated", "re_estimated"])
def test_a_segment_is_what_plain_code_finds(batch_stats: str) -> None:
    c = tiny.config(NORM | {"instability.batch_stats": batch_stats})
    dataset = factory.load_data(c)
    first, second = networks(c, dataset)
    one = [jax.tree.map(lambda leaf: leaf[0], end) for end in (first, second)]
    functions = factory.make_eval_fns(c, dataset, one[0][1])
    logits = jax.jit(functions.logits)
    (row,) = factory_instability.make_compare(c, dataset, one[0][1])(first, second)
    sets = {
        # The first 30 of the training examples, and all of the test set.
        "train": tuple(jnp.asarray(part[:30]) for part in dataset.train),
        "test": tuple(map(jnp.asarray, dataset.test)),
    }
    for place, alpha in enumerate((0.0, 0.5, 1.0)):
        params, stats = jax.tree.map(
            lambda a, b, alpha=alpha: (1 - alpha) * a + alpha * b, *one
        )
        if batch_stats == "re_estimated":
            stats = jax.jit(functions.statistics)(params, sets["train"][0])
        for name, part in sets.items():
            loss, error = plain(logits, params, stats, part)
            assert row[f"{name}_loss"][place] == pytest.approx(loss, rel=1e-3)
            assert row[f"{name}_error"][place] == pytest.approx(error, abs=1e-6)
    assert row["train_error"] != row["test_error"]
    assert len(set(row["test_loss"])) == 3


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    fields = NORM | {
        "lottery.levels": 1,
        "lottery.rewind": "2step",
        "lottery.controls": ("reinitialized",),
        "instability.start_steps": ("5step",),
        "instability.levels": (0, 1),
        "instability.compare_levels": True,
        "solution_penalty.strength": 2.0,
    }
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    dataset = factory.load_data(c)
    made = factory.make_experiment(c, dataset, tmp_path)
    run_lib.run(made, tiny.desk(tmp_path))
    return tmp_path, made, c, dataset


def test_children_with_batch_statistics_that_are_repelled(trained: Any) -> None:
    folder, made, c, dataset = trained
    session = SavedStates(made, tiny.desk(folder))
    known = {stage.name: stage for stage in tiny.stages(made)}
    check_rewound(session, known)
    for level in (0, 1):
        begun = tiny.start(session, known[f"level_{level:02d}/children_000000005"])
        kept = tiny.load(folder, saved_state_name(f"level_{level:02d}/ticket", 5), made)
        wanted = instability.copies(kept.batch_stats, 2)
        tiny.check_equal(begun.batch_stats, wanted)
        start = jax.tree.leaves(instability.copies(session.init.batch_stats, 2))
        assert any(
            np.any(a != b) for a, b in zip(jax.tree.leaves(wanted), start, strict=True)
        )
    # Each child is repelled from the solutions of its own parent.
    stage = known["level_01/children_000000005"]
    anchors = stage_trainer(session, stage).past_solutions
    end = tiny.load(folder, "level_00/ticket/last", made).params
    for held, kernel in zip(
        jax.tree.leaves(anchors.solutions),
        jax.tree.leaves({k: v for k, v in prunable(end).items()}),
        strict=True,
    ):
        wanted = jnp.repeat(kernel, 2, axis=0).astype(held.dtype)
        np.testing.assert_array_equal(held[:, 0], wanted)
    check_successive(folder, made, c, dataset)


def check_rewound(session: SavedStates, known: dict[str, Any]) -> None:
    """Batch statistics are rewound with the weights, and fresh with fresh ones."""
    folder, made = session.run_dir.folder, session.experiment
    init, early = session.init, tiny.load(folder, "rewind", made)
    late = tiny.load(folder, "level_00/ticket/last", made)
    means = [
        np.asarray(state.batch_stats["norm1"]["mean"]) for state in (init, early, late)
    ]
    assert np.any(means[1] != means[0]) and np.any(means[2] != means[1])
    for stage in ("level_00/ticket", "level_01/ticket"):
        begun = tiny.start(session, known[stage])
        tiny.check_equal(begun.batch_stats, early.batch_stats)
    control = tiny.start(session, known["level_01/reinitialized"])
    tiny.check_equal(control.batch_stats, init.batch_stats)
    assert np.all(means[0] == 0)
    assert np.all(np.asarray(init.batch_stats["norm1"]["var"]) == 1)


def prunable(params: Any) -> Any:
    """Kernels, which alone can be pruned, in the order of the tree."""
    return {
        layer: prunable(part) if "kernel" not in part else part["kernel"]
        for layer, part in params.items()
        if "norm" not in layer
    }


def check_successive(folder: Path, made: Any, c: Any, dataset: Any) -> None:
    """The ends of a segment between levels are the one before and the level itself."""
    functions = factory.make_eval_fns(
        c,
        dataset,
        jax.tree.map(
            lambda leaf: leaf[0],
            SavedStates(made, tiny.desk(folder)).init.batch_stats,
        ),
    )
    rows = [
        r
        for r in metrics_log.read(folder / "metrics.jsonl")
        if r["kind"] == "level_barrier"
    ]
    assert [(row["level"], row["replicate"]) for row in rows] == [(1, 0), (1, 1)]
    test = tuple(map(jnp.asarray, dataset.test))
    logits = jax.jit(functions.logits)
    for place, level in ((0, 0), (-1, 1)):
        state = tiny.load(folder, f"level_{level:02d}/ticket/last", made)
        for row in rows:
            weights = jax.tree.map(
                lambda leaf, r=row["replicate"]: leaf[r],
                (state.params, state.batch_stats),
            )
            loss, error = plain(logits, *weights, test)
            assert row["test_loss"][place] == pytest.approx(loss, rel=1e-3)
            assert row["test_error"][place] == pytest.approx(error, abs=1e-6)
