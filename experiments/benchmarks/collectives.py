"""The collectives of a compiled program, read from its text.

`compiled.as_text()` has a line for each instruction, with the shape and dtype of its
result on one device. An asynchronous collective has two lines, of which only its
`-done` has the shape of the result.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
_COLLECTIVE = re.compile(
    rf" = (?P<shape>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?:-done)?\("
)
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<= ]*)\]")


class Collectives(NamedTuple):
    """The collectives of a program.

    Attributes:
      counts: number of collectives by kind.
      bytes: size of their results on one device, in bytes.
      nested: how many of them are in loops, branches or other computations that the
        entry calls, and may therefore run any number of times. Each is counted once.
    """

    counts: dict[str, int]
    bytes: int
    nested: int


def read(text: str) -> Collectives:
    """Counts the collectives of a compiled program.

    Args:
      text: the program after partitioning, as `compiled.as_text()` returns it.

    Raises:
      ValueError: if the text has no entry computation.
    """
    counts: Counter[str] = Counter()
    size = nested = 0
    in_entry = has_entry = False
    for line in text.splitlines():
        if line[:1].strip():  # the head of a computation, or the end of one
            in_entry = line.startswith("ENTRY")
            has_entry |= in_entry
        elif found := _COLLECTIVE.search(line):
            counts[found["kind"]] += 1
            size += shape_bytes(found["shape"])
            nested += not in_entry
    if not has_entry:
        raise ValueError(
            f"text: expected a program with an ENTRY, got {text[:60]!r}; use "
            "compiled.as_text()"
        )
    return Collectives(dict(counts), size, nested)


def shape_bytes(shape: str) -> int:
    """Returns the size of an array or a tuple, such as "(f32[8,4]{1,0}, s32[])".

    Args:
      shape: shape and dtype as in HLO text.
    """
    bits = 0
    for dtype, sizes in _ARRAY.findall(shape):
        width = 8 if dtype == "pred" else int((re.findall(r"\d+", dtype) or ["0"])[0])
        lengths = [int(size.strip("<= ")) for size in sizes.split(",") if size.strip()]
        bits += width * math.prod(lengths)
    return -(-bits // 8)
