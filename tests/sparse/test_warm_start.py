"""Training that starts where another run was: its weights, its masks, its seeds."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import some
from helpers.sparse_runs import load_data

from jaxsparse import config as config_lib
from jaxsparse import distributions, factory, masks, transforms
from jaxsparse.runner.experiment import Experiment
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.runner.task import TrainTask
from jaxsparse.training import checkpoints, environment
from jaxsparse.training import state as state_lib

END = "train/last"
# Epochs are one call each, and both sets that are evaluated have 50 examples, so that
# a run compiles one program of each kind.
ONE_PROGRAM = {
    "lottery.levels": 0,
    "run.steps_per_call": 6,
    "data.validation": 50,
}
EARLIER = ONE_PROGRAM | {
    "sparse.method": "gmp",
    "sparse.sparsity": 0.8,
    "sparse.begin_step": "2step",
    "sparse.end_step": "8step",
    "sparse.update_every": "2step",
}
STATIC = ONE_PROGRAM | {
    "sparse.method": "static",
    "warm_start.run": "../earlier",
    "warm_start.masks": END,
}
DYNAMIC = STATIC | {
    "sparse.update_every": "3step",
    "sparse.drop_schedule": "constant",
    "warm_start.replicate": 0,
    "init.sparse_init": "fan_in",
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run that pruned."""
    folder = tmp_path_factory.mktemp("study")
    tiny.train(folder / "earlier", EARLIER)
    return folder


@pytest.fixture(scope="module")
def rigl(studies: Path) -> Path:
    """A run of RigL that started from its masks, with weights drawn for them."""
    tiny.train(studies / "rigl", DYNAMIC | {"sparse.method": "rigl"})
    return studies / "rigl"


@pytest.fixture(scope="module")
def plain(studies: Path) -> Experiment:
    """Static training under its masks, built but not trained."""
    return build_in(studies / "plain", STATIC)


@pytest.fixture(scope="module")
def begun(plain: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Weights and masks of that run, before weights are drawn for the masks."""
    return first(plain, tmp_path_factory.mktemp("plain"))


def first(made: Experiment, folder: Path) -> tuple[Any, Any]:
    """Weights and masks [r ...] that a run trains from."""
    session = SavedStates(made, tiny.desk(folder))
    state = tiny.start(session, tiny.stages(made)[0])
    return state.params, transforms.get_masks(state.opt_state)


def build_in(folder: Path, fields: dict[str, Any]) -> Experiment:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    return factory.make_experiment(c, load_data(), folder)


def make_task(fields: dict[str, Any]) -> TrainTask:
    """Makes a network as a run does, before it starts elsewhere."""
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    length = factory.make_durations(c, steps_per_epoch=6)
    return factory.make_network(c, load_data(), length)


def saved(studies: Path, moment: str) -> tuple[Any, Any]:
    state = factory.load_state(factory.open_run(studies / "earlier"), moment)
    return state.params, transforms.get_masks(state.opt_state)


def test_a_run_is_opened_as_it_was(studies: Path) -> None:
    run = factory.open_run(studies / "earlier")
    assert list(config_lib.differences(run.config, tiny.config(EARLIER))) == []
    assert config_lib.from_json(json.loads(run.config.to_json())) == run.config
    state = factory.load_state(run, END)
    note = checkpoints.recorded_hash(studies / "earlier" / "checkpoints", END)
    assert checkpoints.digest(state) == note
    for r in range(2):
        held = jax.tree.map(
            lambda leaf, r=r: leaf[r], transforms.get_masks(state.opt_state)
        )
        counts = [layer.num_active for layer in masks.layer_counts(held).values()]
        assert counts == jax.tree.leaves(distributions.uniform(held, 0.8))
    with pytest.raises(ValueError, match=r"checkpoints \[.*'init'.*got 'lst'"):
        factory.load_state(run, "lst")
    with pytest.raises(ValueError, match="expected the directory of a run"):
        factory.open_run(studies / "nothing")


def test_a_ticket_has_the_weights_and_the_masks(studies: Path, tmp_path: Path) -> None:
    fields = STATIC | {"warm_start.weights": "init", "seeds.data": 7}
    folder = studies / "ticket"
    weights, held = first(made := build_in(folder, fields), tmp_path)
    params, _ = saved(studies, "init")
    _, pruned = saved(studies, END)
    tiny.check_equal(held, pruned)
    tiny.check_equal(weights, masks.apply(pruned, params))
    origin = made.trainer.execution_plan["starts_from"]
    assert origin["masks"] == checkpoints.digest(pruned)
    assert set(origin) == {"weights", "masks", "checkpoints"}
    assert origin["checkpoints"].keys() == {"init", END}
    assert origin["checkpoints"] == factory.recorded_hashes(tiny.config(fields), folder)


def test_one_seed_may_be_taken_for_all(studies: Path) -> None:
    """What a run starts from, looked at before any program is compiled."""
    fields = STATIC | {
        "warm_start.weights": END,
        "warm_start.replicate": 1,
    }
    task = build_in(studies / "one", fields).task
    assert task.start.first_weights is not None and task.first_masks is not None
    params, pruned = saved(studies, END)
    wanted = jax.tree.map(
        lambda leaf: np.broadcast_to(leaf[1], leaf.shape), (params, pruned)
    )
    found = (task.start.first_weights(None)[0], task.first_masks(None, None, None))
    tiny.check_equal(found, wanted)


def test_masks_may_come_from_files(studies: Path) -> None:
    fields = STATIC | {
        "warm_start.run": None,
        "warm_start.masks": str(
            studies / "earlier/tickets/final/replicate_{replicate}.npz"
        ),
    }
    task = build_in(studies / "files", fields).task
    assert task.first_masks is not None
    tiny.check_equal(task.first_masks(None, None, None), saved(studies, END)[1])


@pytest.mark.parametrize(
    "method", some(["set", "rigl", "mest", "snfs"], always=["rigl"])
)
def test_dynamic_training_keeps_the_counts_it_was_given(
    studies: Path, method: str, request: pytest.FixtureRequest
) -> None:
    if method == "rigl":
        folder = request.getfixturevalue("rigl")
    else:
        folder = studies / method
        tiny.train(folder, DYNAMIC | {"sparse.method": method})
    state = factory.load_state(factory.open_run(folder), END)
    found = transforms.get_masks(state.opt_state)
    _, pruned = saved(studies, END)
    for r in range(2):
        now, then = (
            jax.tree.map(lambda leaf, r=r: leaf[r], found),
            jax.tree.map(lambda leaf: leaf[0], pruned),
        )
        assert masks.num_active(now) == masks.num_active(then)
        if method != "snfs":
            assert masks.layer_counts(now) == masks.layer_counts(then)
        assert any(
            np.any(a != b)
            for a, b in zip(jax.tree.leaves(now), jax.tree.leaves(then), strict=True)
        )


def test_fresh_weights_may_be_shared() -> None:
    weights, own = (
        task.initialize(state_lib.make_seeds(**SEEDS, replicates=2).init)[0]
        for task in (make_task(ONE_PROGRAM | {"init.shared": x}) for x in (True, False))
    )
    for shared, leaf in zip(*map(jax.tree.leaves, (weights, own)), strict=True):
        np.testing.assert_array_equal(shared[0], leaf[0])
        np.testing.assert_array_equal(shared[1], shared[0])
    kernel = np.asarray(own["dense1"]["kernel"])
    assert np.any(kernel[0] != kernel[1])


SEEDS = {"init": 0, "data": 0, "masks": 0}


@pytest.mark.parametrize("rule", factory.SPARSE_INITS)
def test_kernels_are_redrawn_for_their_masks(
    plain: Experiment, begun: Any, tmp_path: Path, rule: str
) -> None:
    """By one rule a whole run starts, by the others only its weights are redrawn."""
    fields = STATIC | {"init.sparse_init": rule}
    if rule == "fan_in":
        fields |= {"init.sparse_init_scale": 2.0}
    redraw = make_task(fields).start.redraw
    assert redraw is not None
    before, held = begun
    if rule == "fan_in":
        start = plain.task.start._replace(redraw=redraw)
        task = plain.task._replace(start=start)
        weights, held = first(plain._replace(task=task), tmp_path)
    else:
        # Others than drew the first weights.
        keys = state_lib.make_seeds(**SEEDS | {"init": 1}, replicates=2).init
        weights = jax.jit(jax.vmap(redraw))(before, held, keys)
    for name, layer in weights.items():
        mask = np.asarray(held[name]["kernel"])
        kernel = np.asarray(layer["kernel"])
        assert not np.any(kernel[~mask])
        assert np.all(kernel[mask])
        assert np.all(kernel[mask] != np.asarray(before[name]["kernel"])[mask])
        np.testing.assert_array_equal(layer["bias"], before[name]["bias"])
        assert np.any(kernel[0] != kernel[1])
    if rule == "fan_in":
        kernel = np.asarray(weights["dense1"]["kernel"], np.float64)
        mask = np.asarray(held["dense1"]["kernel"])
        fans = np.maximum(1, mask.sum(axis=1, keepdims=True))
        # Each active weight divided by its deviation is a standard normal; 6 sigmas.
        scaled = (kernel * np.sqrt(fans / 2.0))[mask]
        assert abs(np.mean(scaled**2) - 1) < 6 * (2 / scaled.size) ** 0.5


def test_an_arm_with_all_of_it_is_trained_and_resumed(rigl: Path) -> None:
    fields = DYNAMIC | {"sparse.method": "rigl"}
    text = (rigl / "metrics.jsonl").read_text()
    tiny.train(rigl, fields)
    assert (rigl / "metrics.jsonl").read_text() == text
    made = json.loads((rigl / "environment.json").read_text())["arrangement"]
    assert made["starts_from"].keys() == {"masks", "checkpoints"}


def test_an_arm_does_not_go_on_from_another_start(
    studies: Path, rigl: Path, tmp_path: Path
) -> None:
    """In the place of the earlier run is the other one of this module."""
    shutil.copytree(rigl, arm := tmp_path / "variant")
    shutil.copytree(rigl, tmp_path / "earlier")
    fields = DYNAMIC | {"sparse.method": "rigl"}
    before = {path.name: path.read_bytes() for path in arm.glob("*.*")}
    with pytest.raises(ValueError, match=r"--workdir: expected checkp.* began, got"):
        tiny.train(arm, fields)
    assert {path.name: path.read_bytes() for path in arm.glob("*.*")} == before
    hashes = factory.recorded_hashes(tiny.config(fields), arm)
    assert hashes.keys() == {END}
    assert environment.starts_from(arm)["checkpoints"][END] != hashes[END]


WRONG = [
    ({"warm_start.weights": "init"}, r"warm_start\.run: expected the dir.*got None"),
    (
        {"warm_start.run": "../earlier"},
        r"warm_start\.run: expected None with .* got '../earlier'",
    ),
    ({"warm_start.replicate": 1}, r"warm_start\.replicate: expected None .*got 1"),
    (
        STATIC | {"sparse.method": "none"},
        r"warm_start\.masks: expected None with sparse\.method 'none'",
    ),
    (
        STATIC | {"warm_start.weights": "init", "init.sparse_init": "layer"},
        r"warm_start\.weights: expected None with init\.sparse_init 'layer', got 'init",
    ),
    (
        STATIC | {"warm_start.run": "../nothing"},
        "nothing: expected the directory of a run",
    ),
    (
        STATIC | {"warm_start.masks": "last"},
        "expected one of the checkpoints .*, got 'last'",
    ),
    (STATIC | {"replicates": 3}, r"warm_start\.replicate: .*2 replicates .*got None"),
    (
        STATIC | {"warm_start.replicate": 2},
        r"warm_start\.replicate: expected one of the 2 replicates .*got 2",
    ),
    (
        STATIC | {"model.features": (7,)},
        r"warm_start\.masks: expected dense1/kernel of shape",
    ),
    (
        STATIC | {"warm_start.weights": "init", "sparse.ablation": "reinitialized"},
        r"warm_start\.weights: expected None with sparse\.ablation",
    ),
    (
        STATIC | {"sparse.pai_score": "snip"},
        r"sparse\.pai_score: expected 'random' with warm_start",
    ),
    (
        STATIC | {"sparse.ablation": "shuffled_layers"},
        r"sparse\.ablation: expected None with warm_start",
    ),
    (
        {"init.sparse_init": "fan_in", "lottery.levels": 2},
        r"init\.sparse_init: expected None with lottery\.levels 2",
    ),
    (
        STATIC | {"init.sparse_init": "layer", "init.shared": True},
        r"init\.shared: expected False with init\.sparse_init 'layer'",
    ),
    (
        STATIC | {"init.sparse_init": "layer", "init.sparse_init_scale": 2.0},
        r"init\.sparse_init_scale: expected 1\.0 with init\.sparse_init 'layer'",
    ),
    (
        {"init.sparse_init": "fan"},
        r"init\.sparse_init: expected one of .*'fan'",
    ),
    (
        {"model.conv_channels": (3, 3)},
        r"model\.conv_channels: expected None with model\.name 'lenet_300_100'",
    ),
    ({"model.width": 8}, r"model\.width: expected 16 with model\.name 'lenet_300"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_bad_starts_are_named(studies: Path, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_in(studies / "wrong", fields)
