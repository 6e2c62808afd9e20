# %% [markdown]
# # A lottery ticket in five minutes
#
# A lottery ticket is a sparse subnetwork that trains as well as the dense network, from
# the same initial weights (Frankle and Carbin 2019, arXiv:1803.03635). Iterative
# magnitude pruning finds tickets: train the network, prune the smallest weights, rewind
# the others to their initial values, and repeat.
#
# This tutorial finds tickets on small images of digits, which come with scikit-learn,
# and compares them with random masks. A CPU is enough. Install the package with
# `pip install -e '.[experiments]'`. Then run the tutorial in the project's folder with
# `python -m experiments.tutorials.first_ticket`, or cell by cell: editors and jupytext
# open this file as a notebook.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxsparse
from configs import lth_digits
from jaxsparse import masks
from jaxsparse.data import augment, datasets

# %% [markdown]
# ## Train
#
# A config describes the whole experiment. A file in `configs/` makes one, and every
# field can be changed before training. The preset `quick` of this recipe trains two
# replicates, two networks with different seeds, at the same time.
#
# Each of the three levels prunes 70 % of the remaining weights. At every level, the
# control `random_mask` trains as many weights at random positions.

# %%
config = lth_digits.get_config("quick")
config.training.duration = "5ep"  # epochs of every training
config.lottery.levels = 3
config.lottery.fraction = 0.7  # of the remaining weights, pruned at each level
config.lottery.controls = ("random_mask",)

run = jaxsparse.run(config, "runs/first_ticket")

# %% [markdown]
# `python experiments/train.py --config=configs/lth_digits.py:quick` does the same for
# its recipe and writes a report with tables and figures. If you run this cell again, it
# does not train again: a run continues where it stopped, and this one has ended.
#
# ## Compare
#
# The records of a run are a table. Its rows of kind "level" have the results of trained
# networks. The stage `level_03/ticket` is the ticket after three rounds of pruning,
# `level_03/random_mask` its control.

# %%
records = run.records()
trained = records[records.kind == "level"]
accuracy = trained.groupby("stage").test_accuracy.mean()

tickets = [run.masks(level) for level in run.levels()]
density = [masks.num_active(ticket) / masks.size(ticket) for ticket in tickets]
for level, remaining in enumerate(density):
    found = accuracy[accuracy.index.str.startswith(f"level_{level:02d}/")]
    print(f"{remaining:.1%} of the weights:", found.round(3).to_dict())

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for name in ("ticket", "random_mask"):
    rows = accuracy[accuracy.index.str.endswith(f"/{name}")]
    levels = [int(stage[6:8]) for stage in rows.index]
    axes.plot([density[level] for level in levels], rows, marker="o", label=name)
axes.set(xscale="log", xlabel="density", ylabel="test accuracy")
axes.invert_xaxis()
axes.legend()
figure.savefig("runs/first_ticket/accuracy.png")

# %% [markdown]
# With few weights, the ticket is clearly more accurate than the random mask.
#
# ## Use a ticket
#
# `masks` has a boolean array for each kernel, and None for each bias, which is never
# pruned. Weights outside the masks are exactly zero.

# %%
ticket, params = run.masks(level=3), run.params(level=3)
for name, layer in params.items():
    kernel, mask = layer["kernel"], ticket[name]["kernel"]
    print(f"{name}: {int(mask.sum()):,} of {mask.size:,} weights")
    assert not kernel[~mask].any()

# %% [markdown]
# `model` returns the network, a Flax module. It is applied to normalized images.

# %%
digits = datasets.load("digits", validation=config.data.validation)
pixels = jnp.asarray(digits.test.images)
images = augment.normalize(pixels, mean=digits.mean, std=digits.std)
logits = run.model().apply(run.variables(level=3), images, train=False)
correct = np.argmax(logits, axis=-1) == digits.test.labels
print(f"test accuracy of replicate 0: {correct.mean():.3f}")

# %% [markdown]
# ## Read on
#
# - `optax_loop.py`: sparse training in a loop of your own.
# - `own_method.py`: a score and a pruning method of your own.
# - `experiments/results/README.md`: the same experiment at full length, on the digits
#   and on MNIST.
