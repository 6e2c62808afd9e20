"""Methods whose weights are a sparse function of the trained ones, in slow numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.structures import diagonal

from jaxsparse import transforms as t

RATE, STEPS = 0.05, 6
DRAW = np.random.default_rng(0)
SHAPES = {"a": (8, 6), "b": (4, 8)}
PARAMS = {
    name: {
        "kernel": jnp.asarray(DRAW.normal(size=shape), jnp.float32),
        "bias": jnp.ones(shape[1]),
    }
    for name, shape in SHAPES.items()
}
TARGETS = {name: DRAW.normal(size=shape) for name, shape in SHAPES.items()}
Arrays = dict[str, np.ndarray]


def run(tx: Any, steps: int = STEPS) -> list[tuple[Arrays, Arrays, Any]]:
    """Weights of the forward pass, masks and states, before and after each step."""

    def loss(weights: Any) -> Any:
        far = [jnp.sum((weights[n]["kernel"] - TARGETS[n]) ** 2) for n in SHAPES]
        return sum(far) / 2 + sum(jnp.sum(weights[n]["bias"] ** 2) for n in SHAPES) / 2

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        grads = jax.grad(loss)(t.forward_params(params, state))
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state, found = PARAMS, jax.jit(tx.init)(PARAMS), []
    for _ in range(steps + 1):
        weights, masks = t.forward_params(params, state), t.get_masks(state)
        found.append((kernels(weights), kernels(masks), state))
        params, state = step(params, state)
    return found


def kernels(tree: Any) -> Arrays:
    return {name: np.asarray(tree[name]["kernel"]) for name in SHAPES}


def start() -> Arrays:
    return {name: leaf.astype(np.float64) for name, leaf in kernels(PARAMS).items()}


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def near(got: Arrays, wanted: Arrays) -> None:
    for name in SHAPES:
        np.testing.assert_allclose(got[name], wanted[name], rtol=2e-5, atol=2e-6)


def check_masks(weights: Arrays, masks: Arrays) -> None:
    for name in SHAPES:
        np.testing.assert_array_equal(masks[name], weights[name] != 0)


def test_learned_threshold_follows_its_equation() -> None:
    decay, logit = 0.3, dict.fromkeys(SHAPES, -1.0)
    tx = optax.chain(optax.add_decayed_weights(decay), optax.sgd(RATE))
    found = run(t.learned_threshold(tx, threshold_logit=-1.0))
    stored = {n: w + np.sign(w) * sigmoid(-1) for n, w in start().items()}
    for weights, masks, _ in found:
        wanted = {}
        for n in SHAPES:
            threshold = sigmoid(logit[n])
            wanted[n] = np.sign(stored[n]) * np.maximum(
                np.abs(stored[n]) - threshold, 0
            )
            grad = np.where(wanted[n] != 0, wanted[n] - TARGETS[n], 0)
            pulled = -(np.sign(stored[n]) * grad).sum() * threshold * (1 - threshold)
            logit[n] -= RATE * (pulled + decay * logit[n])
            stored[n] = stored[n] - RATE * (grad + decay * stored[n])
        near(weights, wanted)
        check_masks(weights, masks)
    sizes = [sum(int(mask.sum()) for mask in masks.values()) for _, masks, _ in found]
    assert sizes[0] == 80 > sizes[-1] > 0


def test_continuous_sparsification_hardens() -> None:
    end, logit0, penalty = 4, -0.02, 0.01
    tx = t.continuous_sparsification(
        *(optax.sgd(RATE),),
        end_step=end,
        mask_logit=logit0,
        mask_penalty=penalty,
        final_temperature=50.0,
    )
    stored, scale = start(), 1 / sigmoid(logit0)
    logits = {n: np.full(shape, logit0) for n, shape in SHAPES.items()}
    for step, (weights, masks, _) in enumerate(run(tx)):
        wanted = {}
        for n in SHAPES:
            beta = 50.0 ** (step / end)
            soft = sigmoid(beta * logits[n])
            mask = scale * ((logits[n] > 0) if step >= end else soft)
            slope = 0 if step >= end else scale * beta * soft * (1 - soft)
            wanted[n] = stored[n] * mask
            grad = wanted[n] - TARGETS[n]
            logits[n] = logits[n] - RATE * slope * (stored[n] * grad + penalty)
            stored[n] = stored[n] - RATE * grad * mask
        near(weights, wanted)
        check_masks(weights, masks)
        total = sum(int(mask.sum()) for mask in masks.values())
        assert (total == 80) == (step < end)
        assert total > 0


def diagonal_of(name: str) -> np.ndarray:
    """The number of the wrapped diagonal that each weight is on."""
    return diagonal(*np.indices(SHAPES[name]), *SHAPES[name])


def test_dynadiag_trains_which_diagonals_are_kept() -> None:
    """Both kernels have 8 diagonals, of which 3 remain; momenta do not change them."""
    end, keep, rate = 4, 3, 0.5
    tx = t.dynadiag(
        optax.partition(
            {"slow": optax.sgd(RATE), "fast": optax.sgd(rate, momentum=0.9)},
            lambda parts: {
                name: jax.tree.map(
                    lambda _, name=name: "fast" if name == "importance" else "slow",
                    part,
                )
                for name, part in parts.items()
            },
        ),
        sparsity=0.6,
        end_step=end,
        start_temperature=2.0,
        end_temperature=0.5,
    )
    stored, on = start(), {n: diagonal_of(n) for n in SHAPES}
    importance = {n: np.full(8, 1 / 8) for n in SHAPES}
    trace = {n: np.zeros(8) for n in SHAPES}
    order: dict[str, np.ndarray] = {}
    reordered = 0
    for step, (weights, masks, _) in enumerate(run(tx, 9)):
        wanted = {}
        temperature = 0.5 + 0.75 * (1 + np.cos(np.pi * min(step / end, 1)))
        for n in SHAPES:
            powers = np.exp(importance[n] / temperature)
            shares = powers / powers.sum()
            soft = np.minimum(keep * shares, 1)
            if step <= end:
                order[n] = np.argsort(-importance[n])[:keep]
            best = np.argsort(-importance[n])[:keep]
            reordered += {*best} != {*order[n]}
            factor = np.isin(np.arange(8), order[n]) if step >= end else soft
            # The first gradient is that at the initial weights themselves.
            wanted[n] = stored[n] * (factor[on[n]] if step else 1)
            grad = wanted[n] - TARGETS[n]
            sums = [(stored[n] * grad)[on[n] == d].sum() for d in range(8)]
            inner = np.where(keep * shares < 1, sums, 0) * keep
            slope = shares * (inner - (shares * inner).sum()) / temperature
            trace[n] = 0.9 * trace[n] + (slope if step < end else 0)
            importance[n] = importance[n] - rate * trace[n]
            stored[n] = stored[n] - RATE * grad * factor[on[n]]
        near(weights, wanted)
        check_masks(weights, masks)
        total = sum(int(mask.sum()) for mask in masks.values())
        assert total == (80 if step < end else 3 * 6 + 3 * 4)
    assert reordered  # by momenta, after the diagonals were chosen


def test_continuous_sparsification_at_the_lowest_logit() -> None:
    """The scale is near the largest number of float32, and weights are the initial."""
    tx = t.continuous_sparsification(
        optax.sgd(RATE), end_step=4, mask_logit=-80.0, final_temperature=1.0
    )
    state = tx.init(PARAMS)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, PARAMS), state, PARAMS)
    for moved in kernels(updates).values():
        np.testing.assert_allclose(moved, 0, atol=1e-5)


def largest(sizes: np.ndarray, count: int) -> np.ndarray:
    return sizes >= np.sort(sizes, axis=None)[-count]


@pytest.mark.parametrize("others", [False, True])
def test_edge_popup_trains_scores_only(others: bool) -> None:
    tx = t.edge_popup(optax.sgd(RATE), sparsity=0.75, train_others=others)
    found, initial = run(tx), kernels(PARAMS)
    scores = kernels(found[0][2].inner_state.trained["scores"])
    for n, (inputs, _) in SHAPES.items():
        assert 0.5 < np.abs(scores[n]).max() * np.sqrt(inputs) <= 1
    moved = 0
    for weights, masks, state in found:
        for n in SHAPES:
            mask = largest(np.abs(scores[n]), scores[n].size // 4)
            np.testing.assert_array_equal(masks[n], mask)
            np.testing.assert_array_equal(weights[n], np.where(mask, initial[n], 0))
            moved += int((mask != found[0][1][n]).sum())
            grad = weights[n] - TARGETS[n]
            scores[n] = scores[n] - RATE * np.sign(scores[n]) * initial[n] * grad
        assert [t.get_masks(state)[n]["bias"] for n in SHAPES] == [None, None]
    assert moved
    # Biases of one are drawn to zero, if they are trained.
    params, state = PARAMS, tx.init(PARAMS)
    updates, _ = tx.update(PARAMS, state, params)
    assert bool(np.asarray(updates["a"]["bias"]).any()) == others
    other = t.edge_popup(optax.sgd(RATE), sparsity=0.75, key=jax.random.key(1))
    assert (kernels(t.get_masks(other.init(PARAMS)))["a"] != found[0][1]["a"]).any()


def test_gem_miner_removes_the_lowest_scores_for_good() -> None:
    tx = t.gem_miner(
        optax.sgd(RATE), sparsity=0.75, end_step=6, update_every=2, score_penalty=0.01
    )
    found, initial = run(tx, 8), kernels(PARAMS)
    scores = kernels(found[0][2].inner_state.trained["scores"])
    alive = {n: np.ones(shape, bool) for n, shape in SHAPES.items()}
    counts = {2: 50, 4: 32, 6: 20}  # of 80, by 4 ** (-k / 3)
    for update, ((weights, _, _), (_, masks, _)) in enumerate(
        zip(found, found[1:], strict=False)
    ):
        if update in counts:
            every = np.concatenate(
                [np.where(alive[n], scores[n], -1) for n in SHAPES], None
            )
            cut = np.sort(every)[-counts[update]]
            alive = {n: alive[n] & (scores[n] >= cut) for n in SHAPES}
        for n in SHAPES:
            np.testing.assert_array_equal(masks[n], alive[n])
            # The gradient is that at the weights before a removal.
            grad = np.where(alive[n], weights[n] - TARGETS[n], 0)
            pulled = initial[n] * grad + 0.02 * scores[n]
            scores[n] = np.clip(scores[n] - np.float32(RATE) * pulled, 0, 1)
            used = np.where(alive[n] & (scores[n] > 0.5), initial[n], 0)
            np.testing.assert_array_equal(found[update + 1][0][n], used)
    assert sum(int(mask.sum()) for mask in alive.values()) == 20


def test_gem_miner_uses_every_weight_of_dense_layers() -> None:
    """At their initial values; the other layer has all of the sparsity."""
    tx = t.gem_miner(
        optax.sgd(RATE),
        sparsity=0.25,
        end_step=4,
        update_every=2,
        layers=t.LayerOptions(dense=("a/*",)),
    )
    for weights, masks, state in run(tx):
        assert masks["a"].all()
        assert state.inner_state.trained["scores"]["a"]["kernel"] is None
        np.testing.assert_array_equal(weights["a"], kernels(PARAMS)["a"])
    assert masks["b"].sum() == 12  # of 32: 60 of all 80 are kept
    with pytest.raises(ValueError, match=r"^dense: .*c/\*"):
        t.gem_miner(
            *(optax.sgd(RATE),),
            sparsity=0.25,
            end_step=4,
            update_every=2,
            layers=t.LayerOptions(dense=("c/*",)),
        ).init(PARAMS)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2)])
def test_s_ste_is_soft_in_groups(n: int, m: int) -> None:
    found, stored, scales = run(t.s_ste(optax.sgd(RATE), n=n, m=m)), start(), {}
    for step, (weights, masks, _) in enumerate(found):
        wanted = {}
        for name, w in stored.items():
            groups = w.T.reshape(w.shape[1], -1, m)  # along the inputs
            cut = np.sort(np.abs(groups), axis=2)[:, :, m - n - 1, None]
            soft = np.sign(groups) * np.maximum(np.abs(groups) - cut, 0)
            assert ((soft != 0).sum(axis=2) == n).all()
            soft = soft.reshape(w.T.shape).T
            scales.setdefault(name, (w * soft).sum() / (soft**2).sum())
            wanted[name] = scales[name] * soft
            np.testing.assert_array_equal(masks[name], soft != 0)
        if step:
            near(weights, wanted)
        else:  # the parameters are those that the loop has
            near(weights, {k: np.where(masks[k], stored[k], 0) for k in SHAPES})
        stored = {k: stored[k] - RATE * (weights[k] - TARGETS[k]) for k in SHAPES}


@pytest.mark.parametrize("size", [0.0, 0.5])
def test_s_ste_of_equal_magnitudes_starts_at_zero_and_leaves_it(size: float) -> None:
    """Without a nearest scale, the scale is 1."""
    tx, layer = t.s_ste(optax.sgd(RATE)), {"kernel": jnp.full((4, 4), size)}
    grads = {"kernel": -jnp.arange(1.0, 17.0).reshape(4, 4)}
    params, state = layer, tx.init(layer)
    assert not t.forward_params(params, state)["kernel"].any()
    assert state.inner_state.frozen["scale"]["kernel"] == 1
    updates, state = tx.update(grads, state, params)
    weights = optax.apply_updates(params, updates)["kernel"]
    # The gradient increases along the inputs by 4; the second is the threshold.
    wanted = RATE * np.array([[0], [0], [4], [8]]) * np.ones((1, 4))
    np.testing.assert_allclose(weights, wanted, atol=1e-6)


def test_dense_layers_are_trained_directly() -> None:
    layers = t.LayerOptions(dense=("b/*",))
    for tx in (
        t.learned_threshold(optax.sgd(RATE), threshold_logit=0.0, layers=layers),
        t.s_ste(optax.sgd(RATE), layers=layers),
    ):
        weights, masks, _ = run(tx, 1)[-1]
        assert masks["b"].all()
        assert not masks["a"].all()
        plain = start()["b"] - RATE * (start()["b"] - TARGETS["b"])
        np.testing.assert_allclose(weights["b"], plain, rtol=1e-5, atol=1e-6)


def test_a_single_reparameterization_is_for_all_prunable_leaves() -> None:
    def forward(parts: Any, step: Any) -> Any:
        rounded = jnp.round(parts["stored"])
        return t.pass_gradient(rounded, parts["stored"])

    rounding = t.Reparameterization(lambda w: {"stored": w}, forward)
    tx = t.self_sparse(optax.sgd(RATE), rounding)
    stored = start()
    for step, (weights, masks, _) in enumerate(run(tx, 3)):
        for n in SHAPES:
            np.testing.assert_array_equal(masks[n], np.round(stored[n]) != 0)
            if step:
                np.testing.assert_array_equal(weights[n], np.round(stored[n]))
            stored[n] = stored[n] - RATE * (weights[n] - TARGETS[n])


WRONG = {
    "threshold_logit": lambda: t.learned_threshold(
        optax.sgd(1.0), threshold_logit=float("nan")
    ),
    "end_step": lambda: t.continuous_sparsification(optax.sgd(1.0), end_step=0),
    "mask_logit": lambda: t.continuous_sparsification(
        optax.sgd(1.0), end_step=9, mask_logit=-81.0
    ),
    "mask_penalty": lambda: t.continuous_sparsification(
        optax.sgd(1.0), end_step=9, mask_penalty=-1.0
    ),
    "start_temperature: expected at least end_temperature=0.5.*got 0.4": lambda: (
        t.dynadiag(
            *(optax.sgd(1.0),),
            sparsity=0.5,
            end_step=9,
            start_temperature=0.4,
            end_temperature=0.5,
        )
    ),
    "end_temperature": lambda: t.dynadiag(
        optax.sgd(1.0), sparsity=0.5, end_step=9, end_temperature=0.0
    ),
    "distribution: expected .*dynadiag, got 'global'": lambda: t.dynadiag(
        *(optax.sgd(1.0),),
        sparsity=0.5,
        end_step=9,
        layers=t.LayerOptions(distribution="global"),
    ),
    "distribution": lambda: t.edge_popup(
        optax.sgd(1.0), sparsity=0.5, layers=t.LayerOptions(distribution="global")
    ),
    "sparsity": lambda: t.edge_popup(optax.sgd(1.0), sparsity=1.5),
    "end_step: expected at least update_every=10": lambda: t.gem_miner(
        optax.sgd(1.0), sparsity=0.5, end_step=3, update_every=10
    ),
    "score_penalty": lambda: t.gem_miner(
        optax.sgd(1.0), sparsity=0.5, end_step=9, update_every=2, score_penalty=-1.0
    ),
    "n": lambda: t.s_ste(optax.sgd(1.0), n=4, m=4),
}


@pytest.mark.parametrize("field", WRONG)
def test_wrong_arguments_are_named(field: str) -> None:
    words = field if ":" in field else f"{field}: expected"
    with pytest.raises(ValueError, match=f"^{words}"):
        WRONG[field]()
