"""Training on images that stay in files: the same pixels however the work is cut."""

import functools
import json
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.images import write_tree
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import factory, multihost
from jaxsparse.data import datasets, image_files
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.data.image_files import StoredImages
from jaxsparse.factory import eval_fns, example_scores
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.runner.task import first_state
from jaxsparse.training import (
    chunk_plan,
    input_pipeline,
    mesh,
    preemption,
    state_sharding,
)

SIZE = 8


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_tree(folder)  # 24 images to train on, and 9
    return folder


def load(tree: Path) -> Dataset:
    return datasets.load("imagenet", data_dir=str(tree), size=SIZE)


def config(tree: Path, fields: dict[str, Any] | None = None) -> ConfigDict:
    """16 of 24 images in batches of 4, 8 steps of a network that compiles fast."""
    c = tiny.config(
        {
            "data.name": "imagenet",
            "data.dir": str(tree),
            "data.image_size": SIZE,
            "data.flip": True,
            "data.batch_size": 4,
            "data.validation": 8,
            "data.train_examples": 0,
            "data.test_examples": 0,
            "evaluation.batch_size": 4,
            "lottery.levels": 0,
            "model.features": (8,),
        }
        | (fields or {})
    )
    config_lib.validate(c)
    factory.check_names(c)
    return c


def experiment(tree: Path, folder: Path, fields: dict[str, Any]) -> Experiment:
    c = config(tree, fields)
    return factory.make_experiment(c, factory.load_data(c), folder)


def gathered(
    tree: Path, *, replicates: int, devices: int, lengths: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of an epoch of 24 images in batches of 4, [r s b ...]."""
    every = load(tree).train
    layout = mesh.make_layout(replicates=replicates, batch_sizes=[4], devices=devices)
    order = np.stack([np.random.default_rng(r).permutation(24) for r in range(2)])
    order = order[:replicates]
    words = np.arange(2 * replicates, dtype=np.uint32).reshape(replicates, 2)
    stream = input_pipeline.HostFeed(
        every, lambda *_: order, layout, lambda n: max(n, 2)
    )
    images, labels, first = [], [], 0
    groups, parts = layout.mesh.devices.shape
    for length in lengths:
        call = chunk_plan.ScanChunk(0, length, 3, first * 4, 4)
        shares = stream.gather(order, call, words=words)
        for leaves, field in ((images, "images"), (labels, "labels")):
            each = [getattr(share, field)[:, :length] for share in shares]
            rows = [
                np.concatenate(each[g * parts : (g + 1) * parts], axis=2)
                for g in range(groups)
            ]
            leaves.append(np.concatenate(rows))
        first += length
    return np.concatenate(images, axis=1), np.concatenate(labels, axis=1)


def test_pixels_do_not_depend_on_calls_or_devices(tree: Path) -> None:
    seen, labels = gathered(tree, replicates=2, devices=1, lengths=[1] * 6)
    for devices, lengths in ((1, [6]), (2, [4, 2]), (4, [2, 3, 1])):
        again = gathered(tree, replicates=2, devices=devices, lengths=lengths)
        np.testing.assert_array_equal(again[0], seen)
        np.testing.assert_array_equal(again[1], labels)
    # One replicate is what it is among two.
    alone, _ = gathered(tree, replicates=1, devices=4, lengths=[6])
    np.testing.assert_array_equal(alone[0], seen[0])
    # And all of it is what the key, the epoch and the place say.
    every = load(tree).train.images
    for r in range(2):
        order = np.random.default_rng(r).permutation(24)
        words = np.tile(np.arange(2 * r, 2 * r + 2, dtype=np.uint32), (24, 1))
        wanted = every.crops(order, words=words, epoch=3, places=np.arange(24))
        np.testing.assert_array_equal(seen[r].reshape(wanted.shape), wanted)


def test_epochs_and_replicates_see_other_parts_of_an_image(tree: Path) -> None:
    every = load(tree).train.images
    part = functools.partial(every.crops, np.array([0]))
    asked = [([1, 2], 0, 5), ([1, 2], 1, 5), ([1, 3], 0, 5), ([1, 2], 0, 6)]
    seen = {
        part(
            words=np.array([words], np.uint32), epoch=number, places=np.array([place])
        ).tobytes()
        for words, number, place in asked
    }
    assert len(seen) == 4


class Asked:
    """Counts what is decoded, and notes by which key parts were drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.viewed, self.cut = 0, 0
        self.lock = threading.Lock()
        plain_view, plain_crops = image_files.view, StoredImages.crops

        def view(*args: Any) -> Any:
            with self.lock:
                self.viewed += 1
            return plain_view(*args)

        def crops(images: Any, rows: Any, **more: Any) -> Any:
            with self.lock:
                self.cut += len(rows)
            return plain_crops(images, rows, **more)

        monkeypatch.setattr(image_files, "view", view)
        monkeypatch.setattr(StoredImages, "crops", crops)


def test_a_run_decodes_what_it_needs_and_no_more(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(monkeypatch)
    fields = {"replicates": 2, "run.steps_per_call": 2, "evaluation.every": "2ep"}
    fields |= {"sparse.method": "rigl", "sparse.sparsity": 0.5}
    fields |= {"sparse.update_every": "2step", "sparse.end_step": "6step"}
    fields |= {"sparse.grow_batch_size": 3}
    made = experiment(tree, tmp_path, fields)
    assert isinstance(made.trainer.feed, input_pipeline.HostFeed)
    assert made.trainer.execution_plan["examples"] == "host"
    assert (asked.viewed, asked.cut) == (3, 0)  # what is grown by
    run_lib.run(made, tiny.desk(tmp_path))
    # Two replicates see 16 images twice; 8 and 9 are evaluated at both ends.
    assert asked.cut == 2 * 2 * 16
    assert asked.viewed == 3 + 2 * (8 + 9)


@pytest.mark.parametrize("score", ["snip", "grasp"])
def test_scores_decode_their_examples_alone(
    score: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(monkeypatch)
    fields = {"sparse.method": "static", "sparse.pai_score": score, "replicates": 1}
    fields |= {"sparse.score_batches": 2, "sparse.score_batch_size": 3}
    made = experiment(tree, tmp_path, fields | {"sparse.sparsity": 0.9})
    seeds = made.seeds
    params, stats = made.task.initialize(seeds.init)
    made.task.first_masks(params, stats, seeds)
    assert (asked.viewed, asked.cut) == (6, 0)


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] != "timing"]


def test_a_run_is_the_same_in_calls_of_any_length_and_goes_on_where_it_was_stopped(
    tree: Path, tmp_path: Path
) -> None:
    fields = {"run.checkpoint_every": "2step", "run.steps_per_call": 2}
    whole = experiment(tree, tmp_path / "whole", fields)
    run_lib.run(whole, tiny.desk(tmp_path / "whole"))
    asked = iter([False, True])
    with pytest.raises(preemption.Preempted):
        run_lib.run(
            whole,
            tiny.desk(tmp_path / "cut", lambda: next(asked, True)),
        )
    assert metrics(tmp_path / "cut") != metrics(tmp_path / "whole")
    run_lib.run(whole, tiny.desk(tmp_path / "cut"))
    longer = experiment(tree, tmp_path / "long", {"run.steps_per_call": 4})
    run_lib.run(longer, tiny.desk(tmp_path / "long"))
    name = "train/last"
    ends = [
        tiny.load(tmp_path / folder, name, whole) for folder in ("whole", "cut", "long")
    ]
    for other in ends[1:]:
        tiny.check_equal(ends[0], other)
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_evaluation_is_that_of_the_same_images_in_memory(
    tree: Path, tmp_path: Path
) -> None:
    c = config(tree)
    data = factory.load_data(c)
    in_memory = data._replace(
        **{
            name: Examples(np.asarray(part.images), part.labels)
            for name, part in data._asdict().items()
            if name in ("train", "validation", "test")
        }
    )
    scores = []
    for dataset in (data, in_memory):
        made = factory.make_experiment(c, dataset, tmp_path)
        state = state_sharding.to_checkpoint_layout(
            made.trainer.layout,
            jax.jit(functools.partial(first_state, made.task))(made.seeds),
        )
        scores.append(
            [jax.device_get(f(state)) for f in made.trainer.evaluate.values()]
        )
    tiny.check_equal(*scores)


@pytest.mark.parametrize("where", ["device", "sharded"])
def test_images_in_files_lie_on_no_device(
    where: str, tree: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError,
        match=f"config.run.data_placement: expected 'host' .*got '{where}'",
    ):
        experiment(tree, tmp_path, {"run.data_placement": where})


def test_a_random_part_is_taken_once(tree: Path) -> None:
    with pytest.raises(ValueError, match="config.data.crop_pad: expected 0 .*got 4"):
        config(tree, {"data.crop_pad": 4})


def test_what_is_not_to_be_in_memory_is_refused_before_training(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = SIZE * SIZE * 3
    fields = {"instability.copies": 2, "instability.start_steps": ("2step",)}
    fields |= {"instability.examples": 5}
    monkeypatch.setattr(image_files, "MAX_NBYTES", 9 * image)  # the test set has 9
    experiment(tree, tmp_path, fields)
    monkeypatch.setattr(image_files, "MAX_NBYTES", 8 * image)
    asked = Asked(monkeypatch)
    words = r"images: expected .*got 9 of 8x8 .*test_examples.*data\.image_size"
    with pytest.raises(ValueError, match=words):
        experiment(tree, tmp_path, fields)
    assert asked.viewed == 5
    fields |= {"data.test_examples": 8, "instability.examples": 0}
    with pytest.raises(ValueError, match="images: expected .*got 16 of"):
        experiment(tree, tmp_path, fields)
    made = eval_fns.make_eval_fns(config(tree), load(tree), {})
    with pytest.raises(ValueError, match="images: expected .*got 24 of"):
        example_scores.example_barriers(
            made, [({}, {})] * 2, load(tree).train, batch_size=4
        )
    assert load(tree).train.images[:].shape == (24, SIZE, SIZE, 3)


def test_hosts_must_have_the_same_files(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(multihost, "is_multiprocess", lambda: True)
    monkeypatch.setattr(multihost, "on_all", lambda thing: thing is not None)
    monkeypatch.setattr(
        multihost,
        "broadcast_from_primary",
        lambda find: heard.append(find()) or heard[0],
    )
    factory.load_data(config(tree))
    write_tree(tmp_path / "same")
    factory.load_data(config(tmp_path / "same"))  # they may lie elsewhere
    write_tree(tmp_path / "other")
    folder = tmp_path / "other" / "imagenet" / "val" / "bee"
    (folder / "001.JPEG").rename(folder / "002.JPEG")
    with pytest.raises(ValueError, match=r"config.data.dir: .*the same files .*other"):
        factory.load_data(config(tmp_path / "other"))
    assert len(set(heard)) == 2


def test_a_damaged_image_stops_training_by_its_name(tmp_path: Path) -> None:
    write_tree(tmp_path)
    path = tmp_path / "imagenet" / "train" / "ant" / "000.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    fields = {"data.validation": 0, "data.batch_size": 8, "replicates": 1}
    made = experiment(tmp_path, tmp_path / "run", fields)
    with pytest.raises(ValueError, match="ant/000.JPEG: expected .*got a damaged"):
        run_lib.run(made, tiny.desk(tmp_path / "run"))
