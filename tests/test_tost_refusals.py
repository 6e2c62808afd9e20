"""Configs of ToST's techniques that are refused before anything is compiled."""

from pathlib import Path
from typing import Any

import pytest
from helpers import tiny

from jaxsparse import config as config_lib
from jaxsparse import factory

GHOSTS = {"tost.activation": "mish", "tost.skips": "convolution"}


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
