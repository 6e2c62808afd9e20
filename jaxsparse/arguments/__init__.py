"""Checks of arguments of public functions, made before anything is computed.

A decorator states what each argument must be, and a wrong argument raises an error that
begins with its name:

    @arguments.check(masks=arguments.masks, level=arguments.integer(0))
    def layer_counts(masks, level, rule): ...

Every check is called as `check(name, value)`, with the name of the argument, for the
message, and the value that the caller gave. `check_fields` checks the fields of a
record of options in the same way.

Traced values are unknown, so checks of integers and numbers accept them. Checks of
trees look only at shapes and dtypes.
"""

from jaxsparse.arguments.decorator import Check, check, check_fields
from jaxsparse.arguments.numeric import fraction, integer, number, real
from jaxsparse.arguments.trees import masks, weights
from jaxsparse.arguments.values import (
    function,
    instance,
    key,
    name_function_or_table,
    name_or_function,
    one_of,
    optimizer,
    optional,
    path,
    patterns,
)
from jaxsparse.arguments.warning import warn

__all__ = (
    "Check",
    "check",
    "check_fields",
    "fraction",
    "function",
    "instance",
    "integer",
    "key",
    "masks",
    "name_function_or_table",
    "name_or_function",
    "number",
    "one_of",
    "optimizer",
    "optional",
    "path",
    "patterns",
    "real",
    "warn",
    "weights",
)
