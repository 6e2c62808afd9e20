"""Definition of all config fields, and the start of a recipe."""

from ml_collections import ConfigDict

from jaxsparse.config import naming, registries


def default() -> ConfigDict:
    """Makes a config with the default value of every field.

    The comment of each field explains it. Fields that users' entries add follow last.
    """
    c = ConfigDict()
    c.name = "unnamed"  # begins the name of the default work folder
    c.replicates = 1  # seeds trained at once; statistics are over these

    c.seeds = ConfigDict()  # replicate r folds r into each
    c.seeds.init = 0  # initial weights, also the fresh ones of controls
    c.seeds.data = 0  # order of examples and augmentation
    c.seeds.masks = 0  # random masks and shuffles
    c.seeds.first = (
        0  # number of the first replicate, where another run has those before
    )

    c.data = ConfigDict()
    c.data.name = "digits"  # embedded "digits", or what data.dir has, TFDS's or images
    c.data.dir = ""  # folder that holds datasets; "": TFDS_DATA_DIR or TFDS's own
    # Above 0 images stay in their files, which may be of all sizes, and are decoded
    # when they are asked for: in training a random part of each (8-100 % of its area),
    # in evaluation the middle.
    c.data.image_size = (
        0  # pixels a side of images decoded so; 0: all in memory, as they are
    )
    c.data.batch_size = 128  # examples per step, over all devices
    c.data.drop_last = False  # leave out an epoch's smaller last batch (open_lth keeps)
    c.data.validation = 0  # training examples set aside for validation
    c.data.split_seed = 0  # which examples those are; equal for all replicates
    c.data.train_examples = 0  # use only the first so many; 0: all
    c.data.test_examples = 0  # use only the first so many; 0: all
    c.data.augment = "as_given"  # by the next two, or as "published" for the dataset
    c.data.crop_pad = 0  # pixels of zero padding before a random crop; 0: no crop
    c.data.flip = False  # flip images left to right with probability 1/2
    c.data.normalize = "channels"  # by their mean and deviation; "unit": to [0, 1] only
    c.data.mean = ()  # of the channels, in [0, 1]; (): that of the dataset
    c.data.std = ()  # of the channels, above 0; (): that of the dataset
    c.data.order = "same"  # order of examples at each level: "same" or "fresh"
    c.data.label_noise = 0.0  # fraction of the training labels drawn anew, all through
    c.data.label_noise_by = "uniform"  # from the other classes; "permute": exchanged
    c.data.label_noise_seed = (
        0  # which labels those are, and what they become; no replicate's own
    )

    c.model = ConfigDict()
    c.model.name = "lenet_300_100"  # one of config.MODELS
    c.model.width = 16  # channels a ResNet begins with; some have features instead
    # Sizes of dense layers, or of stages, or the one of a ViT's tokens.
    c.model.features = ()  # (): the network's own
    c.model.conv_channels = ()  # channels of a LeNet-5's convolutions; (): its own
    c.model.padding = ""  # of a LeNet-5's first one, "SAME" or "VALID"; "": its own
    c.model.norm = "learned"  # scale and bias of BatchNorm; "fixed": none
    c.model.dtype = "float32"  # of activations; weights are float32 always

    c.init = ConfigDict()
    c.init.kernel = "kaiming_normal"  # one of initializers' names
    c.init.bias = "zeros"  # "zeros" or "torch_default"
    c.init.norm_scale = "ones"  # gamma of BatchNorm: "ones" or "uniform" on [0, 1)
    c.init.zero_init = ()  # globs of leaves that begin as zeros, such as "*/norm2/scale"
    c.init.shared = False  # every replicate starts from the weights of the first
    c.init.sparse_init = ""  # kernels redrawn for their masks: one of build.REDRAWS
    c.init.sparse_init_distribution = "normal"  # of "fan_*": "normal" or "uniform"
    c.init.sparse_init_scale = (
        1.0  # of "fan_*": variance times fan; 2 is He's, for ReLU
    )

    c.warm_start = ConfigDict()  # for training that starts where another run was
    c.warm_start.run = ""  # folder of that run, relative to the folder of this one
    c.warm_start.weights = (
        ""  # its checkpoint to take weights of, such as "init"; "": none
    )
    c.warm_start.masks = ""  # checkpoint to take masks of, or a ticket's .npz; "": none
    c.warm_start.replicate = -1  # the one of its replicates to take; -1: each its own

    c.optimizer = ConfigDict()
    c.optimizer.name = "sgd"  # "sgd", "adam" or "adamw"
    c.optimizer.momentum = 0.0  # of sgd, in [0, 1)
    c.optimizer.nesterov = False  # of sgd
    c.optimizer.b1 = 0.9  # of adam and adamw
    c.optimizer.b2 = 0.999  # of adam and adamw
    c.optimizer.eps = 1e-8  # of adam and adamw
    c.optimizer.weight_decay = 0.0  # coupled L2 for sgd and adam, decoupled for adamw
    c.optimizer.weight_decay_mask = (
        "all"  # what decays: "all" parameters or "kernels" only
    )

    c.schedule = ConfigDict()
    c.schedule.name = "constant"  # "constant", "step" or "cosine"
    c.schedule.learning_rate = 0.1  # before decay, after warm-up
    c.schedule.warmup = "0step"  # linear from 0
    c.schedule.milestones = ()  # of "step": when the rate is multiplied by gamma
    c.schedule.gamma = 0.1  # of "step"

    c.training = ConfigDict()
    c.training.duration = (
        "1ep"  # of dense training; levels train from the rewinding step
    )
    c.training.label_smoothing = 0.0  # in [0, 1)
    c.training.smoothing_target = "every"  # class, or the "others" than the true one
    c.training.smoothing_schedule = "constant"  # one of tost.fading.FORMS
    c.training.smoothing_end = "50%"  # labels are hard then, unless it is constant

    c.tost = ConfigDict()  # what helps early in training and is gone at the end
    c.tost.activation = ""  # soft neurons, one of tost.neurons.SOFT; "": ReLU
    c.tost.mode = "blend"  # with ReLU; or "sharpen", p_swish only
    c.tost.beta = (1.0, 50.0)  # of "sharpen": in the beginning, before the end
    c.tost.skips = ""  # around convolutions, one of tost.skips.KINDS; "": none
    c.tost.schedule = "linear"  # one of tost.fading.FORMS
    c.tost.end = "50%"  # they are gone then, unless the fade is "constant"

    c.gradinit = ConfigDict()  # of initial weights, a factor for each tensor
    c.gradinit.steps = 0  # updates of the factors, 180 as published; 0: none
    c.gradinit.learning_rate = 1e-2  # of Adam
    c.gradinit.step_size = 0.1  # length of the step of gradient descent
    c.gradinit.max_grad_norm = 1.0  # norm that the gradient may have
    c.gradinit.min_factor = (
        0.01  # factor of a kernel or a scale; that of a bias may be 0
    )
    c.gradinit.clip = 1.0  # of a factor's gradient
    c.gradinit.mask_gradients = (
        True  # gradients of the sparse network; False: as released
    )
    c.gradinit.batch_size = 128  # of the three batches that a step takes

    c.evaluation = ConfigDict()
    c.evaluation.every = "1ep"  # evaluations lie at multiples of this, and at both ends
    c.evaluation.batch_size = 1000  # examples at once; changes no result but last bits

    c.lottery = ConfigDict()
    c.lottery.levels = 0  # times to prune; 0 trains the dense network only
    c.lottery.fraction = 0.2  # of the remaining weights, pruned at each level
    c.lottery.count_rule = "exact"  # "exact": round(N (1 - p)^L); "open_lth": one more
    c.lottery.scope = "global"  # one threshold, "global", or one a layer, "layer"
    c.lottery.layer_fractions = ()  # ("glob", fraction) pairs, for scope "layer"
    c.lottery.exclude = ()  # globs of layers never pruned, such as "head/kernel"
    c.lottery.min_layer_density = 0.0  # each layer keeps this part, scope "global"
    c.lottery.score = "magnitude"  # what a weight is worth: one of config.SCORES
    c.lottery.one_shot = (
        False  # prune each level straight from the trained dense network
    )
    c.lottery.rewind = "0step"  # step that levels restart from; 0: initialization
    c.lottery.retrain = "rewind"  # or "learning_rate_rewind", or "finetune"
    c.lottery.finetune_length = "10%"  # of a level, for retrain "finetune"
    c.lottery.controls = ()  # of lottery.controls.NAMES
    c.lottery.control_levels = ()  # levels that get controls; (): all from 1

    c.pretraining = ConfigDict()  # up to lottery.rewind, where it differs from the rest
    c.pretraining.subset = ""  # of training examples, one of data.diet's; "": all
    c.pretraining.size = 0  # examples in the subset
    c.pretraining.scores = ""  # file of score_data.py, relative to this run's folder
    c.pretraining.window_start = 0  # rank of the easiest example of subset "window"
    c.pretraining.balanced = False  # as many examples of each class
    c.pretraining.seed = 0  # of subset "random"; replicate r has one of its own
    c.pretraining.batch_size = 0  # 0: data.batch_size
    c.pretraining.learning_rate = -1.0  # constant after warm-up; -1: schedule's
    c.pretraining.warmup = "0step"  # linear from 0, with learning_rate
    c.pretraining.label_noise = (
        0.0  # fraction of labels drawn anew, for as long; see data
    )

    c.solution_penalty = ConfigDict()  # levels away from the ends of all levels before
    c.solution_penalty.strength = 0.0  # above 0 repels, below 0 attracts; 0: none
    c.solution_penalty.dtype = (
        "bfloat16"  # in which earlier ends are held, or "float32"
    )

    c.instability = ConfigDict()  # copies trained with other noise of SGD, compared
    c.instability.copies = 0  # copies of each state, 2 or more; 0: none
    c.instability.start_steps = (
        "0step",
    )  # when they begin; those a level does not have: not
    c.instability.levels = (0,)  # levels whose training they repeat
    c.instability.compare_levels = False  # also compare each level with the one before
    c.instability.points = 30  # on the segment between two, both ends included
    c.instability.examples = 10000  # first training ones, at most; 0: all
    c.instability.batch_stats = "interpolated"  # of BatchNorm there, or "re_estimated"

    c.sparse = ConfigDict()  # sparse training in place of lottery levels
    c.sparse.method = "none"  # one of config.METHODS; each reads some of these fields
    c.sparse.sparsity = 0.9  # fraction of the prunable weights to do without
    c.sparse.distribution = ""  # distributions.NAMES or "global"; "": the method's own
    c.sparse.layer_sparsity = ()  # ("glob", sparsity or count) pairs, others: sparsity
    c.sparse.prunable = ()  # globs of prunable leaves, "!glob" for not; (): kernels
    c.sparse.dense = ()  # globs of layers to keep whole
    c.sparse.first_layer_dense = False  # keep the network's first prunable layer whole
    c.sparse.last_layer_dense = False  # keep its last one whole
    c.sparse.structure = ""  # "groups 4", "blocks 4x4", "channels" or "fan_in"
    c.sparse.pai_score = "random"  # what "static" masks keep, one of config.SCORES
    c.sparse.score_iterations = 1  # times "static" masks are chosen, each time sparser
    c.sparse.regrow = False  # whether later iterations may bring weights back
    c.sparse.ablation = ""  # of "static" masks, one of build.ABLATIONS; "": none
    c.sparse.prune_disconnected = (
        False  # remove "static" weights on no path to an output
    )
    c.sparse.score_batches = 10  # batches of training examples that are scored on
    c.sparse.score_batch_size = 128  # examples in each of them
    c.sparse.begin_step = ""  # the first change of masks; "": the method's own
    c.sparse.end_step = ""  # the end of changes; "": none, for methods that need none
    c.sparse.update_every = "100step"  # between changes of masks
    c.sparse.drop_fraction = -1.0  # of each layer, at a change; -1: the method's own
    c.sparse.drop_schedule = ""  # "cosine", "constant", "learning_rate"; "": its own
    c.sparse.drop_by_sign = True  # of set: part of the positive, part of the negative
    c.sparse.grow = "gradient"  # of rigl: "gradient", "inverted" or "random"
    c.sparse.grow_batch_size = 0  # training examples to grow by; 0: the batch
    c.sparse.grow_batch_start = 0  # the first of them, counted from 0
    c.sparse.skip_update = ""  # no step when masks change: "yes", "no"; "": its own
    c.sparse.allow_regrow = True  # whether a weight dropped now may be grown now
    c.sparse.zero_regrown = False  # and then starts from zero
    c.sparse.soft_bound = False  # of mest: grow first, and drop at the next change
    c.sparse.schedule = "cubic"  # of sparsity: "cubic", "linear" or "exponential"
    c.sparse.initial_sparsity = -1.0  # before the first change; -1: the method's own
    c.sparse.min_layer_density = 0.0  # with distribution "global"
    c.sparse.backward_sparsity = 0.5  # of top_kast: fraction that is not trained
    c.sparse.outside_regularization = (
        -1.0
    )  # of sr_ste and top_kast: pull to zero; -1: its own

    c.analysis = ConfigDict()  # what is measured during training
    c.analysis.gradient_every = ""  # between norms of the gradient; "": never
    c.analysis.at_mask_updates = False  # measure them before and after changes of masks
    c.analysis.examples = 1000  # first training examples that it is measured on
    c.analysis.save_at = ()  # when states are kept for analyses after training

    c.run = ConfigDict()  # operational: results do not depend on it
    c.run.parallelism = "jit"  # over devices: "jit" (mesh) or "pmap" (one process)
    c.run.devices = 0  # how many to use, of all hosts; 0: as many as divide the work
    # Where images to train on lie: each "device" has all, they are "sharded" over those
    # that share a batch, or streamed from the "host"; auto: the first of these that
    # takes at most a quarter of a device's memory. What else looks at examples
    # (analyses, growth, stability) places what it asks for.
    c.run.data_placement = "auto"  # on all devices, divided over them, or on the host
    # Where weights lie, with their masks and what optimizers remember of them: "whole"
    # on each device, or "sharded": divided over those that share a batch (FSDP), the
    # longest axis of each leaf, unless a rule says: pairs of a pattern and an axis or
    # None, as (("head/*", None), ("*/mlp/*/kernel", 1)).
    c.run.weights = "whole"  # on each device, or "sharded" over them
    c.run.fsdp_min_size = 65_536  # numbers of a leaf that is divided without a rule
    c.run.fsdp_rules = ()  # pairs of a pattern and an axis, or None for no division
    c.run.steps_per_call = 100  # steps compiled into one call, at most an epoch
    c.run.dispatch = "auto"  # "scan" or "single" steps; auto: what is fast here
    c.run.conv_gradients = "auto"  # "library", or "explicit" gradients, of pooling too
    c.run.replicate_mode = "auto"  # "vmap", "map" or "unroll", see training.replicates
    c.run.deterministic = False  # ask GPUs for bit-reproducible kernels
    c.run.compilation_cache = True  # keep compiled programs in the user's cache folder
    c.run.checkpoint_every = "10ep"  # within a level, for runs that may be killed
    # What a loss that is not finite does: "stop" the run, or "continue" with the other
    # replicates, while there are any; reports leave the broken one out.
    c.run.on_nonfinite = "stop"  # or "continue"
    c.run.keep_checkpoints = (
        "all"  # checkpoints of levels' ends: "all", or "needed" to continue
    )
    c.run.trace = ()  # from when to when, as ("100step", "110step"), to profile
    c.run.tensorboard = True  # write event files besides metrics.jsonl
    _add_options(c)
    return c


def _add_options(c: ConfigDict) -> None:
    """Adds the fields of users' entries to a config.

    Raises:
      ValueError: if a field already exists, unless another entry added it with the same
        default value.
    """
    owners: dict[str, str] = {}
    for section, field, value, owner in registries.options():
        name = f"config.{section}.{field}"
        there = c[section].get(field, value)
        known = field in c[section] and name not in owners
        if known or type(there) is not type(value) or there != value:
            raise ValueError(
                f"options of {owner}: {name} is a field already, of "
                f"{owners.get(name, 'every config')}; expected another name, or the "
                "same default"
            )
        owners[name] = owner
        c[section][field] = value


def start(name: str, variant: str, *, also: tuple[str, ...] = ()) -> ConfigDict:
    """Starts a recipe: makes the default config, named after its config file.

    Args:
      name: name of the config file. If there is a variant, "_VARIANT" is appended.
      variant: variant from `--config=FILE:VARIANT`; "" for none.
      also: variants of the file in addition to "quick".

    Returns:
      The default config with its field `name` set.

    Raises:
      ValueError: if the file does not have the variant.
    """
    known = ("quick", *also)
    if variant and variant not in known:
        raise ValueError(
            f"--config: {name} has no variant {variant!r}; did you mean "
            f"{naming.nearest(variant, list(known))}?"
        )
    c = default()
    c.name = f"{name}_{variant}" if variant else name
    return c
