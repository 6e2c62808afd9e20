"""Instability analysis: trains copies of a network with different SGD noise.

Several children start from one state of a level's training and train to its end. They
differ in the order of examples and in augmentation only. The error barrier on the
linear interpolation between two of them shows whether the state was stable.

Deviations:
  Children start with a fresh optimizer state, as does all training from a rewinding
  step. Copies from the middle of training therefore lose its momentum. What the authors
  did there is not known.

References:
  Frankle, Dziugaite, Roy and Carbin, Linear Mode Connectivity and the Lottery Ticket
  Hypothesis, 2020, arXiv:1912.05671, section 2 and algorithm 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxsparse import arguments
from jaxsparse.metrics_log import Record
from jaxsparse.training.train import Stage, Trainer

ARM = "children"


class InstabilityAnalysis(NamedTuple):
    """How children are trained and compared.

    Attributes:
      trainer: trains all children of all replicates in parallel: child c of replicate r
        is replicate r * count + c of this trainer.
      count: number of children per replicate; 0 trains none and only compares levels.
      steps: training steps at which children start, increasing.
      levels: levels of iterative magnitude pruning whose training the children repeat.
      successive: whether the tickets of successive levels are compared too.
      compare: function of two pairs of parameters and batch statistics, each [r ...],
        to one dict per replicate with the measurements of the interpolation between
        them.
      judge: function of the test-error instabilities of all pairs of children, the test
        accuracies of the level's tickets, and those of the dense networks (None if
        unknown), to a dict that contains whether training is stable and the level is
        matching.
    """

    trainer: Trainer
    count: int
    steps: tuple[int, ...]
    levels: tuple[int, ...]
    successive: bool
    compare: Callable[[Any, Any], list[dict[str, Any]]]
    judge: Callable[[list[float], list[float], list[float] | None], dict[str, Any]]


def stages(
    children: InstabilityAnalysis, *, level: int, start: int, stop: int
) -> list[Stage]:
    """Lists the stages in which children of a level train.

    Args:
      children: how children are trained.
      level: level of the ticket that the children copy.
      start: training step at which the level starts. Children of levels above 0 cannot
        start earlier, because before it the level does not differ from level 0.
      stop: training step at which the level ends.

    Returns:
      One stage for each starting step that is before `stop` and possible at the level;
      none for levels that are not analyzed.
    """
    if not children.count or level not in children.levels:
        return []
    return [
        Stage(f"level_{level:02d}/{ARM}_{step:09d}", level, ARM, step, stop)
        for step in children.steps
        if step < stop and (not level or step >= start)
    ]


@arguments.check(count=arguments.integer(0))
def data_keys(keys: Key[Array, "r"], count: int) -> Key[Array, "n"]:
    """Derives a random key for each child, different from the key of its parent.

    Args:
      keys: typed random keys of the example order and augmentation, one per replicate
        [r].
      count: number of children per replicate.

    Returns:
      Typed random keys [r * count], the children of a replicate next to each other.
      Increasing `count` does not change the keys of the first children.
    """
    numbers = jnp.arange(1, count + 1, dtype=jnp.uint32)

    def of(key: Key[Array, ""]) -> Key[Array, "c"]:
        # An arbitrary constant that keeps these keys apart from the others that are
        # derived from the data key, for example by folding in the level.
        named = jax.random.fold_in(key, 0x0C417D)
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(named, numbers)

    return jax.vmap(of)(keys).reshape(-1)


@arguments.check(count=arguments.integer(0))
def copies(tree: Any, count: int) -> Any:
    """Repeats every replicate [r ...] for its children [r * count ...].

    Args:
      tree: arrays with a leading replicate axis, possibly typed random keys.
      count: number of children per replicate.
    """
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), tree)


@arguments.check(count=arguments.integer(0))
def pairs(count: int) -> list[tuple[int, int]]:
    """Lists all pairs of children of one parent.

    Args:
      count: number of children.

    Examples:
      >>> pairs(3)
      [(0, 1), (0, 2), (1, 2)]
    """
    return [(a, b) for a in range(count) for b in range(a + 1, count)]


def rows(
    children: InstabilityAnalysis, end: Any, begin: Callable[[str], Record]
) -> list[Record]:
    """Compares all pairs of children of each replicate.

    Args:
      children: how children are compared.
      end: final parameters and batch statistics of the children [r * c ...].
      begin: function from the kind of a record to the fields that all records share.

    Returns:
      One record for each pair and replicate, with the number of the replicate, the
      numbers of the two children and the measurements of `children.compare`.
    """
    found = []
    for a, b in pairs(children.count):
        # Child c of replicate r has index r * count + c.
        first, second = (
            jax.tree.map(lambda leaf, c=c: leaf[c :: children.count], end)
            for c in (a, b)
        )
        for replicate, row in enumerate(children.compare(first, second)):
            place = {"replicate": replicate, "pair": [a, b]}
            found.append(begin("segment") | place | row)
    return found
