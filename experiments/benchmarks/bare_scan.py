"""Training steps in one scan on one batch, without the trainer and without input."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments.benchmarks import fixtures
from experiments.benchmarks.timing import Job
from jaxsparse import factory, losses, transforms
from jaxsparse.data import augment

RESTART = 50  # calls after which training starts again from its first state


def _unchanged(params: Any, opt_state: Any) -> Any:
    del opt_state
    return params


def scan_job(
    c: ConfigDict,
    tx: Any,
    shape: tuple[int, ...],
    *,
    steps: int,
    after: Callable[[Any, Any], Any] = _unchanged,
    axes_of: Callable[[Any], Any] = transforms.replicate_axes,
) -> Job:
    """Times scans over training steps.

    Args:
      c: names the network, the batch size and the number of vmapped replicates, which
        start from the same weights.
      tx: the optimizer.
      shape: shape [h w c] of an image.
      steps: steps in one scan.
      after: from `(params, opt_state)` to the parameters that are kept after a step.
        Some libraries apply their masks there.
      axes_of: from the abstract state of the optimizer to its axes for `jax.vmap`; used
        if there are several replicates.
    """
    step, (params, batch) = training_step(c, tx, shape, after)
    if c.replicates > 1:
        axes = axes_of(jax.eval_shape(tx.init, params))
        params = jax.tree.map(lambda leaf: jnp.stack([leaf] * c.replicates), params)
        opt_state = jax.vmap(tx.init, out_axes=axes)(params)
        step = jax.vmap(step, in_axes=((0, axes), None), out_axes=(0, axes))
    else:
        opt_state = tx.init(params)

    @functools.partial(jax.jit, donate_argnums=0)
    def train(state: Any, batch: Any) -> Any:
        body = lambda state, _: (step(state, batch), None)  # noqa: E731
        return jax.lax.scan(body, state, None, length=steps)[0]

    start, work = (params, opt_state), steps * c.replicates
    return repeat(train, start, batch, work=work, chain=RESTART)


def training_step(
    c: ConfigDict,
    tx: Any,
    shape: tuple[int, ...],
    after: Callable[[Any, Any], Any] = _unchanged,
) -> tuple[Callable[..., Any], Any]:
    """Makes a training step, its initial parameters and the one batch it trains on.

    Args:
      c: the recipe.
      tx: an optax optimizer.
      shape: axes [h w c] of the images.
      after: from `(params, opt_state)` to the parameters that are kept after a step.
    """
    dataset = fixtures.random_dataset(shape, examples=c.data.batch_size)
    model = factory.make_model(c, classes=10, training=True)
    images = augment.normalize(
        jnp.asarray(dataset.train.images), mean=dataset.mean, std=dataset.std
    )
    labels = jnp.asarray(dataset.train.labels)
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), images[:1]
    )
    stats = variables.get("batch_stats", {})
    tx = optax.with_extra_args_support(tx)

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> Any:
        logits, _ = model.apply(
            {"params": params, "batch_stats": stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.mean(losses.cross_entropy(logits, labels))

    def step(state: Any, batch: Any) -> Any:
        params, opt_state = state
        grads = jax.grad(loss)(params, *batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return after(params, opt_state), opt_state

    return step, (variables["params"], (images, labels))


def repeat(
    step: Callable[..., Any], start: Any, data: Any, *, work: int = 1, chain: int = 1
) -> Job:
    """Repeats a step that donates its state; the copy of `start` is not timed.

    Args:
      step: from a state and data to the next state.
      start: the first state.
      data: the data of every call.
      work: the amount of work in one call.
      chain: calls after which the job starts again from `start`.
    """
    state: Any = None

    def prepare() -> None:
        nonlocal state
        state = None  # freed before the copy
        state = jax.block_until_ready(jax.tree.map(jnp.copy, start))

    def run(count: int) -> None:
        nonlocal state
        if state is None:
            prepare()
        for _ in range(count):
            state = step(state, data)
        jax.block_until_ready(state)

    return Job(run, work, prepare, chain)
