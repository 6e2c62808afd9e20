"""What the trainers of a run are made from."""

from typing import NamedTuple

from ml_collections import ConfigDict

from jaxsparse.data.dataset import Dataset
from jaxsparse.factory.durations import Durations
from jaxsparse.runner.task import TrainTask
from jaxsparse.training.chunk_plan import EpochSpec
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.state import Seeds


class TrainerParts(NamedTuple):
    """What a trainer is made from.

    Attributes:
      config: a validated config.
      dataset: the dataset.
      task: what is trained.
      seeds: random keys of all replicates of this trainer.
      layout: mesh of devices and placement of arrays on it.
      epoch: number of steps and batch sizes of an epoch.
      durations: durations of the config in steps.
    """

    config: ConfigDict
    dataset: Dataset
    task: TrainTask
    seeds: Seeds
    layout: MeshLayout
    epoch: EpochSpec
    durations: Durations
