"""The architecture: which imports are allowed, what dvc.yaml must list, and shapes as in the signatures."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from dvc.repo import Repo
from importlinter.cli import lint_imports
from ruamel.yaml import YAML
from tqdm import tqdm

from pipeline.formats.extra import EXPORT
from pipeline.stages import resume

tqdm.monitor_interval = 0  # DVC's bars start no thread, beside which later tests could not fork

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("cnn/**/*.py"), *ROOT.glob("pipeline/**/*.py")])
STAGES = {
    name: stage.get("do", stage)  # of a stage for each item of a list
    for name, stage in YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"].items()
}

# Modules that stages import, and that cannot change their outputs.
NO_EFFECT = {
    "pipeline.cores": STAGES,  # any number of them gives the same bits
    "pipeline.errors": STAGES,  # messages
    "pipeline.device": ["report", "export"],  # only for its names in params
    "pipeline.paths": STAGES,  # dvc.yaml has the outputs' paths, too
    "pipeline.ranks": STAGES,  # any number of them gives the same bits, too
    "pipeline.data.catalogue": [
        "train",
        "evaluate",
        "report",
        "export",
    ],  # only for a dataset's name in params
    "pipeline.data.dataset": ["train", "evaluate", "report", "export"],  # only for names and types
    "pipeline.data.progress": STAGES,  # a bar
    "pipeline.stages.live": ["train"],  # a page beside the results
    "pipeline.curves": ["train"],
    "pipeline.data.readers": ["fetch"],  # a dataset names its reader, but they do not call it
}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in SOURCES}


def imports(path):
    """The names that a file imports, except those for type checkers alone."""
    waiting = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            waiting += ast.iter_child_nodes(node)


def imported_modules(path):
    """The project's modules that a file imports; for a name inside a module, that module."""
    for name in imports(path):
        module = name if name in MODULES else name.rpartition(".")[0]
        if module in MODULES:
            yield module
    if module_name(path) == "pipeline.data.catalogue":  # it finds its modules at run time
        yield from (name for name in MODULES if name.startswith("pipeline.data.catalogue."))


def needed(stage):
    """The files of all modules that can change what a stage writes."""
    found, waiting = set(), [f"pipeline.stages.{stage}"]
    while waiting:
        module = waiting.pop()
        without = [name for name, stages in NO_EFFECT.items() if stage in stages]
        if module not in found and not any(f"{module}.".startswith(f"{name}.") for name in without):
            found.add(module)
            waiting += imported_modules(MODULES[module])
    return {str(MODULES[module].relative_to(ROOT)) for module in found}


def test_imports_keep_the_contracts_in_pyproject(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True, no_logo=True) == 0


@pytest.mark.parametrize("path", sorted(ROOT.glob("cnn/**/*.py")), ids=module_name)
def test_cnn_imports_nothing_from_outside_but_numpy_and_jaxtyping(path):
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert outside <= {"cnn", "numpy", "jaxtyping"}


def test_layers_losses_and_optimizers_leave_the_creation_of_arrays_to_ops():
    """So that arrays are where the others are; those of constructors are moved later, with the layer."""
    paths = [*ROOT.glob("cnn/layers/*.py"), *ROOT.glob("cnn/engine/fused*.py")]
    paths += [ROOT / f"cnn/{name}.py" for name in ("losses", "optimizers", "moving_average", "clipping")]
    for_the_host = {"place", "predict"}  # of all layers
    found = {
        f"{path.name}: {function.name}"
        for path in paths
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef) and function.name not in {"__init__", *for_the_host}
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in {f"np.{name}" for name in ("empty", "zeros", "ones", "full", "arange")}
    }
    assert found == set()


def test_pyproject_lists_what_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = ("pipeline", "cuda", "export", "mpi", "search", "serve")
    requirements = [*project["dependencies"], *(line for extra in wanted for line in extras[extra])]
    listed = {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
    packages = {name.split(".")[0] for path in SOURCES for name in imports(path)}
    known = {"cnn", "pipeline", "pydantic_core", *sys.stdlib_module_names}  # pydantic pins its core
    provided_by = {"cupy": ["cupy-cuda12x"]} | packages_distributions()  # CuPy may be missing
    assert {p for p in packages - known if not listed & {d.lower() for d in provided_by[p]}} == set()


def test_only_figures_imports_matplotlib():
    users = [p.name for p in SOURCES if any(name.split(".")[0] == "matplotlib" for name in imports(p))]
    assert users == ["figures.py"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_can_change_its_outputs_and_on_no_other(stage):
    deps = STAGES[stage]["deps"]
    code = [dep for dep in deps if dep.startswith(("cnn", "pipeline"))]
    files = needed(stage)

    def covered(dep):
        return {file for file in files if fnmatch(file, dep) or file.startswith(f"{dep}/")}

    assert files - set().union(*map(covered, code)) == set(), "not listed"
    assert [dep for dep in code if not covered(dep)] == [], "not needed"
    assert deps == sorted(deps)


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A copy of the project with all stages up to date for DVC; each output is a file of a few bytes."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("cnn", "pipeline"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "architectures.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "data").mkdir()
    shutil.copy(ROOT / "data/README.md", folder / "data")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    with pytest.MonkeyPatch.context() as patch, Repo(folder) as repo:
        patch.chdir(folder)
        for out in repo.index.outs:
            path = Path(out.fs_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made")
        repo.commit(force=True)
        assert repo.status() == {}
    return folder


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("cnn/optimizers.py", {"train", "evaluate", "report"}),
        ("pipeline/config/params.py", {"train", "evaluate", "report"}),
        ("pipeline/data/catalogue/mnist.py", {"fetch", "preprocess"}),
        ("pipeline/data/catalogue/one_more.py", {"fetch", "preprocess"}),  # seconds; nothing trains again
        ("pipeline/data/readers/idx.py", {"preprocess"}),
        ("pipeline/data/own.py", {"preprocess"}),
        ("data/README.md", {"preprocess"}),  # stands in for own images
        ("pipeline/data/sources.py", {"fetch"}),
        ("pipeline/artefacts/evaluate.py", {"evaluate", "report"}),
        ("pipeline/stages/evaluate.py", {"evaluate"}),
        ("pipeline/report/figures.py", {"report"}),
        ("pipeline/report/reference.py", {"report"}),
        ("pipeline/report/templates/report.html", {"report"}),
        ("pipeline/apps/predict.py", set()),
        ("pipeline/errors.py", set()),
    ],
)
def test_a_change_makes_stale_what_depends_on_it_and_nothing_else(committed, monkeypatch, file, stale):
    monkeypatch.chdir(committed)
    path = committed / file
    before = path.read_text() if path.exists() else None
    try:
        path.write_text(f"{before}\n# changed\n")
        with Repo(committed) as repo:
            assert set(repo.status()) & {"fetch", "preprocess", "train", "evaluate", "report"} == stale
    finally:
        path.unlink() if before is None else path.write_text(before)


def test_a_checkpoint_belongs_to_the_code_that_can_change_a_training(tmp_path, monkeypatch):
    for name in ("cnn", "pipeline"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.setattr(resume, "PROJECT", tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("data/processed").mkdir(parents=True)
    Path("data/processed/dataset.json").touch()
    first = resume.fingerprint({})
    files = needed("train")
    assert {"pipeline/stages/resume.py", "pipeline/artefacts/record.py"} < files
    for file in sorted(files | {"pipeline/apps/predict.py", "pipeline/stages/evaluate.py"}):
        content = Path(file).read_text()
        Path(file).write_text(f"{content}# changed\n")
        assert (resume.fingerprint({}) != first) == (file in files), file
        Path(file).write_text(content)
    assert resume.fingerprint({}) == first


def test_arrays_have_the_shapes_that_signatures_promise():
    """The layers' contract tests, with every jaxtyping annotation in cnn checked at run time by beartype."""
    tests = ["test_conv2d.py", "test_pooling.py", "test_layers.py", "test_losses.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "definition or dtype or round_trip"]
    # the option: an int may stand for a float
    checker = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    result = subprocess.run(
        [*command, f"--jaxtyping-packages=cnn,{checker}", *tests],
        cwd=ROOT / "tests/cnn",
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def test_each_lock_file_holds_what_its_command_needs_and_nothing_twice():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = {}
    for extra, file in (
        ("pipeline", "requirements.lock"),
        ("serve", "requirements-dev.lock"),
        ("dev", "requirements-dev.lock"),
    ):
        locked[extra] = [line.partition("==")[0] for line in (ROOT / file).read_text().splitlines()]
        wanted = {re.match(r"[\w.-]+", requirement)[0].replace(".", "-") for requirement in extras[extra]}
        assert wanted <= {*locked[extra]}
    assert not {*locked["pipeline"]} & {*locked["dev"]}


def test_what_the_extra_export_brings_is_imported_only_where_it_is_needed():
    packages = {re.match(r"\w+", requirement)[0] for requirement in EXPORT.values()}
    users = {module_name(p) for p in SOURCES if {name.split(".")[0] for name in imports(p)} & packages}
    assert users == {"pipeline.formats.onnx", "pipeline.formats.onnx_weights", "pipeline.formats.judge"}
    started = f"import sys, pipeline.__main__, pipeline.stages.export; print(*{packages} & {{*sys.modules}})"
    assert subprocess.check_output([sys.executable, "-c", started], cwd=ROOT, text=True).strip() == ""


def test_the_extra_export_is_the_one_that_the_command_names():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["export"] == list(EXPORT.values())
    assert {*extras["export"]} < {*extras["dev"]}  # which the tests use
