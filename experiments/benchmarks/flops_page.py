"""The page of FLOPs of ResNet-50 by method, and why they differ from published ones."""

from collections.abc import Iterator, Sequence

from experiments.benchmarks import timing
from experiments.benchmarks.resnet50_flops import (
    BACKWARD_SPARSITY,
    DISTRIBUTIONS,
    INTERVAL,
    METHODS,
    STEPS,
    WHAT,
    Case,
    Result,
)
from experiments.benchmarks.timing import Table

INTRODUCTION = f"""
Numbers are multiples of the FLOPs of the dense network, for inference and for training,
with images of 224x224. Nothing is measured: *ours* are products counted in the traced
program by `jaxsparse.flops`, and the formulas are those of appendix H of Evci et al.
2020 (arXiv:1911.11134). The published numbers have two digits. They are from figure 2
of that paper (the table on the left) or, where the table below says so, from the README
of its code (github.com/google-research/rigl). *As the authors count* adds to ours what
their counter counts in addition: see 1, 2 and 4 below.

*Uniform* leaves the first layer dense and gives all others the same sparsity.
*Training, 5 times* is training of five times the length. RigL updates masks every
{INTERVAL} steps. GMP prunes every 1,000 steps from step 10,000 to 25,000, of {STEPS:,}.
Top-KAST trains the largest {1 - BACKWARD_SPARSITY:.0%} of the weights, divided among
layers by the same distribution. The paper has no Top-KAST, and no SET with ERK: these
rows have nothing to be compared with.
""".strip()
DIFFERENCES = """
## Why numbers differ

1. The authors' counter (`count_ops` of the MicroNet challenge, called by `get_stats` in
   rigl/sparse_utils.py) adds an addition for a bias and a multiplication for ReLU to
   each output of a layer, which are always dense. We count products and their sums
   only.
2. It computes the size of the first feature maps as 115x115 in place of 112x112, if the
   image is padded by a layer of its own before the convolution and again by the
   counter. This is inferred: with it, all numbers agree in both digits, and without
   it, 14 of them are 0.01 lower.
3. For uniform layers at 90 % the figure has 0.10 and 0.52, and the README 0.13 and
   0.66. The figure's numbers are those of a network whose first layer is sparse too,
   the README's those of the network that was trained. For the training of GMP, both
   columns of the figure agree with a dense first layer.
4. For GMP, the authors' notebook averages 33 points, 1,000 steps apart, for 32
   intervals; the last is after the end of training.
5. For the training of RigL with ERK at 90 % the figure has 0.25 and the README 0.24. A
   fifth of 1.23, which both have for five times the length, is 0.25.
""".strip()


def page(results: Sequence[Result]) -> str:
    """Words the page.

    Args:
      results: all numbers, from `count`.
    """
    header = ("method", "distribution", "sparsity", "FLOPs of", "ours")
    header += ("as the authors count", "published", "ours - published")
    table = Table("Multiples of dense", header, [*map(_row, results)], "", {})
    parts = [
        "# FLOPs of ResNet-50 by method",
        "`python experiments/flops.py`",
        INTRODUCTION,
        "## Reading\n\n" + "\n".join(f"- {line}" for line in _reading(results)),
        DIFFERENCES,
        timing.markdown(table).strip(),
    ]
    return "\n\n".join(parts) + "\n"


def _reading(results: Sequence[Result]) -> Iterator[str]:
    """Words how well the numbers agree."""
    known = [each for each in results if each.case.published is not None]
    agree = [r for r in known if f"{r.theirs:.2f}" == f"{r.case.published:.2f}"]
    yield (
        f"As the authors count, {len(agree)} of {len(known)} published numbers agree "
        "in both digits."
    )
    for kinds, words in (
        (("inference", "training"), "Inference, and training of the usual length"),
        (("5x",), "Training of five times the length"),
    ):
        some = [r for r in known if r.case.what in kinds]
        far = max(some, key=lambda r: abs(r.ours - r.case.published))
        yield (
            f"{words}: ours differ from the published numbers by at most "
            f"{abs(far.ours - far.case.published):.3f} ({', '.join(_names(far.case))})"
            f", of which up to 0.005 is the rounding of the published number."
        )


def _names(case: Case) -> tuple[str, ...]:
    return (
        METHODS[case.method],
        DISTRIBUTIONS[case.distribution],
        f"{case.sparsity:.0%}",
        WHAT[case.what],
    )


def _row(result: Result) -> tuple[str, ...]:
    case = result.case
    numbers = (f"{result.ours:.3f}", f"{result.theirs:.3f}")
    if case.published is None:
        return (*_names(case), *numbers, "not in the paper", "")
    source = " (README)" if case.source == "README" else ""
    difference = f"{round(result.ours - case.published, 3) + 0.0:+.3f}"  # not -0.000
    return (*_names(case), *numbers, f"{case.published:.2f}{source}", difference)
