"""Training that starts where another run was: its weights, its masks, its seeds."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import some

from jaxsparse import config as config_lib
from jaxsparse import factory, initializers, masks, transforms
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.training import checkpoints, environment

END = "train/last"
EARLIER = {
    "lottery.levels": 0,
    "sparse.method": "gmp",
    "sparse.sparsity": 0.8,
    "sparse.begin_step": "2step",
    "sparse.end_step": "8step",
    "sparse.update_every": "2step",
}
STATIC = {
    "lottery.levels": 0,
    "sparse.method": "static",
    "warm_start.run": "../earlier",
    "warm_start.masks": END,
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run that pruned."""
    folder = tmp_path_factory.mktemp("study")
    tiny.train(folder / "earlier", EARLIER)
    return folder


def first(made: Any, folder: Path) -> tuple[Any, Any]:
    """Weights and masks [r ...] that a run trains from."""
    session = SavedStates(made, tiny.desk(folder))
    state = tiny.start(session, tiny.stages(made)[0])
    return state.params, transforms.get_masks(state.opt_state)


def build_in(folder: Path, fields: dict[str, Any]) -> Any:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    return factory.make_experiment(c, factory.load_data(c), folder)


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
    with pytest.raises(ValueError, match=r"no whole checkpoint 'lst'; .*'init'"):
        factory.load_state(run, "lst")
    with pytest.raises(ValueError, match="no run is there"):
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
    assert origin["checkpoints"] == factory.recorded_hashes(tiny.config(fields), folder)


def test_one_seed_may_be_taken_for_all(studies: Path, tmp_path: Path) -> None:
    fields = STATIC | {
        "warm_start.weights": END,
        "warm_start.replicate": 1,
        "replicates": 3,
    }
    weights, held = first(build_in(studies / "one", fields), tmp_path)
    params, pruned = saved(studies, END)
    wanted = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf[1], (3, *leaf.shape[1:])), (params, pruned)
    )
    tiny.check_equal((weights, held), wanted)


def test_masks_may_come_from_files(studies: Path, tmp_path: Path) -> None:
    fields = STATIC | {
        "warm_start.run": None,
        "warm_start.masks": str(
            studies / "earlier/tickets/final/replicate_{replicate}.npz"
        ),
    }
    _, held = first(build_in(studies / "files", fields), tmp_path)
    tiny.check_equal(held, saved(studies, END)[1])


@pytest.mark.parametrize(
    "method", some(["set", "rigl", "mest", "snfs"], always=["rigl"])
)
def test_dynamic_training_keeps_the_counts_it_was_given(
    studies: Path, method: str
) -> None:
    fields = STATIC | {
        "sparse.method": method,
        "sparse.update_every": "3step",
        "sparse.drop_schedule": "constant",
        "warm_start.replicate": 0,
    }
    folder = studies / method
    tiny.train(folder, fields)
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


def test_fresh_weights_may_be_shared(studies: Path, tmp_path: Path) -> None:
    weights, _ = first(build_in(studies / "s", STATIC | SHARED), tmp_path / "a")
    plain, _ = first(build_in(studies / "p", STATIC | ONE), tmp_path / "b")
    for shared, own in zip(*map(jax.tree.leaves, (weights, plain)), strict=True):
        np.testing.assert_array_equal(shared[0], own[0])
        np.testing.assert_array_equal(shared[1], shared[0])
    kernel = plain["dense1"]["kernel"]
    assert np.any(kernel[0] != kernel[1])


ONE = {"warm_start.replicate": 0}
SHARED = ONE | {"init.shared": True}


@pytest.mark.parametrize("rule", factory.SPARSE_INITS)
def test_kernels_are_redrawn_for_their_masks(
    studies: Path, tmp_path: Path, rule: str
) -> None:
    fields = STATIC | {"init.sparse_init": rule}
    weights, held = first(build_in(studies / rule, fields), tmp_path / "a")
    plain, _ = first(build_in(studies / "plain", STATIC), tmp_path / "b")
    for name, layer in weights.items():
        mask = np.asarray(held[name]["kernel"])
        kernel = np.asarray(layer["kernel"])
        assert not np.any(kernel[~mask])
        assert np.all(kernel[mask])
        assert np.all(kernel[mask] != np.asarray(plain[name]["kernel"])[mask])
        np.testing.assert_array_equal(layer["bias"], plain[name]["bias"])
        assert np.any(kernel[0] != kernel[1])


def test_the_variance_is_that_of_the_connections(studies: Path, tmp_path: Path) -> None:
    fields = STATIC | {"init.sparse_init": "fan_in", "init.sparse_init_scale": 2.0}
    weights, held = first(build_in(studies / "he", fields), tmp_path)
    kernel = np.asarray(weights["dense1"]["kernel"], np.float64)
    mask = np.asarray(held["dense1"]["kernel"])
    fans = [initializers.sparse_fans(jnp.asarray(one))[0] for one in mask]
    fans = np.maximum(1, np.stack(fans))[:, None, :]
    # Each active weight divided by its deviation is a standard normal; 6 sigmas.
    scaled = (kernel * np.sqrt(fans / 2.0))[mask]
    assert abs(np.mean(scaled**2) - 1) < 6 * (2 / scaled.size) ** 0.5


def test_an_arm_with_all_of_it_is_trained_and_resumed(studies: Path) -> None:
    fields = STATIC | {"init.sparse_init": "fan_in", "warm_start.replicate": 0}
    folder = studies / "arm"
    tiny.train(folder, fields)
    text = (folder / "metrics.jsonl").read_text()
    tiny.train(folder, fields)
    assert (folder / "metrics.jsonl").read_text() == text
    start = json.loads((folder / "environment.json").read_text())["arrangement"]
    assert start["starts_from"].keys() == {"masks", "checkpoints"}


def test_an_arm_does_not_go_on_from_another_start(tmp_path: Path) -> None:
    earlier, arm, masks = (
        tmp_path / "earlier",
        tmp_path / "arm",
        STATIC["warm_start.masks"],
    )
    tiny.train(earlier, EARLIER)
    fields = STATIC | {"warm_start.weights": "init"}
    tiny.train(arm, fields)
    before = {path.name: path.read_bytes() for path in arm.glob("*.*")}
    shutil.rmtree(earlier)
    tiny.train(earlier, EARLIER | {"seeds.init": 7})
    with pytest.raises(ValueError, match=r"config\.warm_start: expected .* began, got"):
        tiny.train(arm, fields)
    assert {path.name: path.read_bytes() for path in arm.glob("*.*")} == before
    hashes = factory.recorded_hashes(tiny.config(fields), arm)
    assert hashes.keys() == {masks, "init"}
    there = environment.starts_from(arm)["checkpoints"]
    assert all(there[name] != hash_ for name, hash_ in hashes.items())


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
        r"warm_start\.masks: .*dense1/kernel: expected shape .*there",
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
        r"model\.conv_channels: expected None for 'lenet_300_100'",
    ),
    ({"model.width": 8}, r"model\.width: expected 16 for 'lenet_300_100'"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_bad_starts_are_named(studies: Path, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_in(studies / "wrong", fields)
