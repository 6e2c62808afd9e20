"""The study of gradient flow: its arms, its claims, and the whole of it in small."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.studies import claims as claims_lib
from experiments.studies import driver, effects, gradient_flow
from experiments.studies.driver import Places, Task
from experiments.studies.gradient_flow import claims, evidence, published, variants
from experiments.studies.runs import read
from jaxsparse import factory, masks
from jaxsparse.data.dataset import Dataset, Examples

# What the claims are judged by, such that all hold: 5 seeds, numbers like the paper's.
ALPHAS = np.round(np.linspace(-0.2, 1.2, 29), 12)


random = np.random.default_rng(0)


def near(value: float, n: int = 5) -> list[float]:
    """Values of seeds that differ by a few percent."""
    return (value * (1 + 0.02 * random.standard_normal(n))).tolist()


def hill(height: float) -> list[list[float]]:
    """Errors on an interpolation with a barrier of about some height, by seed."""
    inside = np.clip(ALPHAS, 0, 1)
    return [(2 + 4 * h * inside * (1 - inside)).tolist() for h in near(height)]


def entry(accuracy: float, gain: float, with_pruned: float) -> dict[str, Any]:
    return {
        "accuracy": (accuracy + 0.05 * random.standard_normal(5)).tolist(),
        "ensemble": gain,
        "ensemble_without": near(gain),
        "with_pruned": near(with_pruned),
    }


def curve(*norms: float) -> dict[str, Any]:
    return {
        "steps": [0, 500, 1000, 5000],
        "norm": np.transpose([near(norm) for norm in norms]).tolist(),
    }


def change(after: float) -> dict[str, Any]:
    steps = list(range(100, 2100, 100))
    return {
        "steps": steps,
        "before": np.ones((5, 20)).tolist(),
        "after": np.transpose([near(after) for _ in steps]).tolist(),
    }


def findings() -> dict[str, Any]:
    """What the claims are judged by: 5 seeds, numbers like the paper's."""
    found = {
        "predictions": {
            "prune": entry(98.3, 0.7, 0.02),
            "lt": entry(98.0, 0.06, 0.009),
            "lt_150": entry(98.5, 0.06, 0.009),
            "scratch": entry(97.2, 1.2, 0.028),
            "scratch_plus": entry(97.8, 0.6, 0.028),
            "rigl": entry(98.1, 0.3, 0.025),
            "rigl_plus": entry(98.3, 0.3, 0.025),
            "set": entry(97.9, 0.5, 0.025),
            "set_plus": entry(97.9, 0.5, 0.025),
            "small_dense": entry(96.0, 0.5, 0.025),
        },
        "gradients": {
            "lt": curve(0.04, 1.0, 0.5, 0.1),
            "scratch": curve(0.04, 0.04, 0.5, 9.0),
            "scratch_plus": curve(0.4, 0.5, 0.4, 9.0),
            "rigl": curve(0.04, 0.5, 0.6, 0.1),
            "rigl_plus": curve(0.4, 0.7, 0.6, 0.1),
        },
        "changes": {
            "rigl_plus": change(2.0),
            "set_plus": change(1.1),
            "rigl_inverted_plus": change(1.05),
        },
        "starts": {
            name: near(norm)
            for name, norm in {"lt": 0.05, "scratch": 0.04, "scratch_plus": 0.4}.items()
        },
        "interpolations": {
            name: {"alphas": ALPHAS.tolist(), "error": hill(height)}
            for name, height in {
                "lt_end": 0.1,
                "lt_150_end": 0.2,
                "scratch_end": 40.0,
            }.items()
        },
        "distances": {
            "lt": {"start": near(5), "end": near(3)},
            "scratch": {"start": near(8), "end": near(11)},
        },
        "curvature": {
            "rigl_plus": {
                "states": [
                    spectrum(seed, step, moment, count + seed)
                    for seed in range(3)
                    for step in (500, 1000)
                    for moment, count in (("before", 9), ("after", 12 + seed))
                ]
            }
        },
        "steps": LENGTH,
        "has_norm": False,
    }
    found["orders"] = {name: [m] for name, m in found["predictions"].items()}
    return found


def spectrum(seed: int, step: int, moment: str, negative: int) -> dict[str, Any]:
    """A state with so many negative eigenvalues, and one that is only rounding."""
    least = -0.1 if moment == "before" else -0.2 - seed / 1000
    values = [least] * negative + [-1e-9] + [0.5] * (30 - negative)
    place = {"seed": seed, "step": step, "moment": moment, "n": len(values)}
    return place | {"eigenvalues": values}


LENGTH = published.STEPS["lenet"]


def judged(found: dict[str, Any]) -> dict[str, claims_lib.Judged]:
    rows = claims_lib.judge(claims.CLAIMS, found, length=1.0)
    return {one.claim.name: one for one in rows}


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {name: one.verdict for name, one in judged(found).items()}


# Exchanges of 5 and 5 seeds cannot withstand the correction over so many claims.
FEW = {"tickets leave the first plateau sooner"}


def test_all_claims_hold_of_numbers_like_the_papers() -> None:
    found = judged(findings())
    assert list(found) == [claim.name for claim in claims.CLAIMS]
    assert found["tickets leave the first plateau sooner"].effect.p == pytest.approx(
        1 / 252
    )
    words = {name: one.verdict for name, one in found.items() if name not in FEW}
    assert set(words.values()) == {"reproduced"}, words


def test_the_opposite_is_contradicted_or_has_no_premise() -> None:
    found = findings()
    p = found["predictions"]
    for better, worse in (("lt", "scratch"), ("rigl_plus", "set_plus")):
        p[better], p[worse] = p[worse], p[better]
    for name in ("prune", "rigl", "scratch_plus", "set", "lt_150", "rigl_plus"):
        p[name] = entry(95.0, 1.1, 0.05)
    found["orders"] = {name: [m] for name, m in p.items()}
    c, g, d = (found[name] for name in ("changes", "starts", "distances"))
    c["rigl_plus"], c["set_plus"] = c["set_plus"], c["rigl_plus"]
    c["rigl_inverted_plus"] = change(2.0)
    g["lt"], g["scratch_plus"] = near(0.4), near(0.05)
    d["lt"], d["scratch"] = d["scratch"], d["lt"]
    flow = found["gradients"]
    flow["rigl"] = flow["rigl_plus"] = curve(0.01, 0.01, 0.01, 0.01)
    s = found["interpolations"]
    s["lt_end"], s["lt_150_end"] = s["scratch_end"], s["scratch_end"]
    for state in found["curvature"]["rigl_plus"]["states"]:
        state["moment"] = {"before": "after", "after": "before"}[state["moment"]]
    words = verdicts(found)
    assert words.pop("tickets leave the first plateau sooner") == "unclear"
    # With three seeds, half of the sign of p is not enough.
    for name in (
        "RigL makes new negative eigenvalues",
        "RigL lowers the least eigenvalue",
    ):
        assert words.pop(name) in ("contradicted", "unclear")
    assert set(words.values()) == {"contradicted"}, words


def test_networks_with_batch_norm_show_no_flow_at_initialization() -> None:
    words = verdicts(findings() | {"has_norm": True})
    assert (
        words.pop("sparsity-aware initialization raises the gradient norm")
        == "premise absent"
    )
    assert "premise absent" not in words.values()


def test_tickets_that_begin_with_less_flow_are_not_about_equal() -> None:
    found = findings()
    found["starts"]["lt"] = near(0.01)
    assert (
        verdicts(found)["tickets do not begin with a larger gradient norm"]
        == "contradicted"
    )


def test_seeds_share_masks_and_orders_so_that_accuracies_are_paired() -> None:
    found = findings()
    shared = 90 + 3 * random.standard_normal(5)
    for name, above in (("rigl", 0.3), ("scratch", 0.0)):
        values = shared + above + 0.05 * random.standard_normal(5)
        found["predictions"][name]["accuracy"] = values.tolist()
    assert verdicts(found)["RigL above Scratch"] == "reproduced"


def test_without_a_barrier_from_scratch_a_premise_is_absent() -> None:
    found = findings()
    found["interpolations"]["scratch_end"]["error"] = hill(0.5)
    assert (
        verdicts(found)["tickets end in the pruned solution's basin"]
        == "premise absent"
    )
    found["changes"]["rigl_plus"] = change(0.9)
    assert (
        verdicts(found)[
            "growing by the least gradient raises the log norm by less than half"
        ]
        == "premise absent"
    )


def test_one_threshold_counts_the_negatives_of_both() -> None:
    """A change that only shrinks the largest eigenvalue makes no negative one."""
    before = {"seed": 0, "step": 1, "moment": "before", "eigenvalues": [-1e-5, 1e3]}
    after = {"seed": 0, "step": 1, "moment": "after", "eigenvalues": [-1e-5, 0.5]}
    before["n"] = after["n"] = 2
    states = [before, after]
    found = findings() | {"curvature": {"rigl": {"states": states}}}
    effect = judged(found)["RigL makes new negative eigenvalues"].effect
    assert (effect.estimate, effect.n) == (0.0, 1)


def test_the_least_eigenvalue_must_fall_also_where_spectra_are_not_exact() -> None:
    states = [
        {
            "seed": seed,
            "step": 1,
            "moment": moment,
            "n": 100,
            "lanczos": {"top": [2.0], "bottom": [least, 1.0]},
        }
        for seed in range(3)
        for moment, least in (("before", -1.0), ("after", -3.0 - seed / 10))
    ]
    found = findings() | {"curvature": {"rigl_plus": {"states": states}}}
    words = judged(found)
    effect = words["RigL lowers the least eigenvalue"].effect
    assert effect.estimate == pytest.approx(2.1)
    assert effect.p < 0.01
    assert words["RigL makes new negative eigenvalues"].verdict == "not measured"
    # Float32 cannot tell eigenvalues of 3 beside one of 1e8 from rounding.
    states[-1]["lanczos"]["top"] = [1e8]
    assert judged(found)["RigL lowers the least eigenvalue"].effect.n == 2


def test_gains_of_ensembles_over_masks_are_their_own_units() -> None:
    found = findings()
    found["orders"]["lt_150"] = [{"ensemble": gain} for gain in (0.05, 0.07, 0.06)]
    found["orders"]["scratch"] = [{"ensemble": gain} for gain in (1.0, 1.2, 1.3)]
    assert judged(found)["ensembles of rewound tickets gain little"].effect.n == 3


def test_ensembles_wait_for_all_masks() -> None:
    one = {"prediction": {"accuracy": [40.0], "ensemble": 1.0}, "steps": 10}
    names = [f"{name}_mask_{i}" for name in ("lt_150", "scratch") for i in range(3)]
    measured = dict.fromkeys(names, one) | {"prune": one}
    found = variants.arrange("resnet8", "cifar16", measured)
    assert [len(of) for of in found["orders"].values()] == [3, 3]
    del measured["scratch_mask_1"]
    assert variants.arrange("resnet8", "cifar16", measured)["orders"].keys() == {
        "lt_150"
    }


def test_summaries_of_an_older_version_are_judged_by_welchs_test() -> None:
    found = findings()
    for name, m in found["predictions"].items():
        values = np.asarray(m["accuracy"])
        found["predictions"][name] = {"summary": [values.mean(), values.std(ddof=1), 5]}
    words = verdicts(found)
    assert (
        words["tickets above Scratch"]
        == words["gradual pruning above Scratch"]
        == "reproduced"
    )
    assert words["tickets predict as the pruned solution does"] == "not measured"


def test_two_seeds_are_unclear() -> None:
    found = findings()
    for m in found["predictions"].values():
        m["accuracy"] = m["accuracy"][:2]
    assert verdicts(found)["tickets above Scratch"] == "unclear"


def test_claims_whose_runs_are_missing_are_not_measured() -> None:
    found = findings()
    del found["predictions"]["rigl"], found["interpolations"]["lt_end"]
    del found["curvature"]["rigl_plus"], found["changes"]["rigl_inverted_plus"]
    rows = judged(found)
    blank = {name for name, one in rows.items() if one.verdict == "not measured"}
    assert blank == {
        *("RigL above Scratch", "tickets end in the pruned solution's basin"),
        *(
            "RigL makes new negative eigenvalues",
            "RigL lowers the least eigenvalue",
            "growing by the least gradient raises the log norm by less than half",
        ),
    }
    assert all(rows[name].effect is None for name in blank)


def test_the_sizes_of_networks_are_the_published_ones() -> None:
    one = Examples(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int32))
    dataset = Dataset(one, one, one, 10, (0.0,), (1.0,))
    sizes = {"lenet": (44_190, 2_336), "mlp": (266_200, 6_416)}
    runs = {run.name: read(run) for run in gradient_flow.STUDY.all_runs("cpu")}
    for network, (whole, small) in sizes.items():
        usual = runs[f"{network}_lt"]
        for arm in variants.fields_of(network, "100step"):
            c = runs[f"{network}_{arm}"]
            length = factory.make_durations(c, steps_per_epoch=469)
            assert length.total == LENGTH
            if arm in ("lt", "small_dense"):
                total = masks.size(factory.make_network(c, dataset, length).masks)
                assert total == (small if arm == "small_dense" else whole)
            else:  # the same network, and the same prunable layers
                assert c.model == usual.model
                assert c.sparse.prunable == usual.sparse.prunable


# The paper's protocol: learning rate, decay (twice the L2 penalty), sparsity, and how
# often masks change.
PROTOCOL = {"lenet": (0.05, 1e-3, 0.95, "100step"), "mlp": (0.2, 2e-4, 0.98, "500step")}
# By arm: method, initialization for the masks, what it starts from, how it grows.
ARMS = {
    "prune": ("gmp", None, (None, None), ""),
    "lt": ("static", None, ("init", variants.END), ""),
    "scratch": ("static", None, (None, variants.END), ""),
    "scratch_same": ("static", None, (None, variants.END), ""),
    "scratch_plus": ("static", "fan_in", (None, variants.END), ""),
    "liu": ("static", "layer", (None, variants.END), ""),
    "prune_restart": ("static", None, (variants.END, variants.END), ""),
    "rigl": ("rigl", None, (None, variants.END), "gradient"),
    "rigl_plus": ("rigl", "fan_in", (None, variants.END), "gradient"),
    "rigl_liu": ("rigl", "layer", (None, variants.END), "gradient"),
    "rigl_inverted": ("rigl", None, (None, variants.END), "inverted"),
    "set": ("set", None, (None, variants.END), ""),
    "set_plus": ("set", "fan_in", (None, variants.END), ""),
    "dense": ("none", None, (None, None), ""),
    "small_dense": ("none", None, (None, None), ""),
}


def test_variants_follow_the_protocol() -> None:
    runs = {run.name: run for run in gradient_flow.STUDY.all_runs("cpu")}
    for network in PROTOCOL:
        for arm in ARMS:
            check_protocol(network, arm, read(runs[f"{network}_{arm}"]))


def check_protocol(network: str, arm: str, c: Any) -> None:
    rate, decay, sparsity, every = PROTOCOL[network]
    inner = (c.optimizer.name, c.optimizer.momentum, c.optimizer.nesterov)
    assert inner == ("sgd", 0.9, False)
    assert (c.schedule.name, c.schedule.learning_rate) == ("cosine", rate)
    assert (c.optimizer.weight_decay, c.optimizer.weight_decay_mask) == (
        decay,
        "kernels",
    )
    assert (c.data.batch_size, c.training.duration) == (128, "11719step")
    assert (c.data.normalize, c.data.validation) == ("scale", 0)
    assert (c.init.kernel, c.init.sparse_init_scale) == ("glorot_uniform", 1.0)
    assert c.replicates == {"lenet": 5, "mlp": 3}[network]
    method, init, start, grow = ARMS[arm]
    assert (c.sparse.method, c.init.sparse_init) == (method, init)
    assert (c.warm_start.weights, c.warm_start.masks) == start
    assert c.warm_start.replicate == (0 if start[1] else None)
    assert c.init.shared == (arm == "scratch_same")
    if method in ("gmp", "none"):
        assert not c.warm_start.run
    else:
        assert c.warm_start.run == f"../{network}_prune"
    if method == "gmp":
        when = (c.sparse.begin_step, c.sparse.end_step, c.sparse.update_every)
        assert when == ("3000step", "7000step", "100step")
        chosen = (c.sparse.sparsity, c.sparse.distribution, c.sparse.schedule)
        assert chosen == (sparsity, "uniform", "cubic")
    if method in ("rigl", "set"):
        when = (c.sparse.begin_step, c.sparse.end_step, c.sparse.update_every)
        assert when == (None, "100%", every)
        drops = (c.sparse.drop_fraction, c.sparse.drop_schedule)
        assert drops == (0.3, "learning_rate")
        assert c.analysis.at_mask_updates
    if method == "rigl":
        assert c.sparse.grow == grow
        # Other examples than those that the norm is measured on.
        assert (c.sparse.grow_batch_start, c.sparse.grow_batch_size) == (1000, 1000)
        assert c.analysis.examples == 1000


def test_variants_differ() -> None:
    at_90 = {f"{name}_90" for name in variants.AT_90}
    named = published.LABELS.keys() - at_90
    assert at_90 < published.LABELS.keys()
    named -= {"pruned", "lt_150", "rigl_inverted_plus"}
    assert named == variants.fields_of("lenet", "1step").keys()
    places = list(published.INITIALIZED.values())
    assert len(set(places)) == len(places)
    assert published.INITIALIZED.keys() <= published.LABELS.keys()
    runs = {run.name: run.overrides for run in gradient_flow.STUDY.all_runs("cpu")}
    assert len({json.dumps(fields, sort_keys=True) for fields in runs.values()}) == 30
    for name, fields in runs.items():
        pruned = "dense" in name or name.endswith("_prune")
        assert ("warm_start.masks" in fields) != pruned
        assert ("seeds.data" in fields) != pruned  # another order than the pruning run


def test_seeds_of_cifar16_have_masks_of_their_own() -> None:
    runs = {run.name: read(run) for run in gradient_flow.STUDY.all_runs("cifar16")}
    assert runs["resnet8_lt_150"].warm_start.weights.endswith("000000150")
    assert "150step" in runs["resnet8_prune"].analysis.save_at
    for name, c in runs.items():
        if "_mask_" in name:
            assert c.warm_start.replicate == int(name[-1])
        elif c.warm_start.run:
            assert c.warm_start.replicate is None
            # Only tickets and restarts have the weights of the pruning run.
            draws = c.warm_start.weights is None
            assert (c.seeds.init != runs["resnet8_prune"].seeds.init) == draws
            assert draws == (name.split("_")[1] not in ("lt", "prune"))
            pruned = "resnet8_prune_90" if name.endswith("_90") else "resnet8_prune"
            assert c.warm_start.run == f"../{pruned}"
            assert c.sparse.sparsity == runs[pruned].sparse.sparsity
            assert c.seeds.data == 1  # another order than that of the pruning run


def test_variants_of_records_with_and_without_seeds_are_compared() -> None:
    found = findings()
    ours, theirs = found["predictions"]["rigl"], found["predictions"]["scratch"]
    values = np.asarray(theirs["accuracy"])
    old = {"summary": [values.mean(), values.std(ddof=1), len(values)]}
    mixed = found | {"predictions": {"rigl": ours, "scratch": old}}
    welch = effects.higher(np.asarray(ours["accuracy"]), values)
    effect = evidence.higher("rigl", "scratch")(mixed)
    assert effect.p == pytest.approx(welch.p)
    assert effect.interval == pytest.approx(welch.interval)


@pytest.mark.campaign
def test_the_whole_study_in_small(tmp_path: Path, root: Path) -> None:
    """On the real MNIST where it is: 30 runs of 300 updates, some 15 minutes."""
    data = root.parent / "shared" / "data"
    if not data.exists():
        pytest.skip("MNIST is not there")
    study = gradient_flow.STUDY
    runs = study.all_runs("quick")
    places = Places(tmp_path, tmp_path / "records", str(data))
    assert driver.run_all([Task(study, run, runs, places) for run in runs]) == []
    page = study.report("quick", tmp_path / "records", tmp_path / "report")
    for network in ("lenet", "mlp"):
        table = pd.read_csv(page.parent / f"{network}_variants.csv").set_index(
            "variant"
        )
        assert table["accuracy_percent"].between(5, 100).all()
        assert table.loc["dense", "accuracy_percent"] > 90
        rows = pd.read_csv(page.parent / f"{network}_claims.csv").set_index("claim")
        assert list(rows.index) == [claim.name for claim in claims.CLAIMS]
        # 2 seeds, and a twentieth of the published length.
        assert not rows["verdict"].str.startswith(("reproduced", "contradicted")).any()
        drawn = {"gradient", "changes", "interpolations", "map", "signal"}
        for name in drawn | ({"hessian"} if network == "lenet" else set()):
            assert (page.parent / f"{network}_{name}.png").exists()


def test_seeds_that_never_leave_the_plateau_are_counted() -> None:
    found = findings()
    stays = np.asarray(found["gradients"]["scratch"]["norm"])
    stays[1:3] = stays[1:3, :1]
    found["gradients"]["scratch"]["norm"] = stays.tolist()
    words = judged(found)["tickets leave the first plateau sooner"].effect.words
    lt, scratch = words.removeprefix("updates: ").split("; ")
    assert "never" not in lt and scratch.count("never") == 1
    never = r"never in 2 of 5 seeds \(counted as \S+\)"
    assert re.fullmatch(rf"Scratch at \S+, \S+, \S+ and {never}", scratch)
