"""SWAMP: particles of one mask, their averages, and soups of them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import tiny

import jaxsparse
from experiments.studies.methods import measure
from experiments.studies.run_reader import Reader
from experiments.studies.runs import Run
from jaxsparse import config as config_lib
from jaxsparse import masks, transforms
from jaxsparse.analysis import soups
from jaxsparse.factory import input_data
from jaxsparse.lottery import imp, particles, plan, tickets
from jaxsparse.stages import end_name
from jaxsparse.training import state as state_lib

pytestmark = pytest.mark.keys_used_once

GROUPS = {
    "replicates": 4,
    "lottery.particles": 2,
    "lottery.levels": 1,
    "lottery.controls": ("random_signs",),
    "lottery.retrain": "learning_rate_rewind",
    "lottery.rewind": "2step",
}


def test_groups_share_keys_of_weights_and_masks_only() -> None:
    made = state_lib.make_seeds(init=1, data=2, masks=3, replicates=6, particles=3)
    alone = state_lib.make_seeds(init=1, data=2, masks=3, replicates=6)
    for name, groups in (("init", 3), ("masks", 3), ("data", 1)):
        found, plain = (
            np.asarray(jax.random.key_data(getattr(seeds, name)))
            for seeds in (made, alone)
        )
        np.testing.assert_array_equal(found, plain[np.arange(6) // groups])


def test_groups_do_not_depend_on_how_replicates_are_divided_among_runs() -> None:
    seeds = {"init": 1, "data": 2, "masks": 3, "particles": 2}
    whole = state_lib.make_seeds(**seeds, replicates=8)
    parts = [
        state_lib.make_seeds(**seeds, replicates=count, first=first)
        for first, count in ((0, 2), (2, 4), (6, 2))
    ]
    for keys, *pieces in zip(whole, *parts, strict=True):
        found = np.concatenate([jax.random.key_data(p) for p in pieces])
        np.testing.assert_array_equal(found, jax.random.key_data(keys))
    with pytest.raises(ValueError, match="first: expected a multiple of particles 2"):
        state_lib.make_seeds(**seeds, replicates=2, first=3)


def test_levels_prune_and_start_from_the_mean_of_a_group(tmp_path: Path) -> None:
    made = tiny.train(tmp_path, GROUPS)
    dense, level = (stage for stage in tiny.stages(made) if stage.variant == "ticket")
    end = tiny.load(tmp_path, end_name(dense), made)
    rewound = tiny.load(tmp_path, end_name(plan.pretraining(made.plan)), made).params
    for leaf in jax.tree.leaves(rewound["dense1"]):  # one network in each group
        assert np.array_equal(leaf[0], leaf[1]) and np.array_equal(leaf[2], leaf[3])
    assert not np.array_equal(*rewound["dense1"]["kernel"][1:3])
    means = particles.average(end.params, particles=2)
    for name, leaf in means["dense1"].items():
        first = np.asarray(end.params["dense1"][name], np.float64)
        np.testing.assert_allclose(
            leaf[0], first[:2].mean(axis=0), rtol=1e-5, atol=1e-7
        )
        assert np.array_equal(leaf[0], leaf[1]) and not np.array_equal(leaf[0], leaf[2])
        assert not np.array_equal(first[0], first[1])  # other orders of the examples
    chosen = tickets.load_level(tmp_path / "tickets", 1, made.task.masks, replicates=4)
    ones = jax.tree.map(lambda leaf: jnp.ones((4, *leaf.shape), bool), made.task.masks)
    wanted = imp.prune(
        means, ones, level=1, rule=made.plan.rule, keys=made.seeds.masks, scores=None
    )
    tiny.check_equal(chosen, wanted)
    opened = jaxsparse.load(tmp_path)
    start = opened.start_params(1, None)
    tiny.check_equal(start, masks.apply(chosen, means))
    turned = opened.start_params(1, None, variant="random_signs")
    for name in ("dense1", "dense2"):
        there, was = turned[name]["kernel"], start[name]["kernel"]
        np.testing.assert_array_equal(abs(there), abs(was))
        assert 0.4 < np.mean((there == was)[np.asarray(was) != 0]) < 0.6
    # The particles that were trained from there make a soup.
    last = tiny.load(tmp_path, end_name(level), made)
    group = jax.tree.map(lambda leaf: leaf[:2], (last.params, chosen))
    soup = soups.average(*group)
    kernels = np.asarray(last.params["dense1"]["kernel"], np.float64)[:2]
    np.testing.assert_allclose(
        soup["dense1"]["kernel"], kernels.mean(axis=0), rtol=1e-5, atol=1e-7
    )
    # The study of methods tests the soup of each group.
    reader = Reader(Run(tmp_path.name, "", {}), tmp_path.parent, "")
    test = reader.run.dataset.test
    inputs = input_data.make_task(reader.run.config, reader.run.dataset).inputs(
        jnp.asarray(test.images)
    )
    wanted = []
    for first in (0, 2):
        both = jax.tree.map(
            lambda leaf, i=first: leaf[i : i + 2], (last.params, chosen)
        )
        variables = {"params": soups.average(*both)}
        logits = opened.model().apply(variables, inputs, train=False)
        right = np.argmax(np.asarray(logits), axis=-1) == test.labels
        wanted.append(100 * float(np.mean(right)))
    assert measure.of_soups(reader, 2) == pytest.approx(wanted)
    outside = ~np.asarray(chosen["dense1"]["kernel"][0])
    assert not np.asarray(soup["dense1"]["kernel"])[outside].any()
    assert transforms.get_masks(last.opt_state)["dense1"]["kernel"].shape[0] == 4
    shifted = jax.tree.map(lambda leaf: leaf + 1, group[0])
    soup = soups.average(shifted, group[1])
    np.testing.assert_array_equal(
        np.asarray(soup["dense1"]["kernel"] != 0) & outside, False
    )
    with pytest.raises(ValueError, match="masks: dense1/kernel: expected one mask"):
        soups.average(last.params, chosen)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x: Any, *, momentum: float = 0.9) -> Any:
        for width in (4, 3):
            x = nn.Dense(width)(x)
            x = nn.BatchNorm(use_running_average=False, momentum=momentum)(x)
            x = nn.relu(x)
        return x


def test_statistics_of_batch_norm_are_means_over_batches() -> None:
    batches = jnp.asarray(np.random.default_rng(0).normal(size=(5, 16, 6)), jnp.float32)
    variables = Normed().init(jax.random.key(0), batches[0])

    def update(stats: Any, batch: Any, momentum: float = 0.9) -> Any:
        state = {"params": variables["params"], "batch_stats": stats}
        changed = Normed().apply(
            state, batch, momentum=momentum, mutable=["batch_stats"]
        )
        return changed[1]["batch_stats"]

    stats = variables["batch_stats"]
    found = jax.jit(lambda b: soups.batch_statistics(update, stats, b))(batches)
    # Without momentum, the new statistics are those of the batch.
    each = [update(stats, batch, 0.0) for batch in batches]
    wanted = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *each)
    for got, mean in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, mean, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("momentum", "error"), [(0.0, 1e-6), (0.9, 1e-5), (0.999, 1e-3)]
)
def test_statistics_of_any_size_are_found(momentum: float, error: float) -> None:
    batches = jnp.array([[0.0, 1e-6, -1.0, 1e4, 1e6]] * 2, jnp.float32)
    batches = batches.at[1].multiply(3)

    def update(mean: Any, batch: Any) -> Any:
        return momentum * mean + (1 - momentum) * batch

    found = soups.batch_statistics(update, jnp.full(5, 7.0), batches)
    wanted = np.asarray(batches, np.float64).mean(axis=0)
    np.testing.assert_allclose(found, wanted, rtol=error)
    with pytest.raises(
        ValueError, match="batches: expected leaves with the same first"
    ):
        soups.batch_statistics(update, jnp.zeros(5), batches[:0])


@pytest.mark.parametrize(
    "fields",
    [
        {"replicates": 3},
        {"lottery.levels": 0},
        {"lottery.dense_run": "dense"},
        {"seeds.first": 1},
    ],
    ids=str,
)
def test_particles_that_make_no_groups_are_refused(fields: dict[str, Any]) -> None:
    c = tiny.config({"replicates": 4, "lottery.particles": 2} | fields)
    with pytest.raises(ValueError, match=r"config\.lottery\.particles: expected"):
        config_lib.validate(c)


def test_a_particle_may_not_fail_and_leave_the_others_to_go_on() -> None:
    """Its weights would be part of the mean of its group."""
    fields = {"replicates": 4, "lottery.particles": 2, "run.on_nonfinite": "continue"}
    with pytest.raises(ValueError, match=r"config\.run\.on_nonfinite: expected 'stop'"):
        config_lib.validate(tiny.config(fields))
    config_lib.validate(tiny.config(fields | {"lottery.particles": 1}))
