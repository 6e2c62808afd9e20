"""Counts multiply-adds from the trace of a forward function, by leaf."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core

from jaxsparse import arguments, tree
from jaxsparse.connectivity.jaxpr_rules import BODIES
from jaxsparse.coupling.program import scan_parts


class UnboundedLoop(ValueError):
    """A program has a `while` loop, whose number of steps is unknown."""


class Macs(NamedTuple):
    """Multiply-adds of a forward pass.

    Attributes:
      layers: multiply-adds with the weights of each leaf, by its name, in the order of
        the network.
      other: multiply-adds of two activations, as in attention.
    """

    layers: Mapping[str, int]
    other: int

    @property
    def total(self) -> int:
        """Returns all multiply-adds."""
        return sum(self.layers.values()) + self.other


class _Origin(NamedTuple):
    """What a value is computed from: names of leaves, and whether from an input too."""

    leaves: frozenset[str] = frozenset()
    is_signal: bool = False


class _Tally(NamedTuple):
    """State of a walk: sizes of the leaves, names with masks, and counts so far.

    Counts are by leaf; those of two activations have the key None, as a leaf may have
    any name.
    """

    sizes: dict[str, int]
    masked: frozenset[str]
    counts: dict[str | None, int]


_NOTHING = _Origin()


@arguments.check(apply=arguments.function, params=arguments.weights)
def macs(
    apply: Callable[..., Any], params: Any, *inputs: Any, masks: Any = None
) -> Macs:
    """Counts the multiply-adds of a forward pass from its trace, without computing it.

    Counted are the contractions (`dot_general`) and convolutions of the traced program:
    for each output, the number of products that are summed. Positions of a kernel that
    lie on the padding count too, as in the literature. A product of single entries
    counts if one factor comes from a leaf with a mask. Everything else (biases,
    normalization, activation functions, pooling) is left out.

    Weights that are moved, joined or changed entry by entry before they are multiplied
    still belong to their leaf. A product with a weight that is joined from several
    leaves is divided among them by size.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode.
      params: parameters, or their shapes from `jax.eval_shape`.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`. The count is for all of
        them, so pass a batch of one example.
      masks: masks of the parameters, or their shapes; only names are used, and only for
        weights computed from several leaves, such as a kernel times a scale: leaves
        with masks take precedence. None: all leaves of two or more axes.

    Returns:
      Multiply-adds by leaf, and those of two activations, in `other`.

    Raises:
      UnboundedLoop: if the program has a `while` loop, whose number of steps is
        unknown. It is a ValueError.

    Examples:
      >>> weights = {"a": jnp.ones((6, 8)), "b": jnp.ones((8, 4))}
      >>> apply = lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"]
      >>> macs(apply, weights, jnp.ones((1, 6)))
      Macs(layers={'a': 48, 'b': 32}, other=0)

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, appendix H.
    """
    leaves = tree.named_leaves(params)
    masked = tree.names(masks) if masks is not None else None
    if masked is None:
        masked = [name for name, leaf in leaves.items() if len(leaf.shape) > 1]
    sizes = {name: math.prod(leaf.shape) for name, leaf in leaves.items()}
    tally = _Tally(sizes, frozenset(masked), {})
    traced = jax.make_jaxpr(apply)(params, *inputs)
    origins = [_Origin(frozenset([name])) for name in leaves]
    origins += [_Origin(is_signal=True)] * len(jax.tree.leaves(inputs))
    _walk(traced.jaxpr, origins, tally, 1)
    layers = {name: n for name, n in tally.counts.items() if name is not None}
    return Macs(layers, tally.counts.get(None, 0))


def _walk(
    jaxpr: core.Jaxpr, origins: list[_Origin], tally: _Tally, times: int
) -> list[_Origin]:
    """Walks through a program that runs a number of times; returns its outputs."""
    known = dict(zip(jaxpr.invars, origins, strict=True))

    def read(atom: Any) -> _Origin:
        is_literal = isinstance(atom, core.Literal)
        return _NOTHING if is_literal else known.get(atom, _NOTHING)

    for eqn in jaxpr.eqns:
        given = [read(atom) for atom in eqn.invars]
        results = _step(eqn, given, tally, times)
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _join(origins: list[_Origin]) -> _Origin:
    leaves = frozenset().union(*(origin.leaves for origin in origins))
    return _Origin(leaves, any(origin.is_signal for origin in origins))


def _step(
    eqn: core.JaxprEqn, given: list[_Origin], tally: _Tally, times: int
) -> list[_Origin]:
    """Counts one equation; returns what its results are computed from."""
    name, params = eqn.primitive.name, eqn.params
    if name == "while":
        raise UnboundedLoop(
            "apply: expected a forward pass whose length is known, got a `while` loop; "
            "write it as `jax.lax.scan` or `fori_loop` with constant bounds"
        )
    if name == "scan":
        return _scan(eqn, given, tally, times)
    if name == "cond":
        return _largest(eqn, given, tally, times)
    body = next((params[key] for key in BODIES if key in params), None)
    if body is not None and len(getattr(body, "jaxpr", body).invars) == len(given):
        return _walk(getattr(body, "jaxpr", body), given, tally, times)
    count = _products(eqn)
    if count and any(origin.is_signal for origin in given):
        weights = [origin for origin in given if not origin.is_signal and origin.leaves]
        _add(tally, weights, count * times, entrywise=name == "mul")
    joined = _join(given)
    # A weight that was multiplied is part of the signal and no longer a weight.
    joined = _Origin(is_signal=True) if joined.is_signal else joined
    return [joined] * len(eqn.outvars)


def _products(eqn: core.JaxprEqn) -> int:
    """Returns the number of products that an equation computes."""
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "mul":
        return math.prod(out.shape)
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        left = eqn.invars[0].aval.shape
        return math.prod(out.shape) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        numbers = eqn.params["dimension_numbers"]
        image, kernel = (atom.aval.shape for atom in eqn.invars)
        dilation = math.prod(eqn.params["lhs_dilation"])
        outputs = kernel[numbers.rhs_spec[0]]
        if dilation > 1:  # transposed: each input meets each position of the kernel
            groups = eqn.params["feature_group_count"]
            return (
                math.prod(image)
                * math.prod(kernel)
                // kernel[numbers.rhs_spec[1]]
                // groups
            )
        return math.prod(out.shape) * (math.prod(kernel) // outputs)
    return 0


def _add(tally: _Tally, weights: list[_Origin], count: int, *, entrywise: bool) -> None:
    """Adds products to the leaves of the weights that are multiplied."""
    every = frozenset().union(*(origin.leaves for origin in weights))
    found = sorted(every & tally.masked) or (
        [] if entrywise else sorted(every, key=lambda leaf: -tally.sizes[leaf])[:1]
    )
    if not found:
        if not entrywise:
            tally.counts[None] = tally.counts.get(None, 0) + count
        return
    total = sum(tally.sizes[leaf] for leaf in found)
    for leaf in found:
        part = count * tally.sizes[leaf] // total
        tally.counts[leaf] = tally.counts.get(leaf, 0) + part


def _scan(
    eqn: core.JaxprEqn, given: list[_Origin], tally: _Tally, times: int
) -> list[_Origin]:
    """Counts the body of a scan for each of its steps."""
    body, length = eqn.params["jaxpr"].jaxpr, eqn.params["length"]
    consts, carried = scan_parts(eqn)
    # What the carry depends on grows from step to step until it no longer changes.
    while True:
        probe = tally._replace(counts={})
        results = _walk(body, given, probe, times * length)
        carry = slice(consts, consts + carried)
        after = [
            _join(list(pair))
            for pair in zip(given[carry], results[:carried], strict=True)
        ]
        if after == given[carry]:
            break
        given = [*given[: carry.start], *after, *given[carry.stop :]]
    for leaf, count in probe.counts.items():
        tally.counts[leaf] = tally.counts.get(leaf, 0) + count
    return results


def _largest(
    eqn: core.JaxprEqn, given: list[_Origin], tally: _Tally, times: int
) -> list[_Origin]:
    """Counts the branch of a cond with the most products."""
    counts, outputs = [], []
    for branch in eqn.params["branches"]:
        probe = tally._replace(counts={})
        outputs.append(_walk(branch.jaxpr, given[1:], probe, times))
        counts.append(probe.counts)
    for leaf, count in max(counts, key=lambda each: sum(each.values())).items():
        tally.counts[leaf] = tally.counts.get(leaf, 0) + count
    return [_join(list(each)) for each in zip(*outputs, strict=True)]
