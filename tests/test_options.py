"""Records of options: defaults, refusals, and options of other methods."""

import types
from typing import Any

import jax
import optax
import pytest
from helpers import flat_options, methods

import jaxsparse
from jaxsparse import config, prune, select, transforms
from jaxsparse.factory import methods as factory_methods

t = transforms
KEY = jax.random.key(3)
SGD = optax.sgd(0.1, momentum=0.9)
PARAMS = methods.make_params(dtype="float32")
WHEN = {"sparsity": 0.5, "begin_step": 1, "end_step": 9, "update_every": 3}
TOP = {"sparsity": 0.5, "backward_sparsity": 0.25}
# What each method does if an option is not given, written out.
DEFAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gradual_magnitude": (
        WHEN,
        {"distribution": "uniform", "initial_sparsity": 0.0, "schedule": "cubic"},
    ),
    "straight_through": (
        WHEN,
        {"distribution": "uniform", "initial_sparsity": 0.0, "schedule": "cubic"},
    ),
    "one_shot_magnitude": ({"sparsity": 0.5, "step": 3}, {"distribution": "global"}),
    "ac_dc": (WHEN, {"distribution": "global"}),
    "top_kast": (TOP, {"distribution": "uniform"}),
    "sparse_evolution": (
        WHEN,
        {
            "distribution": "er",
            "drop_fraction": 0.3,
            "drop_schedule": "constant",
            "skip_update": False,
        },
    ),
    "rigl": (
        WHEN,
        {
            "distribution": "erk",
            "drop_fraction": 0.3,
            "drop_schedule": "cosine",
            "skip_update": True,
        },
    ),
    "east": (
        WHEN,
        {
            "distribution": "erk",
            "drop_fraction": 0.5,
            "drop_schedule": "cosine",
            "skip_update": False,
        },
    ),
    "neurrev": (
        WHEN,
        {
            "distribution": "erk",
            "drop_fraction": 0.3,
            "drop_schedule": "cosine",
            "skip_update": False,
        },
    ),
    "mest": (
        WHEN,
        {
            "distribution": "uniform",
            "drop_fraction": 0.3,
            "drop_schedule": "cosine",
            "skip_update": False,
        },
    ),
    "snfs": (
        WHEN,
        {
            "distribution": "uniform",
            "drop_fraction": 0.5,
            "drop_schedule": "cosine",
            "skip_update": False,
        },
    ),
    "granet": (
        WHEN,
        {
            "distribution": "erk",
            "pruned_by": "global",
            "drop_fraction": 0.5,
            "drop_schedule": "cosine",
            "initial_sparsity": 0.5,
            "schedule": "cubic",
        },
    ),
}
BLOCKS = {"structure": select.blocks((2, 2))}
LEAST = {"min_layer_density": 0.1}
UNUSED: list[tuple[str, dict[str, Any]]] = [
    *(("snfs", BLOCKS), ("snfs", LEAST), ("rigl", LEAST), ("mest", LEAST)),
    *(("sparse_evolution", LEAST), ("granet", BLOCKS), ("top_kast", BLOCKS)),
    *(("sr_ste", BLOCKS), ("sr_ste", LEAST), ("sr_ste", {"distribution": "erk"})),
    ("mest", {"skip_update": True}),
    ("granet", {"skip_update": True}),
    ("granet", {"allow_regrow": False}),
]
OPTIONS = {
    name: kind(drop_fraction=0.2)
    for name, kind in flat_options.UPDATES.items()
    if name != "granet"
}


def program(tx: Any) -> str:
    """What an optimizer computes at first and in an update, with all constants."""
    state = jax.eval_shape(tx.init, PARAMS)
    init = jax.jit(tx.init).lower(PARAMS)
    return init.as_text() + jax.jit(tx.update).lower(PARAMS, state, PARAMS).as_text()


def arguments(name: str) -> dict[str, Any]:
    return {} if name == "sr_ste" else DEFAULTS[name][0]


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_method(name: str) -> None:
    given, options = DEFAULTS[name]
    make = getattr(transforms, name)
    written_out = flat_options.call(make, SGD, **given, **options)
    empty = {argument: kind() for argument, kind in flat_options.records(make).items()}
    assert program(make(SGD, **given)) == program(written_out)
    assert program(make(SGD, **given, **empty)) == program(written_out)


@pytest.mark.parametrize("name", flat_options.UPDATES)
def test_shared_options_do_the_same_in_every_class(name: str) -> None:
    make, options = getattr(transforms, name), {"drop_fraction": 0.2}
    shared = make(SGD, **WHEN, updates=transforms.DropGrowOptions(**options))
    own = make(SGD, **WHEN, updates=flat_options.UPDATES[name](**options))
    assert program(shared) == program(own) != program(make(SGD, **WHEN))


@pytest.mark.parametrize(("name", "option"), UNUSED)
def test_options_without_effect_are_refused(name: str, option: dict) -> None:
    ((field, value),) = option.items()
    with pytest.raises(ValueError, match=f"^{field}: expected .* with {name}.*got"):
        flat_options.call(getattr(transforms, name), SGD, **arguments(name), **option)


def test_a_structure_is_refused_in_iterations() -> None:
    with pytest.raises(ValueError, match="^structure: expected None with prune_iterat"):
        prune.prune_iteratively(
            PARAMS, 0.5, score=lambda p, m: m, layers=prune.LayerOptions(**BLOCKS)
        )


@pytest.mark.parametrize("name", flat_options.UPDATES)
def test_options_of_another_method_are_refused(name: str) -> None:
    for other, options in OPTIONS.items():
        if other != name:
            with pytest.raises(TypeError, match=f"^updates: expected .* with {name}"):
                getattr(transforms, name)(SGD, **WHEN, updates=options)


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_is_no_record_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    make = getattr(transforms, name)
    for argument in flat_options.records(make):
        for wrong in (3, "erk", {"dense": ("*",)}):
            with pytest.raises(
                TypeError, match=f"^{argument}: expected .*(Options|Ramp)"
            ):
                make(SGD, **arguments(name), **{argument: wrong})


FROM_CONFIG: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "sr_ste": (
        {"structure": "groups 4", "sparsity": 0.5, "outside_regularization": 0.1},
        t.sr_ste,
        {"n": 2, "m": 4, "decay": 0.1, "dense": ("second/*",)},
    ),
    "rigl": (
        {"sparsity": 0.5, "grow": "random", "structure": "fan_in", "skip_update": False}
        | {"distribution": "uniform"},
        t.rigl,
        {"structure": select.fan_in(), "skip_update": False, "distribution": "uniform"}
        | {"sparsity": 0.5, "grow": "random", "update_every": 3, "end_step": 9}
        | {"dense": ("second/*",), "key": KEY},
    ),
    "granet": (
        {"sparsity": 0.5, "initial_sparsity": 0.25, "schedule": "linear"}
        | {"drop_fraction": 0.2},
        t.granet,
        {"sparsity": 0.5, "initial_sparsity": 0.25, "schedule": "linear"}
        | {"drop_fraction": 0.2, "update_every": 3, "end_step": 9}
        | {"dense": ("second/*",), "key": KEY},
    ),
}


@pytest.mark.parametrize("name", FROM_CONFIG)
def test_config_fields_are_passed_in_records(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)  # of `length`
    fields, make, flat = FROM_CONFIG[name]
    c = config.default()
    c.sparse.method = name
    for field, value in fields.items():
        c.sparse[field] = value
    steps = {} if name == "sr_ste" else {"update_every": 3, "end_step": 9}
    length: Any = types.SimpleNamespace(sparse=steps, total=20)
    wrap = factory_methods.make_wrap(c, length, lambda step: 0.1, dense=("second/*",))
    assert program(wrap(SGD, KEY)) == program(flat_options.call(make, SGD, **flat))


def test_methods_of_users_may_take_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)  # of `length`
    seen = []

    def make(inner: Any, **arguments: Any) -> Any:
        seen.append(arguments)
        return inner

    jaxsparse.register_method(
        "with_record",
        make,
        arguments={
            "sparsity": "sparsity",
            "drop_fraction": "fraction",
            "dense": "dense",
        },
        records={"layers": t.LayerOptions},
        first_update="start",
    )
    try:
        c = config.default()
        c.sparse.method, c.sparse.drop_fraction = "with_record", 0.2
        length: Any = types.SimpleNamespace(sparse={}, total=20)
        factory_methods.make_wrap(c, length, lambda step: 0.1, dense=("a",))(SGD, KEY)
        assert config.METHODS.find("with_record").mask_updates.first_update == "start"
    finally:
        config.METHODS.remove("with_record")
    layers = t.LayerOptions(dense=("a",))
    assert seen == [{"sparsity": 0.9, "fraction": 0.2, "layers": layers}]


def test_options_are_values() -> None:
    options = t.LayerOptions(dense=("head/*",), structure=select.n_of_m(4))
    same = t.LayerOptions(dense=("head/*",), structure=select.n_of_m(4))
    assert options == same and hash(options) == hash(same)
    with pytest.raises(AttributeError):
        options.dense = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        t.LayerOptions("erk")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("method", "option", "place"),
    [
        ("rigl", "grow", "updates=RigLOptions"),
        ("rigl", "distribution", "layers=LayerOptions"),
        ("sparse_evolution", "drop_by_sign", "updates=SparseEvolutionOptions"),
        ("mest", "soft_bound", "updates=MESTOptions"),
        ("snfs", "redistribute", "updates=SNFSOptions"),
        ("granet", "stop_step", "updates=GraNetOptions"),
        ("gradual_magnitude", "schedule", "ramp=SparsityRamp"),
        ("one_shot_magnitude", "dense", "layers=LayerOptions"),
    ],
)
def test_an_option_in_the_wrong_place_is_told_its_record(
    method: str, option: str, place: str
) -> None:
    required = {"one_shot_magnitude": {"step": 3}}.get(method, {"end_step": 9})
    if method == "gradual_magnitude":
        required = required | {"begin_step": 1}
    with pytest.raises(
        TypeError, match=rf"^{method}: .*pass {place}\({option}=\.\.\.\)"
    ):
        getattr(t, method)(SGD, sparsity=0.5, **required, **{option: 1})
