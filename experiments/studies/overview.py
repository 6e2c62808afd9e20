"""Tables over the claims of all papers, on the page of all results.

They are made from the tables of claims of the studies' reports.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.studies import claims as claims_lib
from experiments.studies.study import Study
from jaxsparse import metrics_log
from jaxsparse.reports import formatting

# Columns by scale, in their order.
SCALES = {
    "full": "Scale `full`, as published",
    "cifar16": "Scale `cifar16`: ResNet-8",
    "cpu": "Scale `cpu`: LeNets",
}
# Names of settings at the scale `cpu`, where a study may have several.
SETTINGS = {
    "mnist": "LeNet-300-100, MNIST",
    "mlp": "LeNet-300-100, MNIST",
    "lenet": "LeNet-5, MNIST",
    "cifar": "LeNet-5, CIFAR-10",
}
_PART = re.compile(r"(?<=<!-- claims -->\n).*(?=<!-- end of claims -->)", re.DOTALL)


def read(study: Study, scale: str, results: Path) -> pd.DataFrame:
    """Reads the claims of a study as its report at one scale judges them.

    Args:
      study: the study.
      scale: one of `SCALES`.
      results: directory of the results of all studies.

    Returns:
      A row of text for each setting and claim, with the columns of `claims.row` and
      "setting"; empty if the study has no report at this scale.
    """
    frames = [
        pd.read_csv(path, keep_default_na=False).assign(setting=setting)
        for setting in study.settings
        if (path := results / study.name / scale / f"{setting}_claims.csv").exists()
    ]
    found = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return found.astype(str)


def of_claims(studies: Sequence[Study], results: Path) -> pd.DataFrame:
    """Makes the table that has a row for each claim.

    Args:
      studies: the studies, in the order of the rows.
      results: directory of the results of all studies.

    Returns:
      Text: the paper, the claim, what was published, and a column for each scale that
      some study has; "not measured" where no setting of the scale has a verdict.
    """
    rows = []
    for study in studies:
        found = {scale: read(study, scale, results) for scale in SCALES}
        found = {scale: frame for scale, frame in found.items() if len(frame)}
        frames = list(found.values())
        names = [name for frame in frames for name in frame["claim"]]
        for name in dict.fromkeys(names):
            of = {s: frame[frame["claim"] == name] for s, frame in found.items()}
            published = next(f["published"].iloc[0] for f in of.values() if len(f))
            rows.append(
                {"Paper": study.paper, "Claim": name, "Published": published}
                | {SCALES[scale]: _cell(frame, scale) for scale, frame in of.items()}
            )
    return _in_order(pd.DataFrame(rows).fillna("not measured"), 3)


def of_verdicts(studies: Sequence[Study], results: Path) -> pd.DataFrame:
    """Counts the verdicts of each paper and scale.

    Args:
      studies: the studies, in the order of the rows.
      results: directory of the results of all studies.

    Returns:
      Text: a row for each study and scale that has claims, a column for each verdict.
    """
    rows = []
    for study in studies:
        for scale, heading in SCALES.items():
            found = read(study, scale, results)
            if len(found):
                plain = found["verdict"].str.removesuffix(claims_lib.SHORT_MARK)
                counts = plain.value_counts()
                verdicts = {v: str(counts.get(v, 0)) for v in claims_lib.VERDICTS}
                rows.append({"Paper": study.paper, "Scale": heading} | verdicts)
    return pd.DataFrame(rows)


def write(studies: Sequence[Study], results: Path) -> bool:
    """Writes both tables into the page of all results, between its two comments.

    Args:
      studies: the studies, in the order of the rows.
      results: directory of the results of all studies, with `README.md`.

    Returns:
      Whether there is such a page.
    """
    path = results / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not _PART.search(text):
        return False
    tables = (of_verdicts(studies, results), of_claims(studies, results))
    content = "\n" + "\n".join(formatting.markdown(table) for table in tables) + "\n"
    metrics_log.write_atomically(path, _PART.sub(lambda _: content, text))
    return True


def _cell(frame: pd.DataFrame, scale: str) -> str:
    """Formats what one scale says of a claim."""
    titles = SETTINGS if scale == "cpu" else {}
    measured = frame[frame["verdict"] != claims_lib.NOT_MEASURED]
    parts = []
    for one in measured.itertuples():
        name = titles.get(one.setting, one.setting if len(measured) > 1 else "")
        found = [one.ours, one.effect, f"n = {float(one.n):.0f}"]
        words = f"**{one.verdict}**: {'; '.join(found)}"
        parts.append(f"{name}: {words}" if name else words)
    return "<br>".join(parts) or claims_lib.NOT_MEASURED


def _in_order(table: pd.DataFrame, kept: int) -> pd.DataFrame:
    """Orders the columns of scales; the first `kept` columns stay."""
    listed = [name for name in SCALES.values() if name in table.columns]
    return table[[*table.columns[:kept], *listed]]
