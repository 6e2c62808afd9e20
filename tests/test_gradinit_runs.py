"""GradInit in runs: factors are written, and training starts from what they scale.

Nothing here trains: runs are made up to the state that training begins with.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import tiny, tost_runs
from helpers.tost_runs import MLP, RESCALED, SPARSE, begun, make, named

from jaxsparse import masks as masks_lib
from jaxsparse import transforms
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.tost import ghost_skips

pytestmark = pytest.mark.keys_used_once


@pytest.fixture(autouse=True, scope="module")
def enlarged() -> Iterator[None]:
    with tost_runs.enlarged():
        yield


def test_rescaling_is_written_and_starts_from_masked_weights(tmp_path: Path) -> None:
    folder, fields = tmp_path / "two", MLP | RESCALED
    made = make(folder, fields | {"replicates": 2})
    state = begun(folder, made)
    written = (folder / "gradinit.json").read_text()
    rows = json.loads(written)
    init = SavedStates(made, tiny.desk(folder)).init
    kept = transforms.get_masks(state.opt_state)
    masked = dict(zip(masks_lib.names(kept), jax.tree.leaves(kept), strict=True))
    first = named(init)
    assert len(rows) == 2
    for name, leaf in named(state).items():
        for r, row in enumerate(rows):
            wanted = np.asarray(first[name][r]) * np.float32(row["factors"][name])
            if name in masked:
                wanted = np.where(masked[name][r], wanted, np.float32(0))
            np.testing.assert_array_equal(leaf[r], wanted)
    assert masks_lib.num_active(kept) * 2 == masks_lib.size(kept)
    # Going on reads the factors, and learns none anew.
    learn = made.task.start._replace(rescale=lambda *args: pytest.fail("learned again"))
    task = made.task._replace(start=learn)
    again = begun(folder, made._replace(task=task))
    tiny.check_equal(again.params, state.params)
    assert (folder / "gradinit.json").read_text() == written
    for row in rows:
        assert len(row["objective"]) == len(row["constrained"]) == 3
        assert sorted(row["factors"]) == sorted(first)
    assert rows[0]["factors"] != rows[1]["factors"]
    # Orders of batches are the replicate's own, whatever others there are.
    begun(tmp_path / "one", make(tmp_path / "one", fields))
    (alone,) = json.loads((tmp_path / "one" / "gradinit.json").read_text())
    np.testing.assert_allclose(alone["objective"], rows[0]["objective"], rtol=1e-5)


def test_a_file_of_other_factors_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = make(folder, MLP | RESCALED | {"replicates": 2})
    names = list(named(SavedStates(made, tiny.desk(folder)).init))
    whole = {"factors": dict.fromkeys(names, 1.5)}
    short = {"factors": dict.fromkeys(names[1:], 1.5)}
    more = {"factors": whole["factors"] | {"other": 1.5}}
    remedy = ".*restore it, or begin anew"
    for rows, message in (
        ([whole], "expected the factors of 2 replicates, got those of 1"),
        ([whole] * 3, "expected the factors of 2 replicates, got those of 3"),
        ([whole, short], rf"replicate 1: expected .*got none for \['{names[0]}'\]"),
        ([more, whole], r"replicate 0: expected .*and some for \['other'\]"),
        ([{"factors": 3}], "expected a list with the factors of each"),
        ([{"factors": {names[0]: "x"}}], "expected a list with the factors of each"),
        ([whole, {"factors": {n: None for n in names}}], "expected a list with the f"),
        ({"factors": {}}, "expected a list with the factors of each"),
    ):
        (folder / "gradinit.json").write_text(json.dumps(rows))
        with pytest.raises(ValueError, match=rf"gradinit\.json: {message}{remedy}"):
            begun(folder, made)
    (folder / "gradinit.json").write_text(json.dumps([whole, whole]))
    begun(folder, made)


@pytest.mark.campaign  # second derivatives of convolutions take a minute
def test_ghost_skips_change_no_factor(tmp_path: Path) -> None:
    found = []
    for kind in (None, "convolution"):
        more = {"tost.skips": kind, "tost.activation": "mish"}
        folder = tmp_path / str(kind)
        begun(folder, make(folder, SPARSE | RESCALED | more))
        found += json.loads((folder / "gradinit.json").read_text())
    plain, haunted = (row["factors"] for row in found)
    ghosts = {name: f for name, f in haunted.items() if ghost_skips.is_ghost(name)}
    assert len(ghosts) == 3 and set(ghosts.values()) == {1.0}
    for name, factor in plain.items():
        np.testing.assert_allclose(haunted[name], factor, rtol=1e-4)
        assert factor != 1.0 or name.endswith("bias")


def test_what_is_trained_though_masked_keeps_its_weights(tmp_path: Path) -> None:
    fields = {
        "sparse.method": "top_kast",
        "sparse.sparsity": 0.9,
        "sparse.backward_sparsity": 0.5,
    }
    made = make(tmp_path / "a", MLP | fields | RESCALED)
    state = begun(tmp_path / "a", made)
    init = SavedStates(made, tiny.desk(tmp_path / "a")).init.params
    for layer, first in init.items():
        kernel = state.params[layer]["kernel"]
        np.testing.assert_array_equal(kernel != 0, first["kernel"] != 0)
