"""MEST: weights are dropped by magnitude and gradient, and grown at random."""

import dataclasses

import jax.numpy as jnp
import optax

from jaxsparse import arguments, layer_options
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import drop, drop_grow, init_masks, options
from jaxsparse.transforms import grow as grow_lib
from jaxsparse.transforms.options import DropGrowOptions
from jaxsparse.types import Grads, Masks, Params, RandomKey, Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class MESTOptions(DropGrowOptions):
    """How mask updates of MEST drop and grow weights.

    By default, `drop_fraction` is 0.3 and `drop_schedule` "cosine". `skip_update` must
    be False or None.

    `DropGrowOptions` explains the options that are not listed here.

    Attributes:
      gradient_weight: factor c in the importance |w| + c |gradient|, finite and at
        least 0.
      soft_bound: whether grown weights are in addition to the target count until the
        next mask update.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.
    """

    gradient_weight: float = 1.0
    soft_bound: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        arguments.check_fields(self, gradient_weight=arguments.number(0))


@arguments.check(
    sparsity=arguments.fraction,
    key=arguments.optional(arguments.key),
)
def mest(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    layers: LayerOptions | None = None,
    updates: DropGrowOptions | MESTOptions | None = None,
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
      update_every: steps between mask updates, at least 1.
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      end_step: mask updates take place before this step; None for no end. With a soft
        bound it is required, and the last mask update takes place at this step itself.
        The default `drop_schedule` also needs it.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "uniform" by default. `min_layer_density` must be 0.
      updates: how mask updates drop and grow weights; a `DropGrowOptions` or a
        `MESTOptions`.
      key: random key that the initial masks and the mask updates are drawn with, typed
        or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. The number of active weights of each layer is constant.
      With `soft_bound`, until `end_step` it is larger by the number of weights that the
      last mask update grew.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> updates = transforms.MESTOptions(soft_bound=True)
      >>> tx = mest(optax.sgd(0.1), sparsity=0.9, end_step=75_000, updates=updates)

    Deviations:
      The paper's value of c and the steps at which its mutation rate decreases are not
      known to us: c is 1 and the decay is a cosine.

    References:
      Yuan, Ma, Niu, Li, Kong, Liu, Gong, Zhan, He, Jin, Wang, Qin, Ren, Wang, Liu, Lin.
      MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the Edge.
      2021. arXiv:2110.14032.
    """
    layers = layer_options.resolve(
        layers, function="mest", distribution="uniform", unused=("min_layer_density",)
    )
    updates = options.resolve(
        updates,
        MESTOptions,
        function="mest",
        drop_fraction=0.3,
        drop_schedule="cosine",
        skip_update=False,
    )
    options.check_required(updates, function="mest", skip_update=False)
    if updates.soft_bound and end_step is None:
        raise ValueError(
            "end_step: expected the step of the last mask update, which soft_bound "
            "requires, got None"
        )
    spec = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        layers=layers,
        updates=updates,
        # The last mask update drops the weights above the target count, so it has to
        # take place at the end itself.
        include_end=updates.soft_bound,
    )

    def importance(masks: Masks, params: Params, grads: Grads) -> Scores:
        return masks_lib.tree_map(
            # In the dtype of the weights, as magnitude scores are, even if the gradient
            # is wider.
            lambda _, w, g: (
                jnp.abs(w) + updates.gradient_weight * jnp.abs(g).astype(w.dtype)
            ),
            masks,
            params,
            grads,
        )

    return drop_grow.drop_and_grow(
        inner,
        spec,
        keep=drop.make_keep(importance),
        grow_score=grow_lib.random_scores,
        init_masks=init_masks.random(sparsity=sparsity, layers=layers, key=key),
        soft_bound=updates.soft_bound,
        key=init_masks.first_key(key),
    )
