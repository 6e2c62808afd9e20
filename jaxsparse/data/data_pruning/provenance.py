"""Origin of the scores of examples: dataset, training runs and hashes."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int


class ExampleHashes(NamedTuple):
    """Hashes that identify the scored examples.

    Attributes:
      labels: SHA-256 of the labels in their order, in hexadecimal.
      images: hash of the images from `fingerprint.of_images`; "" if unknown, as in
        older files.
    """

    labels: str
    images: str = ""


class Provenance(NamedTuple):
    """Origin of the scores: score, dataset and training runs. Made by `describe`.

    Attributes:
      score: name of the score, such as "el2n".
      dataset: name of the dataset, such as "cifar10".
      split: scored part of the dataset, such as "train".
      examples: number of scored examples.
      replicates: number of training runs over which the scores are averaged.
      step: number of training steps before the scores were computed.
      config: digest of the configuration of those runs.
      hashes: hashes of labels and images.
      weights: hashes of the scored checkpoints, joined by commas; "" if there are none,
        as for forgetting events.
    """

    score: str
    dataset: str
    split: str
    examples: int
    replicates: int
    step: int
    config: str
    hashes: ExampleHashes
    weights: str = ""

    def with_images(self, images: str) -> "Provenance":
        """Returns the provenance with a hash of images.

        Args:
          images: hash from `fingerprint.of_images`.
        """
        return self._replace(hashes=self.hashes._replace(images=images))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as they are in files: without nesting, in fixed order."""
        fields = self._asdict()
        del fields["hashes"], fields["weights"]
        return fields | {
            "labels": self.hashes.labels,
            "weights": self.weights,
            "images": self.hashes.images,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Provenance":
        """Reads the fields of a file.

        Args:
          fields: as `to_dict` returns them; older files lack some.

        Raises:
          TypeError: if a field is missing or unknown.
          KeyError: if the hash of labels is missing.
        """
        rest = dict(fields)
        hashes = ExampleHashes(rest.pop("labels"), rest.pop("images", ""))
        return cls(**rest, hashes=hashes)


def hash_labels(labels: Int[np.ndarray, " n"]) -> str:
    """Hashes labels in their order, independent of their integer type.

    Args:
      labels: class of each example.

    Returns:
      SHA-256 in hexadecimal.
    """
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def describe(
    labels: Int[np.ndarray, " n"],
    *,
    score: str,
    dataset: str,
    split: str,
    replicates: int,
    step: int,
    config: str,
    weights: str = "",
) -> Provenance:
    """Makes the provenance of scores.

    Args:
      labels: labels of the scored examples, in the order of the dataset.
      score: name of the score, such as "el2n".
      dataset: name of the dataset, such as "cifar10".
      split: scored part of the dataset, such as "train".
      replicates: number of training runs over which the scores are averaged, at least
        1.
      step: number of training steps before the scores were computed, at least 0.
      config: digest of the configuration of those runs.
      weights: hashes of the scored checkpoints, joined by commas; "" if there are none,
        as for forgetting events.

    Returns:
      The provenance, with the number of labels and their hash, and without a hash of
      images.

    Raises:
      ValueError: if `replicates` or `step` is out of range.
    """
    if replicates < 1 or step < 0:
        raise ValueError(
            "replicates: expected at least 1, at a step of at least 0, got "
            f"{replicates} at step {step}"
        )
    return Provenance(
        score=score,
        dataset=dataset,
        split=split,
        examples=len(labels),
        replicates=replicates,
        step=step,
        config=config,
        hashes=ExampleHashes(hash_labels(labels)),
        weights=weights,
    )
