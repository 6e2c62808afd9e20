"""Vision transformers: counts, a computation by hand, and what pruning sees of them."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import tiny
from helpers.small_models import count, prunable, shapes

from jaxsparse import config as config_lib
from jaxsparse import connectivity, distributions, factory, initializers, masks, models
from jaxsparse.factory import models as models_lib
from jaxsparse.factory import tost
from jaxsparse.training import optimizers

IMAGENET = (224, 224, 3)
SMALL = functools.partial(models.ViT, width=8, heads=2, depth=2, patch=4, classes=5)
IMAGE = (8, 12, 3)

# DeiT's of table 1 and ViT-B/16, as timm counts them to the last digit.
PUBLISHED = {
    "vit_ti_16": (192, 3, 5_717_416),
    "vit_s_16": (384, 6, 22_050_664),
    "vit_b_16": (768, 12, 86_567_656),
}


def made(name: str, **fields: object) -> nn.Module:
    c = config_lib.default()
    c.model.name = name
    c.model.update(fields)
    models_lib.check(c)
    return models_lib.make_model(c, classes=1000)


def variables(model: nn.Module, image: tuple[int, ...] = IMAGE) -> dict:
    """Random values everywhere, so that nothing is hidden by a 0 or a 1."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32),
        shapes(model, image),
    )


def images(n: int = 4) -> jax.Array:
    rng = np.random.default_rng(2)
    return jnp.asarray(rng.normal(size=(n, *IMAGE)), jnp.float32)


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_networks_have_the_published_counts(name: str) -> None:
    width, heads, total = PUBLISHED[name]
    model = made(name)
    assert (model.width, model.heads) == (width, heads)
    params = shapes(model, IMAGENET)["params"]
    kernels = 768 * width + 12 * 12 * width**2 + width * 1000
    others = width + 12 * (9 * width + 4 * width) + 2 * width + 1000
    assert count(params) == total == kernels + others + (1 + 197) * width
    assert prunable(params) == kernels


def test_layers_are_the_maps_that_they_are() -> None:
    params = shapes(SMALL(), IMAGE)["params"]
    block = {
        **{f"attention/{name}": (8, 8) for name in ("key", "out", "query", "value")},
        "mlp1": (8, 32),
        "mlp2": (32, 8),
    }
    wanted = {"patches": (4, 4, 3, 8), "head": (8, 5)}
    wanted |= {f"block{i}/{name}": s for i in (1, 2) for name, s in block.items()}
    dense = masks.ones(params)
    layers = {
        name: leaf.shape
        for name, leaf in zip(masks.names(dense), jax.tree.leaves(dense), strict=True)
    }
    assert layers == {f"{name}/kernel": shape for name, shape in wanted.items()}
    # Positions and class token are neither pruned nor decayed.
    decayed = optimizers.kernels_only(variables(SMALL())["params"])
    assert not decayed["positions"]
    assert not decayed["class_token"]
    assert params["positions"].shape == (1, 7, 8)
    assert params["class_token"].shape == (1, 1, 8)


def test_erk_gives_each_map_its_own_density() -> None:
    dense = masks.ones(shapes(made("vit_s_16"), IMAGENET)["params"])
    counts = distributions.NAMES["erk"](dense, 0.8)
    kept = {
        name: (int(kept), leaf.size)
        for name, leaf, kept in zip(
            masks.names(dense),
            jax.tree.leaves(dense),
            jax.tree.leaves(counts),
            strict=True,
        )
    }
    total = sum(size for _, size in kept.values())
    assert sum(k for k, _ in kept.values()) == distributions.count_kept(total, 0.8)
    density = {name: k / size for name, (k, size) in kept.items()}
    # (i + o) / (i o), but for rounding.
    unit = density["block1/attention/query/kernel"] / (2 * 384 / 384**2)
    for name, (i, o) in {
        "block7/attention/out/kernel": (384, 384),
        "block3/mlp1/kernel": (384, 1536),
        "block12/mlp2/kernel": (1536, 384),
        "head/kernel": (384, 1000),
    }.items():
        assert density[name] == pytest.approx(unit * (i + o) / (i * o), rel=1e-3)
    conv = (16 + 16 + 3 + 384) / (16 * 16 * 3 * 384)
    assert density["patches/kernel"] == pytest.approx(unit * conv, rel=1e-3)


def normalize(x: np.ndarray, layer: dict) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return (
        x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * layer["scale"]
        + (layer["bias"])
    )


def linear(x: np.ndarray, layer: dict) -> np.ndarray:
    return x @ layer["kernel"] + layer["bias"]


def by_hand(params: dict, image: np.ndarray) -> np.ndarray:
    """Logits of one image, token by token and head by head."""
    tokens = [params["class_token"][0, 0]]
    for top in range(0, IMAGE[0], 4):
        for left in range(0, IMAGE[1], 4):
            patch = image[top : top + 4, left : left + 4].reshape(-1)
            kernel = params["patches"]["kernel"].reshape(-1, 8)
            tokens.append(patch @ kernel + params["patches"]["bias"])
    x = np.stack(tokens) + params["positions"][0]
    for i in (1, 2):
        block = params[f"block{i}"]
        y = normalize(x, block["norm1"])
        q, k, v = (linear(y, block["attention"][n]) for n in ("query", "key", "value"))
        seen = np.zeros_like(x)
        for first in (0, 4):
            own = slice(first, first + 4)
            for t in range(len(x)):
                match = np.exp([q[t, own] @ k[u, own] / math.sqrt(4) for u in range(7)])
                seen[t, own] = match / match.sum() @ v[:, own]
        x = x + linear(seen, block["attention"]["out"])
        y = linear(normalize(x, block["norm2"]), block["mlp1"])
        y = y * np.vectorize(lambda z: (1 + math.erf(z / math.sqrt(2))) / 2)(y)
        x = x + linear(y, block["mlp2"])
    return linear(normalize(x[0], params["norm"]), params["head"])


def test_logits_are_those_computed_by_hand() -> None:
    model = SMALL()
    state, x = variables(model), images()
    logits = jax.jit(functools.partial(model.apply, train=False))(state, x)
    assert (logits.shape, logits.dtype) == ((4, 5), jnp.float32)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state["params"])
    wanted = [by_hand(params, np.asarray(image, np.float64)) for image in x]
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-4)
    # Training is no different, and nothing else is in its state.
    assert set(state) == {"params"}
    trained = jax.jit(functools.partial(model.apply, train=True))(state, x)
    np.testing.assert_array_equal(trained, logits)


def test_bfloat16_is_for_computing_only() -> None:
    seen = []

    def act(x: jax.Array) -> jax.Array:
        seen.append(x.dtype)
        return nn.gelu(x)

    model = SMALL(dtype=jnp.bfloat16, act=act)
    like = shapes(model, IMAGE)
    seen.clear()
    apply = functools.partial(model.apply, train=True)
    assert jax.eval_shape(apply, like, images()).dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(like))
    assert seen == [jnp.bfloat16] * 2  # one in each block, and no other
    exact, rough = (
        jax.jit(functools.partial(SMALL(dtype=dtype).apply, train=False))(
            variables(model), images()
        )
        for dtype in (None, jnp.bfloat16)
    )
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())


def test_parameters_are_drawn_by_their_names() -> None:
    like = shapes(models.ViT(depth=1), IMAGENET)["params"]
    draw = functools.partial(initializers.initialize, like, kernel="glorot_uniform")
    params = jax.jit(lambda key: draw(key=key))(jax.random.key(0))
    for name in ("positions", "class_token"):
        assert np.std(params[name]) == pytest.approx(0.02, rel=0.15)
    assert not np.any(params["block1"]["mlp1"]["bias"])
    assert np.all(np.asarray(params["norm"]["scale"]) == 1)


def test_weights_on_no_path_are_found() -> None:
    model = SMALL(depth=1)
    # Only the class token's query matters here, which has not seen the image yet.
    query = 8 * 8
    params = shapes(model, IMAGE)["params"]
    apply = lambda params, x: model.apply({"params": params}, x, train=False)  # noqa: E731
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    held = masks.ones(params)
    live = jax.jit(lambda held: connectivity.live(apply, params, held, image))
    assert masks.num_active(live(held)) == masks.size(held) - query
    order = connectivity.first_to_last(apply, params, held, image)
    assert (order[0], order[-1]) == ("patches/kernel", "head/kernel")
    # A hidden neuron of a block with no output weights needs no inputs.
    cut = held["block1"]["mlp2"]["kernel"].at[3].set(False)
    held["block1"]["mlp2"]["kernel"] = cut
    left = live(held)["block1"]["mlp1"]["kernel"]
    assert not np.any(left[:, 3])
    assert np.all(np.delete(np.asarray(left), 3, axis=1))


@pytest.mark.parametrize("image", [(10, 8, 3), (8, 6, 3)])
def test_patches_must_cover_the_image(image: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images: expected .*multiples of 4.*got"):
        shapes(SMALL(), image)


def test_images_that_do_not_fit_are_refused_by_the_fields(tmp_path: Path) -> None:
    c = tiny.config({"model.name": "vit_s_16"})
    models_lib.check(c)
    with pytest.raises(
        ValueError,
        match=r"config.model.name: .*8 by 8 .*have 16 pixels.*image_size",
    ):
        factory.make_experiment(c, factory.load_data(c), tmp_path)
    for size in (32, 48):
        c.data.image_size = size
        models_lib.check(c)
        models_lib.check_images(c, (size, size, 3))
    c.data.image_size = 40
    with pytest.raises(
        ValueError, match=r"config.data.image_size: .*'vit_s_16', got 40"
    ):
        models_lib.check(c)


def test_sizes_are_refused_that_heads_cannot_share() -> None:
    with pytest.raises(ValueError, match="width: expected a multiple of 6.*got 100"):
        made("vit_s_16", features=(100,))
    assert made("vit_s_16", features=(12,)).width == 12
    with pytest.raises(ValueError, match="model.features: expected 1 sizes"):
        made("vit_s_16", features=(12, 12))


def test_ghosts_cannot_fade_to_another_activation() -> None:
    c = config_lib.default()
    c.model.name, c.tost.activation = "vit_s_16", "swish"
    with pytest.raises(ValueError, match="tost.activation: .*'vit_s_16'.*'swish'"):
        tost.check(c)
