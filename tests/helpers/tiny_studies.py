"""Studies so small that tests can train all their runs in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import tiny

from experiments.studies import launcher
from experiments.studies.runs import Run
from jaxsparse import config as config_lib
from jaxsparse import factory
from jaxsparse.data.data_pruning import score_files
from jaxsparse.data.data_pruning import scores as scores_lib
from jaxsparse.factory import example_scores
from jaxsparse.runner import run as run_lib

PLAIN = {"model.features": (8,), "data.validation": 0}


def as_tiny(patch: pytest.MonkeyPatch, variants: ModuleType, runs: list[Run]) -> None:
    """Makes these the runs of a study's one network, on digits, whatever the scale."""
    patch.setattr(variants, "NETWORKS", ("mnist",))
    patch.setattr(variants, "of_network", lambda network, scale: runs)
    patch.setattr(launcher, "read", lambda run: tiny.config(PLAIN | run.overrides))
    patch.setattr(launcher, "launch", train)
    patch.setattr(launcher, "_score", score)


def train(
    run: Run,
    workdir: Path,
    data_dir: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Trains a run to its end, or until it is asked to stop, as train.py would."""
    del data_dir
    c = launcher.read(run)
    config_lib.validate(c)
    factory.check_names(c)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(c.to_json())
    made = factory.make_experiment(c, factory.load_data(c), workdir)
    began = json.dumps({"arrangement": dict(made.trainer.execution_plan)})
    (workdir / "environment.json").write_text(began)
    run_lib.run(made, tiny.desk(workdir, should_stop))
    return 0


def score(run: Run, name: str, workdir: Path, out: Path, data_dir: str) -> int:
    """Scores as score_data.py would."""
    del run, data_dir
    opened = factory.open_run(workdir)
    state = factory.load_state(opened, "level_00/ticket/last")
    functions = factory.make_eval_fns(opened.config, opened.dataset, {})
    each = example_scores.score_logits(
        functions,
        example_scores.weights(state),
        opened.dataset.train,
        score=name,
        batch_size=50,
        how="map",
    )
    provenance = score_files.describe(
        opened.dataset.train.labels,
        score=name,
        dataset="digits",
        split="train",
        replicates=len(each),
        step=int(state.step),
        config=config_lib.digest(opened.config),
    )
    score_files.save(out, scores_lib.mean_over_replicates(each), provenance=provenance)
    return 0


def contents(folder: Path, *suffixes: str) -> dict[str, bytes]:
    """Reads all files of a folder with these suffixes."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix in suffixes
    }


def spread(values: Any) -> tuple[float, float]:
    """Averages, with the sample deviation, in plain numpy."""
    return float(np.mean(values)), float(np.std(values, ddof=1))
