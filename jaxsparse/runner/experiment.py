"""The parts of a run: what is trained, by what, and in which stages."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxsparse.lottery.plan import LotteryPlan
from jaxsparse.runner.dense_run import DenseRun
from jaxsparse.runner.task import TrainTask
from jaxsparse.training.state import Seeds
from jaxsparse.training.trainer import Trainer


class InstabilityAnalysis(NamedTuple):
    """How copies are trained and compared.

    Attributes:
      trainer: trains all copies of all replicates in parallel: copy c of replicate r
        is replicate r * copies + c of this trainer.
      compare: function of two pairs of parameters and batch statistics, each [r ...],
        to one dict per replicate with the measurements of the interpolation between
        them.
      judge: function of the test-error instabilities of all pairs compared, the test
        accuracies of the level's tickets, and those of the dense networks (None if
        unknown), to a dict that contains whether training is stable and the level is
        matching.
      compare_levels: whether the tickets of successive levels are compared too.
      with_parent: whether each copy is compared with the ticket of its level. If
        False, all pairs of copies are compared.
    """

    trainer: Trainer
    compare: Callable[[Any, Any], list[dict[str, Any]]]
    judge: Callable[[list[float], list[float], list[float] | None], dict[str, Any]]
    compare_levels: bool = False
    with_parent: bool = False


class Experiment(NamedTuple):
    """The parts of a run.

    Attributes:
      trainer: settings and compiled functions with which stages train.
      task: the network, its optimizer and its initialization.
      seeds: random keys of all replicates.
      plan: which stages the run has.
      pretrainer: trainer for the steps before the rewinding step; None uses `trainer`.
      instability: how copies and levels are compared; None omits the analysis.
      penalty_dtype: dtype in which the final weights of earlier levels are stored for
        the penalty of `training.solution_penalty`; None trains without it.
      delete_weights: whether to delete the weights of levels that no later stage needs.
      dense_run: the earlier run whose dense network is level 0; None trains level 0.
    """

    trainer: Trainer
    task: TrainTask
    seeds: Seeds
    plan: LotteryPlan
    pretrainer: Trainer | None = None
    instability: InstabilityAnalysis | None = None
    penalty_dtype: Any = None
    delete_weights: bool = False
    dense_run: DenseRun | None = None
