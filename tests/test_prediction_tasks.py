"""Networks and fields that do not fit what a dataset has to predict are refused."""

from pathlib import Path
from typing import Any

import pytest

from configs import dense_python_docs
from jaxsparse import config, factory
from jaxsparse.factory import TrainedRun, prediction

STATIC = {"sparse.method": "static", "sparse.sparsity": 0.5}
REFUSED = [
    ({"model.name": "lenet_300_100", "model.width": 16}, r"model\.name: .*next token"),
    ({"data.name": "digits", "data.context": 64}, r"model\.name: .*classes of images"),
    ({"data.image_size": 8}, r"data\.image_size: expected 0 .*tokens, which are not"),
    ({"data.downsample": 5}, r"data\.downsample: expected 1 "),
    ({"data.augment": "standard"}, r"data\.augment: expected 'custom' "),
    ({"data.crop_pad": 1}, r"data\.crop_pad: expected 0 "),
    ({"data.flip": True}, r"data\.flip: expected False "),
    ({"data.normalize": "scale"}, r"data\.normalize: expected 'standardize' "),
    ({"data.mean": (0.1,), "data.std": (0.1,)}, r"data\.mean: expected None "),
    ({"data.label_noise": 0.1}, r"data\.label_noise: expected 0\.0 .*no labels"),
    ({"instability.copies": 2}, r"instability\.copies: expected 0 .*analysis counts"),
    (
        {"instability.compare_levels": True, "lottery.levels": 1},
        r"instability\.compare_levels: expected False ",
    ),
    (STATIC | {"sparse.pai_score": "synflow"}, r"sparse\.pai_score: .*got 'synflow'"),
    (STATIC | {"sparse.pai_score": "phew"}, r"sparse\.pai_score: .*got 'phew'"),
    (STATIC | {"sparse.pai_score": "ntk_sap"}, r"sparse\.pai_score: .*got 'ntk_sap'"),
    (
        {"lottery.levels": 1, "lottery.score": "synflow"},
        r"lottery\.score: .*not tokens; choose magnitude",
    ),
    ({"tost.activation": "swish"}, r"tost\.activation"),
    ({"model.features": (8,)}, r"model\.features: expected None with model\.name"),
]


def recipe(fields: dict[str, Any]) -> Any:
    c = dense_python_docs.get_config("quick")
    c.update_from_flattened_dict(fields)
    return c


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda x: str(x)[:50])
def test_what_does_not_fit_tokens_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    c = recipe(fields)
    with pytest.raises(ValueError, match=r"config\." + message):
        config.validate(c)
        factory.check_names(c)


@pytest.mark.parametrize("score", ["magnitude", "random", "snip", "grasp"])
def test_other_scores_are_computed_on_tokens(score: str) -> None:
    c = recipe(STATIC | {"sparse.pai_score": score})
    config.validate(c)
    factory.check_names(c)


def test_the_context_is_a_field_of_texts_only() -> None:
    c = config.default()
    c.data.context = 32
    with pytest.raises(ValueError, match=r"data\.context: expected 64 with data\.name"):
        factory.check_names(c)


def test_scores_of_examples_need_classes() -> None:
    run = TrainedRun._make((Path(), recipe({}), None, None, None, None, 0))
    with pytest.raises(ValueError, match="forgetting: .*next token at each position"):
        factory.count_forgetting(run)
    prediction.check_classes(config.default(), "forgetting")


def test_heads_must_fit_the_width() -> None:
    c = recipe({"model.heads": 3})
    message = r"config\.model\.width: expected a multiple of 6, .*got 16"
    with pytest.raises(ValueError, match=message):
        factory.make_model(c, classes=256)
    c = config.default()
    c.model.name, c.model.width, c.model.heads = "vit_4", 10, 3
    with pytest.raises(ValueError, match=r"config\.model\.width: .*of 3, the number"):
        factory.make_model(c, classes=10)
