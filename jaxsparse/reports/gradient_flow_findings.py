"""Gradient-flow findings: what the study found, checked before anything is drawn.

The study hands over what it found on a network as it comes out of JSON. All of it is
optional; r is the number of seeds, which may differ between entries:

    title, steps, published_steps   what the network is called; updates, ours and theirs
    arms       by arm: label, perhaps training and initialisation (words: the rows and
               columns of a table), accuracy [r] and published [mean, sd] in percent,
               ensemble and published_ensemble in percent, disagreement and
               published_disagreement [mean, sd], with_pruned [r or fewer] and
               published_with_pruned [mean, sd], kl and js [mean, sd] in nats
    gradient   by arm: steps [m], norm [r m]; perhaps effective and decrease [r m]
    changes    by arm: steps [m], before and after [r m]
    segments   by start: label, alphas [m], loss [r m], error [r m] in percent, examples
    distances  labels (m) and groups (m) of solutions, the pruned one first, matrix
               [m m], points [m 2], relative_stress
    hessian    by arm: label, states: a list of step, seed (0 if missing), moment ("",
               or "before" or "after" a change of masks), eigenvalues [n], negative, n,
               examples, new_negatives (after less before, by one threshold for both),
               lanczos with top and bottom
    signal     by initialisation: label, output [r], layers ([r] by name), neurons ([o]
               by name)
    claims     a list of name, statement, published, threshold, written ("before" there
               was anything to compare, "amended" or "after"), ours, n, verdict

Published pairs may lack their deviation. `gradient_flow_tables` tabulates what `read`
returns, and `gradient_flow_figures` draws it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsparse.reports import arrays, study
from jaxsparse.reports.arrays import Shapes

Findings = Mapping[str, Any]
Reader = Callable[[Findings, str], dict[str, Any]]

MOMENTS = ("", "before", "after")
# Shapes of fields: axes of one name are equally long within an entry.
_ARM: Shapes = {
    "accuracy": ("seeds",),
    "published": (2,),
    "ensemble": (),
    "published_ensemble": (),
    "disagreement": (2,),
    "published_disagreement": (2,),
    "with_pruned": ("others",),
    "published_with_pruned": (2,),
    "kl": (2,),
    "js": (2,),
}
_NORMS: Shapes = {
    "steps": ("steps",),
    "norm": ("seeds", "steps"),
    "effective": ("seeds", "steps"),
    "decrease": ("seeds", "steps"),
}
_CHANGES: Shapes = {
    "steps": ("steps",),
    "before": ("seeds", "steps"),
    "after": ("seeds", "steps"),
}
_SEGMENT: Shapes = {
    "alphas": ("alphas",),
    "loss": ("seeds", "alphas"),
    "error": ("seeds", "alphas"),
    "examples": (),
}
_STATE: Shapes = {
    "step": (),
    "seed": (),
    "n": (),
    "negative": (),
    "new_negatives": (),
    "examples": (),
    "eigenvalues": ("n",),
}
_LANCZOS: Shapes = {"top": ("top",), "bottom": ("bottom",)}


def read(network: str, found: Findings) -> dict[str, Any]:
    """Checks what was found on a network, and makes arrays of its lists.

    Args:
      network: its key, such as "lenet".
      found: see the module.

    Returns:
      Every part by its name, empty if it is missing: entries with a label, and of their
      fields those that are there. An entry that lacks what it is about is left out.
      "title" says how much of the published training there was, if not all; "map" is
      "distances" where there are points, and "spectra" what "hessian" has eigenvalues
      of for the first seed. Claims are text.

    Raises:
      ValueError: for what does not fit together, naming network, part and entry.
    """
    study.check_name(network, "a network")
    readers = {
        "arms": _arm,
        "gradient": _complete(_NORMS, needed=("steps", "norm")),
        "changes": _complete(_CHANGES, needed=tuple(_CHANGES)),
        "segments": _segment,
        "hessian": _curvature,
        "signal": _signal,
    }
    made = {
        part: _entries(network, found, part, reader) for part, reader in readers.items()
    }
    spectra = {
        arm: {**entry, "states": [s for s in entry["states"] if _is_drawn(s)]}
        for arm, entry in made["hessian"].items()
    }
    distances = _distances(network, found)
    return made | {
        "title": _title(network, found),
        "spectra": {arm: one for arm, one in spectra.items() if one["states"]},
        "distances": distances if "matrix" in distances else {},
        "map": distances if "points" in distances else {},
        "claims": study.read_claims(
            network, _list(found.get("claims"), f"{network}.claims")
        ),
    }


def _title(network: str, found: Findings) -> str:
    """Says what a network is called, and how much of its training there was."""
    title = str(found.get("title") or network)
    lengths = arrays.read(found, {"steps": (), "published_steps": ()}, network)
    if len(lengths) < 2 or lengths["steps"] >= lengths["published_steps"]:
        return title
    steps, published = (f"{length:,.0f}" for length in lengths.values())
    return f"{title}, {steps} of {published} updates"


def _entries(
    network: str, found: Findings, part: str, reader: Reader
) -> dict[str, dict[str, Any]]:
    """Reads the entries of a part; labels that are missing are those of the arms."""
    arms = _mapping(found.get("arms"), f"{network}.arms")
    made = {}
    for key, entry in _mapping(found.get(part), f"{network}.{part}").items():
        where = f"{network}.{part}.{key}"
        entry = _mapping(entry, where)
        arm = _mapping(arms.get(key), f"{network}.arms.{key}")
        fields = reader(entry, where)
        if fields:
            label = str(entry.get("label") or arm.get("label") or key)
            made[key] = {"label": label, **fields}
    return made


def _arm(entry: Findings, where: str) -> dict[str, Any]:
    """Reads an arm, and what it is called in the table of initialisations."""
    made = arrays.read(entry, _ARM, where)
    words = {
        name: str(entry.get(name) or "") for name in ("training", "initialisation")
    }
    return made | words if made else {}


def _complete(shapes: Shapes, *, needed: Sequence[str]) -> Reader:
    """Makes the reader of entries that say nothing without some of their fields."""

    def reader(entry: Findings, where: str) -> dict[str, Any]:
        made = arrays.read(entry, shapes, where)
        return made if made.keys() >= set(needed) else {}

    return reader


def _segment(entry: Findings, where: str) -> dict[str, Any]:
    """Reads a segment, which needs its places, and loss or error there."""
    made = arrays.read(entry, _SEGMENT, where)
    return made if "alphas" in made and made.keys() & {"loss", "error"} else {}


def _curvature(entry: Findings, where: str) -> dict[str, Any]:
    """Reads the states of an arm."""
    given = _list(entry.get("states"), f"{where}.states")
    states = [_state(s, f"{where}.states[{i}]") for i, s in enumerate(given)]
    return {"states": states} if states else {}


def _state(state: Any, where: str) -> dict[str, Any]:
    """Reads one state; `n` is the number of eigenvalues if it is not given."""
    state = _mapping(state, where)
    made = arrays.read(state, _STATE, where)
    if "step" not in made:
        raise ValueError(f"{where}.step: missing; wanted a number of updates; add it")
    made.setdefault("seed", 0.0)
    made["moment"] = state.get("moment") or ""
    _one_of(made["moment"], MOMENTS, f"{where}.moment")
    if "eigenvalues" in made:
        made["eigenvalues"] = np.sort(made["eigenvalues"])
        count = len(made["eigenvalues"])
        if made.setdefault("n", count) != count:
            raise ValueError(
                f"{where}.n: {made['n']:g}; wanted {count}, the number of eigenvalues; "
                "give all of them, or correct n"
            )
    lanczos = _mapping(state.get("lanczos"), f"{where}.lanczos")
    return made | {"lanczos": arrays.read(lanczos, _LANCZOS, f"{where}.lanczos")}


def _is_drawn(state: Findings) -> bool:
    """Says whether a state has a spectrum, and is of the first seed."""
    return "eigenvalues" in state and not state["seed"]


def _signal(entry: Findings, where: str) -> dict[str, Any]:
    """Reads an initialisation, which needs its layers; seeds are those of all."""
    layers = _mapping(entry.get("layers"), f"{where}.layers")
    neurons = _mapping(entry.get("neurons"), f"{where}.neurons")
    made = arrays.read(entry, {"output": ("seeds",)}, where)
    sizes = {"seeds": len(made["output"])} if "output" in made else {}
    by_seed: Shapes = dict.fromkeys(layers, ("seeds",))
    made["layers"] = arrays.read(layers, by_seed, f"{where}.layers", sizes)
    each: Shapes = {name: (f"neurons of {name}",) for name in neurons}
    made["neurons"] = arrays.read(neurons, each, f"{where}.neurons")
    return made if made["layers"] else {}


def _distances(network: str, found: Findings) -> dict[str, Any]:
    """Reads distances between solutions and their points on a map."""
    where = f"{network}.distances"
    given = _mapping(found.get("distances"), where)
    groups, labels = (
        [str(name) for name in _list(given.get(field), f"{where}.{field}")]
        for field in ("groups", "labels")
    )
    groups, labels = groups or labels, labels or groups
    if len(labels) != len(groups):
        raise ValueError(
            f"{where}.groups: {len(groups)} names; wanted {len(labels)}, one for each "
            "of labels; add or drop some"
        )
    shapes: Shapes = {
        "matrix": ("solutions", "solutions"),
        "points": ("solutions", 2),
        "relative_stress": (),
    }
    made = arrays.read(given, shapes, where, {"solutions": len(groups)})
    return {"labels": labels, "groups": groups, **made} if groups else {}


def _mapping(value: Any, where: str) -> Findings:
    """Returns an object with named fields, empty for nothing."""
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(
            f"{where}: {str(value)[:40]!r}; wanted an object with named fields; leave "
            "it out if there is nothing to say"
        )
    return value or {}


def _list(value: Any, where: str) -> Sequence[Any]:
    """Returns a list, empty for nothing."""
    if value is not None and (
        isinstance(value, str) or not isinstance(value, Sequence)
    ):
        raise ValueError(
            f"{where}: {str(value)[:40]!r}; wanted a list; leave it out if there is "
            "nothing to say"
        )
    return value or ()


def _one_of(value: Any, known: Sequence[str], where: str) -> None:
    """Refuses a word that is not known."""
    if value not in known:
        raise ValueError(f"{where}: {value!r}; wanted one of {known}; choose one")
