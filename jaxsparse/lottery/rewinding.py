"""What a level's training starts from, and between which clock readings it runs."""

from typing import NamedTuple


class Span(NamedTuple):
    """Where a level's training lies on the run's clock.

    Attributes:
      start: clock at the beginning, in updates.
      stop: clock at the end.
    """

    start: int
    stop: int


class RewindPlan(NamedTuple):
    """How levels are retrained.

    Attributes:
      rewind: the rewinding step k, in [0, total).
      total: length T of dense training in updates.
      retrain: "rewind" trains the weights of step k from k to T; "learning_rate_rewind"
        trains the last weights of the level before with the schedule from k to T;
        "finetune" trains those at the schedule's last learning rate.
      finetune: length of a level's fine-tuning in updates.

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

    def span(self, level: int) -> Span:
        """Returns the clock readings between which a level trains.

        The learning rate stays at its last value beyond T (`optimizers.learning_rate`),
        so fine-tuning is training from T on.
        """
        if level and self.retrain == "finetune":
            return Span(self.total, self.total + self.finetune)
        return Span(self.rewind, self.total)

    @property
    def keeps_weights(self) -> bool:
        """Whether levels go on from the weights of the level before."""
        return self.retrain != "rewind"


def check(plan: RewindPlan) -> None:
    """Refuses plans in which some level would train for no time.

    Raises:
      ValueError: naming the field of the config.
    """
    if plan.total < 1:
        raise ValueError(
            f"config.training.length: comes to {plan.total} updates; wanted at least 1"
        )
    if not 0 <= plan.rewind < plan.total:
        raise ValueError(
            f"config.lottery.rewind: comes to step {plan.rewind}; wanted one in "
            f"[0, {plan.total}), before the end of training"
        )
    if plan.retrain == "finetune" and plan.finetune < 1:
        raise ValueError(
            f"config.lottery.finetune_length: comes to {plan.finetune} updates; wanted "
            "at least 1"
        )
