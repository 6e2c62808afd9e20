# %% [markdown]
# # A score and a method of your own
#
# This file is a tutorial and a config file at once. It registers a score and a pruning
# method, and its recipes train with them:
#
# ```bash
# python experiments/train.py --config=experiments/tutorials/own_method.py
# python experiments/train.py --config=experiments/tutorials/own_method.py:static
# python experiments/train.py --config=experiments/tutorials/own_method.py:lottery
# ```

# %%
import jax
import jax.numpy as jnp

import jaxsparse
from configs import lth_digits
from jaxsparse import masks, select, transforms

# %% [markdown]
# ## A score
#
# A score function gets the parameters and the masks of one network and returns a number
# for each weight; the weights with the highest scores are kept. `masks.tree_map` calls
# a function on every prunable leaf.
#
# Compared by magnitude over all layers, a layer with small weights may lose all of
# them. LAMP (Lee et al. 2021, arXiv:2010.07611, equation 3) divides the square of each
# weight by the sum of the squares of all weights in its layer that are at least as
# large. The largest weight of every layer has the score 1, the highest possible one.


# %%
@jaxsparse.register_score("lamp", label="LAMP")
def lamp(params, active):
    """Layer-adaptive magnitudes: squares relative to those not smaller."""

    def score(mask, weight):
        squares = jnp.where(mask, weight**2, 0).reshape(-1)
        order = jnp.argsort(squares)
        from_each = jnp.cumsum(squares[order][::-1])[::-1]
        tiny = jnp.finfo(squares.dtype).tiny  # a layer may be all zeros
        relative = squares[order] / jnp.maximum(from_each, tiny)
        return jnp.zeros_like(squares).at[order].set(relative).reshape(weight.shape)

    return masks.tree_map(score, active, params)


# %% [markdown]
# ## A method
#
# A method is a function from an optax optimizer to a sparse one. `transforms.sparsify`
# keeps the weights outside the masks at zero, resets their optimizer state, and calls
# `update_masks` at the steps for which `update_at` is true.
#
# This method prunes gradually by LAMP, with the cubic schedule of Zhu and Gupta (2017,
# arXiv:1710.01878). The numbers of weights to keep are integers, computed in advance in
# Python, because rounding in float32 would miss some of them. In a compiled step,
# `step` is traced and selects one.


# %%
@jaxsparse.register_method(
    "gradual_lamp",
    arguments=("sparsity", "begin_step", "end_step", "update_every"),
    label="gradual LAMP",
    requires=("begin_step", "end_step"),
    first_update="start",
    include_end=True,
    finishes_at="end_step",
)
def gradual_lamp(inner, *, sparsity, begin_step, end_step, update_every):
    """Prunes by LAMP from `begin_step` to `end_step`, every `update_every` steps."""

    def update_masks(active, params, grads, *, step, **extra):
        size = sum(mask.size for mask in jax.tree.leaves(active))
        kept = []
        for at in range(begin_step, end_step + 1, update_every):
            progress = (at - begin_step) / (end_step - begin_step)
            kept.append(round(size * (1 - sparsity * (1 - (1 - progress) ** 3))))
        count = jnp.array(kept, jnp.int32)[(step - begin_step) // update_every]
        scores = lamp(params, active)
        new = select.top_k_global(scores, count, candidates=active)
        return transforms.MaskUpdate(new, finite=select.all_finite(scores, active))

    def update_at(step):
        is_between = (step >= begin_step) & (step <= end_step)
        return is_between & ((step - begin_step) % update_every == 0)

    return transforms.sparsify(
        inner, masks.ones, update_masks=update_masks, update_at=update_at
    )


# %% [markdown]
# ## Recipes
#
# `get_config` returns the config of a preset. Registered names are valid values of
# `sparse.method`, `sparse.pai_score` (pruning at initialization) and `lottery.score`.
# These recipes start from one on digits, and can be changed on the command line as any
# other: `--config.sparse.sparsity=0.95`.


# %%
def get_config(preset=""):
    """Returns the recipe; `preset` is "" (the method), "static" or "lottery"."""
    c = lth_digits.get_config("quick")
    c.name = f"own_method_{preset}" if preset else "own_method"
    c.training.duration = "10ep"  # 190 steps
    c.lottery.levels, c.lottery.controls = 0, ()
    c.sparse.sparsity = 0.9
    if preset == "lottery":
        c.lottery.levels, c.lottery.fraction = 2, 0.5
        c.lottery.score = "lamp"
    elif preset == "static":
        c.sparse.method, c.sparse.pai_score = "static", "lamp"
    elif preset == "":
        c.sparse.method = "gradual_lamp"
        c.sparse.begin_step, c.sparse.end_step = "20step", "140step"
        c.sparse.update_every = "20step"
    else:
        raise ValueError(f"expected the preset '', 'static' or 'lottery', got {preset}")
    return c


# %% [markdown]
# ## The result
#
# The program `train.py` imports this file to get its config, so what follows runs only
# in a notebook or as a script. A run directory contains a copy of the files that
# registered its method; `jaxsparse.load` executes the copy. Open only run directories
# that you trust, or use `jaxsparse.load(folder, execute=False)`.

# %%
if __name__ == "__main__":
    import subprocess
    import sys

    command = [sys.executable, "experiments/train.py", "--workdir=runs/own_method"]
    config_file = "--config=experiments/tutorials/own_method.py"
    subprocess.run([*command, config_file], check=True)
    run = jaxsparse.load("runs/own_method")
    for name, count in masks.layer_counts(run.masks()).items():
        print(name, count)
    levels = run.records().query("kind == 'level'")
    print(f"test accuracy {levels.test_accuracy.mean():.3f}")
