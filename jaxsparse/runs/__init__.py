"""Runs from Python: training what a config says, and opening what was trained."""

from jaxsparse.runs.opening import LoadedRun, load
from jaxsparse.runs.training import run, train

__all__ = ("LoadedRun", "load", "run", "train")
