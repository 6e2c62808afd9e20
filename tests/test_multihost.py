"""One process or many: what joins them, and what only the first does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import launchers, multihost
from jaxsparse.training import preemption, signals

COORDINATOR, COUNT, NUMBER = launchers.BY_HAND
BY_HAND = {COORDINATOR: "10.0.0.1:1234", COUNT: "4", NUMBER: "3"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, None),  # within an allocation, not started by srun
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_STEP_NUM_TASKS": "8"}, {}),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {}),
        (
            BY_HAND | {"SLURM_STEP_NUM_TASKS": "8"},
            {
                "coordinator_address": "10.0.0.1:1234",
                "num_processes": 4,
                "process_id": 3,
                "cluster_detection_method": "deactivate",
            },
        ),
    ],
)
def test_what_is_joined_is_what_the_environment_shows(
    environment: dict[str, str], found: dict[str, Any] | None
) -> None:
    assert launchers.cluster(environment) == found


def test_a_tpu_is_known_by_its_chips_unless_it_is_not_wanted(tmp_path: Path) -> None:
    (tmp_path / "accel0").touch()
    chips = ("/nowhere/accel0", str(tmp_path / "accel0"))
    for platforms, found in (("", True), ("tpu,cpu", True), ("cpu", False)):
        assert launchers.on_tpu({"JAX_PLATFORMS": platforms}, chips=chips) is found
    assert not launchers.on_tpu({}, chips=chips[:1])


def test_joining_asks_jax_and_words_what_it_cannot_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    def initialize(**arguments: Any) -> None:
        asked.append(arguments)
        if not arguments:
            raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(multihost.launch, "on_tpu", lambda environment: False)
    multihost.initialize({})
    assert asked == []
    multihost.initialize(BY_HAND)
    assert asked.pop()["process_id"] == 3
    with pytest.raises(
        ValueError, match=f"expected a cluster.*should be defined.*{COORDINATOR}"
    ):
        multihost.initialize({"OMPI_COMM_WORLD_SIZE": "2"})
    # A single TPU host that knows of no others goes on alone.
    monkeypatch.setattr(multihost.launch, "on_tpu", lambda environment: True)
    multihost.initialize({})
    assert asked == [{}, {}]


def test_only_a_certain_first_process_calls_itself_first() -> None:
    alone = {"JAX_PLATFORMS": "cpu"}
    assert launchers.is_first(alone)
    assert launchers.is_first(alone | BY_HAND | {NUMBER: "0"})
    assert not launchers.is_first(alone | BY_HAND)
    assert not launchers.is_first(alone | {"OMPI_COMM_WORLD_SIZE": "2"})


def test_asking_for_other_processes_starts_no_backend(root: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from jax._src import xla_bridge\n"
        "from jaxsparse import multihost\n"
        "from jaxsparse.runner import records\n"
        "assert multihost.is_primary() and not multihost.is_multiprocess()\n"
        "assert not records.has_ended(Path('/nowhere'), levels=1)\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)


def test_a_notice_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    # JAX says so for one number only, and that may be the last of a stage.
    monkeypatch.setattr(multihost, "is_multiprocess", lambda: True)
    reached = preemption.multihost_utils
    monkeypatch.setattr(reached, "reached_preemption_sync_point", lambda n: n == 2)
    with preemption.listening() as asked:
        found = [asked() for _ in range(5)]
    assert found == [0, 0, *[signal.SIGTERM] * 3]


def test_a_notice_outside_of_training_ends_the_process() -> None:
    old = signal.getsignal(signal.SIGTERM)
    signals.end_when_told()
    try:
        with preemption.listening() as asked:
            assert asked() == 0
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        assert ended.value.code == 75
    finally:
        signal.signal(signal.SIGTERM, old)


def test_a_notice_before_training_may_be_started_again(root: Path) -> None:
    script = (
        "import os, signal\n"
        "from experiments import train, training\n"
        "training.multihost.initialize = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
        "train.main(train.parse(['train.py', '--config=tests/helpers/tiny.py']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (75, "")
    assert "stopped outside of training" in done.stderr


@pytest.mark.parametrize("missing", launchers.BY_HAND)
def test_half_a_cluster_is_refused(missing: str) -> None:
    given = {name: value for name, value in BY_HAND.items() if name != missing}
    with pytest.raises(ValueError, match=f"^{missing}: expected all of .*got only"):
        launchers.cluster(given)


@pytest.mark.parametrize("number", ["4", "-1", "one"])
def test_a_number_beyond_the_count_is_refused(number: str) -> None:
    with pytest.raises(
        ValueError, match=f"{NUMBER}: expected .*got '{number}' with {COUNT}='4'"
    ):
        launchers.cluster(BY_HAND | {NUMBER: number})


def test_one_process_does_all_itself(tmp_path: Path) -> None:
    assert multihost.is_primary() and not multihost.is_multiprocess()
    assert multihost.broadcast_from_primary(lambda: {"a": 1}) == {"a": 1}
    multihost.on_primary((tmp_path / "made").touch)
    assert (tmp_path / "made").exists()
    with pytest.raises(OSError, match="nowhere"):
        multihost.broadcast_from_primary(lambda: Path("/nowhere").read_text())
    tree = {"a": jnp.arange(3), "b": None}
    assert multihost.to_local(tree) is tree
    fetched = multihost.to_host(tree)
    assert isinstance(fetched["a"], np.ndarray) and fetched["a"].tolist() == [0, 1, 2]
    assert multihost.on_all(0) and not multihost.on_all(None)
    assert multihost.run_on_all(lambda: 3) == 3
    with pytest.raises(KeyError, match="gone"):
        multihost.run_on_all(lambda: {}["gone"])


def test_a_tree_is_fetched_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched, get = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda x: fetched.append(x) or get(x))
    tree = {"a": [jnp.arange(3), np.arange(2)], "b": None, "c": (0.5, jnp.float32(2))}
    got = multihost.to_host(tree)
    assert len(fetched) == 1
    assert jax.tree.structure(got) == jax.tree.structure(tree)
    for leaf, original in zip(jax.tree.leaves(got), jax.tree.leaves(tree), strict=True):
        assert not isinstance(leaf, jax.Array)
        np.testing.assert_array_equal(leaf, original)


def test_put_takes_keys_and_trees_of_shardings() -> None:
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    over = jax.NamedSharding(mesh, jax.P("x"))
    everywhere = jax.NamedSharding(mesh, jax.P())
    tree = {"key": jax.random.split(jax.random.key(0), 4), "a": np.arange(4)}
    put = multihost.device_put(tree, {"key": over, "a": everywhere})
    assert put["key"].sharding.is_equivalent_to(over, 1)
    assert put["a"].sharding.is_equivalent_to(everywhere, 1)
    np.testing.assert_array_equal(put["a"], tree["a"])


# Below, whole runs in processes of their own, on 2 x 2 and other numbers of devices.

TRAIN = "experiments/train.py"
SECONDS = 240  # of a run, under any load
FIELDS = (
    "--config.data.batch_size=64",
    "--config.data.train_examples=640",
    "--config.data.test_examples=100",
    "--config.data.validation=0",
    "--config.run.tensorboard=false",
    "--noreport",
)
LOTTERY = (
    "--config=configs/lth_digits.py:quick",
    "--config.replicates=2",
    "--config.lottery.controls=('random_mask',)",
    "--config.training.duration=30step",
    "--config.evaluation.every=15step",
    "--config.run.checkpoint_every=5step",
    *FIELDS,
)
RIGL = (
    "--config=configs/rigl_mnist.py:quick",
    "--config.data.name=digits",
    "--config.replicates=1",  # so that all devices share its batches
    "--config.training.duration=200step",
    "--config.sparse.update_every=20step",
    "--config.sparse.grow_batch_size=320",
    "--config.evaluation.every=50step",
    "--config.run.checkpoint_every=20step",
    "--config.run.steps_per_call=5",
    # Over both processes; on one device there is nothing to divide.
    "--config.run.fsdp=true",
    "--config.run.fsdp_min_size=64",
    *FIELDS,
)
IN_LOTTERY = "level_01/ticket", "level_01/random_mask"  # where it is disturbed
WHOLE = "--config.run.fsdp=false"


def environment_of(root: Path, number: int, layout: tuple[int, int]) -> Any:
    """What one of so many processes, each with so many devices, is started with."""
    processes, devices = layout
    found = {k: v for k, v in os.environ.items() if k not in launchers.BY_HAND}
    found |= {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    found["JAX_NUM_CPU_DEVICES"] = str(devices)
    if processes > 1:
        found |= {COUNT: str(processes), NUMBER: str(number)}
    return found


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class Launch:
    """A run in so many processes, each with so many devices."""

    def __init__(
        self, root: Path, folder: Path, fields: tuple[str, ...], layout: tuple[int, int]
    ) -> None:
        processes, address = layout[0], free_address()
        self.folder = folder
        self.running, self.said = [], []
        for number in range(processes):
            said = folder.with_name(f"{folder.name}-{number}.log").open("w+")
            self.said.append(said)
            environment = environment_of(root, number, layout)
            if processes > 1:
                environment[COORDINATOR] = address
            command = [sys.executable, str(root / TRAIN), f"--workdir={folder}"]
            self.running.append(
                subprocess.Popen(
                    [*command, *fields],
                    cwd=root,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                )
            )

    def wait_for(self, pattern: str, besides: set[Path] = frozenset()) -> None:
        """Waits until a new file of that pattern is there."""
        patience = time.monotonic() + SECONDS
        while not set(self.folder.glob(pattern)) - besides:
            assert time.monotonic() < patience, "nothing came"
            assert all(process.poll() is None for process in self.running)
            time.sleep(0.02)

    def end(self) -> list[tuple[int, str]]:
        """Waits for all processes; returns with what each ended and what it said."""
        ends = []
        for process, said in zip(self.running, self.said, strict=True):
            try:
                process.wait(timeout=SECONDS)
            finally:
                process.kill()
            said.seek(0)
            ends.append((process.returncode, said.read()))
        self.close()
        return ends

    def finish(self) -> None:
        """Waits for all processes, which must end well."""
        for code, said in self.end():
            assert code == 0, said

    def close(self) -> None:
        for process, said in zip(self.running, self.said, strict=True):
            process.kill()
            process.wait()
            said.close()


@pytest.fixture
def launch(root: Path) -> Iterator[Any]:
    """Starts runs, and leaves none behind."""
    launched: list[Launch] = []

    def start(*arguments: Any) -> Launch:
        launched.append(Launch(root, *arguments))
        return launched[-1]

    yield start
    for each in launched:
        each.close()


def rows(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, but times."""
    text = (folder / "metrics.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    return [row for row in found if row["kind"] != "timing"]


def tickets(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Every ticket of a run, packed."""
    files = sorted((folder / "tickets").rglob("*.npz"))
    assert files
    return {
        str(path.relative_to(folder)): dict(np.load(path, allow_pickle=False))
        for path in files
    }


def check_same_tickets(one: Path, other: Path) -> None:
    first, second = tickets(one), tickets(other)
    assert first.keys() == second.keys()
    for name, masks in first.items():
        for leaf, bits in masks.items():
            np.testing.assert_array_equal(bits, second[name][leaf])


def apart(one: Path, other: Path) -> float:
    """The greatest part of a ticket's weights that another run chose otherwise."""
    first, second = tickets(one), tickets(other)
    assert first.keys() == second.keys()
    found = []
    for name, masks in first.items():
        packed = [leaf for leaf in masks if masks[leaf].dtype == np.uint8]  # no shapes
        bits = [
            np.concatenate([np.unpackbits(m[leaf]) for leaf in packed])
            for m in (masks, second[name])
        ]
        found.append(np.sum(bits[0] != bits[1]) / np.sum(bits[0]))
    print(f"{other.name}: {max(found):.2%} of a ticket's weights differ")
    return max(found)


def check_alike(one: Path, other: Path) -> None:
    """Checks what must be equal, however devices are arranged: all but last bits."""
    first, second = rows(one), rows(other)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            if name.endswith(("loss", "accuracy")) and value is not None:
                assert b[name] == pytest.approx(value, rel=2e-3, abs=0.03), (name, a, b)
            elif name != "effective_params":
                assert b[name] == value, (name, a, b)


def test_two_processes_agree(root: Path, tmp_path: Path) -> None:
    address, running = free_address(), []
    for number in range(2):
        environment = environment_of(root, number, (2, 2)) | {COORDINATOR: address}
        command = [sys.executable, str(root / "tests/two_processes.py"), str(tmp_path)]
        with (tmp_path / f"{number}.log").open("w") as said:
            running.append(
                subprocess.Popen(command, env=environment, stdout=said, stderr=said)
            )
    try:
        codes = [process.wait(timeout=SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    said = [(tmp_path / f"{number}.log").read_text() for number in range(2)]
    assert codes == [0, 0], "\n".join(said)


def stop_and_kill(
    launch: Any, folder: Path, fields: tuple[str, ...], stages: tuple[str, str]
) -> None:
    """Has a run of two processes stopped in one stage, and killed in another."""
    first, second = (f"checkpoints/{stage}/step_*.json" for stage in stages)
    # The notice comes to one process, and both stop between the same two calls.
    asked = launch(folder, fields, (2, 2))
    asked.wait_for(first)
    asked.running[1].send_signal(signal.SIGTERM)
    for code, said in asked.end():
        assert code == 75, said
    there = set(folder.glob(second))
    killed = launch(folder, fields, (2, 2))
    killed.wait_for(second, besides=there)
    killed.close()
    assert not (folder / "stages.json").exists()


@pytest.mark.campaign
def test_two_processes_find_the_tickets_of_one(launch: Any, tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    stop_and_kill(launch, two, LOTTERY, IN_LOTTERY)
    launch(two, LOTTERY, (2, 2)).finish()
    launch(one, LOTTERY, (1, 4)).finish()
    # Each replicate has the same two devices' worth of program in both.
    check_alike(two, one)
    check_same_tickets(two, one)
    environment = json.loads((two / "environment.json").read_text())
    assert environment["processes"] == 2 and len(environment["devices"]) == 4


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("fields", "stages"),
    [
        pytest.param(RIGL, ("train",) * 2, id="rigl"),
        pytest.param(LOTTERY, IN_LOTTERY, id="imp", marks=pytest.mark.campaign),
    ],
)
def test_a_run_of_two_processes_survives(
    launch: Any, tmp_path: Path, fields: tuple[str, ...], stages: tuple[str, str]
) -> None:
    whole, stopped, one = (tmp_path / name for name in ("whole", "stopped", "one"))
    launch(whole, fields, (2, 2)).finish()
    launch(one, fields, (1, 4)).finish()
    check_alike(whole, one)
    check_same_tickets(whole, one)
    stop_and_kill(launch, stopped, fields, stages)
    # Saved by two processes, and continued on other numbers of devices.
    for layout, more in (((1, 4), (WHOLE,)), ((2, 1), ())):
        other = tmp_path / str(layout)
        subprocess.run(["cp", "-r", stopped, other], check=True)
        launch(other, (*fields, *more), layout).finish()
        check_alike(whole, other)
        assert apart(whole, other) < 0.01
    launch(stopped, fields, (2, 2)).finish()
    assert rows(stopped) == rows(whole)
    check_same_tickets(stopped, whole)
