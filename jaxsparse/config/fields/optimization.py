"""The config fields of `optimizer`, `schedule`, `training` and `evaluation`."""

from jaxsparse.config import valid
from jaxsparse.config.field import Field, Section

ANNEALING = valid.one_of("constant", "linear", "cosine", "step")

OPTIMIZER = Section(
    "The optimizer.",
    {
        "name": Field(
            "sgd", valid.one_of("sgd", "adam", "adamw"), "Name of the optimizer."
        ),
        "momentum": Field(0.0, valid.FRACTION_BELOW_1, "Momentum of `sgd`."),
        "nesterov": Field(False, valid.FLAG, "Whether `sgd` uses Nesterov momentum."),
        "b1": Field(
            0.9,
            valid.FRACTION_BELOW_1,
            "Decay rate of the first moment of `adam` and `adamw`.",
        ),
        "b2": Field(
            0.999,
            valid.FRACTION_BELOW_1,
            "Decay rate of the second moment of `adam` and `adamw`.",
        ),
        "eps": Field(
            1e-8,
            valid.number(1e-30, 1.0),
            "Constant in the denominator of `adam` and `adamw`.",
        ),
        "weight_decay": Field(
            0.0,
            valid.number(0.0, 100.0),
            "Weight decay: an L2 gradient for `sgd` and `adam`, decoupled from the "
            "gradient for `adamw`.",
        ),
        "weight_decay_mask": Field(
            "all",
            valid.one_of("all", "kernels"),
            "Parameters with weight decay: `all`, or `kernels` only.",
        ),
        "scale_by_density": Field(
            False,
            valid.FLAG,
            "Whether updates of each kernel by `adam` or `adamw`, with its weight "
            "decay, are divided by the density of its mask. With `init.sparse_init` "
            "`layer`, this is SuPar.",
        ),
    },
)

SCHEDULE = Section(
    "The learning rate schedule.",
    {
        "name": Field(
            "constant",
            valid.one_of("constant", "step", "cosine"),
            "Decay of the learning rate.",
        ),
        "learning_rate": Field(
            0.1, valid.ABOVE_0, "Learning rate after warmup and before decay."
        ),
        "warmup": Field(
            "0step",
            valid.DURATION,
            "Duration over which the learning rate increases linearly from 0.",
        ),
        "milestones": Field(
            (),
            valid.DURATIONS,
            "Times at which the schedule `step` multiplies the learning rate by "
            "`schedule.gamma`.",
        ),
        "gamma": Field(
            0.1,
            valid.number(1e-12, 1.0),
            "Factor of the learning rate at each milestone of the schedule `step`.",
        ),
    },
)

TRAINING = Section(
    "The length of training and label smoothing.",
    {
        "duration": Field(
            "1ep",
            valid.TOTAL,
            "Length of dense training. Lottery levels train from the rewinding step to "
            "the same end.",
        ),
        "label_smoothing": Field(
            0.0,
            valid.FRACTION_BELOW_1,
            "Fraction of the target probability that is spread over classes.",
        ),
        "smoothing_target": Field(
            "every",
            valid.one_of("every", "others"),
            "Classes that share this fraction: `every` class, or the `others` than the "
            "true class.",
        ),
        "smoothing_schedule": Field(
            "constant",
            ANNEALING,
            "How label smoothing decreases during training.",
        ),
        "smoothing_end": Field(
            "50%",
            valid.DURATION,
            "Time from which there is no label smoothing, unless its schedule is "
            "`constant`.",
        ),
    },
)

EVALUATION = Section(
    "Evaluation during training.",
    {
        "every": Field(
            "1ep",
            valid.DURATION,
            "Time between evaluations, which take place at its multiples and at the "
            "start and the end of training.",
        ),
        "batch_size": Field(
            1000,
            valid.BATCH,
            "Number of examples that are evaluated at once. It changes results in "
            "their last bits only.",
        ),
    },
)
