"""Dynamic sparse training: some weights are dropped and others grown during training.

The number of active weights of each layer stays constant. All methods start from random
masks with exact layer counts, which `replace_masks` can replace, and update the masks
on a schedule. They differ in:

    method            drops               grows                step at a mask update
    sparse_evolution  smallest, by sign   at random            taken
    rigl              smallest            largest |gradient|   skipped
    mest              least |w| + c |g|   at random            taken

In-time over-parameterization (ITOP, arXiv:2102.02887) is `sparse_evolution` or `rigl`
with settings that explore more weights: thousands of steps between mask updates, half
of the weights dropped, small batches and long training. `ever_active` measures the
exploration.

A grown weight starts from zero with fresh optimizer state. Adam's first step for such a
weight is large, because Adam's bias correction uses a step count shared by all weights,
which is not reset. The step is about (1 - b1) / sqrt(1 - b2) times the learning rate,
which is 3 times with the usual constants, whatever the gradient.
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
    key=arguments.optional(arguments.key),
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
    allow_regrow: bool = True,
    zero_regrown: bool = False,
    skip_update: bool = False,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Drops the smallest weights and grows as many at random: SET.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      distribution: how the active weights are divided among layers: a name in
        `distributions.NAMES` ("uniform", "balanced", "er" or "erk"), or a function of
        masks and sparsity that returns the number of active weights of each layer.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: mask updates do not change them, and they need not fit `structure`. Must
        be empty if `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one. Requires
        `drop_by_sign=False`.
      update_every: steps between mask updates, at least 1.
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      end_step: mask updates take place before this step; None for no end.
      drop_fraction: fraction of each layer's active weights that a mask update drops,
        in [0, 1]; the count is rounded down.
      drop_schedule: how `drop_fraction` changes over training: "constant"; "cosine",
        which decays to 0 at `end_step`; or a function of the step, such as a learning
        rate schedule, whose value relative to its largest value multiplies
        `drop_fraction`. All but "constant" need `end_step`.
      drop_by_sign: whether to drop `drop_fraction` of the positive weights and the same
        fraction of the negative weights, in each case those closest to zero. If False,
        `drop_fraction` of all weights is dropped, whatever their sign.
      allow_regrow: whether a weight dropped in a mask update may be grown again in
        the same update.
      zero_regrown: whether a weight dropped and regrown in the same update starts
        from zero with fresh optimizer state, as other grown weights do. If False, it
        keeps its value and its optimizer state.
      skip_update: whether to skip the step of `inner` at mask updates. Then surviving
        weights and their optimizer state stay as they are.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.
      key: random key that the initial masks and the mask updates are drawn with, typed
        or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. The number of active weights of each layer is constant.
      Ties between equal magnitudes are broken by a fixed pseudo-random order of
      positions.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = sparse_evolution(optax.sgd(0.1, 0.9), sparsity=0.9, update_every=400)

    Deviations:
      The paper updates the masks after every epoch; pass the number of steps in an
      epoch as `update_every`. The paper draws its initial masks with a probability for
      each weight; here the layer counts equal their expectation. The paper does not say
      what value a grown weight starts from; here it is zero.

    References:
      Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta. Scalable Training of Artificial
      Neural Networks with Adaptive Sparse Connectivity inspired by Network Science.
      2018. arXiv:1707.04780, algorithm 1.
    """
    if drop_by_sign and structure is not None:
        raise ValueError(
            f"drop_by_sign: expected False with structure {structure}, since units of "
            "several weights have no sign, got True"
        )
    spec = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        drop_fraction=drop_fraction,
        drop_schedule=drop_schedule,
        structure=structure,
        dense=dense,
        axes=axes,
        allow_regrow=allow_regrow,
        zero_regrown=zero_regrown,
    )

    return drop_grow.drop_and_grow(
        inner,
        spec,
        keep=drop_grow.make_keep_by_sign(allow_regrow=allow_regrow)
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
        skip_update=skip_update,
        key=init_masks.first_key(key),
    )


@arguments.check(
    sparsity=arguments.real,
    drop_fraction=arguments.real,
    drop_schedule=arguments.name_or_function,
    key=arguments.optional(arguments.key),
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
    allow_regrow: bool = True,
    zero_regrown: bool = False,
    skip_update: bool = True,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Drops the smallest weights and grows those of largest gradient: RigL.

    The gradient is the dense one that `update` receives, or `growth_grads`, which may
    be computed on another batch:
    `tx.update(grads, state, params, growth_grads=lambda params: ...)`.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      distribution: how the active weights are divided among layers: a name in
        `distributions.NAMES` ("uniform", "balanced", "er" or "erk"), or a function of
        masks and sparsity that returns the number of active weights of each layer.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: mask updates do not change them, and they need not fit `structure`. Must
        be empty if `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one.
        `select.fan_in()` gives the constant fan-in of SRigL.
      update_every: steps between mask updates, at least 1.
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      end_step: mask updates take place before this step; None for no end. The paper
        uses three quarters of training. The default `drop_schedule` needs it.
      drop_fraction: fraction of each layer's active weights that a mask update drops,
        in [0, 1]; the count is rounded down.
      drop_schedule: how `drop_fraction` changes over training: "constant"; "cosine",
        which decays to 0 at `end_step`; or a function of the step, such as a learning
        rate schedule, whose value relative to its largest value multiplies
        `drop_fraction`. All but "constant" need `end_step`.
      grow: "gradient" grows the weights of largest absolute gradient; "inverted" those
        of smallest, a control in the gradient flow paper; "random" grows at random.
      allow_regrow: whether a weight dropped in a mask update may be grown again in
        the same update.
      zero_regrown: whether a weight dropped and regrown in the same update starts
        from zero with fresh optimizer state, as other grown weights do. If False, it
        keeps its value and its optimizer state.
      skip_update: whether to skip the step of `inner` at mask updates. Then surviving
        weights and their optimizer state stay as they are.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.
      key: random key that the initial masks and, for `grow="random"`, the mask updates
        are drawn with, typed or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. The number of active weights of each layer is constant.
      Ties between equal magnitudes or equal gradients are broken by a fixed
      pseudo-random order of positions.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = rigl(optax.adamw(1e-3), sparsity=0.9, end_step=75_000)

    Deviations:
      With `skip_update`, biases are not updated at mask updates either, as in the
      authors' code. Constant fan-in is that of SRigL without its ablation of neurons,
      and drops the same number of weights from every neuron.

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, algorithm 1.
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533 ("inverted").
      Lasby, Golubeva, Evci, Nica, Ioannou. Dynamic Sparse Training with Structured
      Sparsity. 2023. arXiv:2305.02299 (constant fan-in).
    """
    if grow not in GROWTH:
        raise ValueError(f"grow: expected one of {list(GROWTH)}, got {grow!r}")
    spec = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        drop_fraction=drop_fraction,
        drop_schedule=drop_schedule,
        structure=structure,
        dense=dense,
        axes=axes,
        allow_regrow=allow_regrow,
        zero_regrown=zero_regrown,
    )

    # This key has the step folded in and that of the initial masks 2**31, which no step
    # reaches, so the two never draw alike.
    def grow_score(masks: Masks, grads: Grads, key: Key[Array, ""] | None) -> Scores:
        if grow == "random":
            return scores.random(masks, key=key)
        # Growing takes the highest scores, so "inverted" negates the gradient's size.
        magnitude = grow_lib.gradient_magnitude(masks, grads)
        return (
            magnitude if grow == "gradient" else jax.tree.map(jnp.negative, magnitude)
        )

    return drop_grow.drop_and_grow(
        inner,
        spec,
        keep=drop_grow.make_keep(drop_grow.keep_by_magnitude),
        grow_score=grow_score,
        init_masks=init_masks.random(
            sparsity=sparsity,
            distribution=distribution,
            dense=dense,
            structure=structure,
            axes=axes,
            prunable=prunable,
            key=key,
        ),
        skip_update=skip_update,
        # Growth by gradient draws nothing, so the optimizer state needs no key.
        key=init_masks.first_key(key) if grow == "random" else None,
    )


@arguments.check(
    sparsity=arguments.real,
    drop_fraction=arguments.real,
    drop_schedule=arguments.name_or_function,
    key=arguments.optional(arguments.key),
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
    allow_regrow: bool = True,
    zero_regrown: bool = False,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Drops the weights of least |w| + c |gradient| and grows at random: MEST.

    With `drop_schedule` "cosine", the fraction of weights replaced at each mask update
    decays to zero; the paper calls this elastic mutation. With `soft_bound`, a mask
    update grows weights before it drops any: from one mask update to the next, the
    network has the grown weights in addition to its target count, and the next mask
    update drops as many of the least important. The mask update at `end_step` only
    drops.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      distribution: how the active weights are divided among layers: a name in
        `distributions.NAMES` ("uniform", "balanced", "er" or "erk"), or a function of
        masks and sparsity that returns the number of active weights of each layer.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: mask updates do not change them, and they need not fit `structure`. Must
        be empty if `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one.
      update_every: steps between mask updates, at least 1.
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      end_step: mask updates take place before this step; None for no end. With
        `soft_bound` it is required, and the last mask update takes place at this step
        itself. The default `drop_schedule` also needs it.
      drop_fraction: fraction of each layer's active weights that a mask update drops,
        in [0, 1]; the count is rounded down.
      drop_schedule: how `drop_fraction` changes over training: "constant"; "cosine",
        which decays to 0 at `end_step`; or a function of the step, such as a learning
        rate schedule, whose value relative to its largest value multiplies
        `drop_fraction`. All but "constant" need `end_step`.
      gradient_weight: factor c in the importance |w| + c |gradient|, finite and at
        least 0.
      soft_bound: whether grown weights are in addition to the target count until the
        next mask update.
      allow_regrow: whether a weight dropped in a mask update may be grown again in
        the same update.
      zero_regrown: whether a weight dropped and regrown in the same update starts
        from zero with fresh optimizer state, as other grown weights do. If False, it
        keeps its value and its optimizer state.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.
      key: random key that the initial masks and the mask updates are drawn with, typed
        or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. The number of active weights of each layer is constant.
      With `soft_bound`, until `end_step` it is larger by the number of weights that the
      last mask update grew.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Deviations:
      The paper's value of c and the steps at which its mutation rate decreases are not
      known to us: c is 1 and the decay is a cosine.

    References:
      Yuan, Ma, Niu, Li, Kong, Liu, Gong, Zhan, He, Jin, Wang, Qin, Ren, Wang, Liu, Lin.
      MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the Edge.
      2021. arXiv:2110.14032.
    """
    # The comparison is also False for NaN.
    if not 0 <= gradient_weight < math.inf:
        raise ValueError(
            "gradient_weight: expected a finite number of at least 0, got "
            f"{gradient_weight}"
        )
    if soft_bound and end_step is None:
        raise ValueError(
            "end_step: expected the step of the last mask update, which soft_bound "
            "requires, got None"
        )
    spec = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        drop_fraction=drop_fraction,
        drop_schedule=drop_schedule,
        structure=structure,
        dense=dense,
        axes=axes,
        allow_regrow=allow_regrow,
        zero_regrown=zero_regrown,
        # The last mask update drops the weights above the target count, so it has to
        # take place at the end itself.
        include_end=soft_bound,
    )

    def importance(masks: Masks, params: Params, grads: Grads) -> Scores:
        return masks_lib.tree_map(
            # In the dtype of the weights, as magnitude scores are, even if the gradient
            # is wider.
            lambda _, w, g: jnp.abs(w) + gradient_weight * jnp.abs(g).astype(w.dtype),
            masks,
            params,
            grads,
        )

    return drop_grow.drop_and_grow(
        inner,
        spec,
        keep=drop_grow.make_keep(importance),
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
        skip_update=False,
        key=init_masks.first_key(key),
    )
