"""The config fields of lottery-ticket runs: `lottery` and `pretraining`."""

from jaxsparse.config import valid
from jaxsparse.config.field import Field, Section

LOTTERY = Section(
    "Iterative magnitude pruning with rewinding (lottery tickets).",
    {
        "levels": Field(
            0,
            valid.integer(0, 1000),
            "Number of pruning levels. 0 trains the dense network only.",
            may_grow=True,
        ),
        "fraction": Field(
            0.2,
            valid.Valid(
                float,
                lambda value: 1e-7 <= value <= valid.BELOW_1,
                "a number between 0 and 1",
            ),
            "Fraction p of the remaining weights that each level prunes.",
        ),
        "count_rule": Field(
            "exact",
            valid.one_of("exact", "open_lth"),
            "How the number of weights is rounded: `exact` keeps round(N (1 - p)^L) of "
            "N weights at level L; `open_lth` follows the open_lth code, which prunes "
            "one weight more at each level, and weights that are tied with it.",
        ),
        "scope": Field(
            "global",
            valid.one_of("global", "layer"),
            "Whether one threshold is used for all layers (`global`) or one for each "
            "(`layer`).",
        ),
        "layer_fractions": Field(
            (),
            valid.pairs_of(
                lambda value: type(value) is float and 0 <= value <= valid.BELOW_1,
                "a fraction from 0 to below 1",
                "(('head/kernel', 0.1),)",
            ),
            "Fractions to prune in layers that match a shell pattern, for the scope "
            "`layer`. The first match applies; `lottery.fraction` applies to all other "
            "layers.",
        ),
        "exclude": Field(
            (), valid.GLOBS, "Shell patterns of layers that are never pruned."
        ),
        "min_layer_density": Field(
            0.0,
            valid.FRACTION,
            "Smallest fraction of its weights that each layer keeps, for the scope "
            "`global`.",
        ),
        "score": Field(
            "magnitude",
            valid.NAME,
            "Score of the trained weights, a built-in or a registered one. Weights "
            "with the lowest scores are pruned.",
        ),
        "one_shot": Field(
            False,
            valid.FLAG,
            "Whether each level is pruned directly from the trained dense network.",
        ),
        "dense_run": Field(
            None,
            valid.optional(valid.PATH),
            "Directory of an earlier run, relative to the directory of this run, whose "
            "dense network is level 0. Level 0 then has all steps of dense training, "
            "and later levels start from its state at `lottery.rewind`, which the "
            "earlier run must have saved (`analysis.save_at`). None trains level 0.",
        ),
        "rewind": Field(
            "0step",
            valid.DURATION,
            "Rewinding step: the time of dense training from which levels restart. "
            "`0step` is initialization.",
        ),
        "retrain": Field(
            "rewind",
            valid.one_of("rewind", "learning_rate_rewind", "finetune"),
            "How levels are retrained: `rewind` resets weights and learning rate to "
            "the rewinding step, `learning_rate_rewind` resets the learning rate only, "
            "`finetune` continues with the last learning rate, which excludes the "
            "schedule `cosine`.",
        ),
        "finetune_length": Field(
            "10%", valid.DURATION, "Length of a level, for the retraining `finetune`."
        ),
        "particles": Field(
            1,
            valid.integer(1, 2**20),
            "Number of consecutive replicates that share initial weights, training up "
            "to the rewinding step and masks, and differ in the order of examples from "
            "there (SWAMP). Each level prunes the mean "
            "of their weights, and starts from it if `lottery.retrain` is not "
            "`rewind` (sparse model soups). Divides `replicates`; reported standard "
            "deviations are over particles and groups. 1 averages nothing.",
        ),
        "controls": Field(
            (),
            valid.names_among(
                *("reinitialized", "shuffled_layers", "shuffled_globally"),
                *("random_mask", "random_magnitudes", "random_signs"),
                *("random_weights", "dense_continued"),
                example="('reinitialized', 'random_mask')",
            ),
            "Controls that are trained beside the ticket of each level.",
        ),
        "control_levels": Field(
            None,
            valid.optional(
                valid.tuple_of(
                    valid.integer(1, 1000).holds,
                    "integers from 1 to 1000",
                    "(1, 3)",
                    minimum=1,
                )
            ),
            "Levels at which controls are trained. None trains them at all levels from "
            "1 on.",
        ),
    },
)

PRETRAINING = Section(
    "Dense training up to the rewinding step, where it differs from the rest of "
    "training (Paul et al., 2022, arXiv:2206.01278).",
    {
        "subset": Field(
            None,
            valid.optional(valid.one_of("easiest", "hardest", "random", "window")),
            "Which training examples are used, by their scores. None uses all.",
        ),
        "size": Field(0, valid.EXAMPLES, "Number of examples in the subset."),
        "scores": Field(
            None,
            valid.optional(valid.PATH),
            "File of scores that `experiments/score_data.py` wrote, relative to the "
            "run directory.",
        ),
        "window_start": Field(
            0,
            valid.EXAMPLES,
            "Rank of the easiest example of the subset `window`, counted from 0.",
        ),
        "balanced": Field(
            False,
            valid.FLAG,
            "Whether the subset has equally many examples of each class.",
        ),
        "seed": Field(
            0,
            valid.SEED,
            "Seed of the subset `random`, different for each replicate.",
        ),
        "batch_size": Field(
            None,
            valid.optional(valid.integer(1, 2**24)),
            "Number of examples per step. None uses `data.batch_size`.",
        ),
        "learning_rate": Field(
            None,
            valid.optional(valid.ABOVE_0),
            "Constant learning rate after warmup. None uses the section `schedule`.",
        ),
        "warmup": Field(
            "0step",
            valid.DURATION,
            "Duration over which `pretraining.learning_rate` is reached linearly "
            "from 0.",
        ),
        "label_noise": Field(
            0.0,
            valid.FRACTION,
            "Fraction of the training labels that are replaced during pretraining, in "
            "the way of `data.label_noise_by`.",
        ),
    },
)
