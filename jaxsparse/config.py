"""The schema of an experiment: every field, commented once, and its validation.

A config file makes `default()`, changes what its recipe needs and returns it; the
command line overrides single fields. Configs stop at `build`: no function below it
takes one.

Lengths of training are strings: "500step", "2ep" (epochs) or "10%" (of
`training.length`); see `schedules.to_steps`.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

# A config, or the nested dicts that it is in a file.
Fields = ConfigDict | Mapping[str, Any]

# Fields that change neither what is computed nor its meaning. They may differ when a
# run continues, and the name of the work folder does not depend on them.
OPERATIONAL = ("data.dir", "run")

# May only grow when a run continues: more levels of the same experiment.
GROWING = "lottery.levels"


def default() -> ConfigDict:
    """Makes a config of default values; every field of an experiment is here."""
    c = ConfigDict()
    c.name = "unnamed"  # begins the name of the default work folder
    c.replicates = 1  # seeds trained at once; statistics are over these

    c.seeds = ConfigDict()  # replicate r folds r into each
    c.seeds.init = 0  # initial weights, also the fresh ones of controls
    c.seeds.data = 0  # order of examples and augmentation
    c.seeds.masks = 0  # random masks and shuffles

    c.data = ConfigDict()
    c.data.name = "digits"  # embedded "digits", or a prepared TFDS dataset
    c.data.dir = ""  # folder of prepared TFDS datasets; "": TFDS_DATA_DIR or TFDS's own
    c.data.batch_size = 128  # examples per step, over all devices
    c.data.drop_last = False  # leave out an epoch's smaller last batch (open_lth keeps)
    c.data.validation = 0  # training examples set aside for validation
    c.data.split_seed = 0  # which examples those are; equal for all replicates
    c.data.train_examples = 0  # use only the first so many; 0: all
    c.data.test_examples = 0  # use only the first so many; 0: all
    c.data.crop_pad = 0  # pixels of zero padding before a random crop; 0: no crop
    c.data.flip = False  # flip images left to right with probability 1/2
    c.data.normalize = "channels"  # by their mean and deviation; "unit": to [0, 1] only
    c.data.order = "same"  # order of examples at each level: "same" or "fresh"

    c.model = ConfigDict()
    c.model.name = "lenet_300_100"  # one of build.MODELS
    c.model.width = 16  # channels of a ResNet's first stage; other networks ignore it
    c.model.features = ()  # sizes of a LeNet's hidden dense layers; (): its own
    c.model.dtype = "float32"  # of activations; weights are float32 always

    c.init = ConfigDict()
    c.init.kernel = "kaiming_normal"  # one of initializers' names
    c.init.bias = "zeros"  # "zeros" or "torch_default"
    c.init.norm_scale = "ones"  # gamma of BatchNorm: "ones" or "uniform" on [0, 1)

    c.optimizer = ConfigDict()
    c.optimizer.name = "sgd"  # "sgd", "adam" or "adamw"
    c.optimizer.momentum = 0.0  # of sgd, in [0, 1)
    c.optimizer.nesterov = False  # of sgd
    c.optimizer.b1 = 0.9  # of adam and adamw
    c.optimizer.b2 = 0.999  # of adam and adamw
    c.optimizer.eps = 1e-8  # of adam and adamw
    c.optimizer.weight_decay = 0.0  # coupled L2 for sgd and adam, decoupled for adamw
    c.optimizer.decay = "all"  # what decays: "all" parameters or "kernels" only

    c.schedule = ConfigDict()
    c.schedule.name = "constant"  # "constant", "step" or "cosine"
    c.schedule.learning_rate = 0.1  # before decay, after warm-up
    c.schedule.warmup = "0step"  # linear from 0
    c.schedule.milestones = ()  # of "step": when the rate is multiplied by gamma
    c.schedule.gamma = 0.1  # of "step"

    c.training = ConfigDict()
    c.training.length = "1ep"  # of dense training; levels train from the rewinding step
    c.training.label_smoothing = 0.0  # in [0, 1)

    c.evaluation = ConfigDict()
    c.evaluation.every = "1ep"  # evaluations lie at multiples of this, and at both ends
    c.evaluation.batch_size = 1000  # examples at once; changes no result but last bits

    c.lottery = ConfigDict()
    c.lottery.levels = 0  # times to prune; 0 trains the dense network only
    c.lottery.fraction = 0.2  # of the remaining weights, pruned at each level
    c.lottery.counting = "exact"  # "exact": round(N (1 - p)^L); "open_lth": one more
    c.lottery.scope = "global"  # one threshold, "global", or one a layer, "layer"
    c.lottery.layer_fractions = ()  # ("glob", fraction) pairs, for scope "layer"
    c.lottery.ignored = ()  # globs of layers never pruned, such as "head/kernel"
    c.lottery.score = "magnitude"  # what a weight is worth: "magnitude" or "random"
    c.lottery.one_shot = (
        False  # prune each level straight from the trained dense network
    )
    c.lottery.rewind = "0step"  # step that levels restart from; 0: initialisation
    c.lottery.retrain = "rewind"  # or "learning_rate_rewind", or "finetune"
    c.lottery.finetune_length = "10%"  # of a level, for retrain "finetune"
    c.lottery.controls = ()  # of lottery.controls.NAMES
    c.lottery.control_levels = ()  # levels that get controls; (): all from 1

    c.sparse = ConfigDict()  # sparse training in place of lottery levels
    c.sparse.method = "none"  # one of build.METHODS; each reads some of these fields
    c.sparse.sparsity = 0.9  # fraction of the prunable weights to do without
    c.sparse.distribution = ""  # distributions.NAMES or "global"; "": the method's own
    c.sparse.layers = ()  # ("glob", sparsity or count) pairs, others: sparsity
    c.sparse.prunable = ()  # globs of prunable leaves, "!glob" for not; (): kernels
    c.sparse.dense = ()  # globs of layers to keep whole
    c.sparse.first_layer_dense = False  # keep the network's first prunable layer whole
    c.sparse.last_layer_dense = False  # keep its last one whole
    c.sparse.structure = ""  # "groups 4", "blocks 4x4", "channels" or "fan_in"
    c.sparse.score = "random"  # what "static" masks keep, one of build.SCORES
    c.sparse.iterations = 1  # times "static" masks are chosen, each time sparser
    c.sparse.regrow = False  # whether later iterations may bring weights back
    c.sparse.ablation = ""  # of "static" masks, one of build.ABLATIONS; "": none
    c.sparse.remove_dead = False  # remove "static" weights on no path to an output
    c.sparse.score_batches = 10  # batches of training examples that are scored on
    c.sparse.score_batch_size = 128  # examples in each of them
    c.sparse.begin = ""  # the first change of masks; "": the method's own
    c.sparse.end = ""  # the end of changes; "": none, for methods that need none
    c.sparse.update_every = "100step"  # between changes of masks
    c.sparse.drop_fraction = -1.0  # of each layer, at a change; -1: the method's own
    c.sparse.drop_schedule = ""  # "cosine", "constant", "learning_rate"; "": its own
    c.sparse.grow = "gradient"  # of rigl: "gradient", "inverted" or "random"
    c.sparse.growth_examples = 0  # first training examples to grow by; 0: the batch
    c.sparse.regrow_dropped = True  # whether a weight dropped now may be grown now
    c.sparse.restart_dropped = False  # and then starts from zero
    c.sparse.soft_bound = False  # of mest: grow first, and drop at the next change
    c.sparse.schedule = "cubic"  # of sparsity: "cubic", "linear" or "exponential"
    c.sparse.initial_sparsity = -1.0  # before the first change; -1: the method's own
    c.sparse.min_layer_density = 0.0  # with distribution "global"
    c.sparse.backward_sparsity = 0.5  # of top_kast: fraction that is not trained
    c.sparse.decay = -1.0  # of sr_ste and top_kast: pull to zero; -1: its own

    c.run = ConfigDict()  # operational: results do not depend on it
    c.run.parallelism = "jit"  # over local devices: "jit" (mesh) or "pmap"
    c.run.devices = 0  # local devices to use; 0: as many as divide the work
    c.run.steps_per_call = 100  # steps compiled into one call, at most an epoch
    c.run.dispatch = (
        "auto"  # "scan" or "single" steps; auto: single for CPU convolutions
    )
    c.run.replicates_by = "auto"  # "vmap", "map" or "unroll", see training.replicates
    c.run.deterministic = False  # ask GPUs for bit-reproducible kernels
    c.run.compilation_cache = True  # keep compiled programs in the user's cache folder
    c.run.checkpoint_every = "10ep"  # within a level, for runs that may be killed
    c.run.keep = "all"  # checkpoints of levels' ends: "all", or "needed" to continue
    c.run.tensorboard = True  # write event files besides metrics.jsonl
    return c


def start(name: str, variant: str, *, also: tuple[str, ...] = ()) -> ConfigDict:
    """Begins a recipe: default values under the name of a config file.

    Args:
      name: of the config file; a variant is appended to it.
      variant: what came after the colon of `--config=FILE:VARIANT`, or "".
      also: variants the file knows besides "quick".

    Raises:
      ValueError: for a variant the file does not know.
    """
    known = ("quick", *also)
    if variant and variant not in known:
        raise ValueError(
            f"--config: {name} has no variant {variant!r}; did you mean "
            f"{nearest(variant, list(known))}?"
        )
    c = default()
    c.name = f"{name}_{variant}" if variant else name
    return c


def flatten(config: Fields, prefix: str = "") -> dict[str, Any]:
    """Lists a config's fields by dotted name; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.loads(json.dumps(value))
    return flat


def scientific(config: Fields) -> dict[str, Any]:
    """Lists the fields that results depend on, by dotted name."""
    return {
        name: value
        for name, value in flatten(config).items()
        if name not in OPERATIONAL and name.split(".")[0] not in OPERATIONAL
    }


def digest(config: Fields) -> str:
    """Hashes the scientific fields but the number of levels, which may grow.

    Fields at their default values do not count, so that a new field leaves the names of
    work folders as they are.
    """
    defaults = scientific(default())
    fields = {
        name: value
        for name, value in scientific(config).items()
        if name != GROWING and value != defaults.get(name)
    }
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differences(old: Fields, new: Fields) -> Iterator[tuple[str, Any, Any]]:
    """Yields the scientific fields in which two configs differ: name, old, new.

    More levels than before are no difference, nor is a field that the older config
    does not know, at its default value.
    """
    before, now = scientific(old), scientific(new)
    defaults = scientific(default())
    for name in sorted(before.keys() | now.keys()):
        a = before.get(name, defaults.get(name, "absent"))
        b = now.get(name, "absent")
        grew = name == GROWING and type(a) is type(b) is int and b > a
        if a != b and not grew:
            yield name, a, b


def nearest(name: str, known: list[str]) -> str:
    """Words a hint: the known names closest to a misspelt one, else all of them."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return " or ".join(close) if close else "one of " + ", ".join(known)


def _one_of(*choices: str) -> tuple[Callable[[Any], bool], str]:
    return lambda v: v in choices, "one of " + ", ".join(choices)


def _is_strings(value: Any) -> bool:
    return all(isinstance(item, str) for item in value)


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


_AT_LEAST_0 = (lambda v: v >= 0, "at least 0")
_AT_LEAST_1 = (lambda v: v >= 1, "at least 1")
_BELOW_1 = (lambda v: 0 <= v < 1, "in [0, 1)")
_SEED = (lambda v: 0 <= v < 2**32, "in [0, 2**32)")

# What each field must satisfy beyond its type, and how to say so.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda v: v and "/" not in v, "a name without slashes"),
    "replicates": _AT_LEAST_1,
    "seeds.init": _SEED,
    "seeds.data": _SEED,
    "seeds.masks": _SEED,
    "data.batch_size": _AT_LEAST_1,
    "data.validation": _AT_LEAST_0,
    "data.split_seed": _SEED,
    "data.train_examples": _AT_LEAST_0,
    "data.test_examples": _AT_LEAST_0,
    "data.crop_pad": _AT_LEAST_0,
    "data.normalize": _one_of("channels", "unit"),
    "data.order": _one_of("same", "fresh"),
    "model.width": _AT_LEAST_1,
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
    "model.features": (
        lambda v: all(type(size) is int and size >= 1 for size in v),
        "a tuple of sizes such as (300, 100)",
    ),
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
    "sparse.schedule": _one_of("cubic", "linear", "exponential"),
    "sparse.initial_sparsity": (lambda v: v == -1 or 0 <= v < 1, "in [0, 1), or -1"),
    "sparse.min_layer_density": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "sparse.backward_sparsity": _BELOW_1,
    "sparse.decay": (lambda v: v == -1 or v >= 0, "at least 0, or -1"),
    "run.parallelism": _one_of("jit", "pmap"),
    "run.devices": _AT_LEAST_0,
    "run.steps_per_call": _AT_LEAST_1,
    "run.dispatch": _one_of("auto", "scan", "single"),
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
    _check_fields(config, default(), "")
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
                f"{nearest(name, list(schema))}?"
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


def _check_together(config: ConfigDict) -> None:
    """Refuses combinations that would silently ignore what was asked for."""
    lottery = config.lottery
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
