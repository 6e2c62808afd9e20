"""The pages name what exists: scripts, flags, recipes, fields, files and modules."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
from test_import_layers import LAYERS

from experiments import studies
from experiments.sweeping import points
from jaxsparse import config

PAGES = ("README.md", "experiments/README.md", "jaxsparse/README.md")
REGISTRIES = config.REGISTRIES


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, root: Path) -> Path:
    return root / request.param


@pytest.fixture
def registered(page: Path) -> Iterator[None]:
    """Registers the network of the extension guide, whose options are config fields."""
    if page.parent.name == "jaxsparse":
        for code in pages.blocks(page, "python"):
            if "register_model" in code:
                exec(code, {})
    yield
    for registry in REGISTRIES:
        for spec in registry.own():
            registry.remove(spec.name)


def scripts(root: Path) -> dict[str, str]:
    sources = {
        path.name: path.read_text(encoding="utf-8")
        for path in (root / "experiments").glob("*.py")
    }
    return {name: s for name, s in sources.items() if 'if __name__ == "__main__"' in s}


@pytest.mark.parametrize("script", ["train", "sweep"])
def test_recipes_and_fields_of_commands_exist(page: Path, script: str) -> None:
    for arguments in pages.commands(page, f"{script}.py"):
        if "--config=my.py" in arguments:
            continue
        given = [argument.removeprefix("--").partition("=") for argument in arguments]
        named = lambda name: [v for n, _, v in given if n == name]  # noqa: B023, E731
        fixed = [
            f"{name.removeprefix('config.')}={value}"
            for name, _, value in given
            if name.startswith("config.")
        ]
        assert points.make(named("config"), named("vary"), fixed, seeds=1)


def test_flags_of_commands_exist(page: Path, root: Path) -> None:
    for script, text in scripts(root).items():
        known = set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text))
        known |= set(re.findall(r"command_line\.(data_dir|seeds|workdir)\(", text))
        known |= {f"no{name}" for name in known}
        for arguments in pages.commands(page, script):
            flags = [a for a in arguments if a.startswith("--")]
            names = {flag.removeprefix("--").partition("=")[0] for flag in flags}
            assert {name.partition(".")[0] for name in names} <= known, arguments


def test_recipes_exist(page: Path, root: Path) -> None:
    assert [name for name in pages.recipes(page) if not (root / name).exists()] == []


@pytest.mark.usefixtures("registered")
def test_config_fields_exist(page: Path) -> None:
    default = config.default()
    known = config.flatten(default)
    sections = {name.partition(".")[0] for name in known if "." in name}
    named = pages.fields(page, sections | {"replicates"})
    # `data.augment.normalize`, a function, begins like a field.
    named -= {name for name in named if name.rpartition(".")[0] in known}
    assert named <= {*known, *sections}


def test_linked_files_exist(page: Path) -> None:
    links = [link for link in pages.links(page) if not (page.parent / link).exists()]
    assert links == []


def test_every_script_is_explained(root: Path) -> None:
    page = root / "experiments" / "README.md"
    text = page.read_text(encoding="utf-8")
    for script in scripts(root):
        assert f"[`{script}`](#" in text, script
        assert pages.commands(page, script), script
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= anchors


def test_every_flag_of_a_sweep_is_explained(root: Path) -> None:
    text = (root / "experiments" / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", scripts(root)["sweep.py"])
    assert names
    for name in names:
        assert f"`--{name}`" in text, name


def test_every_study_is_explained(root: Path) -> None:
    page = root / "experiments" / "README.md"
    given = {arguments[0] for arguments in pages.commands(page, "reproduce.py")}
    assert given == {f"--study={name}" for name in (*studies.NAMES, "all")}
    for name in studies.NAMES:
        assert f"| `{name}` |" in page.read_text(encoding="utf-8")


def test_the_map_is_the_package_in_the_order_of_imports(root: Path) -> None:
    text = (root / "jaxsparse" / "README.md").read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\| (`.*?`) \|", text, flags=re.MULTILINE)]
    named = [re.findall(r"`(\w+)`", row) for row in rows]
    flat = [name for row in named for name in row]
    there = {
        path.stem
        for path in (root / "jaxsparse").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert sorted(flat) == sorted(there - {"__init__"})
    layer = {name: i for i, names in enumerate(LAYERS) for name in names}
    heights = [{layer[name] for name in row} for row in named]
    assert all(len(height) == 1 for height in heights)
    assert [max(height) for height in heights] == sorted(map(max, heights))


@pytest.mark.parametrize("name", PAGES[:2])
def test_commands_for_many_hosts_reach_what_they_are_for(
    name: str, root: Path, tmp_path: Path
) -> None:
    many = [
        block
        for block in pages.blocks(root / name, "bash")
        if "gcloud" in block or "sbatch" in block
    ]
    if not many and name == "README.md":
        return
    # Programs that are not here: ssh runs no command, but has bash read it.
    programs = {
        "gcloud": 'case "$*" in *" ssh "*) bash -n -c "${!##--command=}";; esac\n',
        "sbatch": 'SLURM_JOB_ID=7 bash -c "${!#}"\n',
        "srun": "exit 75\n",  # stopped by a notice
        "scontrol": "",
    }
    log = tmp_path / "log"
    for program, body in programs.items():
        (tmp_path / program).write_text(
            f'#!/usr/bin/env bash\nset -e\necho "{program} $*" >> {log}\n{body}'
        )
        (tmp_path / program).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    for block in many:
        subprocess.run(
            ["bash", "-e", "-c", block], env=os.environ | {"PATH": path}, check=True
        )
    lines = log.read_text().splitlines()
    workers = [re.search(r"--worker=(\w+)", line) for line in lines]
    assert [found[1] for found in workers if found] == ["all", "all", "0", "all", "0"]
    assert lines[-1] == "scontrol requeue 7"
    assert [line.split()[0] for line in lines[-3:-1]] == ["sbatch", "srun"]
