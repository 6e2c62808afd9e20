"""The study of gradient flow: its arms, its claims, and the whole of it in small."""

import copy
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import studies
from experiments.studies import gradient_flow, launcher
from experiments.studies.gradient_flow import (
    analysis,
    claims,
    published,
    runs_reader,
    variants,
)
from jaxsparse import factory, masks
from jaxsparse.data.dataset import Dataset, Examples

# What the claims are judged by, such that all hold: 5 seeds, numbers like the paper's.
ALPHAS = np.round(np.linspace(-0.2, 1.2, 29), 12)


def hill(height: float) -> list[list[float]]:
    """Errors along a segment with a barrier of some height, by seed."""
    inside = np.clip(ALPHAS, 0, 1)
    return [(2 + 4 * height * inside * (1 - inside)).tolist()] * 5


def entry(accuracy: float, ensemble: float, with_pruned: float) -> dict[str, Any]:
    spread = np.linspace(-0.1, 0.1, 5)
    return {
        "accuracy": (accuracy + spread).tolist(),
        "ensemble": ensemble,
        "with_pruned": (with_pruned * (1 + spread)).tolist(),
    }


def findings() -> dict[str, Any]:
    steps = list(range(100, 2100, 100))
    change = {"steps": steps, "before": np.ones((5, 20)).tolist()}
    noise = 0.01 * np.random.default_rng(0).standard_normal((5, 20))
    groups = ["prune end", "lt start", *["lt end"] * 5]
    groups += ["scratch start"] * 5 + ["scratch end"] * 5
    far = [0, 5, *[3] * 5, *[8] * 5, *[11] * 5]
    return {
        "predictions": {
            "prune": entry(98.3, 99.0, 0.02),
            "lt": entry(98.5, 98.56, 0.009),
            "scratch": entry(97.2, 98.4, 0.028),
            "scratch_plus": entry(97.8, 98.4, 0.028),
            "rigl": entry(98.1, 98.4, 0.025),
            "set": entry(97.9, 98.4, 0.025),
        },
        "gradients": {
            "gradient": {
                arm: {"steps": [0, 500, 1000, 5000], "norm": curve}
                for arm, curve in {
                    "lt": [[0.04, 1.0, 0.5, 0.1]] * 5,
                    "scratch": [[0.04, 0.04, 0.5, 9.0]] * 5,
                    "scratch_plus": [[0.4, 0.5, 0.4, 9.0]] * 5,
                    "rigl": [[0.04, 0.5, 0.6 + 0.01 * r, 0.1] for r in range(5)],
                    "rigl_plus": [[0.4, 0.7, 0.6 + 0.01 * r, 0.1] for r in range(5)],
                }.items()
            },
            "changes": {
                "rigl": change | {"after": (2 + noise).tolist()},
                "set": change | {"after": (1.1 - noise).tolist()},
                "rigl_inverted": change | {"after": (1 + noise).tolist()},
            },
        },
        "starts": {"lt": [0.05] * 5, "scratch": [0.04] * 5, "scratch_plus": [0.4] * 5},
        "interpolations": {
            "lt_end": {"alphas": ALPHAS.tolist(), "error": hill(0.1)},
            "scratch_end": {"alphas": ALPHAS.tolist(), "error": hill(40)},
        },
        "distances": {"groups": groups, "matrix": [far] * len(far)},
        "curvature": {
            "rigl": {
                "states": [
                    spectrum(seed, step, moment, count)
                    for seed in range(3)
                    for step in (500, 1000)
                    for moment, count in (("before", 9), ("after", 12))
                ]
            }
        },
    }


def spectrum(seed: int, step: int, moment: str, negative: int) -> dict[str, Any]:
    """A state with so many negative eigenvalues, and one that is only rounding."""
    values = [-0.1] * negative + [-1e-9] + [0.5] * (30 - negative)
    return {"seed": seed, "step": step, "moment": moment, "eigenvalues": values}


LENGTH = published.STEPS["lenet"]


def verdicts(found: dict[str, Any], steps: int = LENGTH) -> dict[str, str]:
    rows = claims.judge(found, steps=steps, whole=LENGTH)
    return {row["name"]: row["verdict"] for row in rows}


def test_all_claims_hold_of_numbers_like_the_papers() -> None:
    found = verdicts(findings())
    assert list(found) == [claim.name for claim in claims.CLAIMS]
    assert set(found.values()) == {"reproduced"}


def test_no_claim_holds_of_the_opposite() -> None:
    found = findings()
    p, s, g = (found[k] for k in ("predictions", "interpolations", "starts"))
    c, flow = found["gradients"]["changes"], found["gradients"]["gradient"]
    p["lt"], p["scratch"] = p["scratch"], p["lt"] | {"ensemble": 98.6}
    for arm in ("prune", "rigl", "scratch_plus", "set"):
        p[arm] = entry(96.0, 96.1, 0.03)
    flow["lt"], flow["scratch"] = flow["scratch"], flow["lt"]
    flow["rigl"], flow["rigl_plus"] = (
        {"steps": [0, 500], "norm": [[0.01, 0.01 + 1e-3 * r] for r in range(5)]}
        for _ in range(2)
    )
    s["lt_end"], s["scratch_end"] = s["scratch_end"], s["lt_end"]
    c["rigl"], c["set"] = c["set"], c["rigl"]
    c["rigl_inverted"] = copy.deepcopy(c["rigl"])
    g["lt"], g["scratch_plus"] = [0.4] * 5, [0.05] * 5
    found["distances"]["matrix"] = (-np.asarray(found["distances"]["matrix"])).tolist()
    for state in found["curvature"]["rigl"]["states"]:
        state["moment"] = {"before": "after", "after": "before"}[state["moment"]]
    found["curvature"]["rigl"]["states"] += [
        spectrum(0, 2000, moment, 5) for moment in ("before", "after")
    ]
    assert set(verdicts(found).values()) == {"not reproduced"}


def test_what_lies_between_is_unclear() -> None:
    found = findings()
    p, s, g = (found[k] for k in ("predictions", "interpolations", "starts"))
    c, flow = found["gradients"]["changes"], found["gradients"]["gradient"]
    s["lt_end"]["error"] = hill(2)
    p["lt"]["with_pruned"] = [0.6 * 0.028] * 5
    flow["lt"]["norm"] = [[0.04, 1.0, 1.0, 1.0]] * 4 + [[0.04, 0.04, 0.5, 1.0]]
    for better, worse in (("rigl", "scratch"), ("rigl_plus", "scratch_plus")):
        curve = np.tile(np.asarray(flow[worse]["norm"], float)[:1], (5, 1))
        noise = np.array([[2.0], [0.1], [-1.0], [0.5], [-1.5]])
        flow[better]["norm"] = (curve * (1 + 0.1 * noise)).tolist()
    for arm in ("prune", "lt", "rigl", "scratch_plus", "set"):
        p[arm]["accuracy"] = [a + 1e-3 for a in p["scratch"]["accuracy"]]
    p["lt"]["ensemble"] = np.mean(p["lt"]["accuracy"]) + 0.5
    g["scratch_plus"], g["lt"] = [0.12] * 5, [0.12] * 5
    half = np.where(np.arange(20) < 12, 2.0, 1.0)
    c["rigl"]["after"] = np.tile(half, (5, 1)).tolist()
    c["rigl_inverted"]["after"] = np.tile(1 + 0.3 * (half - 1), (5, 1)).tolist()
    # In order on average, and one seed is not.
    rows = np.asarray(found["distances"]["matrix"], float)
    rows[:, found["distances"]["groups"].index("scratch end")] = 7.9
    found["distances"]["matrix"] = rows.tolist()
    found["curvature"]["rigl"]["states"][1] = spectrum(0, 500, "after", 9)
    assert set(verdicts(found).values()) == {"unclear"}


def test_one_threshold_counts_the_negatives_of_both() -> None:
    """A change that only shrinks the largest eigenvalue makes no negative one."""
    small = [-1e-5, 0.5]
    before = {"seed": 0, "step": 1, "moment": "before", "eigenvalues": [-1e-5, 1e3]}
    after = {"seed": 0, "step": 1, "moment": "after", "eigenvalues": small}
    found = {"curvature": {"rigl": {"states": [before, after]}}}
    found = {part: {} for part in findings()} | found
    found["gradients"] = {"gradient": {}, "changes": {}}
    (row,) = (
        row
        for row in claims.judge(found, steps=LENGTH, whole=LENGTH)
        if row["verdict"] != "not measured"
    )
    assert row["ours"].startswith("+0,")
    assert row["n"] == 1
    assert row["verdict"] == "unclear"


def test_no_rise_says_nothing_of_inverted_growth() -> None:
    found = findings()
    found["gradients"]["changes"]["rigl"]["after"] = np.full((5, 20), 0.9).tolist()
    assert verdicts(found)["inverted growth"] == "unclear"


def test_few_seeds_and_short_runs_are_unclear() -> None:
    short = verdicts(findings(), steps=LENGTH // 3 - 1)
    assert set(short.values()) == {"unclear"}
    few = findings()
    for name, part in few["predictions"].items():
        few["predictions"][name] = part | {"accuracy": part["accuracy"][:2]}
    assert verdicts(few)["tickets win"] == "unclear"


def test_claims_whose_runs_are_missing_are_blank() -> None:
    found = findings()
    del found["predictions"]["rigl"], found["interpolations"]["lt_end"]
    del found["curvature"]["rigl"], found["gradients"]["changes"]["rigl_inverted"]
    rows = claims.judge(found, steps=LENGTH, whole=LENGTH)
    blank = {row["name"] for row in rows if row["verdict"] == "not measured"}
    assert blank == {
        *("dynamic training helps", "same basin"),
        *("new descent directions", "inverted growth"),
    }
    assert all(not row["ours"] for row in rows if row["name"] in blank)
    assert [row["name"] for row in rows] == [claim.name for claim in claims.CLAIMS]


def test_a_fault_in_a_claim_is_no_missing_run() -> None:
    found = findings()
    del found["interpolations"]["lt_end"]["error"]
    with pytest.raises(KeyError):
        claims.judge(found, steps=LENGTH, whole=LENGTH)


def test_the_sizes_of_networks_are_the_published_ones(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    one = Examples(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int32))
    dataset = Dataset(one, one, one, 10, (0.0,), (1.0,))
    sizes = {"lenet": (44_190, 2_336), "mlp": (266_200, 6_416)}
    runs = {run.name: launcher.read(run) for run in gradient_flow.STUDY.runs("cpu")}
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


def test_variants_follow_the_protocol(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    runs = {run.name: run for run in gradient_flow.STUDY.runs("cpu")}
    for network in PROTOCOL:
        for arm in ARMS:
            check_protocol(network, arm, launcher.read(runs[f"{network}_{arm}"]))


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


def test_variants_differ(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(root)
    assert (
        published.LABELS.keys() - {"pruned"}
        == variants.fields_of("lenet", "1step").keys()
    )
    places = list(published.INITIALIZED.values())
    assert len(set(places)) == len(places)
    assert published.INITIALIZED.keys() <= published.LABELS.keys()
    runs = {run.name: run.overrides for run in gradient_flow.STUDY.runs("cpu")}
    assert len({json.dumps(fields, sort_keys=True) for fields in runs.values()}) == 30
    for name, fields in runs.items():
        pruned = "dense" in name or name.endswith("_prune")
        assert ("warm_start.masks" in fields) != pruned
        assert ("seeds.data" in fields) != pruned  # another order than the pruning run


def test_a_part_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = runs_reader.NetworkRuns(tmp_path, "lenet", "quick", "")
    assert study.variants == []
    assert analysis.measure(tmp_path, "lenet", "quick", "") == {}
    calls = []

    def compute(given: Any) -> Any:
        assert given is study
        calls.append(len(calls))
        return {"n": len(calls)}

    monkeypatch.setattr(study, "hashes", lambda *names: dict.fromkeys(names, marks[-1]))
    marks, seen = ["hash"], []
    for on, size, mark in (
        (["lt"], 1, "hash"),
        (["lt"], 1, "hash"),
        (["lt", "set"], 1, "hash"),
        (["lt", "set"], 2, "hash"),
        (["lt", "set"], 2, "another"),  # trained again, to other weights
        (["lt", "set"], 2, "another"),
    ):
        marks.append(mark)
        seen.append(analysis._once(study, "part", compute, on, examples=size)["n"])
    assert seen == [1, 1, 2, 3, 4, 4]


@pytest.mark.campaign
def test_the_whole_study_in_small(tmp_path: Path, root: Path) -> None:
    """On the real MNIST where it is: 30 runs of 300 updates, some 15 minutes."""
    data = root.parent / "shared" / "data"
    if not data.exists():
        pytest.skip("MNIST is not there")
    runs = gradient_flow.STUDY.runs("quick")
    assert launcher.run_all(runs, tmp_path, str(data)) == []
    page = gradient_flow.STUDY.finish(tmp_path, "quick", str(data))
    for network in ("lenet", "mlp"):
        table = pd.read_csv(page.parent / f"{network}_variants.csv").set_index(
            "variant"
        )
        assert table.index.tolist() == list(published.LABELS)
        assert table.pop("n").tolist() == [2, 1, *[2] * 14]
        assert table["accuracy_percent"].between(5, 100).all()
        assert table.loc["dense", "accuracy_percent"] > 90
        rows = pd.read_csv(page.parent / f"{network}_claims.csv")
        rows = rows.set_index("name")["verdict"]
        assert list(rows.index) == [claim.name for claim in claims.CLAIMS]
        curved = rows.pop("new descent directions")
        assert curved == ("unclear" if network == "lenet" else "not measured")
        # 2 seeds, and a twentieth of the published length.
        assert (rows == "unclear").all()
        drawn = {"gradient", "changes", "interpolations", "map", "signal"}
        for name in drawn | ({"hessian"} if network == "lenet" else set()):
            assert (page.parent / f"{network}_{name}.png").exists()
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("analysis/*/*")}
    assert again
    assert gradient_flow.STUDY.finish(tmp_path, "quick", str(data)) == page
    assert again == {path: path.stat().st_mtime_ns for path in again}


def test_studies_are_found_by_name() -> None:
    for name in studies.NAMES:
        study = importlib.import_module(f"experiments.studies.{name}").STUDY
        assert study.description
        assert study.results
        assert all(study.runs(scale) for scale in studies.SCALES)
