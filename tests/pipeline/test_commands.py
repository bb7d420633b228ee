"""`python -m pipeline` from a shell: help, another Python, a terminal without Greek letters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import STAGES

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *STAGES,
    "run",
    "check-data",
    "export",
    "import-weights",
    "predict",
    "playground",
    "explain",
    "verify",
    "runs",
    "recipe",
    "repeat",
    "search",
    "summary",
    "serve",
)


def run(*command, **variables):
    return subprocess.run(command, capture_output=True, cwd=ROOT, env=variables or None, encoding="utf-8")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_all_commands(option):
    result = run(sys.executable, "-m", "pipeline", option)
    assert result.returncode == 0
    listed = {
        line.split()[0] for line in result.stdout.partition("Commands:")[2].splitlines() if line.strip()
    }
    assert set(COMMANDS) <= listed


def test_a_python_without_the_packages_says_which_one_has_them():
    result = run(
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys, runpy; sys.path[:0] = [{str(ROOT)!r}]; "
        "runpy.run_module('pipeline', run_name='__main__')",
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: This Python does not have the project's packages.")
    assert "`make run`" in result.stderr
    assert result.stderr.endswith(": source .venv/bin/activate\n")


def test_where_greek_letters_cannot_be_printed_question_marks_are():
    program = "import sys; from pipeline import __main__ as p; from pipeline.apps import predict; "
    program += "predict.predict = lambda *a, **k: print('\\u03a3 x'); "
    program += "sys.argv = ['pipeline', 'predict', 'a.png']; p.main()"
    result = run(sys.executable, "-c", program, PYTHONIOENCODING="ascii", PATH="")
    assert (result.returncode, result.stdout.strip()) == (0, "? x"), result.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize(("options", "command"), [([], "run"), (["RECIPE=tiny"], "recipe 'tiny'")])
def test_make_run_runs_everything_or_a_recipe(options, command):
    result = run("make", "--dry-run", "--no-print-directory", "run", *options, **os.environ)
    assert result.stdout.endswith(f" -m pipeline {command}\n"), result.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_runs_python_without_the_setting_that_hides_the_project():
    command = ["make", "--no-print-directory", "--eval", "shown: ; @env", "shown"]
    result = run(*command, **os.environ | {"PYTHONSAFEPATH": "1", "ANOTHER": "1"})
    assert "ANOTHER=1" in result.stdout, result.stderr
    assert "PYTHONSAFEPATH" not in result.stdout
