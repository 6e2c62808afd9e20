"""What a ticket is compared with: the same count of weights, chosen or drawn otherwise.

Each control isolates one thing a ticket has: its initial weights, the places of its
weights within layers, or its division of weights among layers.
"""

import functools
import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxsparse import arguments, rng, scores, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Scores

NAMES = (
    "reinitialized",  # the ticket's masks, fresh initial weights
    "shuffled_layers",  # masks permuted within each layer, the ticket's weights
    "shuffled_globally",  # masks permuted over all layers, the ticket's weights
    "random_mask",  # masks drawn anew with equal layer counts, fresh initial weights
    "dense_continued",  # the dense network, trained as many steps as the ticket's level
)

# Controls that start from fresh initial weights, not from the ticket's.
FRESH = ("reinitialized", "random_mask")


def key_of(
    key: Key[Array, ""], name: str, level: int | Int[Array, ""]
) -> Key[Array, ""]:
    """Derives the key of one control at one level."""
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), level)


@arguments.check(masks=arguments.masks)
def shuffle_layers(
    masks: Masks, *, key: Key[Array, ""], exclude: tuple[str, ...] = ()
) -> Masks:
    """Permutes each layer's mask among its own places; layer counts stay.

    Args:
      masks: of one replicate.
      key: what to draw with; each layer draws by its name.
      exclude: patterns of layers left as they are.

    Returns:
      Masks with the same count in each layer.

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
    """Permutes the mask among all places of all layers; only the total stays.

    Args:
      masks: of one replicate.
      key: what to draw with.
      exclude: patterns of layers left as they are, and not counted.

    Returns:
      Masks with the same count in all: the best of equally many random scores, which
      is a uniformly drawn arrangement.
    """
    masks_lib.check_globs(exclude, masks_lib.names(masks), field="exclude")
    count = sum(
        jnp.sum(leaf, dtype=jnp.int32)
        for name, leaf in tree.named_leaves(masks).items()
        if not masks_lib.matches(name, exclude)
    )
    worth = scores.random(masks, key=key)
    # `within` is needed for the ignored layers only, but must not restrict the others.
    anywhere = tree.map_with_names(
        lambda name, leaf: (
            leaf if masks_lib.matches(name, exclude) else jnp.ones_like(leaf)
        ),
        masks,
    )
    return select.top_k_global(worth, count, candidates=anywhere, frozen=exclude)


@arguments.check(masks=arguments.masks, scores=arguments.weights)
def invert(masks: Masks, scores: Scores) -> Masks:
    """Keeps the weights of least worth, as many in each layer as the masks do.

    Args:
      masks: of one replicate; only counts, names and shapes are used.
      scores: what each weight is worth, which the masks were chosen by.

    Returns:
      Masks with the same count in each layer. Ties are broken as in `select.globally`.

    References:
      Frankle et al., Pruning Neural Networks at Initialization: Why Are We Missing the
      Mark?, 2021, arXiv:2009.08576, section 4 (inversion).
    """
    counts = jax.tree.map(lambda leaf: jnp.sum(leaf, dtype=jnp.int32), masks)
    return select.top_k_per_layer(jax.tree.map(jnp.negative, scores), counts)


@arguments.check(masks=arguments.masks)
def draw_alike(
    masks: Masks, *, key: Key[Array, ""], exclude: tuple[str, ...] = ()
) -> Masks:
    """Draws random masks with the layer counts of `masks`.

    Args:
      masks: of one replicate; only counts, names and shapes are used.
      key: what to draw with.
      exclude: patterns of layers left as they are.

    Returns:
      Masks with the same count in each layer, drawn without regard to `masks`.
    """
    masks_lib.check_globs(exclude, masks_lib.names(masks), field="exclude")
    counts = jax.tree.map(lambda leaf: jnp.sum(leaf, dtype=jnp.int32), masks)
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
    """Makes the masks of a control for every replicate.

    Args:
      name: one of `NAMES`.
      masks: the ticket's masks [r ...].
      level: times pruned; controls of different levels are drawn independently.
      keys: of masks, one a replicate.
      exclude: patterns of layers that are never pruned.

    Returns:
      Masks [r ...].
    """
    masks_lib.check_globs(exclude, masks_lib.names(masks), field="exclude")
    if name == "dense_continued":
        return jax.tree.map(jnp.ones_like, masks)
    return _masks_of(masks, jnp.int32(level), keys, name, tuple(exclude))


_MAKE = {
    "reinitialized": lambda masks, key, exclude: masks,
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
    """Draws with a traced level, so that all levels share one compiled program."""

    def one(mask: Masks, key: Key[Array, ""]) -> Masks:
        return _MAKE[name](mask, key=key_of(key, name, level), exclude=exclude)

    return jax.vmap(one)(masks, keys)
