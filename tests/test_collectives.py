"""Collectives are read from the text of compiled programs."""

import pytest

from experiments.benchmarks import collectives

HEAD = "HloModule jit_f, is_scheduled=true, num_partitions=4\n"


def program(*lines: str, more: str = "") -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return f"{HEAD}{more}\nENTRY %main.1_spmd (p: f32[4]) -> f32[4] {{\n{body}\n}}\n"


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
    ("line", "kind", "size"),
    [
        ("%a = f32[8]{0} all-reduce(%p)", "all-reduce", 32),
        ("ROOT a = f32[8]{0} all-reduce(f32[8]{0} p)", "all-reduce", 32),
        (
            "%a = (f32[8]{0}, /*index=1*/bf16[8]{0}) all-reduce(%p, %q)",
            *("all-reduce", 48),
        ),
        ("%a = bf16[8,4]{1,0:T(8,128)(2,1)} all-reduce(%p)", "all-reduce", 64),
        ("%a = f32[8]{0} all-reduce-done(%s)", "all-reduce", 32),
        ("%a = f32[8]{0} all-gather(%p), dimensions={0}", "all-gather", 32),
        ("%a = (f32[8], s8[8]) all-gather-done(%s)", "all-gather", 40),
        ("%a = f32[2]{0} reduce-scatter(%p)", "reduce-scatter", 8),
        ("%a = f32[8]{0} all-to-all(%p)", "all-to-all", 32),
        (
            "%a = f32[8] collective-permute-done(%s)",
            *("collective-permute", 32),
        ),
    ],
)
def test_bytes_of_every_kind(line: str, kind: str, size: int) -> None:
    assert collectives.read(program(line)) == ({kind: 1}, size, 0)


def test_an_asynchronous_collective_is_counted_once_and_others_are_not() -> None:
    text = program(
        "%a = f32[8] all-reduce-start(%p)",
        "%b = f32[8] all-reduce-done(%a)",
        "%s = ((f32[2], s8[2]), (f32[8], s8[8])) all-gather-start(%p, %q)",
        "%c = f32[8] get-tuple-element(%all-reduce), index=0",
        '%d = f32[8] add(%b, %c), metadata={op_name="jit(f)/all-gather(x)"}',
    )
    assert collectives.read(text) == ({"all-reduce": 1}, 32, 0)


BODY = """
%cond (t: (s32[], f32[4])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%body (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %g = f32[16] all-gather(%x)
  ROOT %r = (s32[], f32[4]) tuple(%i, %x)
}
"""


def test_collectives_in_loops_are_counted_once_and_reported() -> None:
    text = program(
        "%w = (s32[], f32[4]) while(%t), condition=%cond, body=%body",
        "%v = f32[4] all-reduce(%p)",
        more=BODY,
    )
    counts = {"all-gather": 1, "all-reduce": 1}
    assert collectives.read(text) == (counts, 16 + 64, 1)


def test_a_text_without_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="^text: expected a program with an ENTRY"):
        collectives.read(HEAD)
