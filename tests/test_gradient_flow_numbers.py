"""What the study of gradient flow measures, on a tiny one, against plain code."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from experiments.studies.gradient_flow import analysis, curvature, runs_reader, variants
from jaxsparse import factory, masks, transforms
from jaxsparse.analysis import gradient_flow
from jaxsparse.data.dataset import Dataset
from jaxsparse.stages import saved_state_name

STEPS = (0, 5, 6, 12)
COMMON = {
    "lottery.levels": 0,
    "model.features": (6,),
    "sparse.sparsity": 0.8,
    "analysis.gradient_every": "5step",
    "analysis.examples": 50,
    "analysis.save_at": tuple(f"{step}step" for step in STEPS),
}
MASKED = {
    "warm_start.run": "../tiny_prune",
    "warm_start.masks": variants.END,
    "warm_start.replicate": 0,
    "seeds.init": 1,
    "seeds.data": 1,
}
ARMS = {
    "prune": {
        "sparse.method": "gmp",
        "sparse.begin_step": "2step",
        "sparse.end_step": "8step",
        "sparse.update_every": "2step",
    },
    "lt": MASKED | {"sparse.method": "static", "warm_start.weights": "init"},
    "rigl": MASKED
    | {
        "sparse.method": "rigl",
        "sparse.update_every": "5step",
        "sparse.drop_fraction": 0.3,
        "sparse.drop_schedule": "constant",
        "analysis.at_mask_updates": True,
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three arms of two seeds on digits, trained for 12 updates."""
    folder = tmp_path_factory.mktemp("study")
    for name, fields in ARMS.items():
        workdir, own = folder / f"tiny_{name}", COMMON | fields
        workdir.mkdir()
        c = tiny.config(own)
        (workdir / "config.json").write_text(c.to_json())
        made = factory.make_experiment(c, factory.load_data(c), workdir)
        tiny.run_lib.run(made, tiny.desk(workdir))
    study = runs_reader.Study.__new__(runs_reader.Study)
    study.folder, study.network, study.scale = folder, "tiny", "quick"
    study.data_dir, study.arms = "", list(ARMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.KEPT, "quick", STEPS)
        patch.setitem(analysis.SEGMENT_EXAMPLES, "quick", 60)
        patch.setattr(analysis, "FLOW_EXAMPLES", 50)
        yield study


def logits(dataset: Dataset, params: Any, images: Any) -> Any:
    model = factory.make_model(tiny.config(COMMON), classes=10)
    x = (jnp.asarray(images) / 255.0 - dataset.mean[0]) / dataset.std[0]
    return model.apply({"params": params}, x, train=False)


def said(dataset: Dataset, params: Any, images: Any) -> np.ndarray:
    return np.argmax(np.asarray(logits(dataset, params, images)), axis=-1)


def solution(study: Any, arm: str, name: str, r: int) -> tuple[Any, Any]:
    state = factory.load_state(factory.open_run(study.folder / f"tiny_{arm}"), name)
    held = (state.params, transforms.get_masks(state.opt_state))
    return jax.tree.map(lambda leaf: leaf[r], held)


def training_loss(dataset: Dataset, params: Any, count: int) -> Any:
    train = dataset.train
    rows = jax.nn.log_softmax(logits(dataset, params, train.images[:count]))
    return -jnp.mean(rows[jnp.arange(count), jnp.asarray(train.labels[:count])])


def grads_of(dataset: Dataset, params: Any, held: Any) -> Any:
    params = masks.apply(held, params)
    found = jax.grad(lambda p: training_loss(dataset, p, 50))(params)
    return masks.apply(held, found)


def norm(tree: Any) -> float:
    squares = [np.sum(np.square(np.asarray(g, float))) for g in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(squares)))


def test_predictions_are_those_of_the_ends(study: Any) -> None:
    found, dataset = analysis.of_predictions(study), study.run("prune").dataset
    test = dataset.test
    pruned, _ = solution(study, "prune", variants.END, 0)
    theirs = said(dataset, pruned, test.images)
    for arm in ARMS:
        ours = []
        for r in range(2):
            params, _ = solution(study, arm, variants.END, r)
            ours.append(said(dataset, params, test.images))
        right = [100 * np.mean(one == test.labels) for one in ours]
        assert found[arm]["accuracy"] == pytest.approx(right)
        apart = [float(np.mean(one != theirs)) for one in ours]
        # The pruned solution is not compared with itself.
        wanted = apart[1:] if arm == "prune" else apart
        assert found[arm]["with_pruned"] == pytest.approx(wanted)
        assert found[arm]["disagreement"][0] == pytest.approx(
            np.mean(ours[0] != ours[1])
        )
    assert found["pruned"] == {"accuracy": found["prune"]["accuracy"][:1]}
    assert str(analysis.of_predictions(study)) == str(found)  # NaN for one pair


def test_changes_are_of_one_state_under_two_masks(study: Any) -> None:
    found, dataset = analysis.of_gradients(study), study.run("prune").dataset
    assert found["changes"].keys() == {"rigl"}
    change, curve = found["changes"]["rigl"], found["gradient"]["rigl"]
    assert change["steps"] == [5, 10]
    assert curve["steps"] == [0, 5, 10]
    for r in range(2):
        params, before = solution(
            study, "rigl", saved_state_name(runs_reader.STAGE, 5), r
        )
        _, after = solution(study, "rigl", saved_state_name(runs_reader.STAGE, 6), r)
        assert masks.num_active(before) == masks.num_active(after)
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        assert any(np.any(a != b) for a, b in pairs)
        plain = {
            "before": norm(grads_of(dataset, params, before)),
            "after": norm(grads_of(dataset, params, after)),
        }
        for moment, wanted in plain.items():
            assert change[moment][r][0] == pytest.approx(wanted, rel=1e-4)
        assert curve["norm"][r][1] == pytest.approx(plain["before"], rel=1e-4)
        grads = grads_of(dataset, params, before)
        wanted = gradient_flow.effective_gradient_flow(grads, before)
        assert curve["effective"][r][1] == pytest.approx(float(wanted), rel=1e-4)
        rate = study.run("rigl").learning_rate(jnp.int32(5))
        flow = gradient_flow.measure(grads, before)
        wanted = gradient_flow.first_order_decrease(flow, learning_rate=rate)
        assert curve["decrease"][r][1] == pytest.approx(float(wanted), rel=1e-4)


def test_starts_are_on_masks_of_their_own(study: Any) -> None:
    found, dataset = analysis.of_starts(study), study.run("prune").dataset
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(
        ("lt", "scratch", "scratch_plus", "liu"), 2
    )
    for r in range(2):
        own, _ = solution(study, "prune", "init", r)
        _, held = solution(study, "prune", variants.END, r)
        wanted = norm(grads_of(dataset, own, held))
        assert found["lt"][r] == pytest.approx(wanted, rel=1e-4)
    for name in ("scratch", "scratch_plus", "liu"):
        assert found[name][0] != found[name][1]
        assert found[name] != found["lt"]


def test_segments_end_at_the_pruned_solution(study: Any) -> None:
    found = analysis.of_segment(study, "lt", "end")
    dataset, alphas = study.run("prune").dataset, found["alphas"]
    pruned, _ = solution(study, "prune", variants.END, 0)
    assert found["examples"] == 60
    for r in range(2):
        params, _ = solution(study, "lt", variants.END, r)
        for alpha, weights in ((0.0, params), (1.0, pruned)):
            classes = said(dataset, weights, dataset.train.images[:60])
            wanted = 100 * np.mean(classes != dataset.train.labels[:60])
            at = alphas.index(alpha)
            assert found["error"][r][at] == pytest.approx(wanted)
            loss = training_loss(dataset, weights, 60)
            assert found["loss"][r][at] == pytest.approx(float(loss), rel=1e-4)
    # All tickets start from one place.
    assert len(analysis.of_segment(study, "lt", "start")["error"]) == 1


def test_distances_are_those_of_all_parameters(study: Any) -> None:
    found = analysis.of_distances(study)
    assert found["labels"] == [
        "prune end 0",
        *("lt start 0", "lt end 0", "lt end 1"),
        *("rigl start 0", "rigl start 1", "rigl end 0", "rigl end 1"),
    ]
    names = {"start": saved_state_name(runs_reader.STAGE, 0), "end": variants.END}
    places = [label.split() for label in found["labels"]]
    each = [solution(study, arm, names[when], int(r))[0] for arm, when, r in places]
    for i, a in enumerate(each):
        for j, b in enumerate(each):
            apart = norm(jax.tree.map(lambda x, y: x - y, a, b))
            assert found["matrix"][i][j] == pytest.approx(apart, rel=1e-4, abs=1e-6)


def test_curvature_is_taken_around_changes(study: Any) -> None:
    found = curvature.places(study, "rigl")
    place = curvature.Place
    around = [place(0, 5, "before"), place(0, 5, "after")]
    later = [place(1, 5, "before"), place(1, 5, "after")]
    assert found == [place(0, 0, ""), *around, place(0, 12, ""), *later]
    assert curvature.places(study, "lt") == [place(0, s, "") for s in (0, 5, 12)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_spectra_are_those_of_the_plain_hessian(study: Any, moment: str) -> None:
    """After a change: the weights from before, under the masks from after."""
    state = curvature.at(study, arm="rigl", place=curvature.Place(1, 5, moment))
    dataset = study.run("prune").dataset
    params, held = solution(study, "rigl", saved_state_name(runs_reader.STAGE, 5), 1)
    if moment == "after":
        _, held = solution(study, "rigl", saved_state_name(runs_reader.STAGE, 6), 1)
    params = masks.apply(held, params)
    flat, back = jax.flatten_util.ravel_pytree(params)
    there = jax.tree.map(
        lambda leaf, mask: jnp.ones(leaf.shape, bool) if mask is None else mask,
        params,
        held,
        is_leaf=lambda leaf: leaf is None,
    )
    kept = np.flatnonzero(np.concatenate([m.ravel() for m in jax.tree.leaves(there)]))
    rest = jnp.asarray(flat)

    def loss(active: Any) -> Any:
        weights = back(rest.at[kept].set(active))
        return training_loss(dataset, weights, state["examples"])

    assert state["examples"] == 100
    wanted = np.linalg.eigvalsh(np.asarray(jax.hessian(loss)(rest[kept]), float))
    assert len(state["eigenvalues"]) == len(kept)
    np.testing.assert_allclose(state["eigenvalues"], wanted, atol=2e-5 * wanted[-1])
    for end, exact in (("top", wanted[::-1]), ("bottom", wanted)):
        ours = np.sort(state["lanczos"][end])
        ours = ours[::-1] if end == "top" else ours
        np.testing.assert_allclose(ours, exact[: len(ours)], atol=1e-4 * wanted[-1])


def test_arms_of_another_pruned_solution_are_refused(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.check()
    solution = study.solution

    def other(arm: str, moment: str, replicate: int) -> Any:
        # As if the pruning had been run again, with other seeds.
        return solution(arm, moment, 1 if arm == "prune" else replicate)

    monkeypatch.setattr(study, "solution", other)
    with pytest.raises(ValueError, match=r"tiny_lt: began with other masks than"):
        study.check()


def test_a_lost_state_is_named(study: Any) -> None:
    with pytest.raises(ValueError, match=r"tiny_lt: no whole .*move .*tiny_lt away"):
        study.state("lt", "level_00/ticket/nothing")


def test_the_parts_are_kept_and_what_is_damaged_is_computed_again(study: Any) -> None:
    def part(given: Any) -> Any:
        return {"alphas": analysis.of_segment(given, "rigl", "end")["alphas"]}

    found = analysis._once(study, "part", part, ["rigl"], examples=60)
    path = study.folder / "analysis" / "tiny" / "part.json"
    kept = path.read_text()
    of = json.loads(kept)["of"]
    assert (of["version"], of["backend"]) == (analysis.VERSION, jax.default_backend())
    path.write_text(kept[:40])
    assert analysis._once(study, "part", part, ["rigl"], examples=60) == found
    assert path.read_text() == kept
