"""One step of training, and one batch of evaluation, for one replicate.

`epoch` maps these over replicates, repeats them, and compiles.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxsparse import transforms
from jaxsparse.training import losses, solution_penalty, state_sharding
from jaxsparse.training.state import TrainState
from jaxsparse.types import Params

Images = UInt8[Array, "b h w c"]


class MetricSums(NamedTuple):
    """Sums over examples, exact to add up across batches and devices.

    Attributes:
      loss: sum of losses, in nats.
      correct: number of examples classified correctly; or 1 and 0 for each example of
        the batch, where a step was made to say so.
      examples: number of examples.
    """

    loss: Float[Array, "..."]
    correct: Int[Array, "..."]
    examples: Int[Array, "..."]


@runtime_checkable
class Augment(Protocol):
    """Changes training images at random."""

    def __call__(
        self, images: Images, *, key: Key[Array, ""], places: Int[Array, "b"]
    ) -> Images:
        """Returns changed images; example i draws from `key` folded with places[i]."""


@runtime_checkable
class AnnealedModel(Protocol):
    """Changes a network by the clock, such as `build.ghosts` does."""

    def __call__(
        self, model: nn.Module, clock: Int[Array, ""], *, train: bool
    ) -> nn.Module:
        """Returns the network as it is when the clock, traced, shows this."""


TrainStep = Callable[..., tuple[TrainState, MetricSums]]
Smoothing = Callable[[Int[Array, ""]], Float[Array, ""]]
Gather = Callable[[Params], Params]


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformationExtraArgs,
    *,
    augment: Augment | None,
    normalize: Callable[[Images], Float[Array, "b h w c"]],
    annealed: AnnealedModel | None = None,
    label_smoothing: float | Smoothing = 0.0,
    smooth_over: str = "every",
    penalty: float = 0.0,
    axis_name: str | None = None,
    gather: Gather | None = None,
    per_example: bool = False,
) -> TrainStep:
    """Makes the function that does one update.

    Args:
      model: called as `model.apply(variables, images, train=True)`.
      tx: sparse optimiser; its `update` gets the clock as `clock`.
      augment: random changes of the images; None for none.
      normalize: uint8 images to the network's floats.
      annealed: what is done to the network by the clock; None for nothing.
      label_smoothing: see `losses.cross_entropy`, or a function of the clock to it.
      smooth_over: see there.
      penalty: strength of `repelling.penalty`, where a step is given anchors.
      axis_name: mapped axis over which a batch is divided; None if a batch is whole.
      gather: brings weights together that lie divided, see `placement.make_gather`;
        done anew for the gradient, so that they are not whole longer than they are
        needed. None where they are whole.
      per_example: whether the tally says of each example of the whole batch if it was
        correct, instead of how many were; as the step saw it, augmented, before the
        update.

    Returns:
      A function `(state, images, labels, *, places, batch_size, key, growth, anchors)`
      to the next state and the batch's tally. `batch_size` is that of the whole batch;
      the loss is the mean over it, and the tally knows of no penalty. `growth` is None,
      or images and labels whose gradient decides which weights are grown; every device
      has all of them. `anchors` is None, or solutions to be repelled from.
    """

    def gradient(
        weights: Any,
        stats: Any,
        images: Images,
        labels: Int[Array, "b"],
        batch_size: Any,
        clock: Int[Array, ""],
    ) -> tuple[Any, Any]:
        """Differentiates the mean loss where the network computes."""
        inputs = normalize(images)
        network = model if annealed is None else annealed(model, clock, train=True)
        smooth = label_smoothing
        smoothing = smooth(clock) if callable(smooth) else smooth

        def objective(params: Any) -> tuple[Float[Array, ""], Any]:
            variables = {"params": params, "batch_stats": stats}
            logits, changed = network.apply(
                variables, inputs, train=True, mutable=["batch_stats"]
            )
            each = losses.cross_entropy(
                logits, labels, label_smoothing=smoothing, smooth_over=smooth_over
            )
            total = jnp.sum(each)
            correct = losses.is_correct(logits, labels)
            tally = MetricSums(
                total,
                correct if per_example else jnp.sum(correct),
                jnp.asarray(labels.size, jnp.int32),
            )
            return tally.loss / batch_size, (tally, changed.get("batch_stats", {}))

        computed = objective if gather is None else _gathering(gather, objective)
        return jax.grad(computed, has_aux=True)(weights)

    def step(
        state: TrainState,
        images: Images,
        labels: Int[Array, "b"],
        *,
        places: Int[Array, "b"],
        batch_size: int,
        key: Key[Array, ""],
        growth: tuple[UInt8[Array, "g h w c"], Int[Array, "g"]] | None = None,
        anchors: solution_penalty.PastSolutions | None = None,
    ) -> tuple[TrainState, MetricSums]:
        if augment is not None:
            draws = jax.random.fold_in(key, state.step)
            images = augment(images, key=draws, places=places)
        stats = state.batch_stats
        weights = transforms.forward_params(state.params, state.opt_state)
        grads, (tally, batch_stats) = gradient(
            weights, stats, images, labels, batch_size, state.step
        )
        if axis_name is not None:
            share = tally.correct
            grads, tally = jax.lax.psum((grads, tally), axis_name)
            if per_example:
                whole = jax.lax.all_gather(share, axis_name, tiled=True)
                tally = tally._replace(correct=whole)
        if anchors is not None:
            # Once, and not once a device: after the sum.
            pull = jax.grad(solution_penalty.penalty)(
                weights,
                transforms.get_masks(state.opt_state),
                anchors.solutions,
                strength=penalty,
                count=anchors.count,
            )
            grads = jax.tree.map(jnp.add, grads, pull)
        extra: dict[str, Any] = {"clock": state.step}
        if growth is not None:
            extra["growth_grads"] = lambda params: gradient(
                params, stats, *growth, len(growth[1]), state.step
            )[0]
        updates, opt_state = tx.update(grads, state.opt_state, state.params, **extra)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state), tally

    return step


def _gathering(gather: Gather, objective: Callable[..., Any]) -> Callable[..., Any]:
    """Computes with weights brought together, and forgets them until the gradient."""
    return jax.checkpoint(
        lambda params: objective(gather(params)), policy=state_sharding.keeps
    )


def make_eval_step(
    model: nn.Module,
    *,
    normalize: Callable[[Images], Float[Array, "b h w c"]],
    annealed: AnnealedModel | None = None,
    gather: Gather | None = None,
) -> Callable[..., MetricSums]:
    """Makes the function that tallies a batch with the network in inference mode.

    Args:
      model: called as `model.apply(variables, images, train=False)`.
      normalize: uint8 images to the network's floats.
      annealed: what is done to the network by the clock; None for nothing.
      gather: as for `make_train_step`.

    Returns:
      A function `(state, images, labels)`; a label of -1 marks padding, which counts
      for nothing. The loss is plain cross-entropy, also after training with smoothed
      labels.
    """

    def step(state: TrainState, images: Images, labels: Int[Array, "b"]) -> MetricSums:
        params = transforms.forward_params(state.params, state.opt_state)
        params = params if gather is None else gather(params)
        variables = {"params": params, "batch_stats": state.batch_stats}
        network = (
            model if annealed is None else annealed(model, state.step, train=False)
        )
        logits = network.apply(variables, normalize(images), train=False)
        real = labels >= 0
        each = losses.cross_entropy(logits, jnp.maximum(labels, 0))
        return MetricSums(
            jnp.sum(jnp.where(real, each, 0.0)),
            jnp.sum(losses.is_correct(logits, labels)),
            jnp.sum(real.astype(jnp.int32)),
        )

    return step
