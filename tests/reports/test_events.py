import struct

import pytest
from tensorboardX.proto import event_pb2

from jaxsparse.training import events

PLACE = {"stage": "level_00/ticket", "level": 0, "arm": "ticket", "epoch": 2.0}


def written(folder):
    """The scalars of a folder's one file: tag to step and value."""
    (path,) = [path for path in folder.rglob("*") if path.is_file()]
    data, found = path.read_bytes(), {}
    while data:
        # Length, its checksum, that many bytes, theirs.
        (length,) = struct.unpack("<Q", data[:8])
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            found[value.tag] = (event.step, value.simple_value)
        data = data[16 + length :]
    return found


def test_counts_of_masks_become_fractions(tmp_path):
    shown = events.Events(tmp_path)
    shown(
        {"kind": "masks", **PLACE, "step": 7, "replicate": 1}
        | {"kept": 20, "total": 100, "ever_active": 30}
        | {"layers": {"a/kernel": [15, 60], "b/kernel": [5, 40]}}
    )
    shown.close()
    assert written(tmp_path / "level_00/ticket") == {
        "masks/density/replicate_1": (7, pytest.approx(0.2)),
        "masks/ever_active/replicate_1": (7, pytest.approx(0.3)),
        "layers/a/kernel/replicate_1": (7, pytest.approx(0.25)),
        "layers/b/kernel/replicate_1": (7, pytest.approx(0.125)),
    }


def test_levels_lie_in_a_folder_of_their_own_without_what_is_missing(tmp_path):
    shown = events.Events(tmp_path)
    record = {"kind": "level", **PLACE, "level": 3, "step": 7, "replicate": 0}
    shown(record | {"kept": 20, "live": None, "layers": {"a": [1, 2]}})
    shown.close()
    assert written(tmp_path / "levels") == {"ticket/level/kept/replicate_0": (3, 20.0)}
