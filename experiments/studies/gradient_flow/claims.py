"""The claims of the paper, and what must be observed for each.

Every claim has the time at which its threshold was written: "before" any variants could
be compared, when only the pruning runs had ended; "amended" when some variants of
LeNet-5 had ended, and the accuracies and recorded gradient norms of tickets and
training from scratch had been seen; or "after" the first whole measurement. The
amendments: what is equal at the start for all seeds of a variant is measured on masks
of several pruning runs ("flow at initialization", "tickets do not flow"; the recorded
norms, of one mask, have a ratio of 8.3 instead of 6.5 and the same verdicts); distances
need a margin; growth that does not raise the norm cannot be inverted; negatives before
and after are counted by one threshold and over seeds; an ensemble that gains nothing
from scratch refutes its claim.

Every claim compares variants of one network. It is also unclear if a run is shorter
than a third of the published length. The number of seeds is that of distinct
measurements: seeds of a variant that share what is measured count as one. Tests of
accuracy treat variants as independent, although they are trained in the same orders of
the data, which is conservative. Tickets differ in these orders only, so they represent
one ticket.
"""

from typing import Any

from experiments.studies import claims
from experiments.studies.claims import Claim, Findings
from experiments.studies.gradient_flow import evidence
from experiments.studies.gradient_flow.evidence import APART, CONNECTED, EARLY

MORE_ACCURATE = (
    "higher mean, Welch's t one-sided p < 0.05; unclear above; not reproduced if the "
    "mean is not higher"
)
PAIRED = (
    "paired by seed: higher mean, one-sided p < 0.05; unclear above; not reproduced if "
    "the mean is not higher"
)

CLAIMS = (
    Claim(
        "same basin",
        "The ticket's solution lies in the basin of the pruned one, that from scratch "
        "does not.",
        "no barrier for LT, a large one for Scratch (figure)",
        f"mean error barrier to the pruned solution: LT below {CONNECTED:g} and "
        f"Scratch above {APART:g} percentage points; not reproduced with LT above "
        f"{APART:g} or Scratch below {CONNECTED:g}",
        evidence.tickets_are_connected,
    ),
    Claim(
        "same function",
        "Tickets predict like the pruned solution, other solutions do not.",
        "disagreement 0.0089 ± 0.0002 for LT, 0.0278 ± 0.0032 for Scratch",
        "LT less than half of Scratch; not reproduced above four fifths",
        evidence.tickets_agree,
    ),
    Claim(
        "no ensembles",
        "An ensemble of tickets gains little, one of networks from scratch much.",
        "LT +0.06, Scratch +1.24 percentage points",
        "LT below 0.2; Scratch above 0.3 and above 3 times LT's; not reproduced with "
        "Scratch below 0.1 or below LT",
        evidence.ensembles,
        "amended",
    ),
    Claim(
        "flow at initialization",
        "Sparsity-aware initialization raises the gradient norm about tenfold.",
        "about 10 times at step 0, to 0.40, band 0.32 to 0.47 (figure)",
        "geometric mean of the ratio above 5, each seed with a mask of its own; not "
        "reproduced below 2",
        evidence.initialization,
        "amended",
    ),
    Claim(
        "tickets do not flow",
        "Tickets do not begin with more gradient flow than training from scratch.",
        "about equal at step 0 (figure)",
        "geometric mean of the ratio below 2, each seed with a mask of its own; not "
        "reproduced above 5",
        evidence.tickets_do_not_flow,
        "amended",
    ),
    Claim(
        "flow at changes",
        "RigL's mask updates raise the gradient norm more than SET's.",
        "clear rises for RigL, little for SET (figure)",
        f"over changes up to update {EARLY}, paired by seed and change: RigL more in "
        "over three quarters, and p < 0.05 over seeds; not reproduced below half",
        evidence.updates,
    ),
    Claim(
        "inverted growth",
        "Growing by the least gradient does not raise the norm.",
        "no rise (figure)",
        f"up to update {EARLY}: less than a fifth of RigL's mean rise; not reproduced "
        "above half; unclear if RigL's does not rise",
        evidence.inverted,
        "amended",
    ),
    Claim(
        "distances",
        "To the pruned solution: LT end < LT start < Scratch start < Scratch end.",
        "in this order (figure)",
        "in this order, every seed of one nearer than all of the next; not reproduced "
        "if the means are not in this order",
        evidence.distances,
        "amended",
    ),
    Claim(
        "initialization helps",
        "Sparsity-aware initialization makes training from scratch more accurate.",
        "Scratch+ above Scratch",
        MORE_ACCURATE,
        evidence.higher("scratch_plus", "scratch"),
    ),
    Claim(
        "dynamic training helps",
        "RigL is more accurate than static training from scratch.",
        "RigL above Scratch",
        MORE_ACCURATE,
        evidence.higher("rigl", "scratch"),
    ),
    Claim(
        "tickets win",
        "Tickets are more accurate than training from scratch.",
        "98.52 ± 0.02 against 97.19 ± 0.33",
        MORE_ACCURATE,
        evidence.higher("lt", "scratch"),
    ),
    Claim(
        "pruning wins",
        "Gradual pruning is more accurate than training from scratch.",
        "98.30 ± 0.23 against 97.19 ± 0.33",
        MORE_ACCURATE,
        evidence.higher("prune", "scratch"),
    ),
    Claim(
        "new descent directions",
        "RigL's mask updates make new negative eigenvalues of the Hessian.",
        "more negative eigenvalues after than before (figure)",
        "more below rounding after every mask update measured, by one threshold for "
        "both; not reproduced if after none",
        evidence.negatives,
        "amended",
    ),
    Claim(
        "plateau",
        "Training from scratch stays on a plateau of small gradients; tickets leave it "
        "early.",
        "LT early, Scratch after hundreds of updates (figure)",
        "first recorded norm above 3 times that at 0: every ticket before every "
        "Scratch; not reproduced if tickets are not earlier on average",
        evidence.plateau,
        "after",
    ),
    Claim(
        "flow in training",
        "RigL has more gradient flow in training than static masks.",
        "RigL above Scratch (figure)",
        f"mean norm up to update {EARLY}, {PAIRED}",
        evidence.flows_more("rigl", "scratch", until=evidence.EARLY),
        "after",
    ),
    Claim(
        "flow of RigL+",
        "With sparsity-aware initialization too, RigL has more gradient flow early.",
        "RigL+ above Scratch+ in the first 1,000 updates (figure)",
        f"mean norm up to update 1000, {PAIRED}",
        evidence.flows_more("rigl_plus", "scratch_plus", until=1000),
        "after",
    ),
    Claim(
        "random growth helps",
        "SET is more accurate than static training from scratch.",
        "SET above Scratch",
        MORE_ACCURATE,
        evidence.higher("set", "scratch"),
        "after",
    ),
)


def judge(found: Findings, *, steps: int, whole: int) -> list[dict[str, Any]]:
    """Judges each claim by the measurements of a network.

    Args:
      found: from `analysis.measure`.
      steps: updates of the runs.
      whole: published updates.
    """
    return claims.judge(CLAIMS, found, long_enough=3 * steps >= whole)
