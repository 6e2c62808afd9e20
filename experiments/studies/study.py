"""Study: the experiments of a paper, run again and compared with what it claims.

`experiments/reproduce.py` runs a study. Each study is a package whose `STUDY` consists
of three modules:

    variants  lists the runs: a recipe of `configs/`, and the fields that differ from it
    analysis  measures the runs that have ended
    report    judges the claims of the paper, and makes tables and figures
"""

import dataclasses
from pathlib import Path
from typing import Any, Protocol

from experiments.studies import report as report_lib
from experiments.studies.runs import Run


class Variants(Protocol):
    """Lists the runs of a study."""

    NETWORKS: tuple[str, ...]  # in the order of the report

    def of_network(self, network: str, scale: str) -> list[Run]:
        """Lists the runs of a network, those that others start from first.

        Args:
          network: one of `NETWORKS`.
          scale: one of `studies.SCALES`; a scale may have no runs of a network.
        """
        ...


class Analysis(Protocol):
    """Measures the runs of a study."""

    def measure(
        self, folder: Path, network: str, scale: str, data_dir: str
    ) -> dict[str, Any]:
        """Measures the runs of a network that have ended; {} if there are none.

        Args:
          folder: directory of all runs.
          network: one of the networks of the study.
          scale: one of `studies.SCALES`.
          data_dir: directory of prepared datasets; "" for the one in the configs.
        """
        ...


class Report(Protocol):
    """Reports on the measurements of a study."""

    def section(
        self, network: str, scale: str, found: dict[str, Any]
    ) -> report_lib.Section:
        """Makes the section of the report on a network.

        Args:
          network: one of the networks of the study.
          scale: one of `studies.SCALES`.
          found: the measurements; not empty.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
      description: one line for the command line.
      title: title of the report.
      variants: lists the runs.
      analysis: measures them.
      report: reports on the measurements.
    """

    description: str
    title: str
    variants: Variants
    analysis: Analysis
    report: Report

    @property
    def results(self) -> tuple[str, ...]:
        """Prefixes of the names of files that are kept as results."""
        return self.variants.NETWORKS

    def runs(self, scale: str) -> list[Run]:
        """Lists the runs of a scale, those that others start from first."""
        return [
            run
            for network in self.variants.NETWORKS
            for run in self.variants.of_network(network, scale)
        ]

    def finish(self, folder: Path, scale: str, data_dir: str) -> Path:
        """Measures the runs that have ended and writes the report.

        Args:
          folder: directory of all runs; the report goes to `report/` in it.
          scale: one of `studies.SCALES`.
          data_dir: directory of prepared datasets; "" for the one in the configs.

        Returns:
          The path of the page.
        """
        sections = []
        for network in self.variants.NETWORKS:
            found = self.analysis.measure(folder, network, scale, data_dir)
            if found:
                sections.append(self.report.section(network, scale, found))
        return report_lib.write(self.title, sections, folder / "report")
