"""Compaction of the networks of a run."""

from typing import Any

from jaxsparse import arguments
from jaxsparse.compaction.compacted import Compacted
from jaxsparse.compaction.linen_modules import compact_linen


@arguments.check(round_to=arguments.integer(1))
def compact_run(
    run: Any,
    example: Any,
    level: int | None = None,
    replicate: int = 0,
    *,
    variant: str = "ticket",
    round_to: int = 1,
) -> Compacted:
    """Removes dead neurons and channels of the network of a run; see `compact`.

    Args:
      run: the run, from `jaxsparse.load`.
      example: images, [b, h, w, c]; only the shape is used. For a language model,
        tokens, [b, t], from the first to the last, as `run.example_images()` returns.
      level: number of pruning rounds; None selects the last level.
      replicate: number of the replicate, counted from 0.
      variant: "ticket", or a control of the run.
      round_to: the number of units of a layer that stay is rounded up to a multiple of
        this; a layer with fewer units than that multiple keeps all. 1 or more.

    Returns:
      The smaller network: variables as `params`, and the `module`.

    Raises:
      TypeError: if `run` is not a run, or another argument has the wrong type.
      ValueError: if the level, replicate or variant does not exist.

    Examples:
      >>> from configs import lth_digits
      >>> config = lth_digits.get_config("quick")
      >>> config.training.duration, config.lottery.levels = "1ep", 1
      >>> config.lottery.controls = ()
      >>> trained = jaxsparse.run(config, "runs/digits")
      >>> images = jnp.zeros((1, 8, 8, 1))
      >>> small = compact_run(jaxsparse.load("runs/digits"), images)
      >>> small.module.apply(small.params, images, train=False).shape
      (1, 10)
    """
    if not all(hasattr(run, name) for name in ("model", "variables", "masks")):
        raise TypeError(f"run: expected a run, from `jaxsparse.load`, got {run!r}")
    return compact_linen(
        run.model(),
        run.variables(level, replicate, variant=variant),
        run.masks(level, replicate, variant=variant),
        example,
        round_to=round_to,
        train=False,
    )
