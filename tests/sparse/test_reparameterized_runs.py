"""Reparameterized weights through configs: runs, lotteries, and what is refused."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.sparse_runs import SMALL, descend, fields_of, make_task, rows_of

import jaxsparse
from jaxsparse import config as config_lib
from jaxsparse import factory, masks, transforms
from jaxsparse.reports import method_names
from jaxsparse.reports.records import RunRecords

pytestmark = pytest.mark.keys_used_once

SIGN_IN = {
    "sparse.reparameterization": "sign_in",
    "sparse.inner_scaling": 2.0,
    "sparse.rescale_every": "5step",
}


def test_every_level_of_a_lottery_trains_products(tmp_path: Path) -> None:
    made = tiny.train(tmp_path, SMALL | SIGN_IN | {"lottery.levels": 1})
    run, kept = jaxsparse.load(tmp_path), []
    for level in (0, 1):
        params = run.params(level=level, replicate=None)
        held = run.masks(level=level, replicate=None)
        pairs = zip(jax.tree.leaves(held), held, strict=True)
        for mask, layer in pairs:
            weights = np.asarray(params[layer]["kernel"])
            assert not weights[~np.asarray(mask)].any()
            assert weights[np.asarray(mask)].all()
        kept.append(sum(int(np.sum(mask)) for mask in jax.tree.leaves(held)))
        state = tiny.load(tmp_path, f"level_0{level}/ticket/last", made)
        parts = state.opt_state.inner_state.trained
        for layer in held:
            m, w = (np.asarray(parts[name][layer]["kernel"]) for name in ("m", "w"))
            np.testing.assert_allclose(
                (m * w)[np.asarray(held[layer]["kernel"])],
                np.asarray(params[layer]["kernel"])[np.asarray(held[layer]["kernel"])],
                rtol=1e-4,
                atol=1e-6,
            )
    assert kept[1] < kept[0] == 2 * 1730
    assert [row["level"] for row in rows_of(tmp_path, "level")] == [0, 0, 1, 1]


def test_fields_come_to_the_reparameterization() -> None:
    task = make_task(fields_of("static", pai_score="magnitude") | SIGN_IN)
    params, state = descend(task)
    found = state.inner_state
    assert isinstance(found, transforms.ReparameterizedState)
    start = transforms.sign_in(2.0).init(jax.numpy.zeros(()))
    np.testing.assert_allclose(start["m"], np.sqrt(2.0), rtol=1e-6)
    # Rescaled at step 10 of 12, and hardly changed since.
    for m, w in zip(*map(jax.tree.leaves, found.trained.values()), strict=False):
        if m.ndim == 2 and m.shape == w.shape:
            assert 1 < float(np.median(np.asarray(m) ** 2 - np.asarray(w) ** 2)) < 4
    assert masks.num_active(transforms.get_masks(state)) == 1730
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def records_of(fields: dict[str, Any]) -> RunRecords:
    config = tiny.config(fields).to_dict()
    return RunRecords("run", config, environment={}, records=[])


def test_the_label_names_it() -> None:
    name = method_names.of_run(records_of(fields_of("static") | SIGN_IN))
    assert name.startswith("random (ERK) + Sign-In, ")


WRONG = {
    "unknown": (
        {"sparse.reparameterization": "sign_inn"},
        "sparse.reparameterization: expected .*'sign_inn'; did you mean sign_in",
    ),
    "grows": (
        fields_of("rigl", reparameterization="powerpropagation"),
        "sparse.reparameterization: expected one under which .*'rigl' grows weights",
    ),
    "unused": (
        {"sparse.weight_power": 3.0},
        "sparse.weight_power: expected 2.0 .*belongs to sparse.reparameterization pow",
    ),
    "rescaling": (
        SIGN_IN | {"sparse.rescale_every": "0step"},
        "sparse.rescale_every: .*",
    ),
}


@pytest.mark.parametrize(("fields", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_fields_are_refused(fields: dict[str, Any], words: str) -> None:
    c = tiny.config(SMALL | fields)
    with pytest.raises(ValueError, match=words):
        config_lib.validate(c)
        factory.check_names(c)
        make_task(SMALL | fields)
