"""FLOPs of inference and of training, from multiply-adds and densities.

One multiply-add is two FLOPs. With f(d) the FLOPs of a forward pass in which each layer
has a density d, training on one example takes

    f(d) + f(d) + f(g)

for the forward pass, for the gradients of activations, and for those of weights, where
g is the density of the weights whose gradient is computed:

    gradient    methods                           g
    "active"    dense, static, SET, MEST, CHTs,   d
                GMP, one-shot magnitude, IMP,
                AC/DC, STR, DynaDiag, Gem-Miner,
                continuous sparsification
    "updates"   RigL, SRigL, GraNet, EAST,        1 at mask updates, otherwise d
                NeurRev
    "always"    SNFS, straight-through, SR-STE,   1
                S-STE, edge-popup, proximal L1,
                weight-sparse
    "backward"  Top-KAST                          density of the trained weights

STR has no gradient below its thresholds, continuous sparsification and DynaDiag none
where a hard mask is 0, and Gem-Miner removes weights for good: they need that of active
weights only. Gem-Miner's ticket counts as active, although part of it is not used in
the forward pass while scores are trained.

These are the formulas of Evci et al. 2020 (appendix H), in which f(d) = f_S, f(1) = f_D
and, over the interval between mask updates, RigL takes
(3 f_S T + 2 f_S + f_D) / (T + 1). As there, normalization, the loss, the optimizer and
the choice of masks are left out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxsparse.flops.macs import Macs

GRADIENTS = ("active", "updates", "always", "backward")

Densities = Mapping[str, float]


class Segment(NamedTuple):
    """Examples that are trained on with the same densities.

    Attributes:
      examples: number of examples, 0 or more.
      forward: density of each leaf in the forward pass; leaves not named are dense.
      gradient: density of each leaf in the gradient of the weights, in the same way;
        None for `forward`.
    """

    examples: float
    forward: Densities
    gradient: Densities | None = None


class StageSteps(NamedTuple):
    """What is known of the training steps of a stage.

    Attributes:
      start: first training step.
      stop: training step after the last.
      updates: steps with a mask update, increasing; None if they are unknown. The
        forward pass of such a step still uses the old masks.
      gradient: one of `GRADIENTS`.
      examples: function of a training step to the number of examples before it.
      trained: density of the trained weights of each leaf, for "backward".
      growth_examples: examples of an extra batch for the dense gradient at a mask
        update; 0 to take it from the batch of the step.

    Examples:
      >>> rigl = StageSteps(0, 100, [25, 50, 75], "updates", lambda step: 32 * step)
      >>> sum(part.examples for part in segments([(0, {"w": 0.2})], rigl))
      3200
    """

    start: int
    stop: int
    updates: Sequence[int] | None
    gradient: str
    examples: Callable[[int], int]
    trained: Densities | None = None
    growth_examples: int = 0


def inference(macs: Macs, densities: Densities) -> float:
    """Returns the FLOPs of a forward pass.

    Args:
      macs: multiply-adds of the dense forward pass, from `flops.macs`.
      densities: density of each leaf, in [0, 1]; leaves not named are dense.

    Examples:
      >>> weights = {"w": jnp.ones((4, 5))}
      >>> cost = flops.macs(lambda p, x: x @ p["w"], weights, jnp.ones(4))
      >>> inference(cost, {}), inference(cost, {"w": 0.25})
      (40.0, 10.0)
    """
    sparse = sum(count * densities.get(name, 1) for name, count in macs.layers.items())
    return 2.0 * (sparse + macs.other)


def training(macs: Macs, segments: Iterable[Segment]) -> float:
    """Returns the FLOPs of training.

    Args:
      macs: multiply-adds of the dense forward pass of one example, from `flops.macs`.
      segments: what is trained on, with which densities.

    Examples:
      >>> weights = {"w": jnp.ones((4, 5))}
      >>> cost = flops.macs(lambda p, x: x @ p["w"], weights, jnp.ones(4))
      >>> training(cost, [Segment(100, {})]), training(cost, [Segment(100, {"w": 0.5})])
      (12000.0, 6000.0)
    """
    total = 0.0
    for part in segments:
        gradient = part.forward if part.gradient is None else part.gradient
        each = 2 * inference(macs, part.forward) + inference(macs, gradient)
        total += part.examples * each
    return total


def segments(
    counted: Sequence[tuple[int, Densities]], stage: StageSteps
) -> list[Segment]:
    """Divides a stage into segments, from densities that were counted now and then.

    If masks were updated several times between two counts, densities are interpolated
    linearly from update to update; `is_exact` tells whether that happened. If the steps
    of the updates are unknown, the mean of both counts is taken, and the dense
    gradients of "updates" are left out.

    Args:
      counted: training steps at which weights were counted, increasing, with the
        density of each leaf before that step; at least one. Steps before the first
        count have its densities, and those after the last count have those.
      stage: the steps of the stage.

    Raises:
      ValueError: if the gradient is not one of `GRADIENTS`.

    Examples:
      >>> rigl = StageSteps(0, 10, [4], "updates", lambda step: 32 * step)
      >>> for part in segments([(0, {"w": 0.2})], rigl):
      ...     print(part)
      Segment(examples=128, forward={'w': 0.2}, gradient=None)
      Segment(examples=32, forward={'w': 0.2}, gradient={})
      Segment(examples=160, forward={'w': 0.2}, gradient=None)
    """
    if stage.gradient not in GRADIENTS:
        raise ValueError(
            f"gradient: expected one of {GRADIENTS}, got {stage.gradient!r}"
        )
    found: list[Segment] = []
    first, last = (stage.start, counted[0][1]), (stage.stop, counted[-1][1])
    points = [first, *counted, last]
    for (begin, before), (end, after) in zip(points, points[1:], strict=False):
        begin, end = max(begin, stage.start), min(end, stage.stop)
        if begin >= end:
            continue
        if stage.updates is None:
            mean = _between(before, after, 0.5)
            found.append(_plain(stage, begin, end, mean))
            continue
        inside = [step for step in stage.updates if begin <= step < end]
        for i, step in enumerate(inside):
            density = _between(before, after, i / len(inside))
            found.append(_plain(stage, begin, step, density))
            found += _update(stage, step, density)
            begin = step + 1
        found.append(_plain(stage, begin, end, after if inside else before))
    return [segment for segment in found if segment.examples]


def is_exact(
    counted: Sequence[tuple[int, Densities]], stage: StageSteps, *, keeps_counts: bool
) -> bool:
    """Returns whether `training` of these `segments` counts exactly.

    It does not if densities were interpolated between counts, or dense gradients at
    unknown steps were left out.

    If the steps of mask updates are unknown, equal densities of two successive counts
    are taken to hold between them, but not before the first count or after the last.

    Args:
      counted: steps and densities, as for `segments`.
      stage: the steps of the stage.
      keeps_counts: whether the method never changes the number of active weights.

    Examples:
      >>> pruned = StageSteps(0, 10, [2, 5], "active", lambda step: step)
      >>> ends = [(0, {"w": 1.0}), (10, {"w": 0.5})]
      >>> is_exact(ends, pruned, keeps_counts=False)  # two updates between counts
      False
      >>> between = (4, {"w": 0.7})
      >>> is_exact([ends[0], between, ends[1]], pruned, keeps_counts=False)
      True
    """
    first, last = counted[0][0], counted[-1][0]
    updates = stage.updates
    if updates is None and stage.gradient == "updates":
        return False  # the number of dense gradients is unknown
    if not keeps_counts:
        # Any step may have an update if the steps of updates are unknown.
        possible = range(stage.start, stage.stop) if updates is None else updates
        # Nothing was counted after these, but the last step trains with old masks.
        outside = [step for step in possible if stage.start <= step < first]
        outside += [step for step in possible if last <= step < stage.stop - 1]
        if outside:
            return False
    for (begin, before), (end, after) in zip(counted, counted[1:], strict=False):
        if keeps_counts and before == after:
            continue
        if updates is None:
            if before != after:
                return False
        elif sum(begin <= step < end for step in updates) > 1:
            return False
    return True


def _between(before: Densities, after: Densities, part: float) -> Densities:
    """Interpolates densities linearly."""
    if before == after or not part:
        return before
    return {name: d + part * (after[name] - d) for name, d in before.items()}


def _plain(stage: StageSteps, begin: int, end: int, density: Densities) -> Segment:
    """Makes the segment of steps without a mask update."""
    count = stage.examples(end) - stage.examples(begin)
    gradient = {"always": {}, "backward": stage.trained}.get(stage.gradient)
    return Segment(count, density, gradient)


def _update(stage: StageSteps, step: int, density: Densities) -> list[Segment]:
    """Makes the segments of a step with a mask update."""
    plain = _plain(stage, step, step + 1, density)
    if stage.gradient != "updates":
        return [plain]
    if stage.growth_examples:
        return [plain, Segment(stage.growth_examples, density, {})]
    return [plain._replace(gradient={})]
