"""What changing masks costs: one change at 11 million weights, and one in 100 steps."""

import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import fixtures, selection, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import factory, losses, transforms
from jaxsparse.data import augment

SPARSITY = 0.9
EVERY = 100  # updates between changes, where they are amortised
CHANGES = 50  # of a gradual schedule, after which a job begins anew
Wrap = Callable[[Any, int], Any]  # an optimiser, and updates between changes


def _gradual(inner: Any, every: int, **where: Any) -> Any:
    return transforms.gradual_magnitude(
        inner,
        sparsity=SPARSITY,
        begin_step=0,
        end_step=CHANGES * every,
        update_every=every,
        **where,
    )


def _dynamic(method: Any, **options: Any) -> Wrap:
    def wrap(inner: Any, every: int, **more: Any) -> Any:
        return method(
            inner,
            sparsity=SPARSITY,
            update_every=every,
            begin_step=0,
            drop_schedule="constant",
            **options,
            **more,
        )

    return wrap


rigl = _dynamic(transforms.rigl)


METHODS: dict[str, Wrap] = {
    "magnitude, layer by layer": _gradual,
    "magnitude, all layers together": functools.partial(
        _gradual, distribution="global"
    ),
    "SET": _dynamic(transforms.sparse_evolution),
    "SET, not by sign": _dynamic(transforms.sparse_evolution, drop_by_sign=False),
    "RigL": rigl,
    "SNFS, redistributing": _dynamic(transforms.snfs),
}


def measure(
    *,
    seconds: float,
    repetitions: int = 3,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    networks: tuple[str, ...] = ("lenet_300_100", "resnet_20"),
    batch_size: int = 128,
) -> list[Table]:
    """Times changes of masks, and training with one in 100 updates."""
    shapes = selection.resnet_18() if shapes is None else shapes
    tables = [_changes(shapes, seconds=seconds, repetitions=repetitions)]
    for network in networks:
        for replicates in (1, 4):
            slow = network != "lenet_300_100" and jax.default_backend() == "cpu"
            if slow and replicates > 1:
                continue  # hundreds of steps of a second each and more
            amortise = _by_parts if slow else _whole
            tables.append(
                amortise(
                    network,
                    replicates,
                    batch_size=batch_size,
                    seconds=seconds,
                    repetitions=repetitions,
                )
            )
    return tables


def draw(shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0) -> Any:
    """Draws normal kernels of these shapes, or their gradients."""
    random = np.random.default_rng(seed)
    return {
        name: {"kernel": jnp.asarray(random.standard_normal(shape, np.float32))}
        for name, shape in shapes.items()
    }


def _changes(
    shapes: Mapping[str, tuple[int, ...]], *, seconds: float, repetitions: int
) -> Table:
    """Times updates of plain SGD in which masks change, and in which they do not."""
    params, grads = draw(shapes), draw(shapes, seed=1)
    rows, data = [], {}
    for name, wrap in METHODS.items():
        jobs = {
            "change": update_job(wrap(optax.sgd(0.1), 1), params, grads),
            "none": update_job(wrap(optax.sgd(0.1), 10**6), params, grads, skip=1),
        }
        rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
        times = {job: [1000 / rate for rate in rates[job]] for job in rates}
        extra = [a - b for a, b in zip(times["change"], times["none"], strict=True)]
        cells = [times["change"], times["none"], extra]
        rows.append((name, *(timing.spread(cell, 0) for cell in cells)))
        data[name] = {"milliseconds": times}
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    header = ("", "update with a change, ms", "update without, ms", "the change, ms")
    title = f"A change of masks: {total:,} weights in {len(shapes)} layers (ResNet-18)"
    return Table(title, header, rows, "Around `optax.sgd(0.1)`, at 90 %.", data)


def update_job(tx: Any, params: Any, grads: Any, skip: int = 0) -> Job:
    """Makes updates one by one, from the one after `skip` others on."""

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: Any, grads: Any) -> Any:
        params, opt_state = state
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = tx.init(params)
    start = (transforms.stored_params(params, opt_state), opt_state)
    for _ in range(skip):
        start = update(jax.tree.map(jnp.copy, start), grads)

    return repeat(update, start, grads)


def repeat(train: Callable[..., Any], start: Any, data: Any, *, work: int = 1) -> Job:
    """Repeats a donating step, from the start again after each `CHANGES` of them."""

    def run(count: int) -> None:
        for place in range(count):
            if place % CHANGES == 0:
                state = jax.tree.map(jnp.copy, start)
            state = train(state, data)
        jax.block_until_ready(state)

    return Job(run, work)


def _step(network: str, tx: Any, batch_size: int) -> tuple[Callable[..., Any], Any]:
    """Makes a training step on one batch, and initial parameters."""
    dataset = fixtures.random_dataset(fixtures.SHAPES[network], examples=batch_size)
    c = fixtures.recipe(network, replicates=1, batch_size=batch_size)
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
        return optax.apply_updates(params, updates), opt_state

    return step, (variables["params"], (images, labels))


def _optimizers() -> dict[str, Any]:
    inner = optax.sgd(0.1, momentum=0.9)
    chosen = ("magnitude, all layers together", "SET", "RigL")
    return {"dense": inner} | {name: METHODS[name](inner, EVERY) for name in chosen}


def _whole(
    network: str,
    replicates: int,
    *,
    batch_size: int,
    seconds: float,
    repetitions: int,
) -> Table:
    """Times scans over 100 updates, one of which changes masks."""
    jobs = {
        name: _scan_job(network, tx, replicates, batch_size)
        for name, tx in _optimizers().items()
    }
    rates = timing.in_turns(jobs, seconds=seconds, repetitions=max(repetitions, 5))
    how = f", vmap of {replicates} replicates" if replicates > 1 else ""
    rows = [
        (
            name,
            timing.spread(values, 0 if min(values) >= 20 else 2),
            timing.spread(timing.ratios(rates["dense"], values), 2),
        )
        for name, values in rates.items()
    ]
    header = ("", "steps/s", "time as a multiple of dense")
    title = f"One change in {EVERY} updates: {network}, batch {batch_size}, scan{how}"
    return Table(title, header, rows, "SGD with momentum.", {"rates": dict(rates)})


def _scan_job(network: str, tx: Any, replicates: int, batch_size: int) -> Job:
    step, (params, batch) = _step(network, tx, batch_size)
    if replicates > 1:
        params = jax.tree.map(lambda leaf: jnp.stack([leaf] * replicates), params)
        axes = transforms.replicate_axes(
            jax.eval_shape(tx.init, jax.tree.map(lambda leaf: leaf[0], params))
        )
        opt_state = jax.vmap(tx.init, out_axes=axes)(params)
        step = jax.vmap(step, in_axes=((0, axes), None), out_axes=(0, axes))
    else:
        opt_state = tx.init(params)

    @functools.partial(jax.jit, donate_argnums=0)
    def train(state: Any, batch: Any) -> Any:
        body = lambda state, _: (step(state, batch), None)  # noqa: E731
        return jax.lax.scan(body, state, None, length=EVERY)[0]

    return repeat(train, (params, opt_state), batch, work=EVERY * replicates)


def _by_parts(
    network: str,
    replicates: int,
    *,
    batch_size: int,
    seconds: float,
    repetitions: int,
) -> Table:
    """Times dispatched updates with and without a change, and weighs them 1 to 99."""
    del replicates
    inner = optax.sgd(0.1, momentum=0.9)
    jobs = {("dense", ""): _dispatch_job(network, inner, batch_size)}
    for name in list(_optimizers())[1:]:
        jobs[name, "change"] = _dispatch_job(
            network, METHODS[name](inner, 1), batch_size
        )
        jobs[name, ""] = _dispatch_job(network, METHODS[name](inner, 10**6), batch_size)
    rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
    times = {job: [1000 / rate for rate in values] for job, values in rates.items()}
    rows = [("dense", timing.spread(times["dense", ""]), "", "1.00")]
    for name in list(_optimizers())[1:]:
        parts = zip(
            times["dense", ""], times[name, ""], times[name, "change"], strict=True
        )
        multiples = [
            ((EVERY - 1) * plain + change) / EVERY / dense
            for dense, plain, change in parts
        ]
        cells = [timing.spread(times[name, part]) for part in ("", "change")]
        rows.append((name, *cells, timing.spread(multiples, 2)))
    header = ("", "step, ms", "step with a change, ms", "time as a multiple of dense")
    title = f"One change in {EVERY} updates: {network}, batch {batch_size}, dispatched"
    note = "The multiple weighs 99 steps without a change and one with."
    data = {
        " ".join(job): {"milliseconds": values, "median": statistics.median(values)}
        for job, values in times.items()
    }
    return Table(title, header, rows, note, data)


def _dispatch_job(network: str, tx: Any, batch_size: int) -> Job:
    step, (params, batch) = _step(network, tx, batch_size)
    train = jax.jit(step, donate_argnums=0)
    start = jax.tree.map(jnp.copy, (params, tx.init(params)))
    start = train(start, batch)  # the change that lies at the very beginning
    return repeat(train, start, batch)
