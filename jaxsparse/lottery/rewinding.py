"""The steps between which each level trains, and the weights from which it starts."""

from typing import NamedTuple


class Span(NamedTuple):
    """Interval of training steps in which a level trains.

    Attributes:
      start: training step at which the level starts, counted from initialization.
      stop: training step at which it ends.
    """

    start: int
    stop: int


class RewindPlan(NamedTuple):
    """How levels are retrained.

    Attributes:
      rewind: rewinding step k, in [0, total).
      total: length T of dense training in steps.
      retrain: "rewind" trains the weights of step k from step k to T.
        "learning_rate_rewind" trains the final weights of the previous level with the
        learning rates of steps k to T. "finetune" trains the final weights of the
        previous level at the final learning rate.
      finetune: number of steps of a level for "finetune".
      whole_dense: whether level 0 trains from initialization to step T without
        interruption. If False, it starts at step k with a new optimizer, like the other
        levels.
      particles: number of consecutive replicates whose weights are averaged before each
        pruning, and before a level starts from trained weights; see `particles`.

    References:
      Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, 2020,
      arXiv:1912.05671, algorithm 2 (rewinding).
      Renda, Frankle, Carbin, Comparing Rewinding and Fine-tuning in Neural Network
      Pruning, 2020, arXiv:2003.02389, section 2.
    """

    rewind: int
    total: int
    retrain: str = "rewind"
    finetune: int = 0
    whole_dense: bool = False
    particles: int = 1

    def span(self, level: int) -> Span:
        """Returns the interval of training steps in which a level trains.

        Beyond step T the learning rate keeps its final value
        (`optimizers.learning_rate`), so fine-tuning is training that starts at step T.

        Args:
          level: level of iterative magnitude pruning, from 0.
        """
        # Level 0 is always dense training, and ends at step T.
        if not level and self.whole_dense:
            return Span(0, self.total)
        if level and self.retrain == "finetune":
            return Span(self.total, self.total + self.finetune)
        return Span(self.rewind, self.total)

    @property
    def keeps_weights(self) -> bool:
        """Whether a level starts from the final weights of the previous level."""
        return self.retrain != "rewind"


def check(plan: RewindPlan) -> None:
    """Checks that every level trains for at least one step.

    Args:
      plan: how levels are retrained.

    Raises:
      ValueError: if one does not; the message names the config field.
    """
    if plan.total < 1:
        raise ValueError(
            f"config.training.duration: expected at least 1 update, got {plan.total}"
        )
    if not 0 <= plan.rewind < plan.total:
        raise ValueError(
            f"config.lottery.rewind: expected a step in [0, {plan.total}), before the "
            f"end of training, got step {plan.rewind}"
        )
    if plan.retrain == "finetune" and plan.finetune < 1:
        raise ValueError(
            "config.lottery.finetune_length: expected at least 1 update, got "
            f"{plan.finetune}"
        )
