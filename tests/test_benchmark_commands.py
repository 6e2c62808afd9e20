"""Benchmarks of whole commands, of reading data, and of small programs."""

import os
import types
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import lth_digits as recipe
from experiments import studies
from experiments.benchmarks import (
    aims,
    bare_scan,
    commands,
    fixtures,
    lth_digits,
    mnist,
    passes,
    reading,
    reproduction,
    small_resnet,
    state_size,
    timing,
)
from experiments.benchmarks.timing import Job, Table
from jaxsparse import factory
from jaxsparse.data import cache_dir, datasets

BRIEF = {"seconds": 0.0, "repetitions": 2}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)


def unmeasured(table: Table, benchmark: str) -> list[str]:
    """The reasons for which rows of the summary have no number of this table."""
    rows = aims.summarize({table.title: table.data}, [benchmark]).rows
    assert rows
    return [row[3] for row in rows if row[3].startswith("not measured")]


def test_a_command_is_timed_to_its_first_line_and_to_its_end(tmp_path: Path) -> None:
    cache = tmp_path / "programs"
    words = "import os; print(os.environ['JAX_COMPILATION_CACHE_DIR']); print('end')"
    done = commands.run("-c", words, cache=cache)
    assert done.lines == [str(cache), "end"]
    assert 0 < done.first_line <= done.total


def test_a_command_can_be_stopped_after_its_first_line(tmp_path: Path) -> None:
    words = "import time; print('begin'); time.sleep(60)"
    done = commands.run("-c", words, cache=tmp_path, to_first_line=True)
    assert done.lines == ["begin"] and done.total < 60


@pytest.mark.parametrize("to_first_line", [False, True])
def test_a_command_that_fails_says_why(tmp_path: Path, to_first_line: bool) -> None:
    words = (
        "import sys; sys.exit(3)" if to_first_line else "raise ValueError('no room')"
    )
    with pytest.raises(RuntimeError, match="failed: " if to_first_line else "no room"):
        commands.run("-c", words, cache=tmp_path, to_first_line=to_first_line)


def test_the_main_job_is_timed_with_all_its_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A level takes four seconds, one of the second half six; nothing is compiled."""
    levels = []

    def run(*words: str, cache: Path) -> commands.Timed:
        (count,) = (int(w.partition("=")[2]) for w in words if "lottery.levels" in w)
        levels.append(count)
        return commands.Timed(0.0, 0.0, 4.0 * count + 2.0 * max(0, count - 11), [])

    jobs = {lth_digits.CALLS: Job(print, 0), lth_digits.BARE: Job(print, 0)}
    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(lth_digits, "training_jobs", lambda c: (jobs, [260, 260]))
    speeds = {lth_digits.CALLS: [50.0] * 2, lth_digits.BARE: [100.0] * 2}
    monkeypatch.setattr(timing, "interleave", lambda jobs, **how: speeds)
    (table,) = lth_digits.measure(**BRIEF)
    assert levels == [1, 1, 11, 21, 1, 11, 21]  # the first fills the cache
    assert table.data["seconds"][lth_digits.RUN] == [104.0] * 2
    assert table.data["growth"] == [1.5] * 2
    # 5 replicates of 520 steps.
    assert table.data["seconds"][lth_digits.CALLS] == [52.0] * 2
    assert table.data["share"]["not training"] == [0.5] * 2
    assert [row[0] for row in table.rows] == [lth_digits.RUN, *jobs]
    assert "520 steps of 5 replicates, scaled from turns of a stage, 260" in table.note
    assert unmeasured(table, "lth_digits") == []


def test_training_alone_has_all_steps_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compiles nothing: there is no initial state."""
    seen: list[int] = []
    called: list[int] = []

    def make(c: Any, dataset: Any) -> Any:
        made = factory.make_experiment(c, dataset, Path("unused"))
        return types.SimpleNamespace(experiment=made)

    def job(fixture: Any) -> Job:
        seen.append(fixture.experiment.trainer.loop.steps_per_call)
        return Job(called.append, 19 * 5)

    def scan(*_: Any, steps: int) -> Job:
        return Job(print, steps * 5)

    monkeypatch.setattr(fixtures, "make", make)
    monkeypatch.setattr(fixtures, "trainer_job", job)
    monkeypatch.setattr(bare_scan, "scan_job", scan)
    jobs, lengths = lth_digits.training_jobs(recipe.get_config("quick"))
    # A dense stage, and a ticket and three controls at each of two levels; 5 epochs.
    assert lengths == [5 * 19] * 9
    assert seen == [19]
    jobs[lth_digits.CALLS].run(2)  # two stages
    assert called == [2 * 5]
    # A stage of 5 replicates in each call.
    assert {name: job.work for name, job in jobs.items()} == {
        lth_digits.CALLS: 5 * 95,
        lth_digits.BARE: 5 * 95,
    }


def test_reading_has_a_new_cache_in_each_repetition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def load(name: str, *, data_dir: str) -> Any:
        seen.append((name, data_dir, os.environ[cache_dir.VARIABLE]))
        part = types.SimpleNamespace(images=np.zeros((2, 1, 1, 1), np.uint8))
        return types.SimpleNamespace(train=part, test=part)

    before = os.environ.get(cache_dir.VARIABLE)
    monkeypatch.setattr(datasets, "load", load)
    (table,) = reading.measure(**BRIEF, data_dir="here")
    assert [row[:2] for row in seen] == [
        *([("mnist", "here")] * 4 + [("cifar10", "here")] * 4),
    ]
    caches = [row[2] for row in seen][:4]
    assert caches[0] == caches[1] != caches[2] == caches[3]
    assert os.environ.get(cache_dir.VARIABLE) == before
    assert unmeasured(table, "reading") == []
    (table,) = reading.measure(**BRIEF)
    assert table.rows == [(reading.NO_DATA,)]


def test_studies_are_rerun_in_new_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(*words: str, cache: Path) -> commands.Timed:
        seen.append(words)
        return commands.Timed(0.0, 0.0, 7.0, [])

    monkeypatch.setattr(commands, "run", run)
    (table,) = reproduction.measure(**BRIEF, data_dir="here")
    assert table.data["seconds"]["tost"] == [7.0, 7.0]
    assert unmeasured(table, "reproduction") == []
    folders = [words[3] for words in seen]
    assert len({*folders}) == len(folders) == 2 * len(studies.NAMES)
    assert seen[0] == (
        *("experiments/reproduce.py", f"--study={studies.NAMES[0]}", "--scale=quick"),
        *(folders[0], "--data_dir=here"),
    )


def test_resnet_8_is_trained_alone_and_with_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compiles nothing: `test_mnist_rows_without_torch` trains by real jobs."""
    seen = []

    def make(c: Any, dataset: Any) -> Any:
        seen.append((c.model.name, c.model.width, c.replicates))
        assert dataset.train.images.shape == (16, 16, 16, 3)
        return types.SimpleNamespace(config=c)

    def job(fixture: Any) -> Job:
        c = fixture.config
        return Job(lambda count: None, c.run.steps_per_call * c.replicates)

    monkeypatch.setattr(fixtures, "make", make)
    monkeypatch.setattr(fixtures, "trainer_job", job)
    monkeypatch.setattr(mnist, "load_torch", lambda name: None)
    (table,) = small_resnet.measure(**BRIEF, batch_size=4, steps=4)
    assert seen == [("resnet_8", 8, 1), ("resnet_8", 8, 5)]
    assert [row[0] for row in table.rows] == [
        *("1 replicate", "5 replicates in one program", "PyTorch"),
    ]
    assert table.rows[-1][1].startswith("not installed")
    with_torch = {"milliseconds": {"PyTorch": [1.0, 2.0], **table.data["milliseconds"]}}
    assert unmeasured(table._replace(data=with_torch), "small_resnet") == []


def test_resnet_8_is_the_same_network_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    del torch
    (table,) = small_resnet.measure(
        seconds=0.0, repetitions=1, batch_size=2, steps=1, replicates=2
    )
    assert set(table.data["milliseconds"]) == {row[0] for row in table.rows}
    assert "(as expected)" in table.note


def test_one_pass_counts_the_scores_that_reach_the_threshold() -> None:
    scores = [jnp.array([[5, 10, 20]], jnp.int32), jnp.array([30, 0], jnp.int32)]
    assert passes.count_reached(scores, 10) == 3


def test_passes_of_a_selection_are_counted() -> None:
    """To select none takes no pass; ties take those of a second search."""
    apart, equal = jnp.arange(8.0).reshape(2, 4), jnp.ones((2, 4))
    none, few, more = (
        passes.count_passes({"a": scores}, count)
        for scores, count in ((apart, 0), (apart, 4), (equal, 4))
    )
    # Bisection over the 2**32 values of float32 makes at most 32 passes.
    assert none == 0 < few <= 32 < more


def test_passes_are_multiples_of_one_pass() -> None:
    shapes = {"a": (30, 20), "b": (50,)}
    assert passes.repeated({"a": (2,)}, 2) == {"copy0/a": (2,), "copy1/a": (2,)}
    (table,) = passes.measure(**BRIEF, sizes=(shapes,))
    assert [row[0] for row in table.rows] == ["650"]
    assert table.header[-1] == "counting passes"  # not all reads of the scores
    assert "Not among them are the conversion of the scores" in table.note
    assert "the comparison with the final threshold" in table.note
    found = table.data["650"]
    assert set(found["milliseconds"]) == {"jaxsparse.select", passes.PASS}
    assert set(found["passes"]) == {"jaxsparse.select"}
    assert found["counted"] >= 1


def test_the_state_of_an_optimizer_is_counted_in_bytes() -> None:
    params = {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4, jnp.bfloat16)}
    assert state_size.count_bytes(optax.sgd(0.1), params) == 0
    momentum = optax.sgd(0.1, momentum=0.9)
    assert state_size.count_bytes(momentum, params) == 4 * 12 + 2 * 4


def test_the_state_of_every_method_is_a_share_of_the_weights() -> None:
    shapes = {"a": (30, 20), "b": (50, 4)}
    (table,) = state_size.measure(**BRIEF, shapes=shapes)
    shares = table.data["share"]
    assert set(shares) == set(state_size.METHODS)
    packed = {name for name in shares if "packed" in name}
    both = {name for name in shares if f"{name}, packed masks" in packed}
    assert both == {"fixed", "magnitude, global", "RigL"} == {*shares} - packed
    # A byte for each weight of four bytes, or two bits; and a few scalars.
    for name, (share,) in shares.items():
        assert share == pytest.approx(1 / 16 if "packed" in name else 1 / 4, abs=0.01)
    assert "800 weights" in table.title
    assert not unmeasured(table, "state_size")
