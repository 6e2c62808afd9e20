"""Named checkpoints that survive interrupted writes and detect corruption.

A checkpoint called `level_03/ticket/last` is an Orbax directory of that name, and
beside it the metadata file `last.json` with the hash of the saved state. The metadata
file is written last and atomically: a directory without it is an unfinished write. A
directory whose content does not have the recorded hash is corrupt. `read` reports
corruption and changes nothing. `load`, for the process that owns the run, renames the
corrupt directory (it never deletes it), so that the run can continue from the previous
checkpoint. An error of the machine (missing permission, too many open files, a failing
disk, no memory) does not show that a checkpoint is corrupt and is raised as an error.
"""

from jaxsparse.training.checkpoints.cleanup import (
    clear,
    delete,
    delete_weights,
    within,
)
from jaxsparse.training.checkpoints.copying import copy
from jaxsparse.training.checkpoints.errors import CorruptFile
from jaxsparse.training.checkpoints.metadata import (
    comparable,
    exists,
    recorded_extra,
    recorded_hash,
)
from jaxsparse.training.checkpoints.storage import (
    Checkpoint,
    digest,
    load,
    read,
    save,
)

__all__ = (
    "Checkpoint",
    "CorruptFile",
    "clear",
    "comparable",
    "copy",
    "delete",
    "delete_weights",
    "digest",
    "exists",
    "load",
    "read",
    "recorded_extra",
    "recorded_hash",
    "save",
    "within",
)
