"""Files of masks."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import masks
from jaxsparse.lottery import tickets


def test_tickets_of_earlier_versions_hold_no_shapes_and_are_read(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 3, 2, 5), "b": (7, 4)}
    held = {
        name: {"kernel": jnp.asarray(rng.random(shape) < 0.3), "bias": None}
        for name, shape in shapes.items()
    }
    path = tickets.path_of(tmp_path, 1, 0)
    path.parent.mkdir(parents=True)
    bits = {f"{n}/kernel": np.packbits(held[n]["kernel"].reshape(-1)) for n in shapes}
    np.savez(path, **bits)
    like = jax.tree.map(jnp.ones_like, held)
    read = jax.tree.leaves(tickets.load(path, like))
    for got, wanted in zip(read, jax.tree.leaves(held), strict=True):
        np.testing.assert_array_equal(got, wanted)
    # What is written now holds them, and fits no other shape of as many weights.
    tickets.save(path, held)
    turned = {**like, "b": {"kernel": jnp.ones((4, 7), bool), "bias": None}}
    assert masks.size(turned) == masks.size(like)
    with pytest.raises(ValueError, match=r"b/kernel: expected shape .*got \(7, 4\)"):
        tickets.load(path, turned)


def test_leaves_of_a_ticket_may_have_any_name(tmp_path: Path) -> None:
    held = {"file": jnp.array([True, False, True]), "args": jnp.ones((2, 9), bool)}
    tickets.save(tmp_path / "a.npz", held)
    read = tickets.load(tmp_path / "a.npz", jax.tree.map(jnp.ones_like, held))
    for name, mask in held.items():
        np.testing.assert_array_equal(read[name], mask)


@pytest.mark.parametrize(
    ("level", "words"),
    [(0, "the initial masks are chosen again"), (1, "the trained weights are pruned")],
)
def test_a_damaged_ticket_says_what_can_be_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, level: int, words: str
) -> None:
    path = tickets.path_of(tmp_path, level, 0)
    path.parent.mkdir(parents=True)
    path.write_text("no masks")
    like = {"kernel": jnp.ones((2, 3), bool)}
    with pytest.raises(
        ValueError, match=rf"ticket {path}: expected .*; restore it, or"
    ):
        tickets.load(path, like)
    with caplog.at_level(logging.WARNING):
        assert tickets.load_level(tmp_path, level, like, replicates=1) is None
    assert words in caplog.text
