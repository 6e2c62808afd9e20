"""Compares the results of two runs in every bit, such as before and after a change.

    python experiments/compare_runs.py RUN_A RUN_B

RUN_A and RUN_B are run directories of train.py, or of one variant of a study. For each
level and variant that both have, it prints whether the masks and the final weights of
all replicates are equal, and otherwise by how much the weights differ at most; then the
same of the losses and accuracies that were recorded while the runs trained. Nothing is
written. The exit code is 0 if everything is equal, and otherwise 1.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments import command_line  # noqa: E402

if TYPE_CHECKING:
    import pandas as pd

    from jaxsparse.runs import LoadedRun

EQUAL = "equal"
SECOND = " of the second run"
KEY = ["kind", "stage", "replicate", "step"]


def main(argv: Sequence[str]) -> int:
    """Checks the command, compares, and prints the table.

    Args:
      argv: the name of the program and two run directories.

    Returns:
      0 if everything is equal, and otherwise 1.
    """
    try:
        if len(argv) != 3:
            raise ValueError(
                f"expected two run directories, got {len(argv) - 1}; "
                "give those of the runs to compare"
            )
        folders = [command_line.run_folder([word]) for word in argv[1:]]
        # Imported here, so that errors in a command are found before JAX is imported.
        import jaxsparse

        first, second = map(jaxsparse.load, folders)
        lines = compare_weights(first, second)
        lines += compare_records(first.records(), second.records())
    except ValueError as error:
        command_line.fail(str(error))
    for what, found in lines:
        print(f"{what:<40} {found}")
    return int(any(found != EQUAL for _, found in lines))


def compare_weights(first: "LoadedRun", second: "LoadedRun") -> list[tuple[str, str]]:
    """Compares masks and final weights, of all replicates.

    Args:
      first: a run.
      second: another, of the same network, with as many replicates.

    Returns:
      Two lines for each level and variant, of its masks and its weights: what is
      compared, and "equal" or how the two differ; one line for a level of one run only.

    Raises:
      ValueError: if the runs have other networks or numbers of replicates.
    """
    levels = [
        {(v, level) for v in run.variants() for level in run.levels(v)}
        for run in (first, second)
    ]
    lines = []
    for variant, level in sorted(levels[0] | levels[1]):
        name = f"level {level}, {variant}"
        there = [(variant, level) in each for each in levels]
        if not all(there):
            lines.append((name, f"only in the {'first' if there[0] else 'second'} run"))
            continue
        for what, read in (("masks", "masks"), ("weights", "params")):
            found = [
                getattr(run, read)(level, None, variant=variant)
                for run in (first, second)
            ]
            lines.append((f"{name}: {what}", describe(*found)))
    return lines


def describe(first: Any, second: Any) -> str:
    """Returns "equal" if two pytrees are equal in every bit, or how they differ.

    Args:
      first: a pytree of arrays, booleans or floats.
      second: another, of the same structure and shapes.

    Raises:
      ValueError: if structures or shapes differ.
    """
    import jax
    import numpy as np

    if jax.tree.map(np.shape, first) != jax.tree.map(np.shape, second):
        raise ValueError(
            "expected two runs of one network with as many replicates, got arrays of "
            "other names or shapes; compare runs whose configs agree in them"
        )
    pairs = [
        (np.asarray(x), np.asarray(y))
        for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    ]
    if all(x.tobytes() == y.tobytes() for x, y in pairs):
        return EQUAL
    if all(x.dtype == bool for x, _ in pairs):
        different = sum(int(np.sum(x != y)) for x, y in pairs)
        return f"{different:,} of {sum(x.size for x, _ in pairs):,} entries differ"
    apart = [np.abs(x.astype(float) - y.astype(float)).max() for x, y in pairs]
    # NumPy's maximum is NaN if a number is NaN in one of the runs only, or in both.
    return f"differ by at most {np.max(apart):.1e}"


def compare_records(
    first: "pd.DataFrame", second: "pd.DataFrame"
) -> list[tuple[str, str]]:
    """Compares the losses and accuracies that were recorded during training.

    Args:
      first: the records of a run, one a row, as of `LoadedRun.records`.
      second: those of another.

    Returns:
      One line for each loss or accuracy, such as "test_accuracy": its name, and "equal"
      or how the recorded numbers differ.
    """
    columns = [
        name for name in first if name.endswith(("loss", "accuracy")) and name in second
    ]
    tables = [
        each[each.kind.isin(["train", "eval"])].drop_duplicates(KEY, keep="last")
        for each in (first, second)
    ]
    both = tables[0].merge(tables[1], on=KEY, how="outer", suffixes=("", SECOND))
    lines = []
    for name in columns:
        pair = both[[name, name + SECOND]].dropna(how="all")
        if pair.empty:
            continue
        different = pair[pair[name] != pair[name + SECOND]]
        found = f"{len(different):,} of {len(pair):,} differ"
        if one_sided := int(different.isna().any(axis=1).sum()):
            found += f", {one_sided:,} of them are in one run only"
        if len(different) > one_sided:
            apart = (different[name] - different[name + SECOND]).abs().max()
            found += f", by at most {apart:.1e}"
        what = f"recorded {name.replace('_', ' ')}"
        lines.append((what, found if len(different) else EQUAL))
    return lines


if __name__ == "__main__":
    command_line.run(main, words="the folders of two runs")
