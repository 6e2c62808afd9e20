"""Tables: measurements of seeds as data frames, and as text.

Data frames have all digits, and NaN for what is missing. As text it is "".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxsparse.reports import formatting, plot_curves


def by_seed(
    along: Mapping[str, Sequence[Any]], measures: Mapping[str, Any], **place: Any
) -> pd.DataFrame:
    """Arranges measures in a data frame: one row for each seed and position.

    Args:
      along: m values of columns that depend on the position, such as levels or steps.
      measures: [seeds m] by column.
      **place: values of columns that are the same in all rows.
    """
    arrays = {name: np.asarray(each, float) for name, each in measures.items()}
    seeds, m = next(iter(arrays.values())).shape
    return pd.DataFrame(
        {name: [value] * (seeds * m) for name, value in place.items()}
        | {name: list(values) * seeds for name, values in along.items()}
        | {"seed": np.repeat(range(seeds), m)}
        | {name: each.ravel() for name, each in arrays.items()}
    )


def lines(x: Sequence[float], y: Any, *, panel: str = "", label: str) -> pd.DataFrame:
    """Arranges the lines of seeds for `plot_curves`.

    Args:
      x: m positions, such as steps.
      y: values [seeds m].
      panel: title of the panel; "" for the only one.
      label: label of the lines.
    """
    frame = by_seed({"x": x}, {"y": y}, panel=panel, label=label)
    return frame.rename(columns={"seed": "replicate"})[plot_curves.COLUMNS]


def concat(parts: Sequence[pd.DataFrame], columns: Sequence[str] = ()) -> pd.DataFrame:
    """Joins the rows of data frames.

    Args:
      parts: data frames; there may be none.
      columns: columns of the result if there are none.
    """
    if not parts:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(parts, ignore_index=True)


def mean(values: pd.Series, digits: int = 2) -> str:
    """Formats a mean over seeds and the sample standard deviation, "" for none.

    Args:
      values: one for each seed; missing ones are left out.
      digits: digits after the point.
    """
    found = formatting.plus_minus(values.mean(), values.std(), digits=digits)
    return "" if found == formatting.MISSING else found


def means(
    frame: pd.DataFrame,
    by: Sequence[str],
    columns: Mapping[str, tuple[str, float, int]],
) -> pd.DataFrame:
    """Formats the means over seeds of every place.

    Args:
      frame: one row for each place and seed.
      by: columns that identify a place.
      columns: by heading, a column, a factor such as 100, and digits after the point.

    Returns:
      One row for each place, in the order of the frame: the columns `by`, "n", the
      number of seeds as text, and the headings. Empty if the frame is empty.
    """
    if frame.empty:
        return pd.DataFrame()
    groups = frame.groupby(list(by), sort=False)
    shown = groups.size().astype(str).rename("n").reset_index()
    for heading, (name, factor, digits) in columns.items():
        texts = [mean(factor * values, digits) for _, values in groups[name]]
        shown[heading] = texts
    return shown


def show(frame: pd.DataFrame, columns: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Formats the columns of a data frame, and leaves out those that are empty.

    Args:
      frame: the data frame.
      columns: by heading, a column and the format of its values, such as ".2f" or "";
        with " ± " at its end, the standard deviation in the column NAME_sd follows.
    """
    shown = pd.DataFrame(index=frame.index)
    columns = {} if frame.empty else columns
    for heading, (name, form) in columns.items():
        plain = form.removesuffix(" ± ")
        texts = _texts(frame[name], plain)
        if plain != form:
            sds = (
                f" ± {sd}" if sd else "" for sd in _texts(frame[f"{name}_sd"], plain)
            )
            texts = [a + b if a else "" for a, b in zip(texts, sds, strict=True)]
        shown[heading] = texts
    return shown.loc[:, (shown != "").any()]


def _texts(values: pd.Series, form: str) -> list[str]:
    """Formats values, "" for missing ones."""
    return ["" if pd.isna(value) else format(value, form) for value in values]
