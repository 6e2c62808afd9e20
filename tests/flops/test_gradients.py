"""The registered methods need the gradient of exactly the weights that they declare."""

import importlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import methods
from helpers.optimizers import SGD

from jaxsparse import config, transforms
from jaxsparse import masks as masks_lib
from jaxsparse.factory import flops as factory_flops

# Names of tests/helpers/methods.py by names in configs.
NAMES = {
    "static": "fixed",
    "gmp": "gradual_magnitude",
    "set": "sparse_evolution",
    "mest": "mest",
    "snfs": "snfs",
    "chts": "chts",
    "ste": "straight_through",
    "sr_ste": "sr_ste",
    "weight_sparse": "weight_sparse",
    "proximal_l1": "proximal_l1",
    "s_ste": "s_ste",
    "str": "learned_threshold",
    "continuous_sparsification": "continuous_sparsification",
    "dynadiag": "dynadiag",
    "edge_popup": "edge_popup",
    "gem_miner": "gem_miner",
}


def declared(method: str) -> str:
    c = config.default()
    c.sparse.method = method
    return factory_flops.gradient(c)


@pytest.mark.parametrize("method", NAMES)
def test_gradients_outside_masks_matter_if_declared(method: str) -> None:
    tx, params = methods.METHODS[NAMES[method]].make(SGD), methods.make_params()
    random = methods.make_params(1)
    update = jax.jit(tx.update)
    state = tx.init(params)
    for _ in range(11):  # masks are hard by then, and no mask update follows
        changes, state = update(random, state, params)
        params = jax.tree.map(jnp.add, params, changes)
    masks = transforms.get_masks(state)
    assert masks_lib.sparsity(masks) > 0

    def only_inside(grad: Any, mask: Any) -> Any:
        return grad if mask is None else jnp.where(mask, grad, 0)

    large = jax.tree.map(lambda leaf: 100 * leaf, random)
    inside = jax.tree.map(only_inside, large, masks)
    pairs = [jax.tree.leaves(update(g, state, params)) for g in (large, inside)]
    is_used = not all(map(np.array_equal, *pairs))
    assert is_used == (declared(method) == "always")


def test_every_method_declares_its_gradient() -> None:
    missing = [
        name
        for name, spec in config.METHODS.items()
        if not spec.mask_updates.gradient and spec.mask_updates.updates_masks
    ]
    assert not missing


def test_the_table_of_gradients_has_every_method() -> None:
    text = importlib.import_module("jaxsparse.flops.training").__doc__ or ""
    _, _, table = text.partition("    gradient    methods")
    found: dict[str, list[str]] = {}
    row: list[str] = []
    for line in table.split("\n\n")[0].splitlines()[1:]:
        if match := re.match(r' {4}"(\w+)"', line):
            found[match[1]] = (row := [])
        row += [word.strip() for word in line[16:49].split(",") if word.strip()]
    built_in = [spec for spec in config.METHODS.values() if spec.is_built_in]
    assert len(built_in) > 20
    for spec in built_in:
        assert spec.title in found[declared(spec.name)], spec.name
    listed = [name for row in found.values() for name in row]
    known = {spec.title for spec in built_in} | {"IMP"}  # which is no sparse.method
    assert len(set(listed)) == len(listed) and set(listed) == known
