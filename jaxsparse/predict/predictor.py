"""The predictor that `auto` returns, and the table of what was measured for it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsparse import tree


class Trial(NamedTuple):
    """One measured form of a layer, of a part between layers or of the whole program.

    Attributes:
      part: name of the weight of a layer; "whole"; or a part of a mixed program, such
        as "mixed: 3 csr, part 2 of 4".
      form: "dense", "condensed", "csr" or "direct" for a layer, "xla" or "numpy" for a
        part, a description for the whole.
      ms: median time of one call in milliseconds; NaN if it was not measured.
      low: shortest time.
      high: longest time.
      chosen: whether the predictor has this form.
      note: why it was not measured, or what else is known; "" for nothing.
    """

    part: str
    form: str
    ms: float
    low: float
    high: float
    chosen: bool
    note: str = ""


class Predictor:
    """A network for inputs of one shape, with the forms that were measured fastest.

    It is called as `predictor(*inputs)` with the inputs of the function that it was
    made of, and returns the tree of its outputs, as arrays of NumPy. `str(predictor)`
    is the table of trials, in Markdown.

    Attributes:
      forms: the form of each layer by the name of its weight: "dense", "condensed",
        "csr" or "direct".
      trials: all that was measured.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        example: tuple[Any, ...],
        forms: dict[str, str],
        trials: tuple[Trial, ...],
    ) -> None:
        """Stores the network.

        Args:
          run: computes the outputs of checked inputs.
          example: the inputs, or their shapes.
          forms: the form of each layer.
          trials: all that was measured.
        """
        self.forms, self.trials = forms, trials
        self._run = run
        self._structure = jax.tree.structure(example)
        leaves = jax.tree.leaves(example)
        self._is_flat = all(a is b for a, b in zip(leaves, example, strict=False))
        self._shapes = [(tuple(leaf.shape), np.dtype(leaf.dtype)) for leaf in leaves]

    def __call__(self, *inputs: Any) -> Any:
        """Computes the outputs.

        Args:
          *inputs: trees of arrays of NumPy or JAX, with the structure, shapes and
            dtypes of the example.

        Returns:
          The tree of outputs, as arrays of NumPy.

        Raises:
          ValueError: if an input has another structure, shape or dtype.
        """
        # Checked without JAX's trees first, which take as long as a small network.
        leaves = inputs if self._is_flat else jax.tree.leaves(inputs)
        given = [(getattr(x, "shape", None), getattr(x, "dtype", None)) for x in leaves]
        if given != self._shapes or not self._is_flat:
            self._check(inputs)
        return self._run(*inputs)

    def _check(self, inputs: tuple[Any, ...]) -> None:
        """Raises an error for inputs that are not those of the example."""
        structure = jax.tree.structure(inputs)
        if structure != self._structure:
            raise ValueError(
                f"inputs: expected arrays as in the example, {self._structure}, got "
                f"{structure}"
            )
        found = tree.named_leaves(inputs).items()
        for (name, leaf), wanted in zip(found, self._shapes, strict=True):
            got = tuple(np.shape(leaf)), getattr(leaf, "dtype", type(leaf).__name__)
            if got != wanted:
                raise ValueError(
                    f"inputs: {name}: expected shape {wanted[0]} and dtype "
                    f"{wanted[1]}, got {got[0]} and {got[1]}; convert the array, or "
                    "make another predictor from an example of this shape, such as "
                    "another batch size"
                )

    def __str__(self) -> str:
        """Returns the table of trials, in Markdown."""
        header = ("part", "form", "ms", "range", "chosen", "note")
        lines = [header, ("---",) * len(header)]
        for trial in self.trials:
            measured = trial.ms == trial.ms
            spread = f"{trial.low:.4f} to {trial.high:.4f}" if measured else ""
            lines.append(
                (
                    *(trial.part, trial.form, f"{trial.ms:.4f}" if measured else ""),
                    *(spread, "yes" if trial.chosen else "", trial.note),
                )
            )
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
