"""Descriptions of the values that a config field may have.

A `Valid` tests the type and the range of a value and describes both in words, for error
messages and for the reference in configs/README.md. Bounds are wide: they exclude only
values that make no sense in any run, such as numbers outside the range of float32.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxsparse import durations
from jaxsparse.config import naming

Test = Callable[[Any], bool]

INT32 = 2**31  # steps and indices of examples are int32
UINT32 = 2**32  # seeds are uint32
BELOW_1 = 1 - 1e-7  # larger values would be rounded to 1 in float32


@dataclasses.dataclass(frozen=True)
class Valid:
    """The valid values of a config field.

    Attributes:
      type: the type of valid values: bool, int, float, str or tuple.
      test: predicate for a value of this type.
      words: the valid values in words, such as "an integer of at least 1".
      choices: all valid values, if they are a few names; () otherwise.
      optional: whether None is valid too.
    """

    type: type
    test: Test
    words: str
    choices: tuple[str, ...] = ()
    optional: bool = False

    def holds(self, value: Any) -> bool:
        """Returns whether a value is valid.

        Args:
          value: a value of any type.
        """
        if value is None:
            return self.optional
        # Not `isinstance`, for which True is an integer.
        return type(value) is self.type and self.test(value)


def optional(valid: Valid) -> Valid:
    """Makes None valid in addition to other values.

    Args:
      valid: the other valid values.
    """
    return dataclasses.replace(valid, optional=True, words=f"{valid.words}, or None")


def one_of(*choices: str) -> Valid:
    """Returns the description of a few names.

    Args:
      *choices: the names.
    """
    words = "one of " + ", ".join(choices)
    return Valid(str, lambda value: value in choices, words, choices)


def integer(minimum: int, maximum: int) -> Valid:
    """Returns the description of the integers in a range.

    Args:
      minimum: smallest valid value.
      maximum: largest valid value.
    """
    words = f"an integer from {minimum} to {_power(maximum)}"
    return Valid(int, lambda value: minimum <= value <= maximum, words)


def number(minimum: float, maximum: float) -> Valid:
    """Returns the description of the floating-point numbers in a range.

    Args:
      minimum: smallest valid value.
      maximum: largest valid value.
    """
    words = f"a number from {minimum:g} to {maximum:g}"
    return Valid(float, lambda value: minimum <= value <= maximum, words)


def tuple_of(test: Test, words: str, example: str, *, minimum: int = 0) -> Valid:
    """Returns the description of tuples with valid items.

    Args:
      test: predicate for one item of any type.
      words: valid items in words, in the plural.
      example: an example of such a tuple.
      minimum: smallest valid number of items; 1 where None is valid and the empty tuple
        would mean the same.
    """
    words = f"a tuple of {words}, such as {example}"
    return Valid(
        tuple, lambda value: len(value) >= minimum and all(map(test, value)), words
    )


def names_among(*choices: str, example: str) -> Valid:
    """Returns the description of tuples of a few names.

    Args:
      *choices: the names.
      example: an example of such a tuple.
    """
    words = f"names among {', '.join(choices)}"
    made = tuple_of(lambda value: value in choices, words, example)
    return dataclasses.replace(made, choices=choices)


def pairs_of(test: Test, words: str, example: str) -> Valid:
    """Returns the description of tuples of pairs of a pattern and a valid value.

    Args:
      test: predicate for the second element of a pair, of any type.
      words: valid second elements in words, in the singular.
      example: an example of such a tuple.
    """

    def is_pair(value: Any) -> bool:
        # Configs read from JSON have lists in place of inner tuples.
        is_pair = isinstance(value, tuple | list) and len(value) == 2
        return is_pair and is_pattern(value[0]) and test(value[1])

    words = f"pairs of a pattern and {words}, such as {example}"
    return Valid(tuple, lambda value: all(map(is_pair, value)), words)


def is_real(value: Any, minimum: float, maximum: float) -> bool:
    """Returns whether a value is an integer or a float in a range; not a Boolean.

    Args:
      value: a value of any type.
      minimum: smallest valid value.
      maximum: largest valid value.
    """
    return type(value) in (int, float) and minimum <= value <= maximum


def is_pattern(value: Any) -> bool:
    """Returns whether a value is a name or a shell pattern in one line.

    Args:
      value: a value of any type.
    """
    return isinstance(value, str) and _is_text(value)


def _power(value: int) -> str:
    """Writes large powers of 2, and the numbers below them, as powers."""
    for base, rest in ((value, ""), (value + 1, " - 1")):
        if value >= 10**5 and base & (base - 1) == 0:
            return f"2**{base.bit_length() - 1}{rest}"
    return str(value)


def _is_text(value: str) -> bool:
    return value != "" and value.isprintable()


def _is_folder_name(value: str) -> bool:
    return _is_text(value) and "/" not in value and value not in (".", "..")


def _is_path(value: str) -> bool:
    try:
        naming.to_path("", value)
    except ValueError:
        return False
    return _is_text(value)


def _is_duration(value: str) -> bool:
    """Returns whether a text is a duration of at most 100 % or 2**31 steps."""
    # With a total of 2**31 steps, one comparison checks both bounds.
    try:
        return durations.to_steps(value, steps_per_epoch=1, total=INT32) <= INT32
    except ValueError:
        return False


FLAG = Valid(bool, lambda value: True, "True or False")
NAME = Valid(str, _is_text, "a name in one line")
FOLDER_NAME = Valid(str, _is_folder_name, "a name in one line, without slashes")
PATH = Valid(str, _is_path, "a path in one line, in which '~user' is an existing user")
DURATION = Valid(
    str,
    _is_duration,
    f"a duration of at most 100% or 2**31 steps: {durations.FORMS}",
)
TOTAL = Valid(
    str,
    lambda value: _is_duration(value) and "%" not in value,
    "a duration in steps or epochs, such as '500step' or '2ep', of at most 2**31 steps",
)
SEED = integer(0, UINT32 - 1)
EXAMPLES = integer(0, INT32 - 1)
BATCH = integer(1, 2**24)
FRACTION = number(0.0, 1.0)
FRACTION_BELOW_1 = Valid(
    float, lambda value: 0 <= value <= BELOW_1, "a number from 0 to below 1"
)
ABOVE_0 = number(1e-12, 1e6)  # smaller values are lost in the rounding of float32
GLOBS = tuple_of(is_pattern, "shell patterns", "('head/kernel',)")
DURATIONS = tuple_of(
    DURATION.holds,
    "durations of at most 100% or 2**31 steps",
    "('500step', '2ep', '50%')",
)
