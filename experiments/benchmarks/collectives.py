"""What a compiled program sends between devices, read from its text.

`compiled.as_text()` names every collective with the shapes and dtypes that one device
gets from it. Bytes here are of the whole array that a group of devices makes or shares:
all-reduce and all-to-all give as much as they take, all-gather gives the whole, and
reduce-scatter gives one device's part of it. `sent` is what each device sends if the
group works as a ring, the least there is for it.
"""

import math
import re
from collections.abc import Mapping, Sequence
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
# These begin with what they take, and then say what they give.
_BOTH = ("all-gather-start", "all-to-all-start", "collective-permute-start") + (
    *("collective-broadcast-start", "ragged-all-to-all-start", "reduce-scatter-start"),
)

_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<= ]*)\]")
_COMMENT = re.compile(r"/\*.*?\*/")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLS = re.compile(r"(body|condition|to_apply|calls)=%?([\w.\-]+)")
_BRANCHES = re.compile(
    r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.\-]+))"
)


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
      kind: one of `KINDS`.
      bytes: of the whole array, or of all the arrays, each time.
      devices: in each group that works together.
      times: how often each device takes part in a run of the program; None where its
        text does not say, in a branch or in a loop of unknown length.
    """

    kind: str
    bytes: int
    devices: int
    times: int | None

    @property
    def sent(self) -> float:
        """Bytes that each device sends each time, if the group works as a ring."""
        part = (self.devices - 1) / self.devices
        ways = {"all-reduce": 2 * part, "collective-permute": 1.0}
        return ways.get(self.kind, part) * self.bytes


class Sum(NamedTuple):
    """The collectives of a program together.

    Attributes:
      counts: how many of each kind run.
      bytes: of the whole arrays.
      sent: by each device, if groups work as rings.
      unknown: how many stand where it is not known how often they run; these are in
        none of the others.
    """

    counts: dict[str, int]
    bytes: int
    sent: float
    unknown: int


class _Line(NamedTuple):
    opcode: str
    shape: str
    rest: str


def add(found: Sequence[Collective]) -> Sum:
    """Adds up what `read` found, each as often as it runs."""
    known = [(c, c.times) for c in found if c.times is not None]
    counts: dict[str, int] = {}
    for c, times in known:
        counts[c.kind] = counts.get(c.kind, 0) + times
    return Sum(
        counts,
        sum(c.bytes * times for c, times in known),
        sum(c.sent * times for c, times in known),
        len(found) - len(known),
    )


def read(text: str) -> list[Collective]:
    """Lists the collectives of a compiled program.

    Args:
      text: of the program after partitioning, as `compiled.as_text()` returns it.

    Returns:
      Each collective that the entry reaches, in loops as often as their text says.
      Forms in two parts are counted once, where they start.

    Raises:
      ValueError: if the text has no entry computation.
    """
    entry, computations = _split(text)
    times: dict[str, int | None] = {}
    _spread(entry, 1, computations, times)
    everyone = _devices_of_all(text)
    found = []
    for name, runs in times.items():
        for line in computations[name]:
            kind = line.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            devices = _group(line.rest) or everyone
            shape = _given(line.shape) if line.opcode in _BOTH else line.shape
            size = shape_bytes(shape) * (devices if kind == "reduce-scatter" else 1)
            found.append(Collective(kind, size, devices, runs))
    return found


def shape_bytes(shape: str) -> int:
    """Counts the bytes of an array or a tuple, such as "(f32[8,4]{1,0}, s32[])"."""
    bits = 0
    for dtype, sizes in _ARRAY.findall(shape):
        width = 8 if dtype == "pred" else int((re.findall(r"\d+", dtype) or ["0"])[0])
        lengths = [int(size.strip("<= ")) for size in sizes.split(",") if size.strip()]
        bits += width * math.prod(lengths)
    return -(-bits // 8)


def _split(text: str) -> tuple[str, dict[str, list[_Line]]]:
    """Splits a module into its computations; returns the name of the entry, and all."""
    entry, computations = None, {}
    lines: list[_Line] = []
    for raw in text.splitlines():
        line = _COMMENT.sub("", raw)
        head = None if line[:1].isspace() else _HEAD.match(line)
        if head and not line.startswith("HloModule"):
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
            continue
        begun = _LINE.match(line)
        if begun is None:
            continue
        end = _shape_end(line, begun.end())
        opcode = _OPCODE.match(line, end)
        if opcode is not None:
            shape = line[begun.end() : end]
            lines.append(_Line(opcode[1], shape, line[opcode.end() :]))
    if entry is None:
        raise ValueError(
            f"text: came {text[:60]!r}, which has no ENTRY; wanted a whole program; "
            "use compiled.as_text()"
        )
    return entry, computations


def _shape_end(line: str, place: int) -> int:
    """Finds where a shape ends: at the first space outside of brackets."""
    depth = 0
    for i in range(place, len(line)):
        depth += (line[i] in "({[") - (line[i] in ")}]")
        if line[i] == " " and not depth:
            return i
    return len(line)


def _given(shape: str) -> str:
    """Takes the second part of "(taken, given, ...)", the arrays a collective gives."""
    inner, depth, parts = shape.strip()[1:-1], 0, [""]
    for letter in inner:
        depth += (letter in "({[") - (letter in ")}]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts[1] if len(parts) > 1 else shape


def _spread(
    name: str,
    runs: int | None,
    computations: Mapping[str, list[_Line]],
    times: dict[str, int | None],
) -> None:
    """Adds to `times` how often a computation runs, and those it calls."""
    if name not in computations:
        return
    before = times.get(name, 0)
    times[name] = None if runs is None or before is None else before + runs
    for line in computations[name]:
        each = runs
        if line.opcode == "while":
            trips = _TRIPS.search(line.rest.replace(" ", ""))
            each = None if trips is None or runs is None else runs * int(trips[1])
        for _, called in _CALLS.findall(line.rest):
            _spread(called, each, computations, times)
        for several, one in _BRANCHES.findall(line.rest):
            for called in (several or one).split(","):
                _spread(called.strip().lstrip("%"), None, computations, times)


def _group(rest: str) -> int | None:
    """Reads how many devices work together; None where that is all there are."""
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if found := re.search(r"source_target_pairs=\{(\{.*?\})\}", rest):
        return len(set(re.findall(r"\d+", found[1])))
    return None


def _devices_of_all(text: str) -> int:
    head = text.partition("\n")[0]
    sizes = re.findall(r"(?:replica_count|num_partitions)=(\d+)", head)
    return math.prod(map(int, sizes))
