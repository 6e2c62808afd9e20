"""Sparse training through configs: every method, from start to records."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest
from helpers import tiny
from helpers.campaigns import case, some
from helpers.sparse_runs import (
    FIELDS,
    TOTAL,
    count_effective,
    descend,
    erk_columns,
    fields_of,
    first_masks,
    make_task,
    rows_of,
    seeds,
)

import jaxsparse
from jaxsparse import config as config_lib
from jaxsparse import distributions, masks, transforms
from jaxsparse.lottery import tickets
from jaxsparse.runner import run as run_lib
from jaxsparse.runner import task as task_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.training import preemption
from jaxsparse.training.chunk_inputs import ChunkInputs

pytestmark = pytest.mark.keys_used_once


# Methods of which training decides how many weights they keep.
UNCOUNTED = ("str", "continuous_sparsification", "proximal_l1", "srigl")
UNCOUNTED += ("dynadiag",)  # whole diagonals
LATENT = ("ste", "top_kast", "sr_ste")
LAYERS = {"layer_sparsity": (("head/*", 0.5), ("dense2/*", 30)), "sparsity": 0.8}
LAYER_COUNTS = [256, 30, 75]
# Three methods have more to prove by the run that they have anyway.
FAN_IN = {"structure": "fan_in", "sparsity": 0.8, "last_layer_dense": True}
MORE: dict[str, dict[str, Any]] = {
    "gmp": LAYERS,
    "mest": {"soft_bound": True},
    "rigl": FAN_IN | {"grow_batch_size": 60},
}
# Gradual, dynamic, dynamic with too many weights for a time, dense latent. A run of
# fixed masks is in test_tost_runs.py.
QUICK = ("gmp", "rigl", "mest", "ste")


class Ran(NamedTuple):
    """A run that has ended, and where."""

    method: str
    folder: Path
    made: Experiment


def fields_with_more(method: str) -> dict[str, Any]:
    return fields_of(method, **MORE.get(method, {}))


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Runs of methods, each trained once for all tests of this module."""

    @functools.cache
    def of(method: str) -> Ran:
        folder = tmp_path_factory.mktemp(method)
        # A run of latent weights is opened, too, which takes all its files.
        train = tiny.train if method == "ste" else tiny.run
        return Ran(method, folder, train(folder, fields_with_more(method)))

    return of


@pytest.fixture(params=some(FIELDS, always=QUICK), ids=str)
def ran(request: pytest.FixtureRequest, run_of: Callable[[str], Ran]) -> Ran:
    return run_of(request.param)


def ticket_of(folder: Path, r: int) -> Path:
    return folder / "tickets" / "level_00" / f"replicate_{r}.npz"


def test_every_method_has_a_test() -> None:
    assert FIELDS.keys() == config_lib.METHODS.keys() - {"none"}


def test_every_method_trains_to_its_exact_count(ran: Ran) -> None:
    method, folder, made = ran
    state = tiny.load(folder, "train/last", made)
    held = transforms.get_masks(state.opt_state)
    weights = transforms.forward_params(state.params, state.opt_state)
    total = masks.size(made.task.masks)
    wanted = distributions.count_kept(total, 0.8 if total < TOTAL else 0.9)
    if method == "gmp":
        wanted = sum(LAYER_COUNTS)
    if method == "rigl":
        wanted = sum(erk_columns())
    for r in range(2):
        mask = jax.tree.map(lambda leaf, r=r: leaf[r], held)
        kept = masks.num_active(mask)
        assert 0 < kept < total if method in UNCOUNTED else kept == wanted
        outside = masks.tree_map(
            lambda m, w, r=r: np.asarray(w[r])[~np.asarray(m)], mask, weights
        )
        assert not any(leaf.any() for leaf in jax.tree.leaves(outside))
        (row,) = [x for x in rows_of(folder, "level") if x["replicate"] == r]
        assert (row["kept"], row["total"]) == (kept, total)
        assert row["effective_params"] == count_effective(mask)
        assert row["layers"] == {
            name: list(count) for name, count in masks.layer_counts(mask).items()
        }
        if method in ("gmp", "rigl"):
            by_layer = LAYER_COUNTS if method == "gmp" else erk_columns()
            assert [count for count, _ in row["layers"].values()] == by_layer
        # No early stop where masks change.
        stops = int if method == "static" else type(None)
        assert isinstance(row["early_stop_step"], stops)
        last = folder / "tickets" / "final" / f"replicate_{r}.npz"
        tiny.check_equal(tickets.load(last, made.task.masks), mask)
    # Each replicate has masks of its own.
    assert any((np.asarray(leaf)[0] != leaf[1]).any() for leaf in jax.tree.leaves(held))
    if method in LATENT:
        dense = masks.tree_map(lambda _, w: np.count_nonzero(w), held, state.params)
        assert sum(jax.tree.leaves(dense)) > masks.num_active(held)
    if method == "ste":
        opened = jaxsparse.load(folder)
        tiny.check_equal(opened.params(replicate=None), weights)
        tiny.check_equal(opened.masks(replicate=None), held)


def test_changing_masks_are_counted_at_every_evaluation(ran: Ran) -> None:
    method, folder, made = ran
    rows = rows_of(folder, "mask_stats")
    if method == "static":
        assert rows == []
        return
    assert [row["step"] for row in rows] == [r["step"] for r in rows_of(folder, "eval")]
    remembers = ("set", "rigl", "srigl", "mest", "snfs", "granet", "chts", "east")
    remembers += ("neurrev",)
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


BY_OPTIMIZER = some(
    [
        *("snfs", "granet", "sr_ste", "one_shot", "set", "top_kast"),
        *("s_ste", "edge_popup", "gem_miner", "weight_sparse", "east", "neurrev"),
    ],
    always=["granet", "sr_ste", "one_shot", "set", "top_kast", "gem_miner"],
)


@pytest.mark.parametrize("method", BY_OPTIMIZER)
def test_optimizers_of_configs_come_to_exact_counts(method: str) -> None:
    """Without a network's program, for methods that have a run in campaigns only."""
    task = make_task(fields_of(method))
    params, state = descend(task)
    held, total = transforms.get_masks(state), masks.size(task.masks)
    sparsity = 0.8 if method in ("sr_ste", "s_ste") else 0.9
    assert masks.num_active(held) == distributions.count_kept(total, sparsity)
    weights = transforms.forward_params(params, state)
    outside = masks.tree_map(lambda m, w: np.asarray(w)[~np.asarray(m)], held, weights)
    assert not any(leaf.any() for leaf in jax.tree.leaves(outside))
    dense = masks.tree_map(lambda _, w: np.count_nonzero(w), held, params)
    kept = masks.num_active(held)
    assert (sum(jax.tree.leaves(dense)) > kept) == (method in LATENT)


def test_skipped_updates_of_masks_are_recorded_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the programs of the run of RigL."""
    made = tiny.experiment(tmp_path, fields_with_more("rigl"))
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
            for row in rows_of(tmp_path, "mask_stats")
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
        "numbers; records of kind 'mask_stats' go on counting (skipped_updates); try a "
        "lower config.schedule.learning_rate"
    ]


def test_a_methods_own_masks_are_kept_in_files(run_of: Callable[[str], Ran]) -> None:
    """Those that it chooses for the layers' counts, each replicate its own."""
    ran = run_of("mest")
    _, _, chosen = first_masks(fields_with_more("mest"))
    for r in range(2):
        first = tickets.load(ticket_of(ran.folder, r), ran.made.task.masks)
        tiny.check_equal(first, jax.tree.map(lambda leaf, r=r: leaf[r], chosen))


@pytest.mark.parametrize("method", some(["rigl", "static"], always=["static"]))
def test_layers_of_their_own_sparsity(method: str) -> None:
    """From the start; the run of gradual pruning comes to them at its end."""
    _, _, chosen = first_masks(fields_of(method, **LAYERS))
    for r in range(2):
        mask = jax.tree.map(lambda leaf, r=r: leaf[r], chosen)
        counts = masks.layer_counts(mask).values()
        assert [count.num_active for count in counts] == LAYER_COUNTS


def test_structures_whole_ends_and_growth_examples(
    tmp_path: Path, run_of: Callable[[str], Ran]
) -> None:
    """Two runs of one program, which differ in the examples to grow by."""
    _, own, made = run_of("rigl")
    feed = made.trainer.feed
    images, labels = feed.growth
    assert len(labels) == 60
    trainer = made.trainer._replace(
        feed=feed._replace(growth=(images, (labels + 1) % 10))
    )
    run_lib.run(made._replace(trainer=trainer), tiny.desk(tmp_path))
    ends, starts = [], []
    for folder in (own, tmp_path):
        state = tiny.load(folder, "train/last", made)
        held = transforms.get_masks(state.opt_state)
        ends.append(jax.tree.map(np.asarray, held))
        starts.append(ticket_of(folder, 0).read_bytes())
        (last, _) = rows_of(folder, "level")
        assert last["layers"]["head/kernel"] == [150, 150]
    assert starts[0] == starts[1]
    counts = [sum(leaf.sum() for leaf in jax.tree.leaves(held)) for held in ends]
    assert counts[0] == counts[1]
    pairs = zip(*map(jax.tree.leaves, ends), strict=True)
    assert any((a != b).any() for a, b in pairs)
    for layer in ("dense1", "dense2", "head"):
        fan_in = ends[0][layer]["kernel"].sum(axis=1)
        assert (fan_in == fan_in.flat[0]).all()


@pytest.mark.parametrize(
    ("method", "skips", "wanted"),
    [
        case("rigl", None, [True, True, False], always=True),
        case("rigl", False, [True, True, True], always=True),
        case("rigl", True, [True, True, False], always=False),
        case("set", None, [True, True, True], always=False),
        case("set", True, [True, True, False], always=False),
    ],
)
def test_the_step_at_a_change_may_be_left_out_or_not(
    method: str, skips: bool | None, wanted: list[bool]
) -> None:
    """Biases have no mask: only a step moves them."""
    task = make_task(fields_of(method, skip_update=skips))
    like, _ = jax.eval_shape(task.initialize, seeds().init)
    params = jax.tree.map(lambda leaf: np.full(leaf.shape[1:], 0.5, leaf.dtype), like)
    grads = jax.tree.map(lambda leaf: leaf / 5, params)
    held, moved = jax.jit(task.tx.init)(params), []

    @jax.jit
    def step(grads: Any, held: Any, params: Any, clock: Any) -> Any:
        updates, held = task.tx.update(grads, held, params, clock=clock)
        return optax.apply_updates(params, updates), held

    for clock in range(3):
        before = params["head"]["bias"]
        params, held = step(grads, held, params, np.int32(clock))
        moved.append(bool(np.any(np.asarray(params["head"]["bias"]) != before)))
    assert moved == wanted


@pytest.mark.parametrize("method", some(["snfs", "mest", "top_kast"], always=["mest"]))
def test_stopped_and_resumed_is_bit_identical(
    method: str, tmp_path: Path, run_of: Callable[[str], Ran]
) -> None:
    _, whole, made = run_of(method)  # and its programs
    with pytest.raises(preemption.Preempted):
        run_lib.run(made, tiny.desk(tmp_path, lambda: True))
    assert 0 < rows_of(tmp_path, "mask_stats")[-1]["step"] < 12
    run_lib.run(made, tiny.desk(tmp_path))
    ends = [tiny.load(path, "train/last", made) for path in (whole, tmp_path)]
    tiny.check_equal(*ends)
    for kind in ("eval", "mask_stats", "level"):
        assert rows_of(whole, kind) == rows_of(tmp_path, kind)


@pytest.mark.campaign
@pytest.mark.parametrize("method", ["rigl", "ste"])
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


@pytest.mark.parametrize("how", ["vmap", "auto"])
def test_a_change_of_masks_stays_conditional_under_replicates(
    how: str, tmp_path: Path
) -> None:
    """On the CPU, "auto" is a loop, and the program is that of the run of RigL."""
    more = {"run.replicate_mode": how} if how != "auto" else {}
    fields = fields_with_more("rigl") | more
    made = tiny.experiment(tmp_path, fields)
    feed = made.trainer.feed
    order = feed.make_order(made.seeds.data, 0)
    program = made.trainer.compiled_steps(6, 20)
    state = jax.eval_shape(
        functools.partial(task_lib.first_state, made.task), made.seeds
    )
    traced = program.args[0].trace(
        state,
        ChunkInputs(feed.images, feed.labels, order, np.int32(0), growth=feed.growth),
        made.seeds.data,
        (np.int32(6), None),
    )
    assert str(traced.jaxpr).count("= cond[") >= 1
