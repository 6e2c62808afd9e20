"""What a config may hold, and the message that each mistake gives."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

from jaxsparse import config, factory
from jaxsparse.factory import experiment, size_checks
from jaxsparse.runner import level_summary
from jaxsparse.training import mesh

COMPILED = "/jax/core/compile/backend_compile_duration"

# Field, value that comes, and how the message begins. All are found by `validate`.
WRONG_FIELDS = [
    ("replicates", 0, "config.replicates: came 0; wanted at least 1"),
    ("replicates", "3", "config.replicates: came '3', a str; wanted a int, such as 1"),
    ("replicates", True, "config.replicates: came True, a bool; wanted a int"),
    ("replicates", None, "config.replicates: came None, a NoneType; wanted a int"),
    ("name", "", "config.name: came ''; wanted a name without slashes"),
    ("name", "a/b", "config.name: came 'a/b'; wanted a name without slashes"),
    ("seeds", 3, "config.seeds: came 3; wanted a section with the fields"),
    ("seeds.init", -1, "config.seeds.init: came -1; wanted in [0, 2**32)"),
    ("seeds.data", 2**32, "config.seeds.data: came 4294967296; wanted in [0, 2**32)"),
    ("seeds.masks", 0.5, "config.seeds.masks: came 0.5, a float; wanted a int"),
    ("data.batch_size", 0, "config.data.batch_size: came 0; wanted at least 1"),
    ("data.batch_size", 1.5, "config.data.batch_size: came 1.5, a float; wanted a int"),
    ("data.validation", -1, "config.data.validation: came -1; wanted at least 0"),
    ("data.crop_pad", -4, "config.data.crop_pad: came -4; wanted at least 0"),
    ("data.flip", 1, "config.data.flip: came 1, a int; wanted a bool"),
    ("data.order", "random", "config.data.order: came 'random'; wanted one of same, "),
    ("model.width", 0, "config.model.width: came 0; wanted at least 1"),
    ("model.dtype", "float16", "config.model.dtype: came 'float16'; wanted one of "),
    ("optimizer.momentum", 1.0, "config.optimizer.momentum: came 1.0; wanted in [0, "),
    ("optimizer.b1", -0.1, "config.optimizer.b1: came -0.1; wanted in [0, 1)"),
    ("optimizer.eps", 0.0, "config.optimizer.eps: came 0.0; wanted above 0"),
    (
        "optimizer.weight_decay",
        float("nan"),
        "config.optimizer.weight_decay: came nan; wanted in [0, 100]",
    ),
    (
        "optimizer.weight_decay_mask",
        "biases",
        "config.optimizer.weight_decay_mask: came 'biases'; wanted one ",
    ),
    ("schedule.name", "linear", "config.schedule.name: came 'linear'; wanted one of "),
    ("schedule.learning_rate", 0.0, "config.schedule.learning_rate: came 0.0; wanted "),
    ("schedule.learning_rate", float("inf"), "config.schedule.learning_rate: came inf"),
    ("schedule.gamma", 0.0, "config.schedule.gamma: came 0.0; wanted in (0, 1]"),
    ("schedule.milestones", (80,), "config.schedule.milestones: came (80,); wanted a "),
    ("schedule.milestones", "80ep", "config.schedule.milestones: came '80ep', a str; "),
    ("training.duration", 3, "config.training.duration: came 3, a int; wanted a str"),
    ("training.label_smoothing", 1.0, "config.training.label_smoothing: came 1.0; "),
    (
        "training.duration",
        "2 epochs",
        "config.training.duration: came '2 epochs'; wanted ",
    ),
    (
        "training.duration",
        "",
        "config.training.duration: came ''; wanted steps or epochs",
    ),
    (
        "training.duration",
        "10%",
        "config.training.duration: came '10%'; wanted steps or ",
    ),
    (
        "training.duration",
        "100000000000step",
        "config.training.duration: came '100000000000step'; wanted steps or epochs, as "
        "'2ep', of at most 2**31 steps",
    ),
    ("schedule.warmup", "-5step", "config.schedule.warmup: came '-5step'; wanted a le"),
    ("schedule.milestones", ("8",), "config.schedule.milestones: came ('8',); wanted "),
    ("lottery.rewind", "one", "config.lottery.rewind: came 'one'; wanted a length "),
    ("lottery.finetune_length", "5", "config.lottery.finetune_length: came '5'; want"),
    ("evaluation.every", "", "config.evaluation.every: came ''; wanted a length of"),
    ("run.checkpoint_every", "1h", "config.run.checkpoint_every: came '1h'; wanted a"),
    ("lottery.levels", -1, "config.lottery.levels: came -1; wanted at least 0"),
    ("lottery.fraction", 1.0, "config.lottery.fraction: came 1.0; wanted in (0, 1)"),
    ("lottery.fraction", 0.0, "config.lottery.fraction: came 0.0; wanted in (0, 1)"),
    (
        "lottery.count_rule",
        "ceil",
        "config.lottery.count_rule: came 'ceil'; wanted one of",
    ),
    ("lottery.scope", "local", "config.lottery.scope: came 'local'; wanted one of"),
    ("lottery.retrain", "rewin", "config.lottery.retrain: came 'rewin'; wanted one of"),
    ("lottery.exclude", (3,), "config.lottery.exclude: came (3,); wanted a tuple such"),
    (
        "lottery.layer_fractions",
        (("head/kernel", 1.0),),
        "config.lottery.layer_fractions: came (('head/kernel', 1.0),); wanted pairs",
    ),
    ("lottery.control_levels", (0,), "config.lottery.control_levels: came (0,); want"),
    ("run.parallelism", "mesh", "config.run.parallelism: came 'mesh'; wanted one of "),
    ("run.devices", -1, "config.run.devices: came -1; wanted at least 0"),
    ("run.steps_per_call", 0, "config.run.steps_per_call: came 0; wanted at least 1"),
    ("run.dispatch", "fast", "config.run.dispatch: came 'fast'; wanted one of auto, "),
    (
        "run.keep_checkpoints",
        "some",
        "config.run.keep_checkpoints: came 'some'; wanted one of all, needed",
    ),
]

# Fields that are wrong together.
IMPOSSIBLE = [
    (
        {"lottery.layer_fractions": (("*", 0.1),)},
        "config.lottery.layer_fractions: given with scope 'global'; wanted scope",
    ),
    (
        {"lottery.count_rule": "open_lth", "lottery.scope": "layer"},
        "config.lottery.count_rule: 'open_lth' is a rule of global pruning",
    ),
    (
        {"lottery.count_rule": "open_lth", "lottery.one_shot": True},
        "config.lottery.count_rule: 'open_lth' is a rule of global pruning",
    ),
    (
        {"lottery.control_levels": (1, 3)},
        "config.lottery.control_levels: came [3]; wanted levels up to config.lott",
    ),
    (
        {"schedule.name": "cosine"},
        "config.schedule.milestones: given with schedule 'cosine'; wanted",
    ),
    (
        {"optimizer.name": "adam"},
        "config.optimizer.momentum: 0.9 (nesterov False) given with 'adam'; wanted",
    ),
    (
        {"optimizer.momentum": 0.0, "optimizer.nesterov": True},
        "config.optimizer.nesterov: given with momentum 0.0; wanted",
    ),
]

# Found by `build.check_names`.
WRONG_NAMES = [
    ("model.name", "resnet20", "unknown 'resnet20'; did you mean resnet_20"),
    ("model.name", "x", "unknown 'x'; did you mean one of lenet_300_100, lenet_5, "),
    ("optimizer.name", "adamW", "unknown 'adamW'; did you mean adam or adamw"),
    ("init.kernel", "kaiming", "unknown 'kaiming'; did you mean kaiming_"),
    ("init.bias", "zero", "unknown 'zero'; did you mean zeros"),
    ("init.norm_scale", "one", "unknown 'one'; did you mean ones"),
    ("lottery.controls", ("reinitialised",), "unknown 'reinitialised'; did you mean r"),
    ("evaluation.every", "0step", "expected at least 1 update, got '0step', which"),
]

# Found while building, when the data is known. Messages begin "config." here too.
WRONG_BUILDS = [
    ({"data.validation": 1437}, "data: validation: got 1437 of 1437 training examples"),
    ({"data.train_examples": 5000}, "data: first: got 5000 of 1397 examples; wanted"),
    ({"data.test_examples": 361}, "data: first: got 361 of 360 examples; wanted 1 to"),
    (
        {"data.batch_size": 500, "data.drop_last": True},
        "data: batch_size: got 500 for 120 examples, and drop_last leaves no batch",
    ),
    ({"data.batch_size": 121}, "data.batch_size: expected at most the 120 training "),
    ({"data.crop_pad": 9}, "data.crop_pad: expected at most the 8 pixels of a side of"),
    ({"lottery.levels": 200}, "lottery.levels: got 200 at fraction 0.2, and level 200"),
    (
        {"training.duration": "2000000000ep"},
        "training.duration: expected at most 2147483647 upd",
    ),
    (
        {"training.duration": "2000000000step", "evaluation.every": "1step"},
        "evaluation.every: expected at most 10000000 times in training, got every 1 ",
    ),
    (
        {"sparse.method": "static", "sparse.sparsity": 0.999995, "lottery.levels": 0},
        "sparse: sparsity: 0.999995 keeps 0 of 50200 weights, too few for one in each ",
    ),
    (
        {"sparse.method": "static", "sparse.sparsity": 0.999995, "lottery.levels": 0}
        | {"sparse.distribution": "global"},
        "sparse.sparsity: got 0.999995, which leaves none of the network's 50200 prun",
    ),
    (
        {"sparse.method": "static", "sparse.pai_score": "snip", "lottery.levels": 0}
        | {"sparse.score_batches": 7, "sparse.score_batch_size": 20},
        "sparse.score_batches: 7 of 20 examples come to 140; wanted at most the 120",
    ),
    ({"run.trace": ("5step", "3step")}, "run.trace: expected the end after the begin"),
    ({"run.trace": ("1ep", "6step")}, "run.trace: expected the end after the beginni"),
    ({"lottery.rewind": "12step"}, "lottery.rewind: comes to step 12; wanted one in "),
    ({"lottery.rewind": "3ep"}, "lottery.rewind: comes to step 18; wanted one in [0,"),
    ({"lottery.rewind": "100%"}, "lottery.rewind: comes to step 12; wanted one in [0"),
    (
        {"training.duration": "0ep"},
        "training.duration: expected at least 1 update, got 0",
    ),
    (
        {"lottery.retrain": "finetune", "lottery.finetune_length": "1%"},
        "lottery.finetune_length: comes to 0 updates; wanted at least 1",
    ),
    ({"run.devices": 5}, "run.devices: came 5; wanted at most 4, the devices JAX"),
    (
        {"run.devices": 4, "data.batch_size": 30, "replicates": 1},
        "data.batch_size: a batch of 30 examples cannot be divided over 4 devices",
    ),
    (
        {"run.devices": 4, "data.batch_size": 16, "replicates": 1}
        | {"data.train_examples": 121},
        "data.batch_size: a batch of 9 examples cannot be divided over 4 devices",
    ),
    (
        {"run.devices": 4, "run.parallelism": "pmap"},
        "run.parallelism: pmap divides either replicates or batches; 2 replicates on",
    ),
    (
        {"run.weights": "sharded", "run.fsdp_rules": (("hed/*", 0),)}
        | {"run.devices": 1},  # where nothing is sharded
        "run.fsdp_rules: the pattern 'hed/*' matches no leaf; wanted one of, or a pa",
    ),
    (
        {"run.weights": "sharded", "run.fsdp_rules": (("head/*", 2),)}
        | {"run.devices": 1},
        "run.fsdp_rules: axis 2 of head/bias, which has the shape (10,); wanted -1",
    ),
    ({"lottery.exclude": ("heads/*",)}, "lottery.exclude: the pattern 'heads/*' match"),
    ({"lottery.exclude": ("*",)}, "lottery.exclude: ('*',) matches every layer of"),
    (
        {"lottery.scope": "layer", "lottery.layer_fractions": (("fc", 0.1),)},
        "lottery.layer_fractions: the pattern 'fc' matches no prunable leaf",
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
    with pytest.raises(ValueError, match=starts(message)):
        config.validate(c)
    assert not compiled


@pytest.mark.parametrize(("fields", "message"), IMPOSSIBLE)
def test_impossible_combinations_are_refused(
    fields: dict, message: str, compiled: list[str]
) -> None:
    with pytest.raises(ValueError, match=starts(message)):
        config.validate(tiny.config(fields))
    assert not compiled


@pytest.mark.parametrize(("field", "value", "message"), WRONG_NAMES)
def test_wrong_names_and_lengths_are_refused(
    field: str, value: Any, message: str, compiled: list[str]
) -> None:
    c = tiny.config({"optimizer.momentum": 0.0, field: value})
    config.validate(c)
    with pytest.raises(ValueError, match=starts(f"config.{field}: {message}")):
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

    monkeypatch.setattr(experiment, "_make_trainer", never)
    with pytest.raises(ValueError, match=starts(f"config.{message}")):
        factory.make_experiment(c, factory.load_data(c), tmp_path)


def test_weights_that_no_memory_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = tiny.config({"replicates": 4})
    dataset = factory.load_data(c)
    per_replicate = 4 * (65 * 300 + 301 * 100 + 101 * 10)  # bytes of weights and biases
    made: list[bool] = []
    monkeypatch.setattr(experiment, "_make_trainer", lambda *a, **k: made.append(True))
    for short in (0, 1):
        there = 4 * per_replicate - short
        monkeypatch.setattr(size_checks, "local_memory", lambda _, size=there: size)
        if not short:
            factory.make_experiment(c, dataset, tmp_path)
            continue
        with pytest.raises(ValueError, match=starts("config.replicates: got 4, whose")):
            factory.make_experiment(c, dataset, tmp_path)
    assert made == [True]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"sparse.method": "set", "sparse.update_every": "100%"}
            | {"lottery.levels": 0},
            "config.sparse.update_every: '100%' is 12 updates of a training of 12",
        ),
        (
            {"schedule.warmup": "3ep"},
            "config.schedule.warmup: '3ep' is 18 updates of a training of 12",
        ),
        (
            {"schedule.milestones": ("6step", "20step")},
            "config.schedule.milestones: updates [20] are not in a training of 12",
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
        ("mnist", "data.name: the dataset 'mnist' is"),
        ("cifar01", "config.data.name: unknown 'cifar01'; did you mean cifar10"),
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
            "config.data.batchsize: no such field; did you mean data.batch_size ",
        ),
        ("lotery", "config.lotery: no such field; did you mean lottery"),
        ("zzz", "config.zzz: no such field; did you mean one of jaxsparse/config/"),
    ],
)
def test_unknown_fields_are_refused(field: str, message: str) -> None:
    with pytest.raises(ValueError, match=starts(message)):
        config.validate(change(tiny.config(), field, 3))


def test_missing_fields_are_refused() -> None:
    c = tiny.config()
    with c.unlocked():
        del c.seeds
    with pytest.raises(ValueError, match=starts("config.seeds: missing; start from")):
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
    with pytest.raises(ValueError, match="over 4 devices.*drop_last=true if") as wrong:
        mesh.make_layout(replicates=3, batch_sizes=[128, 70])
    assert "run.devices" not in str(wrong.value)
    layout = mesh.make_layout(replicates=3, batch_sizes=[128])
    assert tuple(layout.mesh.shape.values()) == (1, 4)
