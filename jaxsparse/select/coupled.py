"""Selection of whole channels in all layers that share them."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxsparse import arguments, coupling, tree
from jaxsparse.types import Masks, Scores


@arguments.check(coupled=arguments.instance(coupling.Coupling))
def coupled_channels(
    scores: Scores, coupled: coupling.Coupling, sparsity: float | Sequence[float]
) -> Masks:
    """Keeps the best neurons, channels or heads of each group of coupled axes.

    A unit that is removed loses its weights in all layers: those into it, those out of
    it, and through a residual sum those of every layer that adds to the same channel.
    So `compaction.compact` can remove it, and the network gets smaller; with the
    structure `channels()`, only the weights into a channel are removed. Works on
    concrete scores.

    Groups over whose units a statistic is computed, as in LayerNorm or softmax, keep
    all units by default: their number is part of the statistic, so that `compaction`
    could not remove any. These are the groups with `reductions`, among them the
    residual stream of a ViT.

    The score of a unit is the sum of the scores of all its weights. Among equal scores,
    units with lower numbers are kept.

    Args:
      scores: score of each weight, higher is better; None where a leaf is not prunable.
        Its leaves have the names that they have in the parameters of
        `coupling.coupled_axes`, so {"params": scores} if that read all variables.
      coupled: the groups of units, from `coupling.coupled_axes`.
      sparsity: fraction of the units to remove in each group without `reductions`, in
        [0, 1); or one for each group, also for those with `reductions`. Fractions are
        rounded to whole units, and every group keeps one. Groups without scores keep
        all units.

    Returns:
      Boolean masks with the nesting of `scores`, None where the score is None.

    Raises:
      ValueError: if a sparsity is out of range, their number is not that of the groups,
        no leaf of a group has scores, a shape differs, or a score is not finite.
      TypeError: if `coupled` is not from `coupling.coupled_axes`.

    Examples:
      >>> params = {"a": jnp.array([[3.0, 1.0, 2.0]]), "b": jnp.ones((3, 1))}
      >>> apply = lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"]
      >>> groups = coupling.coupled_axes(apply, params, jnp.ones((1, 1)))
      >>> coupled_channels(params, groups, 0.34)["a"]
      Array([[ True, False,  True]], dtype=bool)

    References:
      Fang, Ma, Song, Bi Mi, Wang. DepGraph: Towards Any Structural Pruning. 2023.
      arXiv:2301.12900, section 3.3, for scores of groups. With scores by magnitude and
      one layer, this is the criterion of Li et al. 2016, arXiv:1608.08710.

    Deviations:
      Fang et al. sum squares, and train with a penalty on groups before. Scores and
      training are chosen elsewhere here.
    """
    leaves = {
        name: np.asarray(leaf) for name, leaf in tree.named_leaves(scores).items()
    }
    fractions = _fractions(sparsity, coupled.groups)
    kept = {name: np.ones(leaf.shape, bool) for name, leaf in leaves.items()}
    is_scored = False
    for group, fraction in zip(coupled.groups, fractions, strict=True):
        total = _unit_scores(group, leaves)
        if total is None:
            continue
        is_scored = True
        keep = max(1, group.num_units - round(fraction * group.num_units))
        gone = np.argsort(-total, kind="stable")[keep:]
        for (name, axis), owner in group.axes.items():
            if name in kept:
                indices = [slice(None)] * kept[name].ndim
                indices[axis] = np.isin(owner, gone)
                kept[name][tuple(indices)] = False
    if not is_scored:
        names = sorted({name for group in coupled.groups for name, _ in group.axes})
        raise ValueError(
            f"scores: expected leaves of the coupled axes, which are {names}, got "
            f'{list(leaves)}; use the same nesting, such as {{"params": scores}}'
        )
    return tree.map_with_names(lambda name, _: jnp.asarray(kept[name]), scores)


def _fractions(
    sparsity: float | Sequence[float], groups: Sequence[coupling.Group]
) -> list[float]:
    """Returns the sparsity of each group."""
    if isinstance(sparsity, Sequence):
        fractions = list(sparsity)
    else:
        arguments.fraction("sparsity", sparsity)
        fractions = [0.0 if group.reductions else sparsity for group in groups]
    if len(fractions) != len(groups):
        raise ValueError(
            f"sparsity: expected one number, or one for each of {len(groups)} groups, "
            f"got {len(fractions)}"
        )
    for fraction in fractions:
        arguments.fraction("sparsity", fraction)
    return fractions


def _unit_scores(
    group: coupling.Group, leaves: dict[str, np.ndarray]
) -> np.ndarray | None:
    """Sums the scores of the units of a group; None if no leaf has scores."""
    total = np.zeros(group.num_units)
    found = False
    for (name, axis), owner in group.axes.items():
        if name not in leaves:
            continue
        leaf, found = leaves[name].astype(np.float64), True
        if leaf.shape[axis : axis + 1] != owner.shape:
            raise ValueError(
                f"scores: {name}: expected {len(owner)} entries along axis {axis}, as "
                f"in the coupled axes, got shape {leaf.shape}; use the same network"
            )
        if not np.isfinite(leaf).all():
            raise ValueError(
                f"scores: {name}: expected finite numbers, got NaN or infinity; look "
                "for a division by zero, or an overflow, in the scores"
            )
        sums = leaf.sum(tuple(i for i in range(leaf.ndim) if i != axis))
        np.add.at(total, owner[owner >= 0], sums[owner >= 0])
    return total if found else None
