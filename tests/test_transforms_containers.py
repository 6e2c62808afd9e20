"""Sparse optimizers where others hold their state: nnx.Optimizer, optax.partition."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze
from helpers.campaigns import some

from jaxsparse import masks, prune, transforms, tree

INNER = optax.sgd(0.1, momentum=0.9)
RIGL = transforms.rigl(INNER, sparsity=0.5, update_every=2, end_step=10)
TOP_KAST = transforms.top_kast(INNER, sparsity=0.5, backward_sparsity=0.25)
X = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def network() -> nnx.Module:
    layers = (nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    return nnx.Sequential(*layers)


def loss(model: nnx.Module) -> jax.Array:
    return jnp.mean((model(X) - 1) ** 2)


def live(params: Any, held: Any) -> tuple[int, int]:
    """Counts weights that are not zero, inside the masks and outside."""
    leaves = tree.named_leaves(params)
    inside = outside = 0
    for name, mask in tree.named_leaves(held).items():
        alive, mask = np.asarray(leaves[name]) != 0, np.asarray(mask)
        inside += int((alive & mask).sum())
        outside += int((alive & ~mask).sum())
    return inside, outside


@pytest.mark.parametrize(
    ("make", "tx"),
    [(nnx.Optimizer, RIGL), (nnx.ModelAndOptimizer, TOP_KAST)],
    ids=["rigl", "top_kast"],
)
def test_in_an_optimizer_of_nnx(make: Any, tx: Any) -> None:
    model = network()
    optimizer = make(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    plain = jax.jit(tx.init)(params)
    held = transforms.get_masks(optimizer.opt_state)
    for found, wanted in (
        (masks.apply(held, params), masks.apply(transforms.get_masks(plain), params)),
        (
            transforms.stored_params(params, optimizer.opt_state),
            transforms.stored_params(params, plain),
        ),
        (
            transforms.forward_params(params, optimizer.opt_state),
            transforms.forward_params(params, plain),
        ),
    ):
        assert jax.tree.structure(found) == jax.tree.structure(params)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)

    ticket = prune.prune(params, 0.75)
    before = jax.tree.structure(optimizer.opt_state)
    replaced = transforms.replace_masks(optimizer.opt_state, ticket)
    assert jax.tree.structure(replaced) == before
    new = tree.named_leaves(transforms.get_masks(replaced))
    for name, leaf in tree.named_leaves(ticket).items():
        np.testing.assert_array_equal(new[name], leaf)


def test_an_optimizer_of_nnx_trains_a_ticket() -> None:
    model = network()
    optimizer = nnx.Optimizer(model, transforms.fixed(INNER), wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    ticket = prune.prune(params, 0.75)
    optimizer.opt_state = transforms.replace_masks(optimizer.opt_state, ticket)
    nnx.update(model, transforms.stored_params(params, optimizer.opt_state))

    @nnx.jit
    def step(model: nnx.Module, optimizer: nnx.Optimizer) -> jax.Array:
        found, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return found

    losses = [float(step(model, optimizer)) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert live(nnx.state(model, nnx.Param), ticket) == (5, 0)
    after = transforms.get_masks(optimizer.opt_state)
    assert masks.num_active(after) == 5 and masks.is_nested(after, ticket)


PARAMS = {
    part: {
        "kernel": jnp.asarray(
            np.random.default_rng(i).normal(size=(4, 4)), jnp.float32
        ),
        "bias": jnp.ones(4),
    }
    for i, part in enumerate(("body", "head"))
}
WHERE = {"body": "sparse", "head": "dense"}


def parted(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.partition({"sparse": tx, "dense": optax.sgd(0.1)}, WHERE)


def masked(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.masked(tx, {part: name == "sparse" for part, name in WHERE.items()})


def by_leaf(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.masked(tx, jax.tree.map(lambda leaf: leaf.ndim > 1, PARAMS))


HALF = jnp.asarray(np.arange(16).reshape(4, 4) % 2 == 0)
WHOLE = {part: {"kernel": HALF, "bias": None} for part in ("body", "head")}
TICKETS = {
    "whole": WHOLE,
    "part": {"body": WHOLE["body"]},
    "frozen": freeze(WHOLE),
}


@pytest.mark.parametrize(
    ("hold", "tx"), [(parted, RIGL), (masked, TOP_KAST)], ids=["rigl", "top_kast"]
)
def test_in_a_part_of_the_network(hold: Any, tx: Any) -> None:
    state = jax.jit(hold(tx).init)(PARAMS)
    alone = jax.jit(tx.init)({"body": PARAMS["body"]})
    held = transforms.get_masks(state)
    assert masks.layer_counts(held) == masks.layer_counts(transforms.get_masks(alone))
    body = transforms.get_masks(alone)["body"]["kernel"]
    for function in (transforms.stored_params, transforms.forward_params):
        found = function(PARAMS, state)
        wanted = function({"body": PARAMS["body"]}, alone) | {"head": PARAMS["head"]}
        assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    found = masks.apply(held, PARAMS)
    np.testing.assert_array_equal(np.asarray(found["body"]["kernel"]) != 0, body)
    assert found["head"] == PARAMS["head"]

    for ticket in TICKETS.values():
        new = transforms.replace_masks(state, ticket)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        got = transforms.get_masks(new)["body"]["kernel"]
        np.testing.assert_array_equal(got, HALF)
    with pytest.raises(
        ValueError,
        match="masks: expected all leaves of the optimizer.*got no leaf body/kernel",
    ):
        transforms.replace_masks(state, {"head": TICKETS["whole"]["head"]})


@pytest.mark.parametrize("hold", [parted, masked, by_leaf])
def test_a_part_keeps_its_zeros_while_the_rest_is_trained(hold: Any) -> None:
    tx = hold(transforms.fixed(INNER))
    state = transforms.replace_masks(tx.init(PARAMS), TICKETS["whole"])
    params = transforms.stored_params(PARAMS, state)
    grads, update = jax.tree.map(np.ones_like, params), jax.jit(tx.update)
    for _ in range(2):
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    held = transforms.get_masks(state)
    kept = 16 if hold is by_leaf else 8
    assert masks.num_active(held) == kept and live(params, held) == (kept, 0)
    assert (params["head"]["bias"] != PARAMS["head"]["bias"]).all()


@pytest.mark.parametrize("tx", some([RIGL, TOP_KAST], always=[RIGL]))
def test_gradients_of_other_node_types_fit_or_are_named(tx: Any) -> None:
    state = jax.jit(tx.init)(PARAMS)
    grads = jax.tree.map(jnp.ones_like, PARAMS)

    def step(grads: Any, growth: Any = None) -> Any:
        return tx.update(grads, state, PARAMS, growth_grads=growth)

    # The programs are equal, so that equal are their results; one of them is run.
    given = ((grads,), (freeze(grads),), (grads, freeze(grads)))
    traced = [jax.jit(step).trace(*each) for each in given]
    updates, after = traced[0].lower().compile()(grads)
    for each in traced[1:]:
        assert each.out_info == traced[0].out_info
    assert str(traced[1].jaxpr) == str(traced[0].jaxpr)
    new = transforms.apply_updates(PARAMS, freeze(updates), after)
    wanted = transforms.apply_updates(PARAMS, updates, after)
    jax.tree.map(np.testing.assert_array_equal, new, wanted)
    first = tree.names(PARAMS)[0]
    with pytest.raises(ValueError, match="grads: expected a gradient for body/ker"):
        step({"other": jnp.ones(3)})
    turned = jax.tree.map(lambda leaf: jnp.ones((*leaf.shape, 2)), grads)
    with pytest.raises(ValueError, match=f"grads: {first}: expected shape"):
        step(turned)
