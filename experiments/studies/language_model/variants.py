"""Variants: the methods that train a sparse decoder, and the dense one to prune.

Scale `cpu` trains the recipes `configs/*_python_docs.py` with five seeds: a dense
network, gradual magnitude pruning and RigL at 80 % in part 1, tickets of 80 % in part
2, and all three at 50 % and 90 % in part 3. Tickets have two levels for 50 % and three
for 80 % and 90 %, and share their dense training with the dense network, which is also
pruned at once, see `one_shot`.
`quick` trains the short presets. `full` is for a GPU: networks of 6 blocks with 256
channels read 256 bytes, for 20,000 steps with batches of 64 and 3 seeds.
"""

from typing import Any

from experiments.studies.runs import Run

SETTINGS = ("decoder",)
TITLES = {"decoder": "A decoder on the text of Python's own help"}
METHODS = ("gmp", "rigl")
PARTS = {80: 1, 50: 3, 90: 3}  # part of each sparsity in percent
LEVELS = {80: 3, 50: 2, 90: 3}  # of tickets
FIELDS: dict[str, dict[str, Any]] = {
    "quick": {},
    "cpu": {"replicates": 5},
    "full": {
        "data.context": 256,
        "data.batch_size": 64,
        "model.width": 256,
        "model.depth": 6,
        "schedule.learning_rate": 1e-3,
        "training.duration": "20000step",
        "evaluation.every": "1000step",
    },
}


def of_setting(setting: str, scale: str) -> list[Run]:
    """Lists the runs of a setting.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.

    Returns:
      The runs, the dense one first; [] if the scale has none.
    """
    if scale not in FIELDS:
        return []
    fields = FIELDS[scale]
    rewind = "5step" if scale == "quick" else "100step"

    def run(name: str, recipe: str, part: int = 1, **also: Any) -> Run:
        preset = ":quick" if scale == "quick" else ""
        given = fields | {key.replace("__", "."): value for key, value in also.items()}
        path = f"configs/{recipe}_python_docs.py{preset}"
        return Run(f"{setting}_{name}", path, given, part=part)

    dense = f"{setting}_dense"
    found = [run("dense", "dense", analysis__save_at=(rewind,))]
    for sparsity, part in PARTS.items():
        for method in METHODS:
            name = f"{method}_{sparsity}"
            found.append(run(name, method, part, sparse__sparsity=sparsity / 100))
        levels = LEVELS[sparsity]
        tickets = run(
            *(f"tickets_{sparsity}", "lth", max(part, 2)),
            lottery__levels=levels,
            lottery__fraction=1 - (1 - sparsity / 100) ** (1 / levels),
            lottery__dense_run=f"../{dense}",
            lottery__rewind=rewind,
        )
        found.append(tickets)
    return found
