"""Project folders in which tests run the real commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
SHIPPED = (
    ROOT / "tests/shipped"
)  # copies of params.yaml and architectures.yaml; a user may change those in ROOT
CODE = ["cnn", "pipeline", "dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", "data/README.md"]
STAGES = [  # of the shipped params, which export nothing
    name
    for name, stage in YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"].items()
    if "foreach" not in stage
]


def environment(**variables):
    """This Python first on the path, no bytecode beside the sources, and no access to public mirrors."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "https_proxy": "http://127.0.0.1:9",  # nothing listens there
        "http_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "100",
        **variables,
    }


def run(folder, *command, **variables):
    """Run `python -m COMMAND` in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
    )


def make_project(folder, params=None, networks=""):
    """Commit the working tree's code, and the shipped params changed by `params`, to a new repository."""
    for name in CODE:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    set_params(folder, params or {}, SHIPPED)
    (folder / "architectures.yaml").write_text((SHIPPED / "architectures.yaml").read_text() + networks)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    commit(folder)
    return folder


def set_params(folder, changes, source=None):
    """Write the params.yaml of `source` to `folder`, with some keys, such as "a.b.c", changed."""
    yaml = YAML()
    content = yaml.load((source or folder) / "params.yaml")
    for key, value in changes.items():
        section = content
        *parents, last = key.split(".")
        for parent in parents:
            section = section[parent]
        assert last in section, key
        section[last] = value
    yaml.dump(content, folder / "params.yaml")


QUICK = ["-S", "data.dataset=digits", "-S", "train.epochs=2", "-S", "train.batch_size=16"]


def trained_project(tmp_path_factory):
    """A project in which the pipeline has run on the digits for two epochs. Tests must not change it."""

    def build(folder):
        result = run(make_project(folder), "dvc", "exp", "run", *QUICK)
        assert result.returncode == 0, result.stdout + result.stderr

    return build_once(tmp_path_factory, "trained", build)


def commit(folder):
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    subprocess.run(["git", "commit", "-qm", "a commit"], cwd=folder, check=True)


def results(folder):
    """The content of all files that the pipeline makes from the data, by their paths."""
    files = [*folder.glob("models/*"), *folder.glob("reports/**/*")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.is_file()}


def stages_run(output):
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def build_once(tmp_path_factory, name, build):
    """A folder that `build(folder)` fills, once for all workers of pytest-xdist. Tests must not change it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # this worker's own folder is in that of the whole session
    folder = base / name
    built = folder.with_suffix(".built")
    with FileLock(folder.with_suffix(".lock")):
        if not built.exists():
            shutil.rmtree(folder, ignore_errors=True)  # left by a worker that failed
            folder.mkdir()
            build(folder)
            built.touch()
    return folder
