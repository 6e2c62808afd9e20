"""All config fields: default value, valid values and documentation, each in one place.

One file for each group of sections. From these tables `schema` makes the ConfigDict,
`validation` checks values, `comparing` finds the fields on which results depend, and
`reference` writes the tables of configs/README.md.
"""

from jaxsparse.config.field import Field, Section
from jaxsparse.config.fields.connectivity import INSTABILITY, SOLUTION_PENALTY
from jaxsparse.config.fields.data import DATA
from jaxsparse.config.fields.general import GENERAL, SEEDS
from jaxsparse.config.fields.lottery import LOTTERY, PRETRAINING
from jaxsparse.config.fields.model import INIT, MODEL, WARM_START
from jaxsparse.config.fields.optimization import (
    EVALUATION,
    OPTIMIZER,
    SCHEDULE,
    TRAINING,
)
from jaxsparse.config.fields.run import ANALYSIS, RUN
from jaxsparse.config.fields.sparse import SPARSE
from jaxsparse.config.fields.tost import GRADINIT, TOST

# Sections by name, in the order of the config; "" for the fields outside of sections.
SECTIONS: dict[str, Section] = {
    "": GENERAL,
    "seeds": SEEDS,
    "data": DATA,
    "model": MODEL,
    "init": INIT,
    "warm_start": WARM_START,
    "optimizer": OPTIMIZER,
    "schedule": SCHEDULE,
    "training": TRAINING,
    "tost": TOST,
    "gradinit": GRADINIT,
    "evaluation": EVALUATION,
    "lottery": LOTTERY,
    "pretraining": PRETRAINING,
    "solution_penalty": SOLUTION_PENALTY,
    "instability": INSTABILITY,
    "sparse": SPARSE,
    "analysis": ANALYSIS,
    "run": RUN,
}

# Fields by dotted name, such as "data.batch_size".
FIELDS: dict[str, Field] = {
    f"{name}.{field}" if name else field: record
    for name, section in SECTIONS.items()
    for field, record in section.fields.items()
}

__all__ = ("FIELDS", "SECTIONS")
