"""The claims of Frankle et al. (2020) and Maene et al. (2021).

Thresholds were first written before any run had pruned. They were rewritten when the
runs of `cpu` had been seen, to treat both directions alike and to name what a claim
presumes, before any run of `cifar16`; see `cifar16` for what had been seen of its
setting. Some claims changed again when the first eight runs of `cifar16` had been seen,
and before any run had pruned with its stabilizer: all that compare stable with unstable
training, since their premises became stricter (dense networks and pruned levels must
both be stable, or unstable) and another run is the stable one. "Late levels are not
connected" changed once more when it had been contradicted at both scales: it now
presumes levels as sparse as those of which the paper says it. All of these are marked
as written after.
"""

from experiments.studies.claims import Claim
from experiments.studies.stable_imp import evidence, premises
from experiments.studies.stable_imp.premises import (
    has_gap,
    is_stable,
    is_unstable,
    starts_unstable,
)
from experiments.studies.stable_imp.quantities import (
    FAR,
    MATCHING,
    NEAR,
    STABLE,
)

_GAP = "tickets minus {} controls, late levels, above 0"
_SEEN = ("cifar16",)
_IS_STABLE = (is_stable("stable", pruned=False), is_stable("stable", pruned=True))
_IS_UNSTABLE = (
    is_unstable("unstable", pruned=False),
    is_unstable("unstable", pruned=True),
)
_REPELLED = (_IS_STABLE[0], is_stable("stable", pruned=True, part="penalty"))
_ATTRACTED = (
    _IS_UNSTABLE[0],
    is_unstable("unstable", pruned=True, part="penalty"),
    premises.MOVES_TOGETHER,
)

CLAIMS = (
    Claim(
        "onset of stability, dense",
        "Dense training becomes stable to the SGD noise at some update, early.",
        "ResNet-20 on CIFAR-10: from update 2,000 of 62,560 (Frankle et al.)",
        f"instability from the latest start below that from initialization, and below "
        f"{STABLE:g} points",
        evidence.becomes_stable(0),
        (starts_unstable(0),),
    ),
    Claim(
        "onset of stability, tickets",
        "Tickets become stable to the SGD noise at some update, early.",
        "ResNet-20 on CIFAR-10: from update 500 of 62,560 (Frankle et al.)",
        f"of the sparsest tickets, instability from the latest start below that from "
        f"initialization, and below {STABLE:g} points",
        evidence.becomes_stable(1),
        (starts_unstable(1),),
    ),
    Claim(
        "tickets become stable sooner",
        "Tickets become stable at an earlier update than dense networks.",
        "update 500 against 2,000 (Frankle et al.)",
        "instability of dense networks minus that of tickets, averaged over the starts "
        "between the earliest and the latest, above 0",
        evidence.tickets_sooner,
        (starts_unstable(0),),
    ),
    Claim(
        "unstable tickets fall short",
        "Tickets that are not stable do not match the dense network.",
        "ResNet-20 from initialization (Frankle et al., figure)",
        f"dense minus tickets of the earliest rewinding step above {MATCHING:g} points",
        evidence.unstable_fall_short,
        (starts_unstable(1),),
    ),
    Claim(
        "stable tickets match",
        "Tickets that are stable match the dense network.",
        "ResNet-20 from update 500 (Frankle et al., figure)",
        f"dense minus tickets of the latest rewinding step below {MATCHING:g} points",
        evidence.stable_match,
        (premises.LAST_IS_STABLE,),
        seen=_SEEN,
    ),
    Claim(
        "stability and matching coincide",
        "Over rewinding steps, tickets match where they are stable.",
        "coincide (Frankle et al., figure)",
        "rank correlation of instability and loss against dense, within seeds over "
        "rewinding steps, above 0",
        evidence.together,
        (starts_unstable(1),),
    ),
    Claim(
        "training is made stable",
        "Larger batches make dense training from initialization stable.",
        "batches of 128 unstable, 512 between, 1,024 and 2,048 stable (Maene et al., "
        "figure)",
        f"instability of dense networks falls, and to below {STABLE:g} points",
        evidence.made_stable,
        (premises.SMALL_IS_UNSTABLE,),
        seen=_SEEN,
    ),
    Claim(
        "warm-up helps",
        "Where training is unstable or half stable, warm-up makes it more stable.",
        "helps at 512, not at 1,024 and 2,048 (Maene et al., figure)",
        "instability of dense networks without minus with warm-up above 0",
        evidence.warmup_helps,
        (premises.PLAIN_IS_UNSTABLE,),
        seen=_SEEN,
    ),
    Claim(
        "pruned levels are stable",
        "Subnetworks trained stably from initialization stay stable.",
        "low error increase at levels 5 to 15 (Maene et al., figure)",
        f"instability of pruned levels below {STABLE:g} points",
        evidence.stays_stable,
        (is_stable("stable", pruned=False),),
        seen=_SEEN,
    ),
    Claim(
        "tickets at initialization",
        "Where training is stable, tickets rewound to initialization beat "
        "reinitialized controls.",
        "IMP above reinitialized at 1,024 and 2,048 (Maene et al., figure)",
        _GAP.format("reinitialized"),
        evidence.win("reinitialized"),
        _IS_STABLE,
        seen=_SEEN,
    ),
    Claim(
        "tickets against shuffled masks",
        "Where training is stable, tickets beat masks shuffled within layers.",
        "not in the paper",
        _GAP.format("shuffled"),
        evidence.win("shuffled_layers"),
        _IS_STABLE,
        seen=_SEEN,
    ),
    Claim(
        "tickets against random masks",
        "Where training is stable, tickets beat random masks of equal sparsity.",
        "not in the paper",
        _GAP.format("random"),
        evidence.win("random_mask"),
        _IS_STABLE,
        seen=_SEEN,
    ),
    Claim(
        "no tickets at initialization where unstable",
        "Where training is unstable, tickets are no better than controls.",
        "IMP as reinitialized at 128 (Maene et al., figure)",
        "gap where unstable below half of that where stable",
        evidence.no_win,
        (
            *_IS_UNSTABLE,
            *_IS_STABLE,
            has_gap("variants"),
        ),
        seen=_SEEN,
    ),
    Claim(
        "repelling destroys tickets",
        "Repelled from the solutions of earlier levels, stable pruning falls to the "
        "level of controls.",
        "to the level of reinitialized (Maene et al., figure)",
        "gap repelled below half of that before, also where tickets end below "
        "controls, at the weakest strength that moves levels",
        evidence.repelled,
        (*_REPELLED, has_gap("penalty"), premises.MOVES_APART),
        seen=_SEEN,
    ),
    Claim(
        "repelling spares controls",
        "Repelling does not hurt reinitialized controls.",
        "unaffected (Maene et al., figure)",
        "controls lose less than half of what tickets lose",
        evidence.controls_spared,
        (*_REPELLED, premises.TICKETS_LOSE),
        seen=_SEEN,
    ),
    Claim(
        "attracting makes tickets",
        "Attracted to the solutions of earlier levels, unstable pruning finds tickets.",
        "above reinitialized, below rewinding (Maene et al., figure)",
        "attracted tickets gain over plain controls, and more than plain tickets do",
        evidence.attracted,
        _ATTRACTED,
        seen=_SEEN,
    ),
    Claim(
        "attracting hurts controls",
        "Attraction to the tickets' solutions hurts reinitialized controls.",
        "hurts (Maene et al., figure)",
        "accuracy of controls without minus with attraction above 0",
        evidence.attraction_hurts,
        _ATTRACTED,
        seen=_SEEN,
    ),
    Claim(
        "successive levels end in one region",
        "Successive stable levels end in the same region; unstable ones end nearly "
        "orthogonal to each other.",
        "near-orthogonal at 128, very small angles at 1,024 and 2,048 (Maene et al., "
        "figure)",
        f"mean angle of successive levels below {NEAR:.2f} right angles where stable, "
        f"above {FAR:.2f} where unstable",
        evidence.angles,
        (*_IS_UNSTABLE, *_IS_STABLE),
        seen=_SEEN,
    ),
    Claim(
        "medium levels are connected",
        "Successive stable levels are linearly connected at medium sparsity, unstable "
        "ones are not.",
        "no increase at medium sparsity at 2,048 (Maene et al., figure)",
        "rise of the test error above the worse end, middle third of levels: below "
        f"{STABLE:g} points where stable, above where unstable",
        evidence.medium_connected,
        (*_IS_UNSTABLE, *_IS_STABLE),
        seen=_SEEN,
    ),
    Claim(
        "late levels are not connected",
        "At high sparsity successive stable levels are no longer connected.",
        "increase at high sparsity (Maene et al., figure)",
        f"where stable: rise in the last third of levels above {STABLE:g} points",
        evidence.late_apart,
        (*_IS_STABLE, premises.IS_SPARSE),
        seen=_SEEN,
    ),
    Claim(
        "stable pruning has higher thresholds",
        "Stable pruning raises the magnitude at which weights are pruned.",
        "higher in stable pruning (Maene et al., figure)",
        "ratio of the thresholds where stable to those where unstable above 1: mean "
        "logarithm over later levels; as published, not divided by the size of weights",
        evidence.thresholds,
        (*_IS_UNSTABLE, *_IS_STABLE),
        seen=_SEEN,
    ),
)
