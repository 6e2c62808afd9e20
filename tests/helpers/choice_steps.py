"""Mask updates of a run as arrays, and how slow code chooses weights in them."""

import math
from typing import NamedTuple

import jax
import numpy as np
from helpers import methods
from helpers.method_runs import Moment, fast, kernels
from helpers.reference import select as select_slowly

from jaxsparse import scores

Arrays = list[np.ndarray]


class Step(NamedTuple):
    """A mask update: masks and weights of both layers before, gradients, masks after.

    `now` are the weights after the optimizer's step.
    """

    update: int
    had: Arrays
    has: Arrays
    weights: Arrays
    sizes: Arrays
    grads: Arrays
    now: Arrays
    moment: Moment


def read(update: int, moment: Moment) -> Step:
    weights, grads, now = (
        [leaf.astype(np.float32) for leaf in kernels(fast(tree))]
        for tree in (moment.params, moment.grads, moment.after)
    )
    had, has = kernels(moment.before.masks), kernels(moment.now.masks)
    sizes = [np.abs(leaf) for leaf in weights]
    return Step(update, had, has, weights, sizes, grads, now, moment)


def best(score: np.ndarray, count: int, within: np.ndarray) -> np.ndarray:
    return select_slowly([score], count, within=[within])[0]


def fading(update: int, mask: np.ndarray) -> int:
    """Counts the weights that go: half at first, none at update 10."""
    return math.floor(int(mask.sum()) * methods.cosine(update))


def drawn(step: Step) -> Arrays:
    """The random scores of an update."""
    key = jax.random.wrap_key_data(step.moment.before.key)
    draw = jax.random.fold_in(key, step.update)
    return kernels(scores.random(step.moment.before.masks, key=draw))


def equal(has: Arrays, wanted: Arrays) -> None:
    for mask, new in zip(has, wanted, strict=True):
        np.testing.assert_array_equal(mask, new)
