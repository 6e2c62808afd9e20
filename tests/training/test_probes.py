"""Measuring during training: when, of what, and the same after a restart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import case, some
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsparse import factory, losses, masks, metrics_log, transforms
from jaxsparse.factory import probes
from jaxsparse.runner import run as run_lib
from jaxsparse.stages import saved_state_name
from jaxsparse.training import checkpoints, chunk_plan, preemption, train
from jaxsparse.training.chunk_plan import EpochSpec
from jaxsparse.training.probe import Probe

STAGE = "train"
FIELDS = {
    "lottery.levels": 0,
    "sparse.method": "rigl",
    "sparse.sparsity": 0.8,
    "sparse.update_every": "5step",
    "sparse.drop_schedule": "constant",
    "analysis.gradient_every": "4step",
    "analysis.at_mask_updates": True,
    "analysis.examples": 30,
    "analysis.save_at": ("0step", "5step", "6step", "9step"),
    "evaluation.every": "6step",
    "model.features": (12,),
    "run.steps_per_call": 6,  # all calls end early, and share a program
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The run that is measured, of which most tests here read the records."""
    folder = tmp_path_factory.mktemp("seen")
    return folder, tiny.run(folder, FIELDS)


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [r for r in metrics_log.read(folder / "metrics.jsonl") if r["kind"] == kind]


@settings(max_examples=50, deadline=None)
@given(
    stop=st.integers(1, 60),
    per_call=st.integers(1, 9),
    every=st.integers(1, 13),
    pauses=st.lists(st.integers(0, 60), unique=True).map(sorted),
)
def test_calls_end_at_every_pause_and_join(stop, per_call, every, pauses):
    plan = chunk_plan.plan(
        0,
        stop,
        epoch=EpochSpec(7, 10, 4),
        steps_per_call=per_call,
        evaluate_every=every,
        boundary_steps=pauses,
    )
    ends, clock = set(), 0
    for call in plan:
        assert call.step == clock
        clock += call.length
        ends.add(clock)
    assert clock == stop
    assert {pause for pause in pauses if 0 < pause <= stop} <= ends


def test_pauses_lie_around_every_change() -> None:
    observer = Probe((0, 4, 8), (4, 9), lambda *_: None, lambda _: [])
    assert observer.boundary_steps == (0, 4, 5, 8, 9, 10)


def test_what_is_recorded_is_the_gradient_of_kept_states(
    seen: tuple[Path, Any],
) -> None:
    folder, made = seen
    steps = [
        row["step"] for row in rows(folder, "gradient_norm") if not row["replicate"]
    ]
    # Every fourth, and those in which masks change: 5 and 10 of 12.
    assert steps == [0, 4, 5, 8, 10, 12]
    assert [r["step"] for r in rows(folder, "mask_update")] == [6, 6, 11, 11]
    dataset = factory.load_data(tiny.config(FIELDS))
    model = factory.make_model(tiny.config(FIELDS), classes=10)
    images = (dataset.train.images[:30] / 255.0 - dataset.mean[0]) / dataset.std[0]
    images, labels = jnp.asarray(images, jnp.float32), dataset.train.labels[:30]

    @jax.jit
    def gradient(params: Any, held: Any) -> Any:
        def loss(weights: Any) -> jax.Array:
            logits = model.apply({"params": weights}, images, train=True)
            return jnp.mean(losses.cross_entropy(logits, jnp.asarray(labels)))

        return masks.apply(held, jax.grad(loss)(masks.apply(held, params)))

    def norm(params: Any, held: Any) -> float:
        grads = jax.tree.leaves(gradient(params, held))
        return sum(np.sum(np.square(np.asarray(g))) for g in grads) ** 0.5

    def both(step: int) -> list[tuple[Any, Any]]:
        state = tiny.load(folder, saved_state_name(STAGE, step), made)
        held = state.params, transforms.get_masks(state.opt_state)
        rows_of = lambda r: lambda leaf: jnp.asarray(np.asarray(leaf)[r])  # noqa: E731
        return [jax.tree.map(rows_of(r), held) for r in (0, 1)]

    found = {
        (row["kind"], row["step"], row["replicate"]): row["norm"]
        for kind in ("gradient_norm", "mask_update")
        for row in rows(folder, kind)
    }
    states = {step: both(step) for step in (0, 5, 6)}
    for r in range(2):
        for step in (0, 5):
            assert found["gradient_norm", step, r] == pytest.approx(
                norm(*states[step][r]), rel=1e-4
            )
        (before, old), (_, new) = states[5][r], states[6][r]
        assert masks.num_active(old) == masks.num_active(new)
        assert found["mask_update", 6, r] == pytest.approx(norm(before, new), rel=1e-4)


def test_layers_add_up_to_the_whole(seen: tuple[Path, Any]) -> None:
    found = rows(seen[0], "gradient_norm")
    assert found
    for row in found:
        whole = sum(value**2 for value in row["layers"].values()) ** 0.5
        assert row["norm"] == pytest.approx(whole, rel=1e-5)
        assert row["layers"].keys() >= {"dense1/kernel", "dense1/bias"}


def test_a_gradient_that_is_not_finite_is_recorded_as_null(tmp_path: Path) -> None:
    """With the programs of the run that is measured."""
    made = tiny.experiment(tmp_path, FIELDS)
    initialize = made.task.initialize

    def spoil(keys: Any) -> Any:
        params, stats = initialize(keys)
        head = jax.tree.map(lambda leaf: leaf.at[1].set(np.nan), params["head"])
        return params | {"head": head}, stats

    made = made._replace(task=made.task._replace(initialize=spoil))
    go_on = tiny.with_loop(made, continue_on_nonfinite=True)
    run_lib.run(go_on, tiny.desk(tmp_path / "on"))
    found = rows(tmp_path / "on", "gradient_norm")
    assert found
    for row in found:
        values = row["norm"], row["layers"]["head/kernel"], row["layers"]["head/bias"]
        assert [value is None for value in values] == [row["replicate"] == 1] * 3
    failed = rows(tmp_path / "on", "failed")
    assert [row["replicate"] for row in failed] == [1]
    with pytest.raises(preemption.NonFiniteLoss, match=r"replicates \[1\]"):
        run_lib.run(made, tiny.desk(tmp_path / "stop"))


def test_measuring_changes_nothing(tmp_path: Path, seen: tuple[Path, Any]) -> None:
    plain = {k: v for k, v in FIELDS.items() if not k.startswith("analysis.")}
    states = [
        tiny.load(folder, f"{STAGE}/last", made)
        for folder, made in (seen, (tmp_path, tiny.run(tmp_path, plain)))
    ]
    tiny.check_equal(*states)
    rest = [r for r in metrics_log.read(seen[0] / "metrics.jsonl") if "norm" not in r]
    others = metrics_log.read(tmp_path / "metrics.jsonl")
    kinds = [[r["kind"] for r in each] for each in (rest, others)]
    assert kinds[0] == kinds[1]


CHANGING = {
    "gmp": {"sparse.begin_step": "2step", "sparse.end_step": "9step"},
    "one_shot": {"sparse.begin_step": "5step"},
    "granet": {"sparse.end_step": "8step"},
    "granet late": {"sparse.begin_step": "2step", "sparse.end_step": "9step"},
    "ac_dc": {"sparse.begin_step": "2step", "sparse.end_step": "10step"},
    "set": {},
    "rigl": {"sparse.begin_step": "1step", "sparse.end_step": "8step"},
    "mest": {"sparse.end_step": "9step"},
    "mest soft": {"sparse.end_step": "9step", "sparse.soft_bound": True},
    "snfs": {"sparse.end_step": "10step"},
}
# Gradual pruning begins by pruning nothing; AC/DC ends compressed as it was before.
IDLE = {"gmp": (2,), "ac_dc": (10,)}


@pytest.mark.parametrize("name", some(CHANGING, always=["rigl", "ac_dc"]))
def test_masks_change_when_they_are_said_to(tmp_path: Path, name: str) -> None:
    fields = {
        "replicates": 1,
        "lottery.levels": 0,
        "sparse.method": name.split()[0],
        "sparse.sparsity": 0.8,
        "model.features": (12,),
        "run.steps_per_call": 1,
        "evaluation.every": "12step",
        **CHANGING[name],
    }
    if name != "one_shot":
        fields["sparse.update_every"] = "3step"
    held: list[list[np.ndarray]] = []

    def keep(step: int, state: Any) -> None:
        assert step == len(held)
        leaves = jax.tree.leaves(transforms.get_masks(state.opt_state))
        held.append([np.array(leaf) for leaf in leaves])

    desk = tiny.desk(tmp_path)._replace(callbacks=(keep,))
    run_lib.run(tiny.experiment(tmp_path, fields), desk)
    assert len(held) == 13
    changed = [
        t
        for t, pair in enumerate(zip(held, held[1:], strict=False))
        if any(np.any(a != b) for a, b in zip(*pair, strict=True))
    ]
    c = tiny.config(fields)
    length = factory.make_durations(c, steps_per_epoch=6)
    assert sorted([*changed, *IDLE.get(name, ())]) == list(
        probes.update_steps(c, length)
    )


@pytest.mark.parametrize("stop_at", some([3, 5, 6, 9], always=[5, 6]))
def test_a_run_that_was_stopped_records_the_same(
    tmp_path: Path, seen: tuple[Path, Any], stop_at: int
) -> None:
    whole, parts = seen[0], tmp_path
    made = tiny.experiment(parts, FIELDS)
    asked = stopper(made, stop_at)
    with pytest.raises(preemption.Preempted):
        run_lib.run(made, tiny.desk(parts, asked))
    tiny.run(parts, FIELDS)
    for kind in ("gradient_norm", "mask_update", "eval"):
        assert rows(parts, kind) == rows(whole, kind)
    for step in (0, 5, 6, 9):
        states = [
            checkpoints.recorded_hash(f / "checkpoints", saved_state_name(STAGE, step))
            for f in (whole, parts)
        ]
        assert states[0] == states[1] is not None


@pytest.mark.parametrize(
    ("replicates", "devices", "parallelism"),
    [
        case(1, 2, "jit", always=False),
        case(2, 2, "jit", always=False),
        case(2, 2, "pmap", always=True),
    ],
)
def test_devices_change_nothing_that_is_recorded(
    tmp_path: Path,
    seen: tuple[Path, Any],
    replicates: int,
    devices: int,
    parallelism: str,
) -> None:
    fields = FIELDS | {"replicates": replicates}
    layout = {"run.devices": devices, "run.parallelism": parallelism}
    alone = seen if replicates == 2 else (tmp_path, tiny.run(tmp_path, fields))
    divided = tmp_path / "many", tiny.run(tmp_path / "many", fields | layout)
    found = []
    for (folder, made), size in ((alone, 1), (divided, devices)):
        assert made.trainer.layout.mesh.size == size
        kinds = ("gradient_norm", "mask_update")
        found.append([row for kind in kinds for row in rows(folder, kind)])
    one, many = found
    assert len(one) == (6 + 2) * replicates
    for a, b in zip(one, many, strict=True):
        for name in ("norm", "layers"):
            assert b.pop(name) == pytest.approx(a.pop(name), rel=1e-3, abs=1e-7)
        assert a == b


def test_other_last_bits_after_a_restart_do_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on GPUs that do not give the same bits twice."""
    made = tiny.with_loop(tiny.experiment(tmp_path, FIELDS), checkpoint_every=4)
    kept = checkpoints.save

    def killed(directory: Path, name: str, state: Any, extra: Any = None) -> None:
        kept(directory, name, state, extra)
        if name.endswith("step_000000009"):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run_lib.run(made, tiny.desk(tmp_path))
    monkeypatch.setattr(checkpoints, "save", kept)
    load = checkpoints.load

    def other(directory: Path, name: str, like: Any) -> Any:
        saved = load(directory, name, like)
        if saved is None or "step_" not in name:
            return saved
        params = jax.tree.map(lambda leaf: leaf * (1 + 1e-6), saved.state.params)
        return saved._replace(state=saved.state._replace(params=params))

    monkeypatch.setattr(checkpoints, "load", other)
    run_lib.run(made, tiny.desk(tmp_path))
    for step in (0, 5, 6, 9):
        assert checkpoints.exists(
            tmp_path / "checkpoints", saved_state_name(STAGE, step)
        )


def stopper(made: Any, stop_at: int) -> Callable[[], bool]:
    """Asks to stop at the first end of a call at or after a step."""
    calls = train.plan_chunks(made.trainer, 0, 12)
    ends = [call.step + call.length for call in calls]
    wanted = next(place for place, end in enumerate(ends) if end >= stop_at)
    count = iter(range(100))
    return lambda: next(count) == wanted


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"analysis.at_mask_updates": True},
            r"analysis\.at_mask_updates: expected False with sparse",
        ),
        (
            FIELDS | {"analysis.gradient_every": "often"},
            r"analysis\.gradient_every: duration: expected .*got 'often'",
        ),
        (FIELDS | {"analysis.save_at": ("5",)}, r"analysis\.save_at: .*got '5'"),
        (
            FIELDS | {"analysis.save_at": ("13step",)},
            r"analysis\.save_at: expected steps up to 12, .*got \[13\]",
        ),
        (
            FIELDS | {"analysis.gradient_every": "0step"},
            r"analysis\.gradient_every: expected at least 1 step, got '0step'",
        ),
        (
            FIELDS | {"analysis.examples": 121},
            r"analysis\.examples: expected at most the 120 .*got 121",
        ),
        (
            {"analysis.examples": 30, "lottery.levels": 0},
            r"analysis\.examples: expected 1000 without .*got 30",
        ),
        (
            {"run.conv_gradients": "explicit"},
            r"run\.conv_gradients: expected .* for 'lenet_300_100'",
        ),
        (
            {
                "model.name": "resnet_20",
                "run.conv_gradients": "explicit",
                "run.fsdp": True,
            },
            r"run\.conv_gradients: expected .* with run\.fsdp",
        ),
        (
            {"model.name": "vgg_16", "model.features": (4, 4)},
            r"model\.features: expected 5 sizes for 'vgg_16', .*got \(4, 4\)",
        ),
    ],
)
def test_bad_fields_are_named(fields: dict, message: str) -> None:
    c = tiny.config(fields)
    with pytest.raises(ValueError, match=message):
        factory.check_names(c)
        factory.make_experiment(c, factory.load_data(c), Path())
