"""Study: the experiments of a paper, run again and compared with what it claims.

`experiments/reproduce.py` runs a study. A study is a package or a module with `STUDY`,
which names three functions:

    runs     lists the runs of a setting: a recipe of `configs/`, and the fields that
             differ from it
    measure  measures one run when it has ended, the only time its weights are read
    section  judges the claims of the paper on the measurements of all runs of a
             setting, and makes tables and figures
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.studies import records
from experiments.studies import report as report_lib
from experiments.studies.run_reader import Reader
from experiments.studies.runs import Run

Measured = Mapping[str, Mapping[str, Any]]  # by run, without the name of the setting
Measure = Callable[[Reader, Callable[[str], Reader]], dict[str, Any]]
KEPT = (".md", ".csv", ".png")  # files of a report that are kept
Section = Callable[[str, str, Measured], report_lib.Section | None]


@dataclasses.dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
      name: its package.
      description: one line for the command line.
      title: title of the report.
      settings: the settings, each a dataset with a network, in the order of the
        report. Names of runs begin with them.
      runs: called with a setting and a scale, one of `studies.SCALES`; lists the runs,
        those that others start from first. A scale may have no runs of a setting.
      measure: called with a run that has ended, and a function that opens others of the
        same study by name; returns the measurements that are kept.
      section: called with a setting, a scale and the measurements of its runs; makes
        the section of the report, with judged claims, or returns None if these runs
        alone show nothing.
      paper: authors and year of the papers with the claims; "" without claims.
      version: version of `measure`; raised when what it computes changes, so that runs
        are measured again.
    """

    name: str
    description: str
    title: str
    settings: Sequence[str]
    runs: Callable[[str, str], list[Run]]
    measure: Measure
    section: Section
    paper: str = ""
    version: int = 1

    def all_runs(self, scale: str) -> list[Run]:
        """Lists the runs of a scale, those that others start from first.

        Args:
          scale: one of `studies.SCALES`.
        """
        return [run for setting in self.settings for run in self.runs(setting, scale)]

    def report(self, scale: str, kept: Path, folder: Path) -> Path:
        """Writes the report on the runs that have been measured.

        Args:
          scale: one of `studies.SCALES`.
          kept: directory of the measurements.
          folder: directory to write into.

        Returns:
          The path of the page.
        """
        sections = []
        for setting in self.settings:
            listed = self.runs(setting, scale)
            found = records.load_all(kept, listed, self.version)
            if found:
                short = {
                    name.removeprefix(f"{setting}_"): record.measured
                    for name, record in found.items()
                }
                section = self.section(setting, scale, short)
                if section is None:
                    continue
                missing = [run.name for run in listed if run.name not in found]
                command = f"python experiments/reproduce.py --study={self.name}"
                made = f"Made by `{command} --scale={scale} --data_dir=DIR`."
                lines = [
                    *section.lines,
                    f"{made} {records.describe([*found.values()])}".strip(),
                    *_about_missing(missing, len(listed)),
                ]
                sections.append(section._replace(lines=lines))
        return report_lib.write(self.title, sections, folder)

    def keep_report(self, scale: str, folder: Path, kept: Path) -> Path:
        """Writes the report, and copies its pages, tables and PNG figures.

        Args:
          scale: one of `studies.SCALES`.
          folder: directory to write into.
          kept: directory to copy to, with the measurements in `records`. Files of an
            earlier report that this one does not have are deleted.

        Returns:
          The path of the page.
        """
        page = self.report(scale, kept / "records", folder)
        wanted = {path.name for path in folder.iterdir() if path.suffix in KEPT}
        for path in kept.iterdir():
            if path.suffix in KEPT and path.name not in wanted:
                path.unlink()
        for name in wanted:
            shutil.copy(folder / name, kept / name)
        return page


def _about_missing(names: Sequence[str], total: int) -> list[str]:
    """Says which runs of a setting have not been measured; [] if none are missing."""
    if not names:
        return []
    return [
        f"Of {total} runs of this setting, {total - len(names)} are measured. With "
        "the others, verdicts may change, since p-values are corrected over all claims "
        "that can be judged. Not measured: "
        f"{', '.join(f'`{name}`' for name in names)}."
    ]
