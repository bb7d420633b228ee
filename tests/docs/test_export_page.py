"""docs/export.md is true: its commands, in a project with a trained network, print what the page shows."""

import json
import re
import shutil
import subprocess
from importlib.util import find_spec

import pytest
from documents import ROOT, commands, matches
from projects import environment, trained_project

PAGE = (ROOT / "docs/export.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return shutil.copytree(trained_project(tmp_path_factory), tmp_path_factory.mktemp("export") / "project")


def torch_is_there():
    return find_spec("torch") is not None


@pytest.mark.walk
def test_each_command_prints_what_the_page_shows(project):
    def call(command):
        return subprocess.run(
            command, shell=True, cwd=project, env=environment(COLUMNS="200"), capture_output=True, text=True
        )

    before = (project / "models/model.npz").read_bytes()
    tried = []
    for kind, block in BLOCKS:
        if "import torch" in block and not torch_is_there():
            block = WITHOUT_TORCH
        if kind == "python":
            (project / "example.py").write_text(block)
            result = call("python example.py")
            assert result.returncode == 0, result.stderr
        for command, shown in commands(block) if not kind else []:
            result = call(command)
            assert result.returncode == 0, (command, result.stdout, result.stderr)
            assert matches(without_figures(shown), without_figures(result.stdout)), (command, result.stdout)
            tried.append(command)
            if command.endswith("export/safetensors/model.safetensors"):
                assert (project / "models/model.npz").read_bytes() == before
    assert len(tried) == 11
    assert (project / "models/model.npz").read_bytes() == before  # dvc checkout has restored it
    lock = (project / "dvc.lock").read_text()
    assert "export@onnx:" in lock
    assert "export/onnx_bytes" not in lock
    metadata = json.loads(re.search(rb'\{"__metadata__":\{"network":("(?:[^"\\]|\\.)*")', read(project))[1])
    assert json.loads(metadata)["data"]["dataset"] == "digits"


def without_figures(text):
    """The page is about MNIST, this project about fewer images; tables get as wide as their numbers."""
    lines = re.sub(r"\d[\d.,]*\d|\d", "0", text).splitlines()
    return "\n".join(re.sub(r"[ \t─]+", " ", line).strip() for line in lines)


def read(project):
    return (project / "export/safetensors/model.safetensors").read_bytes()


# What PyTorch's example would save, without PyTorch
WITHOUT_TORCH = """
import numpy as np
from safetensors.numpy import save_file

rng = np.random.default_rng(0)
shapes = {"0.weight": (8, 1, 3, 3), "0.bias": (8,), "4.weight": (10, 1352), "4.bias": (10,)}
save_file({n: rng.normal(0, 0.1, s).astype(np.float32) for n, s in shapes.items()}, "theirs.safetensors")
"""
