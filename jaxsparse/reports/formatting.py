"""Text: a report's numbers as words, for Markdown, HTML and terminals.

The `show_*` functions turn the data frames of `tables` into frames of strings with
headings for people; `markdown`, `html` and `plain` lay such a frame out.
"""

from collections.abc import Sequence
from html import escape

import pandas as pd

from jaxsparse.reports import tables

MISSING = "–"
_VARIANTS = {
    "ticket": "ticket",
    "reinitialized": "ticket, reinitialised",
    "shuffled_layers": "mask shuffled within layers",
    "shuffled_globally": "mask shuffled across layers",
    "random_mask": "random mask",
    "dense_continued": "dense, trained as long",
}


def variant_label(variant: str) -> str:
    """Returns what to call an arm; its own name if it is a stranger."""
    return _VARIANTS.get(variant, variant)


def summary(table: pd.DataFrame) -> list[str]:
    """Says in sentences what the tickets of one run reached.

    Args:
      table: rows of one run, from `levels_table`.

    Returns:
      Sentences about the dense network, the best ticket and the sparsest ticket that
      is no worse than dense, each by its mean; fewer where levels are lacking.
    """
    tickets = table.loc[table["arm"] == tables.TICKET].set_index("level")
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
    """Writes a row's test accuracy."""
    return f"{plus_minus(row['test_accuracy'], row['test_accuracy_sd'])} %"


def _place(row: pd.Series) -> str:
    """Writes where on the way to sparsity a row is."""
    return f"{percent(row['weights_remaining'])} % of the weights (level {row.name})"


def percent(value: float) -> str:
    """Writes a percentage as the lottery-ticket papers do: 100, 51.2, 8.6, 0.92."""
    if pd.isna(value):
        return MISSING
    if value == 0 or value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def sparsity(value: float) -> str:
    """Writes a sparsity in percent; unlike `percent`, 99.97 is not 100."""
    if pd.isna(value):
        return MISSING
    return f"{value:.2f}" if value > 0 else "0"


def plus_minus(mean: float, sd: float, *, digits: int = 2) -> str:
    """Writes a mean and its deviation, leaving out what does not exist."""
    if pd.isna(mean):
        return MISSING
    return f"{mean:.{digits}f}" + ("" if pd.isna(sd) else f" ± {sd:.{digits}f}")


def show_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of `levels_table`; columns that say nothing are left out."""
    shown = _show_places(table, "arm")
    shown["n"] = [str(n) for n in table["n"]]
    measures = {
        "test_accuracy": ("Test accuracy (%)", 2),
        "early_stop_step": ("Early-stop step", 0),
        "early_stop_test_accuracy": ("Test accuracy at early stop (%)", 2),
    }
    for name, (heading, digits) in measures.items():
        if name == "test_accuracy" or table[name].notna().any():
            shown[heading] = _show_means(table, name, digits)
    return shown


def show_variants(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of `levels_table` with a row a level and a column an arm.

    Args:
      table: rows of one run.

    Returns:
      Level, weights remaining of the ticket, and each arm's test accuracy in percent
      with its deviation.
    """
    tickets = table.loc[table["arm"] == tables.TICKET].set_index("level")
    shown = pd.DataFrame(
        {
            "Level": [str(level) for level in tickets.index],
            "Weights remaining (%)": [percent(x) for x in tickets["weights_remaining"]],
        }
    )
    for arm in table["arm"].unique():
        rows = table.loc[table["arm"] == arm].set_index("level").reindex(tickets.index)
        shown[f"{variant_label(arm)} (%)"] = _show_means(rows, "test_accuracy", 2)
    return shown


def show_paired(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of `paired_table`."""
    shown = _show_places(table, "control")
    shown["Pairs"] = [str(n) for n in table["n"]]
    shown["Ticket minus control (points)"] = _show_means(table, "difference", 2)
    return shown


def show_layers(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of `layers_table`."""
    shown = pd.DataFrame({"Level": [str(level) for level in table.index]})
    for name in table.columns:
        shown[name] = [percent(value) for value in table[name]]
    return shown


def show_methods(table: pd.DataFrame) -> pd.DataFrame:
    """Makes text of `methods.methods_table`; columns that say nothing are left out."""
    shown = pd.DataFrame({"Method": list(table["label"])})
    if len(table) > 1:
        shown["Run"] = list(table["run"])
    shown["Sparsity (%)"] = [sparsity(x) for x in table["sparsity"]]
    shown["Weights kept"] = [f"{kept:,.0f}" for kept in table["kept"]]
    shown["n"] = [str(n) for n in table["n"]]
    shown["Test accuracy (%)"] = _show_means(table, "test_accuracy", 2)
    if table["effective_sparsity"].notna().any():
        effective = [sparsity(x) for x in table["effective_sparsity"]]
        shown["Effective sparsity (%)"] = effective
    if table["explored"].notna().any():
        shown["Ever active (%)"] = [percent(x) for x in table["explored"]]
    return shown


def method_summary(row: pd.Series, levels: pd.DataFrame) -> list[str]:
    """Says in sentences what one run came to that trained once.

    Args:
      row: its row of `methods.methods_table`.
      levels: its row of `tables.levels_table`, for early stopping.

    Returns:
      Sentences, each about what was recorded.
    """
    reached = f"{row['label']}: {_score(row)} test accuracy (n = {row['n']})"
    kept = f"{row['kept']:,.0f} of {row['total']:,.0f} prunable weights"
    sentences = [f"{reached} at {sparsity(row['sparsity'])} % sparsity, with {kept}."]
    if row["sparsity"] > 0 and not pd.isna(row["effective_sparsity"]):
        sentences.append(
            f"Effective sparsity: {sparsity(row['effective_sparsity'])} % of the "
            "weights are masked, or on no path from input to output."
        )
    if not pd.isna(row["explored"]):
        sentences.append(
            f"Explored: {percent(row['explored'])} % of the weights were active at "
            "some time."
        )
    for _, early in levels.loc[levels["early_stop_step"].notna()].iterrows():
        step, sd = early["early_stop_step"], early["early_stop_step_sd"]
        accuracy = plus_minus(
            early["early_stop_test_accuracy"], early["early_stop_test_accuracy_sd"]
        )
        sentences.append(
            f"At the least validation loss, after {plus_minus(step, sd, digits=0)} "
            f"updates: {accuracy} %."
        )
    return sentences


def _show_places(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Makes text of the columns that say which row it is."""
    shown = {"Run": list(table["run"])} if table["run"].nunique() > 1 else {}
    shown[variant.capitalize()] = [variant_label(name) for name in table[variant]]
    shown["Level"] = [str(level) for level in table["level"]]
    shown["Weights remaining (%)"] = [percent(x) for x in table["weights_remaining"]]
    return pd.DataFrame(shown)


def _show_means(table: pd.DataFrame, name: str, digits: int) -> list[str]:
    """Makes text of a measure and its deviation."""
    return [
        plus_minus(mean, sd, digits=digits)
        for mean, sd in zip(table[name], table[f"{name}_sd"], strict=True)
    ]


def markdown(shown: pd.DataFrame) -> str:
    """Lays text out as a Markdown table."""
    rows = [list(shown.columns), ["---"] * shown.shape[1], *shown.to_numpy().tolist()]
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def html(shown: pd.DataFrame, *, kind: str = "") -> str:
    """Lays text out as an HTML table, everything escaped; `kind` is its class."""

    def row(cells: Sequence[str], tag: str) -> str:
        inside = "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells)
        return f"<tr>{inside}</tr>\n"

    body = "".join(row(cells, "td") for cells in shown.to_numpy().tolist())
    head = row(list(shown.columns), "th")
    start = f'<table class="{kind}">' if kind else "<table>"
    return f"{start}\n<thead>{head}</thead>\n<tbody>{body}</tbody>\n</table>\n"


def plain(shown: pd.DataFrame) -> str:
    """Lays text out in aligned columns for a terminal."""
    rows = [list(shown.columns), *shown.to_numpy().tolist()]
    widths = [
        max(len(str(cell)) for cell in cells) for cells in zip(*rows, strict=True)
    ]
    return "".join(
        "  ".join(
            str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        + "\n"
        for row in rows
    )
