"""Recipes of tickets on a data diet: published settings, and what presets share."""

import importlib
import os

import numpy as np
import pytest

from jaxsparse import config, factory


def recipe(file: str, preset: str = "") -> tuple[object, factory.Durations, int]:
    """Returns a recipe, its lengths in updates, and its updates an epoch."""
    c = importlib.import_module(f"configs.{file}").get_config(preset)
    config.validate(c)
    factory.check_names(c)
    total = {"diet_cifar100": 50_000, "diet_cinic10": 180_000}[file]
    batches = total / c.data.batch_size
    an_epoch = int(batches if c.data.drop_last else np.ceil(batches))
    return c, factory.make_durations(c, steps_per_epoch=an_epoch), an_epoch


def test_recipes_are_as_published() -> None:
    c, length, an_epoch = recipe("diet_cifar100")
    assert an_epoch == 391
    assert length.total == 62_560
    assert length.schedule.milestones == (31_280, 46_920)
    assert (c.lottery.levels, c.replicates, length.lottery.rewind) == (20, 4, 400)
    assert (c.model.name, c.pretraining.size, c.pretraining.balanced) == (
        "resnet_32",
        3200,
        True,
    )
    c, length, an_epoch = recipe("diet_cinic10")
    assert an_epoch == 703
    assert length.total == 31_250
    assert length.schedule.milestones == (15_625, 23_440)
    assert (c.lottery.levels, c.replicates, length.lottery.rewind) == (16, 4, 400)
    assert (c.model.name, c.pretraining.size, c.pretraining.balanced) == (
        "resnet_56",
        25_600,
        False,
    )


@pytest.mark.parametrize("file", ["diet_cifar100", "diet_cinic10"])
def test_presets_differ_in_what_they_say(file: str) -> None:
    main, quick, scores, everything = (
        recipe(file, preset)[0] for preset in ("", "quick", "scores", "all")
    )
    plain = config.default().pretraining.to_dict()
    assert everything.pretraining.to_dict() == scores.pretraining.to_dict() == plain
    differing = {name for name, _, _ in config.differences(main, everything)}
    assert all(name.startswith("pretraining.") for name in differing - {"name"})
    assert (quick.pretraining.subset, quick.pretraining.scores) == ("random", None)
    assert (quick.model.width, quick.lottery.levels) == (4, 1)
    # The rate of the scored networks is the one before the first milestone.
    assert scores.schedule.name == "constant"
    assert scores.schedule.learning_rate == main.schedule.learning_rate
    _, length, _ = recipe(file, "scores")
    assert length.total < recipe(file)[1].schedule.milestones[0]
    assert scores.lottery.levels == 0
    module = importlib.import_module(f"configs.{file}")
    # Named from the folder of a run, which is in runs/.
    path = os.path.normpath(f"runs/{file}/{main.pretraining.scores}")
    assert f"--out={path}" in module.__doc__
    assert f"configs/{file}.py:scores" in module.__doc__
