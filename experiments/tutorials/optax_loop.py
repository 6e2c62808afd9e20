# %% [markdown]
# # Sparsity in an optax loop of your own
#
# jaxsparse adds sparsity to an optimizer; the network and the loss stay as they are.
# This tutorial trains sparse networks in plain training loops: with Flax linen, with
# `nnx.Optimizer`, and with masks that are found before training.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

from jaxsparse import fan_axes, masks, prune, scores, transforms
from jaxsparse.data import augment, datasets

digits = datasets.load("digits")


def inputs(images):
    """Normalizes images to vectors of 64 numbers."""
    pixels = jnp.asarray(images)
    normal = augment.normalize(pixels, mean=digits.mean, std=digits.std)
    return normal.reshape(len(images), 64)


x, labels = inputs(digits.train.images), jnp.asarray(digits.train.labels)
test_x, test_labels = inputs(digits.test.images), digits.test.labels

# %% [markdown]
# ## With linen
#
# The optimizer `tx` is RigL (Evci et al. 2019, arXiv:1911.11134) around AdamW. It keeps
# 10 % of the weights. Every 20 steps up to step 150, it drops the smallest weights and
# grows as many others, those with the largest gradients.
#
# Pass the initial weights through `masks.apply` once, so that those outside the masks
# are zero from the beginning. From then on `optax.apply_updates` keeps them at exactly
# zero.

# %%
model = nn.Sequential([nn.Dense(100), nn.relu, nn.Dense(10)])


def loss(params, batch):
    logits = model.apply(params, batch[0])
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        logits, batch[1]
    ).mean()


def train(params, tx, steps=200):
    """Trains with an optimizer from masked weights; returns weights and its state."""
    opt_state = tx.init(params)
    params = masks.apply(transforms.get_masks(opt_state), params)

    @jax.jit
    def step(params, opt_state, batch):
        grads = jax.grad(loss)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    shuffled = np.random.default_rng(0).integers(len(x), size=(steps, 100))
    for rows in shuffled:
        params, opt_state = step(params, opt_state, (x[rows], labels[rows]))
    return params, opt_state


initial = model.init(jax.random.key(0), x)
rigl = transforms.rigl(optax.adamw(1e-2), sparsity=0.9, update_every=20, end_step=150)
params, opt_state = train(initial, rigl)

# %% [markdown]
# The masks are in the optimizer state: `get_masks` finds them at any depth. They are
# saved, sharded and mapped together with it.

# %%
active = transforms.get_masks(opt_state)
predicted = model.apply(params, test_x).argmax(-1)
print(f"test accuracy {np.mean(predicted == test_labels):.3f}")
print(f"{masks.num_active(active)} of {masks.size(active)} weights are active")
print(f"{masks.num_active(transforms.ever_active(opt_state))} were active at some step")
for name, count in masks.layer_counts(active).items():
    print(name, count)

# %% [markdown]
# Other methods are called in the same way:
#
# - fixed masks and pruning: `fixed`, `gradual_magnitude`, `one_shot_magnitude`,
#   `granet`, `ac_dc`;
# - dynamic sparse training: `sparse_evolution` (SET), `rigl`, `srigl`, `snfs`, `mest`,
#   `chts`, `east`, `neurrev`;
# - dense latent weights: `straight_through`, `top_kast`, `sr_ste`;
# - weights that a function of the trained parameters makes zero: `learned_threshold`
#   (STR), `continuous_sparsification`, `edge_popup`, `s_ste`, `dynadiag`; tickets by
#   trained scores: `gem_miner`;
# - projections after each step: `weight_sparse`, `proximal_l1`.
#
# Methods with dense latent weights compute the loss and its gradient with
# `transforms.forward_params(params, opt_state)`, which works for all others too.
#
# `transforms.reparameterize` wraps the inner optimizer of any method, so that it trains
# other parameters than the weights, for example by `transforms.sign_in()`.
#
# ## Pruning before training
#
# `prune.prune` makes masks from scores of the weights; by default the score is the
# magnitude. `fixed` trains with these masks. SNIP (Lee et al. 2019, arXiv:1810.02340)
# estimates how much the loss depends on each weight, from batches with a leading axis.
# SynFlow (Tanaka et al. 2020, arXiv:2006.05467) needs no data, and many iterations.

# %%
batches = (x[None, :500], labels[None, :500])  # one batch of 500 examples


def snip(params, active):
    return scores.snip(loss, params, active, batches)


def synflow(params, active):
    return scores.synflow(model.apply, params, active, (1, 64))


snip_masks = prune.prune(initial, 0.9, score=snip)
synflow_masks = prune.prune_iteratively(initial, 0.9, score=synflow, iterations=20)

fixed = transforms.fixed(optax.adamw(1e-2), masks=snip_masks)
pruned, fixed_state = train(initial, fixed)
predicted = model.apply(pruned, test_x).argmax(-1)
print(f"SNIP: test accuracy {np.mean(predicted == test_labels):.3f}")

# %% [markdown]
# ## With nnx
#
# `nnx.Optimizer` holds the masks in its `opt_state`. Here gradual magnitude pruning
# (Zhu and Gupta 2017, arXiv:1710.01878) goes from the dense network to 20 % of the
# weights.

# %%
rngs = nnx.Rngs(0)
network = nnx.Sequential(nnx.Linear(64, 50, rngs=rngs), nnx.Linear(50, 10, rngs=rngs))
pruning = transforms.gradual_magnitude(
    optax.sgd(0.1), sparsity=0.8, begin_step=20, end_step=60, update_every=10
)
optimizer = nnx.Optimizer(network, pruning, wrt=nnx.Param)


@nnx.jit
def nnx_step(network, optimizer, x, labels):
    def loss(network):
        return optax.losses.softmax_cross_entropy_with_integer_labels(
            network(x), labels
        ).mean()

    optimizer.update(network, nnx.grad(loss)(network))


for _ in range(80):
    nnx_step(network, optimizer, x[:500], labels[:500])

nnx_masks = transforms.get_masks(optimizer.opt_state)
print(f"nnx: {masks.num_active(nnx_masks)} of {masks.size(nnx_masks)} weights")

# %% [markdown]
# Masks fit every tree of the same names and shapes, such as the state of the network.
# `replace_masks` gives an optimizer other masks, for example those of a ticket:

# %%
nnx_weights = masks.apply(nnx_masks, nnx.state(network, nnx.Param))
ticket = prune.prune(nnx_weights, 0.9)
optimizer.opt_state = transforms.replace_masks(optimizer.opt_state, ticket)
nnx_step(network, optimizer, x[:500], labels[:500])
print(f"after replacing: {masks.num_active(ticket)} weights")

# %% [markdown]
# ## What may be outside of the wrapper
#
# Put the optimizer with its schedule, clipping and averaging *inside* the wrapper.
# Outside of it may be:
#
# - transformations of gradients before it: `optax.chain(optax.clip(1.0), tx)`;
# - wrappers that decide whether, or for which leaves, it is called:
#   `optax.apply_if_finite`, `MultiSteps`, `partition`, `masked`.
#
# What changes its updates afterward breaks the exact zeros: `optax.chain(tx, scale)`
# and other links behind it, and `mechanize`, `schedule_free` or `lookahead` around it.
# `transforms.apply_updates(params, updates, opt_state)` in place of
# `optax.apply_updates` makes the weights outside the masks exactly zero in these cases
# too.
#
# A mask update whose scores are not finite is skipped, and counted in `skipped_updates`
# of the state.
#
# ## Which weights, and in which groups
#
# By default, the leaves named kernel, weight, w or embedding with two or more axes are
# prunable. All methods but `fixed`, and `prune.prune`, take `layers=LayerOptions(...)`
# (in `transforms` and in `prune`) with:
#
# - `prunable=("*/kernel", "!head/*")`: patterns of the leaves that are prunable;
# - `dense=("*head/*",)`: leaves that stay dense;
# - `structure=select.n_of_m(4)`, `blocks`, `channels`, `fan_in` or `diagonals`:
#   structured sparsity;
# - `distribution="erk"`: how the sparsity is divided among the layers.
#
# How mask updates drop and grow weights is set likewise, for example by
# `updates=transforms.RigLOptions(drop_fraction=0.5, grow="random")`.
#
# Distributions and structures depend on which axes of a weight are inputs and outputs.
# Flax's and Equinox's usual layers are recognized by their names and shapes. `axes`
# gives the layout of others, such as depthwise convolutions or PyTorch's order (outputs
# first):

# %%
conv = jax.random.normal(jax.random.key(0), (3, 3, 1, 8))  # depthwise
up = jax.random.normal(jax.random.key(1), (6, 4))
weights = {"conv": {"kernel": conv}, "up": {"weight": up}}
axes = {"conv/*": fan_axes.DEPTHWISE, "up/*": "oi"}  # or fan_axes.TORCH for all
layers = prune.LayerOptions(distribution="erk", axes=axes)
erk_masks = prune.prune(weights, 0.5, layers=layers)
print({name: count for name, count in masks.layer_counts(erk_masks).items()})

# %% [markdown]
# For a linen network, `fan_axes.of_linen(model.apply, params, x)` reads the layouts
# from its layers.
