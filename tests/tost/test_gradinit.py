"""Rescaled initialization: against a loop in numpy, and the laws it must keep."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse.tost import gradinit
from jaxsparse.tost.gradinit_options import GradInitOptions

SIZES = (6, 5, 3)
STEPS = 12


@functools.cache
def make_problem(seed: int = 0, *, sparse: bool = True) -> tuple:
    """An MLP of two layers with biases, of which one is zero; masks; and batches."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    params = {
        "first": {"kernel": normal(6, 5), "bias": np.zeros(5, np.float32)},
        "second": {"kernel": normal(5, 3), "bias": normal(3)},
    }
    masks = {name: {"kernel": None, "bias": None} for name in params}
    if sparse:
        for name, layer in params.items():
            masks[name]["kernel"] = rng.random(layer["kernel"].shape) < 0.5
    x = normal(STEPS, 2, 8, 6)
    y = rng.integers(0, 3, (STEPS, 2, 8)).astype(np.int32)
    # Masks and parameters are arrays of JAX, as the function's types say.
    params, masks = jax.tree.map(jnp.asarray, (params, masks))

    def batches(step: Any) -> tuple:
        # Of a number that the host counts, by numpy, which compiles nothing.
        on_host = isinstance(step, int)
        of = (x, y) if on_host else (jnp.asarray(x), jnp.asarray(y))
        return tuple(tuple(part[step, i] for part in of) for i in (0, 1))

    return params, masks, batches


def loss(params: dict, batch: tuple) -> jax.Array:
    x, y = batch
    for name in ("first", "second"):
        x = x @ params[name]["kernel"] + params[name]["bias"][None, :]
        if name == "first":
            x = jax.nn.softplus(x)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1))


def norm(params: dict, batch: tuple, hold: dict) -> jax.Array:
    grads = jax.grad(loss)(params, batch)
    grads = jax.tree.map(lambda g, k: g * jnp.broadcast_to(k, g.shape), grads, hold)
    return jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))


# The programs of `slowly`, for all of its cases.
loss_and_slope = jax.jit(jax.value_and_grad(loss))
norm_slope = jax.jit(jax.grad(norm))


def slowly(params: dict, masks: dict, batches: object, s: GradInitOptions) -> tuple:
    """The published rule, one tensor and one number at a time."""
    names = [(layer, leaf) for layer in params for leaf in params[layer]]
    start = {n: np.asarray(params[n[0]][n[1]], np.float64) for n in names}
    kept = {n: masks[n[0]][n[1]] for n in names}
    kept = {n: 1.0 if m is None else np.asarray(m, np.float64) for n, m in kept.items()}
    start = {n: start[n] * kept[n] for n in names}
    alpha = dict.fromkeys(names, 1.0)
    moments = [{n: 0.0 for n in names} for _ in range(2)]
    second, counts = {n: 0.0 for n in names}, [0, 0]
    objective, constrained = [], []

    def nest(flat: dict) -> dict:
        tree: dict = {}
        for (layer, leaf), value in flat.items():
            tree.setdefault(layer, {})[leaf] = np.asarray(value, np.float32)
        return tree

    def flatten(tree: dict) -> dict:
        return {n: np.asarray(tree[n[0]][n[1]], np.float64) for n in names}

    def hide(grads: dict) -> dict:
        return {n: g * kept[n] for n, g in grads.items()} if s.mask_gradients else grads

    for step in range(s.steps):
        one, other = batches(step)
        weights = {n: alpha[n] * start[n] for n in names}
        grads = hide(flatten(loss_and_slope(nest(weights), one)[1]))
        length = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        too_long = bool(length > s.max_grad_norm)
        if too_long:
            shown = {n: kept[n] if s.mask_gradients else 1.0 for n in names}
            hold = nest({n: np.broadcast_to(shown[n], start[n].shape) for n in names})
            value, slope = length, flatten(norm_slope(nest(weights), one, hold))
        else:
            ahead = {n: weights[n] - s.step_size * grads[n] / length for n in names}
            value, slope = loss_and_slope(nest(ahead), other)
            value = float(value) / s.step_size
            slope = {n: g / s.step_size for n, g in flatten(slope).items()}
        counts[too_long] += 1
        for n in names:
            pull = np.clip(np.sum(slope[n] * start[n]), -s.clip, s.clip)
            first = moments[too_long]
            first[n] = 0.9 * first[n] + 0.1 * pull
            second[n] = 0.999 * second[n] + 0.001 * pull**2
            if not start[n].any():
                continue
            mean = first[n] / (1 - 0.9 ** counts[too_long])
            scale = np.sqrt(second[n] / (1 - 0.999 ** sum(counts))) + 1e-8
            least = 0.0 if n[1] == "bias" else s.min_factor
            alpha[n] = max(alpha[n] - s.learning_rate * mean / scale, least)
        objective.append(value)
        constrained.append(too_long)
    return alpha, objective, constrained


def rescale(
    params: dict, masks: dict, batches: object, options: GradInitOptions
) -> gradinit.GradInitResult:
    """Rescales by one program."""
    given = {"masks": masks, "batches": batches, "options": options}
    return jax.jit(lambda params: gradinit.rescale(loss, params, **given))(params)


def first_norm(
    params: dict, masks: dict, batches: object, *, masked: bool = True
) -> float:
    """The length of the gradient with which a problem begins."""
    kept = {name: np.asarray(layer["kernel"]) for name, layer in masks.items()}
    start = {
        name: layer | {"kernel": np.where(kept[name], layer["kernel"], np.float32(0))}
        for name, layer in params.items()
    }
    grads = loss_and_slope(start, batches(0)[0])[1]
    total = 0.0
    for name, layer in grads.items():
        shown = kept[name] if masked else 1.0
        total += np.sum((np.asarray(layer["kernel"], np.float64) * shown) ** 2)
        total += np.sum(np.asarray(layer["bias"], np.float64) ** 2)
    return float(np.sqrt(total))


def test_factors_are_those_of_a_loop() -> None:
    """With both kinds of steps, and the laws that these factors keep."""
    params, masks, batches = make_problem()
    first = {}
    for masked, dispatch in ((True, False), (False, True)):
        longest = first_norm(params, masks, batches, masked=masked) * 0.97
        settings = GradInitOptions(
            STEPS, max_grad_norm=longest, mask_gradients=masked, learning_rate=0.03
        )
        given = (params, masks, batches)
        if dispatch:
            found = gradinit.rescale(loss, *given, options=settings, dispatch=True)
        else:
            found = rescale(*given, settings)
        alpha, objective, constrained = slowly(*given, settings)
        assert found.constrained.tolist() == constrained
        assert 0 < sum(constrained) < STEPS
        np.testing.assert_allclose(found.objective, objective, rtol=2e-4)
        for (layer, leaf), factor in alpha.items():
            np.testing.assert_allclose(found.factors[layer][leaf], factor, rtol=2e-3)
        first[masked] = float(found.objective[0])
        # Directions stay, and what is masked stays zero.
        for layer in params:
            kept = np.asarray(masks[layer]["kernel"])
            new, old = (np.asarray(p[layer]["kernel"]) for p in (found.params, params))
            factor = np.asarray(found.factors[layer]["kernel"])
            assert not new[~kept].any()
            np.testing.assert_array_equal(new, factor * np.where(kept, old, 0))
            assert float(factor) not in (0.0, 1.0)
        # A tensor of zeros has no length to change.
        assert found.factors["first"]["bias"] == 1.0
    # Released code feels weights that are gone.
    assert first[False] > first[True]


@pytest.mark.campaign
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dispatch", [True, False])
@pytest.mark.parametrize("longest", [np.inf, 0.0001])
def test_factors_are_those_of_a_loop_in_the_extremes(
    longest: float, dispatch: bool, masked: bool
) -> None:
    params, masks, batches = make_problem()
    settings = GradInitOptions(
        STEPS, max_grad_norm=longest, mask_gradients=masked, learning_rate=0.03
    )
    found = gradinit.rescale(
        loss, params, masks, batches, options=settings, dispatch=dispatch
    )
    alpha, objective, constrained = slowly(params, masks, batches, settings)
    assert found.constrained.tolist() == constrained
    np.testing.assert_allclose(found.objective, objective, rtol=2e-4)
    for (layer, leaf), factor in alpha.items():
        np.testing.assert_allclose(found.factors[layer][leaf], factor, rtol=2e-3)


def test_the_objective_falls() -> None:
    params, masks, _ = make_problem()
    _, _, batches = make_problem(seed=3)
    same = lambda step: batches(0 * step)  # noqa: E731
    settings = GradInitOptions(100, max_grad_norm=np.inf, learning_rate=0.03)
    found = rescale(params, masks, same, settings)
    assert found.objective[-1] < 0.8 * found.objective[0]
    assert (np.diff(found.objective[:30]) < 0).all()
    long = GradInitOptions(100, max_grad_norm=1e-6, learning_rate=0.03)
    short = rescale(params, masks, same, long)
    assert short.constrained.all()
    assert short.objective[-1] < 0.8 * short.objective[0]


def test_gradients_of_a_network_without_masks_are_not_masked() -> None:
    whole = make_problem(sparse=False)
    alike = [
        rescale(*whole, GradInitOptions(3, mask_gradients=m)) for m in (True, False)
    ]
    np.testing.assert_array_equal(alike[0].objective, alike[1].objective)


def test_factors_stop_at_the_least_and_dead_networks_give_no_infinity() -> None:
    params, masks, batches = make_problem()
    settings = GradInitOptions(STEPS, learning_rate=2.0, min_factor=0.5)

    @jax.jit
    def rescale(params: dict) -> gradinit.GradInitResult:
        return gradinit.rescale(loss, params, masks, batches, options=settings)

    found = rescale(params)
    kernels = [found.factors[layer]["kernel"] for layer in params]
    assert min(float(factor) for factor in kernels) == 0.5
    assert float(found.factors["second"]["bias"]) >= 0.0
    dead = rescale(jax.tree.map(np.zeros_like, params))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(dead))


@pytest.mark.parametrize("dispatch", [False, True])
def test_no_step_changes_nothing(dispatch: bool) -> None:
    params, masks, batches = make_problem(sparse=False)
    found = gradinit.rescale(
        loss, params, masks, batches, options=GradInitOptions(0), dispatch=dispatch
    )
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert found.objective.shape == (0,)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", -1),
        ("learning_rate", 0.0),
        ("step_size", 0.0),
        ("max_grad_norm", float("nan")),
        ("min_factor", 1.5),
        ("clip", 0.0),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"options: expected .*got .*{field}"):
        gradinit.rescale(
            loss, *make_problem(), options=GradInitOptions()._replace(**{field: value})
        )


def test_replicates_are_rescaled_as_each_alone() -> None:
    params, masks, batches = make_problem()
    other = make_problem(seed=5)[0]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, other)
    settings = GradInitOptions(4, learning_rate=0.1)

    @jax.jit
    def one(weights: dict) -> gradinit.GradInitResult:
        return gradinit.rescale(loss, weights, masks, batches, options=settings)

    together = jax.jit(jax.vmap(one))(both)
    for i, weights in enumerate((params, other)):
        alone = one(weights)
        np.testing.assert_allclose(together.objective[i], alone.objective, rtol=1e-5)


def test_steps_from_the_host_are_compiled_once_for_all_replicates() -> None:
    params, masks, batches = make_problem()
    calls = []

    def counted(weights: dict, batch: tuple) -> jax.Array:
        calls.append(1)
        return loss(weights, batch)

    def numbered(step: int) -> tuple:
        assert isinstance(step, int)
        return batches(step)

    def go(seed: int, longest: float) -> gradinit.GradInitResult:
        return gradinit.rescale(
            counted,
            make_problem(seed)[0],
            masks,
            numbered,
            options=GradInitOptions(STEPS, max_grad_norm=longest, learning_rate=0.03),
            dispatch=True,
        )

    longest = first_norm(*make_problem()) * 0.97
    found = go(0, longest)
    assert 0 < int(found.constrained.sum()) < STEPS
    once = len(calls)
    go(1, longest)
    assert len(calls) == once == 3
