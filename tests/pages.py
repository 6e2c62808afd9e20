"""Code, commands and names in the Markdown pages of the project."""

import itertools
import re
import shlex
from pathlib import Path

RECIPE = re.compile(r"configs/(?:\w|\{\w+(?:,\w+)+\})+\.py")
FIELD = re.compile(r"config\.(\w+(?:\.\w+)*)")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(page: Path, script: str) -> list[list[str]]:
    """The arguments of every command of a page that runs a script of experiments/."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    found = [re.search(rf"experiments/{script} ([^\"|&#]*)", line) for line in lines]
    return [shlex.split(match[1]) for match in found if match]


def prose(page: Path) -> str:
    """The text of a page outside its code blocks, without line breaks."""
    text = page.read_text(encoding="utf-8")
    return " ".join(re.sub(r"```.*?```", "", text, flags=re.DOTALL).split())


def recipes(page: Path) -> list[str]:
    """The config files that a page names, with {a,b} expanded as a shell does."""
    text = page.read_text(encoding="utf-8")
    return [path for name in RECIPE.findall(text) for path in expand(name)]


def expand(pattern: str) -> list[str]:
    """Expands {a,b} as a shell does."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def fields(page: Path, sections: set[str]) -> set[str]:
    """The config fields that a page names, in commands and in `code` of its prose.

    Args:
      page: the page.
      sections: names of the sections of a config.
    """
    text = page.read_text(encoding="utf-8")
    named = {name for name in FIELD.findall(text) if name.split(".")[0] in sections}
    for code in re.findall(r"`([^`]+)`", prose(page)):
        found = re.match(r"(\w+)\.(\w+)(?: = (?:\"[^\"]*\"|\d+))?$", code)
        if found and found[1] in sections:
            named.add(f"{found[1]}.{found[2]}")
    return named


def links(page: Path) -> list[str]:
    """The files that a page links to."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    files = (target.partition("#")[0] for target in targets if "://" not in target)
    return [file for file in files if file]
