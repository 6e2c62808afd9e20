"""Coordination of the processes of a run: one on a laptop, one per host on a cluster.

All processes run the same program in the same order, each with a part of the devices.
The primary process, which has index 0, writes files and broadcasts what it reads from
them (`broadcast_from_primary`). All processes thus decide alike even if a shared file
system shows them outdated content. With a single process, these functions communicate
nothing.

`launch` connects the processes, `processes` communicates between them, and `arrays`
handles arrays on the devices of several processes.
"""

from jaxsparse.multihost.arrays import copy, device_put, to_host, to_local
from jaxsparse.multihost.launch import initialize
from jaxsparse.multihost.processes import (
    broadcast_from_primary,
    is_multiprocess,
    is_primary,
    on_all,
    on_primary,
    run_on_all,
)

__all__ = (
    "broadcast_from_primary",
    "copy",
    "device_put",
    "initialize",
    "is_multiprocess",
    "is_primary",
    "on_all",
    "on_primary",
    "run_on_all",
    "to_host",
    "to_local",
)
