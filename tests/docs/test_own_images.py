"""docs/your-own-images.md is true: each of its commands, in a copy of the project, prints what the page shows."""

import re
import subprocess

import pytest
from documents import ROOT, commands, matches
from projects import environment, make_project, set_params
from ruamel.yaml import YAML

PAGE = (ROOT / "docs/your-own-images.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def without_figures(text):
    """Figures of a trained network differ from one kind of processor to another."""
    return re.sub(r"\d[\d.]*", "0", text)


def test_the_page_has_commands():
    assert sum(len(list(commands(block))) for kind, block in BLOCKS if not kind) > 15


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = make_project(tmp_path_factory.mktemp("page") / "project")
    (folder / "docs").mkdir()
    (folder / "docs/shapes.py").write_text((ROOT / "docs/shapes.py").read_text())
    return folder


@pytest.mark.walk
def test_each_command_prints_what_the_page_shows(project):
    for kind, block in BLOCKS:
        if kind == "yaml":
            (section,) = YAML(typ="safe").load(block).items()
            set_params(project, {f"{section[0]}.{key}": value for key, value in section[1].items()})
        for command, shown in commands(block):
            result = subprocess.run(
                command, shell=True, cwd=project, env=environment(), capture_output=True, text=True
            )
            assert result.returncode == (1 if "Problems" in shown else 0), (command, result.stderr)
            printed = result.stdout
            if command.startswith("dvc exp run"):
                shown, printed = without_figures(shown), without_figures(printed)
            assert matches(shown, printed), (command, result.stdout)
    assert (project / "seen/1-square00.png").exists()
