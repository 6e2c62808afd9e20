"""The options of GradInit and their ranges."""

from typing import NamedTuple


class GradInitOptions(NamedTuple):
    r"""Options of GradInit. The defaults are those in the README of the released code.

    Attributes:
      steps: number of updates of the factors, 0 or more.
      learning_rate: learning rate of Adam for the factors, above 0.
      step_size: length of the normalized step of gradient descent (:math:`\eta`),
        above 0.
      max_grad_norm: largest allowed norm of the gradient (:math:`\gamma`), above 0.
      min_factor: smallest allowed factor of weights, in [0, 1]; factors of biases may
        fall to 0.
      clip: limit of the absolute value of each factor's gradient, above 0.
      mask_gradients: whether to use the gradient and the step of the masked network.
        The released code uses those of the dense network, even if the mask is given
        first.
    """

    steps: int = 180
    learning_rate: float = 1e-2
    step_size: float = 0.1
    max_grad_norm: float = 1.0
    min_factor: float = 0.01
    clip: float = 1.0
    mask_gradients: bool = True


def check(options: GradInitOptions) -> None:
    """Checks that all options are in range.

    Args:
      options: the options of GradInit.

    Raises:
      ValueError: if one is not; the message names all that are not.
    """
    positive = ("learning_rate", "step_size", "max_grad_norm", "clip")
    invalid = [name for name in positive if not getattr(options, name) > 0]
    if options.steps < 0:
        invalid.append("steps")
    if not 0 <= options.min_factor <= 1:
        invalid.append("min_factor")
    if invalid:
        given = {name: getattr(options, name) for name in invalid}
        raise ValueError(
            f"options: expected {list(positive)} above 0, steps of at least 0 and "
            f"min_factor in [0, 1], got {given}"
        )
