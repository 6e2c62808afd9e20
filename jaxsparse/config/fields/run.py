"""The config fields of the sections `analysis` and `run`."""

from typing import Any

from jaxsparse.config import valid
from jaxsparse.config.field import Field, Section

ANALYSIS = Section(
    "Measurements during training.",
    {
        "gradient_every": Field(
            None,
            valid.optional(valid.DURATION),
            "Time between measurements of the gradient norm. None measures none.",
        ),
        "at_mask_updates": Field(
            False,
            valid.FLAG,
            "Whether the gradient norm is also measured before and after each mask "
            "update.",
        ),
        "examples": Field(
            1000,
            valid.integer(1, valid.INT32 - 1),
            "Number of training examples, from the first on, on which it is measured.",
        ),
        "save_at": Field(
            (),
            valid.DURATIONS,
            "Times at which the state is saved for analyses after training.",
        ),
    },
)


def _field(default: Any, values: valid.Valid, text: str) -> Field:
    """Makes a field on which results do not depend, as all of the section `run`."""
    return Field(default, values, text, operational=True)


RUN = Section(
    "How the run is executed. Results do not depend on these fields, except for their "
    "last bits.",
    {
        "parallelism": _field(
            "jit",
            valid.one_of("jit", "pmap"),
            "How work is divided over devices: `jit` with a mesh, or `pmap`, for one "
            "process only.",
        ),
        "devices": _field(
            0,
            valid.integer(0, 2**20),
            "Number of devices to use, of all processes together. 0 uses as many as "
            "the work can be divided over.",
        ),
        "data_placement": _field(
            "auto",
            valid.one_of("auto", "device", "sharded", "host"),
            "Where training images are stored: all of them on each `device`, `sharded` "
            "over the devices that share a batch, or on the `host`, from which they "
            "are streamed. `auto` uses the first of these that takes at most a quarter "
            "of the memory of a device.",
        ),
        "fsdp": _field(
            False,
            valid.FLAG,
            "Whether parameters, masks and optimizer state are sharded over the "
            "devices that share a batch, along the longest axis of each parameter.",
        ),
        "fsdp_min_size": _field(
            65_536,
            valid.integer(1, 2**62),
            "Smallest number of elements of a parameter that is sharded without a "
            "rule.",
        ),
        "fsdp_rules": _field(
            (),
            valid.pairs_of(
                lambda value: value is None or valid.integer(0, 31).holds(value),
                "an axis from 0 to 31 or None",
                "(('head/*', None), ('*/kernel', 0))",
            ),
            "Axes along which parameters that match a shell pattern are sharded; None "
            "does not shard them. The first match applies.",
        ),
        "steps_per_call": _field(
            100,
            valid.integer(1, 10**6),
            "Number of training steps in one call of a compiled function, at most an "
            "epoch.",
        ),
        "scan": _field(
            None,
            valid.optional(valid.FLAG),
            "Whether these steps are a loop in the compiled function (`lax.scan`) or "
            "dispatched one by one. None chooses the faster way for the network and "
            "the device.",
        ),
        "conv_gradients": _field(
            "auto",
            valid.one_of("auto", "library", "explicit"),
            "Convolutions, pooling and BatchNorm in training: those of JAX and linen "
            "(`library`), or ones with `explicit` gradients, which are faster on CPUs. "
            "`auto` chooses by the device.",
        ),
        "replicate_mode": _field(
            "auto",
            valid.one_of("auto", "vmap", "map", "unroll"),
            "How replicates are computed: batched by `vmap`, one by one in a loop "
            "(`map`), or by repeated operations (`unroll`). `auto` chooses by the "
            "network and the device.",
        ),
        "deterministic": _field(
            False,
            valid.FLAG,
            "Whether GPUs use bit-reproducible kernels.",
        ),
        "compilation_cache": _field(
            True,
            valid.FLAG,
            "Whether compiled functions are stored in the user's cache directory.",
        ),
        "checkpoint_every": _field(
            "10ep",
            valid.optional(valid.DURATION),
            "Time between checkpoints within a level, from which a stopped run "
            "continues. None saves only at the end of a level.",
        ),
        "on_nonfinite": _field(
            "stop",
            valid.one_of("stop", "continue"),
            "What happens if a loss is NaN or infinite: `stop` the run, or `continue` "
            "with the other replicates, without the diverged one in reports. Only "
            "`stop` with `lottery.particles`, whose means need all replicates.",
        ),
        "keep_checkpoints": _field(
            "all",
            valid.one_of("all", "needed"),
            "Which checkpoints of the ends of levels are kept: `all`, or those that "
            "are `needed` to continue.",
        ),
        "pack_checkpoints": _field(
            False,
            valid.FLAG,
            "Whether checkpoints of the ends of stages store sparse arrays as bits and "
            "values, which takes less space; what is read is the same, bit for bit.",
        ),
        "trace": _field(
            None,
            valid.optional(
                valid.tuple_of(
                    valid.DURATION.holds,
                    "two durations",
                    "('100step', '110step')",
                    minimum=2,
                )
            ),
            "First and last time of a profiler trace. None traces nothing.",
        ),
        "tensorboard": _field(
            True,
            valid.FLAG,
            "Whether TensorBoard event files are written beside `metrics.jsonl`.",
        ),
    },
)
