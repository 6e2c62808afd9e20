"""The config fields of the sections `tost` and `gradinit`."""

from typing import Any

from jaxsparse.config import valid
from jaxsparse.config.field import Field, Section
from jaxsparse.config.fields.optimization import ANNEALING


def _is_beta(value: tuple[Any, ...]) -> bool:
    numbers = len(value) == 2 and all(valid.is_real(x, 1e-6, 1e6) for x in value)
    return numbers and value[0] <= value[1]


TOST = Section(
    "Techniques of ToST (Jaiswal et al., 2022, arXiv:2206.12755) that modify the "
    "network early in training: soft activations and ghost skips.",
    {
        "activation": Field(
            None,
            valid.optional(valid.one_of("swish", "mish", "p_swish", "gelu")),
            "Soft activation in place of ReLU. None uses ReLU from the start.",
        ),
        "mode": Field(
            "blend",
            valid.one_of("blend", "sharpen"),
            "How the soft activation becomes ReLU: `blend` interpolates between the "
            "two, `sharpen` increases the sharpness of `p_swish`.",
        ),
        "beta": Field(
            (1.0, 50.0),
            valid.Valid(
                tuple,
                _is_beta,
                "two numbers from 1e-6 to 1e+06, not decreasing, such as (1.0, 50.0)",
            ),
            "Sharpness of `p_swish` at the start and at the end of `sharpen`.",
        ),
        "skips": Field(
            None,
            valid.optional(valid.one_of("convolution", "identity")),
            "Kind of the ghost skips around convolutions. None adds none.",
        ),
        "schedule": Field(
            "linear",
            ANNEALING,
            "How the strength of soft activations and ghost skips decreases.",
        ),
        "end": Field(
            "50%",
            valid.DURATION,
            "Time from which soft activations and ghost skips have no effect, unless "
            "the schedule is `constant`.",
        ),
    },
)

GRADINIT = Section(
    "GradInit (Zhu et al., 2021, arXiv:2102.08098), which rescales the initial weights "
    "by one factor for each tensor.",
    {
        "steps": Field(
            0,
            valid.integer(0, 10**7),
            "Number of updates of the factors; ToST uses 180. 0 does not rescale.",
        ),
        "learning_rate": Field(
            1e-2, valid.ABOVE_0, "Learning rate of Adam for the factors."
        ),
        "step_size": Field(
            0.1,
            valid.ABOVE_0,
            "Length of the step of gradient descent after which the loss is minimized.",
        ),
        "max_grad_norm": Field(
            1.0,
            valid.Valid(
                float,
                lambda value: 1e-12 <= value <= 1e12 or value == float("inf"),
                "a number from 1e-12 to 1e+12, or inf",
            ),
            "Largest allowed norm of the gradient.",
        ),
        "min_factor": Field(
            0.01,
            valid.FRACTION,
            "Smallest factor of kernels and scales. Factors of biases may reach 0.",
        ),
        "clip": Field(
            1.0,
            valid.number(1e-12, 1e12),
            "Largest absolute value of the gradient of a factor.",
        ),
        "mask_gradients": Field(
            True,
            valid.FLAG,
            "Whether to use the gradient of the sparse network. The released code uses "
            "that of the dense network.",
        ),
        "batch_size": Field(
            128,
            valid.BATCH,
            "Number of examples in each of the three batches of an update.",
        ),
    },
)
