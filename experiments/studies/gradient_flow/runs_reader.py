"""Runs reader: the runs of one network of the study, opened when they are needed."""

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


class NetworkRuns:
    """The runs of one network that have ended."""

    def __init__(self, folder: Path, network: str, scale: str, data_dir: str) -> None:
        """Finds the variants that have ended; opens none.

        Args:
          folder: directory of all runs.
          network: one of `variants.NETWORKS`.
          scale: one of `studies.SCALES`.
          data_dir: directory of prepared datasets; "" for the one in the configs.
        """
        self.folder, self.network, self.scale = folder, network, scale
        self.data_dir = data_dir
        runs = {run.name: run for run in variants.of_network(network, scale)}
        self.variants = [
            name
            for name in variants.fields_of(network, "")
            if f"{network}_{name}" in runs
            and launcher.has_ended(runs[f"{network}_{name}"], self._of(name))
        ]

    def _of(self, variant: str) -> Path:
        return self.folder / f"{self.network}_{variant}"

    @functools.cache  # noqa: B019 -- lives as long as the process
    def run(self, variant: str) -> factory.TrainedRun:
        """Opens a variant."""
        # All variants train on the same examples, which are read once.
        data = None if variant == "prune" else self.run("prune").dataset
        return factory.open_run(self._of(variant), data_dir=self.data_dir, dataset=data)

    def hashes(self, *names: str) -> dict[str, str]:
        """Returns the hashes of the final checkpoints of variants.

        Args:
          *names: names of variants.
        """
        found = {
            variant: old_runs.recorded_hash(self._of(variant) / "checkpoints", END)
            for variant in names
        }
        return {variant: hash_ for variant, hash_ in found.items() if hash_}

    @functools.cache  # noqa: B019
    def state(self, variant: str, moment: str = END) -> Any:
        """Loads a state of a variant.

        Args:
          variant: the variant.
          moment: name of the checkpoint.

        Raises:
          ValueError: if it is lost; the message contains the remedy.
        """
        try:
            return factory.load_state(self.run(variant), moment)
        except ValueError as error:
            raise ValueError(
                f"{error}; move {self._of(variant)} away, and the same command trains "
                "it again"
            ) from error

    def check(self) -> None:
        """Checks that all variants started with the masks of the pruned solution.

        Raises:
          ValueError: if one did not; the message names it.
        """
        pruned = self.solution("prune", "end", 0).masks
        for variant in self.variants:
            if not self.run(variant).config.warm_start.masks:
                continue
            began = self.solution(variant, "start", 0).masks
            pairs = zip(jax.tree.leaves(began), jax.tree.leaves(pruned), strict=True)
            if not all(bool(jnp.array_equal(a, b)) for a, b in pairs):
                raise ValueError(
                    f"{self._of(variant)}: expected the final masks of "
                    f"{self._of('prune')} as initial masks, got others; move it away, "
                    "and the same command trains it again"
                )

    def solution(
        self, variant: str, moment: str, replicate: int
    ) -> similarity.Solution:
        """Returns weights and masks of one seed.

        Args:
          variant: the variant.
          moment: "start", "end" or the name of a checkpoint.
          replicate: the seed.
        """
        names = {"start": saved_state_name(STAGE, 0), "end": END}
        state = self.state(variant, names.get(moment, moment))
        held = (state.params, transforms.get_masks(state.opt_state))
        return similarity.Solution(*jax.tree.map(lambda leaf: leaf[replicate], held))

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has batch normalization."""
        return bool(jax.tree.leaves(self.state("prune").batch_stats))

    def seeds(self, variant: str) -> range:
        """Returns the seeds of a variant."""
        return range(self.run(variant).config.replicates)

    @functools.cache  # noqa: B019
    def functions(self, variant: str = "prune") -> factory.EvalFns:
        """Makes the functions of a variant's network, which are compiled once."""
        run = self.run(variant)
        stats = jax.tree.map(lambda leaf: leaf[0], self.state(variant).batch_stats)
        return factory.make_eval_fns(run.config, run.dataset, stats)

    def examples(self, count: int) -> tuple[Any, Any]:
        """Returns the first training examples.

        Args:
          count: how many at most.
        """
        train = self.run("prune").dataset.train
        return jnp.asarray(train.images[:count]), jnp.asarray(train.labels[:count])

    def records(self, variant: str, kind: str) -> list[dict[str, Any]]:
        """Reads the records of a variant of one kind.

        Args:
          variant: the variant.
          kind: kind of record, as in `jaxsparse.reports.records`.
        """
        rows = metrics_log.read(self._of(variant) / "metrics.jsonl")
        return [row for row in rows if row["kind"] == kind]
