"""The runs of one network of the study, opened when something is asked of them."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.studies import launcher
from experiments.studies.gradient_flow import variants
from jaxsparse import factory, metrics_log, transforms
from jaxsparse.analysis import similarity
from jaxsparse.runner import old_runs
from jaxsparse.stages import saved_state_name

STAGE = "level_00/ticket"
END = variants.END


class Study:
    """The runs of one network that have ended, opened when they are first needed."""

    def __init__(self, folder: Path, network: str, scale: str, data_dir: str) -> None:
        """Finds the arms that have ended; opens none."""
        self.folder, self.network, self.scale = folder, network, scale
        self.data_dir = data_dir
        runs = {run.name: run for run in variants.runs(scale)}
        self.arms = [
            name
            for name in variants.arms(network, "")
            if launcher.has_ended(runs[f"{network}_{name}"], self._of(name))
        ]

    def _of(self, arm: str) -> Path:
        return self.folder / f"{self.network}_{arm}"

    @functools.cache  # noqa: B019 -- it lives as long as the process
    def run(self, arm: str) -> factory.TrainedRun:
        """Opens an arm."""
        # All arms see the same examples: they are read once.
        data = None if arm == "prune" else self.run("prune").dataset
        return factory.open_run(self._of(arm), data_dir=self.data_dir, dataset=data)

    def mark(self, *names: str) -> dict[str, str]:
        """Says by hash what arms ended with: what is measured on them belongs to it."""
        found = {
            arm: old_runs.recorded_hash(self._of(arm) / "checkpoints", END)
            for arm in names
        }
        return {arm: hash_ for arm, hash_ in found.items() if hash_}

    @functools.cache  # noqa: B019
    def state(self, arm: str, moment: str = END) -> Any:
        """Loads a state of an arm.

        Raises:
          ValueError: if it is lost, saying how to get it again.
        """
        try:
            return factory.load_state(self.run(arm), moment)
        except ValueError as error:
            raise ValueError(
                f"{error}; move {self._of(arm)} away, and the same command trains it "
                "again"
            ) from error

    def check(self) -> None:
        """Refuses arms that began with other masks than the pruned solution's.

        Raises:
          ValueError: naming the arm.
        """
        pruned = self.solution("prune", "end", 0).masks
        for arm in self.arms:
            if not self.run(arm).config.warm_start.masks:
                continue
            began = self.solution(arm, "start", 0).masks
            pairs = zip(jax.tree.leaves(began), jax.tree.leaves(pruned), strict=True)
            if not all(bool(jnp.array_equal(a, b)) for a, b in pairs):
                raise ValueError(
                    f"{self._of(arm)}: began with other masks than "
                    f"{self._of('prune')} ended with; wanted the same: move it away, "
                    "and the same command trains it again"
                )

    def solution(self, arm: str, moment: str, replicate: int) -> similarity.Solution:
        """Takes the weights and masks of one seed; "start", "end" or a checkpoint."""
        names = {"start": saved_state_name(STAGE, 0), "end": END}
        state = self.state(arm, names.get(moment, moment))
        held = (state.params, transforms.get_masks(state.opt_state))
        return similarity.Solution(*jax.tree.map(lambda leaf: leaf[replicate], held))

    @property
    def normalises(self) -> bool:
        """Whether the network has statistics of BatchNorm."""
        return bool(jax.tree.leaves(self.state("prune").batch_stats))

    def seeds(self, arm: str) -> range:
        """Numbers the seeds of an arm."""
        return range(self.run(arm).config.replicates)

    @functools.cache  # noqa: B019
    def functions(self, arm: str = "prune") -> factory.EvalFns:
        """Makes the functions of an arm's network, once: they are compiled once."""
        run = self.run(arm)
        stats = jax.tree.map(lambda leaf: leaf[0], self.state(arm).batch_stats)
        return factory.make_eval_fns(run.config, run.dataset, stats)

    def examples(self, count: int) -> tuple[Any, Any]:
        """Takes the first training examples, fewer if there are fewer."""
        train = self.run("prune").dataset.train
        return jnp.asarray(train.images[:count]), jnp.asarray(train.labels[:count])

    def records(self, arm: str, kind: str) -> list[dict[str, Any]]:
        """Reads the records of an arm of one kind."""
        path = self._of(arm) / "metrics.jsonl"
        rows = metrics_log.read(path, fields=metrics_log.FIELDS)
        return [row for row in rows if row["kind"] == kind]
