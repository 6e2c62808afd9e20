"""Reparameterized weights through configs: runs, lotteries, and what is refused."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.sparse_runs import SMALL, fields_of, make_task, rows_of, seeds

import jaxsparse
from jaxsparse import config as config_lib
from jaxsparse import factory, transforms
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
    task = make_task(fields_of("static") | SIGN_IN)
    weights = task.initialize(seeds().init)[0]
    one = jax.tree.map(lambda leaf: leaf[0], weights)
    found = task.tx.init(one).inner_state
    assert isinstance(found, transforms.ReparameterizedState)
    for layer in one:
        m, w = (found.trained[name][layer]["kernel"] for name in ("m", "w"))
        np.testing.assert_allclose(m**2 - w**2, 2.0, rtol=1e-5)
        np.testing.assert_allclose(m * w, one[layer]["kernel"], rtol=1e-5)


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
    "two": (
        fields_of("edge_popup", reparameterization="sign_in"),
        "config.sparse.*inner: expected .*reparameterized already",
    ),
    "a projection": (
        fields_of("proximal_l1", reparameterization="sign_in"),
        "config.sparse.*inner: expected .*reparameterized already.*`adjust`",
    ),
    "a projection of all": (
        fields_of("weight_sparse", reparameterization="sign_in"),
        "config.sparse.*inner: expected .*reparameterized already.*`adjust`",
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
