"""`make run`: the whole pipeline, and a summary of its results."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Column, Table

from pipeline.apps.terminal import open_console
from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.preprocess import Description
from pipeline.config.architectures import build_chosen
from pipeline.config.groups import make_optimizer
from pipeline.config.params import Data, Params, load_params
from pipeline.data.catalogue import DATASETS
from pipeline.data.dataset import OWN
from pipeline.data.own import find_images
from pipeline.data.readers.folder import list_pictures
from pipeline.data.sources import MIRROR_VARIABLE, NOTE_VARIABLE
from pipeline.errors import VALUES_STAY, StoppedError, UserError
from pipeline.paths import ARCHITECTURES, CLASSIFICATION_REPORT, PARAMS, REPORT
from pipeline.report.reference import REFERENCE_ACCURACY, REFERENCE_SOURCE

LEAST_WIDTH_FOR_TABLE = 60  # characters of the terminal


def run() -> None:
    """Check params.yaml and the network, run the pipeline, summarise the results."""
    check_git()
    try:
        params = load_params()
        check_network(params)
    except UserError as error:
        changed = git("diff", "--name-only", "HEAD", "--", str(PARAMS), str(ARCHITECTURES))
        raise UserError(f"{error}\n{VALUES_STAY}" if changed else str(error)) from None
    repair_dvc()
    try:
        code, fell_back = _run_stages(params.data.dataset)
    except KeyboardInterrupt:
        raise StoppedError("Stopped. To continue: make run", signal.SIGINT) from None
    if code != 0:
        raise UserError("The pipeline stopped; the reason is above.")
    print_summary(fell_back)


def check_network(params: Params) -> None:
    """UserError if the network or the loss does not fit the images, as far as these are known already."""
    shape, classes = known_images(params.data)
    if classes >= 2 and len(shape) == 3:
        model, _ = build_chosen(params, shape, classes)
        make_optimizer(params.train, model)
        params.train.loss.make(classes)


def known_images(data: Data) -> tuple[tuple[int, ...], int]:
    """(shape, classes) of the images that preprocess will write, without reading any.

    Numbers that only reading own images would tell are left out of their shape; classes is then 0.
    """
    if data.dataset == OWN:
        path = find_images(data)
        classes = len(list_pictures(path).class_names) if path.is_dir() else 0
        shape = (*(data.size or ()), *([data.channels] if data.channels else []))
    else:
        dataset = DATASETS[data.dataset]
        classes, (height, width, channels) = len(dataset.class_names), dataset.image_shape
        shape = (*(data.size or (height, width)), data.channels or channels)
    return shape, classes


def _run_stages(dataset: str) -> tuple[int, bool]:
    """Run DVC, and again on the digits if no source has MNIST; (DVC's exit code, whether it fell back).

    DVC's exit code does not depend on the stage's exit code, so the fetch stage leaves a note.
    """
    with TemporaryDirectory() as folder:
        note = Path(folder) / "no_source"
        code = dvc("repro", folder=Path(), **{NOTE_VARIABLE: str(note)})
        no_source = note.exists()
    if not no_source or dataset != "mnist":
        return code, False
    print(
        "\nMNIST could not be fetched, for the reasons above. This run therefore uses the small\n"
        "digits that come with scikit-learn: dvc exp run -S data.dataset=digits\n",
        flush=True,
    )
    return dvc("exp", "run", "-S", "data.dataset=digits"), True


def dvc(*arguments: str, folder: Path = Path(), **variables: str) -> int:
    """Run DVC with this Python first on the path, so that its stages use it, too; return DVC's exit code.

    Ctrl-C also reaches DVC and its stage; KeyboardInterrupt is raised after they have ended.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    interrupted = False
    if set("{}") & set(str(folder.resolve())):
        raise UserError(
            f"DVC cannot work in a folder whose path holds {{ or }}: {folder.resolve()}\n"
            "Rename the folder, or clone the project somewhere else."
        )
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=environment_outside_hooks() | variables | {"PATH": path},
    ) as process:
        while process.returncode is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return process.returncode


def environment_outside_hooks() -> dict[str, str]:
    """The environment without GIT_DIR, GIT_INDEX_FILE and others that Git sets for its hooks.

    With them, a Git command would change the hook's repository instead of the one in its own folder.
    """
    listed = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True)
    bound = {
        name for name in listed.stdout.split() if not name.startswith("GIT_CONFIG")
    }  # those only configure Git
    return {name: value for name, value in os.environ.items() if name not in bound}


def repair_dvc() -> None:
    """Remove DVC's list of locks if it is not JSON, and an empty dvc.lock.

    A DVC that is killed while it writes them leaves them like this, and then refuses to run. Without
    dvc.lock it finds the results of earlier runs in its cache.
    """
    locks, recorded = Path(".dvc/tmp/rwlock"), Path("dvc.lock")
    try:
        json.loads(locks.read_bytes())
    except ValueError:
        locks.unlink()
    except OSError:  # there is none
        pass
    if recorded.is_file() and not recorded.read_bytes().strip():
        recorded.unlink()


def check_git() -> None:
    """Raise UserError unless this folder is in a Git repository with a commit that Git agrees to use."""
    needed = "DVC's experiments need a Git repository with a commit"
    try:
        git("rev-parse", "--git-dir")
    except FileNotFoundError:
        raise UserError("Git is not installed; DVC needs it.") from None
    except UserError:
        here = Path.cwd()
        if any((folder / ".git").exists() for folder in (here, *here.parents)):
            raise  # Git knows why it does not use it, such as another owner
        raise UserError(
            f"{needed}; this folder is not in one. Clone the project instead of downloading it, or: "
            "git init && git add . && git commit -m start"
        ) from None
    try:
        git("rev-parse", "--verify", "HEAD")
    except UserError as error:
        raise UserError(
            f"{needed}. If there is none yet: git add . && git commit -m start\n{error}"
        ) from None


def git(*arguments: str) -> str:
    """What Git prints; UserError with Git's message if it fails."""
    command = ["git", *arguments]
    result = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",  # as os.fsdecode: a path may be no text
        env=environment_outside_hooks(),
    )
    if result.returncode != 0:
        raise UserError(
            f"{' '.join(command)} failed with exit code {result.returncode}. Git says:\n"
            f"{result.stderr.strip()}"
        )
    return result.stdout.removesuffix("\n")


def print_summary(fell_back: bool = False) -> None:
    """Print what the last run achieved, and what to try next."""
    metrics = Metrics.load()
    dataset, model, test = metrics.dataset, metrics.model, metrics.test
    rows = [("dataset", Description.load().title)]
    if fell_back:
        rows.append(("why", "MNIST could not be fetched"))
    rows += [
        ("network", f"{model.architecture}, {model.parameters:,} parameters"),
        ("test accuracy", f"{test.accuracy:.2%} of {test.examples:,} images"),
        ("", f"(confidence interval {test.accuracy_low:.2%} to {test.accuracy_high:.2%})"),
    ]
    if metrics.test_time_augmentation:
        rows.append(("", f"(outputs are {metrics.test_time_augmentation})"))
    if dataset == "mnist":
        rows.append(("for comparison", f"{REFERENCE_ACCURACY:.2%} after 10 epochs:\n{REFERENCE_SOURCE}"))
    rows += [("look at", f"{REPORT}"), ("numbers", f"{Metrics.path}\n{CLASSIFICATION_REPORT}")]
    _print_rows("Result", rows)
    print("Try next:\n    source .venv/bin/activate")
    if fell_back:
        print(f"    export {MIRROR_VARIABLE}=…       # a folder or URL that holds mnist/…-ubyte.gz")
    if dataset == "digits":
        print("    dvc exp run -S data.dataset=mnist    # params.yaml now says digits; this changes it back")
    else:
        print("    dvc exp run -S model.architecture=sample")
        print("    python -m pipeline runs                     # all runs in a table")


def _print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    """Print a table of two columns; in a narrow terminal, a list."""
    console = open_console()
    if console.width < LEAST_WIDTH_FOR_TABLE:
        for name, text in (("", title), *rows):
            console.print(f"{name}: {text}".removeprefix(": "), overflow="fold")
        return
    table = Table(Column(), Column(overflow="fold"), show_header=False, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
