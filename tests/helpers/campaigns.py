"""Which cases of a slow test always run, and which in campaigns only."""

from typing import Any

import pytest


def case(*values: Any, always: bool) -> Any:
    """Makes a case of `parametrize`, or of a fixture's `params`."""
    return pytest.param(*values, marks=() if always else pytest.mark.campaign)


def some(cases: Any, *, always: Any) -> list[Any]:
    """Makes cases of one value each, of which those in `always` always run."""
    return [case(value, always=value in always) for value in cases]
