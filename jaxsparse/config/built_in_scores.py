"""Registers the scores of the package.

As in `built_in`, functions are registered by name and imported on use.
"""

from jaxsparse.config.registering import register_score

_SCORES = "jaxsparse.factory.score_functions:"

register_score(
    "random",
    f"{_SCORES}random",
    needs=("key",),
    label="random",
    distribution="erk",
    varies=False,
)
register_score("magnitude", "jaxsparse.scores:magnitude", label="magnitude at init")
register_score("snip", f"{_SCORES}snip", needs=("loss", "batches"), label="SNIP")
register_score("grasp", f"{_SCORES}grasp", needs=("loss", "batches"), label="GraSP")
register_score(
    "grasp_absolute",
    f"{_SCORES}grasp_absolute",
    needs=("loss", "batches"),
    label="GraSP |.|",
)
register_score(
    "synflow", f"{_SCORES}synflow", needs=("apply", "input_shape"), label="SynFlow"
)
register_score(
    "ntk_sap",
    f"{_SCORES}ntk_sap",
    needs=("apply_train", "batches", "key"),
    label="NTK-SAP",
)
register_score(
    "phew",
    f"{_SCORES}phew",
    needs=("apply", "input_shape", "key"),
    label="PHEW",
    varies=False,
)
register_score("wanda", f"{_SCORES}wanda", needs=("apply", "batches"), label="Wanda")
