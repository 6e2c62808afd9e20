"""Weights that are functions of the trained parameters, against the chain rule."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsparse import transforms as t

PARAMS = {"a": {"kernel": jnp.arange(-6.0, 6.0).reshape(3, 4) / 4, "bias": jnp.ones(4)}}
TARGET = np.linspace(-2, 2, 12).reshape(3, 4)
MASK = np.arange(12).reshape(3, 4) % 3 > 0
RATE, STEPS = 0.05, 5


def steps(tx: Any, params: Any, count: int = STEPS) -> list[tuple[Any, Any]]:
    """Descends the squared distance to a target; parameters and states of all steps."""

    def loss(params: Any) -> Any:
        squares = jnp.sum((params["a"]["kernel"] - TARGET) ** 2)
        return (squares + jnp.sum(params["a"]["bias"] ** 2)) / 2

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    found = [(params, jax.jit(tx.init)(params))]
    for _ in range(count):
        found.append(step(*found[-1]))
    return found


def kernels(found: list[tuple[Any, Any]]) -> list[np.ndarray]:
    return [np.asarray(params["a"]["kernel"]) for params, _ in found]


def near(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    np.testing.assert_allclose(np.stack(found), np.stack(wanted), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("power", [1.0, 1.5, 3.0])
def test_powerpropagation_is_descent_in_the_roots(power: float) -> None:
    tx = t.reparameterize(optax.sgd(RATE), t.powerpropagation(power))
    found = steps(tx, PARAMS)
    weight = np.asarray(PARAMS["a"]["kernel"], np.float64)
    root, wanted = np.sign(weight) * np.abs(weight) ** (1 / power), [weight]
    for _ in range(STEPS):
        slope = power * np.abs(root) ** (power - 1)
        root = root - RATE * slope * (wanted[-1] - TARGET)
        wanted.append(np.sign(root) * np.abs(root) ** power)
    near(kernels(found), wanted)
    # A weight of zero stays zero, but for the identity.
    assert (wanted[-1][weight == 0] == 0).all() == (power > 1)
    assert all((kernel[1, 2] == 0) == (power > 1) for kernel in kernels(found)[1:])
    biases = [float(params["a"]["bias"][0]) for params, _ in found]
    np.testing.assert_allclose(biases, (1 - RATE) ** np.arange(STEPS + 1), rtol=1e-6)


def test_sign_in_is_descent_in_both_factors() -> None:
    rep = t.sign_in(0.5, rescale_every=2, rescale_until=3, decay=lambda step: 0.1)
    found = steps(t.reparameterize(optax.sgd(RATE), rep), PARAMS)

    def balance(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        m = np.sqrt((0.5 + np.sqrt(0.25 + 4 * weight**2)) / 2)
        np.testing.assert_allclose(m**2 - (weight / m) ** 2, 0.5, atol=1e-12)
        return m, weight / m

    m, w = balance(np.asarray(PARAMS["a"]["kernel"], np.float64))
    wanted = [m * w]
    for update in range(STEPS):
        grad = m * w - TARGET
        m, w = m - RATE * (grad * w + 0.1 * m), w - RATE * (grad * m + 0.1 * w)
        if update + 1 == 2:
            m, w = balance(m * w)
        wanted.append(m * w)
    near(kernels(found), wanted)
    state = found[-1][1]
    near([np.asarray(state.trained["m"]["a"]["kernel"])], [m])
    assert state.trained["m"]["a"]["bias"] is None
    assert int(state.step) == STEPS


def test_signs_flip_under_fixed_masks_and_zeros_stay() -> None:
    inner = t.reparameterize(optax.sgd(0.2), t.sign_in())
    masks = {"a": {"kernel": jnp.asarray(MASK), "bias": None}}
    start = {"a": PARAMS["a"] | {"kernel": jnp.asarray(np.where(MASK, -TARGET, 0))}}
    end = kernels(steps(t.fixed(inner, masks=masks), start, 60))[-1]
    assert (end[~MASK] == 0).all()
    np.testing.assert_allclose(end[MASK], TARGET[MASK], atol=0.01)


def test_grown_weights_start_from_their_initial_parts() -> None:
    """State outside the masks is that of weights of zero, and of a fresh optimizer."""
    inner = t.reparameterize(optax.sgd(RATE, momentum=0.9), t.sign_in(4.0))
    tx = t.fixed(inner, masks={"a": {"kernel": jnp.asarray(MASK), "bias": None}})
    params, state = steps(tx, PARAMS)[-1]
    other = {"a": {"kernel": jnp.asarray(~MASK), "bias": None}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, state = tx.update(zeros, t.replace_masks(state, other), params)
    params = optax.apply_updates(params, updates)
    assert not params["a"]["kernel"].any()  # nothing has grown by a gradient of zero
    parts = state.inner_state.trained
    assert (parts["m"]["a"]["kernel"] == 2).all()  # the square root of 4
    assert not parts["w"]["a"]["kernel"].any()
    trace = state.inner_state.inner_state[0].trace
    assert not any(trace[name]["a"]["kernel"].any() for name in ("m", "w"))
    assert trace["others"]["a"]["bias"].any()


def test_frozen_parts_and_single_leaves() -> None:
    """Leaves have reparameterizations of their own, or none; adjustments are kept."""
    scaled = t.Reparameterization(
        init=lambda weight: {"scale": jnp.ones(()), "pattern": weight},
        forward=lambda parts, step: parts["scale"] * parts["pattern"],
        frozen=("pattern",),
        adjust=lambda parts, step: parts | {"scale": jnp.minimum(parts["scale"], 1)},
    )
    tx = t.reparameterize(optax.adam(RATE), lambda params: {"a/kernel": scaled})
    found = steps(tx, PARAMS)
    start = np.asarray(PARAMS["a"]["kernel"])
    for kernel, (_, state) in zip(kernels(found), found, strict=True):
        scale = float(state.trained["scale"]["a"]["kernel"])
        assert scale <= 1
        np.testing.assert_allclose(kernel, scale * start, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(state.frozen["pattern"]["a"]["kernel"], start)
    assert t.reparameterize(optax.sgd(1.0), scaled).init(PARAMS).trained.keys() == {
        "scale"
    }


def test_a_custom_gradient_replaces_that_of_the_weights() -> None:
    """Straight through the sign: trained parameters move as if they were weights."""

    def signs(parts: Any, step: Any) -> Any:
        stored = parts["stored"]
        return stored + jax.lax.stop_gradient(jnp.sign(stored) - stored)

    rep = t.Reparameterization(init=lambda weight: {"stored": weight}, forward=signs)
    found = steps(t.reparameterize(optax.sgd(RATE), rep), PARAMS, 3)
    stored = np.asarray(PARAMS["a"]["kernel"], np.float64)
    weight = stored
    for kernel in kernels(found)[1:]:
        stored = stored - RATE * (weight - TARGET)
        weight = np.sign(stored)
        np.testing.assert_array_equal(kernel, weight)


WRONG = {
    "shape": (
        t.Reparameterization(lambda w: {"x": w}, lambda parts, step: parts["x"][0]),
        "a/kernel: expected weights of shape .*got shape",
    ),
    "name of a part": (
        t.Reparameterization(
            lambda w: {"others": w}, lambda parts, step: parts["others"]
        ),
        "called 'others'",
    ),
    "frozen part": (
        t.Reparameterization(
            lambda w: {"x": w}, lambda parts, step: parts["x"], frozen=("y",)
        ),
        r"a/kernel: expected `frozen` .*\['x'\], got \('y',\)",
    ),
    "no dict": (
        t.Reparameterization(lambda w: w, lambda parts, step: parts),
        "a/kernel: expected a dict .*from `init`",
    ),
    "penalty": (
        t.Reparameterization(
            lambda w: {"x": w},
            lambda parts, step: parts["x"],
            penalty=lambda parts, step: parts["x"],
        ),
        r"a/kernel: expected a scalar from `penalty`, got shape \(3, 4\)",
    ),
    "adjusted": (
        t.Reparameterization(
            lambda w: {"x": w},
            lambda parts, step: parts["x"],
            adjust=lambda parts, step: {"z": parts["x"]},
        ),
        "a/kernel: expected parts .* from `adjust`",
    ),
    "leaf": (lambda params: {"b/kernel": t.sign_in()}, r"names of leaves.*'b/kernel'"),
}


@pytest.mark.parametrize(("rep", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_refused(rep: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        t.reparameterize(optax.sgd(RATE), rep).init(PARAMS)


@pytest.mark.parametrize(
    ("rep", "words"),
    [
        (3, "returns those of leaves by name, got 3"),
        (t.powerpropagation, "powerpropagation raised an error .*`powerpropagation"),
        (lambda params: t.sign_in(), "got Reparameterization from <lambda>"),
        (lambda params: {"a/kernel": 3}, "got int from <lambda>"),
    ],
)
def test_what_is_no_reparameterization_is_refused(rep: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"^reparameterization: expected .*{words}"):
        t.reparameterize(optax.sgd(RATE), rep).init(PARAMS)


def test_parts_that_weights_share_are_refused_where_some_are_not_trained() -> None:
    """Frozen ones are not, and in a method that trains all weights none is."""
    scaled = t.Reparameterization(
        lambda weight: {"scale": jnp.ones(()), "w": weight},
        lambda parts, step: parts["scale"] * parts["w"],
    )
    inner = t.reparameterize(optax.sgd(RATE), scaled)
    words = r"^inner: .*\(3, 4\), .*part 'scale' of shape \(\)"
    with pytest.raises(ValueError, match=words):
        t.top_kast(inner, sparsity=0.75, backward_sparsity=0.5).init(PARAMS)
    t.straight_through(inner, sparsity=0.75).init(PARAMS)
    inner = t.reparameterize(optax.sgd(RATE), scaled._replace(frozen=("scale",)))
    t.top_kast(inner, sparsity=0.75, backward_sparsity=0.5).init(PARAMS)


def test_frozen_parts_outlast_a_removal() -> None:
    """Of a weight that a replacement of masks removes, and another brings back."""
    tx = t.gem_miner(optax.sgd(RATE), sparsity=0.5, end_step=900, update_every=900)
    params, state = PARAMS, tx.init(PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    start = np.asarray(PARAMS["a"]["kernel"])
    for kept in (MASK, np.ones_like(MASK)):
        masks = {"a": {"kernel": jnp.asarray(kept), "bias": None}}
        state = t.replace_masks(state, masks)
        updates, state = tx.update(zeros, state, params)
        params = optax.apply_updates(params, updates)
        frozen = state.inner_state.frozen["initial"]["a"]["kernel"]
        np.testing.assert_array_equal(frozen, start)
        used = np.asarray(state.inner_state.trained["scores"]["a"]["kernel"]) > 0.5
        wanted = np.where(kept & used, start, 0)
        np.testing.assert_array_equal(params["a"]["kernel"], wanted)
    assert (params["a"]["kernel"] != 0)[~MASK].any()


def test_replicates_share_the_step() -> None:
    """Of a projection and a reparameterization too; all else has an axis."""
    for inner in (
        t.fixed(t.reparameterize(optax.sgd(RATE), t.sign_in())),
        t.project(optax.sgd(RATE), lambda params, step: params),
    ):
        axes = t.replicate_axes(inner.init(PARAMS))
        assert (axes.step, axes.inner_state.step) == (None, None)
        assert {*jax.tree.leaves(axes)} == {0}


def test_wrong_arguments_and_wrappers_are_refused() -> None:
    with pytest.raises(ValueError, match="^power: "):
        t.powerpropagation(0.5)
    with pytest.raises(ValueError, match="^inner_scaling: expected"):
        t.sign_in(0.0)
    with pytest.raises(ValueError, match="^rescale_every: "):
        t.sign_in(rescale_every=0)
    with pytest.raises(ValueError, match="^rescale_until: expected 0 to .*got -5"):
        t.sign_in(rescale_every=2, rescale_until=-5)
    with pytest.raises(TypeError, match="^rescale_until: .*got True"):
        t.sign_in(rescale_every=2, rescale_until=True)
    with pytest.raises(ValueError, match="^rescale_until: .*without rescale_every"):
        t.sign_in(rescale_until=3)
    with pytest.raises(ValueError, match="^decay: "):
        t.sign_in(decay=-1.0)
    inner = t.reparameterize(optax.sgd(RATE), t.sign_in())
    with pytest.raises(ValueError, match="^inner: .*reparameterized already"):
        t.edge_popup(inner, sparsity=0.5).init(PARAMS)
    with pytest.raises(ValueError, match=r"^params: .*update\(grads, opt_state, para"):
        inner.update(PARAMS, inner.init(PARAMS))


def test_weights_that_are_not_trained_keep_their_parts() -> None:
    """Top-KAST with powerpropagation, momentum and weight decay, in numpy."""
    inner = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(RATE, momentum=0.9))
    inner = t.reparameterize(inner, t.powerpropagation(2.0))
    tx = t.top_kast(inner, sparsity=0.75, backward_sparsity=0.5)
    weight = np.roll(np.asarray(PARAMS["a"]["kernel"], np.float64), 3)
    start = {"a": PARAMS["a"] | {"kernel": jnp.asarray(weight, jnp.float32)}}
    found = steps(tx, start, 12)  # with the gradient at the dense weights
    root, trace, moved = np.sign(weight) * np.sqrt(np.abs(weight)), 0.0, set()
    for (params, state), (after, _) in zip(found, found[1:], strict=False):
        trained = np.asarray(state.memory["a"]["kernel"])
        moved.add(trained.tobytes())
        grad = np.where(trained, root * np.abs(root) - TARGET, 0)
        trace = 0.9 * trace + 2 * np.abs(root) * grad + 0.1 * root
        root = np.where(trained, root - RATE * trace, root)
        got, old = (np.asarray(each["a"]["kernel"]) for each in (after, params))
        np.testing.assert_allclose(got, root * np.abs(root), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(got[~trained], old[~trained])
    assert len(moved) > 1
