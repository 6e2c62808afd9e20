"""RigL on divided weights, on eight devices; run by `training/test_fsdp.py`.

Compiled for 100 million weights, which only their shapes say, and run on fewer.
"""

import math
import os
import re
import sys
from typing import Any

os.environ["NPROC"] = "32"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.sharding import AxisType, NamedSharding  # noqa: E402

from jaxsparse import masks, transforms  # noqa: E402

EVERY, STEPS, SPARSITY = 2, 7, 0.9
MOVES = re.compile(
    r" = (.*?) (all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter)"
    r"(?:-start)?\("
)


def transformer(width: int, *, words: int, blocks: int) -> Any:
    """Shapes of a decoder's weights."""
    sizes = {"qkv": 3 * width, "out": width, "up": 4 * width}

    def layer(*shape: int) -> dict[str, Any]:
        like = jax.ShapeDtypeStruct
        bias = like(shape[1:], jnp.float32)
        return {"kernel": like(shape, jnp.float32), "bias": bias}

    params: dict[str, Any] = {
        "embed": {"embedding": jax.ShapeDtypeStruct((words, width), jnp.float32)}
    }
    for number in range(blocks):
        params[f"block{number}"] = {
            **{name: layer(width, size) for name, size in sizes.items()},
            "down": layer(4 * width, width),
        }
    return params


def optimizer() -> Any:
    return transforms.rigl(
        optax.adamw(1e-2), sparsity=SPARSITY, update_every=EVERY, end_step=100
    )


def update(params: Any, state: Any, grads: Any) -> Any:
    updates, state = optimizer().update(grads, state, params)
    return optax.apply_updates(params, updates), state


class Divided:
    """Weights and the optimizer's state on so many devices."""

    def __init__(self, like: Any, parts: int, *, least: int) -> None:
        self.mesh = jax.make_mesh(
            (parts,),
            ("data",),
            axis_types=(AxisType.Auto,),
            devices=jax.devices()[:parts],
        )
        specs = transforms.weight_specs(like, axis="data", parts=parts, min_size=least)
        self.like, self.state = like, jax.eval_shape(optimizer().init, like)
        followed = transforms.state_specs(specs, like, self.state)
        place = lambda spec: NamedSharding(self.mesh, spec)  # noqa: E731
        self.weights = jax.tree.map(place, specs)
        self.states = jax.tree.map(place, followed)
        self.init = jax.jit(optimizer().init, out_shardings=self.states)
        self.update = jax.jit(update, out_shardings=(self.weights, self.states))

    def compiled(self) -> dict[str, Any]:
        """Compiles from shapes alone."""

        def placed(tree: Any, shardings: Any) -> Any:
            return jax.tree.map(
                lambda leaf, sharding: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=sharding
                ),
                tree,
                shardings,
            )

        params = placed(self.like, self.weights)
        state = placed(self.state, self.states)
        return {
            "init": self.init.lower(params).compile(),
            "update": self.update.lower(params, state, params).compile(),
        }


def moved(program: str) -> dict[str, int]:
    """Returns the largest number of entries that any collective of a kind moves."""
    found: dict[str, int] = {}
    for shapes, kind in MOVES.findall(program):
        sizes = [
            math.prod(map(int, filter(None, shape.split(","))))
            for shape in re.findall(r"\w\[([\d,]*)\]", shapes)
        ]
        found[kind] = max(found.get(kind, 0), sum(sizes))
    return found


def check(fine: bool, what: Any) -> None:
    if not fine:
        sys.exit(str(what))


def check_compiled() -> None:
    """Nothing of a weight's size is moved; work and memory fall as 1 / n."""
    like = transformer(2048, words=32_000, blocks=1)
    layers = len(jax.tree.leaves(jax.eval_shape(masks.ones, like)))
    total = sum(leaf.size for leaf in jax.tree.leaves(like))
    check(total >= 100e6, f"{total} weights")
    one, many = (Divided(like, parts, least=1).compiled() for parts in (1, 8))
    for name, program in many.items():
        kinds = moved(program.as_text())
        check(set(kinds) == {"all-reduce"}, (name, kinds))
        # One number a layer for each layer's threshold, for two of them at once, and
        # for whether what the layer is chosen by is finite.
        check(kinds["all-reduce"] <= 3 * layers, (name, kinds))
        for cost in ("flops", "bytes accessed"):
            share = one[name].cost_analysis()[cost] / program.cost_analysis()[cost]
            check(abs(share / 8 - 1) < 0.01, (name, cost, share))
        sizes = (p.memory_analysis().temp_size_in_bytes for p in (one[name], program))
        share = next(sizes) / next(sizes)
        check(abs(share / 8 - 1) < 0.05, (name, "temporary memory", share))


def check_run() -> None:
    """Eight devices do what one does, and keep exactly as many weights."""
    jax.config.update("jax_enable_x64", True)  # else programs round differently
    like = transformer(32, words=80, blocks=2)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float64), like
    )
    rng = np.random.default_rng(0)
    draws = [
        jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), like)
        for _ in range(STEPS + 1)
    ]
    ends = []
    for parts in (1, 8):
        made = Divided(like, parts, least=1)
        params = jax.device_put(draws[0], made.weights)
        state = made.init(params)
        params = transforms.stored_params(params, state)
        counts = masks.layer_counts(transforms.get_masks(state))
        for grads in draws[1:]:
            grads = jax.device_put(grads, made.weights)
            params, state = jax.block_until_ready(made.update(params, state, grads))
        held = transforms.get_masks(state)
        check(masks.layer_counts(held) == counts, "counts changed")
        kept, total = masks.num_active(held), masks.size(held)
        check(kept == total - math.floor(total * SPARSITY), (kept, total))
        ends.append(jax.device_get((params, held)))
        if parts == 8:
            for leaf in (
                params["block0"]["up"]["kernel"],
                held["block0"]["up"]["kernel"],
            ):
                shard = leaf.addressable_shards[0].data.shape
                check(shard == (4, 128), shard)
    (weights, kept), (others, same) = ends
    equal = jax.tree.map(lambda a, b: bool(np.all(a == b)), kept, same)
    check(all(jax.tree.leaves(equal)), "masks differ")
    near = jax.tree.map(lambda a, b: np.allclose(a, b, 1e-12, 1e-12), weights, others)
    check(all(jax.tree.leaves(near)), "weights differ")
    first = jax.device_get(Divided(like, 1, least=1).init(draws[0]).masks)
    moved_masks = jax.tree.map(lambda a, b: bool(np.any(a != b)), first, kept)
    check(all(jax.tree.leaves(moved_masks)), "masks did not change")


if __name__ == "__main__":
    check_run()
    check_compiled()
    print("all agree")
