"""Makes the parts of a run: optimizer, learning rate, and the network to train."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxsparse import initializers, rng, transforms, tree
from jaxsparse import masks as masks_lib
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import (
    flops,
    gradinit,
    init_masks,
    input_data,
    methods,
    models,
    sparse_inits,
    tost,
)
from jaxsparse.factory import scores as scores_lib
from jaxsparse.factory.durations import Durations, config_context
from jaxsparse.runner.task import StartWeights, TrainTask, dense_masks
from jaxsparse.training import optimizers
from jaxsparse.training import state as state_lib
from jaxsparse.training.state import Seeds


def make_optimizer(config: ConfigDict, rate: optimizers.LearningRate) -> Any:
    """Makes the dense optimizer of a config, which a sparse method wraps.

    Args:
      config: a validated config.
      rate: learning rate as a function of the training step.

    Returns:
      An optax transformation; `methods.make_wrap` makes it sparse.
    """
    made = _make_plain_optimizer(config, rate)
    if config.optimizer.scale_by_density:
        return optax.chain(made, transforms.scale_by_density())
    return made


def _make_plain_optimizer(config: ConfigDict, rate: optimizers.LearningRate) -> Any:
    """Makes the optimizer without regard to masks."""
    c = config.optimizer
    decays = None if c.weight_decay_mask == "all" else optimizers.kernels_only
    # AdamW decouples weight decay from the gradient. The others add an L2 gradient,
    # before momentum and adaptive scaling.
    if c.name == "adamw":
        return optimizers.adamw(
            rate,
            b1=c.b1,
            b2=c.b2,
            eps=c.eps,
            weight_decay=c.weight_decay,
            decays=decays,
        )
    if c.name == "adam":
        plain = optimizers.adam(rate, b1=c.b1, b2=c.b2, eps=c.eps)
    else:
        plain = optimizers.sgd(rate, momentum=c.momentum, nesterov=c.nesterov)
    return optimizers.with_l2(plain, weight_decay=c.weight_decay, decays=decays)


def variable_shapes(
    config: ConfigDict, make: Callable[[], nn.Module], example: jax.ShapeDtypeStruct
) -> Any:
    """Returns the shapes of a network's variables for its inputs.

    Args:
      config: a validated config, for the message.
      make: makes the network; called under tracing, so that it computes nothing.
      example: a batch of one input, abstract.

    Returns:
      The variables as `jax.ShapeDtypeStruct`, with "params" and possibly "batch_stats".

    Raises:
      ValueError: if a layer has no weights because strides and pooling have reduced the
        images to nothing.
    """

    def first() -> Any:
        one = jnp.zeros(example.shape, example.dtype)
        return make().init(jax.random.key(0), one, train=False)

    try:
        like = jax.eval_shape(first)
        empty = any(not leaf.size for leaf in jax.tree.leaves(like["params"]))
    except ZeroDivisionError:  # linen divides by a fan-in of 0
        empty = True
    if empty:
        raise ValueError(
            f"config.model.name: expected a network for images of shape "
            f"{example.shape[1:]}, got "
            f"{config.model.name!r}, whose strides and pooling leave nothing of them; "
            "choose another network, or larger images"
        )
    return like


def make_seeds(config: ConfigDict) -> Seeds:
    """Makes the random keys of all replicates of a config.

    Args:
      config: a validated config.
    """
    return state_lib.make_seeds(
        **config.seeds,
        replicates=config.replicates,
        particles=config.lottery.particles,
    )


def make_rate(config: ConfigDict, length: Durations) -> optimizers.LearningRate:
    """Makes the learning rate schedule of a config.

    Args:
      config: a validated config.
      length: durations of the config in steps.

    Returns:
      A function from the training step to the learning rate.
    """
    return optimizers.learning_rate(
        peak=config.schedule.learning_rate,
        total=length.total,
        warmup=length.schedule.warmup,
        decay=config.schedule.name,
        milestones=length.schedule.milestones,
        gamma=config.schedule.gamma,
    )


def _make_first_weights(
    config: ConfigDict, weights: Any, stats: Any
) -> Callable[[Any], tuple[Any, Any]]:
    """Makes the function that draws the initial weights of all replicates.

    Args:
      config: a validated config.
      weights: shapes of the parameters.
      stats: shapes of the BatchNorm statistics, empty without BatchNorm.

    Returns:
      A function from keys [r] to parameters and statistics with leaves [r ...].
    """
    draw = functools.partial(
        initializers.initialize,
        weights,
        kernel=config.init.kernel,
        bias=config.init.bias,
        norm_scale=config.init.norm_scale,
        zero_init=tuple(config.init.zero_init),
    )

    def one(key: Any) -> tuple[Any, Any]:
        # Running means start at 0 and running variances at 1, as in Flax.
        first = tree.map_with_names(
            lambda name, leaf: jnp.full(leaf.shape, name.endswith("var"), leaf.dtype),
            stats,
        )
        return tost.fill(draw(key=key)), first

    def every(keys: Any) -> tuple[Any, Any]:
        if config.init.shared:
            # A clone, because JAX's key-reuse checker counts the slice as a use.
            keys = jnp.broadcast_to(jax.random.clone(keys[:1]), keys.shape)
        return jax.vmap(one)(keys)

    return every


def make_network(config: ConfigDict, dataset: Dataset, length: Durations) -> TrainTask:
    """Makes the network's initialization, optimizer and masks.

    Args:
      config: a validated config.
      dataset: the dataset. Image size and number of classes determine the shapes; its
        examples are used by scores and by GradInit.
      length: durations of the config in steps.

    Returns:
      What `runner` trains.

    Raises:
      ValueError: if the parts do not fit together; the message names the config field.
    """
    model = models.make_model(config, classes=dataset.classes)
    models.check_images(config, dataset.train.images.shape[1:])
    task = input_data.make_task(config, dataset)
    example = input_data.example_input(config, dataset)
    annealed = tost.make_annealed_model(config, length)
    # Ghost skips have parameters, which must exist from the first step on.
    like = variable_shapes(
        config,
        lambda: model if annealed is None else annealed(model, 0, train=False),
        example,
    )
    stats = like.get("batch_stats", {})
    # Two networks with the same parameters: `trained` may compute convolutions with
    # custom gradients that are faster on CPUs, `model` with the library's, which
    # `connectivity` can trace.
    trained = models.make_model(config, classes=dataset.classes, training=True)
    weights = like["params"]
    dense = init_masks.ends_kept_whole(config, model, weights, stats, example)
    rate = make_rate(config, length)
    # Traced, because names and shapes alone do not tell inputs from outputs.
    axes = init_masks.layouts(model, weights, stats, example)
    wrap = methods.make_wrap(config, length, rate, dense=dense, axes=axes)
    tx = wrap(make_optimizer(config, rate), rng.make_key(config.seeds.masks))
    with config_context("sparse"):
        prunable = methods.prunable(config)
        # Dense, and made on the host, so that no program is compiled for them.
        masks = dense_masks(
            jax.eval_shape(lambda: masks_lib.ones(weights, prunable=prunable))
        )
        state = jax.eval_shape(tx.init, weights)  # raises errors early
    if config.optimizer.scale_by_density:
        step = functools.partial(tx.update, clock=jnp.zeros((), jnp.int32))
        try:
            jax.eval_shape(step, weights, state, weights)
        except ValueError as error:
            raise ValueError(
                "config.optimizer.scale_by_density: expected False with sparse.method "
                f"{config.sparse.method!r} and sparse.reparameterization "
                f"{config.sparse.reparameterization!r}, which give the optimizer no "
                "masks of what it trains, got True; choose a method with masks and no "
                "reparameterization, or leave the field out"
            ) from error
    init_masks.check_masks(config, weights, dense=dense, axes=axes)
    # Scores are computed with `precise=True`: in float32 even if activations are
    # bfloat16.
    precise = models.make_model(config, classes=dataset.classes, precise=True)
    return TrainTask(
        jax.jit(_make_first_weights(config, weights, stats)),
        tx,
        masks,
        first_masks=init_masks.make_init_masks(
            config, dataset, precise, task, wrap, dense=dense, axes=axes
        ),
        start=StartWeights(
            fresh_weights=config.sparse.ablation == "reinitialized",
            redraw=_make_redraw(config, axes, weights, masks),
            rescale=gradinit.make_rescale(
                config,
                dataset,
                model=tost.as_rescaled(trained, annealed),
                task=task,
                augment=input_data.make_augment(config),
            ),
        ),
        count_effective=init_masks.make_effective_count(
            model, weights, stats, example, masks
        ),
        level_scores=scores_lib.make_level_scores(config, dataset, precise, task),
        flops=flops.make_account(
            config,
            length,
            init_masks.inference_of(model, stats),
            weights,
            example,
            masks,
        ),
    )


def _make_redraw(config: ConfigDict, axes: Any, weights: Any, masks: Any) -> Any:
    """Makes the function that draws weights for given masks; None without one.

    Args:
      config: a validated config.
      axes: which axes of each weight are inputs and outputs.
      weights: shapes of the parameters.
      masks: shapes of the masks.

    Raises:
      ValueError: if it does not fit the network; the message names the config field.
    """
    redraw = sparse_inits.make_sparse_init(config, axes)
    if redraw is not None:
        with config_context("init"):
            # Traced only, so that errors are raised before anything is compiled.
            jax.eval_shape(redraw, weights, masks, jax.eval_shape(jax.random.key, 0))
    return redraw
