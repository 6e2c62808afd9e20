"""FLOPs of ResNet-50 by method, beside those that Evci et al. 2020 published.

All numbers are multiples of the dense network. Nothing is measured: products are
counted in the traced program, and the formulas are those of `jaxsparse.flops`.
"""

import functools
import math
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsparse import distributions, flops, masks, models, tree
from jaxsparse.transforms import update_schedules

SPARSITIES = (0.8, 0.9)
INTERVAL = 100  # steps between mask updates
STEPS = 32_000
STEPS_OF_NOTEBOOK = 33_000  # over which the authors average the FLOPs of pruning
BACKWARD_SPARSITY = 0.5  # of Top-KAST: the fraction of weights that is not trained
FIRST, LAST = "conv/kernel", "head/kernel"
METHODS = {"static": "static", "set": "SET", "rigl": "RigL", "snfs": "SNFS"}
METHODS |= {"gmp": "GMP (pruning)", "top_kast": "Top-KAST"}
DISTRIBUTIONS = {"uniform": "uniform", "all": "uniform, first layer too", "erk": "ERK"}
WHAT = {"inference": "inference", "training": "training", "5x": "training, 5 times"}

# (method, distribution, what) -> multiples at 80 % and 90 %. None: no such network.
FIGURE_2 = {
    ("static", "uniform", "inference"): (0.23, None),
    ("static", "uniform", "training"): (0.23, None),
    ("static", "all", "inference"): (None, 0.10),
    ("static", "all", "training"): (None, 0.10),
    ("static", "erk", "inference"): (0.42, 0.24),
    ("static", "erk", "training"): (0.42, 0.24),
    ("set", "uniform", "inference"): (0.23, None),
    ("set", "uniform", "training"): (0.23, None),
    ("set", "all", "inference"): (None, 0.10),
    ("set", "all", "training"): (None, 0.10),
    ("rigl", "uniform", "inference"): (0.23, None),
    ("rigl", "uniform", "training"): (0.23, None),
    ("rigl", "uniform", "5x"): (1.14, None),
    ("rigl", "all", "inference"): (None, 0.10),
    ("rigl", "all", "training"): (None, 0.10),
    ("rigl", "all", "5x"): (None, 0.52),
    ("rigl", "erk", "inference"): (0.42, 0.24),
    ("rigl", "erk", "training"): (0.42, 0.25),
    ("rigl", "erk", "5x"): (2.09, 1.23),
    ("snfs", "erk", "inference"): (0.42, 0.24),
    ("snfs", "erk", "training"): (0.61, 0.50),
    ("gmp", "uniform", "inference"): (0.23, None),
    ("gmp", "all", "inference"): (None, 0.10),
    ("gmp", "uniform", "training"): (0.56, 0.51),
}
# What the README of the authors' code has otherwise than the figure, but for one number
# that the page names.
README = {
    ("rigl", "uniform", "inference"): (None, 0.13),
    ("rigl", "uniform", "training"): (None, 0.13),
    ("rigl", "uniform", "5x"): (None, 0.66),
}
# Networks that the paper does not have.
UNPUBLISHED = (
    *(("set", "erk", what) for what in ("inference", "training")),
    *(("top_kast", "uniform", what) for what in ("inference", "training")),
    *(("top_kast", "erk", what) for what in ("inference", "training")),
)


class Network(NamedTuple):
    """What is counted of ResNet-50.

    Attributes:
      macs: multiply-adds of the forward pass of an image of 224x224.
      shapes: shapes of the prunable leaves by name.
    """

    macs: flops.Macs
    shapes: dict[str, tuple[int, ...]]


class Case(NamedTuple):
    """A number of the table.

    Attributes:
      method: a name of `METHODS`.
      distribution: a name of `DISTRIBUTIONS`.
      what: a name of `WHAT`.
      sparsity: fraction of zeros, one of `SPARSITIES`.
      published: the published multiple; None if there is none.
      source: where it was published.
    """

    method: str
    distribution: str
    what: str
    sparsity: float
    published: float | None = None
    source: str = ""


class Result(NamedTuple):
    """A counted number.

    Attributes:
      case: what was counted.
      ours: the multiple of dense.
      theirs: the same with what the authors count in addition.
    """

    case: Case
    ours: float
    theirs: float


def cases() -> list[Case]:
    """Lists the numbers of the table, ordered by method and distribution."""
    published = ((FIGURE_2, "figure 2"), (README, "README"))
    found = [
        Case(*key, sparsity, value, source)
        for table, source in published
        for key, values in table.items()
        for sparsity, value in zip(SPARSITIES, values, strict=True)
        if value is not None
    ]
    found += [Case(*key, sparsity) for key in UNPUBLISHED for sparsity in SPARSITIES]

    def place(case: Case) -> tuple:
        names = [*METHODS], [*DISTRIBUTIONS], [*WHAT]
        return tuple(
            each.index(name) for each, name in zip(names, case[:3], strict=True)
        )

    return sorted(found, key=place)


def resnet() -> Network:
    """Counts the multiply-adds of ResNet-50 without computing it."""
    net, image = models.ImageNetResNet(), jax.ShapeDtypeStruct((1, 224, 224, 3), "f4")
    variables = jax.eval_shape(
        lambda key, x: net.init(key, x, train=False), jax.random.key(0), image
    )

    def apply(params: dict, x: jax.Array) -> jax.Array:
        stats = jax.tree.map(lambda s: jnp.ones(s.shape), variables["batch_stats"])
        return net.apply({"params": params, "batch_stats": stats}, x, train=False)

    ones = jax.eval_shape(masks.ones, variables["params"])
    return Network(
        flops.macs(apply, variables["params"], image),
        {name: leaf.shape for name, leaf in tree.named_leaves(ones).items()},
    )


def as_authors_count(network: Network, *, size: int = 115) -> Network:
    """Adds what the authors' counter counts in addition.

    Args:
      network: the network as `resnet` counts it.
      size: height and width of the first feature maps as the counter computes them;
        they have 112.
    """
    layers = dict(network.macs.layers)
    layers[FIRST] = layers[FIRST] * size**2 // 112**2
    outputs = sum(
        count // math.prod(network.shapes[name][:-1]) for name, count in layers.items()
    )
    # One FLOP for each output, half a multiply-add, and always dense.
    return network._replace(macs=flops.Macs(layers, Fraction(outputs, 2)))


def densities(network: Network, distribution: str, sparsity: float) -> dict[str, float]:
    """Returns the density of each layer.

    Args:
      network: the network.
      distribution: a name of `DISTRIBUTIONS`.
      sparsity: fraction of zeros.
    """
    shapes = network.shapes
    if distribution == "erk":
        return _erk(tuple(shapes.items()), sparsity)
    found = dict.fromkeys(shapes, 1 - sparsity)
    return found | ({FIRST: 1.0} if distribution == "uniform" else {})


@functools.cache
def _erk(
    shapes: tuple[tuple[str, tuple[int, ...]], ...], sparsity: float
) -> dict[str, float]:
    like = {name: jnp.ones(shape, bool) for name, shape in shapes}
    counts = distributions.erdos_renyi_kernel(like, sparsity)
    return {name: int(counts[name]) / math.prod(shape) for name, shape in shapes}


def multiple(network: Network, case: Case, *, steps: int = STEPS) -> float:
    """Returns a multiple of the FLOPs of the dense network.

    Args:
      network: the network.
      case: what to count.
      steps: number of steps of training; matters for GMP only.
    """
    macs = network.macs
    density = densities(network, case.distribution, case.sparsity)
    if case.what == "inference":
        return flops.inference(macs, density) / flops.inference(macs, {})
    if case.method == "gmp":
        parts = _pruned(density, case.sparsity, steps)
    else:
        parts = _between_updates(network, case, density)
    dense = [flops.Segment(sum(part.examples for part in parts), {})]
    once = flops.training(macs, parts) / flops.training(macs, dense)
    return once * (5 if case.what == "5x" else 1)


def _between_updates(
    network: Network, case: Case, density: dict[str, float]
) -> list[flops.Segment]:
    """Lists the steps from a mask update to the next."""
    gradients = {"snfs": "always", "rigl": "updates", "top_kast": "backward"}
    # The paper counts the interval and the update: INTERVAL + 1 steps.
    stage = flops.StageSteps(
        0,
        INTERVAL + 1,
        [INTERVAL],
        gradients.get(case.method, "active"),
        lambda step: step,
        trained=densities(network, case.distribution, BACKWARD_SPARSITY)
        if case.method == "top_kast"
        else None,
    )
    return flops.segments([(0, density)], stage)


def _pruned(
    density: dict[str, float], sparsity: float, steps: int
) -> list[flops.Segment]:
    """Lists the steps of GMP, as in the authors' notebook."""
    when = update_schedules.UpdateSchedule(10_000, 1000, 25_000, include_end=True)
    after = update_schedules.gradual_sparsities(when, initial=0.0, final=sparsity)
    updates = update_schedules.update_steps(when)
    # The notebook gives the last layer its final sparsity from the start.
    inner = [name for name in density if name not in (FIRST, LAST)]
    # Its counts have the sparsity after the mask update of the same step.
    counted = [(0, 0.0)]
    counted += [(step, float(s)) for step, s in zip(updates, after, strict=True) if s]
    spread = [
        (step, density | dict.fromkeys(inner, 1 - s) | {FIRST: 1.0})
        for step, s in counted
    ]
    return [
        flops.Segment(end - begin, d)
        for (begin, d), (end, _) in zip(spread, [*spread[1:], (steps, {})], strict=True)
    ]


def count(network: Network) -> list[Result]:
    """Counts all numbers of the table.

    Args:
      network: the network, from `resnet`.
    """
    authors = as_authors_count(network)
    return [
        Result(
            case,
            multiple(network, case),
            multiple(authors, case, steps=STEPS_OF_NOTEBOOK),
        )
        for case in cases()
    ]
