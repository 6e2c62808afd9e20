"""Formatting: the numbers of a report as text, for Markdown, HTML and terminals.

The `show_*` functions turn the data frames of `tables` and `methods` into frames of
strings with readable headings; `markdown` writes such a frame as a Markdown table.
"""

import math

import pandas as pd

from jaxsparse.stages import TICKET

MISSING = "–"
_VARIANTS = {
    "ticket": "ticket",
    "reinitialized": "ticket, reinitialized",
    "shuffled_layers": "mask shuffled within layers",
    "shuffled_globally": "mask shuffled across layers",
    "random_mask": "random mask",
    "random_magnitudes": "ticket, random magnitudes",
    "random_signs": "ticket, random signs",
    "random_weights": "ticket, random weights",
    "dense_continued": "dense, trained as long",
}


def variant_label(variant: str) -> str:
    """Returns the label of a variant; its own name if it is unknown.

    Args:
      variant: name of the ticket or of a control in the records, such as "random_mask".
    """
    return _VARIANTS.get(variant, variant)


def percent(value: float) -> str:
    """Formats a percentage as the lottery-ticket papers do: 100, 51.2, 8.6, 0.92.

    Args:
      value: a percentage, 0 to 100; NaN for a missing value.
    """
    if pd.isna(value):
        return MISSING
    if value == 0 or value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def sparsity(value: float) -> str:
    """Formats a sparsity in percent; unlike `percent`, 99.97 is not 100.

    Args:
      value: sparsity in percent, 0 to 100; NaN for a missing value.
    """
    if pd.isna(value):
        return MISSING
    return f"{value:.2f}" if value > 0 else "0"


def plus_minus(mean: float, sd: float, *, digits: int = 2) -> str:
    """Formats a mean and its standard deviation, as far as they exist.

    Args:
      mean: the mean; NaN for a missing value.
      sd: the sample standard deviation; NaN, for example of a single replicate, to
        leave it out.
      digits: digits after the decimal point.
    """
    if pd.isna(mean):
        return MISSING
    return f"{mean:.{digits}f}" + ("" if pd.isna(sd) else f" ± {sd:.{digits}f}")


def means(table: pd.DataFrame, name: str, *, digits: int = 2) -> list[str]:
    """Formats a column and its standard deviation.

    Args:
      table: has the columns `name` and `name_sd`.
      name: the column of means.
      digits: digits after the point.
    """
    return [
        plus_minus(mean, sd, digits=digits)
        for mean, sd in zip(table[name], table[f"{name}_sd"], strict=True)
    ]


def summary(table: pd.DataFrame) -> list[str]:
    """Describes in sentences what the tickets of one run achieve.

    Args:
      table: rows of one run, from `tables.levels_table`.

    Returns:
      Sentences about the dense network, the best ticket and the sparsest ticket that
      is no worse than the dense network, each by its mean; fewer where levels are
      missing.
    """
    tickets = table.loc[table["variant"] == TICKET].set_index("level")
    if 0 not in tickets.index:
        return []
    dense = tickets.loc[0]
    sentences = [f"Dense network: {_score(dense)} test accuracy (n = {dense['n']:g})."]
    sparse = tickets.drop(index=0)
    if sparse.empty:
        return sentences
    best = sparse.loc[sparse["test_accuracy"].idxmax()]
    sentences.append(f"Best ticket by its mean: {_score(best)} at {_place(best)}.")
    matching = sparse.loc[sparse["test_accuracy"] >= dense["test_accuracy"]]
    if matching.empty:
        return [*sentences, "No ticket's mean reaches the dense network's."]
    last = matching.loc[matching["weights_remaining"].idxmin()]
    sentences.append(
        "Sparsest ticket whose mean is at least the dense network's: "
        f"{_score(last)} at {_place(last)}."
    )
    return sentences


def _score(row: pd.Series) -> str:
    """Formats the test accuracy of a row."""
    return f"{plus_minus(row['test_accuracy'], row['test_accuracy_sd'])} %"


def _place(row: pd.Series) -> str:
    """Formats the weights remaining and the level of a row."""
    return f"{percent(row['weights_remaining'])} % of the weights (level {row.name})"


def method_summary(row: pd.Series) -> list[str]:
    """Describes in sentences the result of a run that trains once.

    Args:
      row: its row of `methods.methods_table`.

    Returns:
      Sentences about what was recorded.
    """
    kept = f"{row['kept']:,.0f} of {row['total']:,.0f} prunable weights"
    sentences = [
        f"{row['label']}: {_score(row)} test accuracy (n = {row['n']}) at "
        f"{sparsity(row['sparsity'])} % sparsity, with {kept}."
    ]
    if row["sparsity"] > 0 and not pd.isna(row["effective_sparsity"]):
        sentences.append(
            f"Effective sparsity: {sparsity(row['effective_sparsity'])} % of the "
            "weights are masked, or on no path from input to output."
        )
    if not pd.isna(row["explored"]):
        sentences.append(
            f"Explored: {percent(row['explored'])} % of the weights were active at "
            "some step."
        )
    if not pd.isna(row["early_stop_step"]):
        step = plus_minus(row["early_stop_step"], row["early_stop_step_sd"], digits=0)
        accuracy = plus_minus(
            row["early_stop_test_accuracy"], row["early_stop_test_accuracy_sd"]
        )
        sentences.append(
            f"At the lowest validation loss, after {step} updates: {accuracy} %."
        )
    return sentences


# Columns of tables of levels and of methods, their headings, and digits.
_PERPLEXITY = {"test_perplexity": ("Test perplexity", 2)}
_EARLY = {
    "early_stop_step": ("Early-stop step", 0),
    "early_stop_test_accuracy": ("Test accuracy at early stop (%)", 2),
}


def show_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Formats `tables.levels_table`, without columns that are empty.

    Args:
      table: the table, as that function returns it.
    """
    shown = _show_places(table, "variant")
    shown["n"] = [str(n) for n in table["n"]]
    shown["Test accuracy (%)"] = means(table, "test_accuracy")
    for name, (heading, digits) in (_PERPLEXITY | _EARLY).items():
        if name in table and table[name].notna().any():
            shown[heading] = means(table, name, digits=digits)
    return shown


def show_variants(table: pd.DataFrame) -> pd.DataFrame:
    """Formats `tables.levels_table` with one row a level and one column a variant.

    Args:
      table: rows of one run.

    Returns:
      Level, weights remaining of the ticket, and the test accuracy of each variant in
      percent with its standard deviation.
    """
    tickets = table.loc[table["variant"] == TICKET].set_index("level")
    shown = pd.DataFrame(
        {
            "Level": [str(level) for level in tickets.index],
            "Weights remaining (%)": [percent(x) for x in tickets["weights_remaining"]],
        }
    )
    for variant, rows in table.groupby("variant", sort=False):
        by_level = rows.set_index("level").reindex(tickets.index)
        heading = f"{variant_label(str(variant))} (%)"
        shown[heading] = means(by_level, "test_accuracy")
    return shown


def show_paired(table: pd.DataFrame) -> pd.DataFrame:
    """Formats `tables.paired_table`.

    Args:
      table: the table, as that function returns it.
    """
    shown = _show_places(table, "control")
    shown["Pairs"] = [str(n) for n in table["n"]]
    shown["Ticket minus control (points)"] = means(table, "difference")
    return shown


def show_layers(table: pd.DataFrame) -> pd.DataFrame:
    """Formats `tables.layers_table`.

    Args:
      table: the table, as that function returns it.
    """
    shown = pd.DataFrame({"Level": [str(level) for level in table.index]})
    for name in table.columns:
        shown[name] = [percent(value) for value in table[name]]
    return shown


def show_methods(table: pd.DataFrame) -> pd.DataFrame:
    """Formats `methods.methods_table`, without columns that are empty.

    The columns of early stopping are shown for a single run, without those of its name.

    Args:
      table: the table, as that function returns it.
    """
    shown = pd.DataFrame({"Method": list(table["label"])})
    if len(table) > 1:
        shown["Run"] = list(table["run"])
    shown["Sparsity (%)"] = [sparsity(x) for x in table["sparsity"]]
    shown["Weights kept"] = [f"{kept:,.0f}" for kept in table["kept"]]
    shown["n"] = [str(n) for n in table["n"]]
    shown["Test accuracy (%)"] = means(table, "test_accuracy")
    for name, (heading, digits) in _PERPLEXITY.items():
        if name in table:
            shown[heading] = means(table, name, digits=digits)
    if table["effective_sparsity"].notna().any():
        effective = [sparsity(x) for x in table["effective_sparsity"]]
        shown["Effective sparsity (%)"] = effective
    if table["explored"].notna().any():
        shown["Ever active (%)"] = [percent(x) for x in table["explored"]]
    for what in ("training", "inference"):
        values = table[f"{what}_multiple"]
        if values.notna().any():
            shown[f"{what.capitalize()} FLOPs (x dense)"] = multiples(values)
    for name, (heading, digits) in _EARLY.items():
        if len(table) == 1 and table[name].notna().any():
            shown[heading] = means(table, name, digits=digits)
    return shown


def multiples(values: pd.Series) -> list[str]:
    """Formats multiples to three significant digits; "" for NaN.

    Args:
      values: multiples of the dense network.
    """
    return ["" if math.isnan(value) else f"{value:.3g}x" for value in values]


def _show_places(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Formats the columns that identify a row."""
    shown = {"Run": list(table["run"])} if table["run"].nunique() > 1 else {}
    shown[variant.capitalize()] = [variant_label(name) for name in table[variant]]
    shown["Level"] = [str(level) for level in table["level"]]
    shown["Weights remaining (%)"] = [percent(x) for x in table["weights_remaining"]]
    return pd.DataFrame(shown)


def markdown(shown: pd.DataFrame) -> str:
    """Writes a Markdown table.

    `DataFrame.to_markdown` is not used: it pads all cells of a column to one width, so
    a change in one cell changes every line of the committed tables, and it does not
    escape vertical bars.

    Args:
      shown: strings, with their headings as columns.
    """
    rows = [list(shown.columns), ["---"] * shown.shape[1], *shown.to_numpy().tolist()]
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)
