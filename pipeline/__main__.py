"""`python -m pipeline STAGE`: what dvc.yaml runs, and what a person may run by hand."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated

try:
    import typer
except ModuleNotFoundError:
    sys.exit(
        "error: This Python does not have the project's packages. Use the one that has: "
        "source .venv/bin/activate, which `make run` sets up."
    )

from cnn import keep_freed_memory
from cnn.checkpoint import CheckpointError
from cnn.engine.executors import WorkerLostError
from pipeline.config.params import load_params
from pipeline.errors import StoppedError, UserError

RESTORE = (
    "DVC puts a stage's earlier results away before it starts it. Those of the last commit, and with them "
    "its params and networks in place of yours, come back with: "
    "git checkout params.yaml architectures.yaml dvc.lock reports && dvc checkout --force"
)

INTERRUPTED = 130  # the exit code after Ctrl-C

app = typer.Typer(
    help="A convolutional network in NumPy: fetch -> preprocess -> train -> evaluate -> report. `dvc repro` "
    "runs the stages that are out of date; here each can be run by itself, in the project's folder. All of "
    "them read params.yaml.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Each stage is imported only when it runs: the others' libraries would cost a second at every start.


@app.command(short_help="get the dataset's files")
def fetch() -> None:
    """Get the dataset's files into data/raw, each checked against its SHA-256.

    Looked for in this order: the folder or URL in the environment variable DATASET_MIRROR, which holds
    DATASET/FILE; the folder ../shared/datasets, if there is one; the public mirrors.
    """
    from pipeline.stages import fetch as stage

    stage.fetch(load_params().data)


@app.command(short_help="make arrays of them")
def preprocess() -> None:
    """Make arrays of data/raw in data/processed: pixels in [0, 1], a channel axis, one-hot labels.

    Splits off validation images, with all classes in proportion; data.train_size and data.standardize apply.
    """
    from pipeline.stages import preprocess as stage

    params = load_params()
    stage.preprocess(params.data, params.seed)


@app.command(short_help="train the network")
def train() -> None:
    """Train the network on data/processed; write models/, reports/history.csv and statistics.csv.

    models/model.npz holds the weights of the epoch with the best validation accuracy. A run that was cut
    off goes on from its last checkpoint.
    """
    from pipeline.stages import train as stage

    stage.train(load_params())


@app.command(short_help="measure it on test images")
def evaluate() -> None:
    """Evaluate models/ on the test images; write metrics, predictions and a classification report."""
    from pipeline.stages import evaluate as stage

    stage.evaluate(load_params().evaluate)


@app.command(short_help="show it on a page")
def report() -> None:
    """Write reports/report.html, which shows all about the trained network, model_card.md and the figures."""
    from pipeline.stages import report as stage

    stage.report(load_params())


@app.command(short_help="recognise photographed digits")
def predict(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="photographs or scans, such as JPEG or PNG")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document, for programs")] = False,
    show: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="save pictures there of what the network saw"),
    ] = None,
) -> None:
    """Recognise the handwritten digit in each photograph or scan, with the network in models/.

    One digit an image, upright, dark on light or light on dark; of any size, anywhere, in uneven light.
    A file that is wrong is told, and the others still get their answer; the exit code is then 1.
    """
    from pipeline.apps import predict as command

    command.predict(files, as_json=as_json, pictures=show)


@app.command(short_help="run it all anew elsewhere, and compare")
def verify() -> None:
    """Rerun the last commit's pipeline in a temporary clone; say file by file if the bytes are as recorded.

    If not, it says what may explain it: other code, other params, another NumPy, BLAS or processor.
    """
    from pipeline.apps import verify as command

    command.verify()


@app.command(short_help="one image through the network and back")
def explain(
    index: int = typer.Option(0, help="which test image, counted from 0"),
) -> None:
    """Explain one test image and one training step on it in numbers: activations, gradients, the change.

    Uses models/ and data/processed. Layer by layer it prints the range of the outputs on the way forward; on
    the way back the norm of each gradient and, beside it, the same by finite differences; and then what a
    step of gradient descent would change. docs/mathematics.md derives it all. Nothing is written.
    """
    from pipeline.apps import explain as command

    command.explain(index)


@app.command(short_help="a page to draw on, for a browser")
def playground() -> None:
    """Write reports/playground.html: draw, and see the network in models/ answer, layer by layer.

    One file that runs in any browser, also without a network. Test images come from data/processed.
    """
    from pipeline.apps import playground as command

    command.playground()


@app.command(short_help="all of it, through DVC")
def run() -> None:
    """Run the whole pipeline through DVC and sum up the result; this is `make run`.

    Where MNIST cannot be reached, it says so and runs on the small digits that come with scikit-learn.
    """
    from pipeline.apps import run as stage

    stage.run()


def main() -> None:
    """Run the app; what the user can repair is reported in one message, with exit code 1."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where it cannot show Greek letters
    try:
        app(prog_name="python -m pipeline")
    except StoppedError as stopped:
        print(f"{stopped}\n{RESTORE}" if _dvc_stage() else stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)  # the convention of shells
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # Typer's answer to Ctrl-C
            again = "dvc repro" if _dvc_stage() else "the same again"
            print(f"Stopped. To go on: {again}{_where_results_are()}", file=sys.stderr)
        raise
    except WorkerLostError as error:
        sys.exit(
            f"error: {error}\nTo go on from the last checkpoint, with one: LOKY_MAX_CPU_COUNT=1 dvc repro"
        )
    except (UserError, CheckpointError) as error:
        sys.exit(f"error: {error}{_where_results_are()}")
    except OSError as error:  # a full disk, a folder without permission
        file = error.filename2 or error.filename
        place = f": {file}" if file else ""
        sys.exit(f"error: {error.strerror or error}{place}{_where_results_are()}")
    except MemoryError as error:
        sys.exit(f"error: There is not enough memory. {error} Smaller layers or batches need less.")


def _dvc_stage() -> str | None:
    """The stage that DVC runs here; None where a person does."""
    return os.environ.get("DVC_STAGE")


def _where_results_are() -> str:
    """DVC removes a stage's outputs before it starts the stage; so tell how they come back."""
    return f"\n{RESTORE}" if _dvc_stage() in ("train", "evaluate", "report") else ""


if __name__ == "__main__":
    main()
