"""Corrupt checkpoints are moved aside by name, and the ones before them are loaded."""

import gc
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest
from helpers import tiny

from jaxsparse.training import checkpoints
from jaxsparse.training.state import TrainState

NAME = "level_03/ticket/last"
# Orbax abandons its other reads when one finds a corrupt file. They fail as they end.
ABANDONED = "Exception ignored.*(uvloop|orbax|_read_array_index)"
pytestmark = pytest.mark.filterwarnings(
    f"ignore:(?s){ABANDONED}:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module", autouse=True)
def abandoned_reads() -> Iterator[None]:
    """Waits for them, so that no test of another module is running when they fail."""
    yield
    gc.collect()
    time.sleep(0.1)


@pytest.fixture
def state(bench: Callable) -> TrainState:
    return bench("conv_norm", replicates=2).fresh


def largest(folder: Path) -> Path:
    # Of the arrays: their names and shapes are larger than so few weights.
    files = [path for path in folder.rglob("d/*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_corrupt_one_is_moved_aside_by_name(
    tmp_path: Path,
    state: TrainState,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    for number in range(2):
        checkpoints.save(tmp_path, NAME, state)
        victim = largest(tmp_path / NAME)
        if damage == "flip":
            flip(victim)
        elif damage == "truncate":
            victim.write_bytes(victim.read_bytes()[:100])
        else:
            victim.unlink()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert checkpoints.load(tmp_path, NAME, state) is None
        messages = [r.getMessage() for r in caplog.records if r.name != "absl"]
        (message,) = messages
        assert message.startswith(f"checkpoint {tmp_path / NAME}: corrupt (")
        assert message.endswith(f"passed over, and moved to last.corrupt-{number}")
        assert (tmp_path / f"{NAME}.corrupt-{number}").is_dir()
        # It was finished once, so its hash is still what must come out again.
        assert checkpoints.recorded_hash(tmp_path, NAME) == checkpoints.digest(state)
    checkpoints.save(tmp_path, NAME, state)
    saved = checkpoints.load(tmp_path, NAME, state)
    assert saved is not None
    tiny.check_equal(saved.state, state)


def test_content_that_is_sound_but_not_what_was_recorded_is_corrupt(
    tmp_path: Path, state: TrainState, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    path = tmp_path / f"{NAME}.json"
    note = json.loads(path.read_text())
    path.write_text(json.dumps(note | {"hash": "0" * 64}))
    assert checkpoints.load(tmp_path, NAME, state) is None
    assert "does not have the recorded hash" in caplog.text


def test_the_one_before_a_corrupt_one_is_found(
    tmp_path: Path, state: TrainState
) -> None:
    later = state._replace(step=jnp.int32(20))
    for name, each in [("a/step_000000010", state), ("a/step_000000020", later)]:
        checkpoints.save(tmp_path, name, each)
    names = checkpoints.within(tmp_path, "a")
    assert names == ["a/step_000000020", "a/step_000000010"]
    assert checkpoints.within(tmp_path, "b") == []
    flip(largest(tmp_path / names[0]))
    found = [checkpoints.load(tmp_path, name, state) for name in names]
    assert found[0] is None
    assert found[1] is not None
