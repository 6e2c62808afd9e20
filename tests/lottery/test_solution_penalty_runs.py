"""Levels that are repelled from, or attracted to, the ends of the levels before."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import case

from jaxsparse import config as config_lib
from jaxsparse import factory, losses, masks, transforms
from jaxsparse.runner import run as run_lib
from jaxsparse.runner import task
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.runner.start import stage_trainer
from jaxsparse.training import checkpoints, preemption, solution_penalty, steps
from jaxsparse.training import state as state_lib

FIELDS = {
    "lottery.levels": 1,
    "model.features": (8,),
    "optimizer.momentum": 0.0,
    "data.validation": 0,
    "run.steps_per_call": 1,
}
NAMES = [f"level_{level:02d}/ticket/last" for level in range(3)]


def make(folder: Path, fields: dict[str, Any]) -> Any:
    c = tiny.config(FIELDS | fields)
    config_lib.validate(c)
    factory.check_names(c)
    return factory.make_experiment(c, factory.load_data(c), folder)


def train(folder: Path, fields: dict[str, Any]) -> Any:
    made = make(folder, fields)
    run_lib.run(made, tiny.desk(folder))
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    folder = tmp_path_factory.mktemp("repelled")
    each = {
        "plain": {},
        "repelled": {"solution_penalty.strength": 20.0, "lottery.levels": 2},
        "attracted": {"solution_penalty.strength": -2.0},
    }
    return {
        name: (folder / name, train(folder / name, fields))
        for name, fields in each.items()
    }


def ends(run: tuple[Path, Any], level: int) -> Any:
    return tiny.load(run[0], NAMES[level], run[1])


def cosine_squared(first: Any, second: Any, held: Any) -> np.ndarray:
    """Of each replicate, over all kernels in the masks, in plain numpy."""
    found = []
    for r in range(2):
        vectors = []
        for tree in (first, second):
            kept = masks.tree_map(lambda m, w, r=r: np.asarray(w[r])[m[r]], held, tree)
            vectors.append(np.concatenate(jax.tree.leaves(kept)).astype(float))
        a, b = vectors
        found.append((a @ b) ** 2 / ((a @ a) * (b @ b)))
    return np.asarray(found)


def test_the_first_level_is_the_same(runs: dict[str, tuple[Path, Any]]) -> None:
    states = [ends(run, 0) for run in runs.values()]
    for state in states[1:]:
        tiny.check_equal(state.params, states[0].params)


def test_later_levels_go_where_they_are_sent(
    runs: dict[str, tuple[Path, Any]],
) -> None:
    found = {}
    for name, run in runs.items():
        state = ends(run, 1)
        held = transforms.get_masks(state.opt_state)
        found[name] = cosine_squared(state.params, ends(run, 0).params, held)
        tiny.check_equal(state.params, masks.apply(held, state.params))
    assert np.all(found["repelled"] < found["plain"])
    assert np.all(found["attracted"] > found["plain"])


def test_a_level_is_repelled_from_all_before(
    runs: dict[str, tuple[Path, Any]],
) -> None:
    folder, made = runs["repelled"]
    session = SavedStates(made, tiny.desk(folder))
    each = tiny.stages(made)
    for level, stage in enumerate(each):
        anchors = stage_trainer(session, stage).past_solutions
        assert anchors.count.tolist() == [level, level]
        for earlier in range(level):
            end = ends(runs["repelled"], earlier).params
            for name in ("dense1", "head"):
                np.testing.assert_array_equal(
                    anchors.solutions[name]["kernel"][:, earlier],
                    end[name]["kernel"].astype(jnp.bfloat16),
                )


def test_a_step_adds_the_gradient_of_the_penalty() -> None:
    """Against plain SGD, in which the two gradients add up."""
    made = make(Path("unused"), {"solution_penalty.strength": 2.0})
    dataset = factory.load_data(tiny.config(FIELDS))
    model = factory.make_model(tiny.config(FIELDS), classes=10)
    gradient = steps.make_loss_gradient(
        model,
        task=losses.PredictionTask(lambda images: images / 255.0, losses.class_labels),
    )
    train_step = steps.make_train_step(gradient, made.task.tx, penalty=2.0)
    fresh = task.first_state(made.task, made.seeds)
    axes = state_lib.replicate_axes(fresh)

    solutions = jax.tree.map(
        lambda leaf: jnp.stack([leaf + 1.0, leaf * 2.0], axis=1), fresh.params
    )
    anchors = solution_penalty.PastSolutions(solutions, jnp.full(2, 1, jnp.int32))
    batch = (
        jnp.asarray(dataset.train.images[:20]),
        jnp.asarray(dataset.train.labels[:20]),
    )

    def step(anchors: Any) -> Any:
        def one(state: Any, anchors: Any) -> Any:
            return train_step(
                state,
                *batch,
                places=jnp.arange(20, dtype=jnp.int32),
                batch_size=20,
                key=jax.random.key(0),
                **({} if anchors is None else {"past_solutions": anchors}),
            )

        mapped = jax.vmap(
            one, in_axes=(axes, None if anchors is None else 0), out_axes=(axes, 0)
        )
        return mapped(fresh, anchors)

    def pull(params: Any, held: Any, solutions: Any) -> Any:
        first = jax.tree.map(lambda leaf: leaf[:1], solutions)
        return jax.grad(solution_penalty.penalty)(params, held, first, strength=2.0)

    @jax.jit
    def compute() -> Any:
        held = transforms.get_masks(fresh.opt_state)
        pulls = jax.vmap(pull)(fresh.params, held, solutions)
        return step(anchors), step(None), pulls

    (with_it, sums), (without, other), pulls = compute()
    np.testing.assert_array_equal(sums.loss, other.loss)
    wanted = jax.tree.map(
        lambda w, g: np.asarray(w) - 0.1 * np.asarray(g), without.params, pulls
    )
    for got, want in zip(*map(jax.tree.leaves, (with_it.params, wanted)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    moved = np.abs(
        with_it.params["dense1"]["kernel"] - without.params["dense1"]["kernel"]
    )
    assert np.max(moved) > 1e-4


def test_a_killed_run_comes_out_the_same(
    runs: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    stopped, (_, made) = 0, runs["repelled"]  # 12 calls a level
    while True:
        calls = iter(range(1000))
        try:
            run_lib.run(made, tiny.desk(tmp_path, lambda c=calls: next(c) >= 14))
            break
        except preemption.Preempted:
            stopped += 1
    assert stopped >= 1
    for name in NAMES:
        hashes = [
            checkpoints.recorded_hash(folder / "checkpoints", name)
            for folder in (runs["repelled"][0], tmp_path)
        ]
        assert hashes[0] == hashes[1] is not None


@pytest.mark.parametrize(
    ("replicates", "parallelism"),
    [
        case(replicates, by, always=(replicates, by) == (2, "pmap"))
        for replicates in (1, 2)
        for by in ("jit", "pmap")
    ],
)
def test_devices_change_rounding_only(
    runs: dict[str, tuple[Path, Any]],
    replicates: int,
    parallelism: str,
    tmp_path: Path,
) -> None:
    """Two replicates on two devices, and one whose batches are divided."""
    fields = {"solution_penalty.strength": 20.0, "replicates": replicates}
    layout = {"run.devices": 2, "run.parallelism": parallelism}
    one, two = tmp_path / "one", tmp_path / "two"
    both = [
        runs["repelled"] if replicates == 2 else (one, train(one, fields)),
        (two, train(two, fields | layout)),
    ]
    states = [ends(run, 1) for run in both]
    for a, b in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"solution_penalty.strength": 1.0, "lottery.levels": 0},
            r"solution_penalty\.strength: expected 0\.0 with lottery\.levels 0",
        ),
        (
            {"solution_penalty.strength": 1.0, "run.keep_checkpoints": "needed"},
            r"run\.keep_checkpoints: expected 'all' with solution_penalty\.stren",
        ),
        (
            {"solution_penalty.dtype": "float32"},
            r"solution_penalty\.dtype: expected 'bfloat16' with strength 0",
        ),
        (
            {"solution_penalty.strength": float("nan")},
            r"solution_penalty\.strength: expected .*got nan",
        ),
        (
            {"model.norm_affine": False},
            r"model\.norm_affine: expected True for 'lenet_300_100'",
        ),
        (
            {
                "model.name": "resnet_20",
                "model.features": None,
                "model.norm_affine": False,
                "init.norm_scale": "uniform",
            },
            r"init\.norm_scale: expected 'ones' with model\.norm_affine False",
        ),
    ],
)
def test_bad_fields_are_named(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, fields)


def test_fixed_normalization_has_nothing_to_learn() -> None:
    c = tiny.config({"model.name": "resnet_20", "model.norm_affine": False})
    model = factory.make_model(c, classes=10)
    images = jnp.zeros((2, 8, 8, 3))
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), images, train=False)
    )
    assert not [name for name in masks.names(variables["params"]) if "norm" in name]
    assert jax.tree.leaves(variables["batch_stats"])
