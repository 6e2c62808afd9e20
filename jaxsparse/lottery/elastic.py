"""Elastic tickets: masks and weights of one depth, for a network of another depth.

Nothing is trained here. `warm_start.depth` in a config uses it.
"""

import re
from collections.abc import Mapping
from typing import Any

from jaxsparse import arguments

RULES = ("append", "interpolate")
# Blocks of residual networks, such as "stage2_block0", and of transformers, "block1".
_BLOCK = re.compile(r"((?:stage\d+_)?block)(\d+)")


@arguments.check(
    source=arguments.integer(1),
    target=arguments.integer(1),
    rule=arguments.one_of(RULES),
)
def block_sources(source: int, target: int, *, rule: str) -> list[int]:
    r"""Returns which block each block of a deeper or shallower network is taken from.

    With :math:`n` blocks to take from and :math:`m` to fill, block :math:`j` is taken
    from block :math:`j \bmod n` by "append", and from block
    :math:`\lfloor j n / m \rfloor` by "interpolate".

    Args:
      source: number of blocks of the ticket, at least 1.
      target: number of blocks of the new network, at least 1.
      rule: "append" repeats the sequence of all blocks, or keeps the first ones;
        "interpolate" repeats each block in its place, or keeps evenly spaced ones.

    Returns:
      For each block of the new network the number of a block of the ticket, from 0.

    Raises:
      ValueError: if a number is below 1 or the rule is unknown.
      TypeError: if a number is no integer, or the rule no string.

    Examples:
      >>> block_sources(2, 4, rule="append"), block_sources(2, 4, rule="interpolate")
      ([0, 1, 0, 1], [0, 0, 1, 1])
      >>> block_sources(4, 2, rule="append"), block_sources(4, 2, rule="interpolate")
      ([0, 1], [0, 2])
    """
    if rule == "append":
        return [j % source for j in range(target)]
    return [j * source // target for j in range(target)]


@arguments.check(
    found=arguments.instance(Mapping),
    like=arguments.instance(Mapping),
    rule=arguments.one_of(RULES),
)
def change_depth(
    found: Mapping[str, Any], like: Mapping[str, Any], *, rule: str = "interpolate"
) -> dict[str, Any]:
    """Stretches or squeezes masks or weights of a network to another depth.

    The unit that is replicated or dropped is a residual block with all its layers. The
    first block of a stage, which can change the number of channels, is kept, and
    `block_sources` fills the blocks after it. The blocks of transformers, which have no
    stages, are all filled. All other layers are copied.

    Args:
      found: masks, parameters or batch statistics of the ticket: a dictionary of the
        layers, with blocks named as in `models`, such as "stage1_block0" or "block1".
      like: the same of the new network; only its names are used.
      rule: "append" or "interpolate", see `block_sources`.

    Returns:
      A dictionary with the names of `like`, and leaves of `found`, whose shapes they
      keep.

    Raises:
      ValueError: if the rule is unknown, no layer is a block, a layer or stage is
        missing in the ticket, or a stage of the ticket has only its first block and
        that of the new network more.
      TypeError: if an argument is no dictionary, or the rule no string.

    Examples:
      >>> ticket = {"stage1_block0": "a", "stage1_block1": "b", "head": "c"}
      >>> deep = dict.fromkeys(["stage1_block0", "stage1_block1", "stage1_block2"])
      >>> change_depth(ticket, deep | {"head": None})
      {'stage1_block0': 'a', 'stage1_block1': 'b', 'stage1_block2': 'b', 'head': 'c'}

    References:
      Chen, Cheng, Wang, Gan, Liu, Wang. The Elastic Lottery Ticket Hypothesis. 2021.
      arXiv:2103.16547: masks and the weights that tickets are rewound to.

    Deviations:
      The authors list the blocks of each transfer by hand. Where one number of blocks
      is no multiple of the other, the last repetition of "append" is cut, and
      "interpolate" repeats or drops as evenly as possible. The paper has no
      transformers.
    """
    there, here = _blocks(found), _blocks(like)
    if like and not here:
        raise ValueError(
            "like: expected layers in blocks such as 'stage1_block0' or 'block1', got "
            f"{sorted(like)[:5]}; choose a residual network or a transformer"
        )
    sources: dict[str, str] = {}
    for stage, names in here.items():
        known = there.get(stage, [])
        # A first block that may change the number of channels.
        first = 1 if stage.startswith("stage") else 0
        count, wanted = len(known) - first, len(names) - first
        if count < 0 or (wanted and not count):
            raise ValueError(
                f"found: {stage}: expected {first + 1} or more blocks, to fill the "
                f"{len(names)} of the new network, got {len(known)}; choose a deeper "
                "ticket of the same family"
            )
        sources |= zip(names[:first], known[:first], strict=True)
        if wanted:
            order = block_sources(count, wanted, rule=rule)
            sources |= zip(
                names[first:], (known[first + j] for j in order), strict=True
            )
    for name in like:
        if sources.get(name, name) not in found:
            raise ValueError(
                f"found: expected the layer {name!r} of the new network, got "
                f"{sorted(found)[:5]}; choose a ticket of the same family"
            )
    return {name: found[sources.get(name, name)] for name in like}


def _blocks(layers: Mapping[str, Any]) -> dict[str, list[str]]:
    """Lists the blocks of each stage, in their order."""
    stages: dict[str, list[tuple[int, str]]] = {}
    for name in layers:
        if match := _BLOCK.fullmatch(name):
            stages.setdefault(match[1], []).append((int(match[2]), name))
    return {
        stage: [name for _, name in sorted(blocks)] for stage, blocks in stages.items()
    }
