"""The cost of the sparse wrapper: `transforms.fixed` against the bare optimizer."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import fixtures, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import losses, models, transforms
from jaxsparse.data import augment


def measure(*, seconds: float, repetitions: int = 9, steps: int = 100) -> list[Table]:
    """Times training on one batch with and without the wrapper.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      steps: steps in one scan.
    """
    dataset = fixtures.random_dataset((28, 28, 1), examples=512)
    c = fixtures.recipe("lenet_300_100", replicates=1, batch_size=128)
    params, masks = fixtures.first_replicate(fixtures.make(c, dataset))
    images, labels = (jnp.asarray(part[:128]) for part in dataset.train)
    images = augment.normalize(images, mean=dataset.mean, std=dataset.std)
    optimizers = {
        "sgd, momentum 0.9": optax.sgd(0.1, momentum=0.9),
        "adamw": optax.adamw(1e-3),
    }
    tables = []
    for name, inner in optimizers.items():
        bare, sparse = f"bare {name}", f"fixed({name})"
        wrapped = transforms.fixed(inner, masks=masks)
        jobs = {
            bare: _scan_job(inner, params, images, labels, steps=steps),
            sparse: _scan_job(wrapped, params, images, labels, steps=steps),
        }
        rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
        title = f"Cost of transforms.fixed: LeNet-300-100, batch 128, {name}"
        tables.append(timing.rate_table(title, rates, unit="steps/s", base=bare))
    return tables


def _scan_job(
    tx: Any, params: Any, images: jax.Array, labels: jax.Array, *, steps: int
) -> Job:
    """Times a scan over steps on one batch, so that input costs nothing."""
    model = models.LeNet300100(classes=10)
    tx = optax.with_extra_args_support(tx)

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> Any:
        logits = model.apply({"params": params}, images, train=True)
        return jnp.mean(losses.cross_entropy(logits, labels))

    @functools.partial(jax.jit, donate_argnums=0)
    def train(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def body(state: Any, _: None) -> tuple[Any, None]:
            params, opt_state = state
            grads = jax.grad(loss)(params, images, labels)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(body, state, None, length=steps)[0]

    state = jax.tree.map(jnp.copy, (params, tx.init(params)))

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state = train(state, images, labels)
        jax.block_until_ready(state)

    return Job(run, steps)
