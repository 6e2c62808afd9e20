"""Which weights each method keeps and grows, in slow and obvious numpy."""

import math
from collections.abc import Callable
from fractions import Fraction

import jax
import numpy as np
from helpers import methods
from helpers.choice_steps import Arrays, Step, best, drawn, equal, fading
from helpers.method_runs import kernels
from helpers.reference import select as select_slowly

from jaxsparse import scores


def rigl(steps: list[Step], sign: int = 1, regrow: bool = True) -> None:
    came_back = 0
    for step in (steps[1], steps[4], steps[7]):
        for i, had in enumerate(step.had):
            goes = fading(step.update, had)
            stay = best(step.sizes[i], int(had.sum()) - goes, had)
            free = ~stay if regrow else ~had
            new = stay | best(sign * np.abs(step.grads[i]), goes, free)
            equal([step.has[i]], [new])
            came_back += int((had & ~stay & new).sum())
    # Half a chance for each of 30 weights.
    assert (came_back > 0) == regrow


def after_ablation(
    had: np.ndarray,
    size: np.ndarray,
    slope: np.ndarray,
    goes: int,
    budget: int,
    least: int = 1,
) -> tuple[np.ndarray, int]:
    """Goes through the neurons of SRigL one by one, at least `least` weights salient.

    Returns:
      The new mask, and how many weights go only because their neuron has too many.
    """
    inputs, neurons = had.shape
    every, stays = np.ones_like(had), int(had.sum()) - goes
    salient = best(size, stays, had) | best(slope, goes, every)
    per_neuron = salient.sum(axis=0)
    alive = per_neuron >= min(least, sorted(per_neuron)[-1 - budget // inputs])
    fan_in = budget // int(alive.sum())
    kept = best(size, min(stays, int((had & alive).sum())), had & alive)
    new, cut = np.zeros_like(had), 0
    for j in np.flatnonzero(alive):
        column = np.zeros_like(had)
        column[:, j] = True
        mine = kept & column
        survive = best(size, min(fan_in, int(mine.sum())), mine)
        cut += int((mine & ~survive).sum())
        new |= survive | best(slope, fan_in - int(survive.sum()), column & ~survive)
    return new, cut


def srigl(steps: list[Step]) -> None:
    removed = 0
    for step in (steps[1], steps[4], steps[7]):
        for i, had in enumerate(step.had):
            goes, slope = fading(step.update, had), np.abs(step.grads[i])
            new, _ = after_ablation(had, step.sizes[i], slope, goes, (24, 12)[i])
            equal([step.has[i]], [new])
            removed += int((~new.any(axis=0)).sum())
    assert removed


def sparse_evolution(steps: list[Step]) -> None:
    for step in (steps[1], steps[4]):
        chance = drawn(step)
        for i, had in enumerate(step.had):
            stay = np.zeros_like(had)
            for side in (had & (step.weights[i] < 0), had & (step.weights[i] >= 0)):
                count = int(side.sum())
                stay |= best(step.sizes[i], count - count // 2, side)
            new = stay | best(chance[i], int(had.sum() - stay.sum()), ~stay)
            equal([step.has[i]], [new])


def mest(steps: list[Step], soft: bool = False) -> None:
    surplus = [0, 0]
    for step in (steps[u] for u in ((1, 4, 7, 10) if soft else (1, 4, 7))):
        chance = drawn(step)
        for i, had in enumerate(step.had):
            weight = 2 if soft else 1
            worth = step.sizes[i] + weight * np.abs(step.grads[i])
            comes = fading(step.update, np.ones((24, 12)[i])) if step.update < 10 else 0
            goes = surplus[i] if soft else comes
            stay = best(worth, int(had.sum()) - goes, had)
            new = stay | best(chance[i], comes, ~stay)
            assert not soft or stay.sum() == (24, 12)[i]
            equal([step.has[i]], [new])
            surplus[i] = comes


def apportion(total: int, shares: list[float], room: list[int]) -> list[int]:
    """Shares in 2**20ths of the largest, rounded down; rests to the largest share."""
    parts = [round(share / max(shares) * 2**20) for share in shares]
    given = [0] * len(parts)
    while left := min(total, sum(room)) - sum(given):
        mine = [p * (g < r) for p, g, r in zip(parts, given, room, strict=True)]
        more = [
            min(left * p // sum(mine), r - g)
            for p, g, r in zip(mine, given, room, strict=True)
        ]
        if not any(more):
            more[mine.index(max(mine))] = 1
        given = [g + m for g, m in zip(given, more, strict=True)]
    return given


def snfs(steps: list[Step]) -> None:
    average = [np.zeros_like(grad) for grad in steps[0].grads]
    for step in steps[:8]:
        average = [
            np.float32(0.8) * old + np.float32(1 - 0.8) * grad
            for old, grad in zip(average, step.grads, strict=True)
        ]
        if step.update not in (1, 4, 7):
            continue
        goes = [fading(step.update, had) for had in step.had]
        stay = [
            best(size, int(had.sum()) - less, had)
            for size, had, less in zip(step.sizes, step.had, goes, strict=True)
        ]
        means = [
            float(np.abs(size[mask]).mean())
            for size, mask in zip(average, step.had, strict=True)
        ]
        comes = apportion(sum(goes), means, [int((~mask).sum()) for mask in stay])
        for i, mask in enumerate(stay):
            new = mask | best(np.abs(average[i]), comes[i], ~mask)
            equal([step.has[i]], [new])


def granet(steps: list[Step]) -> None:
    counts = methods.cubic(methods.PRUNES, Fraction(1, 2), Fraction(3, 4))
    for update, total in zip(methods.PRUNES[:3], counts[1:], strict=False):
        step = steps[update]
        part = 0.25 * (1 + math.cos(math.pi * update / 9))
        for i, mask in enumerate(select_slowly(step.sizes, total, within=step.had)):
            goes = math.floor(int(mask.sum()) * part)
            stay = best(step.sizes[i], int(mask.sum()) - goes, mask)
            new = stay | best(np.abs(step.grads[i]), goes, ~stay)
            equal([step.has[i]], [new])


def path_scores(mask: np.ndarray) -> np.ndarray:
    """Adds up the terms of each pair of an input and an output one by one."""
    links = mask.astype(int)
    worth = np.zeros(mask.shape)
    for i, j in np.ndindex(mask.shape):
        for near, far, here, there in ((links, links.T, i, j), (links.T, links, j, i)):
            for other in range(len(near)):
                shared = int(near[here] @ far[:, other])
                further = max(int(near[other].sum()) - shared - 1, 0)
                if shared and near[other, there]:
                    worth[i, j] += (shared + 1) / (further + 1)
    return worth


def gumbel(step: Step, which: int) -> Arrays:
    key = jax.random.wrap_key_data(step.moment.before.key)
    draw = jax.random.split(jax.random.fold_in(key, step.update))[which]
    uniform = kernels(scores.random(step.moment.before.masks, key=draw))
    return [-np.log(-np.log(np.float64(leaf))) for leaf in uniform]


def chts(steps: list[Step], decays: bool = False) -> None:
    for update in methods.PRUNES:
        step = steps[update]
        draws = [gumbel(step, which) for which in (0, 1)]
        part = 0.15 if decays else 0.25
        part *= 1 + math.cos(math.pi * update / 9)
        for i, had in enumerate(step.had):
            size = np.float64(step.sizes[i])
            sums = [np.maximum(size.sum(axis=k, keepdims=True), 1e-30) for k in (0, 1)]
            share = size / sums[0] + size / sums[1]
            total = methods.shared(
                methods.held(methods.PRUNES, methods.SIGMOID, update)
            )
            pruned = best(share, total[i], had) if decays else had
            goes = math.floor(int(pruned.sum()) * part)
            power = 1 + 2 * update / 9
            chance = power * np.log(share + 1e-30) + draws[0][i]
            stay = best(chance, int(pruned.sum()) - goes, pruned)
            chance = np.log(path_scores(stay) + 1e-5) + draws[1][i]
            equal([step.has[i]], [stay | best(chance, goes, ~stay)])


def east(steps: list[Step], end: int = 8, at_random: bool = False) -> None:
    """In the cycle weights come or go; after it, as many go as come."""
    for step in (steps[u] for u in methods.AT):
        totals = methods.cycled(end)(step.update)
        chance = drawn(step) if at_random else [np.abs(grad) for grad in step.grads]
        for i, had in enumerate(step.had):
            held = min(int(had.sum()), totals[i])
            if step.update >= end:
                held -= math.floor(held * methods.cosine(step.update))
            stay = best(step.sizes[i], held, had)
            new = stay | best(chance[i], totals[i] - held, ~stay)
            equal([step.has[i]], [new])


def neurrev(steps: list[Step], restarts: bool = False) -> None:
    """Of the negative weights that stay, those that moved least are dropped."""
    pairs = zip(steps[0].had, steps[0].weights, strict=True)
    start = [np.where(had, weight, 0) for had, weight in pairs]
    replaced = 0
    for step in (steps[1], steps[4], steps[7]):
        for i, had in enumerate(step.had):
            count = int(had.sum())
            goes = fading(step.update, had)
            stay = best(step.sizes[i], count - goes, had)
            below = stay & (step.weights[i] < 0)
            extra = math.floor(count * 0.4 * methods.cosine(step.update))
            extra = min(extra, int(below.sum()))
            moved = np.abs(step.weights[i] - start[i])
            unchanged = below & ~best(moved, int(below.sum()) - extra, below)
            grown = best(np.abs(step.grads[i]), goes + extra, ~stay)
            new = (stay & ~unchanged) | grown
            equal([step.has[i]], [new])
            zeroed = had & ~stay & new & restarts
            start[i] = np.where(new & ~zeroed, step.weights[i], 0)
            replaced += int(unchanged.sum())
    assert replaced > 6


def ac_dc(steps: list[Step]) -> None:
    for step in steps[:4]:
        few = select_slowly(step.sizes, 36)
        every = [np.ones_like(mask) for mask in few]
        equal(
            step.has,
            few if step.update == 1 else every if step.update == 3 else step.had,
        )


def gradual(steps: list[Step]) -> None:
    for step in (steps[u] for u in methods.PRUNES):
        counts = methods.METHODS["gradual_magnitude"].counts(step.update)
        for i, had in enumerate(step.had):
            equal([step.has[i]], [best(step.sizes[i], counts[i], had)])


def gradual_with_floors(steps: list[Step]) -> None:
    """Each layer keeps a fifth; the second one's weights are small."""
    least = (20, 10)
    for step in (steps[u] for u in methods.PRUNES):
        (total,) = methods.METHODS["gradual_magnitude global"].counts(step.update)
        floor = [
            best(size, count, had)
            for size, count, had in zip(step.sizes, least, step.had, strict=True)
        ]
        others = [had & ~mask for had, mask in zip(step.had, floor, strict=True)]
        more = select_slowly(step.sizes, total - sum(least), within=others)
        equal(step.has, [a | b for a, b in zip(floor, more, strict=True)])
    assert steps[-1].has[1].sum() == 10


def one_shot(steps: list[Step]) -> None:
    equal(steps[4].has, select_slowly(steps[4].sizes, 36, within=steps[4].had))


def straight_through(steps: list[Step]) -> None:
    for step in steps:
        after = [np.abs(leaf) for leaf in step.now]
        every = [np.ones_like(mask) for mask in step.has]
        equal(step.has, list(map(best, after, (24, 12), every)))
        if step.moment.now.memory is not None:  # of top_kast
            trained = kernels(step.moment.now.memory)
            equal(trained, list(map(best, after, (48, 24), every)))


def straight_through_gradual(steps: list[Step]) -> None:
    for step in steps:
        (total,) = methods.METHODS["straight_through gradual"].counts(step.update)
        if step.update + 1 in methods.PRUNES:
            equal(step.has, select_slowly([np.abs(leaf) for leaf in step.now], total))


CHOICES: dict[str, Callable[[list[Step]], None]] = {
    "gradual_magnitude": gradual,
    "gradual_magnitude global": gradual_with_floors,
    "one_shot_magnitude": one_shot,
    "sparse_evolution": sparse_evolution,
    "rigl": rigl,
    "rigl restarts": rigl,
    "rigl sign_in": rigl,
    "rigl inverted": lambda steps: rigl(steps, sign=-1, regrow=False),
    "srigl": srigl,
    "mest": mest,
    "mest soft_bound": lambda steps: mest(steps, soft=True),
    "snfs": snfs,
    "granet": granet,
    "chts": chts,
    "chts decay": lambda steps: chts(steps, decays=True),
    "east": east,
    "cycles of set": lambda steps: east(steps, end=3, at_random=True),
    "neurrev": neurrev,
    "neurrev restarts": lambda steps: neurrev(steps, restarts=True),
    "ac_dc": ac_dc,
    "straight_through": straight_through,
    "straight_through gradual": straight_through_gradual,
    "top_kast": straight_through,
    "top_kast powerpropagation": straight_through,
}
