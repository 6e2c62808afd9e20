"""What each level starts from, compared with the checkpoints it should start from."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from jaxsparse import masks, metrics_log, transforms
from jaxsparse.lottery import controls, rewinding, tickets
from jaxsparse.lottery.rewinding import RewindPlan, Span
from jaxsparse.runner import run as run_lib
from jaxsparse.training import train as train_lib

pytestmark = pytest.mark.keys_used_once


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, Any]]:
    """Collects, by stage, the state and the data keys that training begins with."""
    seen: dict[str, tuple[Any, Any]] = {}
    fit = train_lib.fit

    def watch(
        trainer: Any, fresh: Any, *, stage: Any, keys: Any, run_dir: Any, **more: Any
    ) -> Any:
        copy = jax.tree.map(jnp.copy, fresh)
        seen[stage.name] = (copy, np.asarray(jax.random.key_data(keys)))
        return fit(trainer, fresh, stage=stage, keys=keys, run_dir=run_dir, **more)

    monkeypatch.setattr(train_lib, "fit", watch)
    return seen


def weights(folder: Path, name: str, made: Any) -> tuple[Any, Any]:
    state = tiny.load(folder, name, made)
    return state.params, state.batch_stats


def ticket(folder: Path, level: int, made: Any) -> Any:
    like = made.task.masks
    if level == 0:
        return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), like)
    found = tickets.load_level(folder / "tickets", level, like, replicates=2)
    assert found is not None
    return found


# By variant: fields, and where level L's weights come from.
VARIANTS = {
    "learning rate rewinding": (
        {"lottery.retrain": "learning_rate_rewind"},
        ["init", "level_00/ticket/last", "level_01/ticket/last"],
    ),
    "learning rate rewinding to step 3": (
        {"lottery.retrain": "learning_rate_rewind", "lottery.rewind": "25%"},
        ["rewind", "level_00/ticket/last", "level_01/ticket/last"],
    ),
    "one shot, fine-tuned": (
        {"lottery.one_shot": True, "lottery.retrain": "finetune"},
        ["init", "level_00/ticket/last", "level_00/ticket/last"],
    ),
    "layer by layer by random scores, rewind to initialization": (
        {
            "lottery.scope": "layer",
            "lottery.layer_fractions": (("head/kernel", 0.1),),
            "lottery.score": "random",
        },
        ["init", "init", "init"],
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_levels_start_from_the_weights_they_should(
    variant: str, tmp_path: Path, starts: dict
) -> None:
    check_variant(*VARIANTS[variant], tmp_path, starts)


def check_variant(
    fields: dict[str, Any],
    sources: list[str],
    tmp_path: Path,
    starts: dict,
    *,
    reshuffle: bool = False,
) -> None:
    """Trains a run, and checks with what each of its levels began and ended."""
    made = tiny.experiment(tmp_path, fields)
    assert not made.plan.reshuffle
    plan = made.plan._replace(reshuffle=reshuffle)
    run_lib.run(made._replace(plan=plan), tiny.desk(tmp_path))
    orders = {starts[f"level_{n:02d}/ticket"][1].tobytes() for n in range(3)}
    assert len(orders) == (3 if reshuffle else 1)
    before = None
    for level, source in enumerate(sources):
        fresh, _ = starts[f"level_{level:02d}/ticket"]
        kept = ticket(tmp_path, level, made)
        params, stats = weights(tmp_path, source, made)
        tiny.check_equal(fresh.params, masks.apply(kept, params))
        tiny.check_equal(fresh.batch_stats, stats)
        tiny.check_equal(transforms.get_masks(fresh.opt_state), kept)
        # The optimizer is fresh and the clock is not.
        assert int(fresh.opt_state.step) == 0
        momenta = jax.tree.leaves(fresh.opt_state.inner_state)
        assert momenta
        assert not any(np.any(np.asarray(leaf)) for leaf in momenta)
        assert int(fresh.step) == made.plan.retraining.span(level).start
        if before is not None:
            assert bool(masks.is_nested(kept, before))
        before = kept
        one = jax.tree.map(lambda leaf: leaf[1], kept)
        sizes = {"dense1/kernel": 19200, "dense2/kernel": 30000, "head/kernel": 1000}
        if "layer" in fields.get("lottery.scope", ""):
            rates = {"head/kernel": 0.9}
            for name, size in sizes.items():
                wanted = round(size * rates.get(name, 0.8) ** level)
                assert masks.layer_counts(one)[name].num_active == wanted
        else:
            assert masks.num_active(one) == round(50200 * 0.8**level)
        end = tiny.load(tmp_path, f"level_{level:02d}/ticket/last", made)
        assert int(end.step) == made.plan.retraining.span(level).stop
        outside = masks.tree_map(
            lambda m, w: np.asarray(w)[~np.asarray(m)], kept, end.params
        )
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(outside))


def test_the_clock_and_the_rate_go_on_from_the_rewinding_step(
    tmp_path: Path, starts: dict
) -> None:
    # Step 9 lies after the milestone at 8, where the rate falls to a tenth.
    fields = {"lottery.rewind": "9step", "lottery.one_shot": True}
    check_variant(fields, ["rewind"] * 3, tmp_path, starts, reshuffle=True)
    rows = metrics_log.read(tmp_path / "metrics.jsonl")
    for level in range(3):
        mine = [row for row in rows if row["stage"] == f"level_{level:02d}/ticket"]
        evaluations = [row["step"] for row in mine if row["kind"] == "eval"]
        assert evaluations == [9, 9, 12, 12]
        trained = [row for row in mine if row["kind"] == "train"]
        assert [row["step"] for row in trained] == [12, 12]
        for row in trained:
            assert row["learning_rate"] == pytest.approx(0.01)
        ends = [row for row in mine if row["kind"] == "level"]
        assert [(row["start_step"], row["step"]) for row in ends] == [(9, 12)] * 2
    first = [row for row in rows if row["stage"] == "pretraining"]
    assert {row["step"] for row in first if row["kind"] == "eval"} == {0, 6, 9}
    # What the dense network measured at step k is what level 0 begins with.
    at_nine = [r for r in first if r["kind"] == "eval" and r["step"] == 9]
    begun = [r for r in rows if r["stage"] == "level_00/ticket" and r["step"] == 9]
    for a, b in zip(at_nine, begun, strict=True):
        assert a["test_loss"] == b["test_loss"]


def test_fine_tuning_trains_at_the_last_rate(tmp_path: Path, starts: dict) -> None:
    fields = {"lottery.retrain": "finetune", "lottery.finetune_length": "50%"}
    sources = ["init", "level_00/ticket/last", "level_01/ticket/last"]
    check_variant(fields, sources, tmp_path, starts)
    rows = metrics_log.read(tmp_path / "metrics.jsonl")
    late = [r for r in rows if r["level"] > 0 and r["kind"] == "train"]
    assert {row["step"] for row in late} == {18}
    assert {row["learning_rate"] for row in late} == {
        row["learning_rate"]
        for row in rows
        if row["level"] == 0 and row["kind"] == "train" and row["step"] == 12
    }


def test_controls_start_from_what_they_isolate(tmp_path: Path, starts: dict) -> None:
    names = tuple(controls.NAMES)
    made = tiny.run(tmp_path, {"lottery.controls": names, "lottery.rewind": "4step"})
    params, _ = weights(tmp_path, "rewind", made)
    initial, _ = weights(tmp_path, "init", made)
    fresh_draws = []
    for level in (1, 2):
        kept = ticket(tmp_path, level, made)
        rewound, _ = starts[f"level_{level:02d}/ticket"]
        assert int(rewound.step) == 4
        tiny.check_equal(transforms.get_masks(rewound.opt_state), kept)
        tiny.check_equal(rewound.params, masks.apply(kept, params))
        for name in names:
            fresh, _ = starts[f"level_{level:02d}/{name}"]
            mask = transforms.get_masks(fresh.opt_state)
            assert int(fresh.step) == 4
            if name in ("shuffled_layers", "shuffled_globally"):
                tiny.check_equal(fresh.params, masks.apply(mask, params))
            elif name == "dense_continued":
                source = (
                    "level_00/ticket/last"
                    if level == 1
                    else "level_01/dense_continued/last"
                )
                tiny.check_equal(fresh.params, weights(tmp_path, source, made)[0])
                assert masks.sparsity(mask) == 0
            else:
                kernel = np.asarray(fresh.params["dense1"]["kernel"])
                there = np.asarray(mask["dense1"]["kernel"])
                before = np.asarray(params["dense1"]["kernel"])
                is_old = (kernel < 0) == (before < 0), abs(kernel) == abs(before)
                keeps = [bool(old[there].all()) for old in is_old]
                assert keeps == [name == "random_magnitudes", name == "random_signs"]
                if name == "random_signs":
                    assert 0.4 < is_old[0][there].mean() < 0.6
                    continue
                fresh_draws.append(kernel)
                for other in (params, initial):
                    same = kernel == np.asarray(other["dense1"]["kernel"])
                    assert not np.any(same & there)
            if name == "reinitialized":
                tiny.check_equal(mask, kept)
    # Controls and levels draw their new weights independently.
    for i, a in enumerate(fresh_draws):
        for b in fresh_draws[i + 1 :]:
            assert not np.any((a == b) & (a != 0))


def test_spans() -> None:
    spans = functools.partial(RewindPlan, 3, 10)
    assert [spans().span(level) for level in (0, 1, 5)] == [Span(3, 10)] * 3
    assert spans("learning_rate_rewind").span(1) == Span(3, 10)
    tuned = spans("finetune", 4)
    assert [tuned.span(level) for level in (0, 1, 2)] == [
        Span(3, 10),
        Span(10, 14),
        Span(10, 14),
    ]
    assert [plan.keeps_weights for plan in (spans(), tuned)] == [False, True]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            RewindPlan(0, 0),
            "config.training.duration: expected at least 1 update, got 0",
        ),
        (
            RewindPlan(10, 10),
            "config.lottery.rewind: expected a step in .0, 10.*got step 10",
        ),
        (
            RewindPlan(0, 10, "finetune", 0),
            "config.lottery.finetune_length: expected at least 1 update, got 0",
        ),
    ],
)
def test_plans_without_training_are_refused(plan: RewindPlan, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        rewinding.check(plan)
