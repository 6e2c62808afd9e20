"""What the study of gradient flow measures, on a tiny one, against plain code."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from experiments.studies.gradient_flow import (
    curvature,
    initialization,
    measure,
    variants,
)
from experiments.studies.run_reader import Reader
from experiments.studies.runs import Run
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


class Runs(dict[str, Reader]):
    """Readers by variant."""

    def network(self, variant: str) -> measure.RunFunctions:
        """Makes what the study measures of a variant."""
        reader = self[variant]
        pruned = self["prune"] if "warm_start.run" in VARIANTS[variant] else None
        functions = factory.make_eval_fns(reader.run.config, reader.run.dataset, {})
        return measure.RunFunctions(reader, functions, pruned, has_norm=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Three variants of two seeds on digits, trained for 12 updates."""
    folder = tmp_path_factory.mktemp("study")
    found = Runs()
    for name, fields in VARIANTS.items():
        workdir, own = folder / f"tiny_{name}", COMMON | fields
        workdir.mkdir()
        c = tiny.config(own)
        (workdir / "config.json").write_text(c.to_json())
        made = factory.make_experiment(c, factory.load_data(c), workdir)
        tiny.run_lib.run(made, tiny.desk(workdir))
        found[name] = Reader(Run(f"tiny_{name}", "", {}), folder, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "EXAMPLES", 60)
        patch.setattr(variants, "CURVED", ("tiny",))
        patch.setattr(initialization, "FLOW_EXAMPLES", 50)
        yield found


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


def solution(runs: Runs, variant: str, name: str, r: int) -> tuple[Any, Any]:
    state = runs[variant].state(name)
    held = (state.params, transforms.get_masks(state.opt_state))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[r], held)


def norm(tree: Any) -> float:
    squares = [np.sum(np.square(np.asarray(g, float))) for g in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(squares)))


def test_predictions_are_those_of_the_ends(runs: Runs) -> None:
    dataset = runs["prune"].run.dataset
    test = dataset.test
    pruned, _ = solution(runs, "prune", variants.END, 0)
    theirs = predicted(dataset, pruned, test.images)
    for variant in VARIANTS:
        found = measure.of_predictions(runs.network(variant))
        ours = []
        for r in range(2):
            params, _ = solution(runs, variant, variants.END, r)
            ours.append(predicted(dataset, params, test.images))
        right = [100 * np.mean(one == test.labels) for one in ours]
        assert found["accuracy"] == pytest.approx(right)
        assert found["disagreement"][0] == pytest.approx(np.mean(ours[0] != ours[1]))
        assert "ensemble_without" not in found  # of two seeds
        if variant == "prune":
            assert "with_pruned" not in found
            continue
        apart = [float(np.mean(one != theirs)) for one in ours]
        assert found["with_pruned"] == pytest.approx(apart)


def test_each_seed_is_compared_with_its_own_mask(runs: Runs) -> None:
    network = runs.network("lt")
    assert network.of_pruned([0, 1]) == [0, 0]
    c = network.reader.run.config
    try:
        c.warm_start.replicate = None
        assert network.of_pruned([0, 1]) == [0, 1]
    finally:
        c.warm_start.replicate = 0


def test_changes_are_of_one_state_under_two_masks(runs: Runs) -> None:
    dataset = runs["prune"].run.dataset
    assert measure.of_changes(runs["lt"]) == {}
    change = measure.of_changes(runs["rigl"])
    curve = measure.of_gradient(runs.network("rigl"))
    assert change["steps"] == [5, 10]
    assert curve["steps"] == [0, 5, 10]
    for r in range(2):
        at = saved_state_name("train", 5)
        params, before = solution(runs, "rigl", at, r)
        later = saved_state_name("train", 6)
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


def test_gradients_that_were_not_finite_are_nan(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a run that went on without one of its replicates."""

    def without(row: Any) -> Any:
        if row["kind"] not in ("gradient_norm", "mask_update") or row["replicate"]:
            return row
        return row | {"norm": None, "layers": dict.fromkeys(row["layers"])}

    whole = measure.of_gradient(runs.network("rigl"))
    lost = [without(row) for row in runs["rigl"].rows]
    monkeypatch.setattr(runs["rigl"], "rows", lost)
    found = measure.of_gradient(runs.network("rigl"))
    for name in ("norm", "effective", "decrease"):
        assert np.isnan(found[name][0]).all() and found[name][1] == whole[name][1]
    after = measure.of_changes(runs["rigl"])["after"]
    assert np.isnan(after[0]).all() and np.isfinite(after[1]).all()


def test_starts_are_on_masks_of_their_own(runs: Runs) -> None:
    found = initialization.of_starts(runs.network("prune"))
    dataset = runs["prune"].run.dataset
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


def test_interpolations_end_at_the_pruned_solution(runs: Runs) -> None:
    found = measure.of_interpolation(runs.network("lt"), "end")
    dataset, alphas = runs["prune"].run.dataset, found["alphas"]
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


def test_distances_are_those_of_all_parameters(runs: Runs) -> None:
    network = runs.network("lt")
    found, sketches = measure.of_distances(network), measure.of_sketches(network)
    names = {"start": saved_state_name("train", 0), "end": variants.END}
    pruned, _ = solution(runs, "prune", variants.END, 0)
    theirs = measure.of_sketches(runs.network("prune"))["end"][0]
    for moment, name in names.items():
        for r in range(2):
            params, _ = solution(runs, "lt", name, r)
            apart = norm(jax.tree.map(lambda x, y: x - y, params, pruned))
            assert found[moment][r] == pytest.approx(apart, rel=1e-4, abs=1e-6)
            # Projections keep distances, within a few standard errors of 4 %.
            estimate = np.linalg.norm(np.subtract(sketches[moment][r], theirs))
            assert estimate == pytest.approx(apart, rel=0.15)


def test_curvature_is_taken_around_changes(runs: Runs) -> None:
    found = curvature.places(runs["rigl"])
    place = curvature.Place
    around = [place(0, 5, "before"), place(0, 5, "after")]
    later = [place(1, 5, "before"), place(1, 5, "after")]
    assert found == [place(0, 0, ""), *around, place(0, 12, ""), *later]
    assert curvature.places(runs["lt"]) == [place(0, s, "") for s in (0, 5, 12)]


def test_spectra_are_those_of_the_plain_hessian(runs: Runs) -> None:
    """After a change: the weights from before, under the masks from after."""
    dataset = runs["prune"].run.dataset
    at = saved_state_name("train", 5)
    params, before = solution(runs, "rigl", at, 1)
    _, after = solution(runs, "rigl", saved_state_name("train", 6), 1)
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
        state = curvature.spectrum(runs.network("rigl"), place, compare=True)
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


@pytest.mark.parametrize(
    ("name", "value"), [("LARGEST", 10), ("SLOW", ("tiny",))], ids=["large", "slow"]
)
def test_large_networks_have_the_ends_of_the_spectrum_only(
    name: str, value: Any, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = curvature.Place(0, 5, "before")
    whole = curvature.spectrum(runs.network("rigl"), place)
    assert "lanczos" not in whole
    monkeypatch.setattr(curvature, name, value)
    found = curvature.spectrum(runs.network("rigl"), place)
    assert "eigenvalues" not in found and found["n"] == whole["n"]
    assert max(found["lanczos"]["top"]) == pytest.approx(
        max(whole["eigenvalues"]), rel=1e-3
    )


def test_a_lost_state_is_named(runs: Runs) -> None:
    with pytest.raises(ValueError, match=r"tiny_lt: .*nothing.*move .*tiny_lt away"):
        runs["lt"].state("level_00/ticket/nothing")
