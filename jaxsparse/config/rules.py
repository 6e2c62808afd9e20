"""What fields must satisfy, each and together."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jaxsparse.config import naming, schema


def _one_of(*choices: str) -> tuple[Callable[[Any], bool], str]:
    return lambda v: v in choices, "one of " + ", ".join(choices)


def _is_strings(value: Any) -> bool:
    return all(isinstance(item, str) for item in value)


def _is_numbers(value: Any) -> bool:
    return all(type(x) in (int, float) and 0 <= x <= 1 for x in value)


def _is_layers(value: Any) -> bool:
    return all(
        isinstance(pair, tuple | list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and type(pair[1]) in (int, float)
        for pair in value
    )


def _is_pairs(value: Any) -> bool:
    return all(
        isinstance(pair, tuple | list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], float)
        and 0 <= pair[1] < 1
        for pair in value
    )


def _is_axes(value: Any) -> bool:
    return all(
        isinstance(pair, tuple | list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and type(pair[1]) in (int, type(None))
        for pair in value
    )


_AT_LEAST_0 = (lambda v: v >= 0, "at least 0")
_AT_LEAST_1 = (lambda v: v >= 1, "at least 1")
_ABOVE_0 = (lambda v: 0 < v < float("inf"), "above 0, finite")
_FADE = _one_of("constant", "linear", "cosine", "step")
_BELOW_1 = (lambda v: 0 <= v < 1, "in [0, 1)")
_FRACTION = (lambda v: 0 <= v <= 1, "in [0, 1]")
_SIZES = (
    lambda v: all(type(size) is int and size >= 1 for size in v),
    "a tuple of sizes such as (300, 100)",
)
_SEED = (lambda v: 0 <= v < 2**32, "in [0, 2**32)")

# What each field must satisfy beyond its type, and how to say so.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda v: v and "/" not in v, "a name without slashes"),
    "replicates": _AT_LEAST_1,
    "seeds.init": _SEED,
    "seeds.data": _SEED,
    "seeds.masks": _SEED,
    "seeds.first": _AT_LEAST_0,
    "data.size": _AT_LEAST_0,
    "data.batch_size": _AT_LEAST_1,
    "data.validation": _AT_LEAST_0,
    "data.split_seed": _SEED,
    "data.train_examples": _AT_LEAST_0,
    "data.test_examples": _AT_LEAST_0,
    "data.crop_pad": _AT_LEAST_0,
    "data.normalize": _one_of("channels", "unit"),
    "data.augment": _one_of("as_given", "published"),
    "data.mean": (
        _is_numbers,
        "a tuple of numbers on the [0, 1] scale, such as (0.5, 0.5, 0.5)",
    ),
    "data.std": (
        lambda v: _is_numbers(v) and all(x > 0 for x in v),
        "a tuple of numbers above 0 on the [0, 1] scale, such as (0.25, 0.25, 0.25)",
    ),
    "data.order": _one_of("same", "fresh"),
    "data.noise": _FRACTION,
    "data.noise_by": _one_of("permute", "uniform"),
    "data.noise_seed": _SEED,
    "pretraining.subset": _one_of("", "easiest", "hardest", "random", "window"),
    "pretraining.size": _AT_LEAST_0,
    "pretraining.first": _AT_LEAST_0,
    "pretraining.seed": _SEED,
    "pretraining.batch_size": _AT_LEAST_0,
    "pretraining.learning_rate": (
        lambda v: v == -1 or 0 < v < float("inf"),
        "above 0, finite, or -1",
    ),
    "pretraining.noise": _FRACTION,
    "model.width": _AT_LEAST_1,
    "model.maps": _SIZES,
    "model.padding": _one_of("", "SAME", "VALID"),
    "model.norm": _one_of("learned", "fixed"),
    "repelling.strength": (lambda v: abs(v) < float("inf"), "a finite number"),
    "repelling.dtype": _one_of("bfloat16", "float32"),
    "model.dtype": _one_of("float32", "bfloat16"),
    "optimizer.momentum": _BELOW_1,
    "optimizer.b1": _BELOW_1,
    "optimizer.b2": _BELOW_1,
    "optimizer.eps": (lambda v: v > 0, "above 0"),
    "optimizer.weight_decay": _AT_LEAST_0,
    "optimizer.decay": _one_of("all", "kernels"),
    "schedule.name": _one_of("constant", "step", "cosine"),
    "schedule.learning_rate": (lambda v: 0 < v < float("inf"), "above 0, finite"),
    "schedule.milestones": (
        _is_strings,
        "a tuple of lengths such as ('80ep', '120ep')",
    ),
    "schedule.gamma": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "training.label_smoothing": _BELOW_1,
    "training.smooth_over": _one_of("every", "others"),
    "training.smoothing_fade": _FADE,
    "ghosts.neurons": _one_of("blend", "sharpen"),
    "ghosts.sharpness": (
        lambda v: (
            len(v) == 2
            and all(type(x) in (int, float) for x in v)
            and 0 < v[0] <= v[1] < float("inf")
        ),
        "two numbers above 0, the second at least the first, such as (1.0, 50.0)",
    ),
    "ghosts.skips": _one_of("", "convolution", "identity"),
    "ghosts.fade": _FADE,
    "rescaling.steps": _AT_LEAST_0,
    "rescaling.learning_rate": _ABOVE_0,
    "rescaling.look_ahead": _ABOVE_0,
    "rescaling.longest": (lambda v: v > 0, "above 0; inf for no bound"),
    "rescaling.least": _FRACTION,
    "rescaling.clip": _ABOVE_0,
    "rescaling.batch_size": _AT_LEAST_1,
    "evaluation.batch_size": _AT_LEAST_1,
    "lottery.levels": _AT_LEAST_0,
    "lottery.fraction": (lambda v: 0 < v < 1, "in (0, 1)"),
    "lottery.counting": _one_of("exact", "open_lth"),
    "lottery.scope": _one_of("global", "layer"),
    "lottery.layer_fractions": (_is_pairs, "pairs such as (('head/kernel', 0.1),)"),
    "lottery.ignored": (_is_strings, "a tuple of patterns such as ('head/kernel',)"),
    "lottery.score": _one_of("magnitude", "random"),
    "lottery.retrain": _one_of("rewind", "learning_rate_rewind", "finetune"),
    "lottery.controls": (_is_strings, "a tuple of names"),
    "lottery.control_levels": (
        lambda v: all(type(level) is int and level >= 1 for level in v),
        "a tuple of levels, each at least 1",
    ),
    "model.features": _SIZES,
    "init.zeros": (_is_strings, "a tuple of patterns such as ('*/norm2/scale',)"),
    "init.sparse_distribution": _one_of("normal", "uniform"),
    "init.sparse_scale": (lambda v: v > 0, "above 0"),
    "start.replicate": (lambda v: v >= -1, "a number of a replicate, or -1"),
    "analysis.examples": _AT_LEAST_1,
    "run.trace": (_is_strings, "a pair of lengths such as ('100step', '110step')"),
    "analysis.keep_at": (_is_strings, "a tuple of lengths such as ('100step',)"),
    "stability.children": (lambda v: v == 0 or v >= 2, "0, or at least 2"),
    "stability.steps": (_is_strings, "a tuple of lengths such as ('0step', '500step')"),
    "stability.levels": (
        lambda v: all(type(level) is int and level >= 0 for level in v),
        "a tuple of levels, each at least 0",
    ),
    "stability.points": (lambda v: v >= 3, "at least 3"),
    "stability.examples": _AT_LEAST_0,
    "stability.batch_stats": _one_of("interpolated", "re_estimated"),
    "sparse.sparsity": _BELOW_1,
    "sparse.prunable": (_is_strings, "a tuple of patterns such as ('*/kernel',)"),
    "sparse.dense": (_is_strings, "a tuple of patterns such as ('head/kernel',)"),
    "sparse.layers": (_is_layers, "pairs such as (('head/kernel', 0.5),)"),
    "sparse.update_every": (lambda v: v != "", "a length such as '100step'"),
    "sparse.iterations": _AT_LEAST_1,
    "sparse.score_batches": _AT_LEAST_1,
    "sparse.score_batch_size": _AT_LEAST_1,
    "sparse.drop_fraction": (lambda v: v == -1 or 0 <= v <= 1, "in [0, 1], or -1"),
    "sparse.drop_schedule": _one_of("", "cosine", "constant", "learning_rate"),
    "sparse.grow": _one_of("gradient", "inverted", "random"),
    "sparse.growth_examples": _AT_LEAST_0,
    "sparse.growth_first": _AT_LEAST_0,
    "sparse.skip_inner": _one_of("", "yes", "no"),
    "sparse.schedule": _one_of("cubic", "linear", "exponential"),
    "sparse.initial_sparsity": (lambda v: v == -1 or 0 <= v < 1, "in [0, 1), or -1"),
    "sparse.min_layer_density": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "sparse.backward_sparsity": _BELOW_1,
    "sparse.decay": (lambda v: v == -1 or v >= 0, "at least 0, or -1"),
    "run.parallelism": _one_of("jit", "pmap"),
    "run.devices": _AT_LEAST_0,
    "run.examples": _one_of("auto", "device", "sharded", "host"),
    "run.weights": _one_of("whole", "sharded"),
    "run.weight_least": _AT_LEAST_1,
    "run.weight_rules": (_is_axes, "pairs such as (('head/*', None), ('*/kernel', 0))"),
    "run.steps_per_call": _AT_LEAST_1,
    "run.dispatch": _one_of("auto", "scan", "single"),
    "run.convolutions": _one_of("auto", "library", "explicit"),
    "run.replicates_by": _one_of("auto", "vmap", "map", "unroll"),
    "run.keep": _one_of("all", "needed"),
}


def validate(config: ConfigDict) -> None:
    """Checks names, types and ranges of every field; compiles and reads nothing.

    Args:
      config: a config with the fields of `default()`.

    Raises:
      ValueError: naming the first wrong field, what came, and what was wanted.
    """
    _check_fields(config, schema.default(), "")
    for name, (holds, wanted) in RULES.items():
        value: Any = config
        for part in name.split("."):
            value = value[part]
        if not holds(value):
            raise ValueError(f"config.{name}: came {value!r}; wanted {wanted}")
    _check_together(config)


def _check_fields(config: ConfigDict, schema: ConfigDict, prefix: str) -> None:
    for name in config:
        if name not in schema:
            raise ValueError(
                f"config.{prefix}{name}: no such field; did you mean "
                f"{naming.nearest(name, list(schema))}?"
            )
    for name, like in schema.items():
        if name not in config:
            raise ValueError(
                f"config.{prefix}{name}: missing; start from jaxsparse.config.default()"
            )
        value = config[name]
        if isinstance(like, ConfigDict):
            if not isinstance(value, ConfigDict):
                raise ValueError(
                    f"config.{prefix}{name}: came {value!r}; wanted a section with the "
                    f"fields {list(like)}"
                )
            _check_fields(value, like, f"{prefix}{name}.")
        elif type(value) is not type(like):
            raise ValueError(
                f"config.{prefix}{name}: came {value!r}, a {type(value).__name__}; "
                f"wanted a {type(like).__name__}, such as {like!r}"
            )


def _check_images(data: ConfigDict) -> None:
    """Refuses what cannot be done to images together."""
    if len(data.mean) != len(data.std) or (data.mean and data.normalize == "unit"):
        raise ValueError(
            f"config.data.mean: came {data.mean} with std {data.std} and normalize "
            f"{data.normalize!r}; wanted as many numbers in both, and normalize "
            "'channels', or () for both"
        )
    if data.augment == "published" and (data.crop_pad or data.flip):
        raise ValueError(
            f"config.data.augment: came 'published' with crop_pad {data.crop_pad} and "
            f"flip {data.flip}; wanted 0 and False, or augment 'as_given'"
        )
    if data.size and data.crop_pad:
        raise ValueError(
            f"config.data.crop_pad: came {data.crop_pad} with size {data.size}, which "
            "already takes a random part of each image; wanted 0, or size 0"
        )


def _check_together(config: ConfigDict) -> None:
    """Refuses combinations that would silently ignore what was asked for."""
    lottery = config.lottery
    _check_images(config.data)
    if lottery.layer_fractions and lottery.scope != "layer":
        raise ValueError(
            "config.lottery.layer_fractions: given with scope 'global'; wanted scope "
            "'layer'; set --config.lottery.scope=layer"
        )
    if lottery.counting == "open_lth" and (lottery.scope, lottery.one_shot) != (
        "global",
        False,
    ):
        raise ValueError(
            "config.lottery.counting: 'open_lth' is a rule of global pruning, level "
            f"by level; came scope {lottery.scope!r}, one_shot {lottery.one_shot}; "
            "wanted counting 'exact' with these"
        )
    beyond = [level for level in lottery.control_levels if level > lottery.levels]
    if beyond:
        raise ValueError(
            f"config.lottery.control_levels: came {beyond}; wanted levels up to "
            f"config.lottery.levels={lottery.levels}"
        )
    if config.schedule.milestones and config.schedule.name != "step":
        raise ValueError(
            f"config.schedule.milestones: given with schedule "
            f"{config.schedule.name!r}; wanted schedule.name 'step', or no milestones"
        )
    if config.optimizer.name != "sgd" and (
        config.optimizer.momentum or config.optimizer.nesterov
    ):
        raise ValueError(
            f"config.optimizer.momentum: {config.optimizer.momentum} (nesterov "
            f"{config.optimizer.nesterov}) given with {config.optimizer.name!r}; "
            "wanted optimizer.name 'sgd', or momentum 0.0 and nesterov False"
        )
    if config.sparse.method != "none" and (
        lottery.levels or lottery.controls or lottery.rewind != "0step"
    ):
        raise ValueError(
            f"config.sparse.method: came {config.sparse.method!r} with lottery.levels "
            f"{lottery.levels}, controls {lottery.controls} and rewind "
            f"{lottery.rewind!r}; wanted method 'none', or no levels, no controls and "
            "rewind '0step'"
        )
    if config.optimizer.nesterov and not config.optimizer.momentum:
        raise ValueError(
            "config.optimizer.nesterov: given with momentum 0.0; wanted a momentum "
            "in (0, 1)"
        )


def check_unused(
    config: ConfigDict,
    section: str,
    used: bool,
    fields: tuple[str, ...],
    *,
    what: str,
) -> None:
    """Refuses fields that were set while nothing reads them.

    Args:
      config: a config.
      section: of the fields.
      used: whether something reads them.
      fields: names within the section.
      what: would read them, in words.

    Raises:
      ValueError: naming the field.
    """
    plain = schema.default()[section]
    for name in fields:
        if not used and config[section][name] != plain[name]:
            raise ValueError(
                f"config.{section}.{name}: came {config[section][name]!r} without "
                f"{what}; wanted {plain[name]!r}, or {what}"
            )
