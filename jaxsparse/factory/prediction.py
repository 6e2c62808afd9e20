"""What networks predict, classes or next tokens, and which fields do not fit tokens."""

from ml_collections import ConfigDict

from jaxsparse import config as config_lib

# Fields that must have their default values with next-token prediction, by the reason.
NOT_FOR_TOKENS = {
    "which are not images": (
        *("data.image_size", "data.downsample", "data.augment", "data.crop_pad"),
        *("data.flip", "data.normalize", "data.mean", "data.std"),
    ),
    "which have no labels": (
        *("data.label_noise", "data.label_noise_by", "data.label_noise_seed"),
    ),
    "each of which is predicted, while the instability analysis counts examples": (
        *("instability.copies", "instability.compare_levels"),
    ),
}
# Scores that compute on random inputs or on ones, which tokens cannot be.
OWN_INPUTS = ("ntk_sap",)


def of_dataset(name: str) -> str:
    """Returns what networks predict on a dataset: "classes" or "next_token".

    Args:
      name: name of the dataset. Those that are not registered are images.
    """
    found = config_lib.DATASETS.get(name)
    return "classes" if found is None else found.predicts


def check_classes(config: ConfigDict, what: str) -> None:
    """Checks that a network predicts classes.

    Args:
      config: a validated config.
      what: what needs classes, for the message.

    Raises:
      ValueError: if it predicts next tokens.
    """
    if of_dataset(config.data.name) != "classes":
        raise ValueError(
            f"{what}: expected a network that predicts one class for each example, got "
            f"{config.model.name!r} on {config.data.name!r}, which predicts the next "
            "token at each position; choose a run on images"
        )


def check(config: ConfigDict) -> None:
    """Checks that the network predicts what the dataset has, and fields that fit it.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if the network or a field does not fit the dataset; the message names
        the config field.
    """
    data, model = config.data.name, config_lib.MODELS.find(config.model.name)
    predicts = of_dataset(data)
    if model.predicts != predicts:
        fitting = [m.name for m in config_lib.MODELS.values() if m.predicts == predicts]
        words = {"classes": "classes of images", "next_token": "the next token"}
        raise ValueError(
            f"config.model.name: expected a network that predicts {words[predicts]} "
            f"with data.name {data!r}, got {model.name!r}, which predicts "
            f"{words[model.predicts]}; choose another dataset, or one of {fitting}"
        )
    if predicts == "next_token":
        _check_tokens(config)


def _check_tokens(config: ConfigDict) -> None:
    """Checks that no field is set, and no score is used, that does not fit tokens."""
    plain = config_lib.flatten(config_lib.default())
    given = config_lib.flatten(config)
    for reason, fields in NOT_FOR_TOKENS.items():
        for field in fields:
            if given[field] != plain[field]:
                raise ValueError(
                    f"config.{field}: expected {plain[field]!r} with data.name "
                    f"{config.data.name!r}, whose examples are tokens, {reason}, got "
                    f"{given[field]!r}; leave the field out"
                )
    for field in ("sparse.pai_score", "lottery.score"):
        score = config_lib.SCORES.get(given[field])
        if score and ("input_shape" in score.needs or score.name in OWN_INPUTS):
            raise ValueError(
                f"config.{field}: expected a score that is computed on examples or on "
                f"weights alone with data.name {config.data.name!r}, got "
                f"{score.name!r}, whose inputs are real numbers and not tokens; choose "
                "magnitude, random, snip or grasp"
            )
