'''Files of the safetensors format, dense or packed to the active weights.

A packed file has, for each leaf NAME with a mask, three tensors in place of the leaf:

    NAME:mask    one bit for each weight, the first in the highest bit, as bytes
    NAME:shape   shape of the leaf, int64
    NAME:values  the active weights in row-major order, in the leaf's dtype

Weights outside the masks are zero. All other leaves are stored under their own names,
as in a dense file, which any reader of safetensors can load. Of random keys, their bits
are stored (`jax.random.key_data`), uint32 with one more axis. This function reads both
kinds of files and needs only NumPy:

    import json

    import numpy as np

    DTYPES = {"BOOL": "?", "U8": "u1", "I32": "<i4", "U32": "<u4", "I64": "<i8"}
    DTYPES |= {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}


    def read(path):
        """Returns all leaves by name; bfloat16 weights become float32."""
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header, content = json.loads(file.read(size)), file.read()
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            array = np.frombuffer(content[start:stop], DTYPES[entry["dtype"]])
            if entry["dtype"] == "BF16":  # the upper half of a float32
                array = (array.astype("<u4") << 16).view("<f4")
            tensors[name] = array.reshape(entry["shape"])
        leaves = {name: array for name, array in tensors.items() if ":" not in name}
        for name in (key.removesuffix(":mask") for key in tensors if ":mask" in key):
            values, shape = tensors[f"{name}:values"], tensors[f"{name}:shape"]
            bits = np.unpackbits(tensors[f"{name}:mask"], count=np.prod(shape))
            leaf = np.zeros(bits.size, values.dtype)
            leaf[bits == 1] = values
            leaves[name] = leaf.reshape(shape)
        return leaves
'''

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsparse import arguments, extras, metrics_log, rng, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks

FORMAT = "jaxsparse.packed"  # key of the metadata of a packed file
_MASK, _SHAPE, _VALUES = ":mask", ":shape", ":values"


class Loaded(NamedTuple):
    """Content of a file.

    Attributes:
      params: the leaves, zero outside the masks.
      masks: masks of the leaves that are packed in the file, None for other leaves.
    """

    params: Any
    masks: Masks


def require() -> None:
    """Checks that the package safetensors is installed.

    Raises:
      ModuleNotFoundError: if it is not; the message has the command to install it.
    """
    extras.require("safetensors", purpose="safetensors files", extra="export")


def _stored_shape(leaf: Any) -> tuple[int, ...]:
    """Returns the shape that a leaf has in a file."""
    bits = jax.eval_shape(jax.random.key_data, leaf) if rng.is_key(leaf) else leaf
    return tuple(bits.shape)


@arguments.check(
    path=arguments.path,
    params=arguments.weights,
    masks=arguments.optional(arguments.masks),
)
def safetensors(
    path: str | Path, params: Any, masks: Masks | None = None, *, packed: bool = True
) -> int:
    """Writes parameters to a file of the safetensors format, completely or not at all.

    Without masks, or with `packed=False`, the file is dense: any program that reads
    safetensors finds each leaf under its name, with zeros outside the masks. A packed
    file has one bit for each weight, and the active weights. It is smaller if fewer
    than 31 of 32 weights (of 4 bytes) are active, and it also stores which weights are
    active. `from_safetensors` reads it, and so does the NumPy function in the docstring
    of this module, for programs without jaxsparse.

    Args:
      path: file to write, usually ending in .safetensors.
      params: tree of concrete arrays of any shapes and dtypes; also all variables of a
        network, such as `{"params": ..., "batch_stats": ...}`, or the state of an nnx
        module. Random keys are stored as their bits, uint32.
      masks: boolean masks with the nesting of `params`; None, or missing, where a leaf
        has no mask. Weights outside them are written as zeros.
      packed: whether leaves with masks are packed.

    Returns:
      The size of the file in bytes.

    Raises:
      ModuleNotFoundError: if the package safetensors is not installed.
      ValueError: if a mask fits no leaf, or a name contains ":"; the message names it.
      OSError: if the file cannot be written.

    Examples:
      >>> leaves = {"kernel": jnp.arange(64.0), "bias": jnp.ones(2)}
      >>> ticket = {"kernel": jnp.arange(64) % 8 == 0, "bias": None}
      >>> packed = safetensors("ticket.safetensors", leaves, ticket)
      >>> packed < safetensors("dense.safetensors", leaves, ticket, packed=False)
      True
      >>> from_safetensors("ticket.safetensors", leaves).params["kernel"][8:10]
      Array([8., 0.], dtype=float32)
    """
    require()
    from safetensors import numpy as files  # an optional package

    found = {} if masks is None else masks_lib.by_name(masks, params)
    tensors: dict[str, np.ndarray] = {}
    for name, leaf in tree.named_leaves(params).items():
        if ":" in name:
            raise ValueError(
                f"params: expected names without ':', which separates the parts of a "
                f"packed leaf, got {name!r}; rename the leaf"
            )
        values = np.asarray(jax.random.key_data(leaf) if rng.is_key(leaf) else leaf)
        if name not in found:
            tensors[name] = np.array(values, order="C")
        elif packed:
            tensors |= pack_leaf(name, values, found[name])
        else:
            tensors[name] = np.where(found[name], values, np.zeros((), values.dtype))
    metadata = {FORMAT: "1"} if packed and found else {}
    content = files.save(tensors, metadata=metadata)
    metrics_log.write_atomically(Path(path), content)
    return len(content)


def pack_leaf(name: str, values: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Packs a leaf to the bits of its mask and its active weights.

    Args:
      name: name of the leaf.
      values: its weights, of any shape.
      mask: its mask, of the same shape.

    Returns:
      The three arrays of a packed leaf, by name.
    """
    return {
        name + _MASK: np.packbits(mask.reshape(-1)),
        name + _SHAPE: np.array(values.shape, np.int64),
        name + _VALUES: np.ascontiguousarray(values.reshape(-1)[mask.reshape(-1)]),
    }


def unpack_leaf(
    name: str, tensors: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Unpacks a leaf that `pack_leaf` has packed.

    Args:
      name: name of the leaf.
      tensors: arrays by name, among them the three of this leaf.

    Returns:
      Weights, zero outside the mask, and the mask.

    Raises:
      ValueError: if a part is missing, or the parts do not fit each other.
    """
    parts = [tensors.get(name + suffix) for suffix in (_MASK, _SHAPE, _VALUES)]
    if any(part is None for part in parts):
        raise ValueError(
            f"packed weights: {name}: expected the parts {_MASK}, {_SHAPE} and "
            f"{_VALUES}, got only some of them; the file is damaged"
        )
    bits, shape, values = parts
    size = int(np.prod(shape))
    mask = np.unpackbits(bits, count=size).astype(bool) if bits.size * 8 >= size else []
    if len(mask) != size or np.count_nonzero(mask) != values.size:
        raise ValueError(
            f"packed weights: {name}: expected {size} bits, of which {values.size} are "
            "1, as there are values, got others; the file is damaged"
        )
    weights = np.zeros(size, values.dtype)
    weights[mask] = values
    return weights.reshape(shape), mask.reshape(shape)


def split_packed(
    tensors: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Unpacks all packed leaves among arrays.

    Args:
      tensors: arrays by name; the parts of a packed leaf NAME are NAME:mask, NAME:shape
        and NAME:values.

    Returns:
      All leaves by name, and the masks of those that were packed.

    Raises:
      ValueError: if a leaf is damaged; the message names it.
    """
    leaves = {name: array for name, array in tensors.items() if ":" not in name}
    masks = {}
    for name in sorted({name.partition(":")[0] for name in tensors if ":" in name}):
        leaves[name], masks[name] = unpack_leaf(name, tensors)
    return leaves, masks


@arguments.check(path=arguments.path, template=arguments.weights)
def from_safetensors(path: str | Path, template: Any) -> Loaded:
    """Reads parameters, and the masks if the file is packed.

    Args:
      path: a file that `safetensors` wrote, or any other with a tensor for each leaf.
      template: tree with the names and shapes of the leaves, such as
        `jax.eval_shape(model.init, key, images)`. Only names and shapes are used, and
        which leaves are random keys.

    Returns:
      Parameters and masks with the nesting of `template`. In a dense file no leaf has a
      mask; `params != 0` may then serve as one. Arrays have the dtypes of the file, and
      random keys those of `template`.

    Raises:
      ModuleNotFoundError: if the package safetensors is not installed.
      ValueError: if the file is damaged, or its leaves have other names or shapes than
        those of `template`; the message names the leaf.
      OSError: if the file cannot be read.

    Examples:
      >>> leaves = {"kernel": jnp.array([0.0, 2.0]), "bias": jnp.ones(1)}
      >>> ticket = {"kernel": jnp.array([False, True]), "bias": None}
      >>> size = safetensors("small.safetensors", leaves, ticket)
      >>> loaded = from_safetensors("small.safetensors", jax.eval_shape(lambda: leaves))
      >>> loaded.params["kernel"], loaded.masks["kernel"]
      (Array([0., 2.], dtype=float32), Array([False,  True], dtype=bool))
    """
    require()
    from safetensors import SafetensorError
    from safetensors import numpy as files

    try:
        tensors = files.load_file(path)  # `load` does not know bfloat16
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a file of the safetensors format, got one that cannot "
            f"be read ({error})"
        ) from error
    leaves, masks = split_packed(tensors)
    named = tree.named_leaves(template)
    expected = {name: _stored_shape(leaf) for name, leaf in named.items()}
    for name in sorted({*expected, *leaves}):
        shape = leaves[name].shape if name in leaves else "no such leaf"
        if shape != expected.get(name):
            raise ValueError(
                f"{path}: {name}: expected the leaves of template, with shape "
                f"{expected.get(name, 'no such leaf')}, got {shape}; pass the "
                "template of the network that was saved"
            )

    def look_up(arrays: dict[str, np.ndarray]) -> Any:
        def find(name: str, leaf: Any) -> Any:
            if name not in arrays:
                return None
            if rng.is_key(leaf):
                return jax.random.wrap_key_data(arrays[name], dtype=leaf.dtype)
            return jax.numpy.asarray(arrays[name])

        return tree.map_with_names(find, template)

    return Loaded(look_up(leaves), look_up(masks))
