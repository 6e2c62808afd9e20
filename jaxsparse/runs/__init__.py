"""Trains the run of a config from Python, and opens trained runs."""

from jaxsparse.runs.opening import LoadedRun, load
from jaxsparse.runs.training import run, train

__all__ = ("LoadedRun", "load", "run", "train")
