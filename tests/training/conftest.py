"""Networks and data for training on the four CPU devices, made without a config."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxsparse import losses, masks, models, scores, transforms
from jaxsparse.data import augment, shuffling
from jaxsparse.training import (
    chunk_inputs,
    mesh,
    optimizers,
    placement,
    scan_chunks,
    state_sharding,
    steps,
    vmap_seeds,
)
from jaxsparse.training import state as state_lib
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.state import TrainState

EXAMPLES = 256


def mlp(axis_name: str | None = None) -> nn.Module:
    return models.LeNet300100(features=(24,), classes=10)


class ConvNorm(nn.Module):
    """The smallest network with a convolution and running statistics."""

    norm: Any

    @nn.compact
    def __call__(self, images: Any, *, train: bool) -> Any:
        x = nn.Conv(32, (3, 3), use_bias=False, name="conv")(images)
        x = self.norm(use_running_average=not train, name="norm")(x)
        return nn.Dense(10, name="head")(nn.relu(x).mean((1, 2)))


def batch_norm(axis_name: str | None) -> Any:
    return functools.partial(nn.BatchNorm, momentum=0.9, axis_name=axis_name)


def conv_norm(axis_name: str | None = None) -> nn.Module:
    return ConvNorm(batch_norm(axis_name))


def resnet(axis_name: str | None = None) -> nn.Module:
    return models.CifarResNet(depth=8, width=4, norm=batch_norm(axis_name))


class Bench(NamedTuple):
    """One network on one layout, ready to train."""

    layout: MeshLayout
    fresh: TrainState
    programs: Callable[[int, int], scan_chunks.CompiledChunk]
    data: Any
    orders: Any
    keys: Any

    def train(
        self, calls: list[tuple[int, int]], state: TrainState | None = None
    ) -> tuple[TrainState, list[Any]]:
        """Runs calls (length, batch size), each from the order's beginning."""
        state = self.fresh if state is None else state
        state = state_sharding.shard_state(self.layout, copied(state))
        tallies, first = [], 0
        for length, batch_size in calls:
            state, tally = self.programs(length, batch_size)(
                state,
                chunk_inputs.ChunkInputs(*self.data, self.orders, jnp.int32(first)),
                self.keys,
            )
            tallies.append(scan_chunks.sums_on_host(self.layout, tally))
            first = (first + length * batch_size) % EXAMPLES
        return state_sharding.gather_state(self.layout, state), tallies


@jax.jit
def copied(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


@functools.cache
def optimizer() -> optax.GradientTransformationExtraArgs:
    rate = optimizers.learning_rate(peak=0.1, total=100, warmup=2)
    return transforms.fixed(
        optimizers.with_l2(optimizers.sgd(rate, momentum=0.9), weight_decay=1e-3)
    )


@functools.cache
def start(name: str, replicates: int) -> TrainState:
    """A state whose masks keep about half, each replicate another half."""
    seeds = state_lib.make_seeds(init=1, data=2, masks=3, replicates=replicates)

    def one(key: Any, mask_key: Any) -> Any:
        image = jnp.zeros((1, 8, 8, 1))
        variables = NETWORKS[name]().init(key, image, train=False)
        dense = masks.ones(variables["params"])
        kept = jax.tree.map(lambda leaf: leaf > 0.5, scores.random(dense, key=mask_key))
        return variables["params"], variables.get("batch_stats", {}), kept

    params, stats, kept = jax.jit(jax.vmap(one))(seeds.init, seeds.masks)
    tx = optimizer()
    return state_lib.start(tx, params, stats, kept, step=0, keys=seeds.masks)


def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (EXAMPLES, 8, 8, 1), np.uint8)
    return pixels, generator.integers(0, 10, EXAMPLES, np.int32)


NETWORKS = {"mlp": mlp, "conv_norm": conv_norm, "resnet": resnet}


@jax.jit
def draw_orders(keys: Any) -> Any:
    draw = functools.partial(shuffling.epoch_order, epoch=0, examples=EXAMPLES)
    return jax.vmap(draw)(keys)


def _bench(
    name: str = "mlp",
    *,
    replicates: int = 1,
    devices: int = 1,
    parallelism: str = "jit",
    how: vmap_seeds.How = "vmap",
    usual_length: int = 0,
    division: mesh.FSDPSpec | None = None,
) -> Bench:
    layout = mesh.make_layout(
        replicates=replicates,
        batch_sizes=[64],
        parallelism=parallelism,
        devices=devices,
        fsdp=division,
    )
    network = NETWORKS[name]
    axis_name = layout.batch_axis
    tx = optimizer()
    fresh = start(name, replicates)
    seeds = state_lib.make_seeds(init=1, data=2, masks=3, replicates=replicates)
    gradient = steps.make_loss_gradient(
        network(axis_name),
        task=losses.PredictionTask(
            functools.partial(augment.normalize, mean=(0.5,), std=(0.25,)),
            losses.class_labels,
        ),
        gather=state_sharding.make_gather(layout, fresh),
    )
    step = steps.make_train_step(
        gradient,
        tx,
        augment=lambda images, *, key, places: augment.random_flip(
            images, key=key, places=places
        ),
        axis_name=axis_name,
    )
    return Bench(
        layout,
        fresh,
        scan_chunks.make_chunk_fns(
            step, fresh, layout=layout, how=how, usual_length=usual_length
        ),
        placement.replicate(layout, images()),
        placement.shard_replicates(layout, draw_orders(seeds.data)),
        placement.shard_replicates(layout, seeds.data),
    )


@pytest.fixture(scope="session")
def bench() -> Callable[..., Bench]:
    """`bench(name, replicates=, devices=, parallelism=, how=)`, each made once."""
    return functools.cache(_bench)
