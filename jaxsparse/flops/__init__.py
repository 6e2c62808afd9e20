"""FLOPs and parameters of sparse networks: of inference, and of training by a method.

    cost = flops.macs(apply, params, image)  # of a batch of one
    densities = flops.densities(masks)
    flops.inference(cost, densities) / flops.inference(cost, {})  # multiple of dense
    flops.training(cost, [flops.Segment(examples, densities)])

`training` has the formulas of the methods. Runs record these numbers
(`metrics.jsonl`, kind "flops"), and reports show them.
"""

from jaxsparse.flops.counts import densities
from jaxsparse.flops.macs import Macs, UnboundedLoop, macs
from jaxsparse.flops.training import (
    GRADIENTS,
    Segment,
    StageSteps,
    inference,
    is_exact,
    segments,
    training,
)

__all__ = (
    "GRADIENTS",
    "Macs",
    "Segment",
    "StageSteps",
    "UnboundedLoop",
    "densities",
    "inference",
    "is_exact",
    "macs",
    "segments",
    "training",
)
