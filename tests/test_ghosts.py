"""ToST's aids in runs: ghosts that leave, soft labels that harden, rescaled weights."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_models, tiny
from helpers.campaigns import case

from jaxsparse import config as config_lib
from jaxsparse import factory, metrics_log, transforms, tree
from jaxsparse import masks as masks_lib
from jaxsparse.data import digits
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.tost import annealing, ghost_skips

SPARSE = {
    "lottery.levels": 0,
    "replicates": 1,
    "model.name": "lenet_5",
    "model.conv_channels": (2, 3),
    "model.features": (8,),
    "sparse.method": "static",
    "sparse.sparsity": 0.5,
}
RESIDUAL = SPARSE | {
    "model.name": "resnet_20",
    "model.conv_channels": None,
    "model.features": None,
    "model.width": 2,
}
MLP = SPARSE | {"model.name": "lenet_300_100", "model.conv_channels": None}
GHOSTS = {"tost.activation": "mish", "tost.skips": "convolution"}


@pytest.fixture(autouse=True)
def enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits of 16 by 16 pixels, which a LeNet-5 takes."""

    def read(**options: Any) -> Any:
        train, test, classes = digits.read(**options)
        both = [
            part._replace(images=part.images.repeat(2, axis=1).repeat(2, axis=2))
            for part in (train, test)
        ]
        return *both, classes

    spec = config_lib.DatasetSpec(name="digits", function=read)
    monkeypatch.setitem(config_lib.DATASETS.specs, "digits", spec)


def train(folder: Path, fields: dict[str, Any], *, load: bool = True) -> Any:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    made = factory.make_experiment(c, factory.load_data(c), folder)
    run_lib.run(made, tiny.desk(folder))
    return made, tiny.load(folder, "train/last", made) if load else None


def plain(state: Any) -> Any:
    return ghost_skips.strip_ghosts(state.params), ghost_skips.strip_ghosts(
        state.batch_stats
    )


def test_ghosts_have_no_masks_and_begin_with_the_constant(tmp_path: Path) -> None:
    c = tiny.config(RESIDUAL | GHOSTS)
    haunted, without = (
        factory.make_experiment(c, factory.load_data(c), tmp_path)
        for c in (c, tiny.config(RESIDUAL))
    )
    assert masks_lib.names(haunted.task.masks) == masks_lib.names(without.task.masks)
    seeds = jax.random.clone(haunted.seeds.init)
    (params, stats), (wanted, wanted_stats) = (
        made.task.initialize(jax.random.clone(seeds)) for made in (haunted, without)
    )
    tiny.check_equal(ghost_skips.strip_ghosts(params), wanted)
    tiny.check_equal(ghost_skips.strip_ghosts(stats), wanted_stats)
    ghosts = {
        name: leaf
        for name, leaf in tree.named_leaves(params).items()
        if ghost_skips.is_ghost(name)
    }
    kernels = [leaf for name, leaf in ghosts.items() if name.endswith("kernel")]
    assert len(kernels) == 18
    assert all((leaf == jnp.float32(1e-4)).all() for leaf in kernels)
    assert c.tost.end == "50%"


def test_a_run_of_ghosts_that_are_gone_is_the_run_without(tmp_path: Path) -> None:
    gone = GHOSTS | {"tost.end": "0step"}
    haunted, left = train(tmp_path / "a", SPARSE | gone)
    _, wanted = train(tmp_path / "b", SPARSE)
    for got, other in zip(
        plain(left), (wanted.params, wanted.batch_stats), strict=True
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            got,
            other,
        )
    tiny.check_equal(
        jax.tree.leaves(transforms.get_masks(left.opt_state)),
        jax.tree.leaves(transforms.get_masks(wanted.opt_state)),
    )


@pytest.mark.parametrize(
    "fields",
    [
        GHOSTS,
        {"tost.activation": "p_swish", "tost.mode": "sharpen"},
        {"tost.skips": "identity", "tost.schedule": "cosine"},
        {"training.label_smoothing": 0.3, "training.smoothing_schedule": "linear"},
        {"gradinit.steps": 3, "gradinit.batch_size": 20},
    ],
    ids=["both", "sharpen", "identity", "smoothing", "rescaling"],
)
def test_each_aid_does_something_and_ends_as_the_plain_network(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    made, state = train(tmp_path / "a", SPARSE | fields)
    without, other = train(tmp_path / "b", SPARSE)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    assert shapes(plain(state)) == shapes((other.params, other.batch_stats))
    apart = jax.tree.map(
        lambda a, b: jnp.abs(a - b).max(), plain(state)[0], other.params
    )
    assert max(jax.tree.leaves(apart)) > 1e-3
    # What the run says of the end is what the plain network says.
    (last,) = without.trainer.evaluate["test"](
        other._replace(params=plain(state)[0], batch_stats=plain(state)[1])
    )
    (said,) = made.trainer.evaluate["test"](state)
    np.testing.assert_array_equal(said.correct, last.correct)
    np.testing.assert_allclose(said.loss, last.loss, rtol=1e-6)
    held = masks_lib.num_active(transforms.get_masks(state.opt_state))
    assert held == masks_lib.num_active(transforms.get_masks(other.opt_state))


RESCALED = {"gradinit.steps": 3, "gradinit.batch_size": 20}


def begun(folder: Path, made: Any) -> Any:
    """The state that a run's training begins with."""
    session = SavedStates(made, tiny.desk(folder))
    return tiny.start(session, tiny.stages(made)[0])


def test_rescaling_is_written_and_starts_from_masked_weights(tmp_path: Path) -> None:
    fields = RESCALED | {"replicates": 2}
    made, _ = train(tmp_path, SPARSE | fields)
    written = (tmp_path / "rescaling.json").read_text()
    rows = json.loads(written)
    init = SavedStates(made, tiny.desk(tmp_path)).init
    state = begun(tmp_path, made)
    kept = transforms.get_masks(state.opt_state)
    masked = dict(zip(masks_lib.names(kept), jax.tree.leaves(kept), strict=True))
    for (name, leaf), first in zip(
        tree.named_leaves(state.params).items(),
        jax.tree.leaves(init.params),
        strict=True,
    ):
        for r, row in enumerate(rows):
            wanted = np.asarray(first[r]) * np.float32(row["factors"][name])
            if name in masked:
                wanted = np.where(masked[name][r], wanted, np.float32(0))
            np.testing.assert_array_equal(leaf[r], wanted)
    assert masks_lib.num_active(kept) * 2 == masks_lib.size(kept)
    # Going on reads the factors, and learns none anew.
    learn = made.task.start._replace(rescale=lambda *args: pytest.fail("learned again"))
    task = made.task._replace(start=learn)
    again = begun(tmp_path, made._replace(task=task))
    tiny.check_equal(again.params, state.params)
    assert (tmp_path / "rescaling.json").read_text() == written
    assert len(rows) == 2
    for row in rows:
        assert len(row["objective"]) == len(row["constrained"]) == 3
        assert list(row["factors"]) == masks_lib.names(
            jax.eval_shape(made.task.initialize, made.seeds.init)[0]
        )
    assert rows[0]["factors"] != rows[1]["factors"]
    # Orders of batches are the replicate's own, whatever others there are.
    train(tmp_path / "one", SPARSE | fields | {"replicates": 1})
    (alone,) = json.loads((tmp_path / "one" / "rescaling.json").read_text())
    np.testing.assert_allclose(alone["objective"], rows[0]["objective"], rtol=1e-5)


def test_ghost_skips_change_no_factor(tmp_path: Path) -> None:
    found = []
    for kind in ("", "convolution"):
        more = {"tost.skips": kind, "tost.activation": "mish"}
        folder = tmp_path / (kind or "none")
        train(folder, SPARSE | RESCALED | more)
        found += json.loads((folder / "rescaling.json").read_text())
    plain, haunted = (row["factors"] for row in found)
    ghosts = {name: f for name, f in haunted.items() if ghost_skips.is_ghost(name)}
    assert len(ghosts) == 3 and set(ghosts.values()) == {1.0}
    for name, factor in plain.items():
        np.testing.assert_allclose(haunted[name], factor, rtol=1e-4)
        assert factor != 1.0 or name.endswith("bias")


def test_what_is_trained_though_masked_keeps_its_weights(tmp_path: Path) -> None:
    fields = {
        "lottery.levels": 0,
        "replicates": 1,
        "sparse.method": "top_kast",
        "sparse.sparsity": 0.9,
        "sparse.backward_sparsity": 0.5,
    }
    made, _ = train(tmp_path, fields | RESCALED)
    state = begun(tmp_path, made)
    init = SavedStates(made, tiny.desk(tmp_path)).init.params
    for layer, first in init.items():
        kernel = state.params[layer]["kernel"]
        np.testing.assert_array_equal(kernel != 0, first["kernel"] != 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"lottery.levels": 1, "sparse.method": "none", "sparse.sparsity": 0.9}
        | {"lottery.rewind": "4step", "lottery.controls": ("reinitialized",)},
        case(
            {"sparse.method": "rigl", "sparse.update_every": "2step"}
            | {"sparse.end_step": "8step"},
            always=False,
        ),
        case({"tost.schedule": "constant"}, always=False),
        RESIDUAL,
    ],
    ids=["levels", "rigl", "constant", "residual"],
)
def test_ghosts_go_with_everything(fields: dict[str, Any], tmp_path: Path) -> None:
    made, _ = train(tmp_path, SPARSE | GHOSTS | fields, load=False)
    level = fields.get("lottery.levels", 0)
    state = tiny.load(tmp_path, f"level_{level:02d}/ticket/last", made)
    kept = transforms.get_masks(state.opt_state)
    assert not any(map(ghost_skips.is_ghost, masks_lib.names(kept)))
    assert masks_lib.num_active(kept) < masks_lib.size(kept)
    assert any(map(ghost_skips.is_ghost, masks_lib.names(state.params)))


def test_normalization_of_ghosts_sees_all_devices(tmp_path: Path) -> None:
    # LeNet-5 has none of its own, and its ghosts have one that is averaged too.
    fields = SPARSE | GHOSTS | {"tost.schedule": "constant"}
    ends = []
    for devices in (1, 2):
        _, state = train(tmp_path / str(devices), fields | {"run.devices": devices})
        ends.append((state.params, state.batch_stats))
    for one, two in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_training_is_traced_once_for_a_whole_fade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = annealing.anneal

    def fade(clock: Any, **options: Any) -> Any:
        asked.append(clock)
        return real(clock, **options)

    monkeypatch.setattr(annealing, "anneal", fade)
    counts = []
    for length in ("1ep", "4ep"):  # 6 and 24 updates, half of them with ghosts
        asked.clear()
        more = {"training.duration": length, "schedule.milestones": ()}
        more |= {"schedule.name": "constant", "run.steps_per_call": 1}
        train(tmp_path / length, SPARSE | GHOSTS | more)
        assert all(isinstance(c, int | jax.core.Tracer) for c in asked)
        counts.append(len(asked))
    assert counts[0] == counts[1] > 0


def test_the_final_network_costs_what_the_plain_one_does() -> None:
    model, image = small_models.SMALL["resnet_8"]
    haunted = model.clone(skip=ghost_skips.make(1.0, train=False, kind="convolution"))
    x = small_models.images(image)

    def operations(network: Any, variables: Any) -> float:
        run = functools.partial(network.apply, train=False)
        return jax.jit(run).lower(variables, x).compile().cost_analysis()["flops"]

    state = small_models.variables(haunted, image)
    final = {part: ghost_skips.strip_ghosts(tree) for part, tree in state.items()}
    plain = operations(model, small_models.variables(model, image))
    assert operations(model, final) == plain < operations(haunted, state)


def test_early_stopping_chooses_no_network_with_ghosts(tmp_path: Path) -> None:
    fields = {"data.validation": 40, "evaluation.every": "2step"}
    made, _ = train(tmp_path, SPARSE | GHOSTS | fields | {"tost.end": "8step"})
    rows = metrics_log.read(tmp_path / "metrics.jsonl")
    (level,) = [row for row in rows if row["kind"] == "level"]
    late = [row for row in rows if row["kind"] == "eval" and row["step"] >= 8]
    best = min(late, key=lambda row: row["validation_loss"])
    assert made.trainer.records.anneal_end_step == 8
    assert level["early_stop_step"] == best["step"]


def test_a_run_with_ghosts_lends_weights_and_masks_to_a_plain_one(
    tmp_path: Path,
) -> None:
    made, _ = train(tmp_path / "haunted", SPARSE | GHOSTS)
    config = tiny.config(SPARSE | GHOSTS)
    (tmp_path / "haunted" / "config.json").write_text(json.dumps(config.to_dict()))
    last = "train/last"
    fields = {
        "warm_start.run": "../haunted",
        "warm_start.weights": last,
        "warm_start.masks": last,
    }
    plain_made, _ = train(tmp_path / "plain", SPARSE | fields)
    state = begun(tmp_path / "plain", plain_made)
    wanted = tiny.load(tmp_path / "haunted", last, made)
    tiny.check_equal(state.params, ghost_skips.strip_ghosts(wanted.params))
    tiny.check_equal(state.batch_stats, ghost_skips.strip_ghosts(wanted.batch_stats))
    held = [transforms.get_masks(s.opt_state) for s in (state, wanted)]
    tiny.check_equal(*map(jax.tree.leaves, held))


@pytest.mark.parametrize("how", ["run", "file"])
def test_masks_of_a_whole_layer_fit_one_that_has_none(how: str, tmp_path: Path) -> None:
    earlier = MLP | {"model.features": (8, 7), "sparse.dense": ("head/kernel",)}
    _, state = train(tmp_path / "earlier", earlier)
    config = tiny.config(earlier)
    (tmp_path / "earlier" / "config.json").write_text(json.dumps(config.to_dict()))
    fields = earlier | {
        "sparse.dense": (),
        "sparse.prunable": ("*kernel", "!head/kernel"),
    }
    if how == "run":
        fields |= {
            "warm_start.run": "../earlier",
            "warm_start.masks": "train/last",
        }
    else:
        path = tmp_path / "earlier" / "tickets" / "final" / "replicate_{replicate}.npz"
        fields |= {"warm_start.masks": str(path)}
    made, _ = train(tmp_path / "later", fields)
    held = transforms.get_masks(begun(tmp_path / "later", made).opt_state)
    assert masks_lib.names(held) == ["dense1/kernel", "dense2/kernel"]
    wanted = transforms.get_masks(state.opt_state)
    for layer in ("dense1", "dense2"):
        np.testing.assert_array_equal(held[layer]["kernel"], wanted[layer]["kernel"])
    # A layer that is pruned there fits no network that cannot mask it.
    fields["sparse.prunable"] = ("dense1/kernel",)
    with pytest.raises(
        ValueError, match="warm_start.masks: .*dense2/kernel: expected shape"
    ):
        train(tmp_path / "wrong", fields)


def test_a_plain_run_lends_weights_and_masks_to_one_with_ghosts(tmp_path: Path) -> None:
    made, _ = train(tmp_path / "plain", SPARSE)
    config = tiny.config(SPARSE)
    (tmp_path / "plain" / "config.json").write_text(json.dumps(config.to_dict()))
    fields = {
        "warm_start.run": "../plain",
        "warm_start.weights": "init",
        "warm_start.masks": "train/last",
    }
    _, state = train(tmp_path / "haunted", SPARSE | GHOSTS | fields)
    held = transforms.get_masks(state.opt_state)
    wanted = tiny.load(tmp_path / "plain", "train/last", made)
    tiny.check_equal(
        jax.tree.leaves(held), jax.tree.leaves(transforms.get_masks(wanted.opt_state))
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tost.activation": "wish"}, r"tost.activation.*swish"),
        (
            {"tost.skips": "convolution", "model.name": "lenet_300_100"},
            r"tost.skips: expected None for 'lenet_300_100', which does not",
        ),
        ({"tost.mode": "sharpen"}, r"tost.mode: expected 'blend' with"),
        ({"tost.end": "10%"}, r"tost.end: expected '50%' without tost.activation or"),
        (
            {"tost.activation": "mish", "tost.beta": (2.0, 3.0)},
            r"tost.beta: expected \(1.0, 50.0\) without tost.mode 'sharpen'",
        ),
        (
            {
                "tost.activation": "p_swish",
                "tost.mode": "sharpen",
                "tost.schedule": "cosine",
            },
            r"tost.schedule: expected 'linear' with tost.mode 'sharpen'",
        ),
        (
            GHOSTS
            | {"model.name": "lenet_5", "tost.schedule": "constant"}
            | {"tost.end": "10%"},
            r"tost.end: expected '50%' without a tost.schedule that is not 'constant'",
        ),
        (
            {"training.label_smoothing": 0.1, "training.smoothing_end": "9%"},
            r"training.smoothing_end: expected '50%' without a training.smoothing_sch",
        ),
        (
            {"tost.activation": "mish", "analysis.gradient_every": "2step"},
            r"analysis.gradient_every: expected no analysis with tost.*got '2step'",
        ),
        (
            {"tost.activation": "mish", "tost.schedule": "constant"}
            | {"instability.copies": 2},
            r"instability.copies: expected no analysis with tost.*got 2",
        ),
        ({"tost.beta": ("a", "b")}, r"tost.beta: expected two numbers"),
        ({"gradinit.clip": 2.0}, r"gradinit.clip: expected 1.0 without gradinit.steps"),
        ({"gradinit.steps": 2}, r"gradinit.steps: expected 0 with lottery.levels 2"),
        (
            {"training.smoothing_target": "others"},
            r"training.smoothing_target: expected 'every' without training.label_sm",
        ),
        ({"tost.beta": (2.0, 1.0)}, r"tost.beta: expected two numbers"),
    ],
)
def test_what_would_do_nothing_is_refused(fields: dict[str, Any], message: str) -> None:
    c = tiny.config(fields)
    with pytest.raises(ValueError, match=message):
        config_lib.validate(c)
        factory.check_names(c)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tost.activation": "mish", "tost.end": "3ep"}, "tost.end"),
        (
            {"training.label_smoothing": 0.1, "training.smoothing_schedule": "linear"}
            | {"training.smoothing_end": "3ep"},
            "training.smoothing_end",
        ),
    ],
)
def test_a_fade_longer_than_training_is_refused(
    fields: dict[str, Any], name: str, tmp_path: Path
) -> None:
    c = tiny.config(fields)
    with pytest.raises(
        ValueError, match=f"{name}: expected at most 12 steps.*got '3ep'"
    ):
        factory.make_experiment(c, factory.load_data(c), tmp_path)


def test_too_few_examples_for_rescaling_are_refused(tmp_path: Path) -> None:
    fields = {"gradinit.steps": 2, "gradinit.batch_size": 41, "lottery.levels": 0}
    c = tiny.config(fields)
    with pytest.raises(ValueError, match="gradinit.batch_size: expected at most .*41"):
        factory.make_experiment(c, factory.load_data(c), tmp_path)
