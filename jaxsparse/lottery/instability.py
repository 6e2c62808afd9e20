"""Instability analysis: copies of a network, trained with other noise of SGD.

From a state of a level's training, several children train to its end. They differ in
nothing but the order of examples and augmentation. How the error rises between two of
them says whether the state was stable.

Deviations:
  Children begin with an optimiser that remembers nothing, and so does whatever trains
  from a rewinding step: copies from the middle of training lose its momentum. What the
  authors did there is not known.

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
      trainer: of all children of all replicates at once: child c of replicate r is its
        replicate r * count + c.
      count: children of each replicate; 0 for none, where only levels are compared.
      steps: readings of the clock at which they begin, growing.
      levels: levels whose training they repeat.
      successive: whether levels that follow each other are compared too.
      compare: parameters and batch statistics of two sets of replicates, both [r ...],
        to a row for each replicate that says what lies between its two.
      judge: instabilities of test error of all pairs, the test accuracies of the
        level's tickets, and those of dense networks, None if unknown, to a row that
        says whether training is stable and the level matching.
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
      children: how.
      level: of the ticket they copy.
      start: clock at which that begins to differ from other levels: children of
        levels above 0 begin there at the earliest.
      stop: clock at the end of its training.
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
    """Gives each child noise of its own, other than its parent's.

    Args:
      keys: of the data of each replicate.
      count: children of each.

    Returns:
      Keys of `r * count` children; those of the first ones do not depend on `count`.
    """
    numbers = jnp.arange(1, count + 1, dtype=jnp.uint32)

    def of(key: Key[Array, ""]) -> Key[Array, "c"]:
        named = jax.random.fold_in(key, 0x0C417D)
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(named, numbers)

    return jax.vmap(of)(keys).reshape(-1)


@arguments.check(count=arguments.integer(0))
def copies(tree: Any, count: int) -> Any:
    """Repeats every replicate [r ...] for its children [r * count ...]."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), tree)


@arguments.check(count=arguments.integer(0))
def pairs(count: int) -> list[tuple[int, int]]:
    """Lists the pairs of children of one parent.

    Examples:
      >>> pairs(3)
      [(0, 1), (0, 2), (1, 2)]
    """
    return [(a, b) for a in range(count) for b in range(a + 1, count)]


def rows(
    children: InstabilityAnalysis, end: Any, begin: Callable[[str], Record]
) -> list[Record]:
    """Says what lies between the children of each replicate.

    Args:
      children: how they are compared.
      end: parameters and batch statistics with which they ended [r * c ...].
      begin: makes the beginning of a record of a kind.
    """
    found = []
    for a, b in pairs(children.count):
        first, second = (
            jax.tree.map(lambda leaf, c=c: leaf[c :: children.count], end)
            for c in (a, b)
        )
        for replicate, row in enumerate(children.compare(first, second)):
            place = {"replicate": replicate, "pair": [a, b]}
            found.append(begin("segment") | place | row)
    return found
