"""Signal propagation at initialization, by the protocol of the authors' notebook.

Evci et al. (2020, arXiv:2010.03533) ask whether the signal of random inputs reaches the
logits of a sparse network, for three ways to draw its weights: as in a dense network,
with a variance for the density of each layer (Liu et al. 2019), and with one for the
connections of each neuron. The masks are such that neurons differ in the number of
their connections. Nothing is trained.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Key

from experiments.studies import claims as claims_lib
from experiments.studies import effects, report
from experiments.studies.claims import Claim
from experiments.studies.effects import Effect
from jaxsparse import initializers, rng, tree
from jaxsparse.analysis import gradient_flow
from jaxsparse.models.lenet import LeNet5
from jaxsparse.reports import plot_style

SPARSITIES = tuple(float(s) for s in np.linspace(0, 0.98, 15).round(4))
EXAMPLES = 500  # inputs of each repeat
SHAPE = (28, 28, 3)
DENSE_LAYERS = ("dense1", "dense2", "head")
HE = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")
DRAWS = {
    "dense": initializers.masked(HE),
    "layers": initializers.layer_scaled(HE),
    "neurons": initializers.per_neuron(fan="in", scale=2.0),
}
LABELS = {
    "dense": "as in a dense network",
    "layers": "by the density of layers (Liu et al.)",
    "neurons": "by the connections of neurons (Evci et al.)",
}
KEPT = 0.5  # of the signal of the dense network, the least that counts as kept


def heterogeneous_masks(params: Any, sparsity: float, *, key: Key[Array, ""]) -> Any:
    """Draws masks whose neurons have different numbers of connections.

    A weight of output channel c = 1, ..., C is scored uniformly between 0 and c, and
    the lowest scores of each kernel are removed.

    Args:
      params: parameters, or their shapes; kernels are leaves of two or more axes, the
        last of which are output channels.
      sparsity: fraction of the weights of each kernel that is removed, in [0, 1);
        the number is rounded to the nearest.
      key: typed key.

    Returns:
      Boolean masks with the nesting of `params`; None for other leaves.
    """

    def draw(name: str, leaf: Any) -> Any:
        if leaf.ndim < 2:
            return None
        own = rng.leaf_key(key, name)
        channels = jnp.broadcast_to(jnp.arange(1, leaf.shape[-1] + 1), leaf.shape)
        scores = (jax.random.uniform(own, leaf.shape) * channels).ravel()
        kept = leaf.size - round(sparsity * leaf.size)
        highest = jnp.argsort(scores, descending=True)[:kept]
        return jnp.zeros(leaf.size, bool).at[highest].set(True).reshape(leaf.shape)

    return tree.map_with_names(draw, params)


def measure(
    repeats: int,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    examples: int = EXAMPLES,
) -> pd.DataFrame:
    """Measures the standard deviations of signals.

    Args:
      repeats: number of draws of masks, weights and inputs. Within a repeat, all
        initializations have the same masks and inputs.
      sparsities: fractions of removed weights.
      examples: inputs of each repeat.

    Returns:
      A row for each sparsity, initialization and repeat: "logits", the standard
      deviation over all logits; "neurons", the mean over the neurons of the dense
      layers of each neuron's own; and "connected", the fraction of channels and neurons
      with a connection, a mean over layers.
    """
    model = LeNet5(padding="VALID")
    image = jnp.zeros((1, *SHAPE))
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), image, train=False)["params"]
    )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    activations = gradient_flow.captured(model)

    @functools.partial(jax.jit, static_argnums=0)
    def propagate(name: str, masks: Any, keys: Key[Array, "2"]) -> dict[str, Array]:
        params = initializers.redraw(zeros, masks, DRAWS[name], key=keys[0])
        found = gradient_flow.propagate(
            activations, params, SHAPE, examples=examples, key=keys[1]
        )
        each = [found.neurons[layer] for layer in DENSE_LAYERS]
        own = [jnp.any(m, axis=range(m.ndim - 1)) for m in jax.tree.leaves(masks)]
        return {
            "logits": found.output,
            "neurons": jnp.mean(jnp.concatenate(each)),
            "connected": jnp.mean(jnp.stack([jnp.mean(one) for one in own])),
        }

    rows = []
    for repeat in range(repeats):
        mask_key, *keys = jax.random.split(jax.random.key(repeat), 3)
        for sparsity in sparsities:
            masks = heterogeneous_masks(shapes, sparsity, key=mask_key)
            for name in DRAWS:
                found = propagate(name, masks, jnp.stack(keys))
                row = {"sparsity": sparsity, "initialization": name, "repeat": repeat}
                rows.append(row | {key: float(value) for key, value in found.items()})
    return pd.DataFrame(rows)


def _share(found: pd.DataFrame, name: str) -> np.ndarray:
    """Returns the share of the dense network's signal at the highest sparsity."""
    own = found[found["initialization"] == name].set_index(["sparsity", "repeat"])
    logits = own["logits"].unstack()
    return (logits.loc[logits.index.max()] / logits.loc[logits.index.min()]).to_numpy()


def _vanishes(found: pd.DataFrame) -> Effect:
    share = _share(found, "dense")
    words = f"{effects.spread(share, 3)} of the dense network's"
    return effects.below(share, KEPT).said(words, of="fraction of the deviation kept")


def _stays(found: pd.DataFrame) -> Effect:
    share = _share(found, "neurons")
    words = f"{effects.spread(share, 3)} of the dense network's"
    return effects.above(share, KEPT).said(words, of="fraction of the deviation kept")


def _keeps_more(more: str, less: str) -> Callable[[pd.DataFrame], Effect]:
    """Makes the test of whether one initialization keeps more signal than another."""

    def compare(found: pd.DataFrame) -> Effect:
        a, b = _share(found, more), _share(found, less)
        words = f"{LABELS[more]}: {effects.spread(a, 3)} of the dense network's, "
        words += f"{LABELS[less]}: {effects.spread(b, 3)}"
        of = f"fraction kept {LABELS[more]} minus that {LABELS[less]}"
        return effects.above(a - b).said(words, of=of)

    return compare


CLAIMS = (
    Claim(
        "dense initialization loses the signal",
        "Weights drawn as for a dense network let the signal vanish with sparsity.",
        "figure",
        f"deviation of logits at 98 % below {KEPT} of that of the dense network",
        _vanishes,
    ),
    Claim(
        "the density of layers helps",
        "A variance for the density of each layer keeps more of the signal.",
        "figure",
        "above dense initialization at 98 %",
        _keeps_more("layers", "dense"),
    ),
    Claim(
        "the connections of neurons keep it",
        "A variance for the connections of each neuron preserves the signal.",
        "figure",
        f"deviation of logits at 98 % above {KEPT} of that of the dense network",
        _stays,
    ),
    Claim(
        "neurons above layers",
        "A variance for each neuron keeps more of the signal than one for each layer.",
        "not known to us",
        "above the density of layers at 98 %",
        _keeps_more("neurons", "layers"),
    ),
)


def section(found: pd.DataFrame) -> report.Section:
    """Makes the section of the page.

    Args:
      found: what `measure` returned.
    """
    repeats = found["repeat"].nunique()
    shown = found.groupby(["sparsity", "initialization"])["logits"].apply(list)
    table = shown.map(effects.spread).unstack()[[*DRAWS]]
    table = table.rename(columns=LABELS).reset_index()
    table["sparsity"] = [f"{100 * value:g} %" for value in table["sparsity"]]
    heading = "Standard deviation of the logits"
    title = "Signal propagation at initialization, LeNet-5 on 28x28x3 inputs"
    return report.Section(
        name="signals",
        title=title,
        lines=[
            f"Inputs are standard normal, {EXAMPLES} in each repeat. Kernels are "
            "drawn with He's variance for their dense fan-in, that of their layer or "
            "that of each neuron, and neurons of a layer differ in their number of "
            "connections. Mean ± standard deviation over "
            f"{repeats} repeats (3 were published).",
            f"At the highest sparsity only {_connected(found)} of the channels and "
            "neurons have a connection. A neuron's variance is set for all its inputs, "
            "of which those without a connection are constant, so that each layer "
            "loses signal. By the density of layers, the neurons that are left have "
            "larger weights, which makes up for it on average.",
            "Deviations: the notebook passes the logits through ReLU, and its dense "
            "weights have Glorot's variance; here the logits are the outputs, and all "
            "three start from He's. It removes one weight more in each kernel.",
        ],
        claims=claims_lib.judge(CLAIMS, found, length=1.0),
        about_claims="Thresholds were written before the first measurement.",
        tables=[report.Table(heading, "", table.astype(str))],
        frames={"deviations": found},
        figures={"deviations": figure(found, title)},
        captions={
            "deviations": "Standard deviations of the logits, and means of those of "
            "the neurons of the dense layers, by sparsity."
        },
    )


def _connected(found: pd.DataFrame) -> str:
    """Formats the fraction of connected neurons at the highest sparsity, in percent."""
    highest = found[found["sparsity"] == found["sparsity"].max()]
    each = highest.groupby("repeat")["connected"].first()
    return f"{effects.spread(100 * each.to_numpy(), 1)} %"


def figure(found: pd.DataFrame, title: str) -> Any:
    """Draws both measures by sparsity, a line for each initialization.

    Args:
      found: what `measure` returned.
      title: title of the figure.
    """
    drawn = found.assign(label=found["initialization"].map(LABELS))
    looks = plot_style.styles(list(LABELS.values()))
    made, grid = plot_style.subplots(1, 2, size=(11, 4.6), title=title)
    names = {"logits": "all logits", "neurons": "mean over neurons"}
    handles: dict[str, Any] = {}
    for axes, (column, name) in zip(grid[0], names.items(), strict=True):
        axes.set(xlabel="sparsity", ylabel=f"standard deviation, {name}")
        handles = plot_style.draw_lines(axes, drawn, looks, x="sparsity", y=column)
        axes.set_yscale("log")
    plot_style.legend_below(made, handles, columns=3)
    return made
