"""Controls for lottery tickets: masks with equally many weights, made in other ways.

Each control changes one property of a ticket and keeps the others: its initial weights,
the positions of its active weights within the layers, or the number of active weights
per layer.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jaxsparse import arguments, rng, scores, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params, Scores

NAMES = (
    "reinitialized",  # masks of the ticket, newly drawn initial weights
    "shuffled_layers",  # masks shuffled within layers, initial weights of the ticket
    "shuffled_globally",  # masks shuffled over all layers, same weights
    "random_mask",  # random masks with equal layer counts, newly drawn weights
    "random_magnitudes",  # masks and signs of the ticket, newly drawn magnitudes
    "random_signs",  # masks and magnitudes of the ticket, newly drawn signs
    "random_weights",  # masks of the ticket, newly drawn signs and magnitudes
    "dense_continued",  # dense network, trained for as many steps as the ticket
)

# Controls that start from newly drawn initial weights instead of the ticket's.
FRESH = ("reinitialized", "random_mask")
# Controls that combine newly drawn weights with those of the ticket. Leaves without
# masks, such as those of BatchNorm, stay those of the ticket.
MIXED = ("random_magnitudes", "random_signs", "random_weights")


def key_of(
    key: Key[Array, ""], name: str, level: int | Int[Array, ""]
) -> Key[Array, ""]:
    """Derives the random key of a control at a level.

    Args:
      key: typed random key of one replicate.
      name: name of the control. Any string is valid; it is hashed into the key.
      level: level of iterative magnitude pruning, from 0; may be traced.

    Returns:
      A typed random key that is independent for different names and levels.
    """
    # CRC-32 and not `hash`, which differs between Python processes.
    return jax.random.fold_in(rng.leaf_key(key, name), level)


@arguments.check(masks=arguments.masks)
def shuffle_layers(
    masks: Masks, *, key: Key[Array, ""], exclude: tuple[str, ...] = ()
) -> Masks:
    """Shuffles the mask of each layer within the layer.

    Args:
      masks: boolean masks of one replicate.
      key: typed random key. Each layer derives its own key from its name.
      exclude: shell patterns of layer names whose masks stay unchanged.

    Returns:
      Masks with the same number of active weights in each layer.

    Raises:
      ValueError: if a pattern matches no layer.

    References:
      Frankle et al., Pruning Neural Networks at Initialization: Why Are We Missing the
      Mark?, 2021, arXiv:2009.08576, section 4.
    """
    masks_lib.check_globs(exclude, masks_lib.names(masks), field="exclude")

    def permute(name: str, leaf: Array) -> Array:
        if masks_lib.matches(name, exclude):
            return leaf
        flat = jax.random.permutation(rng.leaf_key(key, name), leaf.reshape(-1))
        return flat.reshape(leaf.shape)

    return tree.map_with_names(permute, masks)


@arguments.check(masks=arguments.masks)
def shuffle_globally(
    masks: Masks, *, key: Key[Array, ""], exclude: tuple[str, ...] = ()
) -> Masks:
    """Shuffles the masks over all layers, so that only the total count stays.

    Args:
      masks: boolean masks of one replicate.
      key: typed random key.
      exclude: shell patterns of layer names whose masks stay unchanged. Their weights
        do not count toward the total that is redistributed.

    Returns:
      Masks with the same total number of active weights. They keep the weights with the
      highest independent random scores, which is a uniform draw among all arrangements.

    Raises:
      ValueError: if a pattern matches no layer.
    """
    masks_lib.check_globs(exclude, masks_lib.names(masks), field="exclude")
    prunable = [
        leaf
        for name, leaf in tree.named_leaves(masks).items()
        if not masks_lib.matches(name, exclude)
    ]
    count = select.count_active(prunable, sum(leaf.size for leaf in prunable))
    random_scores = scores.random(masks, key=key)
    # Excluded layers keep their masks because their candidates are the masks
    # themselves. In all other layers every weight is a candidate.
    candidates = tree.map_with_names(
        lambda name, leaf: (
            leaf if masks_lib.matches(name, exclude) else jnp.ones_like(leaf)
        ),
        masks,
    )
    return select.top_k_global(
        random_scores, count, candidates=candidates, frozen=exclude
    )


@arguments.check(masks=arguments.masks, scores=arguments.weights)
def invert(masks: Masks, scores: Scores) -> Masks:
    """Keeps the lowest-scoring weights of each layer, as many as the masks keep.

    Args:
      masks: boolean masks of one replicate; only counts, names and shapes are used.
      scores: scores by which the masks were chosen, higher is more important; the same
        tree structure as `masks`.

    Returns:
      Masks with the same number of active weights in each layer. Ties are broken as in
      `select.top_k_per_layer`.

    References:
      Frankle et al., Pruning Neural Networks at Initialization: Why Are We Missing the
      Mark?, 2021, arXiv:2009.08576, section 4 (inversion).
    """
    counts = jax.tree.map(lambda leaf: select.count_active([leaf], leaf.size), masks)
    return select.top_k_per_layer(jax.tree.map(jnp.negative, scores), counts)


@arguments.check(masks=arguments.masks)
def draw_alike(
    masks: Masks, *, key: Key[Array, ""], exclude: tuple[str, ...] = ()
) -> Masks:
    """Draws random masks with the layer counts of given masks.

    Args:
      masks: boolean masks of one replicate; only counts, names and shapes are used,
        except in excluded layers.
      key: typed random key.
      exclude: shell patterns of layer names whose masks stay unchanged.

    Returns:
      Masks with the same number of active weights in each layer, at positions drawn
      independently of `masks`.

    Raises:
      ValueError: if a pattern matches no layer.
    """
    masks_lib.check_globs(exclude, masks_lib.names(masks), field="exclude")
    counts = jax.tree.map(lambda leaf: select.count_active([leaf], leaf.size), masks)
    drawn = select.top_k_per_layer(scores.random(masks, key=key), counts)
    return tree.map_with_names(
        lambda name, old, new: old if masks_lib.matches(name, exclude) else new,
        masks,
        drawn,
    )


@arguments.check(
    name=arguments.one_of(NAMES), masks=arguments.masks, level=arguments.integer(0)
)
def masks_of(
    name: str,
    masks: Masks,
    *,
    level: int,
    keys: Key[Array, "r"],
    exclude: tuple[str, ...] = (),
) -> Masks:
    """Makes the masks of a control for all replicates.

    Args:
      name: name of the control, one of `NAMES`.
      masks: masks of the ticket [r ...].
      level: level of iterative magnitude pruning, from 0. Controls of different levels
        are drawn independently.
      keys: typed random keys of the masks, one per replicate [r].
      exclude: shell patterns of layer names that are never pruned and therefore keep
        their masks.

    Returns:
      Masks [r ...]; all True for "dense_continued".

    Raises:
      ValueError: if `name` is unknown, `level` is negative, or a pattern matches no
        layer.
    """
    masks_lib.check_globs(exclude, masks_lib.names(masks), field="exclude")
    if name == "dense_continued":
        return jax.tree.map(jnp.ones_like, masks)
    return _masks_of(masks, np.int32(level), keys, name, tuple(exclude))


@arguments.check(name=arguments.one_of(MIXED), masks=arguments.masks)
def mix(name: str, params: Params, fresh: Params, masks: Masks) -> Params:
    """Combines signs and magnitudes of a ticket's weights and of newly drawn ones.

    Weights with a random sign need a symmetric distribution, as all initializers of
    kernels have.

    Args:
      name: a name in `MIXED`.
      params: weights with which the ticket starts.
      fresh: newly drawn weights, like `params`.
      masks: any masks of one network; only names are used: other leaves stay those of
        the ticket.

    Returns:
      Weights like `params`. A weight of the ticket that is zero has the sign +1.

    Raises:
      ValueError: if `name` is unknown.

    Examples:
      >>> old, new = {"w": jnp.array([2.0, -3.0])}, {"w": jnp.array([-0.5, -0.7])}
      >>> ones = {"w": jnp.array([True, True])}
      >>> mix("random_magnitudes", old, new, ones)
      {'w': Array([ 0.5, -0.7], dtype=float32)}
      >>> mix("random_signs", old, new, ones)
      {'w': Array([-2., -3.], dtype=float32)}

    References:
      Gadhikar, Burkholz. Masks, Signs, And Learning Rate Rewinding. 2024.
      arXiv:2402.19262, section 3: the roles of masks, signs and magnitudes.
      Zhou, Lan, Liu, Yosinski. Deconstructing Lottery Tickets: Zeros, Signs, and the
      Supermask. 2019. arXiv:1905.01067, section 4: tickets with other magnitudes.
    """
    signs = params if name == "random_magnitudes" else fresh
    sizes = params if name == "random_signs" else fresh
    mixed = {*tree.names(masks)}

    def combine(leaf: str, ticket: Array, sign: Array, size: Array) -> Array:
        # Unlike `copysign`, this takes the zero of a pruned weight, often -0.0, for +1.
        signed = jnp.where(sign < 0, -jnp.abs(size), jnp.abs(size))
        return signed if leaf in mixed else ticket

    return tree.map_with_names(combine, params, signs, sizes)


_MAKE = {
    "reinitialized": lambda masks, key, exclude: masks,
    "random_magnitudes": lambda masks, key, exclude: masks,
    "random_signs": lambda masks, key, exclude: masks,
    "random_weights": lambda masks, key, exclude: masks,
    "shuffled_layers": shuffle_layers,
    "shuffled_globally": shuffle_globally,
    "random_mask": draw_alike,
}


@functools.partial(jax.jit, static_argnums=(3, 4))
def _masks_of(
    masks: Masks,
    level: Int[Array, ""],
    keys: Key[Array, "r"],
    name: str,
    exclude: tuple[str, ...],
) -> Masks:
    """Draws with a traced level, so that all levels share one compiled program.

    Args:
      masks: masks of the ticket [r ...].
      level: level of iterative magnitude pruning.
      keys: typed random keys, one per replicate [r].
      name: name of the control, a key of `_MAKE`.
      exclude: shell patterns of layer names whose masks stay unchanged.
    """

    def shuffle_one(mask: Masks, key: Key[Array, ""]) -> Masks:
        return _MAKE[name](mask, key=key_of(key, name, level), exclude=exclude)

    return jax.vmap(shuffle_one)(masks, keys)
