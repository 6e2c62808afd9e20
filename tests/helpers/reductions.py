"""A network with dead slices, what must go of it, and the check that it does."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import compaction
from jaxsparse.types import Params

s_ = np.s_
# How reasons begin for axes that have no units, whatever is masked.
NO_UNITS = (
    *("an axis of", "positions ", "indices ", "indexing", "an array in"),
    "inputs of a group of a convolution",
)


class Network(NamedTuple):
    """A network, its dead slices, and the indices that must go.

    Attributes:
      apply: the network.
      shapes: shapes of its leaves.
      x: its inputs.
      dead: slices of leaves outside the masks.
      gone: indices that go, by leaf and axis.
      named: part of the reasons that the report must give for units that stay; empty
        if there are none.
      fixed: values of single entries of leaves.
    """

    apply: Callable[..., Any]
    shapes: dict[str, tuple[int, ...]]
    x: Any
    dead: dict[str, list]
    gone: dict[str, dict[int, tuple[int, ...]]]
    named: str = ""
    fixed: dict[str, dict] = {}


def floats(shape: tuple[int, ...], seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def relu(x: Any) -> Any:
    return jnp.maximum(x, 0)


def unit(*leaves: tuple[str, int], of: tuple[int, ...]) -> dict:
    gone: dict = {}
    for leaf, axis in leaves:
        gone.setdefault(leaf, {})[axis] = of
    return gone


def make(network: Network) -> tuple[Params, Any]:
    """Draws parameters away from zero, and masks with the dead slices and no others."""
    rng = np.random.default_rng(3)
    params, active = {}, {}
    for name, shape in network.shapes.items():
        value = rng.uniform(0.3, 1.0, shape) * rng.choice([-1, 1], shape)
        for place, number in network.fixed.get(name, {}).items():
            value[place] = number
        params[name] = jnp.asarray(value, jnp.float32)
        active[name] = None
        if name in network.dead:
            mask = np.ones(shape, bool)
            for place in network.dead[name]:
                mask[place] = False
            active[name] = jnp.asarray(mask)
    return params, active


def _compare(
    network: Network, params: Params, active: Any, small: compaction.Compacted
) -> None:
    """Runs both networks on random inputs, apart from the check of the tool."""
    rng = np.random.default_rng(11)
    x = jax.tree.map(
        lambda leaf: (
            leaf
            if jnp.issubdtype(leaf.dtype, jnp.integer)
            else jnp.asarray(2 * rng.normal(size=leaf.shape), leaf.dtype)
        ),
        network.x,
    )
    thin = {
        name: leaf if active[name] is None else jnp.where(active[name], leaf, 0)
        for name, leaf in params.items()
    }
    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision("highest"):
        run = jax.jit(network.apply)
        wanted, got = run(thin, x), run(small.params, x)
    close = functools.partial(np.testing.assert_allclose, atol=5e-5, rtol=1e-5)
    jax.tree.map(close, got, wanted)


def check(network: Network) -> compaction.Compacted:
    """Compacts a network; asserts what goes, and that outputs stay."""
    params, active = make(network)
    with jax.numpy_rank_promotion("allow"):  # biases are added as users write it
        small = compaction.compact(network.apply, params, active, network.x)
    assert small.report.removed == network.gone
    for leaf, shape in network.shapes.items():
        lost = network.gone.get(leaf, {})
        left = tuple(n - len(lost.get(i, ())) for i, n in enumerate(shape))
        assert small.params[leaf].shape == left, leaf
        assert active[leaf] is None or small.masks[leaf].shape == left, leaf
    assert small.report.difference < 5e-5
    _compare(network, params, active, small)
    kept = set(small.report.kept.values())
    kept |= {r for r in small.report.whole.values() if not r.startswith(NO_UNITS)}
    # What could not go has a reason, and where all that is dead goes there is none.
    assert bool(kept) == bool(network.named), (kept, small.report.kept)
    assert all(network.named in reason for reason in kept), kept
    return small
