"""State dicts of PyTorch for the networks of `models`, and back.

`torch_names` has the names of the layers, and `torch_layout` the order of axes.
PyTorch need not be installed for `torch_arrays` and `from_torch`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxsparse import arguments, extras, tree
from jaxsparse import masks as masks_lib
from jaxsparse.export import torch_layout
from jaxsparse.types import Masks

if TYPE_CHECKING:
    import torch

_ORIGINAL, _MASK = "_orig", "_mask"  # suffixes of torch.nn.utils.prune
_COUNTER = "num_batches_tracked"  # of BatchNorm; nothing in JAX corresponds to it


class Imported(NamedTuple):
    """A network from PyTorch.

    Attributes:
      variables: what `model.apply` takes, weights zero outside the masks.
      masks: masks of its parameters, None for leaves that are not prunable, such as
        biases; where these were pruned in PyTorch, `variables` has zeros.
    """

    variables: dict[str, Any]
    masks: Masks


@arguments.check(
    model=arguments.instance(nn.Module),
    variables=arguments.weights,
    masks=arguments.optional(arguments.masks),
    channels=arguments.optional(arguments.integer(1)),
)
def torch_arrays(
    model: nn.Module,
    variables: dict[str, Any],
    masks: Masks | None = None,
    *,
    channels: int | None = None,
) -> dict[str, np.ndarray]:
    """Returns the state dict of a network in PyTorch, as NumPy arrays.

    The PyTorch network takes images [b, c, h, w]. `torch_names` lists whose names the
    layers have. Only image networks have such names; `models.DecoderLM` has none, and
    can be written by `safetensors` and `onnx`. PyTorch has to normalize with the same
    epsilon: 1e-5 after convolutions, which is its default, and 1e-6 in transformers.

    Args:
      model: an image network of `models`, of any size.
      variables: what `model.apply` takes, `{"params": ..., "batch_stats": ...}`, of one
        replicate.
      masks: masks of the parameters, None where a leaf is not prunable. They are
        written in the form of `torch.nn.utils.prune`: the tensors `weight_orig` and
        `weight_mask` in place of `weight`. None writes no masks; parameters from
        `LoadedRun.variables` are zero outside of them anyway.
      channels: number of channels of the images; needed for `models.LeNet300100` only,
        which flattens images.

    Returns:
      Arrays by the names of PyTorch, in the order of the leaves of `variables`.

    Raises:
      ValueError: if the network is not an image network of `models`, a leaf has no name
        in PyTorch, masks do not fit, or `channels` is missing.

    Examples:
      >>> net = jaxsparse.models.LeNet300100((3,), classes=2)
      >>> variables = net.init(jax.random.key(0), jnp.ones((1, 2, 2, 1)), train=False)
      >>> {k: v.shape for k, v in torch_arrays(net, variables, channels=1).items()}
      {'fc1.bias': (3,), 'fc1.weight': (3, 4), 'fc2.bias': (2,), 'fc2.weight': (2, 3)}
    """
    found = {}
    if masks is not None:
        found = masks_lib.by_name({"params": masks}, variables)
    entries = torch_layout.entries(model, variables, channels=channels)
    leaves = {name: np.asarray(v) for name, v in tree.named_leaves(variables).items()}
    result: dict[str, np.ndarray] = {}

    def join(arrays: list[np.ndarray], entry: torch_layout.Entry) -> np.ndarray:
        parts = [torch_layout.to_torch(array, entry.channels) for array in arrays]
        return np.ascontiguousarray(np.concatenate(parts) if parts[1:] else parts[0])

    for entry in entries:
        values = [leaves[name] for name in entry.leaves]
        if not any(name in found for name in entry.leaves):
            result[entry.key] = join(values, entry)
        else:
            kept = [found.get(name) for name in entry.leaves]
            kept = [
                np.ones(v.shape, bool) if m is None else m
                for m, v in zip(kept, values, strict=True)
            ]
            result[entry.key + _ORIGINAL] = join(values, entry)
            result[entry.key + _MASK] = join(kept, entry).astype(values[0].dtype)
        if entry.key.endswith(".running_var"):
            owner = entry.key.rpartition(".")[0]
            result[f"{owner}.{_COUNTER}"] = np.zeros((), np.int64)
    return result


def torch_state_dict(
    model: nn.Module,
    variables: dict[str, Any],
    masks: Masks | None = None,
    *,
    channels: int | None = None,
) -> "dict[str, torch.Tensor]":
    """Returns the state dict of a network in PyTorch, for `load_state_dict`.

    Args:
      model: an image network of `models`, of any size.
      variables: what `model.apply` takes, `{"params": ..., "batch_stats": ...}`, of one
        replicate.
      masks: masks of the parameters, or None; see `torch_arrays`.
      channels: number of channels of the images; needed for `models.LeNet300100` only.

    Returns:
      Tensors on the CPU by the names of PyTorch; see `torch_arrays`.

    Raises:
      ModuleNotFoundError: if PyTorch is not installed.
      ValueError: if `torch_arrays` does.

    Examples:
      >>> net = jaxsparse.models.LeNet300100((3,), classes=2)
      >>> variables = net.init(jax.random.key(0), jnp.ones((1, 2, 2, 1)), train=False)
      >>> state = torch_state_dict(net, variables, channels=1)
      >>> tuple(state["fc1.weight"].shape)
      (3, 4)
    """
    extras.require("torch", purpose="state dicts of PyTorch", extra="torch")
    import torch  # an optional package

    arrays = torch_arrays(model, variables, masks, channels=channels)

    def tensor(array: np.ndarray) -> torch.Tensor:
        if array.dtype == jnp.bfloat16:  # a dtype that NumPy itself does not have
            return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(array.copy())

    return {key: tensor(array) for key, array in arrays.items()}


def _array(tensor: Any) -> np.ndarray:
    """Converts a tensor of PyTorch, or any array, to a NumPy array."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":
            return tensor.float().numpy().astype(jnp.bfloat16)
        return tensor.numpy()
    return np.asarray(tensor)


def _check_images(field: str, images: Any) -> None:
    """Checks that the shape of images is known, as `arguments.check` wants it."""
    shape = getattr(images, "shape", None)
    if shape is None or len(shape) != 4 or 0 in shape:
        raise ValueError(
            f"{field}: expected images [b, h, w, c] or their shape, none of it 0, got "
            f"{type(images).__name__ if shape is None else shape}; pass "
            "`jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)`"
        )


@arguments.check(
    model=arguments.instance(nn.Module),
    state_dict=arguments.instance(Mapping),
    images=_check_images,
)
def from_torch(
    model: nn.Module, state_dict: Mapping[str, Any], images: Any
) -> Imported:
    """Converts a state dict of PyTorch to variables and masks of a network.

    The names must be those of `torch_arrays`; a prefix "module." of every name, as
    from `DataParallel`, is dropped. Masks are those of `torch.nn.utils.prune`
    (`weight_orig` and `weight_mask`, and so for biases) where the state dict has them:
    all entries outside of them become zero, also those of leaves that are not prunable
    here. Elsewhere, a weight of a prunable leaf is active if it is not exactly zero, as
    in state dicts whose masks were removed.

    Args:
      model: an image network of `models`, of the size of the PyTorch network.
      state_dict: tensors of PyTorch or NumPy arrays by name.
      images: images [b, h, w, c] of the size that the network is made for, or their
        shape as `jax.ShapeDtypeStruct`; only the shape is used.

    Returns:
      Variables for `model.apply` in the dtypes of the state dict, and masks.

    Raises:
      TypeError: if `state_dict` is not a mapping, such as the path of a file.
      ValueError: if names or shapes differ from those of the network; the message lists
        them.

    Examples:
      >>> net, images = jaxsparse.models.LeNet300100((3,)), jnp.ones((1, 2, 2, 1))
      >>> variables = net.init(jax.random.key(0), images, train=False)
      >>> arrays = torch_arrays(net, variables, channels=1)
      >>> arrays["fc1.weight"][0, 1] = 0.0
      >>> masks.num_active(from_torch(net, arrays, images).masks)
      41
    """
    template = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), images
    )
    shapes = tree.named_leaves(template)
    given = {str(key): _array(value) for key, value in state_dict.items()}
    if given and all(key.startswith("module.") for key in given):
        given = {key.removeprefix("module."): value for key, value in given.items()}
    given = {key: v for key, v in given.items() if not key.endswith(_COUNTER)}
    wanted = torch_layout.entries(model, template, channels=images.shape[-1])
    _check_keys({entry.key for entry in wanted}, given)
    values: dict[str, np.ndarray] = {}
    active: dict[str, np.ndarray] = {}
    for entry in wanted:
        weights, mask = _masked(entry, given, shapes)
        count = len(entry.leaves)
        for leaf, part, kept in zip(
            entry.leaves, _split(weights, count), _split(mask, count), strict=True
        ):
            values[leaf] = torch_layout.to_jax(part, entry.channels)
            active[leaf] = torch_layout.to_jax(kept, entry.channels)
    variables = tree.map_with_names(lambda name, _: jnp.asarray(values[name]), template)
    ones = masks_lib.ones(variables["params"])
    masks = tree.map_with_names(
        lambda name, _: jnp.asarray(active[f"params/{name}"]), ones
    )
    return Imported(variables, masks)


def _split(array: np.ndarray, count: int) -> list[np.ndarray]:
    """Splits a tensor that joins several leaves along its first axis."""
    return np.split(array, count) if count > 1 else [array]


def _masked(
    entry: torch_layout.Entry,
    given: Mapping[str, np.ndarray],
    shapes: Mapping[str, Any],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a tensor, zero outside its mask, and the mask, in shapes that fit."""
    key, wanted = entry.key, torch_layout.torch_shape(entry, shapes)
    names = (key,) if key in given else (key + _ORIGINAL, key + _MASK)
    for name in names:
        if given[name].shape != wanted:
            raise ValueError(
                f"state_dict: {name}: expected a shape that fits "
                f"{', '.join(entry.leaves)}, {wanted}, got {given[name].shape}; make a "
                "network of the same size, and pass images of its size"
            )
    weights, kept = given[names[0]], given[names[-1]] != 0
    # A tensor without a mask stays bit for bit what it is, with zeros of both signs.
    masked = np.where(kept, weights, np.zeros((), weights.dtype))
    return weights if key in given else masked, kept


def _check_keys(wanted: set[str], given: Mapping[str, np.ndarray]) -> None:
    """Raises a ValueError if names are missing or unexpected."""
    pruned = {key for key in wanted if key not in given}
    pairs = {key for key in pruned if key + _ORIGINAL in given and key + _MASK in given}
    there = {key + end for key in pairs for end in (_ORIGINAL, _MASK)}
    missing = sorted(pruned - pairs)
    unexpected = sorted(set(given) - wanted - there)
    if missing or unexpected:
        raise ValueError(
            "state_dict: expected the names of `export.torch_arrays` for this network, "
            f"got others: missing {missing[:5]}, unexpected {unexpected[:5]}, of "
            f"{len(missing)} and {len(unexpected)}; rename the tensors, or pass the "
            "network they belong to"
        )
