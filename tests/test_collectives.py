"""Collectives are read from the text of compiled programs."""

import pytest

from experiments.benchmarks import collectives
from experiments.benchmarks.collectives import Collective

HEAD = "HloModule jit_f, is_scheduled=true, num_partitions=4\n"


def program(*lines: str, more: str = "") -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return f"{HEAD}{more}\nENTRY %main.1_spmd (p: f32[4]) -> f32[4] {{\n{body}\n}}\n"


def one(line: str) -> Collective:
    (found,) = collectives.read(program(line))
    return found


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("f32[100,300]{1,0}", 120_000),
        ("bf16[8,4]{1,0:T(8,128)(2,1)}", 64),
        ("(f32[10]{0}, s32[], pred[3])", 47),
        ("s4[3]", 2),
        ("f8e4m3fn[5]", 5),
        ("c64[2]", 16),
        ("f32[<=8,2]", 64),
        ("token[]", 0),
    ],
)
def test_bytes_of_shapes(shape: str, size: int) -> None:
    assert collectives.shape_bytes(shape) == size


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("{{0,1},{2,3}}", 2),
        ("{{0,1,2}}", 3),
        ("[2,4]<=[8]", 4),
        ("[1,8]<=[2,4]T(1,0)", 8),
        ("mesh['replicate'=2,'data'=3] {'data'}", 3),
        ("mesh['a'=2,'b'=3] {'a','b'}", 6),
        ("mesh['a'=8] {'a':(1)4}", 4),
        ("{}", 4),
    ],
)
def test_groups_of_every_form(groups: str, devices: int) -> None:
    line = f"%a = f32[2] all-reduce(%p), replica_groups={groups}, to_apply=%add"
    assert one(line).devices == devices


@pytest.mark.parametrize(
    ("line", "kind", "size", "sent"),
    [
        ("%a = f32[8]{0} all-reduce(%p)", "all-reduce", 32, 48),
        ("ROOT a = f32[8]{0} all-reduce(f32[8]{0} p)", "all-reduce", 32, 48),
        (
            "%a = (f32[8]{0}, /*index=1*/bf16[8]{0}) all-reduce(%p, %q)",
            *("all-reduce", 48, 72),
        ),
        ("%a = f32[8]{0} all-reduce-start(%p)", "all-reduce", 32, 48),
        ("%a = f32[8]{0} all-gather(%p), dimensions={0}", "all-gather", 32, 24),
        (
            "%a = (f32[2]{0}, f32[8]{0}) all-gather-start(%p)",
            *("all-gather", 32, 24),
        ),
        (
            "%a = ((f32[2], s8[2]), (f32[8], s8[8])) all-gather-start(%p, %q)",
            *("all-gather", 40, 30),
        ),
        ("%a = f32[2]{0} reduce-scatter(%p)", "reduce-scatter", 32, 24),
        (
            "%a = ((f32[8]), f32[2]) reduce-scatter-start(%p)",
            *("reduce-scatter", 32, 24),
        ),
        ("%a = f32[8]{0} all-to-all(%p)", "all-to-all", 32, 24),
        (
            "%a = (f32[8], f32[8], u32[], u32[]) collective-permute-start(%p), "
            "source_target_pairs={{0,1},{1,0}}",
            *("collective-permute", 32, 32),
        ),
    ],
)
def test_bytes_of_every_kind(line: str, kind: str, size: int, sent: float) -> None:
    found = one(line)
    assert (found.kind, found.bytes, found.sent, found.times) == (kind, size, sent, 1)


def test_what_is_no_collective_or_ends_one_is_not_counted() -> None:
    text = program(
        "%a = f32[8] all-reduce-start(%p)",
        "%b = f32[8] all-reduce-done(%a)",
        "%c = f32[8] get-tuple-element(%all-reduce), index=0",
        '%d = f32[8] add(%b, %c), metadata={op_name="jit(f)/all-gather(x)"}',
    )
    assert len(collectives.read(text)) == 1


def loop(trips: str) -> str:
    return (
        f"%w = (s32[], f32[4]) while(%t), condition=%cond, body=%body{trips}\n"
        "  %v = f32[4] all-reduce(%p)"
    )


BODY = """
%cond (t: (s32[], f32[4])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%body (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %g = f32[16] all-gather(%x)
  ROOT %r = (s32[], f32[4]) tuple(%i, %x)
}
"""


def test_loops_count_as_often_as_their_text_says() -> None:
    trips = ', backend_config={"known_trip_count":{"n":"10"}}'
    sum_ = collectives.add(collectives.read(program(loop(trips), more=BODY)))
    assert sum_.counts == {"all-reduce": 1, "all-gather": 10}
    assert sum_.bytes == 16 + 640 and sum_.unknown == 0


@pytest.mark.parametrize(
    "line",
    [
        "%w = (s32[], f32[4]) while(%t), condition=%cond, body=%body",
        "%w = f32[4] conditional(%t, %a, %b), branch_computations={%body, %cond}",
        "%w = f32[4] conditional(%t, %a, %b), true_computation=%body, "
        "false_computation=%cond",
    ],
)
def test_what_may_run_any_number_of_times_is_told_apart(line: str) -> None:
    found = collectives.read(program(line, more=BODY))
    assert [c.times for c in found] == [None]
    assert collectives.add(found) == ({}, 0, 0, 1)


def test_a_text_without_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        collectives.read(HEAD)
