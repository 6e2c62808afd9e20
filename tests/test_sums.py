"""Sums are right on whatever version of JAX there is, once jaxsparse is imported."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from helpers.campaigns import some

import jaxsparse

# Empty: for no fusion type.
FLAG = "--xla_cpu_experimental_ynn_fusion_type="
# What jaxlib 0.10.2 gets wrong by itself.
SUMS = """
import jaxsparse
import jax, jax.numpy as jnp, numpy as np
def f(rows):
    return jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(rows)
i = np.arange(32769, dtype=np.float32)
rows = np.stack((i, 0 * i, 0 * i), axis=1)
found = np.asarray(jax.jit(f)(rows))
np.testing.assert_array_equal(found, i * i)
"""


@pytest.mark.parametrize("first", some(["", "import jax\n"], always=["import jax\n"]))
def test_sums_are_right(root: Path, first: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", first + SUMS],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("version", "before", "after"),
    [
        ("0.10.2", "", FLAG),
        ("0.10.2", "--xla_a=1", f"--xla_a=1 {FLAG}"),
        ("0.10.2", "--xla_cpu_experimental_ynn_fusion_type=", None),
        ("0.10.1", "", None),
        ("0.12.0", "--xla_a=1", None),
    ],
)
def test_the_flag_is_set_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, version: str, before: str, after: str | None
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    monkeypatch.setenv("XLA_FLAGS", before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX has computed long since
        importlib.reload(jaxsparse)
    assert os.environ["XLA_FLAGS"] == (before if after is None else after)


def test_too_late_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    jax.devices()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.2")
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.warns(
        UserWarning, match=r"jaxlib 0\.10\.2 computes some sums incorrectly"
    ):
        importlib.reload(jaxsparse)
