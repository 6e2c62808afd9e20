"""Command-line flags set config fields, and set them back to None."""

import json
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from jaxsparse import config


@pytest.fixture(autouse=True)
def none_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the parsers for one test only."""
    library = config_flags.config_flags
    parsers = dict(library._FIELD_TYPE_TO_PARSER)
    monkeypatch.setattr(library, "_FIELD_TYPE_TO_PARSER", parsers)
    config.allow_none()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--config.sparse.distribution=None", None),
        ("--config.sparse.drop_fraction=None", None),
        ("--config.sparse.drop_fraction=1", 1.0),
        ("--config.warm_start.replicate=None", None),
        ("--config.warm_start.replicate=2", 2),
        ("--config.model.features=None", None),
        ("--config.model.features=(300, 100)", (300, 100)),
        ("--config.sparse.prunable=*kernel", ("*kernel",)),
        ("--config.sparse.skip_update=None", None),
        ("--config.sparse.skip_update", True),
        ("--noconfig.run.scan", False),
        ("--config.run.checkpoint_every=None", None),
        ("--config.run.checkpoint_every=5step", "5step"),
        ("--config.lottery.score=random", "random"),
    ],
)
def test_a_flag_sets_a_field_and_sets_it_back(
    flag: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["program", flag]
    monkeypatch.setattr(sys, "argv", argv)  # where the library looks for fields
    changed = config.default()
    changed.sparse.distribution, changed.sparse.drop_fraction = "er", 0.5
    changed.warm_start.replicate, changed.model.features = 1, (8, 8)
    changed.sparse.skip_update = False
    changed.run.checkpoint_every = None  # as many recipes do
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_dict("config", changed, flag_values=values)
    values(argv)
    section, field = flag.split("=")[0].split(".")[1:]
    assert holder.value[section][field] == value
    config.validate(holder.value)
    read = config.from_json(json.loads(holder.value.to_json()))
    assert read[section][field] == value


def test_a_field_that_needs_a_value_has_no_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    argv = ["program", "--config.data.batch_size=None"]
    monkeypatch.setattr(sys, "argv", argv)
    values = flags.FlagValues()
    plain = config.default()
    holder = config_flags.DEFINE_config_dict("config", plain, flag_values=values)
    values(argv)
    with pytest.raises(ValueError, match=r"^config\.data\.batch_size: expected "):
        config.validate(holder.value)
