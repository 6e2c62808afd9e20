"""Progress: how far runs are, and runs of one experiment with different seeds."""

import itertools
import json
import os
from collections.abc import Sequence

from jaxsparse import config
from jaxsparse.reports import settings
from jaxsparse.reports.records import Record, RunRecords
from jaxsparse.stages import TICKET

_SEEDS = ("seeds.first", "replicates", "name")


def levels(run: RunRecords) -> tuple[int, int] | None:
    """Counts the levels that have ended, with their controls, and all levels.

    Args:
      run: run whose level records are used.

    Returns:
      Both counts, which include dense training; None if the config does not contain
      the number of levels.
    """
    lottery = settings.section(run, "lottery")
    if "levels" not in lottery:
        return None
    count = lottery["levels"] + 1
    ended = {(row["level"], row["variant"]) for row in run.records if _is_end(row)}
    chosen = lottery.get("control_levels") or range(1, count)
    done = 0
    for level in range(count):
        controls = lottery.get("controls", ()) if level in chosen else ()
        done += all((level, variant) in ended for variant in (TICKET, *controls))
    return done, count


def _is_end(row: Record) -> bool:
    """Returns whether a record is that of the end of a level."""
    return row.get("kind") == "level" and {"level", "variant"} <= row.keys()


def unfinished(run: RunRecords) -> str:
    """Describes how far a run is that has not ended.

    Args:
      run: a run; an older one, which does not record whether it has ended, has ended if
        all its levels have.

    Returns:
      A sentence; "" for a run that has ended.
    """
    counted = levels(run)
    if run.ended or counted is None:
        return ""
    done, count = counted
    if done == count:
        copies = settings.section(run, "instability").get("copies", 0)
        return "Unfinished: copies for instability are in training." if copies else ""
    if count > 1:
        return f"Unfinished: {done} of {count} levels, counting the dense one."
    steps = [row["step"] for row in run.records if isinstance(row.get("step"), int)]
    duration = settings.section(run, "training").get("duration", "")
    of = f"; training lasts {duration}" if duration else ""
    return f"Unfinished: at step {max(steps, default=0)}{of}."


def pool(runs: Sequence[RunRecords]) -> list[RunRecords]:
    """Joins runs that differ only in their seeds, such as those of a sweep.

    Args:
      runs: any runs.

    Returns:
      The runs in the order given, with those of one experiment as one run. Runs that
      trained the same seeds, or do not record which, stay separate.
    """
    groups: dict[str, list[RunRecords]] = {}
    for run in runs:
        groups.setdefault(_experiment(run), []).append(run)
    found = []
    for group in groups.values():
        group = sorted(group, key=lambda run: _seeds(run).start)
        apart = all(
            one.stop <= other.start
            for one, other in itertools.pairwise(map(_seeds, group))
        )
        found += [_join(group)] if apart and len(group) > 1 else group
    order = {run.name: place for place, run in enumerate(runs)}
    return sorted(found, key=lambda run: order.get(run.name, len(order)))


def _experiment(run: RunRecords) -> str:
    """Returns all settings of a run but its seeds."""
    flat = config.scientific(run.config)
    return json.dumps({k: v for k, v in flat.items() if k not in _SEEDS})


def _seeds(run: RunRecords) -> range:
    """Returns the seeds of a run's replicates."""
    first = settings.section(run, "seeds").get("first", 0)
    return range(first, first + run.config.get("replicates", 1))


def _join(group: Sequence[RunRecords]) -> RunRecords:
    """Makes one run of several, whose replicates are numbered by their seeds."""
    first, last = _seeds(group[0]).start, _seeds(group[-1]).stop - 1
    rows = [
        row | {"replicate": row["replicate"] + _seeds(run).start - first}
        if "replicate" in row
        else row
        for run in group
        for row in run.records
    ]
    prefix = os.path.commonprefix([run.name for run in group]).removesuffix("seeds_")
    total = sum(len(_seeds(run)) for run in group)
    return group[0]._replace(
        name=f"{prefix.rstrip('-_ ') or group[0].name} (seeds {first} to {last})",
        config=group[0].config | {"replicates": total},
        records=rows,
        ended=all(run.ended for run in group),
    )
