"""Sparse training through configs: every method, from start to records."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import case, some

from jaxsparse import config as config_lib
from jaxsparse import distributions, factory, masks, metrics_log, select, transforms
from jaxsparse.factory import components
from jaxsparse.lottery import tickets
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.runner.masks import level_masks
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.stages import saved_state_name
from jaxsparse.training import preemption
from jaxsparse.training.scan_chunks import ChunkInputs

# 64-20-15-10: 1,730 weights. 12 steps, evaluated after 0, 6 and 12.
SMALL = {"lottery.levels": 0, "model.features": (20, 15)}
TOTAL = 64 * 20 + 20 * 15 + 15 * 10
OFTEN = {"sparse.update_every": "2step"}
SPANS = OFTEN | {"sparse.begin_step": "2step", "sparse.end_step": "9step"}
FIELDS: dict[str, dict[str, Any]] = {
    "static": {},
    "gmp": SPANS,
    "one_shot": {"sparse.begin_step": "5step"},
    "set": OFTEN,
    "rigl": SPANS,
    "mest": SPANS,
    "snfs": SPANS,
    "granet": SPANS,
    "ac_dc": SPANS,
    "ste": OFTEN,
    "top_kast": {},
    "sr_ste": {
        "sparse.structure": "groups 5",
        "sparse.prunable": ("dense2/kernel", "head/kernel"),
        "sparse.sparsity": 0.8,
    },
}
LATENT = ("ste", "top_kast", "sr_ste")
QUICK = ("static", "gmp", "rigl", "snfs", "granet", "ste", "sr_ste")  # of each kind


class Ran(NamedTuple):
    """A run that has ended, and where."""

    folder: Path
    made: Experiment


@pytest.fixture(scope="module", params=some(FIELDS, always=QUICK), ids=str)
def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    folder = tmp_path_factory.mktemp(request.param)
    return Ran(folder, tiny.run(folder, fields_of(request.param)))


def method_of(ran: Ran) -> str:
    return ran.folder.name.rstrip("0123456789")


def fields_of(method: str, **more: Any) -> dict[str, Any]:
    own = {f"sparse.{name}": value for name, value in more.items()}
    return SMALL | {"sparse.method": method} | FIELDS[method] | own


def rows_of(folder: Path, kind: str) -> list[dict]:
    return [r for r in metrics_log.read(folder / "metrics.jsonl") if r["kind"] == kind]


def test_every_method_has_a_test() -> None:
    assert FIELDS.keys() == config_lib.METHODS.keys() - {"none"}


def test_every_method_trains_to_its_exact_count(ran: Ran) -> None:
    folder, made = ran
    state = tiny.load(folder, "train/last", made)
    held = transforms.get_masks(state.opt_state)
    weights = transforms.forward_params(state.params, state.opt_state)
    total = masks.size(made.task.masks)
    for r in range(2):
        mask = jax.tree.map(lambda leaf, r=r: leaf[r], held)
        kept = masks.num_active(mask)
        assert kept == distributions.count_kept(total, 0.8 if total < TOTAL else 0.9)
        outside = masks.tree_map(
            lambda m, w, r=r: np.asarray(w[r])[~np.asarray(m)], mask, weights
        )
        assert not any(leaf.any() for leaf in jax.tree.leaves(outside))
        (row,) = [x for x in rows_of(folder, "level") if x["replicate"] == r]
        assert (row["kept"], row["total"]) == (kept, total)
        assert 0 < row["live"] <= kept
        assert row["layers"] == {
            name: list(count) for name, count in masks.layer_counts(mask).items()
        }
        last = folder / "tickets" / "final" / f"replicate_{r}.npz"
        tiny.check_equal(tickets.load(last, made.task.masks), mask)
    # Each replicate has masks of its own.
    assert any((np.asarray(leaf)[0] != leaf[1]).any() for leaf in jax.tree.leaves(held))
    if method_of(ran) in LATENT:
        dense = masks.tree_map(lambda _, w: np.count_nonzero(w), held, state.params)
        assert sum(jax.tree.leaves(dense)) > masks.num_active(held)


def test_changing_masks_are_counted_at_every_evaluation(ran: Ran) -> None:
    folder, made = ran
    method, rows = method_of(ran), rows_of(folder, "masks")
    if method == "static":
        assert rows == []
        return
    assert [row["step"] for row in rows] == [r["step"] for r in rows_of(folder, "eval")]
    remembers = ("set", "rigl", "mest", "snfs", "granet")
    for row in rows:
        assert row["total"] == masks.size(made.task.masks)
        assert row["kept"] == sum(kept for kept, _ in row["layers"].values())
        assert (row["ever_active"] is None) == (method not in remembers)
        assert row["skipped_updates"] == 0
    mine = [row for row in rows if row["replicate"] == 0]
    if method in remembers:
        explored = [row["ever_active"] for row in mine]
        assert explored == sorted(explored)
        assert mine[-1]["kept"] < explored[-1] <= mine[-1]["total"]
    if method in ("gmp", "one_shot"):
        assert mine[0]["kept"] == TOTAL


def test_skipped_updates_of_masks_are_recorded_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = tiny.experiment(tmp_path, fields_of("rigl"))
    initialize = made.task.initialize

    def spoil(keys: Any) -> Any:
        params, stats = initialize(keys)
        head = jax.tree.map(lambda leaf: leaf.at[1].set(np.nan), params["head"])
        return params | {"head": head}, stats

    made = made._replace(task=made.task._replace(initialize=spoil))
    made = tiny.with_loop(made, continue_on_nonfinite=True)
    run_lib.run(made, tiny.desk(tmp_path))
    by_replicate = [
        [
            row["skipped_updates"]
            for row in rows_of(tmp_path, "masks")
            if row["replicate"] == r
        ]
        for r in range(2)
    ]
    # Masks change at updates 2, 4, 6 and 8; counted after 0, 6 and 12.
    assert by_replicate == [[0, 0, 0], [0, 2, 4]]
    said = [line for line in caplog.messages if "of the masks" in line]
    assert said == [
        "train, by step 6: 2 updates of the masks of replicate 1 were "
        "skipped, as a weight, gradient or score was not finite; expected finite "
        "numbers; records of kind 'masks' go on counting (skipped_updates); try a "
        "lower config.schedule.learning_rate"
    ]


@pytest.mark.parametrize("ran", ["rigl"], indirect=True)
def test_a_methods_own_masks_are_kept_in_files(ran: Ran) -> None:
    for r in range(2):
        path = ran.folder / "tickets" / "level_00" / f"replicate_{r}.npz"
        first = tickets.load(path, ran.made.task.masks)
        counts = distributions.erdos_renyi_kernel(ran.made.task.masks, 0.9)
        found = [count.num_active for count in masks.layer_counts(first).values()]
        assert found == jax.tree.leaves(counts)


@pytest.mark.parametrize("score", config_lib.SCORES)
def test_masks_of_every_score(score: str, tmp_path: Path) -> None:
    distribution = "erk" if score in ("snip", "random") else ""
    fields = fields_of("static", pai_score=score, distribution=distribution)
    if config_lib.SCORES[score].needs_data:
        fields |= {"sparse.score_batches": 2, "sparse.score_batch_size": 30}
    if score == "synflow":  # at once, it takes whole layers away
        fields |= {"sparse.score_iterations": 20}
    made = tiny.experiment(tmp_path, fields)
    session = SavedStates(made, tiny.desk(tmp_path))
    chosen = level_masks(session, 0)
    again = level_masks(SavedStates(made, tiny.desk(tmp_path)), 0)
    tiny.check_equal(again, chosen)
    for r in range(2):
        mask = jax.tree.map(lambda leaf, r=r: leaf[r], chosen)
        assert masks.num_active(mask) == 173
        if distribution:
            erk = distributions.erdos_renyi_kernel(made.task.masks, 0.9)
            layers = masks.layer_counts(mask).values()
            assert [count.num_active for count in layers] == jax.tree.leaves(erk)


@pytest.mark.parametrize("score", ["snip", "synflow"])
def test_scores_that_say_nothing_are_not_taken_in_silence(
    score: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields = fields_of("static", pai_score=score, sparsity=0.99)
    fields |= {"init.zero_init": ("head/kernel",)}
    if score == "snip":
        fields |= {"sparse.score_batches": 2, "sparse.score_batch_size": 30}
    made = tiny.experiment(tmp_path, fields)
    session = SavedStates(made, tiny.desk(tmp_path))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        chosen = level_masks(session, 0)
    ties = [w for w in said if w.category is select.TiedScoresWarning]
    assert ties and "'all layers': '100.0%'" in str(ties[0].message)
    # 17 of 1,730 weights, by their positions: they do not meet.
    assert masks.num_active(jax.tree.map(lambda leaf: leaf[0], chosen)) == 17
    assert "in replicates [0, 1] no weight is on a path" in caplog.text

    if score == "synflow":  # is rescaled
        return
    start = session.init
    huge = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e30), start.params)
    with pytest.raises(ValueError, match=r"^config.sparse.*NaN.*'dense1/kernel'"):
        made.task.first_masks(huge, start.batch_stats, made.seeds)


def test_scores_are_of_each_replicate_s_weights(tmp_path: Path) -> None:
    made = tiny.experiment(tmp_path, fields_of("static", pai_score="magnitude"))
    session = SavedStates(made, tiny.desk(tmp_path))
    chosen, params = level_masks(session, 0), session.init.params
    for r in range(2):
        worth = np.concatenate(
            [
                np.abs(np.asarray(params[name]["kernel"][r])).ravel()
                for name in ("dense1", "dense2", "head")
            ]
        )
        mask = np.concatenate(
            [
                np.asarray(chosen[name]["kernel"][r]).ravel()
                for name in ("dense1", "dense2", "head")
            ]
        )
        assert worth[mask].min() >= np.sort(worth)[-173]


def test_iterations_and_regrowth(tmp_path: Path) -> None:
    found = []
    for place, more in enumerate([{}, {"regrow": True}]):
        fields = fields_of(
            "static",
            pai_score="snip",
            score_iterations=5,
            score_batches=1,
            score_batch_size=40,
            **more,
        )
        folder = tmp_path / str(place)
        made = tiny.experiment(folder, fields)
        chosen = level_masks(SavedStates(made, tiny.desk(folder)), 0)
        found.append(chosen)
        assert masks.num_active(chosen) == 2 * 173
    assert not all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, found), strict=True)
    )


def of_ablation(folder: Path, ablation: str, **more: Any) -> Any:
    fields = fields_of("static", pai_score="magnitude", ablation=ablation, **more)
    made = tiny.experiment(folder, fields)
    (stage,) = tiny.stages(made)
    session = SavedStates(made, tiny.desk(folder))
    return session, tiny.start(session, stage)


def test_ablations_change_one_thing(tmp_path: Path) -> None:
    plain, state = of_ablation(tmp_path / "plain", "")
    wanted = level_masks(plain, 0)
    for ablation in factory.ABLATIONS:
        session, other = of_ablation(tmp_path / ablation, ablation)
        found = level_masks(session, 0)
        for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
            np.testing.assert_array_equal(np.sum(a, (1, 2)), np.sum(b, (1, 2)))
        same = all(
            (np.asarray(a) == np.asarray(b)).all()
            for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True)
        )
        assert same == (ablation == "reinitialized")
        dense = session.init.params["dense1"]["kernel"]
        np.testing.assert_array_equal(dense, plain.init.params["dense1"]["kernel"])
        kernel, mask = other.params["dense1"]["kernel"], found["dense1"]["kernel"]
        kept = np.asarray(kernel) == np.where(mask, dense, 0)
        assert kept.all() == (ablation != "reinitialized")
        if ablation == "inverted":
            worth = np.abs(np.asarray(dense))
            for r in range(2):
                inside, out = worth[r][mask[r]], worth[r][~np.asarray(mask[r])]
                assert inside.max() <= out.min()
    assert masks.num_active(transforms.get_masks(state.opt_state)) == 2 * 173


def test_dead_weights_are_removed_on_request(tmp_path: Path) -> None:
    session, state = of_ablation(
        tmp_path, "shuffled_layers", prune_disconnected=True, sparsity=0.98
    )
    held = transforms.get_masks(state.opt_state)
    live = session.experiment.task.live
    for r in range(2):
        mask = jax.tree.map(lambda leaf, r=r: leaf[r], held)
        assert (
            masks.num_active(mask) == live(mask) < distributions.count_kept(TOTAL, 0.98)
        )


def test_ends_kept_whole_are_found_in_the_order_of_the_network(tmp_path: Path) -> None:
    fields = fields_of("static", first_layer_dense=True, sparsity=0.2)
    made = tiny.experiment(tmp_path, fields)
    first = level_masks(SavedStates(made, tiny.desk(tmp_path)), 0)
    counts = masks.layer_counts(jax.tree.map(lambda leaf: leaf[0], first))
    assert counts["dense1/kernel"].num_active == counts["dense1/kernel"].size
    fields = fields_of("rigl", last_layer_dense=True)
    made = tiny.run(tmp_path / "b", fields)
    (last, _) = rows_of(tmp_path / "b", "level")
    assert last["layers"]["head/kernel"] == [150, 150]


def test_layers_of_their_own_sparsity(tmp_path: Path) -> None:
    layers = (("head/*", 0.5), ("dense2/*", 30))
    for method in ("rigl", "static", "gmp"):
        folder = tmp_path / method
        tiny.run(folder, fields_of(method, layer_sparsity=layers, sparsity=0.8))
        (row, _) = rows_of(folder, "level")
        kept = [count for count, _ in row["layers"].values()]
        assert kept == [256, 30, 75]


def test_bfloat16_networks_are_scored_precisely(tmp_path: Path) -> None:
    chosen = []
    for dtype in ("float32", "bfloat16"):
        fields = fields_of("static", pai_score="synflow", score_iterations=20)
        fields |= {"model.dtype": dtype}
        folder = tmp_path / dtype
        made = tiny.experiment(folder, fields)
        chosen.append(level_masks(SavedStates(made, tiny.desk(folder)), 0))
    tiny.check_equal(*chosen)


def test_no_early_stop_where_masks_change(tmp_path: Path) -> None:
    for method, found in (("static", int), ("gmp", type(None))):
        tiny.run(tmp_path / method, fields_of(method))
        for row in rows_of(tmp_path / method, "level"):
            assert isinstance(row["early_stop_step"], found)


def test_structures_by_config(tmp_path: Path) -> None:
    made = tiny.run(tmp_path, fields_of("rigl", structure="fan_in", sparsity=0.8))
    state = tiny.load(tmp_path, "train/last", made)
    held = transforms.get_masks(state.opt_state)
    for layer in ("dense1", "dense2", "head"):
        fan_in = np.asarray(held[layer]["kernel"]).sum(axis=1)
        assert (fan_in == fan_in.flat[0]).all()


def test_growth_examples_are_what_weights_are_grown_by(tmp_path: Path) -> None:
    ends = []
    for count in (0, 60):
        folder = tmp_path / str(count)
        made = tiny.run(folder, fields_of("rigl", grow_batch_size=count))
        state = tiny.load(folder, "train/last", made)
        ends.append(transforms.get_masks(state.opt_state))
    starts = [
        (
            tmp_path / str(count) / "tickets" / "level_00" / "replicate_0.npz"
        ).read_bytes()
        for count in (0, 60)
    ]
    assert starts[0] == starts[1]
    assert masks.num_active(ends[0]) == masks.num_active(ends[1])
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(*map(jax.tree.leaves, ends), strict=True)
    )


@pytest.mark.parametrize(
    ("method", "own"),
    [case("rigl", "yes", always=True), case("set", "no", always=False)],
)
def test_the_step_at_a_change_may_be_left_out_or_not(
    method: str, own: str, tmp_path: Path
) -> None:
    """Biases have no mask: only a step moves them."""
    moved = {}
    for skips in ("", "yes", "no"):
        folder = tmp_path / f"skips_{skips}"
        fields = fields_of(method, skip_update=skips)
        fields |= {"analysis.save_at": ("2step", "3step")}
        made = tiny.run(folder, fields)
        before, after = (
            tiny.load(folder, saved_state_name("train", step), made).params
            for step in (2, 3)
        )
        bias = [np.asarray(tree["head"]["bias"]) for tree in (before, after)]
        moved[skips] = bool(np.any(bias[0] != bias[1]))
    assert moved == {"yes": False, "no": True, "": own == "no"}


class Twice:
    """Says no once, then yes."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked == 2


@pytest.mark.parametrize("method", some(["snfs", "mest", "top_kast"], always=["mest"]))
def test_stopped_and_resumed_is_bit_identical(method: str, tmp_path: Path) -> None:
    fields = fields_of(method) | (
        {"sparse.soft_bound": True} if method == "mest" else {}
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    made = tiny.run(whole, fields)
    stopped = tiny.experiment(cut, fields)
    with pytest.raises(preemption.Preempted):
        run_lib.run(stopped, tiny.desk(cut, Twice()))
    assert 0 < rows_of(cut, "masks")[-1]["step"] < 12
    tiny.run(cut, fields)
    ends = [tiny.load(path, "train/last", made) for path in (whole, cut)]
    tiny.check_equal(*ends)
    for kind in ("eval", "masks", "level"):
        assert rows_of(whole, kind) == rows_of(cut, kind)


@pytest.mark.parametrize("method", some(["rigl", "ste"], always=["rigl"]))
def test_pmap_is_jit_bit_for_bit(method: str, tmp_path: Path) -> None:
    ends = []
    for by in ("jit", "pmap"):
        fields = fields_of(method) | {
            "run.parallelism": by,
            "run.devices": 2,
            "replicates": 1,
        }
        made = tiny.run(tmp_path / by, fields)
        ends.append(tiny.load(tmp_path / by, "train/last", made))
    tiny.check_equal(*ends)


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_a_change_of_masks_stays_conditional_under_replicates(
    how: str, tmp_path: Path
) -> None:
    made = tiny.experiment(tmp_path, fields_of("rigl") | {"run.replicate_mode": how})
    session = SavedStates(made, tiny.desk(tmp_path))
    trainer = made.trainer
    (stage,) = tiny.stages(made)
    feed = trainer.feed
    order = feed.make_order(made.seeds.data, 0)
    program = trainer.compiled_steps(4, 20)
    traced = program.args[0].trace(
        tiny.start(session, stage),
        ChunkInputs(feed.images, feed.labels, order, np.int32(0)),
        made.seeds.data,
        (np.int32(4), None),
    )
    assert str(traced.jaxpr).count("= cond[") >= 2


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"sparse.method": "rigll"},
        "sparse.method: expected .*'rigll'; did you mean rigl",
    ),
    (
        {"sparse.sparsity": 0.5},
        "sparse.sparsity: expected 0.9 with method 'none', .*got 0.5",
    ),
    (fields_of("set", grow="random"), "sparse.grow: .*'set', which does not use it"),
    (
        fields_of("rigl", distribution="erq"),
        "sparse.distribution: expected one of .*, got 'erq'",
    ),
    (
        fields_of("static", pai_score="snipp"),
        "sparse.pai_score: .*got 'snipp'; did you mean snip",
    ),
    (
        fields_of("static", structure="4"),
        "config.sparse: structure: expected a form .*got '4'",
    ),
    (
        fields_of("static", ablation="invertd"),
        "sparse.ablation: expected one of .*'invertd'",
    ),
    (
        fields_of("static", regrow=True),
        "sparse.regrow: expected False with sparse.score_",
    ),
    (
        fields_of("static", pai_score="snip", score_iterations=3, structure="fan_in"),
        "sparse.score_iterations: expected 1 with sparse.structure",
    ),
    (
        fields_of("gmp", sparsity=1.0),
        "sparse.sparsity: expected a number from 0 to below 1, got 1.0",
    ),
    (
        fields_of("gmp") | {"lottery.levels": 2},
        "sparse.method: expected 'none' with lottery",
    ),
    (
        fields_of("rigl", begin_step="two"),
        "sparse.begin_step: expected a duration .*'two'",
    ),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_bad_fields_are_named(fields: dict[str, Any], message: str) -> None:
    c = tiny.config({"lottery.levels": 0} | fields)
    with pytest.raises(ValueError, match=message):
        config_lib.validate(c)
        factory.check_names(c)


WRONG += [
    (fields_of("gmp", end_step=None), "sparse.end_step: expected .* with method 'gmp'"),
    (fields_of("gmp", begin_step=None), "sparse.begin_step: expected .* method 'gmp'"),
    (
        fields_of("one_shot", begin_step=None),
        "sparse.begin_step: expected .* with method 'one_shot'",
    ),
    (fields_of("set", update_every=""), "sparse.update_every: expected a duration"),
    (fields_of("static", structure="groups 4x"), "structure: expected .*'groups 4x'"),
    (fields_of("static", structure="groups x4"), "structure: expected .*'groups x4'"),
    (
        fields_of("static", structure="fan_in", ablation="inverted"),
        "sparse.ablation: expected 'reinitialized' or None with",
    ),
    (
        fields_of("static", pai_score="magnitude", score_batches=3),
        "sparse.score_batches: expected 10 with sparse.pai_score 'magnitude'",
    ),
    (
        fields_of("static", score_iterations=3),
        "sparse.score_iterations: expected 1 with sparse.pai_score 'random'",
    ),
    (
        fields_of("rigl", grow="random", grow_batch_size=10),
        "sparse.grow_batch_size: expected 0 with sparse.grow 'random'",
    ),
    (
        fields_of("rigl", layer_sparsity=(("head/*", 0.5),), distribution="erk"),
        "sparse.layer_sparsity: expected",
    ),
    (
        fields_of("rigl", layer_sparsity=(("head/*", "a"),)),
        "sparse.layer_sparsity: expected",
    ),
]
MISFITS: list[tuple[dict[str, Any], str]] = [
    (fields_of("rigl", end_step=None), "config.sparse: end_step: expected .*got None"),
    (fields_of("rigl", dense=("tail/*",)), "config.sparse: dense: expected patterns"),
    (fields_of("rigl", structure="blocks 7x7"), "config.sparse: .*dense1/kernel"),
    (
        fields_of("rigl", prunable=("tail",)),
        "config.sparse: prunable: expected patterns",
    ),
    (fields_of("gmp", end_step="1step"), "config.sparse: end_step: expected .*got 1"),
    (
        fields_of("gmp", end_step="100%"),
        "sparse.end_step: expected a step below 12, .*got '100%', which is step 12",
    ),
    (fields_of("ac_dc", end_step="900step"), "sparse.end_step: .*got '900step'"),
    (fields_of("one_shot", begin_step="100%"), "sparse.begin_step: .*got '100%'"),
    (
        fields_of("mest", end_step="100%", soft_bound=True),
        "sparse.end_step: .*got '100%'",
    ),
    (fields_of("ste", end_step="100%"), "sparse.end_step: .*got '100%'"),
    (fields_of("top_kast", update_every="0step"), "update_every: expected .*got 0"),
    (
        fields_of("rigl", grow_batch_size=121),
        "grow_batch_size: expected at most the 120 .* got 121 from 0 on",
    ),
    (
        fields_of("rigl", grow_batch_size=60, grow_batch_start=61),
        "grow_batch_size: expected at most the 120 .* got 60 from 61 on",
    ),
    (
        fields_of("rigl", grow_batch_start=5),
        "sparse.grow_batch_start: expected 0 .*got 5",
    ),
    (
        fields_of("mest", skip_update=False),
        "sparse.skip_update: expected None .*'mest'",
    ),
    (fields_of("sr_ste", structure="channels"), "expected groups for sr_ste"),
    (
        fields_of("top_kast", backward_sparsity=0.95),
        "backward_sparsity: expected .*got 0.95",
    ),
    (fields_of("ste", min_layer_density=0.1), "min_layer_density: expected .*got 0.1"),
]


@pytest.mark.parametrize(("fields", "message"), MISFITS)
def test_what_does_not_fit_is_refused_before_training(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.experiment(tmp_path, fields)


def test_too_many_examples_to_score_on(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="score_batches: expected at most the 120 .* 10 batches of 128"
    ):
        tiny.experiment(tmp_path, fields_of("static", pai_score="snip"))


def test_images_are_normalized_as_the_config_says() -> None:
    dataset = factory.load_data(tiny.config(SMALL))
    images = dataset.train.images
    found = {}
    for how in ("scale", "standardize"):
        c = tiny.config(SMALL | {"data.normalize": how})
        found[how] = np.asarray(
            components.make_normalize(c, dataset)(jnp.asarray(images))
        )
    np.testing.assert_allclose(found["scale"], images / 255, rtol=1e-6)
    assert abs(float(found["standardize"].mean())) < 0.1 < float(found["scale"].mean())
