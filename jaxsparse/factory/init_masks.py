"""Makes the masks with which sparse training starts, chosen on the initial weights."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import connectivity, fan_axes, losses, prune, replicates
from jaxsparse import masks as masks_lib
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import coupled_masks, methods
from jaxsparse.factory import scores as scores_lib
from jaxsparse.factory.durations import config_context
from jaxsparse.lottery import controls
from jaxsparse.training.state import Seeds
from jaxsparse.types import Masks, Params

log = logging.getLogger(__name__)


def check(config: ConfigDict) -> None:
    """Checks the score and the options of static masks.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if a name is unknown, an option would have no effect, or two options
        exclude each other; the message names the config field.
    """
    coupled_masks.check(config)
    c = config.sparse
    spec = config_lib.SCORES.find(c.pai_score)
    if c.regrow and c.score_iterations == 1:
        raise ValueError(
            "config.sparse.regrow: expected False with sparse.score_iterations 1, got "
            "True; set more iterations"
        )
    plain = config_lib.read_only_default().sparse
    used = scores_lib.used(config)
    for name in ("score_batches", "score_batch_size"):
        if c[name] != plain[name] and not any(
            score.needs_data for score in used.values()
        ):
            known = [s.name for s in config_lib.SCORES.values() if s.needs_data]
            raise ValueError(
                f"config.sparse.{name}: expected {plain[name]} with "
                f"sparse.pai_score {c.pai_score!r}, which uses no examples, got "
                f"{c[name]}; choose one of {known}"
            )
    if c.score_iterations > 1 and not spec.varies:
        raise ValueError(
            "config.sparse.score_iterations: expected 1 with sparse.pai_score "
            f"{c.pai_score!r}, which pruning does not change, got "
            f"{c.score_iterations}; leave the field out"
        )
    if c.structure and c.ablation in ("shuffled_layers", "inverted"):
        raise ValueError(
            f"config.sparse.ablation: expected 'reinitialized' or None with "
            f"sparse.structure {c.structure!r}, which others would destroy, got "
            f"{c.ablation!r}; leave out one of the two"
        )
    if c.structure and c.score_iterations > 1:
        raise ValueError(
            "config.sparse.score_iterations: expected 1 with sparse.structure "
            f"{c.structure!r}, got {c.score_iterations}; leave out one of the two"
        )


def check_masks(
    config: ConfigDict,
    like: Any,
    *,
    dense: tuple[str, ...],
    axes: fan_axes.Axes,
) -> None:
    """Checks by shapes alone that static masks can be chosen.

    Otherwise the same error would be raised after the initial weights were made.

    Args:
      config: a validated config.
      like: parameters of one replicate, concrete or abstract.
      dense: names of layers to keep dense, in addition to the config's patterns.
      axes: input and output axes of the network's weights; None infers them from names
        and shapes.

    Raises:
      ValueError: if they cannot; the message names the config field.
    """
    c = config.sparse
    if c.method != "static" or config.warm_start.masks:
        return
    if coupled_masks.is_chosen(config):  # fits every network
        return
    choose = functools.partial(
        prune.prune,
        sparsity=c.sparsity,
        layers=_layer_options(config, (*c.dense, *dense), axes),
    )
    with config_context("sparse"):
        jax.eval_shape(choose, like)


def _layer_options(
    config: ConfigDict, dense: tuple[str, ...], axes: fan_axes.Axes
) -> prune.LayerOptions:
    """Returns which leaves are pruned, and how the sparsity is divided among them.

    Args:
      config: a validated config.
      dense: patterns and names of layers to keep dense.
      axes: input and output axes of the network's weights.
    """
    c = config.sparse
    spec = config_lib.SCORES.find(c.pai_score)
    return prune.LayerOptions(
        distribution=methods.make_distribution(config) or spec.distribution,
        dense=dense,
        structure=methods.read_structure(c.structure),
        min_layer_density=c.min_layer_density,
        prunable=methods.prunable(config),
        axes=axes,
    )


def make_init_masks(
    config: ConfigDict,
    dataset: Dataset,
    model: nn.Module,
    task: losses.PredictionTask,
    wrap: methods.Wrap,
    *,
    dense: tuple[str, ...],
    axes: fan_axes.Axes = None,
) -> Callable[[Params, Any, Seeds], Masks] | None:
    """Makes the function that chooses the first masks on the initial weights.

    Args:
      config: a validated config.
      dataset: supplies the training examples for scores; each replicate draws its own
        with its data key.
      model: the network.
      task: inputs and targets of the network for a batch of examples.
      wrap: makes an optimizer sparse, from `methods.make_wrap`.
      dense: names of layers to keep dense, in addition to the config's patterns.
      axes: input and output axes of the network's weights; None infers them from names
        and shapes.

    Returns:
      A function of weights, batch statistics and seeds [r ...] to masks [r ...]; None
      if training starts dense.
    """
    c = config.sparse
    spec = config_lib.SCORES.find(c.pai_score)
    if c.method == "none":
        return None
    if c.method != "static":
        return lambda params, stats, seeds: methods.masks_of_method(
            wrap, params, seeds.masks
        )

    def choose(params: Params, stats: Any, seeds: Seeds) -> Masks:
        # One replicate after the other: each is scored on its own examples, which are
        # gathered on the host.
        one_each = []
        for r in range(len(seeds.data)):
            weights, own_stats, own_seeds = replicates.take((params, stats, seeds), r)
            scorer = scores_lib.make_score_inputs(
                config, spec, dataset, model, task, own_stats, own_seeds
            )
            if coupled_masks.is_chosen(config):
                variables = {"params": weights, "batch_stats": own_stats}
                masks = coupled_masks.choose(config, model, variables, scorer)
            else:
                masks = _choose(config, weights, scorer, (*c.dense, *dense), axes)
            masks = _ablate(masks, weights, scorer, c, own_seeds.masks)
            if c.prune_disconnected:
                apply = functools.partial(scorer.network, train=False)
                masks = connectivity.live(apply, weights, masks, scorer.inputs[0, :1])
            one_each.append(masks)
        return replicates.stack(one_each)

    return choose


def _ablate(
    masks: Masks,
    params: Params,
    scorer: scores_lib.ScoreInputs,
    c: ConfigDict,
    key: Key[Array, ""],
) -> Masks:
    """Applies the ablations that move the masks.

    Args:
      masks: masks of one replicate.
      params: its initial weights.
      scorer: inputs of its score.
      c: the section "sparse" of the config.
      key: typed random key of its masks.

    Returns:
      New masks with the same layer counts; unchanged without such an ablation.
    """
    if c.ablation == "shuffled_layers":
        draw = controls.key_of(key, c.ablation, 0)
        return controls.shuffle_layers(masks, key=draw)
    if c.ablation == "inverted":
        everything = jax.tree.map(jnp.ones_like, masks)
        spec = config_lib.SCORES.find(c.pai_score)
        score = scorer.bind(spec, c, field=scores_lib.PAI_SCORE)
        found = score(params, everything)
        # SynFlow scores are float64; without this JAX would convert them to float32.
        with jax.enable_x64(scores_lib.is_wide(found)):
            return controls.invert(masks, found)
    # "reinitialized" keeps the masks; `TrainTask.fresh_weights` draws the other
    # weights.
    return masks


def _choose(
    config: ConfigDict,
    params: Params,
    scorer: scores_lib.ScoreInputs,
    dense: tuple[str, ...],
    axes: fan_axes.Axes,
) -> Masks:
    """Chooses the static masks of one replicate.

    Args:
      config: a validated config.
      params: initial weights of the replicate.
      scorer: inputs of its score.
      dense: patterns and names of layers to keep dense.
      axes: input and output axes of the network's weights.
    """
    c = config.sparse
    spec = config_lib.SCORES.find(c.pai_score)
    score = scorer.bind(spec, c, field=scores_lib.PAI_SCORE)
    with config_context("sparse"):
        layers = _layer_options(config, dense, axes)
        if c.score_iterations == 1:
            return prune.prune(params, c.sparsity, score=score, layers=layers)
        return prune.prune_iteratively(
            params,
            c.sparsity,
            score=score,
            iterations=c.score_iterations,
            regrow=c.regrow,
            layers=layers,
        )


def ends_kept_whole(
    config: ConfigDict, model: nn.Module, like: Any, stats: Any, example: Any
) -> tuple[str, ...]:
    """Names those of the first and last prunable layer that the config keeps dense.

    Args:
      config: a validated config.
      model: the network.
      like: parameters of one replicate, possibly abstract.
      stats: its batch statistics, possibly abstract; {} without BatchNorm.
      example: a batch of one input, possibly abstract.
    """
    c = config.sparse
    if not (c.first_layer_dense or c.last_layer_dense):
        return ()
    names = connectivity.first_to_last(
        inference_of(model, stats),
        like,
        masks_lib.ones(like, prunable=methods.prunable(config)),
        example,
    )
    return (names[0],) * c.first_layer_dense + (names[-1],) * c.last_layer_dense


def layouts(model: nn.Module, like: Any, stats: Any, example: Any) -> fan_axes.TreeAxes:
    """Finds the input and output axes of a network's weights by tracing its layers.

    Args:
      model: the network.
      like: parameters of one replicate, possibly abstract.
      stats: its batch statistics, possibly abstract; {} without BatchNorm.
      example: a batch of one input, possibly abstract.
    """
    return fan_axes.of_linen(inference_of(model, stats), like, example)


def make_effective_count(
    model: nn.Module, like: Any, stats: Any, example: Any, masks: Masks
) -> Callable[[Masks], int] | None:
    """Makes the function that counts active weights on paths from input to output.

    Args:
      model: the network.
      like: parameters of one replicate, possibly abstract.
      stats: its batch statistics, possibly abstract; {} without BatchNorm.
      example: a batch of one input, possibly abstract.
      masks: dense masks of one replicate, with which the function is tried out.

    Returns:
      A function of the masks of one replicate to a number of weights. None, after a
      warning, if the network contains an operation that cannot be traced.
    """

    def find(held: Masks) -> Masks:
        return connectivity.live(inference_of(model, stats), like, held, example)

    found = jax.jit(find)
    try:
        # Tracing finds operations without a rule, and computes nothing. Calls use the
        # trace.
        jax.eval_shape(found, masks)
    except ValueError as error:
        log.warning("weights on no path are not counted: %s", error)
        return None
    return lambda held: masks_lib.num_active(found(held))


def inference_of(model: nn.Module, stats: Any) -> Callable[..., Array]:
    """Returns the forward pass in inference mode, of parameters and inputs.

    Args:
      model: the network.
      stats: its batch statistics, possibly abstract; {} without BatchNorm. They are
        replaced by ones.
    """

    def forward(params: Params, inputs: Array) -> Array:
        # Only the structure of the computation matters, so positive constants serve.
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), stats)
        variables = {"params": params, "batch_stats": ones}
        return model.apply(variables, inputs, train=False)

    return forward
