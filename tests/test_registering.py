"""Registering scores, methods, networks and datasets: what is refused, and what not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxsparse import config


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    config.register_score("mine", _one, options={"bias": 0.5})
    yield
    for registry in config.REGISTRIES:
        for spec in registry.own():
            registry.remove(spec.name)


def _one(params, masks, *, bias):
    return masks


def _other(params, masks, *, bias):
    return params


REFUSED = {
    "taken": (lambda: config.register_score("mine", _other), "registered already"),
    "other options": (lambda: config.register_score("mine", _one), "other options"),
    "built in": (lambda: config.register_score("magnitude", _one), "already"),
    "need": (lambda: config.register_score("b", _one, needs=("los",)), r"needs:.*los"),
    "a field": (
        lambda: config.register_method("b", _one, options={"sparsity": 0.1}),
        "sparsity",
    ),
    "type of option": (
        lambda: config.register_score("b", _one, options={"x": None}),
        r"options \['x'\]",
    ),
    "name": (lambda: config.register_model("a-b", _one), "letters, digits"),
    "argument": (
        lambda: config.register_method("b", _one, arguments=("sparsty",)),
        "arguments:.*sparsty",
    ),
    "attribute": (lambda: config.register_method("b", _one, seed=1), "MethodSpec"),
    "record": (lambda: config.register_method("b", _one, mask_updates=1), "MethodSpec"),
    "layer": (lambda: config.register_model("b", _one, takes=("nrm",)), "takes:.*nrm"),
    "remove": (lambda: config.SCORES.remove("magnitude"), "remove: expected one of"),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_registered(call: Callable[[], object], words: str) -> None:
    before = [dict(registry) for registry in (config.SCORES, config.METHODS)]
    with pytest.raises(ValueError, match=words):
        call()
    assert [dict(registry) for registry in (config.SCORES, config.METHODS)] == before


def test_no_function() -> None:
    with pytest.raises(TypeError, match="function"):
        config.register_score("b", 3)


FILE = """from jaxsparse import config

@config.register_score("kept_one", label="mine: kept", options={"power": 2.0})
def score(params, masks, *, power):
    return masks
"""


def test_a_kept_file_is_executed_once_and_a_changed_one_refused(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "registered"
    folder.mkdir()
    (folder / "my.py").write_text(FILE)
    config.kept.execute(tmp_path)
    c = config.default()
    assert c.sparse.power == 2.0
    c.sparse.pai_score = "kept_one"
    assert config.kept.sources(c) == {"my.py": FILE}
    first = config.SCORES["kept_one"].function
    config.kept.execute(tmp_path)
    assert config.SCORES["kept_one"].function is first
    (folder / "copy.py").write_text(FILE + "\n# a remark\n")
    config.kept.execute(tmp_path)  # the same function, of another file
    described = config.describe()["score"]["kept_one"]
    assert described["label"] == "mine: kept"
    (folder / "other.py").write_text(FILE.replace("return masks", "return params"))
    with pytest.raises(ValueError, match=r"other\.py: .*registered already"):
        config.kept.execute(tmp_path)
    there = sorted(path.name for path in folder.iterdir())
    assert there == ["copy.py", "my.py", "other.py"]  # and nothing compiled


def test_unused_files_are_not_kept() -> None:
    assert config.kept.sources(config.default()) == {}


def test_options_of_the_packages_own_entries_are_fields() -> None:
    # Only options of users' entries are added to configs.
    c = config.default()
    for registry in config.REGISTRIES:
        for name in registry:
            missing = registry[name].options.keys() - set(c[registry.section])
            assert not missing, (registry.kind, name)
