"""Warnings at the line of the user that led to them."""

import os
import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1]) + os.sep  # the folder of jaxsparse


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the line outside this package that led to the warning.

    Args:
      message: what is probably wrong, and the remedy.
      category: class of the warning.

    Warns:
      UserWarning: or `category`. Its file and line are those of the innermost function
        on the call stack that is not defined in this package.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
