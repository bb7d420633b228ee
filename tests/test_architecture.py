"""The house: who may import whom, what dvc.yaml must list, and that shapes are as the signatures say."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
FLOORS = ["cnn.ops", "cnn.layers", "cnn.training", "pipeline"]  # each may import those before it
SOURCES = sorted([*ROOT.glob("cnn/**/*.py"), *ROOT.glob("pipeline/**/*.py")])


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module):
    return next((i for i, name in enumerate(FLOORS) if module == name or module.startswith(f"{name}.")), None)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_import_goes_upward(path):
    own = floor(module_name(path))
    for imported in imports(path):
        if own is not None and floor(imported) is not None:
            assert floor(imported) <= own, f"{module_name(path)} imports {imported}"
        if path.is_relative_to(ROOT / "cnn"):
            assert not imported.startswith("pipeline"), imported


@pytest.mark.parametrize("path", sorted(ROOT.glob("cnn/**/*.py")), ids=module_name)
def test_cnn_imports_nothing_from_outside_but_numpy_and_jaxtyping(path):
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert outside <= {"cnn", "numpy", "jaxtyping"}


def test_only_figures_imports_matplotlib():
    users = [p.name for p in SOURCES if any(name.split(".")[0] == "matplotlib" for name in imports(p))]
    assert users == ["figures.py"]


STAGES = ["fetch", "preprocess", "train", "evaluate", "report"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_just_the_code_that_it_imports(stage):
    """pipeline files one by one; of cnn, the files that stand for themselves, or the whole package."""
    found, waiting = set(), [ROOT / f"pipeline/stages/{stage}.py"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        candidates = [ROOT / (name.replace(".", "/") + ".py") for name in imports(path)]
        waiting += [p for p in candidates if p.exists() and p.is_relative_to(ROOT / "pipeline")]
    needed = {str(path.relative_to(ROOT)) for path in found}
    used = {name for path in found for name in imports(path) if name.split(".")[0] == "cnn"}
    alone = {f"cnn/{name.split('.')[1]}.py" for name in used if "." in name}
    needed |= alone if alone <= {"cnn/atomic.py", "cnn/checkpoint.py"} and "cnn" not in used else {"cnn"}
    deps = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"][stage]["deps"]
    assert {dep for dep in deps if dep.startswith(("pipeline", "cnn")) and "/templates/" not in dep} == needed
    assert deps == sorted(deps)
    others = {f"pipeline/stages/{other}.py" for other in STAGES if other != stage}
    assert not needed & others, "stages never import each other"


def test_arrays_have_the_shapes_that_signatures_promise():
    """The layers' contract tests, with every jaxtyping annotation in cnn checked at run time by beartype."""
    tests = ["test_conv2d.py", "test_pooling.py", "test_layers.py", "test_losses.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "definition or differences or dtype or round_trip"]
    # the option: an int may stand for a float
    checker = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    result = subprocess.run(
        [*command, f"--jaxtyping-packages=cnn,{checker}", *tests],
        cwd=ROOT / "tests/cnn",
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
