"""Measures how signals propagate through sparse networks at initialization.

    python experiments/signal_propagation.py

The protocol is that of a notebook of Evci et al. 2020; see
`experiments/studies/gradient_flow/signals.py`. The page, its table and figure go to
`--out`. Takes less than a minute on a CPU.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402

from experiments import command_line  # noqa: E402

_OUT = flags.DEFINE_string(
    "out", None, "folder to write to; default: experiments/results/gradient_flow"
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 10, "draws of masks, weights and inputs", lower_bound=2
)


def main(argv: Sequence[str]) -> None:
    """Measures, judges the claims, and writes the page.

    Args:
      argv: the command line, of which absl has parsed the flags.
    """
    del argv
    usual = ROOT / "experiments" / "results" / "gradient_flow"
    out = command_line.path(_OUT) or usual
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments.studies import report
    from experiments.studies import study as study_lib
    from experiments.studies.gradient_flow import signals

    section = signals.section(signals.measure(_REPEATS.value))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        report.write(section.title, [section], Path(folder))
        for path in Path(folder).iterdir():
            if path.suffix in study_lib.KEPT:
                shutil.copy(path, out / path.name)
    print(f"page: {out / section.name}.md")


if __name__ == "__main__":
    command_line.run(main)
