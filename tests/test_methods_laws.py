"""What must hold for every method around every optimizer, after every update."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import methods, spies
from helpers.methods import METHODS, OPTIMIZERS, QUIET, UPDATES
from helpers.optimizers import LATE, PERIODS, SEES_DENSE
from optax import contrib

from jaxsparse import transforms
from jaxsparse.training import checkpoints
from jaxsparse.training.state import TrainState

# Compiles in half the time.
PLAINLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
LATENT = [name for name, method in METHODS.items() if method.latent]
# Pairs that cannot be, and the tests below of what becomes of them.
LIMITS = dict.fromkeys(
    [(name, "lookahead") for name in LATENT],
    "no masks for slow weights: test_latent_methods_refuse_lookahead",
) | dict.fromkeys(
    [(name, "outer partition") for name in LATENT],
    "forward_params: test_latent_methods_within_a_partition",
)
PRODUCT = [
    (method, optimizer)
    for method in METHODS
    for optimizer in OPTIMIZERS
    if (method, optimizer) not in LIMITS
]
# Every twelfth, in diagonals: each method and each optimizer twice or so.
CHOSEN = [
    (method, optimizer)
    for method, optimizer in PRODUCT
    if ([*METHODS].index(method) + OPTIMIZERS.index(optimizer)) % 12 == 0
]
TARGETS = methods.make_params(seed=1)


@pytest.fixture(autouse=True)
def selected_keys(request: pytest.FixtureRequest) -> Any:
    # MultiSteps selects between old and new state, of which the key is the same: the
    # checker takes that for a second use.
    with jax.debug_key_reuse("outer accumulating" not in request.node.name):
        yield


def fast(params: Any) -> Any:
    return params.fast if isinstance(params, optax.LookaheadParams) else params


def loss_of(weights: Any) -> Any:
    apart = jax.tree.map(lambda leaf, target: leaf - target, weights, TARGETS)
    leaves = jax.tree.leaves(apart)
    return sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in leaves)


def make_step(tx: Any, traced: list) -> Any:
    def step(params: Any, state: Any, poison: Any) -> Any:
        traced.append(tx)
        weights = transforms.forward_params(fast(params), state)
        value, grads = jax.value_and_grad(loss_of)(weights)
        grads = jax.tree.map(jnp.add, grads, poison)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, compiler_options=PLAINLY)


def without(params: Any, gone: list[np.ndarray]) -> Any:
    """Parameters with zeros at some weights."""
    if isinstance(params, optax.LookaheadParams):
        return optax.LookaheadParams(*(without(copy, gone) for copy in params))
    return {
        name: layer | {"kernel": jnp.where(out, 0, layer["kernel"])}
        for (name, layer), out in zip(params.items(), gone, strict=True)
    }


def seen(params: Any, optimizer: str) -> Any:
    """Parameters as they come to a method within the wrappers around it."""
    if optimizer != "outer partition":
        return params
    return jax.tree.map(
        lambda leaf: leaf if leaf.ndim > 1 else optax.MaskedNode(), params
    )


def start(tx: Any, optimizer: str, latent: bool) -> tuple[Any, Any]:
    # With bfloat16 weights this one changes its types at first, bare as well.
    params = methods.make_params(dtype="float32" if optimizer in LATE else None)
    if optimizer == "lookahead":
        params = optax.LookaheadParams.init_synced(params)
    state = tx.init(params)
    if latent:
        return params, state
    return without(
        params, [~has for has in kernels(transforms.get_masks(state))]
    ), state


def find(state: Any) -> Any:
    def found(node: Any) -> bool:
        return isinstance(node, transforms.SparsifyState | transforms.LatentState)

    (node,) = filter(found, jax.tree.leaves(state, is_leaf=found))
    return node


def kernels(tree: Any) -> list[np.ndarray]:
    return [np.asarray(layer["kernel"]) for layer in tree.values()]


def plain(leaf: Any) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def through_files(leaf: Any) -> Any:
    """What a leaf is after it was written and read."""
    read = jnp.asarray(plain(leaf).copy())
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(read) if is_key else read


def check_same_bits(got: Any, wanted: Any) -> None:
    for leaf, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert plain(leaf).tobytes() == plain(other).tobytes()


def placed(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (jax.typeof(leaf), leaf.sharding), tree)


def poison(method: str, optimizer: str, update: int, sparse: Any, like: Any) -> Any:
    """NaN and infinities for the weights that are not trained; zeros elsewhere."""
    nothing = jax.tree.map(jnp.zeros_like, like)
    spared = sparse.memory if METHODS[method].latent else sparse.masks
    sees_all = method == "snfs" or optimizer in SEES_DENSE or spared is None
    if sees_all or update not in QUIET:
        return nothing

    def spoil(mask: Any, leaf: Any) -> Any:
        bad = jnp.resize(jnp.array([jnp.nan, jnp.inf], leaf.dtype), leaf.shape)
        return jnp.where(mask, leaf, bad)

    bad = [
        spoil(layer["kernel"], nothing[name]["kernel"])
        for name, layer in spared.items()
    ]
    return {
        name: layer | {"kernel": kernel}
        for (name, layer), kernel in zip(nothing.items(), bad, strict=True)
    }


def check_zeros(params: Any, state: Any, latent: bool) -> None:
    """No bit is set outside the masks, in any copy that is computed with."""
    has = kernels(transforms.get_masks(state))
    copies = [transforms.forward_params(fast(params), state)]
    if not latent:
        both = isinstance(params, optax.LookaheadParams)
        copies += [*params] if both else [params]
    inner = find(state).inner_state.state
    if isinstance(inner, contrib.ScheduleFreeState) and not latent:
        copies.append(contrib.schedule_free_eval_params(inner, params))
    for copy in copies:
        for kernel, mask in zip(kernels(copy), has, strict=True):
            assert not kernel.view(f"uint{8 * kernel.itemsize}")[~mask].any()


def check_counts(method: str, update: int, held: Any) -> None:
    wanted = METHODS[method].counts(update)
    counts = tuple(int(mask.sum()) for mask in kernels(held))
    assert (counts if len(wanted) > 1 else (sum(counts),)) == wanted


def check_memory(
    method: str, optimizer: str, update: int, before: Any, now: Any, params: Any
) -> None:
    """What the optimizer was handed: all it knew, but of weights that left or came."""
    rule = METHODS[method]
    had, has = kernels(before.masks), kernels(now.masks)
    keep = [a & b for a, b in zip(had, has, strict=True)]
    gone = [~mask for mask in has]
    if rule.forgets is not None:
        forgotten = rule.forgets(update, had, kernels(fast(params)))
        keep = [a & ~b for a, b in zip(keep, forgotten, strict=True)]
        if rule.zeroes:
            gone = [a | b for a, b in zip(gone, forgotten, strict=True)]
    changed = any((a != b).any() for a, b in zip(keep, had, strict=True))
    by_shape = {mask.shape: mask for mask in keep}
    spy, inner = now.inner_state, methods.INNER.get(optimizer, methods.INNER["adam"])
    handed = spy.state if update in rule.rests else spy.handed
    first = inner.init(seen(without(params, gone), optimizer))

    def check(path: Any, came: Any, was: Any, new: Any) -> None:
        kept = by_shape.get(came.shape, np.array(True))
        came, was, new = plain(came), plain(was), plain(new)
        wanted = np.where(kept, was, new)
        if not changed:  # whatever it remembers of weights that there are not
            came = np.where(kept, came, wanted)
        np.testing.assert_array_equal(came, wanted, str(path))

    jax.tree_util.tree_map_with_path(check, handed, before.inner_state.state, first)


def check_finite(params: Any, state: Any) -> None:
    for leaf in jax.tree.leaves((params, find(state).inner_state.state)):
        assert not np.isnan(plain(leaf)).any()


def check_laws(method: str, optimizer: str) -> None:
    tx, traced = methods.build(method, optimizer, spies.spied), []
    latent = METHODS[method].latent
    params, state = start(tx, optimizer, latent)
    abstract = jax.eval_shape(tx.init, params)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, abstract)
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    types, step = placed((params, state)), make_step(tx, traced)
    for update in range(UPDATES):
        before, old = find(state), params
        bad = poison(method, optimizer, update, before, fast(params))
        for _ in range(PERIODS.get(optimizer, 1)):
            args = params, state, bad
            params, state = step(*args)
            check_zeros(params, state, latent)
            assert placed((params, state)) == types
        check_counts(method, update, transforms.get_masks(state))
        check_finite(params, state)
        if not latent:
            check_memory(method, optimizer, update, before, find(state), old)
        if update == 5:
            check_same_bits(step(*jax.tree.map(through_files, args)), (params, state))
    assert len(traced) == 1


@pytest.mark.parametrize(("method", "optimizer"), CHOSEN)
def test_laws_hold_after_every_update(method: str, optimizer: str) -> None:
    check_laws(method, optimizer)


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("method", "optimizer"), [pair for pair in PRODUCT if pair not in CHOSEN]
)
def test_laws_hold_for_all_other_pairs(method: str, optimizer: str) -> None:
    check_laws(method, optimizer)


@pytest.mark.parametrize("method", LATENT)
def test_latent_methods_refuse_lookahead(method: str) -> None:
    params = optax.LookaheadParams.init_synced(methods.make_params())
    tx = methods.build(method, "lookahead")
    with pytest.raises(
        ValueError, match="^params: expected plain .*got LookaheadParams"
    ):
        tx.init(params)


@pytest.mark.parametrize("method", LATENT)
def test_latent_methods_within_a_partition(method: str) -> None:
    # The method has no masks of the parameters that others take care of.
    tx, params = methods.build(method, "outer partition"), methods.make_params()
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    check_counts(method, 0, transforms.get_masks(state))
    for held in (params, seen(params, "outer partition")):
        shown = transforms.forward_params(held, state)
        for kernel, has in zip(kernels(shown), kernels(find(state).masks), strict=True):
            assert not kernel[~has].any()


@pytest.mark.parametrize("method", METHODS)
def test_types_settle_where_bfloat16_changes_them(method: str) -> None:
    (name,) = {*OPTIMIZERS} & {*LATE}
    tx, params = methods.build(method, name), methods.make_params(dtype="bfloat16")
    state, types = jax.eval_shape(tx.init, params), []

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(3):
        params, state = jax.eval_shape(step, params, state)
        types.append(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state))
        assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    assert types[1] == types[2]


def test_factored_memory_is_not_reset() -> None:
    inner = methods.INNER["adafactor, factored"]
    params, found = methods.make_params(), []
    for name in ("adafactor", "adafactor, factored"):
        state = jax.eval_shape(methods.INNER[name].init, params)
        shapes = {leaf.shape for leaf in jax.tree.leaves(state)}
        found.append((8,) in shapes)
    assert found == [False, True]
    tx = METHODS["ac_dc"].make(inner)  # which resets all there is at update 3
    params, state = start(tx, "adafactor, factored", latent=False)
    rows = []
    for _ in range(4):
        updates, state = jax.jit(tx.update)(params, state, params)
        params = optax.apply_updates(params, updates)
        factored = optax.tree.get_all_with_path(find(state).inner_state, "v_row")
        rows.append([np.asarray(tree["first"]["kernel"]) for _, tree in factored])
    assert rows[3][0].all() and rows[3][0].shape == (8,)


@pytest.mark.parametrize("method", METHODS)
def test_extra_arguments_reach_the_optimizer(method: str) -> None:
    tx, params = methods.build(method, "plateau"), methods.make_params()
    state = tx.init(params)
    for update in range(2):  # of which the second changes masks
        value = jnp.float32(5 - update)
        _, state = tx.update(params, state, params, value=value)
        (best,) = optax.tree.get_all_with_path(state, "best_value")
        rested = update in METHODS[method].rests
        assert best[1] == (5 if rested else value)


STATES = ("fixed", "rigl", "mest soft_bound", "snfs", "straight_through", "top_kast")


@pytest.mark.parametrize("method", STATES)
def test_checkpoints_hold_all_there_is(method: str, tmp_path: Path) -> None:
    tx = methods.build(method, "clipped", spies.spied)
    step = make_step(tx, [])
    params, opt_state = start(tx, "clipped", METHODS[method].latent)
    nothing = jax.tree.map(jnp.zeros_like, params)
    like = TrainState(jnp.int32(0), params, {}, opt_state)
    for _ in range(5):
        params, opt_state = step(params, opt_state, nothing)
    state = TrainState(jnp.int32(5), params, {}, opt_state)
    checkpoints.save(tmp_path, "here", state)
    saved = checkpoints.load(tmp_path, "here", like)
    assert saved is not None
    check_same_bits(saved.state, state)
    for _ in range(6):
        params, opt_state = step(params, opt_state, nothing)
    again = saved.state.params, saved.state.opt_state
    for _ in range(6):
        again = step(*again, nothing)
    check_same_bits(again, (params, opt_state))
