"""Compaction of a network given as a function of its parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import arguments, flops, tree
from jaxsparse import masks as masks_lib
from jaxsparse.compaction import cutting, decisions, removed_units, verified
from jaxsparse.compaction.cutting import Cuts
from jaxsparse.coupling.groups import LeafAxis, groups_of
from jaxsparse.coupling.program import trace
from jaxsparse.types import Masks

Apply = Callable[..., Any]
# Makes the function that runs smaller parameters.
Rebuild = Callable[[Any], Apply]


class Report(NamedTuple):
    """What compaction removed, and what it could not remove.

    Attributes:
      parameters: numbers of entries of floating leaves before and after. Pruned weights
        count, and so do running statistics of BatchNorm.
      multiply_adds: multiply-adds for the example before and after, from `flops.macs`;
        None if a `while` loop makes their number unknown.
      bytes: bytes of all leaves before and after.
      removed: removed indices by leaf and axis.
      folded: leaves that took up what constant units emitted.
      kept: indices that stay although their weights are pruned, each as a leaf, an axis
        and an index, with the reason: those of dead units, and of units that would be
        dead without a normalization or softmax over the units.
      whole: why an axis could not get shorter at all, by leaf and axis.
      difference: largest absolute difference of an output on random inputs.
    """

    parameters: tuple[int, int]
    multiply_adds: tuple[int, int] | None
    bytes: tuple[int, int]
    removed: Cuts
    folded: tuple[str, ...]
    kept: dict[tuple[str, int, int], str]
    whole: dict[LeafAxis, str]
    difference: float


class Compacted(NamedTuple):
    """A smaller network with the same outputs.

    Attributes:
      params: the smaller parameters, with zeros outside the masks.
      masks: the smaller masks; True also where a pruned bias took up a constant.
      report: what was removed.
      apply: runs the smaller network, as `apply(params, *inputs)`.
      module: the smaller module, if a module was given; otherwise None.
    """

    params: Any
    masks: Masks
    report: Report
    apply: Apply
    module: Any = None


@arguments.check(
    apply=arguments.function,
    params=arguments.weights,
    round_to=arguments.integer(1),
)
def compact(
    apply: Apply, params: Any, masks: Masks, example: Any, *, round_to: int = 1
) -> Compacted:
    """Removes neurons and channels that do not contribute to the outputs.

    A unit goes with all its weights (`coupling.coupled_axes`) if no output depends on
    it, or if it is constant because no input reaches it. What a constant unit emits,
    act(bias), is added to the biases of the layers that read it, or subtracted from
    their running means, if that is exact: not at the border of a convolution with zero
    padding, and not where there is no bias. Units in LayerNorm, GroupNorm (single
    channels), softmax and other functions of all units stay, and so does whatever is
    not understood; the report names the reasons. Inputs, outputs, dtypes and nesting
    stay the same, and every layer keeps one unit.

    Decisions come from the masks and parameters, not from activations on the example.
    Weights that are exactly zero count as pruned, so use the finished network.
    As a check, both networks are traced, and compared on random inputs of several batch
    sizes. Outputs agree up to 256 units in the last place of the largest entry, or 8 in
    dtypes less precise than float32; groups of units that fail a check stay whole.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode. It has to read all
        widths from the leaves; use `compact_linen` or `compact_nnx` for a module whose
        widths are fields.
      params: all that `apply` reads, including running statistics; any tree. Weights
        outside the masks are set to zero.
      masks: masks of the active weights, with the nesting of `params` and None at other
        leaves. Leaves may be missing.
      example: an input, or a tuple of all inputs. Only shapes and dtypes are used, and
        the range of integers. Removal is exact for inputs of these shapes and any batch
        size; pass one or two examples, since the cost grows with their number.
      round_to: the number of units of a layer that stay is rounded up to a multiple of
        this; a layer with fewer units than that multiple keeps all. 1 or more. Some
        hardware is faster with multiples of 8.

    Returns:
      The smaller network.

    Raises:
      TypeError: if an argument has the wrong type, such as a leaf that is no array.
      ValueError: if `params` has no leaves, or `masks` are not boolean or do not fit.

    Examples:
      >>> params = {"a": jnp.ones((4, 3)), "bias": jnp.ones(3), "b": jnp.ones((3, 2))}
      >>> ticket = {"a": jnp.array([[1, 1, 0]] * 4, bool), "bias": None}
      >>> ticket["b"] = jnp.array([[1, 1], [0, 0], [0, 0]], bool)
      >>> apply = lambda p, x: jax.nn.relu(x @ p["a"] + p["bias"][None]) @ p["b"]
      >>> small = compact(apply, params, ticket, jnp.ones((1, 4)))
      >>> small.params["a"].shape, small.report.parameters
      ((4, 1), (21, 7))

    References:
      Fang, Ma, Song, Bi Mi, Wang. DepGraph: Towards Any Structural Pruning. 2023.
      arXiv:2301.12900, section 3.2, for the coupling of axes. Folding constant units
      into biases is exact and needs no reference.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    return run(apply, params, masks, inputs, rebuild=lambda small: apply, to=round_to)


def run(
    apply: Apply,
    params: Any,
    masks: Masks,
    inputs: tuple[Any, ...],
    *,
    rebuild: Rebuild,
    to: int,
    prefix: str = "",
) -> Compacted:
    """Compacts a network; see `compact`.

    Args:
      apply: called as `apply(params, *inputs)`.
      params: all that `apply` reads.
      masks: masks of the active weights.
      inputs: example of each input.
      rebuild: makes the function that runs smaller parameters.
      to: the number of units of a layer that stay is rounded up to a multiple of this.
      prefix: what precedes the names of `masks` in `params`.
    """
    inputs = jax.tree.map(_as_array, inputs)
    active = masked(params, masks, prefix)
    # Accelerators otherwise round the operands of products, also of folded constants.
    with jax.default_matmul_precision("highest"):
        program = trace(apply, active, *inputs)
        network = decisions.analyze(program, tree.named_leaves(active))
        trial = verified.Trial(network, apply, active, inputs, rebuild)
        decision, refused = verified.decide(trial, round_to=to)
        kept = verified.kept(network, decision)
    removed = removed_units.choose(network.labeled, decision.units)
    cuts = cutting.cuts_of(removed)
    small = trial.smaller if cuts else trial.whole
    report = Report(
        (cutting.size(active), cutting.size(small.params)),
        _multiply_adds((apply, active), (small.apply, small.params), inputs),
        (cutting.num_bytes(active), cutting.num_bytes(small.params)),
        cuts,
        tuple(decision.corrections),
        kept,
        groups_of(*network.labeled).whole | refused,
        small.difference,
    )
    corrections = decision.corrections if cuts else {}
    active_masks = cutting.activate(masks, corrections, prefix=prefix)
    smaller_masks = cutting.cut(active_masks, cuts, {}, prefix=prefix)
    return Compacted(small.params, smaller_masks, report, small.apply)


def _multiply_adds(
    whole: tuple[Apply, Any], small: tuple[Apply, Any], inputs: tuple[Any, ...]
) -> tuple[int, int] | None:
    """Counts the multiply-adds of two networks; None if their number is unknown."""
    try:
        found = [flops.macs(apply, params, *inputs) for apply, params in (whole, small)]
    except flops.UnboundedLoop:
        return None
    return found[0].total, found[1].total


def _as_array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def masked(params: Any, masks: Masks, prefix: str = "") -> Any:
    """Sets weights outside the masks to zero.

    Args:
      params: all leaves of a network.
      masks: masks of some of them.
      prefix: what precedes the names of `masks` in `params`.

    Raises:
      ValueError: if masks are not boolean or fit no leaf.
    """
    known = masks_lib.by_name(masks, params, prefix)

    def mask(name: str, leaf: Any) -> Any:
        if name not in known:
            return leaf
        # numpy has nothing to compile. A select, so that no NaN outside survives.
        value = np.where(known[name], leaf, np.zeros((), leaf.dtype))
        return value if isinstance(leaf, np.ndarray) else jnp.asarray(value)

    return tree.map_with_names(mask, params)
