"""Checks that the fields of a warm start fit the other sections of a config."""

from ml_collections import ConfigDict

from jaxsparse import config as config_lib


def check(config: ConfigDict) -> None:
    """Checks that a warm start names a run, and that everything it provides is used.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if fields exclude each other or would have no effect; the message
        names the config field.
    """
    c, method = config.warm_start, config.sparse.method
    _check_masks_run(config)
    # Ticket files are named by their own path and need no run.
    from_run = bool(c.masks) and not is_ticket_file(c.masks)
    needs_run = bool(c.weights) or (from_run and not c.masks_run)
    if needs_run and not c.run:
        raise ValueError(
            "config.warm_start.run: expected the directory of a run with "
            f"warm_start.weights {c.weights!r} and warm_start.masks {c.masks!r}, got "
            "None; set it"
        )
    if c.run and not needs_run:
        raise ValueError(
            "config.warm_start.run: expected None with warm_start.weights "
            f"{c.weights!r} and warm_start.masks {c.masks!r}, got {c.run!r}; set what "
            "to take of the run"
        )
    if c.replicate is not None and not (c.weights or c.masks):
        raise ValueError(
            "config.warm_start.replicate: expected None without warm_start.weights and "
            f"warm_start.masks, got {c.replicate}; set what to take of the replicate"
        )
    methods = config_lib.METHODS
    if c.masks and not methods.find(method).keeps_counts:
        known = [name for name, spec in methods.items() if spec.keeps_counts]
        raise ValueError(
            f"config.warm_start.masks: expected None with sparse.method {method!r}, "
            f"got {c.masks!r}; choose one of {known}, which train given masks"
        )
    _check_redraws(config)
    if c.weights:
        _check_nothing_draws(config)
    if c.masks:
        _check_nothing_chooses(config)


def _check_masks_run(config: ConfigDict) -> None:
    """Checks what is done with masks of a third run, or of a run of another depth.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if a field has no effect or excludes another one; the message names
        the config field.
    """
    c = config.warm_start
    files = is_ticket_file(c.masks)
    if c.masks_run and (not c.masks or files or not c.weights):
        raise ValueError(
            "config.warm_start.masks_run: expected None with warm_start.masks "
            f"{c.masks!r} and warm_start.weights {c.weights!r}, got {c.masks_run!r}; "
            "set both to checkpoints, or take masks alone from warm_start.run"
        )
    if c.align and (not c.masks_run or c.depth):
        raise ValueError(
            f"config.warm_start.align: expected None with warm_start.masks_run "
            f"{c.masks_run!r} and warm_start.depth {c.depth!r}, got {c.align!r}; set "
            "masks_run to the run of the ticket, and run and weights to a dense run of "
            "the same network"
        )
    plain = config_lib.read_only_default().warm_start.align_examples
    if c.align_examples != plain and c.align != "activations":
        raise ValueError(
            f"config.warm_start.align_examples: expected {plain} with warm_start.align "
            f"{c.align!r}, got {c.align_examples}; set align 'activations'"
        )
    if c.depth and (files or not (c.masks or c.weights)):
        raise ValueError(
            f"config.warm_start.depth: expected None with warm_start.masks {c.masks!r} "
            f"and warm_start.weights {c.weights!r}, got {c.depth!r}; set checkpoints "
            "of a run of another depth"
        )


def is_ticket_file(masks: str | None) -> bool:
    """Returns whether masks of a warm start are ticket files, not a checkpoint.

    Args:
      masks: the field `warm_start.masks`.
    """
    return masks is not None and masks.endswith(".npz")


def _check_nothing_draws(config: ConfigDict) -> None:
    """Checks that no field for drawing initial weights is set when weights are given.

    Args:
      config: a config with `warm_start.weights`.

    Raises:
      ValueError: if one is set; the message names the config field.
    """
    given = "config.warm_start.weights: expected None with "
    got = f", got {config.warm_start.weights!r}; leave out one of the two"
    if config.sparse.ablation == "reinitialized":
        raise ValueError(f"{given}sparse.ablation 'reinitialized'{got}")
    if config.init.sparse_init:
        raise ValueError(f"{given}init.sparse_init {config.init.sparse_init!r}{got}")
    if config.init.shared:
        raise ValueError(f"{given}init.shared True{got}")


def _check_redraws(config: ConfigDict) -> None:
    """Checks that weights redrawn for their masks are used, and that options apply.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if they would not be used, or an option has no effect; the message
        names the config field.
    """
    c, lottery, plain = config.init, config.lottery, config_lib.read_only_default().init
    if c.sparse_init and (lottery.levels or lottery.rewind != "0step"):
        raise ValueError(
            "config.init.sparse_init: expected None with lottery.levels "
            f"{lottery.levels} and lottery.rewind {lottery.rewind!r}, which rewind to "
            f"weights of the dense network, got {c.sparse_init!r}; leave out one of "
            "the two"
        )
    if c.sparse_init and c.shared:
        raise ValueError(
            f"config.init.shared: expected False with init.sparse_init "
            f"{c.sparse_init!r}, which draws weights for the masks of each replicate, "
            "got True; leave out one of the two"
        )
    if c.shared and config.seeds.first:
        raise ValueError(
            "config.init.shared: expected False with seeds.first "
            f"{config.seeds.first}, got True; set seeds.first 0, whose weights all "
            "replicates share"
        )
    for name in ("sparse_init_distribution", "sparse_init_scale"):
        if c[name] != plain[name] and not (c.sparse_init or "").startswith("fan_"):
            raise ValueError(
                f"config.init.{name}: expected {plain[name]!r} with init.sparse_init "
                f"{c.sparse_init!r}, got {c[name]!r}; set init.sparse_init 'fan_in', "
                "'fan_out' or 'fan_average'"
            )


def _check_nothing_chooses(config: ConfigDict) -> None:
    """Checks that no field for choosing masks is set when masks are given.

    Args:
      config: a config with `warm_start.masks`.

    Raises:
      ValueError: if one is set; the message names the config field.
    """
    c, plain = config.sparse, config_lib.read_only_default().sparse
    for name in config_lib.METHODS.find(c.method).chooses:
        if c[name] != plain[name]:
            raise ValueError(
                f"config.sparse.{name}: expected {plain[name]!r} with warm_start.masks "
                f"{config.warm_start.masks!r}, which are used unchanged, got "
                f"{c[name]!r}; leave out one of the two"
            )
