"""ToST's techniques in runs: ghosts that leave, soft labels, rescaled weights.

Runs of one LeNet-5 without and with ghosts, and of one small MLP, are shared by all
tests. What holds of the start of a run is asked of runs that never train.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny, tost_runs
from helpers.campaigns import case
from helpers.tost_runs import (
    GHOSTS,
    MLP,
    RESCALED,
    RESIDUAL,
    SHARPEN,
    SMOOTH,
    SPARSE,
    Trained,
    begun,
    make,
    named,
    train,
)

from jaxsparse import config as config_lib
from jaxsparse import factory, metrics_log, transforms, tree
from jaxsparse import masks as masks_lib
from jaxsparse.factory import tost as tost_factory
from jaxsparse.runner import run as run_lib
from jaxsparse.tost import annealing, ghost_skips
from jaxsparse.training import state_sharding
from jaxsparse.training import train as train_lib


@pytest.fixture(autouse=True, scope="module")
def enlarged() -> Iterator[None]:
    with tost_runs.enlarged():
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def without(shared: Path, enlarged: None) -> Trained:
    return train(shared / "plain", SPARSE)


# Evaluated at every second update, to stop early at.
LATE_END = 8
LATE = {"evaluation.every": "2step", "tost.end": f"{LATE_END}step"}


@pytest.fixture(scope="module")
def ghosts(shared: Path, enlarged: None) -> Trained:
    return train(shared / "haunted", SPARSE | GHOSTS | LATE)


# Its head is masked, and whole.
WHOLE = MLP | {"model.features": (8, 7), "sparse.dense": ("head/kernel",)}


@pytest.fixture(scope="module")
def mlp(shared: Path, enlarged: None) -> Trained:
    return train(shared / "mlp", WHOLE)


def plain(state: Any) -> Any:
    return ghost_skips.strip_ghosts(state.params), ghost_skips.strip_ghosts(
        state.batch_stats
    )


def check_near(got: Any, wanted: Any, rtol: float, atol: float) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def check_masks(*states: Any) -> None:
    held = [transforms.get_masks(state.opt_state) for state in states]
    tiny.check_equal(*map(jax.tree.leaves, held))


def test_ghosts_have_no_masks_and_begin_with_the_constant(
    without: Trained, ghosts: Trained
) -> None:
    names = [masks_lib.names(run.made.task.masks) for run in (without, ghosts)]
    assert names[0] == names[1]
    first, wanted = (
        tiny.load(run.folder, "init", run.made) for run in (ghosts, without)
    )
    tiny.check_equal(plain(first), (wanted.params, wanted.batch_stats))
    kernels = [
        leaf
        for name, leaf in named(first).items()
        if ghost_skips.is_ghost(name) and name.endswith("kernel")
    ]
    assert len(kernels) == 1
    assert all((leaf == np.float32(1e-4)).all() for leaf in kernels)


@pytest.mark.campaign
def test_ghosts_of_a_residual_network_have_no_masks() -> None:
    c = tiny.config(RESIDUAL | GHOSTS)
    length = factory.make_durations(c, steps_per_epoch=6)
    task = factory.make_network(c, factory.load_data(c), length)
    assert not any(map(ghost_skips.is_ghost, masks_lib.names(task.masks)))
    params, _ = jax.eval_shape(task.initialize, jax.random.split(jax.random.key(0), 1))
    names = [n for n in tree.named_leaves(params) if ghost_skips.is_ghost(n)]
    assert sum(name.endswith("kernel") for name in names) == 18
    assert c.tost.end == "50%"


@pytest.mark.campaign  # quickly: of networks and their gradients, test_ghost_skips.py
def test_a_run_of_ghosts_that_are_gone_is_the_run_without(
    without: Trained, tmp_path: Path
) -> None:
    left = train(tmp_path / "a", SPARSE | GHOSTS | {"tost.end": "0step"}).state
    wanted = without.state
    check_near(plain(left), (wanted.params, wanted.batch_stats), 1e-4, 1e-5)
    check_masks(left, wanted)


def test_steps_after_the_end_of_ghosts_are_those_without(
    without: Trained, ghosts: Trained
) -> None:
    """Updates 8 and 9 from the first weights, by the programs of both runs."""
    ends = []
    for folder, made, _ in (without, ghosts):
        trainer, step = made.trainer, LATE_END
        state = begun(folder, made)._replace(step=jnp.int32(step))
        order_keys, draw_keys = train_lib.data_keys(trainer.layout, made.seeds.data)
        chunks = train_lib.plan_chunks(trainer, step, step + 2)
        ((chunk, data),) = trainer.feed.iterate(order_keys, chunks)
        update = trainer.compiled_steps(chunk.length, chunk.batch_size)
        state = state_sharding.shard_state(trainer.layout, state)
        end, sums = update(state, data, draw_keys)
        ends.append((plain(end), sums))
    check_near(*ends, 1e-5, 1e-6)


def check_technique(run: Trained, other: Trained) -> None:
    """It did something, and the run ends as the plain network."""
    state, there = run.state, other.state
    shapes = [jax.tree.map(np.shape, plain(each)) for each in (state, there)]
    assert shapes[0] == shapes[1]
    pairs = zip(*map(jax.tree.leaves, (plain(state)[0], there.params)), strict=True)
    assert max(np.max(np.abs(a - b)) for a, b in pairs) > 1e-3
    # What the run says of the end is what the plain network says.
    (last,) = other.made.trainer.evaluate["test"](
        there._replace(params=plain(state)[0], batch_stats=plain(state)[1])
    )
    (said,) = run.made.trainer.evaluate["test"](state)
    np.testing.assert_array_equal(said.correct, last.correct)
    np.testing.assert_allclose(said.loss, last.loss, rtol=1e-6)
    held = [
        masks_lib.num_active(transforms.get_masks(s.opt_state)) for s in (state, there)
    ]
    assert held[0] == held[1]


def test_ghosts_do_something_and_end_as_the_plain_network(
    without: Trained, ghosts: Trained
) -> None:
    check_technique(ghosts, without)


@pytest.mark.parametrize(
    "fields",
    [
        case(SMOOTH, always=True),
        case(SHARPEN, always=False),
        case(RESCALED, always=False),
    ],
    ids=["smoothing", "sharpen", "rescaling"],
)
def test_each_technique_does_something_and_ends_as_the_plain_network(
    mlp: Trained, tmp_path: Path, fields: dict[str, Any]
) -> None:
    check_technique(train(tmp_path / "a", WHOLE | fields), mlp)


@pytest.mark.campaign
def test_identity_skips_do_something_and_leave(
    without: Trained, tmp_path: Path
) -> None:
    fields = {"tost.skips": "identity", "tost.schedule": "cosine"}
    check_technique(train(tmp_path / "a", SPARSE | fields), without)


def test_a_network_is_given_what_its_config_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Activations, skips and labels at three steps, of configs that do not train."""
    x = np.linspace(-3, 3, 7, dtype=np.float32)

    def made(fields: dict[str, Any]) -> tuple[Any, Any]:
        c = tiny.config(SPARSE | fields)
        config_lib.validate(c)
        factory.check_names(c)
        return c, factory.make_durations(c, steps_per_epoch=6)

    def annealed(fields: dict[str, Any], step: int) -> Any:
        c, length = made(fields)
        model = factory.make_model(c, classes=10)
        add = tost_factory.make_annealed_model(c, length)
        assert add is not None
        return add(model, step, train=True)

    beta = SHARPEN | {"tost.beta": (2.0, 8.0)}
    for step, sharpness in ((0, 2.0), (3, 4.0)):  # geometric, to update 6
        wanted = x / (1 + np.exp(-sharpness * x))
        np.testing.assert_allclose(
            annealed(beta, step).act(jnp.asarray(x)), wanted, rtol=1e-5
        )
    ended = annealed(beta, 6).act(jnp.asarray(x))
    np.testing.assert_array_equal(ended, np.maximum(x, 0))

    # GradInit rescales the activations of the beginning, and no ghosts.
    c, length = made(GHOSTS)
    model = factory.make_model(c, classes=10)
    add = tost_factory.make_annealed_model(c, length)
    first = tost_factory.as_rescaled(model, add)
    assert add(model, 0, train=True).skip is not None and first.skip is None
    softplus = np.log1p(np.exp(x))
    got = first.act(jnp.asarray(x))
    np.testing.assert_allclose(got, x * np.tanh(softplus), rtol=1e-4)
    assert tost_factory.as_rescaled(model, None) is model

    asked = []
    monkeypatch.setattr(
        ghost_skips, "make", lambda strength, **given: asked.append((strength, given))
    )
    for step in (0, 3, 6):
        annealed({"tost.skips": "identity", "tost.schedule": "cosine"}, step)
    strengths = [float(strength) for strength, _ in asked]
    np.testing.assert_allclose(strengths, [1.0, 0.5, 0.0], atol=1e-6)
    assert {(given["kind"], given["train"]) for _, given in asked} == {
        ("identity", True)
    }

    c, length = made(SMOOTH)
    smoothing = tost_factory.make_smoothing(c, length)
    assert callable(smoothing)
    weights = [float(smoothing(step)) for step in (0, 3, 6, 12)]
    np.testing.assert_allclose(weights, [0.3, 0.15, 0.0, 0.0], atol=1e-6)
    c, length = made({"training.label_smoothing": 0.3})
    assert tost_factory.make_smoothing(c, length) == 0.3
    assert tost_factory.make_annealed_model(c, length) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"lottery.levels": 1, "sparse.method": "none", "sparse.sparsity": 0.9}
        | {"lottery.rewind": "4step"},
        case(
            {"sparse.method": "rigl", "sparse.update_every": "2step"}
            | {"sparse.end_step": "8step"},
            always=False,
        ),
        case({"tost.schedule": "constant"}, always=False),
        case(RESIDUAL, always=False),
    ],
    ids=["levels", "rigl", "constant", "residual"],
)
def test_ghosts_go_with_everything(fields: dict[str, Any], tmp_path: Path) -> None:
    lottery = fields.get("lottery.levels")
    end = "level_01/ticket/last" if lottery else "train/last"
    state = train(tmp_path / "a", SPARSE | GHOSTS | fields, end).state
    kept = transforms.get_masks(state.opt_state)
    assert not any(map(ghost_skips.is_ghost, masks_lib.names(kept)))
    assert masks_lib.num_active(kept) < masks_lib.size(kept)
    assert any(map(ghost_skips.is_ghost, named(state)))


def test_normalization_of_ghosts_sees_all_devices(
    ghosts: Trained, tmp_path: Path
) -> None:
    # LeNet-5 has none of its own, and its ghosts have one that is averaged too.
    assert jax.tree.leaves(ghosts.state.batch_stats)
    two = train(tmp_path / "two", SPARSE | GHOSTS | LATE | {"run.devices": 2}).state
    ends = [(state.params, state.batch_stats) for state in (ghosts.state, two)]
    check_near(*ends, 1e-3, 1e-4)


def test_training_is_traced_once_for_a_whole_fade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = annealing.anneal

    def fade(clock: Any, **options: Any) -> Any:
        asked.append(clock)
        return real(clock, **options)

    monkeypatch.setattr(annealing, "anneal", fade)
    # 24 updates, half of them with ghosts; each is a call.
    fields = MLP | {"tost.activation": "mish", "training.duration": "4ep"}
    fields |= {"schedule.milestones": (), "schedule.name": "constant"}
    made = make(tmp_path / "a", fields | {"run.steps_per_call": 1})
    counts = []

    def look() -> int:
        counts.append(len(asked))
        return 0

    run_lib.run(made, tiny.desk(tmp_path / "a", look))
    assert all(isinstance(c, int | jax.core.Tracer) for c in asked)
    # The first call traces, none after it.
    assert len(counts) >= 24
    assert len(set(counts[1:])) == 1 and counts[1] > 0


def test_early_stopping_chooses_no_network_with_ghosts(ghosts: Trained) -> None:
    rows = metrics_log.read(ghosts.folder / "metrics.jsonl")
    (level,) = [row for row in rows if row["kind"] == "level"]
    evals = [row for row in rows if row["kind"] == "eval"]
    late = [row for row in evals if row["step"] >= 8]
    assert len(late) < len(evals)
    best = min(late, key=lambda row: row["validation_loss"])
    assert ghosts.made.trainer.records.anneal_end_step == 8
    assert level["early_stop_step"] == best["step"]
    # Masks of static training are counted once, at the end.
    held = transforms.get_masks(ghosts.state.opt_state)
    counts = {n: list(c) for n, c in masks_lib.layer_counts(held).items()}
    assert level["layers"] == counts
    assert level["kept"] * 2 == level["total"] == masks_lib.size(held)
    assert not [row for row in rows if row["kind"] == "mask_stats"]


def test_a_run_with_ghosts_lends_weights_and_masks_to_a_plain_one(
    ghosts: Trained, shared: Path
) -> None:
    fields = {
        "warm_start.run": "../haunted",
        "warm_start.weights": "train/last",
        "warm_start.masks": "train/last",
    }
    folder = shared / "from_haunted"
    state = begun(folder, make(folder, SPARSE | fields))
    wanted = ghosts.state
    tiny.check_equal((state.params, state.batch_stats), plain(wanted))
    check_masks(state, wanted)


def test_a_plain_run_lends_weights_and_masks_to_one_with_ghosts(
    without: Trained, shared: Path
) -> None:
    fields = {
        "warm_start.run": "../plain",
        "warm_start.weights": "init",
        "warm_start.masks": "train/last",
    }
    folder = shared / "from_plain"
    state = begun(folder, make(folder, SPARSE | GHOSTS | fields))
    check_masks(state, without.state)
    masks = transforms.get_masks(without.state.opt_state)
    held = dict(zip(masks_lib.names(masks), jax.tree.leaves(masks), strict=True))
    first = named(tiny.load(without.folder, "init", without.made))
    got = named(state)
    assert any(map(ghost_skips.is_ghost, got))
    for name, leaf in first.items():
        wanted = np.where(held[name], leaf, 0) if name in held else leaf
        np.testing.assert_array_equal(got[name], wanted, err_msg=name)


def test_masks_of_a_whole_layer_fit_one_that_has_none(
    mlp: Trained, shared: Path
) -> None:
    wanted = transforms.get_masks(mlp.state.opt_state)
    fields = WHOLE | {
        "sparse.dense": (),
        "sparse.prunable": ("*kernel", "!head/kernel"),
    }
    of_run = {"warm_start.run": "../mlp", "warm_start.masks": "train/last"}
    path = mlp.folder / "tickets" / "final" / "replicate_{replicate}.npz"
    of_file = {"warm_start.masks": str(path)}
    for how, source in (("run", of_run), ("file", of_file)):
        task = make(shared / how, fields | source).task
        assert task.first_masks is not None
        held = jax.tree.map(np.asarray, task.first_masks(None, None, None))
        assert masks_lib.names(held) == ["dense1/kernel", "dense2/kernel"]
        for layer in ("dense1", "dense2"):
            kernel = held[layer]["kernel"]
            np.testing.assert_array_equal(kernel, wanted[layer]["kernel"])
        # A layer that is pruned there fits no network that cannot mask it.
        own = {"sparse.prunable": ("dense1/kernel",)}
        with pytest.raises(
            ValueError, match=r"warm_start.masks: .*dense2/kernel.*shape"
        ):
            make(shared / f"wrong_{how}", fields | source | own)
