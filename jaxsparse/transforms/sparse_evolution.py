"""SET: sparse evolutionary training."""

import dataclasses

import optax

from jaxsparse import arguments, layer_options
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import drop, drop_grow, init_masks, options
from jaxsparse.transforms import grow as grow_lib
from jaxsparse.transforms.options import DropGrowOptions
from jaxsparse.types import RandomKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseEvolutionOptions(DropGrowOptions):
    """How mask updates of SET drop and grow weights.

    By default, `drop_fraction` is 0.3, `drop_schedule` "constant" and `skip_update`
    False.

    `DropGrowOptions` explains the options that are not listed here.

    Attributes:
      drop_by_sign: whether to drop `drop_fraction` of the positive weights and the same
        fraction of the negative weights, in each case those closest to zero. If False,
        `drop_fraction` of all weights is dropped, whatever their sign. Must be False
        with a structure.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.
    """

    drop_by_sign: bool = True


@arguments.check(
    sparsity=arguments.fraction,
    key=arguments.optional(arguments.key),
)
def sparse_evolution(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    layers: LayerOptions | None = None,
    updates: DropGrowOptions | SparseEvolutionOptions | None = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Drops the smallest weights and grows as many at random: SET.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      update_every: steps between mask updates, at least 1.
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      end_step: mask updates take place before this step; None for no end.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "er" by default. A structure requires `drop_by_sign` False, see
        `updates`. `min_layer_density` must be 0.
      updates: how mask updates drop and grow weights; a `DropGrowOptions` or a
        `SparseEvolutionOptions`.
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
      >>> updates = transforms.SparseEvolutionOptions(drop_by_sign=False)
      >>> tx = sparse_evolution(optax.sgd(0.1, 0.9), sparsity=0.9, updates=updates)

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
    layers = layer_options.resolve(
        layers,
        function="sparse_evolution",
        distribution="er",
        unused=("min_layer_density",),
    )
    updates = options.resolve(
        updates,
        SparseEvolutionOptions,
        function="sparse_evolution",
        drop_fraction=0.3,
        drop_schedule="constant",
        skip_update=False,
    )
    if updates.drop_by_sign and layers.structure is not None:
        raise ValueError(
            f"drop_by_sign: expected False with structure {layers.structure}, since "
            "units of several weights have no sign, got True"
        )
    spec = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        layers=layers,
        updates=updates,
    )

    return drop_grow.drop_and_grow(
        inner,
        spec,
        keep=drop.make_keep_by_sign(allow_regrow=updates.allow_regrow)
        if updates.drop_by_sign
        else drop.make_keep(drop.keep_by_magnitude),
        grow_score=grow_lib.random_scores,
        init_masks=init_masks.random(sparsity=sparsity, layers=layers, key=key),
        key=init_masks.first_key(key),
    )
