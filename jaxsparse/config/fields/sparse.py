"""The config fields of the section `sparse`."""

from typing import Any

from jaxsparse.config import valid
from jaxsparse.config.field import Field, Section


def _is_sparsity_or_count(value: Any) -> bool:
    maximum = 1.0 if type(value) is float else float(valid.INT32 - 1)
    return valid.is_real(value, 0.0, maximum)


SPARSE = Section(
    "Sparse training from the start, in place of lottery levels. Each method uses some "
    "of these fields; an error names fields that are set and not used.",
    {
        "method": Field(
            "none",
            valid.NAME,
            "Sparse training method, a built-in or a registered one. `none` trains "
            "dense, `static` trains fixed masks that are chosen at initialization.",
        ),
        "reparameterization": Field(
            None,
            valid.optional(valid.NAME),
            "Reparameterization: a function of other, trained parameters that the "
            "prunable weights are. Methods that make weights zero by a "
            "reparameterization or a projection of their own refuse it. None trains "
            "the weights themselves.",
        ),
        "weight_power": Field(
            2.0,
            valid.number(1.0, 100.0),
            "Power of the trained parameters that the weights are.",
        ),
        "inner_scaling": Field(
            1.0,
            valid.number(1e-6, 1e6),
            "Difference of the squares of the two factors of each weight at the start.",
        ),
        "rescale_every": Field(
            None,
            valid.optional(valid.DURATION),
            "Time between restorations of that difference. None never restores it.",
        ),
        "rescale_until": Field(
            None,
            valid.optional(valid.DURATION),
            "Time after which that difference is no longer restored. None sets no end.",
        ),
        "factor_decay": Field(
            0.0,
            valid.number(0.0, 1000.0),
            "Coefficient of half the sum of the squares of both factors.",
        ),
        "sparsity": Field(
            0.9,
            valid.FRACTION_BELOW_1,
            "Fraction of the prunable weights that are pruned.",
        ),
        "distribution": Field(
            None,
            valid.optional(valid.one_of("global", "uniform", "balanced", "er", "erk")),
            "How the sparsity is divided among layers; `global` ranks the weights of "
            "all layers together. None uses the default of the method or of the score.",
        ),
        "layer_sparsity": Field(
            (),
            valid.pairs_of(
                _is_sparsity_or_count,
                "a sparsity from 0.0 to 1.0 or a number of weights to keep",
                "(('head/kernel', 0.5),)",
            ),
            "Sparsities of layers that match a shell pattern, as a float, or numbers "
            "of weights to keep, as an integer. `sparse.sparsity` applies to all other "
            "layers.",
        ),
        "prunable": Field(
            None,
            valid.optional(
                valid.tuple_of(
                    valid.is_pattern, "shell patterns", "('head/kernel',)", minimum=1
                )
            ),
            "Shell patterns of prunable parameters; a pattern that starts with `!` "
            "excludes. None prunes the kernels of convolutions and dense layers.",
        ),
        "dense": Field((), valid.GLOBS, "Shell patterns of layers that stay dense."),
        "first_layer_dense": Field(
            False, valid.FLAG, "Whether the first prunable layer stays dense."
        ),
        "last_layer_dense": Field(
            False, valid.FLAG, "Whether the last prunable layer stays dense."
        ),
        "pack_masks": Field(
            False,
            valid.FLAG,
            "Whether the optimizer state stores two bits for each weight in place of a "
            "byte. Training is bit for bit the same.",
        ),
        "structure": Field(
            None,
            valid.optional(valid.NAME),
            "Structured sparsity: `groups 4` (N:M sparsity with M = 4), `blocks 4x4`, "
            "`channels`, `fan_in` or `diagonals` (wrapped ones); with the method "
            "`static` also `coupled_channels`, which removes the fraction `sparsity` "
            "of the units of each group from all layers that share them: `compaction` "
            "then makes the network smaller. None prunes single weights.",
        ),
        "pai_score": Field(
            "random",
            valid.NAME,
            "Score of the initial weights for the method `static` (pruning at "
            "initialization), a built-in or a registered one.",
        ),
        "score_iterations": Field(
            1,
            valid.integer(1, 10**5),
            "Number of times that weights are scored and pruned, each time to a higher "
            "sparsity, for the method `static`.",
        ),
        "regrow": Field(
            False,
            valid.FLAG,
            "Whether later iterations may restore weights that earlier ones pruned.",
        ),
        "ablation": Field(
            None,
            valid.optional(
                valid.one_of("shuffled_layers", "inverted", "reinitialized")
            ),
            "Ablation of the method `static`: masks shuffled within layers, masks of "
            "inverted scores, or newly drawn weights. None makes none.",
        ),
        "prune_disconnected": Field(
            False,
            valid.FLAG,
            "Whether the method `static` also prunes weights on no path from the input "
            "to an output.",
        ),
        "score_batches": Field(
            10,
            valid.integer(1, 10**6),
            "Number of batches of training examples on which weights are scored.",
        ),
        "score_batch_size": Field(
            128, valid.BATCH, "Number of examples in each of these batches."
        ),
        "begin_step": Field(
            None,
            valid.optional(valid.DURATION),
            "Time of the first mask update. None uses the default of the method.",
        ),
        "end_step": Field(
            None,
            valid.optional(valid.DURATION),
            "Time after which masks no longer change. None uses the default of the "
            "method.",
        ),
        "update_every": Field("100step", valid.DURATION, "Time between mask updates."),
        "drop_fraction": Field(
            None,
            valid.optional(valid.FRACTION),
            "Fraction of the active weights of each layer that a mask update drops. "
            "None uses the default of the method.",
        ),
        "drop_schedule": Field(
            None,
            valid.optional(valid.one_of("cosine", "constant", "learning_rate")),
            "How the drop fraction changes during training; `learning_rate` keeps it "
            "proportional to the learning rate. None uses the default of the method.",
        ),
        "drop_by_sign": Field(
            True,
            valid.FLAG,
            "Whether `set` drops the smallest positive and the largest negative "
            "weights separately.",
        ),
        "grow": Field(
            "gradient",
            valid.one_of("gradient", "inverted", "random"),
            "Weights that grow: those with the largest gradient, with the smallest "
            "gradient (`inverted`), or `random` ones.",
        ),
        "negative_drop_fraction": Field(
            0.1,
            valid.FRACTION,
            "Fraction of the active weights of each layer that mask updates of "
            "`neurrev` drop because they are negative and have changed least.",
        ),
        "density_factor": Field(
            3.0,
            valid.number(1.0, 1e6),
            "Density in the middle of a cycle of `east`, in multiples of the final "
            "density; at most 1 in all.",
        ),
        "cycles": Field(
            2,
            valid.integer(0, 10**6),
            "Number of times that the density of `east` rises and falls.",
        ),
        "cycle_part": Field(
            0.4,
            valid.FRACTION,
            "Part of the time until `sparse.end_step` in which there are such cycles.",
        ),
        "first_exponent": Field(
            1.0,
            valid.number(0.0, 1000.0),
            "Power of the importance of weights in proportion to which `chts` draws "
            "those that stay, at step 0.",
        ),
        "last_exponent": Field(
            3.0, valid.number(0.0, 1000.0), "The same power at `sparse.end_step`."
        ),
        "min_salient": Field(
            0.3,
            valid.FRACTION,
            "Fraction of the fan-in that a neuron must have as salient weights, lest "
            "`srigl` remove it. 0 removes no neuron.",
        ),
        "keep_neurons": Field(
            (), valid.GLOBS, "Shell patterns of layers that keep all neurons."
        ),
        "grow_batch_size": Field(
            0,
            valid.EXAMPLES,
            "Number of training examples whose gradient selects the weights to grow. 0 "
            "uses the training batch.",
        ),
        "grow_batch_start": Field(
            0, valid.EXAMPLES, "Index of the first of these examples, counted from 0."
        ),
        "skip_update": Field(
            None,
            valid.optional(valid.FLAG),
            "Whether steps that update masks leave the weights unchanged. None uses "
            "the default of the method.",
        ),
        "allow_regrow": Field(
            True,
            valid.FLAG,
            "Whether a mask update may grow weights that it has just dropped.",
        ),
        "zero_regrown": Field(
            False, valid.FLAG, "Whether such weights restart at zero."
        ),
        "soft_bound": Field(
            False,
            valid.FLAG,
            "Whether `mest` grows weights first and drops as many at the next mask "
            "update.",
        ),
        "schedule": Field(
            "cubic",
            valid.one_of("cubic", "linear", "exponential", "sigmoid"),
            "How the sparsity of gradual methods increases.",
        ),
        "initial_sparsity": Field(
            None,
            valid.optional(valid.FRACTION_BELOW_1),
            "Sparsity before the first mask update of gradual methods. None uses the "
            "default of the method.",
        ),
        "min_layer_density": Field(
            0.0,
            valid.FRACTION,
            "Smallest fraction of its weights that each layer keeps, for the "
            "distribution `global`.",
        ),
        "l1_penalty": Field(
            1e-4,
            valid.number(0.0, 1000.0),
            "Coefficient of the L1 penalty, whose proximal operator is applied after "
            "every step.",
        ),
        "threshold_logit": Field(
            -12.0,
            valid.number(-1e5, 1e5),
            "Initial threshold of each layer, as the argument of a sigmoid; "
            "`optimizer.weight_decay` raises it.",
        ),
        "mask_logit": Field(
            -0.01,
            valid.number(-80.0, 100.0),
            "Initial value of the soft masks, as the argument of a sigmoid.",
        ),
        "mask_penalty": Field(
            1e-8,
            valid.number(0.0, 1000.0),
            "Coefficient of the penalty on the sum of the soft masks.",
        ),
        "final_temperature": Field(
            200.0,
            valid.number(1.0, 1e6),
            "Factor of the sigmoid's argument at `sparse.end_step`; 1 at the start.",
        ),
        "start_temperature": Field(
            5.0,
            valid.number(1e-6, 1e6),
            "Temperature of the softmax of importances at step 0; the higher, the more "
            "equal are its shares.",
        ),
        "end_temperature": Field(
            0.05, valid.number(1e-6, 1e6), "The same at `sparse.end_step`."
        ),
        "train_others": Field(
            False,
            valid.FLAG,
            "Whether parameters that are not prunable, such as biases, are trained "
            "instead of keeping their initial values.",
        ),
        "score_penalty": Field(
            1e-4,
            valid.number(0.0, 1000.0),
            "Coefficient of the penalty on the sum of the squared scores.",
        ),
        "backward_sparsity": Field(
            0.5,
            valid.FRACTION_BELOW_1,
            "Fraction of the prunable weights that `top_kast` does not train.",
        ),
        "outside_regularization": Field(
            None,
            valid.optional(valid.number(0.0, 1000.0)),
            "Strength with which `sr_ste` and `top_kast` draw inactive weights to "
            "zero. None uses the default of the method.",
        ),
    },
)
