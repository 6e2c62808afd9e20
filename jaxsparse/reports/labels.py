"""Labels: what to call the runs of a report by their methods.

Only the config is read: its section "sparse" names the method, and says how it departs
from what the method does by itself. What the runs came to is the business of `methods`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from jaxsparse.reports.tables import Run

DENSE = "dense"
LOTTERY = "lottery tickets"
_NAMES = {
    "gmp": "GMP",
    "one_shot": "one-shot magnitude",
    "set": "SET",
    "rigl": "RigL",
    "mest": "MEST",
    "snfs": "SNFS",
    "granet": "GraNet",
    "ac_dc": "AC/DC",
    "ste": "straight-through",
    "top_kast": "Top-KAST",
    "sr_ste": "SR-STE",
}
_SCORES = {
    "random": "random",
    "magnitude": "magnitude at init",
    "snip": "SNIP",
    "grasp": "GraSP",
    "grasp_absolute": "GraSP |.|",
    "synflow": "SynFlow",
}
_DISTRIBUTIONS = {"er": "ER", "erk": "ERK"}
# What the distribution "" stands for, by method or by score of static masks.
_OWN = {
    "random": "erk",
    "gmp": "uniform",
    "set": "er",
    "rigl": "erk",
    "mest": "uniform",
    "snfs": "uniform",
    "granet": "erk",
    "ste": "uniform",
    "top_kast": "uniform",
}
# Known in both forms, so always told apart.
_TOLD = ("random", "RigL")


def of_run(run: Run) -> str:
    """Says what to call the method of a run.

    Args:
      run: whose config; sections that it lacks are at their defaults.

    Returns:
      Such as "dense", "SNIP" or "RigL (ERK)"; in brackets is what departs from the
      method's own. A method unknown here is called by its own name.
    """
    config, used = _section(run, "sparse"), method(run)
    if used == "none":
        return _without_method(run)
    score = config.get("score", "random") if used == "static" else ""
    name = _SCORES.get(score, score) if score else _NAMES.get(used, used)
    grow = config.get("grow", "gradient")
    if used == "rigl" and grow != "gradient":
        name = f"{name} {grow}"
    own = _OWN.get(score or used, "global")
    distribution = config.get("distribution") or own
    details = []
    if name in _TOLD or distribution != own:
        details.append(_DISTRIBUTIONS.get(distribution, distribution))
    # Synaptic flow always takes many.
    if score != "synflow" and config.get("iterations", 1) > 1:
        details.append(f"{config['iterations']} iterations")
    if config.get("structure"):
        details.append(config["structure"])
    if config.get("layers"):
        details.append("layers given")
    options = {"regrow": "regrowing", "soft_bound": "soft bound"}
    options |= {"remove_dead": "dead weights removed"}
    details += [words for option, words in options.items() if config.get(option)]
    if config.get("ablation"):
        details.append(config["ablation"].replace("_", " "))
    return f"{name} ({', '.join(details)})" if details else name


def _without_method(run: Run) -> str:
    """Says what to call a run that is dense, or a lottery."""
    if _section(run, "lottery").get("levels", 0):
        return LOTTERY
    features = _section(run, "model").get("features")
    if features:
        return f"{DENSE}, features {'-'.join(str(size) for size in features)}"
    return DENSE


def _section(run: Run, name: str) -> dict[str, Any]:
    """Returns a section of a run's config; an older config may lack it."""
    return run.config.get(name) or {}


def method(run: Run) -> str:
    """Returns the method of a run's config, "none" if it names none."""
    return _section(run, "sparse").get("method", "none")


def is_sparse(run: Run) -> bool:
    """Says whether a run trained by one of the methods of sparse training."""
    return method(run) != "none"


def trains_once(run: Run) -> bool:
    """Says whether a run has one stage only: sparse training, or dense."""
    return is_sparse(run) or _section(run, "lottery").get("levels") == 0


def of_runs(runs: Sequence[Run]) -> dict[str, str]:
    """Says what to call each run among several, so that no two are called alike.

    Args:
      runs: runs with names that differ.

    Returns:
      By the run's name its label from `of_run`, followed by its sparsity and then by
      its name where that is needed.
    """
    names, plain = [run.name for run in runs], [of_run(run) for run in runs]
    sparsities = [
        f"{100 * _section(run, 'sparse').get('sparsity', 0):g} %" for run in runs
    ]
    differ = Counter(label for label, _ in set(zip(plain, sparsities, strict=True)))
    told = [
        f"{label}, {sparsity}" if differ[label] > 1 else label
        for label, sparsity in zip(plain, sparsities, strict=True)
    ]
    return dict(zip(names, distinct(told, names), strict=True))


def distinct(called: Sequence[str], names: Sequence[str]) -> list[str]:
    """Appends their names to labels that occur more than once.

    Examples:
      >>> distinct(["SET", "GMP", "SET"], ["a", "b", "c"])
      ['SET, a', 'GMP', 'SET, c']
    """
    counts = Counter(called)
    return [
        f"{one}, {name}" if counts[one] > 1 else one
        for one, name in zip(called, names, strict=True)
    ]
