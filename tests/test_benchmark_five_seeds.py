"""The benchmark of ways to train five seeds; its processes are threads here."""

import multiprocessing
import os
import threading
from typing import Any

import pytest

from experiments.benchmarks import five_seeds, fixtures, small_resnet, timing
from experiments.benchmarks.five_seeds import Way
from experiments.benchmarks.timing import Job

if not hasattr(os, "sched_setaffinity"):
    pytest.skip("no cores can be given to processes here", allow_module_level=True)
HERE = tuple(sorted(os.sched_getaffinity(0)))


def test_one_process_has_all_cores_or_each_core_has_a_process() -> None:
    assert [way[1:] for way in five_seeds.ways([2, 5, 7])] == [
        *((((2, 5, 7),), n) for n in (1, 5)),
        *((((2,), (5,), (7,)), n) for n in (1, 5)),
    ]


def test_rates_of_processes_at_the_same_time_are_added_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    pipes = [multiprocessing.Pipe() for _ in range(2)]
    for rate, (_, theirs) in zip((3.0, 4.5), pipes, strict=True):
        theirs.send(rate)
    assert five_seeds.take_turn([ours for ours, _ in pipes], 0.5) == 7.5
    assert [theirs.recv() for _, theirs in pipes] == [0.5, 0.5]


@pytest.mark.parametrize("answers", [0, 1])
def test_a_process_that_has_ended_is_named_as_the_reason(
    answers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends before it is asked, or after one turn."""
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    ours, theirs = multiprocessing.Pipe()
    for _ in range(answers):
        theirs.send(1.0)
        assert five_seeds.take_turn([ours], 0.5) == 1.0
    theirs.close()
    with pytest.raises(RuntimeError, match="a process ended before its turn"):
        five_seeds.take_turn([ours], 0.5)


def test_a_process_that_ends_in_its_turn_is_named_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    ours, theirs = multiprocessing.Pipe()

    def ends() -> None:
        theirs.recv()
        theirs.close()

    thread = threading.Thread(target=ends)
    thread.start()
    with pytest.raises(RuntimeError, match="a process ended before its turn"):
        five_seeds.take_turn([ours], 0.5)
    thread.join(timeout=10)


def test_one_core_has_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(five_seeds.os, "sched_getaffinity", lambda process: {3})
    (table,) = five_seeds.measure(seconds=0.0)
    assert table.rows == [("not measured: one core cannot be divided among processes",)]


def test_of_many_cores_some_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    class Asked(Exception):
        pass

    def ways(cores: list[int]) -> list[Way]:
        used.extend(cores)
        raise Asked

    monkeypatch.setattr(five_seeds, "ways", ways)
    monkeypatch.setattr(
        five_seeds.os, "sched_getaffinity", lambda process: {*range(64)}
    )
    with pytest.raises(Asked):
        five_seeds.measure(seconds=0.0)
    assert used == [*range(five_seeds.MOST_CORES)]


def test_processes_train_when_asked_to_until_they_are_told_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five seeds in a program count five times."""
    threads: list[threading.Thread] = []
    settings: list[tuple[int, int, int]] = []

    def resnet_8(count: int, *, batch_size: int, steps: int) -> int:
        settings.append((count, batch_size, steps))
        return count * steps

    def start(way: Way) -> list[Any]:
        connections = []
        for _ in way.processes:
            ours, theirs = multiprocessing.Pipe()
            arguments = (theirs, HERE, way.replicates)
            threads.append(threading.Thread(target=five_seeds.serve, args=arguments))
            threads[-1].start()
            connections.append(ours)
        return connections

    seconds = iter(range(100))
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setattr(small_resnet, "resnet_8", resnet_8)
    monkeypatch.setattr(fixtures, "trainer_job", lambda n: Job(lambda _: None, n))
    monkeypatch.setattr(five_seeds, "start", start)
    # Each call takes a second of this clock, which one process reads at a time.
    monkeypatch.setattr(five_seeds.time, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(five_seeds.os, "sched_getaffinity", lambda process: {0, 1})
    one = [Way("one", (HERE,), 1), Way("five", (HERE,), 5)]
    monkeypatch.setattr(five_seeds, "ways", lambda cores: one)
    (table,) = five_seeds.measure(seconds=0.0, repetitions=2)
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert settings == [(1, 128, 10), (5, 128, 10)]
    assert table.data["rates"] == {"one": [10.0, 10.0], "five": [50.0, 50.0]}
    ratios = ["0.20 (0.20 to 0.20)", "1.00 (1.00 to 1.00)"]
    assert [row[2] for row in table.rows] == ratios


def test_on_other_devices_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixtures, "on_cpu", lambda: False)
    (table,) = five_seeds.measure(seconds=0.0)
    assert table.rows == [("not measured: only on CPUs",)]
