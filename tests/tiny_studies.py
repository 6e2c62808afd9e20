"""Studies so small that tests can train all their runs in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny

from experiments.studies import launching
from experiments.studies.runs import Run
from jaxsparse import build
from jaxsparse import config as config_lib
from jaxsparse.build import scoring
from jaxsparse.data.diet import files, scores
from jaxsparse.lottery import experiment as experiment_lib

PLAIN = {"model.features": (8,), "data.validation": 0}


def as_tiny(patch: pytest.MonkeyPatch, arms: ModuleType, runs: list[Run]) -> None:
    """Makes these the runs of a study's one network, on digits, whatever the scale."""
    patch.setattr(arms, "NETWORKS", ("mnist",))
    patch.setattr(arms, "of_network", lambda network, scale: runs)
    patch.setattr(arms, "runs", lambda scale: runs)
    patch.setattr(launching, "read", lambda run: tiny.config(PLAIN | run.overrides))
    patch.setattr(launching, "launch", train)
    patch.setattr(launching, "_score", score)


def train(
    run: Run,
    workdir: Path,
    data_dir: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Trains a run to its end, or until it is asked to stop, as train.py would."""
    del data_dir
    c = launching.read(run)
    config_lib.validate(c)
    build.check_names(c)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(c.to_json())
    made = build.make_experiment(c, build.load_data(c), workdir)
    began = json.dumps({"arrangement": dict(made.trainer.arrangement)})
    (workdir / "environment.json").write_text(began)
    experiment_lib.run(made, tiny.desk(workdir, should_stop))
    return 0


def score(run: Run, name: str, workdir: Path, out: Path, data_dir: str) -> int:
    """Scores as score_data.py would."""
    del run, data_dir
    opened = build.open_run(workdir)
    state = build.load_state(opened, "level_00/ticket/last")
    functions = build.make_functions(opened.config, opened.dataset, {})
    each = scoring.score_logits(
        functions,
        scoring.weights(state),
        opened.dataset.train,
        score=name,
        batch_size=50,
        how="map",
    )
    provenance = files.describe(
        opened.dataset.train.labels,
        score=name,
        dataset="digits",
        split="train",
        replicates=len(each),
        step=int(state.step),
        config=config_lib.digest(opened.config),
    )
    files.save(out, scores.mean_over_replicates(each), provenance=provenance)
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
