"""Fields of sparse training that are wrong or do not fit, refused before training."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.sparse_runs import SMALL, fields_of, load_data

from jaxsparse import config as config_lib
from jaxsparse import factory
from jaxsparse.factory import durations, input_data

WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"sparse.method": "rigll"},
        "sparse.method: expected .*'rigll'; did you mean rigl",
    ),
    (
        {"sparse.sparsity": 0.5},
        "sparse.sparsity: expected 0.9 with sparse.method 'none', got 0.5; the field "
        "belongs to sparse.method static, gmp, .*; .* lottery tickets have",
    ),
    (
        fields_of("set", grow="random"),
        "sparse.grow: expected 'gradient' with sparse.method 'set', got 'random'; the "
        "field belongs to sparse.method rigl, neurrev, east; choose one of these, or "
        "leave the field",
    ),
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
        "config.sparse.structure: expected a form .*got '4'",
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


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_bad_fields_are_named(fields: dict[str, Any], message: str) -> None:
    c = tiny.config({"lottery.levels": 0} | fields)
    with pytest.raises(ValueError, match=message):
        config_lib.validate(c)
        factory.check_names(c)


NAMED = {
    "step: expected 1": "config.sparse.begin_step: expected 1",
    "end_step: expected 1": "config.sparse.end_step: expected 1",
    "own: expected 1": "config.sparse: own: expected 1",
    "config.sparse.own 'a': expected 1": "config.sparse.own 'a': expected 1",
}


@pytest.mark.parametrize(("raised", "named"), NAMED.items())
def test_errors_of_arguments_name_their_fields(raised: str, named: str) -> None:
    with (
        pytest.raises(ValueError, match=f"^{named}$"),
        durations.config_context("sparse", {"step": "begin_step"}),
    ):
        raise ValueError(raised)


MISFITS: list[tuple[dict[str, Any], str]] = [
    (fields_of("rigl", end_step=None), "config.sparse.end_step: expected .*got None"),
    (fields_of("rigl", dense=("tail/*",)), "config.sparse.dense: expected patterns"),
    (fields_of("rigl", structure="blocks 7x7"), "config.sparse: .*dense1/kernel"),
    (
        fields_of("rigl", prunable=("tail",)),
        "config.sparse.prunable: expected patterns",
    ),
    (fields_of("gmp", end_step="1step"), "config.sparse.end_step: expected .*got 1"),
    (
        fields_of("gmp", end_step="100%"),
        "sparse.end_step: expected a step below 12, .*got '100%', which is step 12",
    ),
    (
        fields_of("continuous_sparsification", end_step="13step"),
        "sparse.end_step: expected a step below 13, .*got '13step', which is step 13",
    ),
    (fields_of("ac_dc", end_step="900step"), "sparse.end_step: .*got '900step'"),
    (fields_of("one_shot", begin_step="100%"), "sparse.begin_step: .*got '100%'"),
    (
        fields_of("rigl", begin_step=None, update_every="50%", end_step="10%"),
        "^config.sparse.end_step: expected .* with update_every=6 and no begin_step",
    ),
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
    (
        fields_of("static", pai_score="snip"),
        "score_batches: expected at most the 120 .* 10 batches of 128",
    ),
]


@pytest.mark.parametrize(("fields", "message"), MISFITS)
def test_what_does_not_fit_is_refused_before_training(
    fields: dict[str, Any], message: str
) -> None:
    """Without a trainer: what is refused compiles nothing."""
    c = tiny.config(fields)
    with pytest.raises(ValueError, match=message):
        config_lib.validate(c)
        factory.check_names(c)
        factory.make_experiment(c, load_data(), Path())


def test_images_are_normalized_as_the_config_says() -> None:
    dataset = load_data()
    images = dataset.train.images
    found = {}
    for how in ("scale", "standardize"):
        c = tiny.config(SMALL | {"data.normalize": how})
        found[how] = np.asarray(jax.jit(input_data.make_normalize(c, dataset))(images))
    np.testing.assert_allclose(found["scale"], images / 255, rtol=1e-6)
    assert abs(float(found["standardize"].mean())) < 0.1 < float(found["scale"].mean())
