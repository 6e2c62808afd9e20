"""Valid values of each config field, in addition to its type.

A rule is a predicate and a description of the values that satisfy it, for messages. The
bounds are wide: they exclude only values that make no sense in any run, such as numbers
outside the range of float32.
"""

from collections.abc import Callable
from typing import Any

from jaxsparse import durations
from jaxsparse.config import naming

Rule = tuple[Callable[[Any], bool], str]

INT32 = 2**31  # steps and example indices are int32
UINT32 = 2**32  # seeds are uint32


def _one_of(*choices: str) -> Rule:
    return lambda v: v in choices, "one of " + ", ".join(choices)


def _count(least: int, most: int) -> Rule:
    return lambda v: least <= v <= most, f"at least {least} and at most {most}"


def _number(least: float, most: float) -> Rule:
    return lambda v: least <= v <= most, f"in [{least:g}, {most:g}]"


def _above_0(most: float, least: float = 1e-12) -> Rule:
    # Smaller values are lost in the rounding of float32.
    return lambda v: least <= v <= most, f"above 0, in [{least:g}, {most:g}]"


def _or(value: Any, rule: Rule) -> Rule:
    holds, wanted = rule
    return lambda v: v == value or holds(v), f"{wanted}, or {value!r}"


def _tuple(item: Rule, example: str, *, named: bool = False) -> Rule:
    """Makes the rule for a tuple of items.

    Args:
      item: rule for each item, or for the second element of each pair if `named`.
      example: an example of the tuple, for the message.
      named: whether the items are pairs of a name and a value.
    """
    holds, _ = item

    def each(v: Any) -> bool:
        if not named:
            return holds(v)
        is_pair = isinstance(v, tuple | list) and len(v) == 2
        return is_pair and _is_text(v[0]) and holds(v[1])

    kind = "pairs" if named else "a tuple"
    return lambda v: all(map(each, v)), f"{kind} such as {example}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _is_length(value: Any) -> bool:
    """Returns whether a value is a duration of at most 100 % or 2**31 steps."""
    # With a total of 2**31 steps, one comparison checks both bounds.
    try:
        steps = durations.to_steps(value, steps_per_epoch=1, total=INT32)
    except (TypeError, ValueError):
        return False
    return steps <= INT32


def _is_path(value: str) -> bool:
    try:
        naming.to_path("", value)
    except ValueError:
        return False
    return value.isprintable()


# `type(v) is int`, not `isinstance`, which is true for bools. The message of an item is
# unused: `_tuple` describes the items by its example.
def _int(least: int, most: int) -> Rule:
    return lambda v: type(v) is int and least <= v <= most, ""


def _real(least: float, most: float) -> Rule:
    return lambda v: type(v) in (int, float) and least <= v <= most, ""


_FLAG: Rule = (lambda v: isinstance(v, bool), "True or False")
_TEXT: Rule = (_is_text, "a name, in one line")
_PATH: Rule = (_is_path, "a path in one line, of a user that there is, or ''")
_LENGTH: Rule = (
    _is_length,
    f"a length of at most 100% or 2**31 steps: {durations.FORMS}",
)
_TOTAL: Rule = (
    lambda v: _is_length(v) and "%" not in v,
    "steps or epochs, as '2ep', of at most 2**31 steps",
)
_ANY: Rule = (str.isprintable, "a name, in one line, or ''")
_FADE = _one_of("constant", "linear", "cosine", "step")
# The margin of 1e-7 prevents rounding to 1 in float32.
_BELOW_1: Rule = (lambda v: 0 <= v <= 1 - 1e-7, "in [0, 1), also as a float32")
_FRACTION: Rule = (lambda v: 0 <= v <= 1, "in [0, 1]")
_INSIDE: Rule = (lambda v: 1e-7 <= v <= 1 - 1e-7, "in (0, 1), also as a float32")
_EXAMPLES = _count(0, INT32 - 1)
_BATCH = _count(1, 2**24)
_SEED: Rule = (lambda v: 0 <= v < UINT32, "in [0, 2**32)")
_SIZES = _tuple(_int(1, 2**20), "(300, 100), each at least 1 and at most 2**20")
_GLOBS = _tuple(_TEXT, "('head/kernel',)")
_LENGTHS = _tuple(_LENGTH, "('500step', '2ep', '50%'), each a length")

# One rule for each field; `schema.default` explains the fields.
RULES: dict[str, Rule] = {
    "name": (
        lambda v: _is_text(v) and "/" not in v and v not in (".", ".."),
        "a name without slashes",
    ),
    "replicates": _count(1, 2**20),
    "seeds.init": _SEED,
    "seeds.data": _SEED,
    "seeds.masks": _SEED,
    "seeds.first": _count(0, INT32 - 1),
    "data.name": _TEXT,
    "data.dir": _PATH,
    "data.image_size": _count(0, 2**14),
    "data.batch_size": _BATCH,
    "data.drop_last": _FLAG,
    "data.validation": _EXAMPLES,
    "data.split_seed": _SEED,
    "data.train_examples": _EXAMPLES,
    "data.test_examples": _EXAMPLES,
    "data.augment": _one_of("as_given", "published"),
    "data.crop_pad": _count(0, 2**12),
    "data.flip": _FLAG,
    "data.normalize": _one_of("channels", "unit"),
    "data.mean": _tuple(
        _real(0.0, 1.0), "(0.5, 0.5, 0.5), numbers on the [0, 1] scale"
    ),
    "data.std": _tuple(
        _real(1e-6, 1.0), "(0.25, 0.25, 0.25), numbers above 0 on the [0, 1] scale"
    ),
    "data.order": _one_of("same", "fresh"),
    "data.label_noise": _FRACTION,
    "data.label_noise_by": _one_of("permute", "uniform"),
    "data.label_noise_seed": _SEED,
    "model.name": _TEXT,
    "model.width": _count(1, 2**16),
    "model.features": _SIZES,
    "model.conv_channels": _SIZES,
    "model.padding": _one_of("", "SAME", "VALID"),
    "model.norm": _one_of("learned", "fixed"),
    "model.dtype": _one_of("float32", "bfloat16"),
    "init.kernel": _TEXT,
    "init.bias": _TEXT,
    "init.norm_scale": _TEXT,
    "init.zero_init": _GLOBS,
    "init.shared": _FLAG,
    "init.sparse_init": _ANY,
    "init.sparse_init_distribution": _one_of("normal", "uniform"),
    "init.sparse_init_scale": _above_0(1e6),
    "warm_start.run": _PATH,
    "warm_start.weights": _PATH,
    "warm_start.masks": _PATH,
    "warm_start.replicate": (
        lambda v: -1 <= v < INT32,
        "a number of a replicate, or -1",
    ),
    "optimizer.name": _TEXT,
    "optimizer.momentum": _BELOW_1,
    "optimizer.nesterov": _FLAG,
    "optimizer.b1": _BELOW_1,
    "optimizer.b2": _BELOW_1,
    "optimizer.eps": _above_0(1.0, 1e-30),
    "optimizer.weight_decay": _number(0.0, 100.0),
    "optimizer.weight_decay_mask": _one_of("all", "kernels"),
    "schedule.name": _one_of("constant", "step", "cosine"),
    "schedule.learning_rate": _above_0(1e6),
    "schedule.warmup": _LENGTH,
    "schedule.milestones": _LENGTHS,
    "schedule.gamma": (lambda v: 1e-12 <= v <= 1, "in (0, 1], from 1e-12"),
    "training.duration": _TOTAL,
    "training.label_smoothing": _BELOW_1,
    "training.smoothing_target": _one_of("every", "others"),
    "training.smoothing_schedule": _FADE,
    "training.smoothing_end": _LENGTH,
    "tost.activation": _ANY,
    "tost.mode": _one_of("blend", "sharpen"),
    "tost.beta": (
        lambda v: (
            len(v) == 2
            and all(type(x) in (int, float) for x in v)
            and 1e-6 <= v[0] <= v[1] <= 1e6
        ),
        "two numbers above 0, the second at least the first, such as (1.0, 50.0)",
    ),
    "tost.skips": _one_of("", "convolution", "identity"),
    "tost.schedule": _FADE,
    "tost.end": _LENGTH,
    "gradinit.steps": _count(0, 10**7),
    "gradinit.learning_rate": _above_0(1e6),
    "gradinit.step_size": _above_0(1e6),
    "gradinit.max_grad_norm": _or(float("inf"), _above_0(1e12)),
    "gradinit.min_factor": _FRACTION,
    "gradinit.clip": _above_0(1e12),
    "gradinit.mask_gradients": _FLAG,
    "gradinit.batch_size": _BATCH,
    "evaluation.every": _LENGTH,
    "evaluation.batch_size": _BATCH,
    "lottery.levels": _count(0, 1000),
    "lottery.fraction": _INSIDE,
    "lottery.count_rule": _one_of("exact", "open_lth"),
    "lottery.scope": _one_of("global", "layer"),
    "lottery.layer_fractions": _tuple(
        (lambda v: type(v) is float and 0 <= v <= 1 - 1e-7, ""),
        "(('head/kernel', 0.1),), each in [0, 1)",
        named=True,
    ),
    "lottery.exclude": _GLOBS,
    "lottery.min_layer_density": _FRACTION,
    "lottery.score": _TEXT,
    "lottery.one_shot": _FLAG,
    "lottery.rewind": _LENGTH,
    "lottery.retrain": _one_of("rewind", "learning_rate_rewind", "finetune"),
    "lottery.finetune_length": _LENGTH,
    "lottery.controls": _tuple(_TEXT, "('reinitialized', 'random_mask')"),
    "lottery.control_levels": _tuple(_int(1, 1000), "(1, 3), each at least 1"),
    "pretraining.subset": _one_of("", "easiest", "hardest", "random", "window"),
    "pretraining.size": _EXAMPLES,
    "pretraining.scores": _PATH,
    "pretraining.window_start": _EXAMPLES,
    "pretraining.balanced": _FLAG,
    "pretraining.seed": _SEED,
    "pretraining.batch_size": _or(0, _BATCH),
    "pretraining.learning_rate": _or(-1, _above_0(1e6)),
    "pretraining.warmup": _LENGTH,
    "pretraining.label_noise": _FRACTION,
    "solution_penalty.strength": _number(-1e6, 1e6),
    "solution_penalty.dtype": _one_of("bfloat16", "float32"),
    "instability.copies": _or(0, _count(2, 1000)),
    "instability.start_steps": _LENGTHS,
    "instability.levels": _tuple(_int(0, 1000), "(0, 4), each at least 0"),
    "instability.compare_levels": _FLAG,
    "instability.points": _count(3, 10**4),
    "instability.examples": _EXAMPLES,
    "instability.batch_stats": _one_of("interpolated", "re_estimated"),
    "sparse.method": _TEXT,
    "sparse.sparsity": _BELOW_1,
    "sparse.distribution": _ANY,
    "sparse.layer_sparsity": _tuple(
        (
            lambda v: (
                type(v) in (int, float)
                and 0 <= v <= (1 if type(v) is float else INT32 - 1)
            ),
            "",
        ),
        "(('head/kernel', 0.5),): a sparsity in [0, 1] or a count of weights to keep",
        named=True,
    ),
    "sparse.prunable": _GLOBS,
    "sparse.dense": _GLOBS,
    "sparse.first_layer_dense": _FLAG,
    "sparse.last_layer_dense": _FLAG,
    "sparse.structure": _ANY,
    "sparse.pai_score": _TEXT,
    "sparse.score_iterations": _count(1, 10**5),
    "sparse.regrow": _FLAG,
    "sparse.ablation": _ANY,
    "sparse.prune_disconnected": _FLAG,
    "sparse.score_batches": _count(1, 10**6),
    "sparse.score_batch_size": _BATCH,
    "sparse.begin_step": _or("", _LENGTH),
    "sparse.end_step": _or("", _LENGTH),
    "sparse.update_every": _LENGTH,
    "sparse.drop_fraction": _or(-1, _FRACTION),
    "sparse.drop_schedule": _one_of("", "cosine", "constant", "learning_rate"),
    "sparse.drop_by_sign": _FLAG,
    "sparse.grow": _one_of("gradient", "inverted", "random"),
    "sparse.grow_batch_size": _EXAMPLES,
    "sparse.grow_batch_start": _EXAMPLES,
    "sparse.skip_update": _one_of("", "yes", "no"),
    "sparse.allow_regrow": _FLAG,
    "sparse.zero_regrown": _FLAG,
    "sparse.soft_bound": _FLAG,
    "sparse.schedule": _one_of("cubic", "linear", "exponential"),
    "sparse.initial_sparsity": _or(-1, _BELOW_1),
    "sparse.min_layer_density": _FRACTION,
    "sparse.backward_sparsity": _BELOW_1,
    "sparse.outside_regularization": _or(-1, _number(0.0, 1000.0)),
    "analysis.gradient_every": _or("", _LENGTH),
    "analysis.at_mask_updates": _FLAG,
    "analysis.examples": _count(1, INT32 - 1),
    "analysis.save_at": _LENGTHS,
    "run.parallelism": _one_of("jit", "pmap"),
    "run.devices": _count(0, 2**20),
    "run.data_placement": _one_of("auto", "device", "sharded", "host"),
    "run.weights": _one_of("whole", "sharded"),
    "run.fsdp_min_size": _count(1, 2**62),
    "run.fsdp_rules": _tuple(
        (lambda v: v is None or (type(v) is int and 0 <= v < 32), ""),
        "(('head/*', None), ('*/kernel', 0))",
        named=True,
    ),
    "run.steps_per_call": _count(1, 10**6),
    "run.dispatch": _one_of("auto", "scan", "single"),
    "run.conv_gradients": _one_of("auto", "library", "explicit"),
    "run.replicate_mode": _one_of("auto", "vmap", "map", "unroll"),
    "run.deterministic": _FLAG,
    "run.compilation_cache": _FLAG,
    "run.checkpoint_every": _or("", _LENGTH),
    "run.on_nonfinite": _one_of("stop", "continue"),
    "run.keep_checkpoints": _one_of("all", "needed"),
    "run.trace": _LENGTHS,
    "run.tensorboard": _FLAG,
}
