import struct

import pytest
from tensorboardX.proto import event_pb2, plugin_hparams_pb2

from jaxsparse.training import tensorboard

PLACE = {"stage": "level_03/ticket", "level": 3, "variant": "ticket", "epoch": 2.0}


def read(folder):
    """The summaries of a folder's one file, with their steps."""
    (path,) = [path for path in folder.iterdir() if path.is_file()]
    data = path.read_bytes()
    while data:
        # Length, its checksum, that many bytes, theirs.
        (length,) = struct.unpack("<Q", data[:8])
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        yield from ((event.step, value) for value in event.summary.value)
        data = data[16 + length :]


def written(folder):
    """The scalars of a folder's one file: tag to step and value."""
    return {value.tag: (step, value.simple_value) for step, value in read(folder)}


def show(folder, *batches, **options):
    shown = tensorboard.TensorBoardWriter(folder, **options)
    for rows in batches:
        shown(rows)
    shown.close()
    return {
        str(path.parent.relative_to(folder)) for path in folder.rglob("events*") if path
    }


def test_a_run_of_tensorboard_is_a_replicate_of_a_variant_or_their_mean(tmp_path):
    def level(number, arm, accuracies):
        place = {"stage": f"level_{number:02d}/{arm}", "level": number, "variant": arm}
        return [
            {"kind": "level", **place, "step": 7, "epoch": 1.0, "replicate": r}
            | {
                "kept": 100 - number,
                "total": 100,
                "density": 1 - number / 100,
            }
            | {"layers": {"a/kernel": [30, 60]}, "effective_params": None}
            | {"test_accuracy": accuracy}
            for r, accuracy in enumerate(accuracies)
        ]

    curve = {"kind": "train", **PLACE, "step": 5}
    folders = show(
        tmp_path,
        [curve | {"replicate": r, "loss": loss} for r, loss in enumerate((1.0, 3.0))],
        level(3, "ticket", (0.5, 0.75)),
        level(3, "random_mask", (0.25, 0.5)),
        replicates=2,
        levels=4,
    )
    assert folders == {
        f"{arm}/{run}"
        for arm in ("ticket", "random_mask")
        for run in ("replicate_0", "replicate_1", "mean")
    }
    assert written(tmp_path / "ticket/mean") == {
        "level_03/train/loss": (5, 2.0),
        "levels/kept": (3, 97.0),
        "levels/total": (3, 100.0),
        "levels/density": (3, pytest.approx(0.97)),
        "levels/layers/a/kernel": (3, 0.5),
        "levels/test_accuracy": (3, 0.625),
        "by_weights/test_accuracy": (97, 0.625),
    }
    alone = written(tmp_path / "ticket/replicate_1")
    assert alone["levels/test_accuracy"] == (3, 0.75)
    assert alone["level_03/train/loss"] == (5, 3.0)
    control = written(tmp_path / "random_mask/mean")
    assert control["levels/test_accuracy"] == (3, 0.375)


def test_a_broken_replicate_is_in_no_mean(tmp_path):
    place = PLACE | {"stage": "level_00/ticket", "level": 0, "step": 5}
    losses, accuracies = (1.0, float("nan"), 3.0), (0.5, 0.125, 0.75)
    curve = [
        {"kind": "train", **place, "replicate": r, "loss": loss}
        for r, loss in enumerate(losses)
    ]
    ends = [
        {"kind": "level", **place, "replicate": r, "test_accuracy": accuracy}
        | ({"failed": True} if r == 1 else {})
        for r, accuracy in enumerate(accuracies)
    ]
    show(tmp_path, curve, ends, replicates=3)
    assert written(tmp_path / "ticket/mean") == {
        "train/loss": (5, 2.0),
        "result/test_accuracy": (5, 0.625),
    }
    broken = written(tmp_path / "ticket/replicate_1")
    assert broken["result/test_accuracy"] == (5, 0.125)


def test_counts_of_masks_become_fractions(tmp_path):
    place = PLACE | {"stage": "train", "level": 0}
    counts = {"kind": "mask_stats", **place, "step": 7, "replicate": 0}
    counts |= {"kept": 20, "total": 100, "ever_active": 30}
    counts |= {"layers": {"a/kernel": [15, 60], "b/kernel": [5, 40]}}
    ended = {"kind": "level", **place, "step": 9, "replicate": 0, "test_accuracy": 0.5}
    assert show(tmp_path, [counts], [ended]) == {"train"}
    assert written(tmp_path / "train") == {
        "masks/density": (7, pytest.approx(0.2)),
        "masks/ever_active": (7, pytest.approx(0.3)),
        "layers/a/kernel": (7, pytest.approx(0.25)),
        "layers/b/kernel": (7, pytest.approx(0.125)),
        "result/test_accuracy": (9, 0.5),
    }


@pytest.mark.parametrize("kind", ["gradient_norm", "mask_update"])
def test_norms_of_layers_are_shown_as_they_are(tmp_path, kind):
    place = PLACE | {"stage": "level_00/ticket", "level": 0, "step": 7, "replicate": 0}
    layers = {"a/kernel": 1.5, "b/kernel": 2.0}
    assert show(tmp_path, [{"kind": kind, **place, "norm": 2.5, "layers": layers}]) == {
        "ticket"
    }
    assert written(tmp_path / "ticket") == {
        f"{kind}/norm": (7, 2.5),
        f"{kind}/layers/a/kernel": (7, 1.5),
        f"{kind}/layers/b/kernel": (7, 2.0),
    }


def test_many_replicates_are_shown_by_their_mean(tmp_path):
    count = tensorboard.MOST_REPLICATES + 1
    row = {"kind": "train", **PLACE, "step": 5}
    rows = [row | {"replicate": r, "loss": float(r)} for r in range(count)]
    assert show(tmp_path, rows, replicates=count, levels=4) == {"ticket/mean"}
    shown = written(tmp_path / "ticket/mean")
    assert shown == {"level_03/train/loss": (5, (count - 1) / 2)}


def test_hyperparameters_are_those_of_the_plugin(tmp_path):
    given = {
        "optimizer.name": "adam",
        "data.batch_size": 60,
        "sparse.layer_sparsity": [[1, 2]],
    }
    row = {"kind": "train", **PLACE, "step": 5, "replicate": 0, "loss": 1.0}
    show(tmp_path, [row], replicates=2, levels=4, hyperparameters=given)
    assert len(list((tmp_path / "ticket/replicate_0").iterdir())) == 1
    found = {
        value.tag: plugin_hparams_pb2.HParamsPluginData.FromString(
            value.metadata.plugin_data.content
        )
        for _, value in read(tmp_path / "ticket/mean")
        if value.metadata.plugin_data.plugin_name == "hparams"
    }
    started = found["_hparams_/session_start_info"].session_start_info.hparams
    assert started["variant"].string_value == "ticket"
    assert started["optimizer.name"].string_value == "adam"
    assert started["data.batch_size"].number_value == 60
    assert started["sparse.layer_sparsity"].string_value == "[[1, 2]]"
    metrics = found["_hparams_/experiment"].experiment.metric_infos
    assert "levels/test_accuracy" in {metric.name.tag for metric in metrics}


def test_files_are_flushed_at_the_end_of_a_stage_and_seldom_within(
    tmp_path, monkeypatch
):
    flushed, now = [], [100.0]
    monkeypatch.setattr("os.fsync", flushed.append)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    shown = tensorboard.TensorBoardWriter(tmp_path, replicates=2, levels=4)
    place = PLACE | {"kind": "train"}

    def show_step(step):
        shown([place | {"step": step, "replicate": r, "loss": 1.0} for r in range(2)])
        return len(flushed)

    assert [show_step(step) for step in range(5)] == [0] * 5
    now[0] += tensorboard.FLUSH_SECONDS
    assert show_step(5) == 3  # two replicates and their mean
    assert len(written(tmp_path / "ticket/mean")) == 1
    assert [step for step, _ in read(tmp_path / "ticket/mean")] == list(range(6))
    assert [show_step(step) for step in range(6, 9)] == [3] * 3
    shown([PLACE | {"kind": "timing", "step": 8, "seconds": 2.0}])
    assert len(flushed) == 6
    assert len(list(read(tmp_path / "ticket/mean"))) == 10
    show_step(9)
    shown.close()
    assert len(list(read(tmp_path / "ticket/replicate_1"))) == 10


def test_a_full_disk_names_the_folder_when_files_are_flushed(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    shown = tensorboard.TensorBoardWriter(tmp_path)
    shown([PLACE | {"kind": "train", "step": 5, "loss": 1.0}])
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="ticket: expected a writable file, got No space"):
        shown([PLACE | {"kind": "timing", "step": 5, "seconds": 2.0}])
    monkeypatch.undo()  # there is space again
    shown.close()
    assert len(list(read(tmp_path / "ticket"))) == 2
