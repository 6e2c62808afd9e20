"""Commands that run in forks of one process, which imports once what they all need."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

# Forks are made before JAX has threads.
DRIVER = """
import importlib, json, os, runpy, sys

class NoJax:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            print("imported JAX", file=sys.stderr, flush=True)
            os._exit(99)

commands, imports = json.loads(sys.argv[1])
if imports:
    for name in imports:
        importlib.import_module(name)
else:
    sys.meta_path.insert(0, NoJax())
import experiments.command_line, experiments.config_arguments  # once, not in each fork
for words in commands:
    sys.stderr.flush(), sys.stdout.flush()
    child = os.fork()
    if not child:
        os.dup2(1, 2)
        sys.argv = words
        sys.path.insert(0, os.path.dirname(words[0]))
        runpy.run_path(words[0], run_name="__main__")
    print("code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run_all(
    root: Path, commands: list[list[str]], *imports: str, **variables: str
) -> list[tuple[list[str], int]]:
    """Runs commands; returns the lines and the exit code of each.

    Args:
      root: the folder of the project.
      commands: words of each command, the script first.
      *imports: modules that are imported before; without any, JAX must not be imported,
        and ends the command with exit code 99.
      **variables: variables of the environment.
    """
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([commands, imports])],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)} | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, lines = [], []
    for line in done.stdout.splitlines():
        if re.fullmatch(r"code -?\d+", line):
            found.append((lines, int(line.partition(" ")[2])))
            lines = []
        else:
            lines.append(line)
    return found
