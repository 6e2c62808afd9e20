"""Dynamic sparse training: weights are dropped and others grown, the count stays.

All methods start from random masks of exact layer counts (`replace_masks` puts in
others) and change them on a calendar. Where they differ:

    method            drops               grows                step at a change
    sparse_evolution  smallest, by sign   at random            made
    rigl              smallest            largest |gradient|   skipped
    mest              least |w| + c |g|   at random            made

In-time over-parameterisation (ITOP, arXiv:2102.02887) is `sparse_evolution` or `rigl`
with settings that explore more: changes thousands of updates apart, half the weights
dropped, small batches, long training. `ever_active` measures what was explored.

A weight that is grown starts from zero, and what the optimiser remembers of it from its
initial value. Adam's first step there is large: the bias correction belongs to a step
count that went on, so the step is about (1 - b1) / sqrt(1 - b2), with the usual
constants 3 times the learning rate, whatever the gradient.
"""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxsparse import arguments, fan_axes, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import drop_grow, init_masks
from jaxsparse.transforms import grow as grow_lib
from jaxsparse.transforms.init_masks import Distribution, Prunable
from jaxsparse.types import Grads, Masks, Params, RandomKey, Scores

GROWTH = ("gradient", "inverted", "random")


@arguments.check(
    sparsity=arguments.real,
    drop_fraction=arguments.real,
    drop_schedule=arguments.name_or_function,
)
def sparse_evolution(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    distribution: Distribution = "er",
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    drop_fraction: float = 0.3,
    drop_schedule: drop_grow.Schedule = "constant",
    drop_by_sign: bool = True,
    regrow_dropped: bool = True,
    restart_dropped: bool = False,
    skip_inner: bool = False,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Drops the smallest weights and grows as many at random: SET.

    Args:
      inner: any optimiser.
      sparsity: fraction of the prunable weights to do without, in [0, 1).
      distribution: how the weights kept are divided among layers: one of
        `distributions.NAMES`, or a function of masks and sparsity.
      dense: shell patterns of layers to keep whole; they take no part in changes and
        need not fit a structure.
      structure: which weights stand or fall together, see `select`; None for each on
        its own. `drop_by_sign` is for single weights.
      update_every: updates between changes of the masks.
      begin_step: the first change; `update_every` if None.
      end_step: changes come before this step; None for always.
      drop_fraction: part of each layer's weights that a change drops, rounded down.
      drop_schedule: "constant"; "cosine", to 0 at `end_step`; or a function of the step
        whose ratio to its largest value multiplies the fraction, such as a learning
        rate.
      drop_by_sign: drop that part of the positive weights, the smallest, and of the
        negative ones, the largest, rather than of all together.
      regrow_dropped: whether a weight dropped now may be grown now.
      restart_dropped: whether such a weight starts from zero like others that are
        grown, or keeps its value and what the optimiser remembers of it.
      skip_inner: whether the optimiser's step is left out when masks change.
      prunable: which leaves have masks, see `masks.dense`.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`; None to
        infer them from names and shapes.
      key: what is drawn with, a typed key or raw key data (uint32);
        `jax.random.key(0)` if None.

    Returns:
      The optimiser, with constant counts in every layer. Equal magnitudes
      are chosen from as in `select.globally`.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = sparse_evolution(optax.sgd(0.1, 0.9), sparsity=0.9, update_every=400)

    Deviations:
      The paper changes masks after every epoch; pass its steps as `update_every`. Its
      first masks are drawn with probabilities, whose expected counts are kept here. It
      does not say what a grown weight starts from; here zero.

    References:
      Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta. Scalable Training of Artificial
      Neural Networks with Adaptive Sparse Connectivity inspired by Network Science.
      2018. arXiv:1707.04780, algorithm 1.
    """
    if drop_by_sign and structure is not None:
        raise ValueError(
            f"drop_by_sign: got True with structure {structure}; wanted False, as "
            "units of several weights have no sign"
        )
    change = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        drop_fraction=drop_fraction,
        drop_schedule=drop_schedule,
        structure=structure,
        dense=dense,
        axes=axes,
        regrow_dropped=regrow_dropped,
        restart_dropped=restart_dropped,
    )

    return drop_grow.drop_and_grow(
        inner,
        change,
        keep=drop_grow.make_keep_by_sign(regrow_dropped=regrow_dropped)
        if drop_by_sign
        else drop_grow.make_keep(drop_grow.keep_by_magnitude),
        grow_score=drop_grow.random_growth_scores,
        init_masks=init_masks.random(
            sparsity=sparsity,
            distribution=distribution,
            dense=dense,
            structure=structure,
            axes=axes,
            prunable=prunable,
            key=key,
        ),
        skip_inner=skip_inner,
        key=init_masks.first_key(key),
    )


@arguments.check(
    sparsity=arguments.real,
    drop_fraction=arguments.real,
    drop_schedule=arguments.name_or_function,
)
def rigl(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    distribution: Distribution = "erk",
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    drop_fraction: float = 0.3,
    drop_schedule: drop_grow.Schedule = "cosine",
    grow: str = "gradient",
    regrow_dropped: bool = True,
    restart_dropped: bool = False,
    skip_inner: bool = True,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Drops the smallest weights and grows those of the largest gradient: RigL.

    The gradient is the dense one that `update` is given, or `growth_grads`, which may
    be that of another batch:
    `tx.update(grads, state, params, growth_grads=lambda params: ...)`.

    Args:
      inner: as in `sparse_evolution`, and so are the others not named here.
      sparsity: as above.
      distribution: as above.
      dense: as above.
      structure: as above. `select.fan_in()` gives SRigL's constant fan-in.
      update_every: as above.
      begin_step: as above.
      end_step: as above; the paper's is three quarters of training. Needed by "cosine".
      drop_fraction: as above.
      drop_schedule: as above.
      grow: "gradient" grows the weights of largest absolute gradient; "inverted", the
        control of the gradient-flow paper, those of smallest; "random".
      regrow_dropped: as above.
      restart_dropped: as above.
      skip_inner: as above.
      prunable: as above.
      axes: as above.
      key: as above.

    Returns:
      As `sparse_evolution`. Equal gradients are chosen from likewise.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = rigl(optax.adamw(1e-3), sparsity=0.9, end_step=75_000)

    Deviations:
      With `skip_inner`, biases rest as well in an update that changes masks, as in the
      authors' code. Constant fan-in is SRigL's without its ablation of neurons, and
      drops the same number from every neuron.

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, algorithm 1.
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533 ("inverted").
      Lasby, Golubeva, Evci, Nica, Ioannou. Dynamic Sparse Training with Structured
      Sparsity. 2023. arXiv:2305.02299 (constant fan-in).
    """
    if grow not in GROWTH:
        raise ValueError(f"grow: unknown {grow!r}; wanted one of {list(GROWTH)}")
    change = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        drop_fraction=drop_fraction,
        drop_schedule=drop_schedule,
        structure=structure,
        dense=dense,
        axes=axes,
        regrow_dropped=regrow_dropped,
        restart_dropped=restart_dropped,
    )

    def promise(masks: Masks, grads: Grads, key: Key[Array, ""] | None) -> Scores:
        if grow == "random":
            return scores.random(masks, key=key)
        size = grow_lib.gradient_magnitude(masks, grads)
        return size if grow == "gradient" else jax.tree.map(jnp.negative, size)

    return drop_grow.drop_and_grow(
        inner,
        change,
        keep=drop_grow.make_keep(drop_grow.keep_by_magnitude),
        grow_score=promise,
        init_masks=init_masks.random(
            sparsity=sparsity,
            distribution=distribution,
            dense=dense,
            structure=structure,
            axes=axes,
            prunable=prunable,
            key=key,
        ),
        skip_inner=skip_inner,
        key=init_masks.first_key(key) if grow == "random" else None,
    )


@arguments.check(
    sparsity=arguments.real,
    drop_fraction=arguments.real,
    drop_schedule=arguments.name_or_function,
)
def mest(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    distribution: Distribution = "uniform",
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    drop_fraction: float = 0.3,
    drop_schedule: drop_grow.Schedule = "cosine",
    gradient_weight: float = 1.0,
    soft_bound: bool = False,
    regrow_dropped: bool = True,
    restart_dropped: bool = False,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Drops by weight and gradient, grows at random, ever less: MEST.

    With `drop_schedule` "cosine" the part that mutates fades to nothing, which the
    paper calls elastic mutation. With `soft_bound` it grows before it drops: from one
    change to the next the network holds that many weights more, of which the next
    change drops the least important; the change at `end_step` only drops.

    Args:
      inner: as in `sparse_evolution`, and so are the others not named here.
      sparsity: as above.
      distribution: as above.
      dense: as above.
      structure: as above.
      update_every: as above.
      begin_step: as above.
      end_step: as above, but that with `soft_bound` it is itself a change, and needed.
      drop_fraction: as above.
      drop_schedule: as above.
      gradient_weight: c in the importance |w| + c |gradient|, at least 0.
      soft_bound: whether the weights grown come on top until the next change.
      regrow_dropped: as above.
      restart_dropped: as above.
      prunable: as above.
      axes: as above.
      key: as above.

    Returns:
      As `sparse_evolution`; with `soft_bound` the count is that of `sparsity` plus what
      the last change added, until `end_step`, from when on it is that of `sparsity`.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Deviations:
      The value of c and the steps in which the paper's mutation fades are not known to
      us: c is 1 and the fading a cosine.

    References:
      Yuan, Ma, Niu, Li, Kong, Liu, Gong, Zhan, He, Jin, Wang, Qin, Ren, Wang, Liu, Lin.
      MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the Edge.
      2021. arXiv:2110.14032.
    """
    if not 0 <= gradient_weight < math.inf:
        raise ValueError(
            f"gradient_weight: got {gradient_weight}; expected a finite number, 0 or "
            "more"
        )
    if soft_bound and end_step is None:
        raise ValueError("end_step: got None with soft_bound; wanted the last change")
    change = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        drop_fraction=drop_fraction,
        drop_schedule=drop_schedule,
        structure=structure,
        dense=dense,
        axes=axes,
        regrow_dropped=regrow_dropped,
        restart_dropped=restart_dropped,
        include_end=soft_bound,
    )

    def worth(masks: Masks, params: Params, grads: Grads) -> Scores:
        return masks_lib.tree_map(
            lambda _, w, g: jnp.abs(w) + gradient_weight * jnp.abs(g).astype(w.dtype),
            masks,
            params,
            grads,
        )

    return drop_grow.drop_and_grow(
        inner,
        change,
        keep=drop_grow.make_keep(worth),
        grow_score=drop_grow.random_growth_scores,
        init_masks=init_masks.random(
            sparsity=sparsity,
            distribution=distribution,
            dense=dense,
            structure=structure,
            axes=axes,
            prunable=prunable,
            key=key,
        ),
        soft_bound=soft_bound,
        skip_inner=False,
        key=init_masks.first_key(key),
    )
