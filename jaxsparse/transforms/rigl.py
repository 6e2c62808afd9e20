"""RigL: weights are grown by the magnitude of their gradient."""

import dataclasses

import optax

from jaxsparse import arguments, layer_options
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import drop, drop_grow, grow, init_masks, options
from jaxsparse.transforms.options import DropGrowOptions
from jaxsparse.types import RandomKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class RigLOptions(DropGrowOptions):
    """How mask updates of RigL drop and grow weights.

    By default, `drop_fraction` is 0.3, `drop_schedule` "cosine" and `skip_update` True.

    `DropGrowOptions` explains the options that are not listed here.

    Attributes:
      grow: "gradient" grows the weights of largest absolute gradient; "inverted" those
        of smallest, a control in the gradient flow paper; "random" grows at random.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.
    """

    grow: str = "gradient"

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        arguments.check_fields(self, grow=arguments.one_of(grow.GROWTH))


@arguments.check(
    sparsity=arguments.fraction,
    key=arguments.optional(arguments.key),
)
def rigl(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    layers: LayerOptions | None = None,
    updates: DropGrowOptions | RigLOptions | None = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Drops the smallest weights and grows those of largest gradient: RigL.

    The gradient is the dense one that `update` receives, or `growth_grads`, which may
    be computed on another batch:
    `tx.update(grads, state, params, growth_grads=lambda params: ...)`.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      update_every: steps between mask updates, at least 1.
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      end_step: mask updates take place before this step; the paper uses three quarters
        of training. Required, unless `drop_schedule` is "constant": then None means no
        end.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "erk" by default. `select.fan_in()` as structure gives the
        constant fan-in of SRigL. `min_layer_density` must be 0.
      updates: how mask updates drop and grow weights; a `DropGrowOptions` or a
        `RigLOptions`.
      key: random key that the initial masks and, with `grow` "random", the mask updates
        are drawn with, typed or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. The number of active weights of each layer is constant.
      Ties between equal magnitudes or equal gradients are broken by a fixed
      pseudo-random order of positions.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = rigl(optax.adamw(1e-3), sparsity=0.9, end_step=75_000)
      >>> updates = transforms.RigLOptions(drop_fraction=0.5, grow="random")
      >>> tx = rigl(optax.sgd(0.1), sparsity=0.9, end_step=75_000, updates=updates)

    Deviations:
      With `skip_update`, biases are not updated at mask updates either, as in the
      authors' code. Constant fan-in is that of SRigL without its ablation of neurons,
      and drops the same number of weights from every neuron; `srigl` does neither.

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, algorithm 1.
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533 ("inverted").
      Lasby, Golubeva, Evci, Nica, Ioannou. Dynamic Sparse Training with Structured
      Sparsity. 2023. arXiv:2305.02299 (constant fan-in).
    """
    layers = layer_options.resolve(
        layers, function="rigl", distribution="erk", unused=("min_layer_density",)
    )
    updates = options.resolve(
        updates,
        RigLOptions,
        function="rigl",
        drop_fraction=0.3,
        drop_schedule="cosine",
        skip_update=True,
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
        keep=drop.make_keep(drop.keep_by_magnitude),
        grow_score=grow.score_by(updates.grow),
        init_masks=init_masks.random(sparsity=sparsity, layers=layers, key=key),
        # Growth by gradient draws nothing, so the optimizer state needs no key. Steps
        # are folded in, 2**31 for the initial masks, so no two draws are alike.
        key=init_masks.first_key(key) if updates.grow == "random" else None,
    )
