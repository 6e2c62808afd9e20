"""The config fields of the sections `model`, `init` and `warm_start`."""

from jaxsparse.config import valid
from jaxsparse.config.field import Field, Section

_SIZES = valid.optional(
    valid.tuple_of(
        valid.integer(1, 2**20).holds,
        "integers from 1 to 2**20",
        "(300, 100)",
        minimum=1,
    )
)

MODEL = Section(
    "The network.",
    {
        "name": Field(
            "lenet_300_100",
            valid.NAME,
            "Name of the network, a built-in or a registered one.",
        ),
        "width": Field(
            16,
            valid.integer(1, 2**16),
            "Number of channels of the first stage of a CIFAR ResNet, or of each token "
            "of a transformer.",
        ),
        "depth": Field(
            None,
            valid.optional(valid.integer(1, 2**12)),
            "Number of blocks of a transformer. None uses that of the named network.",
        ),
        "heads": Field(
            None,
            valid.optional(valid.integer(1, 2**12)),
            "Number of attention heads of each block of a transformer, a divisor of "
            "`model.width`. None uses that of the named network.",
        ),
        "features": Field(
            None,
            _SIZES,
            "Sizes of the dense layers, the number of channels of each stage, or the "
            "size of the tokens of a vision transformer. None uses the sizes of the "
            "named network.",
        ),
        "conv_channels": Field(
            None,
            _SIZES,
            "Numbers of channels of the convolutions of a LeNet-5. None uses those of "
            "the named network.",
        ),
        "padding": Field(
            None,
            valid.optional(valid.one_of("SAME", "VALID")),
            "Padding of the first convolution of a LeNet-5. None uses that of the "
            "named network.",
        ),
        "norm_affine": Field(
            True,
            valid.FLAG,
            "Whether BatchNorm has a learned scale and bias.",
        ),
        "dtype": Field(
            "float32",
            valid.one_of("float32", "bfloat16"),
            "Data type of activations. Weights are always float32.",
        ),
    },
)

INIT = Section(
    "The initial weights.",
    {
        "kernel": Field(
            "kaiming_normal",
            valid.one_of(
                *("kaiming_normal", "kaiming_uniform", "glorot_normal"),
                *("glorot_uniform", "lecun_normal", "lecun_uniform", "orthogonal"),
                "torch_default",
            ),
            "Distribution of the kernels of convolutions and dense layers.",
        ),
        "bias": Field(
            "zeros",
            valid.one_of("zeros", "torch_default"),
            "Initial biases: `zeros`, or `torch_default`, uniform in ±1/√n with the "
            "fan-in n.",
        ),
        "norm_scale": Field(
            "ones",
            valid.one_of("ones", "uniform"),
            "Initial scale of BatchNorm: `ones`, or `uniform` in [0, 1).",
        ),
        "zero_init": Field(
            (),
            valid.GLOBS,
            "Shell patterns of parameters that start at zero, such as `*/norm2/scale`.",
        ),
        "shared": Field(
            False,
            valid.FLAG,
            "Whether all replicates start from the initial weights of the first.",
        ),
        "sparse_init": Field(
            None,
            valid.optional(
                valid.one_of("fan_in", "fan_out", "fan_average", "layer", "neuron")
            ),
            "How kernels are drawn anew after their masks are known: `fan_in`, "
            "`fan_out` and `fan_average` scale each neuron by its number of active "
            "weights; `layer` and `neuron` rescale the distribution `init.kernel`. "
            "None keeps the dense initialization.",
        ),
        "sparse_init_distribution": Field(
            "normal",
            valid.one_of("normal", "uniform"),
            "Distribution of the kernels, for `init.sparse_init` `fan_in`, `fan_out` "
            "and `fan_average`.",
        ),
        "sparse_init_scale": Field(
            1.0,
            valid.ABOVE_0,
            "Variance times fan, for `init.sparse_init` `fan_in`, `fan_out` and "
            "`fan_average`. 2 is the value of He et al. for ReLU.",
        ),
    },
)

WARM_START = Section(
    "Training that starts from the weights or masks of another run.",
    {
        "run": Field(
            None,
            valid.optional(valid.PATH),
            "Directory of the other run, relative to the directory of this run. None "
            "starts from no run.",
        ),
        "weights": Field(
            None,
            valid.optional(valid.PATH),
            "Checkpoint of the other run to take the weights of, such as `init`. None "
            "takes none.",
        ),
        "masks": Field(
            None,
            valid.optional(valid.PATH),
            "Checkpoint of the other run to take the masks of, or the path of a "
            "ticket's `.npz` file. None takes none.",
        ),
        "masks_run": Field(
            None,
            valid.optional(valid.PATH),
            "Directory of a third run to take the masks of, while weights are those of "
            "`warm_start.run`. None takes both of the same run.",
        ),
        "align": Field(
            None,
            valid.optional(valid.one_of("activations", "weights")),
            "How units of the masks of `warm_start.masks_run` are permuted: so that "
            "`activations` or `weights` of its final dense network, `train/last`, "
            "match those of `warm_start.run`. BatchNorm statistics do not count as "
            "weights. None does not permute them.",
        ),
        "align_examples": Field(
            1000,
            valid.integer(2, 2**31 - 1),
            "Number of training examples whose activations are matched, from the "
            "first; all if there are fewer.",
        ),
        "depth": Field(
            None,
            valid.optional(valid.one_of("append", "interpolate")),
            "How residual blocks of a run of another depth are transferred: `append` "
            "repeats them in sequence or drops the last ones, `interpolate` repeats "
            "each in its place or drops evenly. Ghost skips of the other run are not "
            "transferred; new ones are initialized. None expects the same network.",
        ),
        "replicate": Field(
            None,
            valid.optional(valid.EXAMPLES),
            "Number of the replicate of the other runs that all replicates start from. "
            "None starts each replicate from the replicate of the same number.",
        ),
    },
)
