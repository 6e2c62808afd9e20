"""What the study of gradient flow measures, on a tiny one, against plain code."""

import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from experiments.studies.gradient_flow import (
    analysis,
    curvature,
    initialization,
    runs_reader,
    variants,
)
from jaxsparse import factory, transforms
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
VARIANTS = {
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
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Three variants of two seeds on digits, trained for 12 updates."""
    folder = tmp_path_factory.mktemp("study")
    for name, fields in VARIANTS.items():
        workdir, own = folder / f"tiny_{name}", COMMON | fields
        workdir.mkdir()
        c = tiny.config(own)
        (workdir / "config.json").write_text(c.to_json())
        made = factory.make_experiment(c, factory.load_data(c), workdir)
        tiny.run_lib.run(made, tiny.desk(workdir))
    runs = runs_reader.NetworkRuns.__new__(runs_reader.NetworkRuns)
    runs.folder, runs.network, runs.scale = folder, "tiny", "quick"
    runs.data_dir, runs.variants = "", list(VARIANTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.SAVED, "quick", STEPS)
        patch.setitem(analysis.EXAMPLES, "quick", 60)
        patch.setattr(initialization, "FLOW_EXAMPLES", 50)
        yield runs


def forward(dataset: Dataset, params: Any, images: Any) -> tuple[Any, Any, Any]:
    """Inputs, hidden layer and logits in float64, without JAX."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
    x = (np.asarray(images, float) / 255 - dataset.mean[0]) / dataset.std[0]
    x = x.reshape(len(x), -1)
    hidden = np.maximum(x @ p["dense1"]["kernel"] + p["dense1"]["bias"], 0)
    return x, hidden, hidden @ p["head"]["kernel"] + p["head"]["bias"]


def predicted(dataset: Dataset, params: Any, images: Any) -> np.ndarray:
    return np.argmax(forward(dataset, params, images)[2], axis=-1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def training_loss(dataset: Dataset, params: Any, count: int) -> float:
    train = dataset.train
    rows = log_softmax(forward(dataset, params, train.images[:count])[2])
    return float(-np.mean(rows[np.arange(count), np.asarray(train.labels[:count])]))


def grads_of(dataset: Dataset, params: Any, held: Any, count: int = 50) -> Any:
    """Backpropagation through the masked network, written out."""
    params = masked(params, held)
    train = dataset.train
    x, hidden, logits = forward(dataset, params, train.images[:count])
    error = np.exp(log_softmax(logits))
    error[np.arange(count), np.asarray(train.labels[:count])] -= 1
    error /= count
    back = (error @ np.asarray(params["head"]["kernel"], float).T) * (hidden > 0)
    found = {
        "dense1": {"kernel": x.T @ back, "bias": back.sum(axis=0)},
        "head": {"kernel": hidden.T @ error, "bias": error.sum(axis=0)},
    }
    return masked(found, held)


def masked(tree: Any, held: Any) -> Any:
    """Zeroes what the masks, which kernels alone have, leave out."""
    return {
        layer: {
            "kernel": np.where(held[layer]["kernel"], leaves["kernel"], 0),
            "bias": np.asarray(leaves["bias"]),
        }
        for layer, leaves in tree.items()
    }


def solution(runs: Any, variant: str, name: str, r: int) -> tuple[Any, Any]:
    state = runs.state(variant, name)
    held = (state.params, transforms.get_masks(state.opt_state))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[r], held)


def norm(tree: Any) -> float:
    squares = [np.sum(np.square(np.asarray(g, float))) for g in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(squares)))


def test_predictions_are_those_of_the_ends(runs: Any) -> None:
    found, dataset = analysis.of_predictions(runs), runs.run("prune").dataset
    test = dataset.test
    pruned, _ = solution(runs, "prune", variants.END, 0)
    theirs = predicted(dataset, pruned, test.images)
    for variant in VARIANTS:
        ours = []
        for r in range(2):
            params, _ = solution(runs, variant, variants.END, r)
            ours.append(predicted(dataset, params, test.images))
        right = [100 * np.mean(one == test.labels) for one in ours]
        assert found[variant]["accuracy"] == pytest.approx(right)
        apart = [float(np.mean(one != theirs)) for one in ours]
        # The pruned solution is not compared with itself.
        wanted = apart[1:] if variant == "prune" else apart
        assert found[variant]["with_pruned"] == pytest.approx(wanted)
        assert found[variant]["disagreement"][0] == pytest.approx(
            np.mean(ours[0] != ours[1])
        )
    assert found["pruned"] == {"accuracy": found["prune"]["accuracy"][:1]}
    assert str(analysis.of_predictions(runs)) == str(found)  # NaN for one pair


def test_changes_are_of_one_state_under_two_masks(runs: Any) -> None:
    found, dataset = analysis.of_gradients(runs), runs.run("prune").dataset
    assert found["changes"].keys() == {"rigl"}
    change, curve = found["changes"]["rigl"], found["gradient"]["rigl"]
    assert change["steps"] == [5, 10]
    assert curve["steps"] == [0, 5, 10]
    for r in range(2):
        at = saved_state_name(runs_reader.STAGE, 5)
        params, before = solution(runs, "rigl", at, r)
        later = saved_state_name(runs_reader.STAGE, 6)
        _, after = solution(runs, "rigl", later, r)
        pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
        assert sum(np.sum(a) for a, _ in pairs) == sum(np.sum(b) for _, b in pairs)
        assert any(np.any(a != b) for a, b in pairs)
        grads = grads_of(dataset, params, before)
        plain = {
            "before": norm(grads),
            "after": norm(grads_of(dataset, params, after)),
        }
        for moment, wanted in plain.items():
            assert change[moment][r][0] == pytest.approx(wanted, rel=1e-4)
        assert curve["norm"][r][1] == pytest.approx(plain["before"], rel=1e-4)
        wanted = np.mean([norm(layer["kernel"]) for layer in grads.values()])
        assert curve["effective"][r][1] == pytest.approx(float(wanted), rel=1e-4)
        # The learning rate is 0.1 before update 8, and 0.01 from it on.
        wanted = 0.1 * plain["before"] ** 2
        assert curve["decrease"][r][1] == pytest.approx(wanted, rel=1e-4)
        wanted = 0.01 * curve["norm"][r][2] ** 2
        assert curve["decrease"][r][2] == pytest.approx(wanted, rel=1e-4)


def test_starts_are_on_masks_of_their_own(runs: Any) -> None:
    found, dataset = initialization.of_starts(runs), runs.run("prune").dataset
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(
        ("lt", "scratch", "scratch_plus", "liu"), 2
    )
    for r in range(2):
        own, _ = solution(runs, "prune", "init", r)
        _, held = solution(runs, "prune", variants.END, r)
        wanted = norm(grads_of(dataset, own, held))
        assert found["lt"][r] == pytest.approx(wanted, rel=1e-4)
    for name in ("scratch", "scratch_plus", "liu"):
        assert found[name][0] != found[name][1]
        assert found[name] != found["lt"]


def test_interpolations_end_at_the_pruned_solution(runs: Any) -> None:
    found = analysis.of_interpolation(runs, "lt", "end")
    dataset, alphas = runs.run("prune").dataset, found["alphas"]
    pruned, _ = solution(runs, "prune", variants.END, 0)
    assert found["examples"] == 60
    for r in range(2):
        params, _ = solution(runs, "lt", variants.END, r)
        for alpha, weights in ((0.0, params), (1.0, pruned)):
            classes = predicted(dataset, weights, dataset.train.images[:60])
            wanted = 100 * np.mean(classes != dataset.train.labels[:60])
            at = alphas.index(alpha)
            assert found["error"][r][at] == pytest.approx(wanted)
            loss = training_loss(dataset, weights, 60)
            assert found["loss"][r][at] == pytest.approx(loss, rel=1e-4)
    # All tickets start from one place.
    assert len(analysis.of_interpolation(runs, "lt", "start")["error"]) == 1


def test_distances_are_those_of_all_parameters(runs: Any) -> None:
    found = analysis.of_distances(runs)
    assert found["labels"] == [
        "prune end 0",
        *("lt start 0", "lt end 0", "lt end 1"),
        *("rigl start 0", "rigl start 1", "rigl end 0", "rigl end 1"),
    ]
    names = {"start": saved_state_name(runs_reader.STAGE, 0), "end": variants.END}
    places = [label.split() for label in found["labels"]]
    each = [
        solution(runs, variant, names[when], int(r))[0] for variant, when, r in places
    ]
    for i, a in enumerate(each):
        for j, b in enumerate(each):
            apart = norm(jax.tree.map(lambda x, y: x - y, a, b))
            assert found["matrix"][i][j] == pytest.approx(apart, rel=1e-4, abs=1e-6)


def test_curvature_is_taken_around_changes(runs: Any) -> None:
    found = curvature.places(runs, "rigl")
    place = curvature.Place
    around = [place(0, 5, "before"), place(0, 5, "after")]
    later = [place(1, 5, "before"), place(1, 5, "after")]
    assert found == [place(0, 0, ""), *around, place(0, 12, ""), *later]
    assert curvature.places(runs, "lt") == [place(0, s, "") for s in (0, 5, 12)]


def test_spectra_are_those_of_the_plain_hessian(runs: Any) -> None:
    """After a change: the weights from before, under the masks from after."""
    dataset = runs.run("prune").dataset
    at = saved_state_name(runs_reader.STAGE, 5)
    params, before = solution(runs, "rigl", at, 1)
    _, after = solution(runs, "rigl", saved_state_name(runs_reader.STAGE, 6), 1)
    x, _, _ = forward(dataset, params, dataset.train.images[:100])
    x, labels = x.astype(np.float32), np.asarray(dataset.train.labels[:100])
    _, back = jax.flatten_util.ravel_pytree(params)

    def loss(active: Any, rest: Any, kept: Any) -> Any:
        p = back(rest.at[kept].set(active))
        hidden = x @ p["dense1"]["kernel"] + p["dense1"]["bias"][None]
        hidden = jnp.maximum(hidden, 0)
        rows = hidden @ p["head"]["kernel"] + p["head"]["bias"][None]
        rows = jax.nn.log_softmax(rows)
        return -jnp.mean(rows[np.arange(100), labels])

    hessian = jax.jit(jax.hessian(loss))  # one program for both masks
    for moment, held in (("before", before), ("after", after)):
        place = curvature.Place(1, 5, moment)
        state = curvature.spectrum(runs, variant="rigl", place=place)
        weights = masked(params, held)
        flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(weights)])
        there = {
            layer: {
                "kernel": held[layer]["kernel"],
                "bias": np.ones(leaves["bias"].shape),
            }
            for layer, leaves in params.items()
        }
        kept = np.flatnonzero(
            np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(there)])
        )
        assert state["examples"] == 100
        exact = np.asarray(hessian(flat[kept], jnp.asarray(flat), kept), float)
        wanted = np.linalg.eigvalsh(exact)
        assert len(state["eigenvalues"]) == len(kept)
        atol = 2e-5 * wanted[-1]
        np.testing.assert_allclose(state["eigenvalues"], wanted, atol=atol)
        for end, values in (("top", wanted[::-1]), ("bottom", wanted)):
            ours = np.sort(state["lanczos"][end])
            ours = ours[::-1] if end == "top" else ours
            np.testing.assert_allclose(
                ours, values[: len(ours)], atol=1e-4 * wanted[-1]
            )


def test_variants_of_another_pruned_solution_are_refused(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.check()
    solution = runs.solution

    def other(variant: str, moment: str, replicate: int) -> Any:
        # As if the pruning had been run again, with other seeds.
        return solution(variant, moment, 1 if variant == "prune" else replicate)

    monkeypatch.setattr(runs, "solution", other)
    with pytest.raises(ValueError, match=r"tiny_lt: expected the final masks of "):
        runs.check()


def test_a_lost_state_is_named(runs: Any) -> None:
    with pytest.raises(ValueError, match=r"tiny_lt: .*nothing.*move .*tiny_lt away"):
        runs.state("lt", "level_00/ticket/nothing")


def test_the_parts_are_kept_and_what_is_damaged_is_computed_again(runs: Any) -> None:
    def part(given: Any) -> Any:
        assert given is runs
        return {"alphas": [0.0, 1.0]}

    found = analysis._once(runs, "part", part, ["rigl"], examples=60)
    path = runs.folder / "analysis" / "tiny" / "part.json"
    kept = path.read_text()
    of = json.loads(kept)["of"]
    assert (of["version"], of["backend"]) == (analysis.VERSION, jax.default_backend())
    path.write_text(kept[:40])
    assert analysis._once(runs, "part", part, ["rigl"], examples=60) == found
    assert path.read_text() == kept
