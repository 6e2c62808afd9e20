"""Exports a finished network of a run to other programs.

    python experiments/export.py RUNDIR --format=safetensors --out=ticket.safetensors
    python experiments/export.py RUNDIR --format=torch --out=ticket.pt
    python experiments/export.py RUNDIR --format=onnx --out=ticket.onnx --level=3
    python experiments/export.py RUNDIR --format=onnx --out=small.onnx --compact

RUNDIR is a run directory of train.py, finished or not. The formats are:

    safetensors  bits of the masks and active weights; read by a few lines of NumPy, see
                 jaxsparse/export/safetensors_files.py, or `export.from_safetensors`
    dense        safetensors with zeros in place of pruned weights, for any reader
    torch        a state dict of an image network for torch.load, or, with
                 --out=NAME.safetensors, the same tensors for safetensors
    onnx         the network in inference mode, also a language model, compared with
                 ONNX Runtime

With --compact, the network is exported without the neurons and channels that contribute
nothing (`jaxsparse.compaction`); its outputs are the same. With --format=torch, names
stay those of torchvision, timm or other code, but layers are narrower than in its
classes: make each layer with the shape of its tensor.

Needs neither the dataset of the run nor an accelerator.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse import extras  # noqa: E402

# Endings of the file, and packages that are needed, by format.
FORMATS = {
    "safetensors": ((".safetensors",), ("safetensors",)),
    "dense": ((".safetensors",), ("safetensors",)),
    "torch": ((".pt", ".pth", ".safetensors"), ()),
    "onnx": ((".onnx",), ("onnx", "onnxruntime")),
}

_FORMAT = flags.DEFINE_enum("format", None, list(FORMATS), "format of the file")
_OUT = flags.DEFINE_string("out", None, "file to write")
_LEVEL = flags.DEFINE_integer(
    "level", None, "level of iterative pruning; default: the last one", lower_bound=0
)
_REPLICATE = flags.DEFINE_integer(
    "replicate", 0, "number of the replicate, from 0", lower_bound=0
)
_VARIANT = flags.DEFINE_string("variant", "ticket", "the ticket, or a control")
_MASKS = flags.DEFINE_bool(
    "masks", False, "with --format=torch: weight_orig and weight_mask (torch prune)"
)
_COMPACT = flags.DEFINE_bool(
    "compact", False, "without neurons and channels that contribute nothing"
)


def main(argv: Sequence[str]) -> int:
    """Checks the command, and writes the file.

    Args:
      argv: the name of the program and the run directory.

    Returns:
      The exit code: 0, or 1 after an error.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        folder, out = _paths(argv[1:])
        _check_packages(out)
    except (ValueError, ModuleNotFoundError) as error:
        command_line.fail(str(error))
    # Imported here, so that errors in a command are found before JAX is imported.
    import jaxsparse

    try:
        run = jaxsparse.load(folder)
        size, dense = write(run, out)
    except (ValueError, TypeError) as error:
        command_line.fail(str(error))
    except OSError as error:
        command_line.fail(
            f"{out} cannot be written, or {folder} cannot be read ({error})"
        )
    print(f"{out}: {size:,} bytes; the dense parameters have {dense:,}")
    return 0


def _paths(words: Sequence[str]) -> tuple[Path, Path]:
    """Reads the command line: the run directory, and the file to write."""
    for flag in (_FORMAT, _OUT):
        if not flag.value:
            raise ValueError(f"--{flag.name}: missing; see --help")
    out, (endings, _) = command_line.path(_OUT), FORMATS[_FORMAT.value]
    if out.suffix not in endings:
        raise ValueError(
            f"--out: expected a file ending in {' or '.join(endings)} with "
            f"--format={_FORMAT.value}, got {_OUT.value}"
        )
    if _MASKS.value and _FORMAT.value != "torch":
        raise ValueError(
            "--masks: expected only with --format=torch, got --format="
            f"{_FORMAT.value}; remove it"
        )
    return command_line.run_folder(words), out


def _check_packages(out: Path) -> None:
    """Checks that the packages of the format are installed."""
    _, packages = FORMATS[_FORMAT.value]
    purpose = f"--format={_FORMAT.value}"
    if _FORMAT.value == "torch":
        safe = out.suffix == ".safetensors"
        packages = ("safetensors",) if safe else ("torch",)
        extras.require(*packages, purpose=purpose, extra="export" if safe else "torch")
    else:
        extras.require(*packages, purpose=purpose, extra="export")


def write(run: Any, out: Path) -> tuple[int, int]:
    """Writes the network that the flags choose.

    Args:
      run: the opened run.
      out: the file to write.

    Returns:
      The size of the file, and that of the dense parameters, in bytes.

    Raises:
      ValueError: if the network cannot be exported to the format.
    """
    import jax

    from jaxsparse import compaction, export

    what = {"level": _LEVEL.value, "replicate": _REPLICATE.value}
    what["variant"] = _VARIANT.value
    variables, ticket, model = run.variables(**what), run.masks(**what), run.model()
    dense = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    images = run.example_images()
    if _COMPACT.value:
        small = compaction.compact_run(run, images[:1], **what)
        variables, ticket, model = small.params, small.masks, small.module
        before, after = small.report.parameters
        print(f"compaction: {after:,} of {before:,} parameters stay")
        if _FORMAT.value == "torch" and after < before:
            print(
                "layers are narrower than in the classes of torchvision, timm or other "
                "code; make each layer with the shape of its tensor"
            )
    variables = {
        name: tree for name, tree in variables.items() if jax.tree.leaves(tree)
    }
    kind = _FORMAT.value
    if kind in ("safetensors", "dense"):
        packed = kind == "safetensors"
        masks = {"params": ticket}
        return export.safetensors(out, variables, masks, packed=packed), dense
    if kind == "torch":
        given = (model, variables, ticket if _MASKS.value else None)
        _write_torch(out, given, channels=images.shape[-1])
        return out.stat().st_size, dense

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return model.apply(variables, x, train=False)

    return export.onnx(out, jax.jit(apply), variables, images), dense


def _write_torch(out: Path, given: tuple[Any, ...], *, channels: int) -> None:
    """Writes a state dict."""
    from jaxsparse import export, metrics_log

    if out.suffix == ".safetensors":
        export.safetensors(out, export.torch_arrays(*given, channels=channels))
        return
    import io

    import torch

    content = io.BytesIO()
    torch.save(export.torch_state_dict(*given, channels=channels), content)
    metrics_log.write_atomically(out, content.getvalue())


if __name__ == "__main__":
    command_line.run(main, words="the folder of a run")
