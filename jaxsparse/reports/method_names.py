"""Method names: the labels of runs by their methods.

Only the config is read: its section "sparse" names the method and the fields in which
the run departs from it. `methods` has the results of the runs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsparse import config
from jaxsparse.reports import settings
from jaxsparse.reports.records import RunRecords

DENSE = "dense"
LOTTERY = "lottery tickets"
_DISTRIBUTIONS = {"er": "ER", "erk": "ERK"}
_DEPTHS = {"append": "blocks appended", "interpolate": "blocks interpolated"}
# Common with several distributions, so the label always contains the distribution.
_WITH_DISTRIBUTION = ("random", "RigL")
# Field of the config, its usual value, and the text for another value.
_OF_LOTTERIES = (
    ("score", "magnitude", "{score} pruning"),
    ("scope", "global", "by {scope}"),
    ("one_shot", False, "one-shot"),
    ("retrain", "rewind", "{retrain}"),
    ("rewind", "0step", "rewound to {rewind}"),
)
# Section and field of the config, and the text if the field is in use.
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
# Fields that `_base` uses.
_IN_BASE = {
    *(f"lottery.{field}" for field, _, _ in _OF_LOTTERIES),
    "sparse.reparameterization",
    *("sparse.method", "sparse.pai_score", "sparse.distribution", "sparse.grow"),
    *("sparse.score_iterations", "sparse.structure", "sparse.regrow"),
    *("sparse.soft_bound", "sparse.prune_disconnected", "sparse.ablation"),
    *("warm_start.run", "warm_start.weights", "warm_start.masks"),
    *("warm_start.masks_run", "warm_start.align", "warm_start.depth"),
    "lottery.dense_run",  # where level 0 was trained, which is no other method
    *(f"{part}.{field}" for part, field, _ in (*_TOST, *_SMOOTHING, *_OTHERS)),
}


def of_run(run: RunRecords) -> str:
    """Names the method of a run.

    Args:
      run: run whose config is used; sections that it lacks have their defaults.

    Returns:
      A label such as "dense", "SNIP" or "RigL (ERK)". Departures from the method are in
      brackets, training techniques follow after a plus, and all other fields that
      differ from the recipe after commas. An unknown method has its own name.
    """
    return series([run])[run.name]


def _base(run: RunRecords) -> str:
    """Names the method and the training techniques in use."""
    return " + ".join([_method(run), *_techniques(run)])


def _method(run: RunRecords) -> str:
    """Names the method, with departures from it in brackets."""
    fields, used = settings.section(run, "sparse"), method(run)
    if used == "none":
        return _without_method(run)
    score = fields.get("pai_score", "random") if used == "static" else ""
    kind, name = ("score", score) if score else ("method", used)
    own = settings.registered(run, kind, name).get("distribution", "global")
    name = settings.label(run, kind, name)
    grow = fields.get("grow", "gradient")
    if grow != "gradient":
        name = f"{name} {grow}"
    distribution = fields.get("distribution") or own
    details = []
    start = settings.section(run, "warm_start")
    if start.get("masks") and score:  # they replace the score and its distribution
        name = "masks of another run"
        details.append(_other_run(run, start["masks"], masks=True))
        if start.get("align"):
            details.append(f"aligned by {start['align']}")
    elif name in _WITH_DISTRIBUTION or distribution != own:
        details.append(_DISTRIBUTIONS.get(distribution, distribution))
    details += _departures(fields, score)
    return f"{name} ({', '.join(details)})" if details else name


def _departures(fields: Mapping[str, Any], score: str) -> list[str]:
    """Lists departures from a method, other than its distribution."""
    details = []
    # SynFlow always takes many iterations.
    if score != "synflow" and fields.get("score_iterations", 1) > 1:
        details.append(f"{fields['score_iterations']} iterations")
    if fields.get("structure"):
        details.append(fields["structure"])
    if fields.get("layer_sparsity"):
        details.append("layers given")
    options = {
        "regrow": "regrowing",
        "soft_bound": "soft bound",
        "prune_disconnected": "disconnected weights removed",
    }
    details += [words for option, words in options.items() if fields.get(option)]
    if fields.get("ablation"):
        details.append(fields["ablation"].replace("_", " "))
    return details


def _other_run(run: RunRecords, checkpoint: str, *, masks: bool = False) -> str:
    """Names a checkpoint of the run from which this one took weights or masks."""
    start = settings.section(run, "warm_start")
    folder = (masks and start.get("masks_run")) or start.get("run") or ""
    return f"{folder.rstrip('/').rpartition('/')[2]} {checkpoint}".strip()


def _techniques(run: RunRecords) -> list[str]:
    """Names the training techniques in use; none by default."""

    def used(table: Sequence[tuple[str, str, str]]) -> list[str]:
        values = [(settings.section(run, p).get(f), words) for p, f, words in table]
        return [words.format(value) for value, words in values if value]

    tost, smoothed = used(_TOST), used(_SMOOTHING)
    found = [f"ToST ({', '.join([*tost, *smoothed])})"] if tost else smoothed
    name = settings.section(run, "sparse").get("reparameterization")
    if name:
        found.append(settings.label(run, "reparameterization", name))
    start = settings.section(run, "warm_start")
    if start.get("weights"):
        found.append(f"weights of {_other_run(run, start['weights'])}")
    if start.get("depth"):
        found.append(_DEPTHS.get(start["depth"], start["depth"]))
    return [*found, *used(_OTHERS)]


def _without_method(run: RunRecords) -> str:
    """Names a run that is dense, or prunes level by level."""
    lottery = settings.section(run, "lottery")
    if lottery.get("levels", 0):
        score = settings.label(run, "score", lottery.get("score", ""))
        shown = {**lottery, "score": score}
        details = [
            words.format(**shown)
            for field, usual, words in _OF_LOTTERIES
            if lottery.get(field, usual) != usual
        ]
        return f"{LOTTERY} ({', '.join(details)})" if details else LOTTERY
    features = settings.section(run, "model").get("features")
    if features:
        return f"{DENSE}, features {'-'.join(str(size) for size in features)}"
    return DENSE


def _words(run: RunRecords, fields: Mapping[str, Any]) -> list[str]:
    """Formats the fields of a config that `_base` does not use."""
    dense = not is_sparse(run) and not settings.section(run, "lottery").get("levels")
    used = _IN_BASE | ({"model.features"} if dense else set())
    return [
        settings.word(name, value)
        for name, value in fields.items()
        if name not in used and not (dense and name.startswith("sparse."))
    ]


def method(run: RunRecords) -> str:
    """Returns the method in a run's config; "none" if there is none.

    Args:
      run: records of a run.
    """
    return settings.section(run, "sparse").get("method", "none")


def is_sparse(run: RunRecords) -> bool:
    """Returns whether a run trained by one of the methods of sparse training.

    Args:
      run: records of a run.
    """
    return method(run) != "none"


def trains_once(run: RunRecords) -> bool:
    """Returns whether a run has one stage only: sparse or dense training.

    Args:
      run: records of a run.
    """
    return is_sparse(run) or settings.section(run, "lottery").get("levels") == 0


def of_runs(runs: Sequence[RunRecords]) -> dict[str, str]:
    """Gives several runs distinct labels.

    Args:
      runs: runs with distinct names.

    Returns:
      By the run's name, its label from `series`, followed by its sparsity and by its
      name where that is needed to distinguish it.
    """
    plain = series(runs)
    sparsities = {
        run.name: f"{100 * settings.section(run, 'sparse').get('sparsity', 0):g} %"
        for run in runs
    }
    count = Counter(
        label for label, _ in {(plain[name], sparsities[name]) for name in plain}
    )
    labels = [
        f"{label}, {sparsities[name]}" if count[label] > 1 else label
        for name, label in plain.items()
    ]
    return dict(zip(plain, distinct(labels, list(plain)), strict=True))


def series(runs: Sequence[RunRecords]) -> dict[str, str]:
    """Gives several runs labels that do not depend on their sparsity.

    Args:
      runs: runs with distinct names.

    Returns:
      By the run's name, its label from `of_run`, without changes that all runs have in
      common, with what was trained if that differs, and with the fields in which runs
      of one label differ: runs that still have the same label differ in sparsity and
      seeds only.
    """
    changed = settings.changed_by_run(runs)
    mixed = len(set(map(settings.task, runs))) > 1

    def label(run: RunRecords, fields: Mapping[str, Any]) -> str:
        where = [settings.task(run)] if mixed else []
        return ", ".join([_base(run), *where, *_words(run, fields)])

    groups: dict[str, list[RunRecords]] = {}
    for run in runs:
        groups.setdefault(label(run, changed[run.name]), []).append(run)
    found = {}
    for group in groups.values():
        fields = settings.differing(group)
        for run in group:
            flat = config.scientific(run.config)
            more = {name: flat[name] for name in fields if name in flat}
            found[run.name] = label(run, changed[run.name] | more)
    return {run.name: found[run.name] for run in runs}


def distinct(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Appends their names to labels that occur more than once.

    Args:
      labels: labels of runs.
      names: names of the same runs.

    Examples:
      >>> distinct(["SET", "GMP", "SET"], ["a", "b", "c"])
      ['SET, a', 'GMP', 'SET, c']
    """
    counts = Counter(labels)
    return [
        f"{label}, {name}" if counts[label] > 1 else label
        for label, name in zip(labels, names, strict=True)
    ]
