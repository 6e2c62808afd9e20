"""Labels: what to call the runs of a report by their methods.

Only the config is read: its section "sparse" names the method, and says how it departs
from what the method does by itself. What the runs came to is the business of `methods`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsparse import config
from jaxsparse.reports import settings
from jaxsparse.reports.tables import RunRecords

DENSE = "dense"
LOTTERY = "lottery tickets"
_DISTRIBUTIONS = {"er": "ER", "erk": "ERK"}
# Known in both forms, so always told apart.
_TOLD = ("random", "RigL")
# Field of the config, the usual value, and what to say of another.
_OF_LOTTERIES = (
    ("score", "magnitude", "{score} pruning"),
    ("scope", "global", "by {scope}"),
    ("one_shot", False, "one-shot"),
    ("retrain", "rewind", "{retrain}"),
    ("rewind", "0step", "rewound to {rewind}"),
)
# Section and field of the config, and what to say where the field is not off.
_TOST = (
    ("tost", "activation", "{} neurons"),
    ("tost", "skips", "ghost skips: {}"),
    ("gradinit", "steps", "rescaled initialization"),
)
_SMOOTHING = (("training", "label_smoothing", "label smoothing {:g}"),)
_OTHERS = (
    ("init", "sparse_init", "sparse initialization: {}"),
    ("pretraining", "subset", "pretraining on a subset ({})"),
    ("solution_penalty", "strength", "repelled from earlier levels: {:g}"),
    ("data", "label_noise", "label noise {:g}"),
)
_IN_BASE = {
    *(f"lottery.{field}" for field, _, _ in _OF_LOTTERIES),
    *("sparse.method", "sparse.pai_score", "sparse.distribution", "sparse.grow"),
    *(
        "sparse.score_iterations",
        "sparse.structure",
        "sparse.regrow",
        "sparse.soft_bound",
    ),
    *(
        "sparse.prune_disconnected",
        "sparse.ablation",
        "warm_start.run",
        "warm_start.weights",
    ),
    "warm_start.masks",
    *(f"{part}.{field}" for part, field, _ in (*_TOST, *_SMOOTHING, *_OTHERS)),
}


def of_run(run: RunRecords) -> str:
    """Says what to call the method of a run.

    Args:
      run: whose config; sections that it lacks are at their defaults.

    Returns:
      Such as "dense", "SNIP" or "RigL (ERK)"; in brackets is what departs from the
      method's own. What helps a network to train follows after a plus, and every
      other field that is not as the recipe has it after commas. A method unknown here
      is called by its own name.
    """
    return series([run])[run.name]


def _base(run: RunRecords) -> str:
    """Names the method, and what else was done besides usual training."""
    return " + ".join([_of_method(run), *_techniques(run)])


def _of_method(run: RunRecords) -> str:
    """Names the method, with what departs from its own in brackets."""
    fields, used = settings.section(run, "sparse"), method(run)
    if used == "none":
        return _without_method(run)
    score = fields.get("pai_score", "random") if used == "static" else ""
    name, own = _registered(run, *(("score", score) if score else ("method", used)))
    grow = fields.get("grow", "gradient")
    if used == "rigl" and grow != "gradient":
        name = f"{name} {grow}"
    distribution = fields.get("distribution") or own
    details = []
    masks = settings.section(run, "warm_start").get("masks")
    if masks and score:  # they take the place of the score and its distribution
        name = "masks of another run"
        details.append(_other_run(run, masks))
    elif name in _TOLD or distribution != own:
        details.append(_DISTRIBUTIONS.get(distribution, distribution))
    # Synaptic flow always takes many.
    if score != "synflow" and fields.get("score_iterations", 1) > 1:
        details.append(f"{fields['score_iterations']} iterations")
    if fields.get("structure"):
        details.append(fields["structure"])
    if fields.get("layer_sparsity"):
        details.append("layers given")
    options = {"regrow": "regrowing", "soft_bound": "soft bound"}
    options |= {"prune_disconnected": "dead weights removed"}
    details += [words for option, words in options.items() if fields.get(option)]
    if fields.get("ablation"):
        details.append(fields["ablation"].replace("_", " "))
    return f"{name} ({', '.join(details)})" if details else name


def _registered(run: RunRecords, kind: str, name: str) -> tuple[str, str]:
    """Returns the label of a score or method, and its own distribution.

    Those of users are in the run's record, so that nothing of theirs is executed.
    """
    registry = config.SCORES if kind == "score" else config.METHODS
    if name in registry:
        return registry[name].title, registry[name].distribution
    recorded = run.environment.get("registered") or {}
    found = recorded.get(kind, {}).get(name, {})
    return found.get("label", name), found.get("distribution", "global")


def _other_run(run: RunRecords, checkpoint: str) -> str:
    """Names a checkpoint of the run that this one started from."""
    folder = (settings.section(run, "warm_start").get("run") or "").rstrip("/")
    return f"{folder.rpartition('/')[2]} {checkpoint}".strip()


def _techniques(run: RunRecords) -> list[str]:
    """Names what was done besides a method and usual training, none by default."""

    def of(part: str, field: str) -> Any:
        return settings.section(run, part).get(field)

    def used(table: Sequence[tuple[str, str, str]]) -> list[str]:
        return [
            words.format(of(part, field))
            for part, field, words in table
            if of(part, field)
        ]

    tost, smoothed = used(_TOST), used(_SMOOTHING)
    found = [f"ToST ({', '.join([*tost, *smoothed])})"] if tost else smoothed
    if of("start", "weights"):
        found.append(f"weights of {_other_run(run, of('start', 'weights'))}")
    return [*found, *used(_OTHERS)]


def _without_method(run: RunRecords) -> str:
    """Says what to call a run that is dense, or a lottery."""
    lottery = settings.section(run, "lottery")
    if lottery.get("levels", 0):
        details = [
            words.format(**lottery)
            for field, usual, words in _OF_LOTTERIES
            if lottery.get(field, usual) != usual
        ]
        return f"{LOTTERY} ({', '.join(details)})" if details else LOTTERY
    features = settings.section(run, "model").get("features")
    if features:
        return f"{DENSE}, features {'-'.join(str(size) for size in features)}"
    return DENSE


def _words(run: RunRecords, fields: Mapping[str, Any]) -> list[str]:
    """Writes fields of a config for a label, but for those that `_base` tells."""
    dense = not is_sparse(run) and not settings.section(run, "lottery").get("levels")
    told = _IN_BASE | ({"model.features"} if dense else set())
    return [
        settings.word(name, value)
        for name, value in fields.items()
        if name not in told and not (name.startswith("sparse.") and not is_sparse(run))
    ]


def method(run: RunRecords) -> str:
    """Returns the method of a run's config, "none" if it names none."""
    return settings.section(run, "sparse").get("method", "none")


def is_sparse(run: RunRecords) -> bool:
    """Says whether a run trained by one of the methods of sparse training."""
    return method(run) != "none"


def trains_once(run: RunRecords) -> bool:
    """Says whether a run has one stage only: sparse training, or dense."""
    return is_sparse(run) or settings.section(run, "lottery").get("levels") == 0


def of_runs(runs: Sequence[RunRecords]) -> dict[str, str]:
    """Says what to call each run among several, so that no two are called alike.

    Args:
      runs: runs with names that differ.

    Returns:
      By the run's name its label from `series`, followed by its sparsity and then by
      its name where that is needed.
    """
    plain = series(runs)
    sparsities = {
        run.name: f"{100 * settings.section(run, 'sparse').get('sparsity', 0):g} %"
        for run in runs
    }
    differ = Counter(
        label for label, _ in {(plain[name], sparsities[name]) for name in plain}
    )
    told = [
        f"{label}, {sparsities[name]}" if differ[label] > 1 else label
        for name, label in plain.items()
    ]
    return dict(zip(plain, distinct(told, list(plain)), strict=True))


def series(runs: Sequence[RunRecords]) -> dict[str, str]:
    """Says what to call each run among several, whatever its sparsity.

    Args:
      runs: runs with names that differ.

    Returns:
      By the run's name its label from `of_run`, without fields that were changed alike
      in all runs, with what was trained if that is not the same for all, and with the
      fields in which runs of one label differ: runs that are still called alike differ
      in sparsity and seeds only.
    """
    told = settings.changed_here(runs)
    mixed = len(set(map(settings.task, runs))) > 1

    def label(run: RunRecords, fields: Mapping[str, Any]) -> str:
        where = [settings.task(run)] if mixed else []
        return ", ".join([_base(run), *where, *_words(run, fields)])

    groups: dict[str, list[RunRecords]] = {}
    for run in runs:
        groups.setdefault(label(run, told[run.name]), []).append(run)
    found = {}
    for group in groups.values():
        fields = settings.differing(group)
        for run in group:
            flat = config.scientific(run.config)
            more = {name: flat[name] for name in fields if name in flat}
            found[run.name] = label(run, told[run.name] | more)
    return {run.name: found[run.name] for run in runs}


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
