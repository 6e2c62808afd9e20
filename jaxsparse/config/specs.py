"""Specifications of all entries that configs can name, such as scores and methods.

A specification contains the function of an entry, the config fields that it reads, the
arguments that it needs and its label in reports. This module does not import JAX, so
that names can be checked and reports written without it.
"""

import dataclasses
import functools
import hashlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

PACKAGE = "jaxsparse."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """Specification of an entry of a registry.

    Attributes:
      name: name in configs.
      function: function of the entry, or "module:name" of a function that is imported
        on use, as for the package's own entries.
      label: name in reports; "" for `name`.
      options: default values of the entry's additional config fields, by name. The
        fields are in the registry's section of the config and are passed to the
        function as keyword arguments.
      file: file that registered the entry, see `kept`; "" for the package's own.
    """

    name: str
    function: Callable[..., Any] | str
    label: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    file: str = dataclasses.field(default="", compare=False)

    @property
    def title(self) -> str:
        """The name in reports: the label, or the name if there is none."""
        return self.label or self.name

    @functools.cached_property
    def is_built_in(self) -> bool:
        """Whether the entry is one of the package."""
        return isinstance(self.function, str) and self.function.startswith(PACKAGE)

    def load(self) -> Callable[..., Any]:
        """Returns the function, after importing it if it is given by name."""
        if isinstance(self.function, str):
            return pkgutil.resolve_name(self.function)
        return self.function

    def digest(self) -> str | None:
        """Hashes the source text of the function.

        Returns:
          The first 16 hexadecimal digits of a SHA-256; None if Python cannot find the
          source text.
        """
        text = source_of(self.function)
        return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreSpec(Spec):
    """A score of weights: the weights with the highest scores are kept.

    Attributes:
      needs: keyword arguments of the function in addition to `(params, masks)`, each a
        key of `SCORE_NEEDS`.
      distribution: how the sparsity is divided among layers if the config does not set
        it.
      varies: whether scores can change when some weights are pruned.
    """

    needs: tuple[str, ...] = ()
    distribution: str = "global"
    varies: bool = True

    @property
    def needs_data(self) -> bool:
        """Whether the score is computed on training examples."""
        return "batches" in self.needs


# Arguments that a score can request by name, all for a single replicate.
SCORE_NEEDS = {
    "loss": "loss(params, batch, temperature=1.0), the mean cross-entropy in training",
    "batches": "(images [n b h w c], labels [n b]), normalized training examples; of "
    "texts tokens and the next tokens, [n b t] each",
    "apply": "apply(params, images), the logits in evaluation mode",
    "apply_train": "apply_train(params, images), the logits in training mode, in which "
    "BatchNorm normalizes by the statistics of the images",
    "input_shape": "the shape of a batch of one image, (1, h, w, c)",
    "key": "a random key",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskUpdateRules:
    """When a method updates masks, and which weights it trains and differentiates.

    Attributes:
      updates_masks: whether masks change during training.
      first_update: step of the first mask update if the config has no `begin_step`:
        "start" for step 0, "one_interval" for step `update_every`; "" if the steps of
        the mask updates are unknown.
      include_end: whether the step `end_step` itself has a mask update; or the name of
        the Boolean field that decides this.
      finishes_at: field with the step at which the target sparsity is reached; "" if it
        is reached at initialization.
      finishes_after: whether the target is reached after that many updates, which the
        length of training may be, and not before the update of this number.
      grows: whether weights that were zero become active and are trained from zero.
      gradient: of which weights the gradient is computed, for FLOPs: "active",
        "updates" (of all weights at mask updates), "always" (of all weights) or
        "backward" (of the trained weights); see `flops.training`. "" for "updates" if
        masks are updated, otherwise "active". With "updates" and unknown steps
        (`first_update` is ""), records of FLOPs are marked as not exact.
    """

    updates_masks: bool = True
    first_update: str = ""
    include_end: bool | str = False
    finishes_at: str = ""
    finishes_after: bool = False
    grows: bool = False
    gradient: str = ""

    def includes_end(self, section: ConfigDict) -> bool:
        """Returns whether the step `end_step` itself has a mask update.

        Args:
          section: the config's section "sparse".
        """
        if isinstance(self.include_end, str):
            return bool(section[self.include_end])
        return self.include_end


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodSpec(Spec):
    """A sparse training method, whose function wraps the inner optimizer.

    Attributes:
      arguments: fields of the config's section "sparse" that are passed to the
        function, mapped to the names of its arguments. A field that is None, which
        stands for the default of the method, is not passed.
      records: arguments of the function that are records of options, mapped to their
        dataclasses, or to the "module:name" of these. An argument in `arguments`,
        `options` or `receives` that is a field of a record is passed in the record.
      reads: further fields of that section that affect the method but are not arguments
        of its function.
      receives: arguments that are not config fields: "key", a random key; "axes", the
        layouts of the weights (`fan_axes`); and "learning_rate", a function of the
        step.
      requires: fields that a config must set.
      distribution: how the function divides the sparsity among layers if the config
        does not set it.
      keeps_counts: whether the method can train from the masks of another run and keeps
        their number of active weights.
      mask_updates: when masks are updated, and which weights are trained.
      chooses: fields that determine the initial masks. They must not be set if the
        masks are those of another run.
    """

    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    records: Mapping[str, type | str] = dataclasses.field(default_factory=dict)
    reads: tuple[str, ...] = ()
    receives: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    distribution: str = "global"
    keeps_counts: bool = False
    mask_updates: MaskUpdateRules = MaskUpdateRules()
    chooses: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields of the section "sparse" that affect the method."""
        return (*self.arguments, *self.reads, *self.options)

    def load_records(self) -> dict[str, type]:
        """Returns the classes of `records`, after importing those given by name."""
        return {
            argument: pkgutil.resolve_name(record)
            if isinstance(record, str)
            else record
            for argument, record in self.records.items()
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReparameterizationSpec(Spec):
    """A reparameterization of the weights, for any method.

    Attributes:
      arguments: fields of the config's section "sparse" that are passed to the
        function, mapped to the names of its arguments. A field that is None is not
        passed.
      grows_from_zero: whether a weight of exactly zero has a gradient, so that methods
        can grow weights.
    """

    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    grows_from_zero: bool = True

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields of the section "sparse" that affect the reparameterization."""
        return (*self.arguments, *self.options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A network, whose function returns a linen module for a number of classes.

    Attributes:
      arguments: keyword arguments of the function; for those that are also in `takes`,
        the value if the config does not set one.
      takes: keyword arguments that the function takes in addition to `classes`: fields
        of the config's section "model" ("width", "depth", "heads", "features",
        "conv_channels", "padding", "dtype"), and layers to inject ("norm", "conv",
        "pool", "skip").
      blocks: number of sizes in `model.features`; None for any number.
      rectifies: whether the activation is ReLU. If so, the soft activations of ToST can
        replace the module's field `act`.
      patch: height and width of images must be multiples of this number of pixels.
      predicts: "classes" of images, or the "next_token" after each token of a text.
    """

    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    takes: tuple[str, ...] = ()
    blocks: int | None = None
    rectifies: bool = False
    patch: int = 1
    predicts: str = "classes"

    def make(self, **fields: Any) -> Any:
        """Makes the linen module.

        Args:
          **fields: `classes` and the arguments in `takes`.
        """
        return self.load()(**{**self.arguments, **fields})


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A dataset, whose function reads it.

    The function takes the keyword argument `data_dir` and returns training examples,
    test examples and the number of classes. That of a text also takes `context`, the
    number of tokens that a network reads at once; see `data.text`.

    Attributes:
      mean: mean of each channel on the [0, 1] scale; () computes mean and standard
        deviation from the training images.
      std: standard deviation of each channel on the [0, 1] scale; () if `mean` is ().
      predicts: what networks predict: "classes" of images, or the "next_token" after
        each token of a text.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    predicts: str = "classes"


PREDICTS = ("classes", "next_token")


def source_of(function: Any) -> str | None:
    """Returns the source text of a function or class.

    Args:
      function: a function, a class, a `functools.partial`, or a "module:name".

    Returns:
      The source text, with the bound arguments of a partial appended; a "module:name"
      unchanged; None if the source text cannot be found.
    """
    if isinstance(function, str):
        return function
    if isinstance(function, functools.partial):
        inner = source_of(function.func)
        given = f"{function.args!r} {sorted(function.keywords.items())!r}"
        # Addresses in the repr of objects differ between processes.
        return inner and inner + re.sub(r" at 0x[0-9a-f]+", "", given)
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return None
