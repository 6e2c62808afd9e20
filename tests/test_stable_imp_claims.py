"""The claims of the study of stable pruning, and its page, of invented findings."""

from typing import Any

import numpy as np
import pytest

from experiments.studies import claims as claims_lib
from experiments.studies import runs as runs_lib
from experiments.studies import stable_imp
from experiments.studies.claims import NotMeasured
from experiments.studies.stable_imp import claims, quantities, tables, variants
from experiments.studies.stable_imp import report as report_lib
from jaxsparse import config

SEEDS = np.array([-0.05, 0.0, 0.05])


def make_arm(
    gap: float, *, base: float = 95.0, unstable: float = 1.0, angle: float = 0.2
) -> dict[str, Any]:
    """Invents findings of an arm with three seeds that differ little."""
    levels = list(range(7))
    # Of a generator of its own, so that differences of arms are not all the same.
    random = np.random.default_rng([int(100 * abs(x)) for x in (gap, base, unstable)])

    def noise(*shape: int) -> np.ndarray:
        return random.uniform(-0.05, 0.05, size=shape)

    control = base + np.tile(noise(3, 1), (1, 7))
    tickets = control + gap + np.tile(noise(3, 1) / 3, (1, 7))
    matrix = np.full((8, 8), angle) - angle * np.eye(8)
    rises = np.tile([0.1, 0.1, 0.1, 0.1, 5.0, 5.0], (3, 1)) + noise(3, 6)
    if unstable > 2:
        rises = rises + 10
    noisy = (unstable + noise(3)).tolist()
    thresholds = 0.1 + 1.0 / (10 + unstable) + noise(3, 6) / 100
    return {
        "levels": levels,
        "remaining": [100 * 0.5**level for level in levels],
        "ticket": tickets.tolist(),
        "controls": {
            "reinitialized": control.tolist(),
            "shuffled_layers": control.tolist(),
            "random_mask": control.tolist(),
        },
        "instability": {0: noisy, 3: noisy, 6: noisy},
        "train_instability": {0: noisy, 3: noisy, 6: noisy},
        "successive_levels": levels[1:],
        "successive": rises.tolist(),
        "angles": [(matrix + abs(s)).tolist() for s in noise(3)],
        "labels": [*map(str, levels), "init"],
        "thresholds": thresholds.tolist(),
        "histograms": [],
        "cosines": [(1 - matrix).tolist()] * 3,
        "distances": [matrix.tolist()] * 3,
        "steps": 100,
        "epochs": 5.0,
        "batch": 16,
        "interpolation": [30, 0],
    }


def line(level: int, steps: list[int], means: list[float]) -> dict[str, Any]:
    """Invents the instability of copies by the update at which they start."""
    # Larger means vary more, so that differences are not all the same.
    values = [[mean * (1 + s) for mean in means] for s in SEEDS]
    return {"level": level, "steps": steps, "instability": values, "updates": 100} | {
        "batch": 16,
        "train": values,
        "l2": values,
        "disagreement": values,
        "interpolations": [],
    }


def as_published() -> dict[str, Any]:
    stable, unstable = make_arm(3.0), make_arm(0.0, unstable=10.0, angle=0.8)
    steps = [0, 20, 40, 60]
    found = {
        "variants": {"unstable": unstable, "stable": stable},
        "penalty": {
            "unstable": unstable,
            "stable": stable,
            "repelled": make_arm(0.2, angle=0.6),
            "attracted": make_arm(2.0, base=94.0, unstable=10.0, angle=0.4),
        },
        "onset": [
            line(0, steps, [10, 8, 4, 1]),
            line(2, steps, [6, 1.5, 1.0, 0.5]),
        ],
        "rewound": {},
        "warmup": {"plain": make_arm(1.0, unstable=5.0), "warm": make_arm(1.0)},
        "batches": {"small": unstable, "large": stable},
    }
    for step, drop in zip(steps, (4.0, 0.3, 0.2, 0.1), strict=True):
        arm = make_arm(1.0)
        arm["ticket"] = [[95 + s, 95 + s - drop * (1 + s / 9)] for s in SEEDS]
        found["rewound"][step] = arm | {"levels": [0, 2]}
    return found


# A rank correlation over four steps cannot be significant.
TOO_FEW = {"stability and matching coincide"}


def judged(found: dict[str, Any]) -> dict[str, str]:
    rows = claims_lib.judge(claims.CLAIMS, found, length=1.0)
    verdicts = {one.claim.name: one.verdict for one in rows}
    return {name: word for name, word in verdicts.items() if name not in TOO_FEW}


def test_what_is_published_is_reproduced() -> None:
    verdict = judged(as_published())
    assert set(verdict.values()) == {"reproduced"}, verdict


def test_the_opposite_is_contradicted_or_has_no_premise() -> None:
    found = as_published()
    found["variants"] |= {"stable": make_arm(-3.0, angle=0.9)}
    found["onset"] = [
        line(0, [0, 20, 60], [8, 9, 10]),
        line(2, [0, 20, 60], [8, 20, 10]),
    ]
    for arm in found["rewound"].values():
        arm["ticket"] = [[95 + s, 96 + 2 * s] for s in SEEDS]
    found["warmup"]["warm"] = make_arm(1.0, unstable=9.0)
    found["batches"]["large"] = make_arm(1.0, unstable=12.0)
    verdict = judged(found)
    contradicted = {name for name, word in verdict.items() if word == "contradicted"}
    assert contradicted == {
        "onset of stability, dense",
        "onset of stability, tickets",
        "tickets become stable sooner",
        "unstable tickets fall short",
        "training is made stable",
        "warm-up helps",
        "tickets at initialization",
        "tickets against shuffled masks",
        "tickets against random masks",
        "successive levels end in one region",
    }
    absent = {name for name, word in verdict.items() if word == "premise absent"}
    assert absent == {
        "stable tickets match",
        "no tickets at initialization where unstable",
    }


def test_where_the_large_batch_is_unstable_itself_claims_lack_their_premise() -> None:
    """As on the 5,000 images of CIFAR-10."""
    found = as_published()
    found["variants"]["stable"] = found["batches"]["large"] = make_arm(
        9.0, unstable=8.0
    )
    verdict = judged(found)
    for name in (
        "tickets at initialization",
        "no tickets at initialization where unstable",
        "repelling destroys tickets",
        "successive levels end in one region",
        "late levels are not connected",
    ):
        assert verdict[name] == "premise absent"
    assert verdict["training is made stable"] == "contradicted"


def test_pruned_levels_that_are_stable_are_no_unstable_ones() -> None:
    found = as_published()
    arm = found["variants"]["unstable"]
    arm["instability"] = arm["instability"] | {3: [1.0, 1.1, 0.9], 6: [0.5, 0.6, 0.4]}
    verdict = judged(found)
    for name in (
        "no tickets at initialization where unstable",
        "attracting makes tickets",
        "attracting hurts controls",
        "successive levels end in one region",
        "medium levels are connected",
        "stable pruning has higher thresholds",
    ):
        assert verdict[name] == "premise absent"


@pytest.mark.parametrize(
    ("stable", "unstable", "word"),
    [
        (0.2, 0.8, "reproduced"),
        (0.5, 0.8, "contradicted"),
        (0.2, 0.4, "contradicted"),  # apart, but not nearly orthogonal
    ],
)
def test_regions_by_their_angles(stable: float, unstable: float, word: str) -> None:
    found = as_published()
    found["variants"]["stable"]["angles"] = make_arm(3.0, angle=stable)["angles"]
    found["variants"]["unstable"]["angles"] = make_arm(0.0, angle=unstable)["angles"]
    assert judged(found)["successive levels end in one region"] == word


def test_late_levels_that_rise_a_little_are_connected() -> None:
    found = as_published()
    rows = np.asarray(found["variants"]["stable"]["successive"])
    rows[:, 4:] -= 4.0  # from 5 points to 1, still above the medium levels
    found["variants"]["stable"]["successive"] = rows.tolist()
    assert judged(found)["late levels are not connected"] == "contradicted"


def test_late_levels_that_leave_many_weights_say_nothing_of_high_sparsity() -> None:
    found = as_published()
    arm = found["variants"]["stable"]
    assert quantities.few_left(arm).p < 0.05  # 3.1 % before the last two of six
    published = arm | {"levels": [*range(16)], "successive_levels": [13, 14, 15]}
    published["remaining"] = [100 * 0.8**level for level in range(16)]
    assert quantities.few_left(published).p < 0.05  # 3.52 %, of level 15
    published["remaining"][15] = 3.6
    assert quantities.few_left(published).p_against < 0.05
    with pytest.raises(NotMeasured, match="no successive levels"):
        quantities.few_left(arm | {"successive_levels": []})
    arm["remaining"] = [100 * 0.8**level for level in arm["levels"]]
    verdict = judged(found)
    assert verdict.pop("late levels are not connected") == "premise absent"
    assert set(verdict.values()) == {"reproduced"}


def test_tickets_of_levels_without_controls_are_not_compared() -> None:
    arm = make_arm(1.0)
    rows = np.asarray(arm["controls"]["reinitialized"])
    rows[:, 5] = np.nan
    arm["controls"]["reinitialized"] = rows.tolist()
    tickets = np.asarray(arm["ticket"])
    tickets[:, 5] = 0.0
    arm["ticket"] = tickets.tolist()
    gap = quantities.accuracies(arm, "ticket") - quantities.accuracies(
        arm, "reinitialized"
    )
    assert gap == pytest.approx(quantities.gaps(arm))


def test_controls_that_never_learned_are_dead_too() -> None:
    arm = make_arm(1.0)
    assert not quantities.has_dead(arm)
    arm["ticket"][0][1] = arm["controls"]["reinitialized"][0][2] = 11.0
    assert not quantities.has_dead(arm)  # in early levels
    arm["controls"]["shuffled_layers"][1][6] = 11.0
    assert not quantities.has_dead(arm)
    assert quantities.has_dead(arm, control="shuffled_layers")


def test_without_controls_in_late_levels_nothing_is_compared() -> None:
    found = as_published()
    rows = np.asarray(found["variants"]["stable"]["controls"]["reinitialized"])
    rows[:, 3:] = np.nan
    found["variants"]["stable"]["controls"]["reinitialized"] = rows.tolist()
    assert judged(found)["tickets at initialization"] == "not measured"


@pytest.mark.parametrize(
    ("kind", "angles", "chosen"),
    [
        ("repelled", (0.5, 0.8, 0.9), 5),
        ("repelled", (0.5, 0.51, 0.52), 25),
        # Too little, and in the wrong direction.
        ("repelled", (0.55, 0.3, 0.9), 25),
        ("attracted", (0.5, 0.3, 0.1), 5),
        ("attracted", (0.8, 0.5, 0.5), 25),
    ],
)
def test_the_weakest_strength_that_moves_levels_counts(
    kind: str, angles: tuple[float, ...], chosen: int
) -> None:
    strengths = stable_imp.cifar16.STRENGTHS
    role = {"repelled": "stable", "attracted": "unstable"}[kind]
    pruned = {f"{role}_4": make_arm(3.0, angle=0.5)}
    for times, angle in zip(strengths, angles, strict=True):
        pruned[f"{kind}_{times}"] = make_arm(1.0, angle=angle)
    found = stable_imp.cifar16.penalized(pruned)
    assert found[kind]["angles"] == pruned[f"{kind}_{chosen}"]["angles"]
    assert found[kind]["strength"] == f"{chosen} times as published"
    assert found.keys() == {role, kind}
    del pruned[f"{kind}_1"]  # without it, a weaker one might have counted
    assert stable_imp.cifar16.penalized(pruned).keys() == {role}


def test_dense_networks_that_runs_take_are_their_own() -> None:
    runs = {run.name: runs_lib.read(run) for run in stable_imp.cifar16.runs()}
    taken = 0
    for name, c in runs.items():
        if path := c.lottery.dense_run:
            there = runs[path.removeprefix("../")]
            parts = {f.partition(".")[0] for f, *_ in config.differences(there, c)}
            # Of level 0, only what is saved may differ.
            allowed = {"name", "lottery", "instability", "analysis", "solution_penalty"}
            assert parts <= allowed, name
            taken += 1
    assert taken > 20


def test_batches_are_compared_from_initialization() -> None:
    measured = {
        "dense": {"onset": [line(0, [0, 50], [40.0, 1.0])]},
        "dense_batch_1024": {"onset": [line(0, [0, 150], [1.0, 0.5])]},
    }
    found = variants.arrange("resnet8", "cifar16", measured)["batches"]
    of = (found["small"], found["large"])
    values = [quantities.instabilities(one, pruned=False) for one in of]
    assert np.mean(values, axis=1) == pytest.approx([40.0, 1.0])


def test_a_fall_that_does_not_reach_stability_is_no_onset() -> None:
    found = as_published()
    found["onset"][0] = line(0, [0, 60], [20, 15])
    assert judged(found)["onset of stability, dense"] == "contradicted"


def test_repulsion_that_moves_nothing_says_nothing() -> None:
    found = as_published()
    found["penalty"]["repelled"] = make_arm(2.9, angle=0.2)
    assert judged(found)["repelling destroys tickets"] == "premise absent"
    found["penalty"]["repelled"] = make_arm(2.9, angle=0.6)
    assert judged(found)["repelling destroys tickets"] == "contradicted"
    found["penalty"]["repelled"] = make_arm(2.9, base=92.0, angle=0.6)
    assert judged(found)["repelling spares controls"] == "contradicted"


def test_attracted_tickets_must_beat_controls() -> None:
    found = as_published()
    attracted = make_arm(1.0, base=92.0, unstable=10.0, angle=0.4)
    found["penalty"]["attracted"] = attracted
    assert judged(found)["attracting makes tickets"] == "contradicted"


def test_thirds_of_rounds() -> None:
    arm = {"successive": [[float(i) for i in range(1, 9)]] * 2}
    assert quantities.rises(arm, "medium").tolist() == [4.5, 4.5]  # of 3 to 6
    assert quantities.rises(arm, "late").tolist() == [7.5, 7.5]


@pytest.mark.parametrize(
    "part", ["variants", "penalty", "onset", "rewound", "warmup", "batches"]
)
def test_what_has_not_ended_is_not_measured(part: str) -> None:
    found = as_published()
    found[part] = type(found[part])()
    verdict = judged(found)
    assert "not measured" in verdict.values()
    assert set(verdict.values()) == {"not measured", "reproduced"}


def test_two_seeds_are_unclear() -> None:
    found = as_published()
    for arm in (*found["variants"].values(), *found["penalty"].values()):
        arm["ticket"] = arm["ticket"][:2]
        arm["controls"] = {name: rows[:2] for name, rows in arm["controls"].items()}
    assert judged(found)["tickets at initialization"] == "unclear"


def test_seeds_that_never_learned_are_compared_by_permutations() -> None:
    found = as_published()
    found["variants"]["stable"]["ticket"][0] = [10.0] * 7
    (row,) = [
        one
        for one in claims_lib.judge(claims.CLAIMS, found, length=1.0)
        if one.claim.name == "tickets at initialization"
    ]
    assert row.effect.p * 8 == round(row.effect.p * 8)  # of eight changes of sign


def by_run(found: dict[str, Any]) -> dict[str, Any]:
    """Names invented findings as the runs of the scale `cpu` on MNIST."""
    histograms = [{"counts": [1, 2], "edges": [-1.0, 0.0, 1.0]}] * 7
    for arm in found["penalty"].values():
        arm["histograms"] = histograms
    names = {"unstable": "batch_16", "stable": "batch_1024"}
    return {names.get(role, role): arm for role, arm in found["penalty"].items()}


def test_a_page_of_parts() -> None:
    made = report_lib.section("mnist", "cpu", by_run(as_published()))
    assert made.figures["onset"] is None
    assert made.figures["onset_interpolations"] is None
    assert all(
        made.figures[name] is not None
        for name in ("levels", "stability", "angles", "thresholds", "histogram")
    )
    lengths = made.tables[0].shown
    assert lengths["Variant"].tolist() == [
        *("batches of 16", "batches of 1,024"),
        "batches of 1,024, repelled by 2",
        "batches of 16, attracted by 1",
    ]
    # All invented runs have one length, of 25 epochs of 3,750 updates.
    assert lengths.drop(columns="Variant").drop_duplicates().to_numpy().tolist() == [
        ["16", "100", "0.11 %", "5", "6", "3"]
    ]
    assert (
        'Claims compare the plain run ("batches of 16") and the stabilized run '
        '("batches of 1,024").'
    ) in made.lines
    assert len(made.frames["thresholds"]) == 4 * 3 * 6
    assert len(made.frames["solutions"]) == 4 * 3 * (8 * 7 // 2)
    shown = next(t.shown for t in made.tables if t.heading == "Stability")
    (row,) = shown.query("Variant == 'batches of 16' and Level == '3'").to_dict(
        "records"
    )
    assert (row["Stable"], row["Matching"]) == ("no", "yes")
    assert all(one.short for one in made.claims)


def test_runs_of_cifar16_are_arranged_by_their_role() -> None:
    names = [run.name.removeprefix("resnet8_") for run in stable_imp.cifar16.runs()]
    arm = make_arm(1.0) | {"onset": [line(0, [0], [1.0])]}
    found = variants.arrange("resnet8", "cifar16", dict.fromkeys(names, arm))
    assert list(found["rewound"]) == [0, 50, 150, 300, 600]
    assert found["penalty"].keys() == {"stable", "unstable", "repelled", "attracted"}
    assert {"unstable", "stable", "pruned_rate_0.4"} <= found["variants"].keys()
    assert len(found["onset"]) == 1 + 5
    labels = [variants.label(name, "resnet8", "cifar16") for name in names]
    assert len(set(labels)) == len(labels), labels
    assert all(len(of) == 3 for of in found["settings"].values())
    shown = {
        f"{role}_{name}".removesuffix("_")
        for name in found["settings"]
        for role in ("dense", "k_0", "k_150")
    }
    everywhere = {*found["variants"], *(f"k_{step}" for step in found["rewound"])}
    # No run is left out of the page.
    stable = f"stable_{stable_imp.cifar16.STABILIZER}"
    assert {*names} - {stable} == {*shown, *everywhere} - {"stable"}


def test_other_settings_are_compared_by_seed() -> None:
    def run(accuracy: list[float], level: int, steps: list[int]) -> dict[str, Any]:
        onset = [line(level, steps, [1.0 + step for step in steps])]
        return {"ticket": [[0.0, each] for each in accuracy], "onset": onset}

    measured = {
        "dense": run([60.0, 61.0, 62.0], 0, [0, 50, 150]),
        "k_0": run([55.0, 56.0, 57.0], 2, [0]),
        "dense_epochs_12": run([70.0, 71.0, 72.0], 0, [0, 150]),
        "k_150_epochs_12": run([69.0, 69.0, 69.0], 2, [150]),
    }
    frame = tables.settings_frame(variants.arrange("resnet8", "cifar16", measured))
    assert frame["setting"].tolist() == [""] * 3 + ["epochs_12"] * 3
    assert frame["seed"].tolist() == [0, 1, 2] * 2
    assert frame["k_0_percent"].tolist()[:3] == [55.0, 56.0, 57.0]
    assert frame["k_0_percent"].isna().tolist() == [False] * 3 + [True] * 3
    shown = tables.show_settings(frame).set_index("Setting")
    late = "tickets of update 150"
    assert shown.loc["12 epochs", "Accuracy, dense networks (%)"] == "71.00 ± 1.00"
    assert shown.loc["12 epochs", f"Accuracy, {late} (%)"] == "69.00 ± 0.00"
    assert shown.loc["batches of 128, rate 0.2", f"Accuracy, {late} (%)"] == ""
    values = frame.query("setting == ''")["dense_from_150"]
    assert values.tolist() == [
        line(0, [150], [151.0])["instability"][s][0] for s in range(3)
    ]
    assert tables.show_settings(tables.settings_frame({})).empty


def test_strengths_that_are_not_published_stand_beside_those_that_are() -> None:
    both = {"_published": variants.PUBLISHED_STRENGTHS, "": (20.0, -10.0)}
    assert variants.strengths("cifar", "cpu") == both
    assert variants.strengths("mnist", "cpu") == {"": (2.0, -1.0)}
    assert (
        variants.label("repelled", "cifar", "cpu") == "batches of 128, repelled by 20"
    )
    of = {run.name: run.overrides for run in stable_imp.STUDY.all_runs("cpu")}
    assert of["cifar_repelled"]["solution_penalty.strength"] == 20
    assert of["cifar_repelled_published"]["solution_penalty.strength"] == 2
