"""Records of FLOPs: one per replicate at the end of each stage."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxsparse import flops, multihost, replicates, transforms
from jaxsparse import masks as masks_lib
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.lottery.plan import LotteryPlan
from jaxsparse.metrics_log import Record
from jaxsparse.training.chunk_plan import EpochSpec
from jaxsparse.training.stage_run import StageRun, read_records
from jaxsparse.training.state import TrainState
from jaxsparse.transforms.state import find
from jaxsparse.types import Masks

KIND = "flops"


class FlopAccount(NamedTuple):
    """What the FLOPs of a run are computed from.

    Attributes:
      macs: multiply-adds of the dense forward pass of one example.
      dense_params: number of parameters of the dense network.
      gradient: one of `flops.GRADIENTS`.
      updates: training steps with a mask update; None if they are unknown, () for
        fixed masks.
      keeps_counts: whether the method never changes the number of active weights.
      growth_examples: examples of an extra batch for growing; 0 for none.
    """

    macs: flops.Macs
    dense_params: int
    gradient: str = "active"
    updates: tuple[int, ...] | None = ()
    keeps_counts: bool = True
    growth_examples: int = 0


def make(
    account: FlopAccount | None, run: StageRun, state: TrainState, plan: LotteryPlan
) -> list[Record]:
    """Makes the records of a stage that has just been trained.

    Args:
      account: what the FLOPs are computed from; None makes no records.
      run: the stage.
      state: its final state, in the checkpoint layout.
      plan: which stages the run has.

    Returns:
      A record of kind "flops" for each replicate. Numbers of training are those of the
      stage and, in `training_flops`, also of the stages before it by which its masks
      and weights were found: of a lottery ticket all levels up to its own. The dense
      network is trained once, for as many steps as the first ticket. None where an
      earlier stage has no record, as in runs of older versions.
    """
    if account is None:
        return []
    masks = transforms.local_masks(state.opt_state)
    trained = None
    if account.gradient == "backward":
        trained = multihost.to_local(find(state.opt_state).memory)
        trained = replicates.split(trained)
    stats = read_records(run.run_dir, kind="mask_stats", stage=run.stage.name)
    before = _of_ancestors(run, plan)
    made = []
    for r, mask in enumerate(replicates.split(masks)):
        counted = [
            (row["step"], _densities(row["layers"]))
            for row in stats
            if row["replicate"] == r
        ]
        density = flops.densities(mask)
        steps = flops.StageSteps(
            run.stage.start,
            run.stage.stop,
            account.updates,
            account.gradient,
            example_counter(run.trainer.epoch),
            None if trained is None else flops.densities(trained[r]),
            account.growth_examples,
        )
        counted = counted or [(run.stage.start, density)]
        stage = flops.training(account.macs, flops.segments(counted, steps))
        exact = flops.is_exact(counted, steps, keeps_counts=account.keeps_counts)
        made.append(
            run.record(KIND, run.stage.stop)
            | {"replicate": r}
            | _inference(account, density, mask)
            | _training(account, run, plan, stage, before.get(r))
            | {"interpolated": not exact}
        )
    return made


def _densities(layers: Mapping[str, list[int]]) -> dict[str, float]:
    return {name: kept / max(1, total) for name, (kept, total) in layers.items()}


def example_counter(epoch: EpochSpec) -> Callable[[int], int]:
    """Returns the function from a training step to the examples before it.

    Args:
      epoch: sizes of the batches of an epoch.
    """
    each = (epoch.steps - 1) * epoch.batch_size + epoch.last_batch

    def examples(step: int) -> int:
        epochs, within = divmod(step, epoch.steps)
        return epochs * each + within * epoch.batch_size

    return examples


def _inference(
    account: FlopAccount, density: Mapping[str, float], mask: Masks
) -> Record:
    """Returns the fields of one forward pass, and numbers of parameters."""
    sparse, dense = (flops.inference(account.macs, d) for d in (density, {}))
    removed = masks_lib.size(mask) - masks_lib.num_active(mask)
    return {
        "params": account.dense_params - removed,
        "dense_params": account.dense_params,
        "inference_flops": sparse,
        "dense_inference_flops": dense,
        "inference_multiple": sparse / dense if dense else None,
    }


def _training(
    account: FlopAccount,
    run: StageRun,
    plan: LotteryPlan,
    stage: float,
    before: float | None,
) -> Record:
    """Returns the fields of training."""
    once = plan_lib.ticket(plan, 0).stop
    examples = example_counter(run.trainer.epoch)(once)
    dense = flops.training(account.macs, [flops.Segment(examples, {})])
    total = None if before is None else before + stage
    return {
        "stage_training_flops": stage,
        "training_flops": total,
        "dense_training_flops": dense,
        "training_multiple": total / dense if dense and total is not None else None,
    }


def _of_ancestors(run: StageRun, plan: LotteryPlan) -> dict[int, float | None]:
    """Returns the FLOPs of all earlier stages by replicate; None if one is unknown."""
    count = run.trainer.layout.replicates
    total: dict[int, float | None] = dict.fromkeys(range(count), 0.0)
    for earlier in plan_lib.ancestors(plan, run.stage):
        rows = read_records(run.run_dir, kind=KIND, stage=earlier.name)
        by_replicate = {row["replicate"]: row["stage_training_flops"] for row in rows}
        for r, so_far in total.items():
            more = by_replicate.get(r)
            total[r] = None if so_far is None or more is None else so_far + more
    return total
