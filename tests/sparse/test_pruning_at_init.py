"""Masks that configs have chosen on the initial weights, before any training.

All of them are of the same weights. Only networks are made, but for two whole starts.
"""

import functools
import math
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.sparse_runs import SHAPES, TOTAL, erk, fields_of, first_masks, seeds

from jaxsparse import config as config_lib
from jaxsparse import distributions, masks, select, transforms
from jaxsparse.runner.masks import level_masks
from jaxsparse.runner.saved_states import SavedStates

LAYERS = ("dense1", "dense2", "head")
ON_DATA = {"score_batches": 2, "score_batch_size": 30}


def one(tree: Any, r: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[r], tree)


def flat(tree: Any, r: int) -> np.ndarray:
    """All kernels of a replicate in one row."""
    leaves = [np.asarray(tree[name]["kernel"][r]).ravel() for name in LAYERS]
    return np.concatenate(leaves)


@functools.cache
def of_score(score: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Weights, and masks by a score, chosen once for all tests."""
    distribution = "erk" if score in ("snip", "random") else None
    fields = fields_of("static", pai_score=score, distribution=distribution)
    if config_lib.SCORES[score].needs_data:
        fields |= {f"sparse.{name}": value for name, value in ON_DATA.items()}
    if score == "synflow":  # at once, it takes whole layers away
        fields |= {"sparse.score_iterations": 20}
    _, params, chosen = first_masks(fields | {"model.dtype": dtype})
    return params, chosen


@pytest.mark.parametrize("score", config_lib.SCORES)
def test_masks_of_every_score(score: str) -> None:
    params, chosen = of_score(score)
    for r in range(2):
        mask = one(chosen, r)
        assert masks.num_active(mask) == 173
        if score in ("snip", "random"):
            erk = distributions.erdos_renyi_kernel(mask, 0.9)
            layers = masks.layer_counts(mask).values()
            assert [count.num_active for count in layers] == jax.tree.leaves(erk)
        if score == "magnitude":  # of each replicate's own weights
            worth = np.abs(flat(params, r))
            assert worth[flat(chosen, r)].min() >= np.sort(worth)[-173]
    assert np.any(flat(chosen, 0) != flat(chosen, 1))


def test_distributions_of_configs_are_their_formulas() -> None:
    """Of 173 weights: 100.9, 42.05 and 30.03, or a tenth of each layer."""
    for name, wanted in (
        ("erk", [round(count) for count in erk(173, SHAPES)]),
        ("uniform", [math.prod(shape) // 10 for shape in SHAPES]),
    ):
        _, _, chosen = first_masks(fields_of("rigl", distribution=name))
        for r in range(2):
            counts = masks.layer_counts(one(chosen, r)).values()
            assert [count.num_active for count in counts] == wanted


def test_masks_are_the_same_again(tmp_path: Path) -> None:
    """By a whole start, which keeps them in files."""
    fields = fields_of("static", pai_score="snip", distribution="erk", **ON_DATA)
    made = tiny.experiment(tmp_path, fields)
    chosen = level_masks(SavedStates(made, tiny.desk(tmp_path)), 0)
    tiny.check_equal(chosen, of_score("snip")[1])
    again = level_masks(SavedStates(made, tiny.desk(tmp_path)), 0)
    tiny.check_equal(jax.tree.map(np.asarray, again), jax.tree.map(np.asarray, chosen))


def test_bfloat16_networks_are_scored_precisely() -> None:
    tiny.check_equal(of_score("synflow", "bfloat16")[1], of_score("synflow")[1])


@pytest.mark.parametrize("score", ["snip", "synflow"])
def test_scores_that_say_nothing_are_not_taken_in_silence(
    score: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields = fields_of("static", pai_score=score, sparsity=0.99)
    fields |= {"init.zero_init": ("head/kernel",)}
    if score == "snip":
        fields |= {f"sparse.{name}": value for name, value in ON_DATA.items()}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if score == "snip":
            made = tiny.experiment(tmp_path, fields)
            chosen = level_masks(SavedStates(made, tiny.desk(tmp_path)), 0)
            assert "in replicates [0, 1] no weight is on a path" in caplog.text
            huge = jax.tree.map(
                lambda leaf: jax.device_put(np.full(leaf.shape, 1e30, leaf.dtype)),
                jax.eval_shape(made.task.initialize, seeds().init)[0],
            )
            refused = r"^config.sparse.*NaN.*'dense1/kernel'"
            with pytest.raises(ValueError, match=refused):
                made.task.first_masks(huge, {}, seeds())
        else:  # is rescaled, so that nothing is too large
            _, _, chosen = first_masks(fields)
    ties = [w for w in said if w.category is select.TiedScoresWarning]
    assert ties and "'all layers': '100.0%'" in str(ties[0].message)
    # 17 of 1,730 weights, by their positions: they do not meet.
    assert masks.num_active(one(chosen, 0)) == 17


def test_iterations_and_regrowth() -> None:
    found = []
    for regrow in (False, True):
        fields = fields_of(
            "static",
            pai_score="snip",
            score_iterations=5,
            score_batches=1,
            score_batch_size=40,
            regrow=regrow,
        )
        _, _, chosen = first_masks(fields)
        found.append(chosen)
        assert masks.num_active(chosen) == 2 * 173
    assert any(np.any(flat(found[0], r) != flat(found[1], r)) for r in range(2))


@pytest.mark.parametrize("ablation", ["shuffled_layers", "inverted"])
def test_ablations_of_masks_keep_the_weights(ablation: str) -> None:
    params, plain = of_score("magnitude")
    fields = fields_of("static", pai_score="magnitude", ablation=ablation)
    task, _, found = first_masks(fields)
    assert not task.start.fresh_weights
    for a, b in zip(*map(jax.tree.leaves, (found, plain)), strict=True):
        np.testing.assert_array_equal(np.sum(a, (1, 2)), np.sum(b, (1, 2)))
    assert any(np.any(flat(found, r) != flat(plain, r)) for r in range(2))
    if ablation == "inverted":
        worth = np.abs(np.asarray(params["dense1"]["kernel"]))
        mask = np.asarray(found["dense1"]["kernel"])
        for r in range(2):
            assert worth[r][mask[r]].max() <= worth[r][~mask[r]].min()


def test_fresh_weights_keep_the_masks(tmp_path: Path) -> None:
    """By a whole start: what is trained are other weights than were scored."""
    fields = fields_of("static", pai_score="magnitude", ablation="reinitialized")
    made = tiny.experiment(tmp_path, fields)
    session = SavedStates(made, tiny.desk(tmp_path))
    (stage,) = tiny.stages(made)
    state = tiny.start(session, stage)
    params, plain = of_score("magnitude")
    held = transforms.get_masks(state.opt_state)
    for r in range(2):
        mask = flat(held, r)
        np.testing.assert_array_equal(mask, flat(plain, r))
        np.testing.assert_array_equal(flat(session.init.params, r), flat(params, r))
        kept = flat(state.params, r)
        assert not np.any(kept[~mask])
        assert np.all(kept[mask] != flat(params, r)[mask])


def test_dead_weights_are_removed_on_request() -> None:
    fields = fields_of(
        "static",
        pai_score="magnitude",
        ablation="shuffled_layers",
        prune_disconnected=True,
        sparsity=0.98,
    )
    task, _, held = first_masks(fields)
    assert task.count_effective is not None
    for r in range(2):
        mask = one(held, r)
        active = masks.num_active(mask)
        assert (
            active == task.count_effective(mask) < distributions.count_kept(TOTAL, 0.98)
        )


def test_ends_kept_whole_are_found_in_the_order_of_the_network() -> None:
    fields = fields_of("static", first_layer_dense=True, sparsity=0.2)
    _, _, first = first_masks(fields)
    count = masks.layer_counts(one(first, 0))["dense1/kernel"]
    assert count.num_active == count.size
