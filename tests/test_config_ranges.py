"""Each field has a range, and nonsense of each type is refused by name."""

import re
from typing import Any

import pytest
from helpers import tiny
from ml_collections import ConfigDict

from jaxsparse import config, durations, factory, initializers
from jaxsparse.config import naming
from jaxsparse.lottery import controls
from jaxsparse.tost import soft_activations

NAN, INF = float("nan"), float("inf")
# What no field may hold, by the type of its default.
NONSENSE = {
    bool: (),
    int: (2**70, -(2**70), -2),
    float: (NAN, -INF, 1e300, -1e300, -0.5),
    str: ("\0", "two\nlines"),
    tuple: ((None,), (NAN,), (-(2**70),), (2**70,), (INF,), ("\0",), (("*", NAN),)),
}
# Values that are special cases of a rule.
MEANT = {"gradinit.max_grad_norm": {INF}, "solution_penalty.strength": {-0.5}}


def fields() -> dict[str, Any]:
    """Lists the fields with their default values."""

    def walk(c: ConfigDict, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in c.items():
            inside = isinstance(value, ConfigDict)
            found |= (
                walk(value, f"{prefix}{name}.") if inside else {prefix + name: value}
            )
        return found

    return walk(config.default(), "")


def changed(field: str, value: Any) -> ConfigDict:
    c = config.default()
    *sections, last = field.split(".")
    inner = c
    for section in sections:
        inner = inner[section]
    with inner.ignore_type():
        inner[last] = value
    return c


def test_every_field_has_a_rule() -> None:
    assert config.RULES.keys() == fields().keys()


@pytest.mark.parametrize("field", fields())
def test_nonsense_is_refused_in_one_line(field: str) -> None:
    for value in NONSENSE[type(fields()[field])]:
        if value in MEANT.get(field, ()):
            continue
        with pytest.raises(ValueError, match=re.escape(f"config.{field}: ")) as wrong:
            config.validate(changed(field, value))
        assert "\n" not in str(wrong.value)


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
    ],
)
def test_what_no_run_can_mean_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"config.{field}: ")):
        config.validate(changed(field, value))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer.b1": 0.8}, "optimizer.b1: came 0.8 without optimizer.name 'adam'"),
        ({"optimizer.b2": 0.8}, "optimizer.b2: came 0.8 without optimizer.name 'adam'"),
        ({"optimizer.eps": 0.1}, "optimizer.eps: came 0.1 without optimizer.name 'ada"),
        (
            {"schedule.name": "cosine", "schedule.milestones": ()}
            | {"schedule.gamma": 0.5},
            "schedule.gamma: came 0.5 without schedule.name 'step'",
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
        "sparse.ablation": factory.ABLATIONS,
        "optimizer.name": factory.OPTIMIZERS,
        "init.kernel": initializers.KERNELS,
        "init.bias": initializers.BIASES,
        "init.norm_scale": initializers.NORM_SCALES,
        "init.sparse_init": factory.SPARSE_INITS,
        "lottery.controls": controls.NAMES,
        "tost.activation": soft_activations.SOFT,
    }
    for field, table in tables.items():
        assert set(config.BUILT_IN[field]) - {""} == set(table), field


STATIC = "--config.sparse.method=static --config.sparse.pai_score="


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("sparse.method", "snip", f"it is a score: give {STATIC}snip$"),
        ("sparse.method", "snpi", f"'snip' is a score: give {STATIC}snip$"),
        ("sparse.method", "MAGNITUDE", f"'magnitude' is a score: give {STATIC}magn"),
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
    ],
)
def test_names_are_refused_without_jax(field: str, value: Any, hint: str) -> None:
    c = changed(field, value)
    with pytest.raises(ValueError, match=f"^config.{field}: unknown .*{hint}"):
        config.check_names(c)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("lr", "schedule.learning_rate or "),
        ("wd", "optimizer.weight_decay"),
        ("batch_size", "data.batch_size or "),
        ("sparsity", "sparse.sparsity"),
        ("epochs", "training.duration"),
        ("data.batchsize", "data.batch_size"),
        ("optimizer.nme", "optimizer.name"),
        ("sprase.sparsity", "sparse.sparsity"),
        ("sparse.lr", "schedule.learning_rate or "),
        ("sparse.zzz", "one of the section 'sparse' of jaxsparse/config/schema.py or "),
    ],
)
def test_the_field_that_was_meant_is_named(written: str, meant: str) -> None:
    assert (naming.nearest_field(written, fields()) + " or ").startswith(meant)


def test_a_path_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="^--workdir: .*no user '~nosuchuser' here"):
        naming.to_path("--workdir", "~nosuchuser/runs")


def test_lengths_have_the_forms_that_their_refusal_names() -> None:
    for form in re.findall(r"'([^']+)'", durations.FORMS):
        assert durations.to_steps(form, steps_per_epoch=10, total=100) >= 1
