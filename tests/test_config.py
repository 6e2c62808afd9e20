"""What a config may hold, and the message that each mistake gives."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from ml_collections import ConfigDict

from jaxsparse import config, factory
from jaxsparse.factory import experiment, size_checks
from jaxsparse.runner import level_summary
from jaxsparse.training import mesh

COMPILED = "/jax/core/compile/backend_compile_duration"

# Field, value, and how the message goes on after the name of the field. All are found
# by `validate`.
WRONG_FIELDS = [
    ("replicates", 0, "expected an integer from 1 to 2**20, got 0"),
    ("replicates", "3", "expected an integer from 1 to 2**20, got '3'"),
    ("replicates", True, "expected an integer from 1 to 2**20, got True"),
    ("replicates", None, "expected an integer from 1 to 2**20, got None"),
    ("name", "", "expected a name in one line, without slashes, got ''"),
    ("name", "a/b", "expected a name in one line, without slashes, got 'a/b'"),
    ("seeds", 3, "expected a section with the fields ['data', 'first', 'init', 'm"),
    ("seeds.init", -1, "expected an integer from 0 to 2**32 - 1, got -1"),
    ("seeds.data", 2**32, "expected an integer from 0 to 2**32 - 1, got 4294967296"),
    ("seeds.masks", 0.5, "expected an integer from 0 to 2**32 - 1, got 0.5"),
    ("data.batch_size", 0, "expected an integer from 1 to 2**24, got 0"),
    ("data.batch_size", 1.5, "expected an integer from 1 to 2**24, got 1.5"),
    ("data.validation", -1, "expected an integer from 0 to 2**31 - 1, got -1"),
    ("data.crop_pad", -4, "expected an integer from 0 to 4096, got -4"),
    ("data.flip", 1, "expected True or False, got 1"),
    ("data.reshuffle_each_level", "fresh", "expected True or False, got 'fresh'"),
    ("model.width", 0, "expected an integer from 1 to 65536, got 0"),
    ("model.dtype", "float16", "expected one of float32, bfloat16, got 'float16'"),
    ("optimizer.momentum", 1.0, "expected a number from 0 to below 1, got 1.0"),
    ("optimizer.b1", -0.1, "expected a number from 0 to below 1, got -0.1"),
    ("optimizer.eps", 0.0, "expected a number from 1e-30 to 1, got 0.0"),
    ("optimizer.weight_decay", float("nan"), "expected a number from 0 to 100, got na"),
    ("optimizer.weight_decay_mask", "biases", "expected one of all, kernels, got 'bia"),
    ("schedule.name", "linear", "expected one of constant, step, cosine, got 'linear'"),
    ("schedule.learning_rate", 0.0, "expected a number from 1e-12 to 1e+06, got 0.0"),
    ("schedule.learning_rate", float("inf"), "expected a number from 1e-12 to 1e+06, "),
    ("schedule.gamma", 0.0, "expected a number from 1e-12 to 1, got 0.0"),
    ("schedule.milestones", (80,), "expected a tuple of durations of at most 100% or "),
    ("schedule.milestones", "80ep", "expected a tuple of durations of at most 100% or"),
    ("training.duration", 3, "expected a duration in steps or epochs, such as '500ste"),
    ("training.label_smoothing", 1.0, "expected a number from 0 to below 1, got 1.0"),
    ("training.duration", "2 epochs", "expected a duration in steps or epochs, such a"),
    ("training.duration", "", "expected a duration in steps or epochs, such as '500st"),
    ("training.duration", "10%", "expected a duration in steps or epochs, such as '50"),
    (
        "training.duration",
        "100000000000step",
        "expected a duration in steps or epochs, such as '500step' or '2ep', of at "
        "most 2**31 steps, got '100000000000step'",
    ),
    ("schedule.warmup", "-5step", "expected a duration of at most 100% or 2**31 steps"),
    ("schedule.milestones", ("8",), "expected a tuple of durations of at most 100% or"),
    ("lottery.rewind", "one", "expected a duration of at most 100% or 2**31 steps: "),
    ("lottery.finetune_length", "5", "expected a duration of at most 100% or 2**31 st"),
    ("evaluation.every", "", "expected a duration of at most 100% or 2**31 steps: "),
    ("run.checkpoint_every", "1h", "expected a duration of at most 100% or 2**31 step"),
    ("lottery.levels", -1, "expected an integer from 0 to 1000, got -1"),
    ("lottery.fraction", 1.0, "expected a number between 0 and 1, got 1.0"),
    ("lottery.fraction", 0.0, "expected a number between 0 and 1, got 0.0"),
    ("lottery.count_rule", "ceil", "expected one of exact, open_lth, got 'ceil'"),
    ("lottery.scope", "local", "expected one of global, layer, got 'local'"),
    ("lottery.retrain", "rewin", "expected one of rewind, learning_rate_rewind, fine"),
    ("lottery.exclude", (3,), "expected a tuple of shell patterns, such as ('head/ker"),
    (
        "lottery.layer_fractions",
        (("head/kernel", 1.0),),
        "expected pairs of a pattern and a fraction from 0 to below 1, such as",
    ),
    ("lottery.control_levels", (0,), "expected a tuple of integers from 1 to 1000, "),
    ("run.parallelism", "mesh", "expected one of jit, pmap, got 'mesh'"),
    ("run.devices", -1, "expected an integer from 0 to 2**20, got -1"),
    ("run.steps_per_call", 0, "expected an integer from 1 to 1000000, got 0"),
    ("sparse.skip_update", "yes", "expected True or False, or None, got 'yes'"),
    ("run.scan", "fast", "expected True or False, or None, got 'fast'"),
    ("run.keep_checkpoints", "some", "expected one of all, needed, got 'some'"),
]

SCALED = {"optimizer.name": "adam", "optimizer.momentum": 0.0}
SCALED |= {"optimizer.scale_by_density": True}

# Fields that are wrong together.
IMPOSSIBLE = [
    (
        {"lottery.layer_fractions": (("*", 0.1),)},
        "lottery.layer_fractions: expected () with lottery.scope 'global', got",
    ),
    (
        {"lottery.count_rule": "open_lth", "lottery.scope": "layer"},
        "lottery.count_rule: expected 'exact' with lottery.scope 'layer'",
    ),
    (
        {"lottery.count_rule": "open_lth", "lottery.one_shot": True},
        "lottery.count_rule: expected 'exact' with lottery.scope 'global' and lottery.",
    ),
    (
        {"lottery.control_levels": (1, 3)},
        "lottery.control_levels: expected levels up to lottery.levels, 2, got [3]",
    ),
    (
        {"schedule.name": "cosine"},
        "schedule.milestones: expected () without schedule.name 'step', got ('8step',)",
    ),
    (
        {
            "schedule.name": "cosine",
            "schedule.milestones": (),
            "lottery.retrain": "finetune",
        },
        "lottery.retrain: expected 'rewind' or 'learning_rate_rewind' with schedule.na",
    ),
    (
        {"optimizer.name": "adam"},
        "optimizer.momentum: expected 0.0 without optimizer.name 'sgd', got 0.9; set",
    ),
    (
        {"optimizer.momentum": 0.0, "optimizer.nesterov": True},
        "optimizer.nesterov: expected False with optimizer.momentum 0.0, got True",
    ),
    (
        {"optimizer.scale_by_density": True},
        "optimizer.scale_by_density: expected False without optimizer.name 'adam' or ",
    ),
    (
        SCALED | {"lottery.levels": 0},
        "optimizer.scale_by_density: expected False with lottery.levels 0 and sparse.m",
    ),
]

# Found by `factory.check_names`.
WRONG_NAMES = [
    ("model.name", "resnet20", "a known name, got 'resnet20'; did you mean resnet_20"),
    ("model.name", "x", "a known name, got 'x'; did you mean one of lenet_300_100, le"),
    ("optimizer.name", "adamW", "one of sgd, adam, adamw, got 'adamW'; did you mean a"),
    ("init.kernel", "kaiming", "one of kaiming_normal, kaiming_uniform, glorot_normal"),
    ("init.bias", "zero", "one of zeros, torch_default, got 'zero'; did you mean zero"),
    ("init.norm_scale", "one", "one of ones, uniform, got 'one'; did you mean ones"),
    ("lottery.controls", ("reinitialised",), "one of reinitialized, shuffled_layers, "),
    ("evaluation.every", "0step", "at least 1 step, got '0step'"),
]

# Found while building, when the data is known. Messages begin "config." here too.
WRONG_BUILDS = [
    (
        {"data.validation": 1437},
        "data.validation: expected 0 to 1436 of 1437 training examples, got 1437",
    ),
    (
        {"data.train_examples": 5000},
        "data.train_examples: expected 1 to 1397, the number of examples, got 5000",
    ),
    (
        {"data.test_examples": 361},
        "data.test_examples: expected 1 to 360, the number of examples, got 361",
    ),
    (
        {"data.batch_size": 500, "data.drop_last": True},
        "data.batch_size: expected at most 120, the number of examples, with drop_last",
    ),
    ({"data.batch_size": 121}, "data.batch_size: expected at most the 120 training "),
    ({"data.crop_pad": 9}, "data.crop_pad: expected at most the 8 pixels of a side of"),
    ({"lottery.levels": 200}, "lottery.levels: expected a last level that keeps"),
    (
        {"training.duration": "2000000000ep"},
        "training.duration: expected at most 2147483647 ste",
    ),
    (
        {"training.duration": "2000000000step", "evaluation.every": "1step"},
        "evaluation.every: expected at most 10000000 times in training, got every 1 ",
    ),
    (
        {"sparse.method": "static", "sparse.sparsity": 0.999995, "lottery.levels": 0},
        "sparse.sparsity: expected one weight or more for each of 3 layers",
    ),
    (
        {"sparse.method": "static", "sparse.sparsity": 0.999995, "lottery.levels": 0}
        | {"sparse.distribution": "global"},
        "sparse.sparsity: expected at most 0.99998, which keeps 1 of the network's 502",
    ),
    (
        {"sparse.method": "static", "sparse.pai_score": "snip", "lottery.levels": 0}
        | {"sparse.score_batches": 7, "sparse.score_batch_size": 20},
        "sparse.score_batches: expected at most the 120 training examples in all batch",
    ),
    (
        SCALED | {"lottery.levels": 0, "sparse.method": "ste"},
        "optimizer.scale_by_density: expected False with sparse.method 'ste' and ",
    ),
    ({"run.trace": ("5step", "3step")}, "run.trace: expected the second time after t"),
    ({"run.trace": ("1ep", "6step")}, "run.trace: expected the second time after the"),
    ({"lottery.rewind": "12step"}, "lottery.rewind: expected a step in [0, 12)"),
    ({"lottery.rewind": "3ep"}, "lottery.rewind: expected a step in [0, 12)"),
    ({"lottery.rewind": "100%"}, "lottery.rewind: expected a step in [0, 12)"),
    (
        {"training.duration": "0ep"},
        "training.duration: expected at least 1 update, got 0",
    ),
    (
        {"lottery.retrain": "finetune", "lottery.finetune_length": "1%"},
        "lottery.finetune_length: expected at least 1 update, got 0",
    ),
    (
        {"run.devices": 5},
        "run.devices: expected at most 4, the devices that JAX sees, got 5",
    ),
    (
        {"run.devices": 4, "data.batch_size": 30, "replicates": 1},
        "data.batch_size: expected a multiple of 4, the devices that share a batch, "
        "got a batch of 30 examples",
    ),
    (
        {"run.devices": 4, "data.batch_size": 16, "replicates": 1}
        | {"data.train_examples": 121},
        "data.batch_size: expected a multiple of 4, the devices that share a batch, "
        "got a batch of 9 examples",
    ),
    (
        {"run.devices": 4, "run.parallelism": "pmap"},
        "run.parallelism: expected 'jit' where replicates and batches are both split",
    ),
    (
        {"run.fsdp": True, "run.fsdp_rules": (("hed/*", 0),)}
        | {"run.devices": 1},  # where nothing is sharded
        "run.fsdp_rules: expected patterns that match a leaf, got 'hed/*'",
    ),
    (
        {"run.fsdp": True, "run.fsdp_rules": (("head/*", 2),)} | {"run.devices": 1},
        "run.fsdp_rules: expected an axis from -1 to 0, or None for head/bias",
    ),
    (
        {"lottery.exclude": ("heads/*",)},
        "lottery.exclude: expected patterns that match",
    ),
    (
        {"lottery.exclude": ("*",)},
        "lottery.exclude: expected patterns that leave at least",
    ),
    (
        {"lottery.scope": "layer", "lottery.layer_fractions": (("fc", 0.1),)},
        "lottery.layer_fractions: expected patterns that match a leaf, got 'fc'",
    ),
]


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Collects what XLA compiles while a test runs."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **about: Any) -> None:
        if event == COMPILED:
            seen.append(str(about))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def change(c: ConfigDict, field: str, value: Any) -> ConfigDict:
    *sections, last = field.split(".")
    inner = c
    for section in sections:
        inner = inner[section]
    with inner.ignore_type(), inner.unlocked():
        inner[last] = value
    return c


def starts(message: str) -> str:
    return "^" + re.escape(message)


def test_the_listener_would_see_a_compilation(compiled: list[str]) -> None:
    jax.jit(lambda x: x * 3 + len(compiled))(np.float32(1))
    assert compiled


@pytest.mark.parametrize(("field", "value", "message"), WRONG_FIELDS)
def test_a_wrong_field_is_refused(
    field: str, value: Any, message: str, compiled: list[str]
) -> None:
    c = change(tiny.config(), field, value)
    with pytest.raises(ValueError, match=starts(f"config.{field}: {message}")):
        config.validate(c)
    assert not compiled


@pytest.mark.parametrize(("fields", "message"), IMPOSSIBLE)
def test_impossible_combinations_are_refused(
    fields: dict, message: str, compiled: list[str]
) -> None:
    with pytest.raises(ValueError, match=starts(f"config.{message}")):
        config.validate(tiny.config(fields))
    assert not compiled


@pytest.mark.parametrize(("field", "value", "message"), WRONG_NAMES)
def test_wrong_names_and_lengths_are_refused(
    field: str, value: Any, message: str, compiled: list[str]
) -> None:
    c = tiny.config({"optimizer.momentum": 0.0, field: value})
    expected = starts(f"config.{field}: expected {message}")
    with pytest.raises(ValueError, match=expected):
        factory.check_names(c)
    assert not compiled


@pytest.mark.parametrize(("fields", "message"), WRONG_BUILDS)
def test_what_does_not_fit_is_refused_when_building(
    fields: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = tiny.config(fields)
    config.validate(c)
    factory.check_names(c)

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a trainer was made")

    monkeypatch.setattr(experiment, "make_trainer", never)
    with pytest.raises(ValueError, match=starts(f"config.{message}")):
        factory.make_experiment(c, factory.load_data(c), tmp_path)


def test_weights_that_no_memory_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = tiny.config({"replicates": 4})
    dataset = factory.load_data(c)
    per_replicate = 4 * (65 * 300 + 301 * 100 + 101 * 10)  # bytes of weights and biases
    made: list[bool] = []
    monkeypatch.setattr(experiment, "make_trainer", lambda *a, **k: made.append(True))
    for short in (0, 1):
        there = 4 * per_replicate - short
        monkeypatch.setattr(size_checks, "local_memory", lambda _, size=there: size)
        if not short:
            factory.make_experiment(c, dataset, tmp_path)
            continue
        with pytest.raises(ValueError, match=starts("config.replicates: expected")):
            factory.make_experiment(c, dataset, tmp_path)
    assert made == [True]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"sparse.method": "set", "sparse.update_every": "100%"}
            | {"lottery.levels": 0},
            "config.sparse.update_every: expected fewer steps than training has, got "
            "'100%', which is 12 of 12;",
        ),
        (
            {"schedule.warmup": "3ep"},
            "config.schedule.warmup: expected at most the length of training, got "
            "'3ep', which is 18 of 12 steps;",
        ),
        (
            {"schedule.milestones": ("6step", "20step")},
            "config.schedule.milestones: expected steps within training, got [20] of "
            "12",
        ),
    ],
)
def test_what_is_probably_wrong_warns_in_one_line(
    fields: dict, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    c = tiny.config(fields)
    config.validate(c)
    size_checks.check_lengths(c, factory.make_durations(c, steps_per_epoch=6))
    (warned,) = [record.getMessage() for record in caplog.records]
    assert warned.startswith(message) and "\n" not in warned
    caplog.clear()
    plain = tiny.config()
    size_checks.check_lengths(plain, factory.make_durations(plain, steps_per_epoch=6))
    assert not caplog.records


def test_masks_that_no_path_goes_through_warn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    masks = {"kernel": jnp.stack([jnp.ones((2, 2), bool), jnp.zeros((2, 2), bool)])}
    level_summary.warn_of_no_paths(masks, None, stage="masks of level 0")
    assert not caplog.records
    live = lambda mask: int(mask["kernel"].sum())  # noqa: E731
    level_summary.warn_of_no_paths(masks, live, stage="masks of level 0")
    (warned,) = [record.getMessage() for record in caplog.records]
    assert warned.startswith("masks of level 0: in replicates [1] no weight is on a ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", "config.data.name: expected the dataset 'mnist'"),
        ("cifar01", "config.data.name: expected a known dataset or one in "),
    ],
)
def test_absent_data_is_refused_with_the_ways_out(
    name: str, message: str, tmp_path: Path
) -> None:
    c = tiny.config({"data.name": name, "data.dir": str(tmp_path)})
    with pytest.raises(ValueError, match=starts(message)):
        factory.load_data(c)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "data.batchsize",
            "config.data.batchsize: expected a config field, got an unknown name; did "
            "you mean data.batch_size",
        ),
        (
            "lotery",
            "config.lotery: expected a config field, got an unknown name; did you mean "
            "lottery",
        ),
        (
            "zzz",
            "config.zzz: expected a config field, got an unknown name; did you mean "
            "one of those in configs/README.md",
        ),
    ],
)
def test_unknown_fields_are_refused(field: str, message: str) -> None:
    with pytest.raises(ValueError, match=starts(message)):
        config.validate(change(tiny.config(), field, 3))


def test_missing_fields_are_refused() -> None:
    c = tiny.config()
    with c.unlocked():
        del c.seeds
    with pytest.raises(ValueError, match=starts("config.seeds: expected a value, got")):
        config.validate(c)


def test_a_length_is_not_refused_for_an_epoch_it_was_not_meant_for() -> None:
    # 0.001 epochs of 2,000 steps are two steps.
    factory.check_names(tiny.config({"evaluation.every": "0.001ep"}))
    factory.check_names(tiny.config({"evaluation.every": "0.1%"}))


def test_the_layouts_that_fit_are_not_refused() -> None:
    for replicates, sizes, shape in [
        (1, [64], (1, 4)),
        (4, [7], (4, 1)),
        (2, [6], (2, 2)),
    ]:
        layout = mesh.make_layout(replicates=replicates, batch_sizes=sizes)
        assert tuple(layout.mesh.shape.values()) == shape


def test_a_batch_that_every_process_must_share_is_refused_with_what_can_be_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # lth_cifar's last batch over 16 processes of a GPU each, here 4.
    monkeypatch.setattr(mesh.jax, "process_count", lambda: 4)
    with pytest.raises(
        ValueError, match="a multiple of 4, .*drop_last=true if"
    ) as wrong:
        mesh.make_layout(replicates=3, batch_sizes=[128, 70])
    assert "run.devices" not in str(wrong.value)
    layout = mesh.make_layout(replicates=3, batch_sizes=[128])
    assert tuple(layout.mesh.shape.values()) == (1, 4)


def test_the_default_for_comparisons_follows_what_is_registered() -> None:
    plain = config.read_only_default()
    assert config.flatten(plain) == config.flatten(config.default())
    with pytest.raises(AttributeError):
        plain.replicates = 3
    with pytest.raises(AttributeError):
        plain.sparse.sparsity = 0.3
    options = {"of_this_test": 0.5}
    config.register_score("own", lambda params, masks: params, options=options)
    try:
        assert config.read_only_default().sparse.of_this_test == 0.5
    finally:
        config.SCORES.remove("own")
    assert "of_this_test" not in config.read_only_default().sparse
