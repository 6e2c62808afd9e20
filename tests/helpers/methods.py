"""Every sparse-training method of the package, and how many weights each has when.

The counts are worked out here a second time, for one small network, in Python's
integers and fractions and from the methods' papers: nothing of jaxsparse is asked.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from helpers import flat_options
from helpers.reference import select as select_slowly

from jaxsparse import select, transforms

# Two layers, so that weights can move; of 8 by 12 and 12 by 4, so that every structure
# fits and no two leaves are alike in shape; of two dtypes.
SHAPES = {
    "first": {"bias": ((12,), "float32"), "kernel": ((8, 12), "float32")},
    "second": {"bias": ((4,), "bfloat16"), "kernel": ((12, 4), "bfloat16")},
}
SIZES = (96, 48)
TOTAL = sum(SIZES)
UPDATES = 11  # numbered from 0
QUIET = (2, 5, 8)  # updates at which no method that keeps few weights changes masks
Counts = tuple[int, ...]


class Method(NamedTuple):
    """One method.

    Attributes:
      make: wraps an optimizer.
      counts: weights that masks hold after an update: of each layer, or of all
        together where layers compete.
      latent: whether the parameters stay dense.
      forgets: called as `forgets(update, masks, weights)`, both lists of arrays:
        weights whose memory begins afresh although the masks keep them; None for none.
      zeroes: whether those start from zero, too.
      rests: updates at which the optimizer's step is left out.
      reparameterized: whether there is more between the method and the optimizer's
        state; of that see test_reparameterize.py and test_project.py.
    """

    make: Callable[[Any], Any]
    counts: Callable[[int], Counts]
    latent: bool = False
    forgets: Callable[[int, list[np.ndarray], list[np.ndarray]], list] | None = None
    zeroes: bool = False
    rests: tuple[int, ...] = ()
    reparameterized: bool = False


def always(*counts: int) -> Callable[[int], Counts]:
    return lambda update: counts


def shared(total: int) -> Counts:
    """Divides among two layers, the first of twice the size: the nearest integers."""
    first = (4 * total + 3) // 6
    return first, total - first


def kept(sparsity: Fraction | float) -> int:
    """Counts what a sparsity leaves of all weights, halves up."""
    return math.floor(TOTAL * (1 - Fraction(sparsity)) + Fraction(1, 2))


def held(steps: Sequence[int], counts: Sequence[int], step: int) -> int:
    """Looks up the count at a step; `counts` has one more, for before."""
    return counts[sum(change <= step for change in steps)]


def cubic(steps: Sequence[int], initial: Fraction, final: Fraction) -> list[int]:
    """Zhu and Gupta's equation 1 at each change, and the count before."""
    parts = [Fraction(step - steps[0], steps[-1] - steps[0]) for step in steps]
    sparsities = [final + (initial - final) * (1 - part) ** 3 for part in parts]
    return [kept(initial), *map(kept, sparsities)]


def cosine(update: int) -> float:
    """The part dropped: half at first, nothing at update 10."""
    return 0.25 * (1 + math.cos(math.pi * update / 10))


# The density to the third, two thirds, and the whole.
GEMS = [TOTAL, *(kept(1 - 0.25 ** (k / 3)) for k in (1, 2)), 36]
PRUNES = (1, 4, 7, 9)
LINEAR = [kept(Fraction(3, 4) * Fraction(s - 1, 8)) for s in (1, *PRUNES)]
CUBIC = cubic(PRUNES, Fraction(0), Fraction(3, 4))
SIGMOID = [72]
SIGMOID += [
    kept(0.5 + 0.125 * (1 + math.tanh(0.75 * (s - 1) - 3) / math.tanh(3)))
    for s in PRUNES
]
GRADUAL = {"sparsity": 0.75, "begin_step": 1, "end_step": 9, "update_every": 3}
# 36 weights of 144, or 72: by Erdos and Renyi as 20 to 16, uniform as 2 to 1.
SPARSE = {"sparsity": 0.75, "begin_step": 1, "update_every": 3, "drop_fraction": 0.5}
FADING = SPARSE | {"end_step": 10}
EVEN = {"distribution": "uniform"}
RIGL_CHANGES = (1, 4, 7)


CYCLES = {"density_factor": 2.0, "cycles": 1}
AT = (1, 4, 7, 10)


def cycled(end: int) -> Callable[[int], Counts]:
    """Twice the density in the middle of a cycle, divided as 5 to 4 by ERK."""
    heights = [(1 - math.cos(2 * math.pi * s / end)) / 2 if s < end else 0 for s in AT]
    totals = [36, *(kept(0.75 - 0.25 * height) for height in heights)]

    def counts(update: int) -> Counts:
        total = held(AT, totals, update)
        first = (10 * total + 9) // 18
        return first, total - first

    return counts


def soft_counts(update: int) -> Counts:
    """24 and 12, and what the last change added, until the change at 10."""
    changes = [step for step in (1, 4, 7) if step <= update < 10]
    part = cosine(changes[-1]) if changes else 0
    return tuple(base + math.floor(base * part) for base in (24, 12))


def phase_counts(update: int) -> Counts:
    """Compressed at 1, 5 and 9, decompressed at 3 and 7."""
    return (held((1, 3, 5, 7, 9), (144, 36, 144, 36, 144, 36), update),)


def dropped_at_change(
    update: int, held: list[np.ndarray], weights: list[np.ndarray]
) -> list[np.ndarray]:
    """The smallest of each layer's weights, the part that rigl drops."""
    if update not in RIGL_CHANGES:
        return [np.zeros_like(mask) for mask in held]
    result = []
    for mask, weight in zip(held, weights, strict=True):
        count = int(mask.sum())
        left = count - math.floor(count * cosine(update))
        size = np.abs(np.asarray(weight, np.float64))
        (stay,) = select_slowly([size], left, within=[mask])
        result.append(mask & ~stay)
    return result


def all_when_opened(
    update: int, held: list[np.ndarray], weights: list[np.ndarray]
) -> list[np.ndarray]:
    return [np.full_like(mask, update in (3, 7)) for mask in held]


def some_masks() -> dict:
    """A third of the first layer, a quarter of the second."""
    first = jnp.arange(96).reshape(8, 12) % 3 == 0
    second = jnp.arange(48).reshape(12, 4) % 4 == 1
    return {
        "first": {"bias": None, "kernel": first},
        "second": {"bias": None, "kernel": second},
    }


def dynamic(
    make: Callable[..., Any], counts: Counts, forgets: Any = None, **options: Any
) -> Method:
    skips = make in (transforms.rigl, transforms.srigl) and options.get(
        "skip_update", True
    )
    rests = RIGL_CHANGES if skips else ()
    return Method(
        lambda inner: flat_options.call(make, inner, **options),
        lambda update: counts,
        forgets=forgets,
        zeroes=forgets is not None,
        rests=rests,
    )


t = transforms
METHODS: dict[str, Method] = {
    "fixed": Method(lambda tx: t.fixed(tx, masks=some_masks()), always(32, 12)),
    "gradual_magnitude": Method(
        lambda tx: t.gradual_magnitude(tx, **GRADUAL),
        lambda update: shared(held(PRUNES, CUBIC, update)),
    ),
    "gradual_magnitude global": Method(
        lambda tx: t.gradual_magnitude(
            tx,
            **GRADUAL,
            layers=t.LayerOptions(distribution="global", min_layer_density=0.2),
        ),
        lambda update: (held(PRUNES, CUBIC, update),),
    ),
    "one_shot_magnitude": Method(
        lambda tx: t.one_shot_magnitude(tx, sparsity=0.75, step=4),
        lambda update: (held((4,), (144, 36), update),),
    ),
    "sparse_evolution": dynamic(t.sparse_evolution, (20, 16), **SPARSE),
    "sparse_evolution blocks": dynamic(
        *(t.sparse_evolution, (24, 12)),
        **(SPARSE | EVEN),
        structure=select.blocks((2, 2)),
        drop_by_sign=False,
    ),
    "rigl": dynamic(t.rigl, (20, 16), **FADING),
    "rigl inverted": dynamic(
        *(t.rigl, (20, 16)),
        **FADING,
        grow="inverted",
        allow_regrow=False,
        skip_update=False,
    ),
    "rigl restarts": dynamic(
        t.rigl, (20, 16), dropped_at_change, **FADING, zero_regrown=True
    ),
    "rigl fan_in": dynamic(
        t.rigl, (24, 12), **(FADING | EVEN), structure=select.fan_in()
    ),
    "rigl n_of_m": dynamic(
        *(t.rigl, (48, 24)),
        **(FADING | EVEN | {"sparsity": 0.5, "drop_schedule": "constant"}),
        structure=select.n_of_m(4),
    ),
    "srigl": dynamic(t.srigl, (), **(FADING | EVEN), min_salient=0.5),
    "mest": dynamic(t.mest, (24, 12), **FADING),
    "mest soft_bound": Method(
        lambda tx: flat_options.call(
            t.mest, tx, **FADING, soft_bound=True, gradient_weight=2.0
        ),
        soft_counts,
    ),
    "neurrev": dynamic(t.neurrev, (20, 16), **FADING, negative_drop_fraction=0.2),
    "neurrev restarts": dynamic(
        *(t.neurrev, (20, 16), dropped_at_change),
        **FADING,
        negative_drop_fraction=0.2,
        zero_regrown=True,
    ),
    "snfs": dynamic(t.snfs, (36,), **FADING, momentum=0.8),
    "granet": Method(
        lambda tx: t.granet(
            tx, **GRADUAL, updates=t.GraNetOptions(initial_sparsity=0.5)
        ),
        lambda update: (
            held(PRUNES, cubic(PRUNES, Fraction(1, 2), Fraction(3, 4)), update),
        ),
    ),
    "chts": Method(
        lambda tx: t.chts(tx, **GRADUAL, updates=t.CHTsOptions(drop_fraction=0.5)),
        always(24, 12),
    ),
    "chts decay": Method(
        lambda tx: t.chts(tx, **GRADUAL, updates=t.CHTsOptions(initial_sparsity=0.5)),
        lambda update: shared(held(PRUNES, SIGMOID, update)),
    ),
    "east": Method(
        lambda tx: flat_options.call(t.east, tx, **FADING, **CYCLES, cycle_part=0.8),
        cycled(8),
    ),
    "cycles of set": Method(
        lambda tx: flat_options.call(
            t.east, tx, **FADING, **CYCLES, cycle_part=0.3, grow="random"
        ),
        cycled(3),
    ),
    "ac_dc": Method(
        lambda tx: t.ac_dc(tx, sparsity=0.75, begin_step=1, end_step=9, update_every=2),
        phase_counts,
        forgets=all_when_opened,
    ),
    "ac_dc keeps memory": Method(
        lambda tx: t.ac_dc(
            *(tx,),
            sparsity=0.75,
            begin_step=1,
            end_step=9,
            update_every=2,
            reset_memory=False,
        ),
        phase_counts,
    ),
    "straight_through": Method(
        lambda tx: t.straight_through(tx, sparsity=0.75), always(24, 12), latent=True
    ),
    # After an update the masks are those of the next.
    "straight_through gradual": Method(
        lambda tx: t.straight_through(
            tx, **GRADUAL, layers=t.LayerOptions(distribution="global"), train_all=False
        ),
        lambda update: (held(PRUNES, CUBIC, update + 1),),
        latent=True,
    ),
    "top_kast": Method(
        lambda tx: t.top_kast(
            tx, sparsity=0.75, backward_sparsity=0.5, regularization=1e-3
        ),
        always(24, 12),
        latent=True,
    ),
    "sr_ste": Method(lambda tx: t.sr_ste(tx), always(48, 24), latent=True),
    # After an update the masks are those of as many weights as that update keeps.
    "weight_sparse": Method(
        lambda tx: t.weight_sparse(
            tx, **GRADUAL, layers=t.LayerOptions(prunable=("*/kernel",))
        ),
        lambda update: shared(held(PRUNES, LINEAR, update + 1)),
        latent=True,
        reparameterized=True,
    ),
    # How many weights these three and srigl keep, training decides: () asserts none.
    "proximal_l1": Method(
        lambda tx: t.proximal_l1(tx, l1_penalty=2.0, learning_rate=0.1),
        always(),
        latent=True,
        reparameterized=True,
    ),
    "learned_threshold": Method(
        lambda tx: t.learned_threshold(tx, threshold_logit=-1.0),
        always(),
        latent=True,
        reparameterized=True,
    ),
    "continuous_sparsification": Method(
        lambda tx: t.continuous_sparsification(tx, end_step=6, mask_logit=-0.01),
        lambda update: SIZES if update < 5 else (),
        latent=True,
        reparameterized=True,
    ),
    # 2 of 12 diagonals of 8, and 3 of 12 of 4.
    "dynadiag": Method(
        lambda tx: t.dynadiag(tx, sparsity=0.8, end_step=6),
        lambda update: SIZES if update < 5 else (16, 12),
        latent=True,
        reparameterized=True,
    ),
    "edge_popup": Method(
        lambda tx: t.edge_popup(tx, sparsity=0.75),
        always(24, 12),
        latent=True,
        reparameterized=True,
    ),
    "s_ste": Method(
        lambda tx: t.s_ste(tx), always(48, 24), latent=True, reparameterized=True
    ),
    "gem_miner": Method(
        lambda tx: t.gem_miner(tx, sparsity=0.75, end_step=9, update_every=3),
        lambda update: (held((3, 6, 9), GEMS, update),),
        reparameterized=True,
    ),
    "fixed powerpropagation": Method(
        lambda tx: t.fixed(
            t.reparameterize(tx, t.powerpropagation(2.0)), masks=some_masks()
        ),
        always(32, 12),
        reparameterized=True,
    ),
    "top_kast powerpropagation": Method(
        lambda tx: t.top_kast(
            *(t.reparameterize(tx, t.powerpropagation(3.0)),),
            sparsity=0.75,
            backward_sparsity=0.5,
        ),
        always(24, 12),
        latent=True,
        reparameterized=True,
    ),
    "rigl sign_in": Method(
        lambda tx: flat_options.call(
            t.rigl, t.reparameterize(tx, t.sign_in(rescale_every=4)), **FADING
        ),
        always(20, 16),
        rests=RIGL_CHANGES,
        reparameterized=True,
    ),
}


def make_params(seed: int = 0, dtype: str | None = None) -> dict:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf[0]), dtype or leaf[1]),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )
