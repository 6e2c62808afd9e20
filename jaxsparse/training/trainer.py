"""What trains the stages of a run: compiled steps, their data, and when to do what."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxsparse.training.chunk_plan import EpochSpec
from jaxsparse.training.evaluation import Evaluate
from jaxsparse.training.input_pipeline import Feed
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.optimizers import LearningRate
from jaxsparse.training.probe import Probe
from jaxsparse.training.scan_chunks import CompiledChunk
from jaxsparse.types import Masks


class LoopSettings(NamedTuple):
    """When training evaluates, saves, traces and waits.

    Attributes:
      steps_per_call: maximum number of steps in one chunk, at least 1.
      evaluate_every: training steps between evaluations, at least 1.
      checkpoint_every: training steps between checkpoints within a stage; 0 saves none.
      save_at_steps: training steps, increasing, at which the state is saved for later
        analyses.
      trace: first and last training step of the profiler trace; () traces nothing.
      max_inflight_calls: maximum number of chunks in flight: after this many, the host
        waits for their metrics before it dispatches more.
      continue_on_nonfinite: whether the other replicates continue when one replicate's
        loss is not finite.
      pack_ends: whether the final states of stages are saved as bits and values.
    """

    steps_per_call: int
    evaluate_every: int
    checkpoint_every: int = 0
    save_at_steps: tuple[int, ...] = ()
    trace: tuple[int, ...] = ()
    max_inflight_calls: int = 1
    continue_on_nonfinite: bool = False
    pack_ends: bool = False


class RecordSettings(NamedTuple):
    """What the records of a stage contain.

    Attributes:
      learning_rate: learning rate as a function of the training step; used for records
        only, because the optimizer holds its own schedule.
      dynamic_masks: dense masks of one replicate if masks are updated within a stage,
        so that evaluations count active weights; None for fixed masks.
      probe: measurement of the network during training; None measures nothing.
      anneal_end_step: training step from which evaluations see the final network,
        without the temporary parts (soft activations, ghost skips) that ToST anneals
        away.
    """

    learning_rate: LearningRate
    dynamic_masks: Masks | None = None
    probe: Probe | None = None
    anneal_end_step: int = 0


class Trainer(NamedTuple):
    """Settings and compiled functions shared by all stages of a run.

    Attributes:
      compiled_steps: returns the compiled chunk function for a chunk length and a batch
        size; made by `scan_chunks.make_chunk_fns`.
      feed: supplies the training examples of each chunk.
      evaluate: functions that evaluate one set each, keyed by the name of the set
        ("validation", "test").
      layout: mesh of devices and placement of arrays on it.
      epoch: number of steps and batch sizes of an epoch.
      loop: when training evaluates, saves, traces and waits.
      records: what the records of a stage contain.
      execution_plan: how the work is laid out on the devices, as JSON values that are
        stored with the run.
      past_solutions: past solutions for the penalty of `solution_penalty`, sharded by
        replicate; None trains without that penalty.
    """

    compiled_steps: Callable[[int, int], CompiledChunk]
    feed: Feed
    evaluate: Mapping[str, Evaluate]
    layout: MeshLayout
    epoch: EpochSpec
    loop: LoopSettings
    records: RecordSettings
    execution_plan: Mapping[str, Any]
    past_solutions: Any = None
