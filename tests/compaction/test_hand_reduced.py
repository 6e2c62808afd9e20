"""The shared cases, reduced by hand, where they exist beside the repository."""

import importlib.util
from pathlib import Path

import jax
import pytest

from jaxsparse import compaction


@pytest.mark.campaign
def test_networks_reduced_by_hand(root: Path) -> None:
    paths = [parent / "shared" / "cases" / "compaction.py" for parent in root.parents]
    path = next(filter(Path.exists, paths), None)
    if path is None:
        pytest.skip("there are no shared cases")
    spec = importlib.util.spec_from_file_location("hand_reduced", path)
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    with jax.numpy_rank_promotion("allow"):
        verdicts = cases.judge(compaction.compact)
    assert len(verdicts) >= 12
    assert set(verdicts.values()) == {"right"}, verdicts
