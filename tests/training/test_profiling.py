"""What runs cost: programs compiled, memory, and traces."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from helpers import tiny

from jaxsparse import factory, models
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.training import profiling

FIELDS = {"replicates": 1, "model.features": (9,), "run.steps_per_call": 6}


def times(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["kind"] == "timing"]


def test_programs_are_counted_when_they_are_compiled() -> None:
    x = jnp.arange(7.0)
    jax.block_until_ready(x)
    spent = profiling.CostTracker()
    assert spent.so_far()["programs"] == 0
    fn = jax.jit(lambda x: jnp.tanh(x) * 1.2345)
    fn(x)
    first = spent.so_far()
    assert first["programs"] == 1 and first["compile_seconds"] > 0
    fn(x)
    assert spent.so_far()["programs"] == 1
    assert profiling.CostTracker().so_far()["programs"] == 0
    # What a Python process with JAX cannot do without, in bytes and not kilobytes.
    assert 2**26 < first["peak_host_bytes"] < 2**40


def test_the_most_that_any_device_used_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Device:
        def __init__(self, peak: int | None) -> None:
            self.peak = peak

        def memory_stats(self) -> dict[str, int] | None:
            return self.peak and {"peak_bytes_in_use": self.peak}

    for peaks, most in (((None, None), None), ((3, 5, None), 5)):
        devices = [Device(peak) for peak in peaks]
        monkeypatch.setattr(jax, "local_devices", lambda found=devices: found)
        assert profiling.CostTracker().so_far()["peak_device_bytes"] == most


class Plain(NamedTuple):
    """A run, and how often networks were traced until the start of each level."""

    folder: Path
    made: Experiment
    before_levels: list[int]
    in_all: int


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    folder, traced, before = tmp_path_factory.mktemp("plain"), [], []

    def count(apply: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, models.LeNet300100):
            traced.append(context.method_name)
        return apply(*args, **kwargs)

    def note(step: int, state: Any) -> None:
        del state
        if step == 0:
            before.append(len(traced))

    made = tiny.experiment(folder, FIELDS)
    with nn.intercept_methods(count):
        run_lib.run(made, tiny.desk(folder)._replace(callbacks=(note,)))
    return Plain(folder, made, before, len(traced))


def test_levels_share_their_programs(plain: Plain) -> None:
    first, second, third = plain.before_levels
    # No other test has such a network, so that nothing is compiled before.
    assert first < second == third == plain.in_all
    rows = times(plain.folder)
    # Level 1 is the first that prunes.
    assert rows[0]["programs"] > rows[1]["programs"] > rows[2]["programs"] == 0
    assert all(row["peak_host_bytes"] > 0 for row in rows)


# Names what a whole process compiles, of which nothing is compiled before.
COUNT = """
import sys
import jaxsparse, jax
from experiments import train

def note(event, seconds, fun_name="", **_):
    if event == "/jax/core/compile/backend_compile_duration":
        print(fun_name)

jax.monitoring.register_event_duration_secs_listener(note)
train.main(train.parse(sys.argv))
"""


def test_a_plain_run_compiles_few_programs(root: Path, tmp_path: Path) -> None:
    flags = ("--config=dense_digits:quick", f"--workdir={tmp_path}", "--noreport")
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *flags],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Keys and seeds, first weights, the state, keys of the stage, the order of the
    # examples, the steps, two sets that are evaluated, and what counts weights.
    programs = done.stdout.split()
    assert len(programs) <= 10, programs


def test_a_trace_is_written_once_and_changes_nothing(
    plain: Plain, tmp_path: Path
) -> None:
    tiny.run(tmp_path, FIELDS | {"run.trace": ("5step", "7step")})
    name = "level_02/ticket/last"
    tiny.check_equal(
        *(tiny.load(folder, name, plain.made) for folder in (plain.folder, tmp_path))
    )
    (trace,) = (tmp_path / "trace").rglob("*.xplane.pb")
    assert trace.stat().st_size > 0


@pytest.mark.parametrize(
    "span", [("5step",), ("5step", "5step"), ("5step", "13step"), ("1", "2", "3")]
)
def test_what_is_no_stretch_of_training_is_refused(
    span: tuple[str, ...], tmp_path: Path
) -> None:
    c = tiny.config({"run.trace": span})
    with pytest.raises(ValueError, match=r"^config\.run\.trace: "):
        factory.make_experiment(c, factory.load_data(c), tmp_path)
