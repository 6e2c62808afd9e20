"""The claims of Maene et al. (2021), and what must be observed for each.

Thresholds were written before any run of the study had pruned: dense networks alone had
been trained, to choose the batch sizes (`variants.BATCHES`). Amended ones were made
stricter when runs had been seen: what a claim presumes, that training is stable or
unstable, must be observed too. All claims are tested at the scale of the run, whose
fraction of the published length is on the page.

Seeds are paired: variants share initial weights and, per batch size, the orders of
data, so differences are taken seed by seed, and tests are one-sided t-tests on them. A
gap is the test accuracy of tickets minus that of their reinitialized controls, in
percentage points, averaged over the second half of rounds.
"""

from experiments.studies.claims import Claim
from experiments.studies.stable_imp import evidence
from experiments.studies.stable_imp.evidence import APART, ORTHOGONAL

AMENDED = "amended"
CONTROLS = "tickets less reinitialized controls, late rounds, seed by seed"
CLAIMS = (
    Claim(
        "onset of stability",
        "Training becomes stable to the SGD noise at some update, early.",
        "ResNet-20 on CIFAR-10: from update 2,000 dense, 500 sparse; LeNet-300-100 on "
        "MNIST, batches of 60: from initialization (Frankle et al. 2020)",
        "dense networks: instability from the last update measured below that from "
        "initialization, p < 0.05, and below 2 points; not reproduced if not below; "
        "unclear if stable from the start",
        evidence.onset,
        AMENDED,
    ),
    Claim(
        "batches make stable",
        "Larger batches, all else equal, make training from initialization stable.",
        "128 unstable, 512 between, 1,024 and 2,048 stable (figure)",
        "dense networks: instability at small above large batches, p < 0.05, at least "
        "2 points at small and below at large; not reproduced if not above",
        evidence.falls_with_batches,
        AMENDED,
    ),
    Claim(
        "warm-up helps",
        "Where training is half stable, warm-up makes it more stable.",
        "helps at 512, not at 1,024 and 2,048 (figure)",
        "dense networks: instability with warm-up below that without, p < 0.05; not "
        "reproduced if not below; unclear if stable without",
        evidence.warmup_helps,
    ),
    Claim(
        "stable at large batches",
        "Subnetworks trained with large batches from initialization are stable.",
        "low error increase at rounds 5 to 15 (figure)",
        "mean instability of pruned rounds below 2 points; not reproduced if above, "
        "p < 0.05",
        evidence.stable_at_large,
    ),
    Claim(
        "tickets at initialization",
        "Where training is stable, tickets rewound to initialization beat "
        "reinitialized controls.",
        "IMP above reinitialized at 1,024 and 2,048 (figure)",
        f"{CONTROLS}: above 0, p < 0.05; not reproduced if not above; unclear unless "
        "pruned rounds are stable",
        evidence.tickets_win,
        AMENDED,
    ),
    Claim(
        "no tickets where unstable",
        "Where training is unstable, tickets are no better than controls.",
        "IMP as reinitialized at 128 (figure)",
        "gap at small batches under half of that at large, difference p < 0.05, and "
        "not above 0, p < 0.05; not reproduced if no smaller, or above half and above "
        "0; unclear without a gap at large, and if dense networks at small are stable",
        evidence.no_tickets_at_small,
        AMENDED,
    ),
    Claim(
        "repelling destroys tickets",
        "Repelled from the solutions of earlier rounds, stable pruning falls to the "
        "level of controls.",
        "to the level of reinitialized (figure)",
        "gap repelled under half of that before, loss p < 0.05; not reproduced above "
        "four fifths; unclear without a gap before",
        evidence.repelled,
    ),
    Claim(
        "repelling spares controls",
        "Repelling does not hurt reinitialized controls.",
        "unaffected (figure)",
        "controls lose under half of what tickets lose, difference p < 0.05; not "
        "reproduced above four fifths; unclear if the loss of tickets is",
        evidence.controls_unaffected,
    ),
    Claim(
        "attracting makes tickets",
        "Attracted to the solutions of earlier rounds, unstable pruning finds tickets.",
        "above reinitialized, below rewinding (figure)",
        "attracted tickets gain over plain controls, and more than plain tickets do, "
        "each p < 0.05; not reproduced if not more, or nothing",
        evidence.attracted,
        AMENDED,
    ),
    Claim(
        "attracting hurts controls",
        "Attraction to the tickets' solutions hurts reinitialized controls.",
        "hurts (figure)",
        "controls lose in late rounds, p < 0.05; not reproduced if they do not",
        evidence.attraction_hurts_controls,
    ),
    Claim(
        "same region",
        "Stable rounds end in the same region, unstable ones nearly orthogonal.",
        "near-orthogonal at 128, very small angles at 1,024 and 2,048 (figure)",
        f"mean angle of successive rounds at small above large batches by {APART:g} "
        f"right angles, p < 0.05, and above {ORTHOGONAL:g} at small; not reproduced if "
        "not above large",
        evidence.angles,
        AMENDED,
    ),
    Claim(
        "medium rounds are connected",
        "Successive stable rounds are linearly connected at medium sparsity, unstable "
        "ones are not.",
        "no increase at medium sparsity at 2,048 (figure)",
        "rise of the test error above the worse end, middle third of rounds: large "
        "below 2 points, small above, p < 0.05; not reproduced if large is above, p < "
        "0.05, or small rises no more; unclear if dense networks at small are stable",
        evidence.successive_connected,
        AMENDED,
    ),
    Claim(
        "late rounds are not",
        "At high sparsity successive rounds are no longer connected, stable or not.",
        "increase at high sparsity (figure)",
        "large batches: rise in the last third of rounds above the middle third, p < "
        "0.05; not reproduced if not above",
        evidence.late_apart,
    ),
    Claim(
        "higher thresholds",
        "Stable pruning raises the magnitude at which weights are pruned.",
        "higher in stable pruning (figure)",
        "logarithm of the threshold, mean over later rounds: higher at large batches, "
        "p < 0.05; not reproduced if not higher",
        evidence.threshold,
    ),
)
