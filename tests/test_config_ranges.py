"""Each field has a range, and nonsense of each type is refused by name."""

import re
from typing import Any

import pytest
from helpers import tiny
from ml_collections import ConfigDict

from jaxsparse import config, distributions, durations, factory, initializers
from jaxsparse.config import naming
from jaxsparse.lottery import controls
from jaxsparse.tost import soft_activations

NAN, INF = float("nan"), float("inf")
# What no field may hold, by the type of its values.
NONSENSE = {
    bool: (),
    int: (2**70, -(2**70), -2),
    float: (NAN, -INF, 1e300, -1e300, -0.5),
    str: ("\0", "two\nlines"),
    tuple: ((None,), (NAN,), (-(2**70),), (2**70,), (INF,), ("\0",), (("*", NAN),)),
}
# Values that are special cases of a rule.
MEANT = {"gradinit.max_grad_norm": {INF}, "solution_penalty.strength": {-0.5}}
MEANT |= dict.fromkeys(("sparse.threshold_logit", "sparse.mask_logit"), {-0.5})


def changed(field: str, value: Any) -> ConfigDict:
    c = config.default()
    *sections, last = field.split(".")
    inner = c
    for section in sections:
        inner = inner[section]
    with inner.ignore_type():
        inner[last] = value
    return c


def test_the_config_has_the_fields_of_the_tables_with_valid_defaults() -> None:
    assert config.FIELDS.keys() == config.flatten(config.default()).keys()
    for name, field in config.FIELDS.items():
        assert field.valid.holds(field.default), name
        assert field.help.endswith("."), name
        assert field.default is not None or field.valid.optional, name


@pytest.mark.parametrize("field", config.FIELDS)
def test_nonsense_is_refused_in_one_line(field: str) -> None:
    valid = config.FIELDS[field].valid
    values = [*NONSENSE[valid.type], *([] if valid.optional else [None])]
    for value in values:
        if value in MEANT.get(field, ()):
            continue
        expected = re.escape(f"config.{field}: expected {valid.words}, got ")
        with pytest.raises(ValueError, match=expected) as wrong:
            config.validate(changed(field, value))
        assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    "field", [name for name, field in config.FIELDS.items() if field.valid.optional]
)
def test_none_is_the_only_value_for_not_set(field: str) -> None:
    """None is valid, and the values of older versions in place of it are not."""
    config.validate(changed(field, None))
    for old in {str: ("",), float: (-1.0,), int: (-1,), tuple: ((),)}.get(
        config.FIELDS[field].valid.type, ()
    ):
        assert config.renames.new_value(field, old) is None
        with pytest.raises(ValueError, match=re.escape(f"config.{field}: expected ")):
            config.validate(changed(field, old))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer.eps", INF),
        ("optimizer.weight_decay", 1e300),
        ("optimizer.momentum", 1 - 1e-12),  # 1 as a float32
        ("schedule.learning_rate", 1e-300),  # 0 as a float32
        ("schedule.warmup", "150%"),
        ("schedule.milestones", ("50%", "150%")),
        ("lottery.rewind", "101%"),
        ("sparse.end_step", "200%"),
        ("sparse.sparsity", 1 - 1e-16),
        ("lottery.fraction", 1 - 1e-16),
        ("training.duration", "100000000000step"),
        ("data.crop_pad", 10**9),
        ("data.batch_size", 2**70),
        ("replicates", 2**70),
        ("seeds.first", 2**31),
        ("init.sparse_init_scale", INF),
        ("sparse.layer_sparsity", (("*", -1),)),
        ("sparse.layer_sparsity", (("*", 1.5),)),
        ("data.std", (1e-300,)),
        ("run.fsdp_rules", (("*", -1),)),
        ("name", ".."),
        ("data.dir", "~nosuchuser/data"),
        ("warm_start.run", "~nosuchuser/run"),
        ("lottery.dense_run", "~nosuchuser/run"),
    ],
)
def test_what_no_run_can_mean_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"config.{field}: ")):
        config.validate(changed(field, value))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"optimizer.b1": 0.8},
            "optimizer.b1: expected 0.9 without optimizer.name 'adam' or 'adamw', got ",
        ),
        (
            {"optimizer.b2": 0.8},
            "optimizer.b2: expected 0.999 without optimizer.name 'adam' or 'adamw', go",
        ),
        (
            {"optimizer.eps": 0.1},
            "optimizer.eps: expected 1e-08 without optimizer.name 'adam' or 'adamw', g",
        ),
        (
            {"schedule.name": "cosine", "schedule.milestones": ()}
            | {"schedule.gamma": 0.5},
            "schedule.gamma: expected 0.1 without schedule.name 'step', got 0.5",
        ),
    ],
)
def test_fields_that_nothing_reads_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"config.{message}")):
        config.validate(tiny.config(fields))


def test_names_that_are_known_without_jax_are_those_of_the_tables() -> None:
    tables = {
        "sparse.distribution": ("global", *distributions.NAMES),
        "init.kernel": initializers.KERNELS,
        "init.bias": initializers.BIASES,
        "init.norm_scale": initializers.NORM_SCALES,
        "init.sparse_init": factory.SPARSE_INITS,
        "lottery.controls": controls.NAMES,
        "tost.activation": soft_activations.SOFT,
    }
    for field, table in tables.items():
        assert set(config.FIELDS[field].valid.choices) == set(table), field


STATIC = "--config.sparse.method=static --config.sparse.pai_score="


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("sparse.method", "snip", f"it is a score; set {STATIC}snip$"),
        ("sparse.method", "snpi", f"'snip' is a score; set {STATIC}snip$"),
        ("sparse.method", "MAGNITUDE", f"'magnitude' is a score; set {STATIC}magn"),
        ("sparse.method", "snsf", "did you mean snfs"),
        (
            "sparse.pai_score",
            "topkast",
            "'top_kast' is a value of config.sparse.method, no",
        ),
        ("sparse.method", "rigle", "did you mean rigl"),
        (
            "sparse.pai_score",
            "rigl",
            "it is a value of config.sparse.method, not of confi",
        ),
        ("lottery.controls", ("random_masks",), "did you mean random_mask"),
        ("sparse.method", "erk", "it is a value of config.sparse.distribution, not"),
        # Words that are values of fields of another kind are no hint.
        ("lottery.score", "scaled", "got 'scaled'"),
        ("lottery.score", "mag", "did you mean magnitude"),
        ("data.augment", "none", "got 'none'$"),
        ("optimizer.name", "step", "got 'step'$"),
        ("sparse.method", "lottery", "did you mean one of none, static"),
    ],
)
def test_names_are_refused_without_jax(field: str, value: Any, hint: str) -> None:
    c = changed(field, value)
    with pytest.raises(ValueError, match=f"^config.{field}: expected .*{hint}"):
        config.check_names(c)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("lr", "schedule.learning_rate or "),
        ("wd", "optimizer.weight_decay"),
        ("batch_size", "data.batch_size or "),
        ("sparsity", "sparse.sparsity"),
        ("epochs", "training.duration"),
        ("ghosts.activation", "tost.activation"),  # of an older version
        ("data.batchsize", "data.batch_size"),
        ("optimizer.nme", "optimizer.name"),
        ("sprase.sparsity", "sparse.sparsity"),
        ("sparse.lr", "schedule.learning_rate or "),
        ("training.epochs", "training.duration or "),
        ("optimizer.beta1", "optimizer.b1 or "),
        ("sparse.pruning_rate", "lottery.fraction or sparse.sparsity or "),
        ("sparse.start", "one of the section 'sparse' in configs/README.md or "),
        ("sparse.zzz", "one of the section 'sparse' in configs/README.md or "),
    ],
)
def test_the_field_that_was_meant_is_named(written: str, meant: str) -> None:
    assert (naming.nearest_field(written, config.FIELDS) + " or ").startswith(meant)


def test_a_path_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="^--workdir: .*no user '~nosuchuser' here"):
        naming.to_path("--workdir", "~nosuchuser/runs")


def test_lengths_have_the_forms_that_their_refusal_names() -> None:
    for form in re.findall(r"'([^']+)'", durations.FORMS):
        assert durations.to_steps(form, steps_per_epoch=10, total=100) >= 1
