"""One training step and the evaluation of one batch, for a single replicate.

`scan_chunks` maps these functions over replicates, repeats and compiles them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxsparse import losses, transforms
from jaxsparse.training import solution_penalty, state_sharding
from jaxsparse.training.state import TrainState
from jaxsparse.types import Params

Images = UInt8[Array, "b h w c"]


class MetricSums(NamedTuple):
    """Sums over predictions; not means, so that batches of any size add up.

    A network makes one prediction for each example, or one for each token that it reads
    (`losses.PredictionTask`).

    Attributes:
      loss: sum of the losses, in nats, float32 or wider.
      correct: number of correct predictions, int32; in steps made with `per_example`, 1
        or 0 for each example of the whole batch.
      predictions: number of predictions, int32.
    """

    loss: Float[Array, "..."]
    correct: Int[Array, "..."]
    predictions: Int[Array, "..."]


@runtime_checkable
class Augment(Protocol):
    """Applies random augmentation to training images."""

    def __call__(
        self, images: Images, *, key: Key[Array, ""], places: Int[Array, "b"]
    ) -> Images:
        """Augments a batch of images.

        Args:
          images: uint8 [b h w c].
          key: typed random key of the step.
          places: position of each image in the whole batch, int [b]. Image i draws from
            `key` folded with `places[i]`, so that the result does not depend on how a
            batch is split over devices.

        Returns:
          Augmented images, uint8 [b h w c].
        """


@runtime_checkable
class AnnealedModel(Protocol):
    """Modifies a network as a function of the training step.

    `factory.tost.make_annealed_model` makes one.
    """

    def __call__(
        self, model: nn.Module, clock: Int[Array, ""], *, train: bool
    ) -> nn.Module:
        """Returns the network at a training step.

        Args:
          model: the network without modifications.
          clock: training step, int32 scalar, possibly traced.
          train: whether the network is used in training mode.
        """


TrainStep = Callable[..., tuple[TrainState, MetricSums]]
Smoothing = Callable[[Int[Array, ""]], Float[Array, ""]]
Gather = Callable[[Params], Params]
LossGradient = Callable[..., tuple[Any, Any]]


def make_loss_gradient(
    model: nn.Module,
    *,
    task: losses.PredictionTask,
    annealed: AnnealedModel | None = None,
    label_smoothing: float | Smoothing = 0.0,
    smooth_over: str = "every",
    gather: Gather | None = None,
    per_example: bool = False,
) -> LossGradient:
    """Makes the function that computes the gradient of the training loss.

    Args:
      model: network, called as `model.apply(variables, inputs, train=True)`.
      task: inputs and targets of the network for a batch of examples.
      annealed: modifies the network as a function of the training step; None leaves it
        unchanged.
      label_smoothing: weight in [0, 1) of the uniform part of the targets, or a
        function from the training step to that weight.
      smooth_over: classes that receive the uniform part: "every" class, or only the
        "others", which excludes the true class.
      gather: all-gathers sharded parameters, made by `state_sharding.make_gather`. It
        runs again in the backward pass, so that whole parameters are not kept in memory
        between the passes. None if every device holds whole parameters.
      per_example: whether the metric sums contain the correctness of each example
        instead of their number. Correctness is that of the forward pass: on augmented
        images, before the update.

    Returns:
      A function `(weights, stats, images, labels, batch_size, step)` to the gradient of
      the loss and a pair of metric sums and batch statistics. The loss is the sum over
      all predictions divided by the number of predictions for `batch_size` examples,
      the size of the whole batch, so that the sum of gradients over devices is the
      gradient of the mean loss.
    """

    def gradient(
        weights: Any,
        stats: Any,
        images: Images,
        labels: Int[Array, "b"],
        batch_size: Any,
        step: Int[Array, ""],
    ) -> tuple[Any, Any]:
        inputs, targets = task.inputs(images), task.targets(images, labels)
        network = model if annealed is None else annealed(model, step, train=True)
        smooth = label_smoothing
        smoothing = smooth(step) if callable(smooth) else smooth

        def objective(params: Any) -> tuple[Float[Array, ""], Any]:
            variables = {"params": params, "batch_stats": stats}
            logits, changed = network.apply(
                variables, inputs, train=True, mutable=["batch_stats"]
            )
            each = losses.cross_entropy(
                logits, targets, label_smoothing=smoothing, smooth_over=smooth_over
            )
            total = jnp.sum(each)
            correct = losses.is_correct(logits, targets)
            sums = MetricSums(
                total,
                correct if per_example else jnp.sum(correct),
                jnp.asarray(targets.size, jnp.int32),
            )
            predictions = batch_size * (targets.size // len(targets))
            return sums.loss / predictions, (sums, changed.get("batch_stats", {}))

        computed = objective if gather is None else _gathering(gather, objective)
        return jax.grad(computed, has_aux=True)(weights)

    return gradient


def make_train_step(
    gradient: LossGradient,
    tx: optax.GradientTransformationExtraArgs,
    *,
    augment: Augment | None = None,
    penalty: float = 0.0,
    axis_name: str | None = None,
) -> TrainStep:
    """Makes the function that runs one training step.

    Args:
      gradient: gradient of the training loss, from `make_loss_gradient`.
      tx: sparse optimizer; the training step is passed to its `update` as the keyword
        argument `clock`.
      augment: random augmentation of the images; None trains on the images unchanged.
      penalty: strength of `solution_penalty.penalty`, used if a step receives past
        solutions; positive repels, negative attracts.
      axis_name: mapped axis over which a batch is split, for sums over devices; None if
        every call receives the whole batch.

    Returns:
      A function `(state, images, labels, *, places, batch_size, key, growth,
      past_solutions)` to the next state and the metric sums of the batch. `images` is
      uint8 [b h w c], `labels` int [b], and `places` the position of each example in
      the whole batch. `batch_size` is the size of the whole batch: the loss is the mean
      over it. `key` is the replicate's key of augmentation. `growth` is None, or images
      and labels whose gradient scores the weights to grow, complete on every device.
      `past_solutions` is None, or the past solutions of the penalty. The metric sums do
      not include the penalty.
    """

    def step(
        state: TrainState,
        images: Images,
        labels: Int[Array, "b"],
        *,
        places: Int[Array, "b"],
        batch_size: int,
        key: Key[Array, ""],
        growth: tuple[UInt8[Array, "g h w c"], Int[Array, "g"]] | None = None,
        past_solutions: solution_penalty.PastSolutions | None = None,
    ) -> tuple[TrainState, MetricSums]:
        # The key is folded with the training step, so that a resumed run draws the same
        # augmentation.
        if augment is not None:
            draws = jax.random.fold_in(key, state.step)
            images = augment(images, key=draws, places=places)
        stats = state.batch_stats
        weights = transforms.forward_params(state.params, state.opt_state)
        grads, (sums, batch_stats) = gradient(
            weights, stats, images, labels, batch_size, state.step
        )
        if axis_name is not None:
            grads, sums = _sum_over_devices(grads, sums, axis_name)
        if past_solutions is not None:
            # Added after the sum over devices: before it, every device would add the
            # penalty once.
            pull = jax.grad(solution_penalty.penalty)(
                weights,
                transforms.get_masks(state.opt_state),
                past_solutions.solutions,
                strength=penalty,
                count=past_solutions.count,
            )
            grads = jax.tree.map(jnp.add, grads, pull)
        extra: dict[str, Any] = {"clock": state.step}
        # A function instead of gradients, so that the extra backward pass runs only at
        # mask updates.
        if growth is not None:
            extra["growth_grads"] = lambda params: gradient(
                params, stats, *growth, len(growth[1]), state.step
            )[0]
        updates, opt_state = tx.update(grads, state.opt_state, state.params, **extra)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state), sums

    return step


def _sum_over_devices(
    grads: Any, sums: MetricSums, axis_name: str
) -> tuple[Any, MetricSums]:
    """Sums gradients and metric sums over the devices that share a batch."""
    share = sums.correct
    grads, sums = jax.lax.psum((grads, sums), axis_name)
    if share.ndim:
        # The correctness of each example, which a sum would mix: each device has
        # another share of the batch.
        sums = sums._replace(correct=jax.lax.all_gather(share, axis_name, tiled=True))
    return grads, sums


def _gathering(gather: Gather, objective: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a loss to discard gathered parameters until the backward pass."""
    return jax.checkpoint(
        lambda params: objective(gather(params)), policy=state_sharding.keeps
    )


def make_eval_step(
    model: nn.Module,
    *,
    task: losses.PredictionTask,
    annealed: AnnealedModel | None = None,
    gather: Gather | None = None,
) -> Callable[..., MetricSums]:
    """Makes the function that evaluates a batch with the network in inference mode.

    Args:
      model: network, called as `model.apply(variables, inputs, train=False)`.
      task: inputs and targets of the network for a batch of examples.
      annealed: modifies the network as a function of the training step; None leaves it
        unchanged.
      gather: all-gathers sharded parameters; None if every device holds whole
        parameters.

    Returns:
      A function `(state, images, labels)` to metric sums. A label of -1 marks padding,
      which is not counted. The loss is the cross-entropy without label smoothing, also
      after training with smoothed labels.
    """

    def step(state: TrainState, images: Images, labels: Int[Array, "b"]) -> MetricSums:
        params = transforms.forward_params(state.params, state.opt_state)
        params = params if gather is None else gather(params)
        variables = {"params": params, "batch_stats": state.batch_stats}
        network = (
            model if annealed is None else annealed(model, state.step, train=False)
        )
        logits = network.apply(variables, task.inputs(images), train=False)
        targets = task.targets(images, labels)
        # Padding has the target -1. It never equals a prediction, and its loss is
        # computed for class 0 and discarded.
        real = targets >= 0
        each = losses.cross_entropy(logits, jnp.maximum(targets, 0))
        return MetricSums(
            jnp.sum(jnp.where(real, each, 0.0)),
            jnp.sum(losses.is_correct(logits, targets)),
            jnp.sum(real.astype(jnp.int32)),
        )

    return step
