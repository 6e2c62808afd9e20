"""What our own choices cost or gain: the wrapper, scanning, replicates, devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import fixtures, mnist, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import losses, models, transforms
from jaxsparse.data import augment

UNIT = "steps/s"


def on_cpu() -> bool:
    """Says whether networks with convolutions have to be measured briefly."""
    return jax.default_backend() == "cpu"


def overhead(*, seconds: float, repetitions: int = 9, steps: int = 100) -> list[Table]:
    """Times training with `transforms.fixed` against the bare optimiser."""
    dataset = fixtures.random_dataset((28, 28, 1), examples=512)
    c = fixtures.recipe("lenet_300_100", replicates=1, batch_size=128)
    params, masks = mnist.first_replicate(fixtures.make(c, dataset))
    images, labels = (jnp.asarray(part[:128]) for part in dataset.train)
    images = augment.normalize(images, mean=dataset.mean, std=dataset.std)
    optimizers = {
        "sgd, momentum 0.9": optax.sgd(0.1, momentum=0.9),
        "adamw": optax.adamw(1e-3),
    }
    tables = []
    for name, inner in optimizers.items():
        bare, sparse = f"bare {name}", f"fixed({name})"
        jobs = {
            bare: _loop_job(inner, params, images, labels, steps=steps),
            sparse: _loop_job(
                transforms.fixed(inner, masks=masks),
                params,
                images,
                labels,
                steps=steps,
            ),
        }
        rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
        title = f"Cost of transforms.fixed: LeNet-300-100, batch 128, {name}"
        tables.append(timing.rate_table(title, rates, unit=UNIT, base=bare))
    return tables


def _loop_job(
    tx: Any, params: Any, images: jax.Array, labels: jax.Array, *, steps: int
) -> Job:
    """Trains on one batch again and again, scanned: nothing but the step counts."""
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


def dispatch(*, seconds: float, repetitions: int = 3) -> list[Table]:
    """Times scanned steps against dispatched ones; `run.dispatch=auto` chooses."""
    sizes = {
        "lenet_300_100": (128, 100),
        "lenet_5": (128, 100),
        "resnet_20": (128, 5 if on_cpu() else 100),
    }
    tables = []
    for network, (batch_size, steps) in sizes.items():
        jobs = dispatch_jobs(network, batch_size=batch_size, steps=steps)
        rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
        title = f"Scan or dispatch: {network}, batch {batch_size}"
        tables.append(timing.rate_table(title, rates, unit=UNIT, base="dispatch"))
    return tables


def dispatch_jobs(network: str, *, batch_size: int, steps: int) -> dict[str, Job]:
    """Makes the trainer's programs of one step and of many."""
    examples = batch_size * max(steps, 16)
    dataset = fixtures.random_dataset(fixtures.SHAPES[network], examples=examples)
    return {
        name: fixtures.trainer_job(
            fixtures.make(
                fixtures.recipe(
                    network, replicates=1, batch_size=batch_size, steps=length
                ),
                dataset,
            )
        )
        for name, length in (("dispatch", 1), (f"scan of {steps}", steps))
    }


def replicates(
    *,
    seconds: float,
    repetitions: int = 5,
    counts: tuple[int, ...] = (),
    steps: int = 50,
) -> list[Table]:
    """Times the trainer's programs with several replicates; accelerators hold more."""
    counts = counts or ((1, 2, 4, 8) if on_cpu() else (1, 2, 4, 8, 16))
    networks = ["lenet_300_100"] if on_cpu() else list(fixtures.SHAPES)
    tables = []
    for network in networks:
        dataset = fixtures.random_dataset(
            fixtures.SHAPES[network], examples=128 * steps
        )
        jobs = {}
        for count in counts:
            c = fixtures.recipe(network, replicates=count, batch_size=128, steps=steps)
            job = fixtures.trainer_job(fixtures.make(c, dataset))
            jobs[f"{count} replicate{'s' * (count > 1)}"] = job
        rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
        tables.append(
            timing.rate_table(
                f"Replicates at once: {network}, batch 128",
                rates,
                unit="replicate-steps/s",
                base=next(iter(jobs)),
            )
        )
    return tables


def devices(
    *,
    seconds: float,
    repetitions: int = 5,
    networks: tuple[str, ...] = (),
    steps: int = 50,
    batch_size: int = 128,
) -> list[Table]:
    """Times one device against all of them, by jit and by pmap."""
    count = jax.local_device_count()
    title = f"Devices: {count} of {jax.local_devices()[0].device_kind}"
    if count == 1:
        return [Table(title, ("",), [("only one device here",)], "", {})]
    tables = []
    for network in networks or (["lenet_300_100"] if on_cpu() else fixtures.SHAPES):
        dataset = fixtures.random_dataset(
            fixtures.SHAPES[network], examples=batch_size * steps
        )
        make: Callable[..., Any] = functools.partial(
            fixtures.recipe, network, replicates=1, batch_size=batch_size, steps=steps
        )
        recipes = {
            "one device": make(),
            f"{count} devices, jit": make(devices=count),
            f"{count} devices, pmap": make(devices=count, by="pmap"),
        }
        jobs = {
            name: fixtures.trainer_job(fixtures.make(c, dataset))
            for name, c in recipes.items()
        }
        rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
        tables.append(
            timing.rate_table(
                f"{title}, {network}, one batch of {batch_size} divided",
                rates,
                unit=UNIT,
                base="one device",
            )
        )
    return tables
