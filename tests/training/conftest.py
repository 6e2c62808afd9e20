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

from jaxsparse import masks, models, scores, transforms
from jaxsparse.data import augment, order
from jaxsparse.training import epoch, optimizers, placement, sharding, steps
from jaxsparse.training import replicates as replicates_lib
from jaxsparse.training import state as state_lib
from jaxsparse.training.sharding import Layout
from jaxsparse.training.state import TrainState

EXAMPLES = 256


def mlp(axis_name: str | None = None) -> nn.Module:
    return models.LeNet300100(features=(24, 16), classes=10)


def resnet(axis_name: str | None = None) -> nn.Module:
    norm = functools.partial(nn.BatchNorm, momentum=0.9, axis_name=axis_name)
    return models.CifarResNet(depth=8, width=4, norm=norm)


class Bench(NamedTuple):
    """One network on one layout, ready to train."""

    layout: Layout
    fresh: TrainState
    programs: Callable[[int, int], epoch.Program]
    data: Any
    orders: Any
    keys: Any

    def train(
        self, calls: list[tuple[int, int]], state: TrainState | None = None
    ) -> tuple[TrainState, list[Any]]:
        """Runs calls (length, batch size), each from the order's beginning."""
        state = self.fresh if state is None else state
        state = placement.place(self.layout, jax.tree.map(jnp.copy, state))
        tallies, first = [], 0
        for length, batch_size in calls:
            state, tally = self.programs(length, batch_size)(
                state,
                epoch.Data(*self.data, self.orders, jnp.int32(first)),
                self.keys,
            )
            tallies.append(epoch.tallies_on_host(self.layout, tally))
            first = (first + length * batch_size) % EXAMPLES
        return placement.collect(self.layout, state), tallies


def optimizer() -> optax.GradientTransformationExtraArgs:
    rate = optimizers.learning_rate(peak=0.1, total=100, warmup=2)
    return transforms.fixed(
        optimizers.with_l2(optimizers.sgd(rate, momentum=0.9), weight_decay=1e-3)
    )


def start(
    network: Callable[..., nn.Module],
    tx: optax.GradientTransformationExtraArgs,
    replicates: int,
    *,
    step: int = 0,
) -> TrainState:
    """A state whose masks keep about half, each replicate another half."""
    seeds = state_lib.make_seeds(init=1, data=2, masks=3, replicates=replicates)

    def one(key: Any, mask_key: Any) -> Any:
        image = jnp.zeros((1, 8, 8, 1))
        variables = network().init(key, image, train=False)
        dense = masks.dense(variables["params"])
        kept = jax.tree.map(lambda leaf: leaf > 0.5, scores.random(dense, key=mask_key))
        return variables["params"], variables.get("batch_stats", {}), kept

    params, stats, kept = jax.jit(jax.vmap(one))(seeds.init, seeds.masks)
    return state_lib.start(tx, params, stats, kept, step=step, keys=seeds.masks)


def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (EXAMPLES, 8, 8, 1), np.uint8)
    return pixels, generator.integers(0, 10, EXAMPLES, np.int32)


NETWORKS = {"mlp": mlp, "resnet": resnet}


def _bench(
    name: str = "mlp",
    *,
    replicates: int = 1,
    devices: int = 1,
    parallelism: str = "jit",
    how: replicates_lib.How = "vmap",
    usual_length: int = 0,
    division: sharding.Division | None = None,
) -> Bench:
    layout = sharding.make_layout(
        replicates=replicates,
        batch_sizes=[64],
        parallelism=parallelism,
        devices=devices,
        division=division,
    )
    network = NETWORKS[name]
    axis_name = layout.batch_axis
    tx = optimizer()
    fresh = start(network, tx, replicates)
    seeds = state_lib.make_seeds(init=1, data=2, masks=3, replicates=replicates)
    step = steps.make_train_step(
        network(axis_name),
        tx,
        augment=lambda images, *, key, places: augment.random_flip(
            images, key=key, places=places
        ),
        normalize=functools.partial(augment.normalize, mean=(0.5,), std=(0.25,)),
        axis_name=axis_name,
        gather=placement.make_gather(layout, fresh),
    )
    orders = jax.vmap(lambda key: order.epoch_order(key, epoch=0, examples=EXAMPLES))(
        seeds.data
    )
    return Bench(
        layout,
        fresh,
        epoch.make_programs(
            step, fresh, layout=layout, how=how, usual_length=usual_length
        ),
        sharding.everywhere(layout, images()),
        sharding.by_replicate(layout, orders),
        sharding.by_replicate(layout, seeds.data),
    )


@pytest.fixture(scope="session")
def bench() -> Callable[..., Bench]:
    """`bench(name, replicates=, devices=, parallelism=, how=)`, each made once."""
    return functools.cache(_bench)
