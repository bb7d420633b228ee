"""`python -m pipeline COMMAND`: the stages that dvc.yaml runs, and commands for use by hand."""

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

try:
    import typer
except ModuleNotFoundError:
    sys.exit(
        "error: This Python does not have the project's packages. Activate the environment that "
        "`make run` sets up: source .venv/bin/activate"
    )

from cnn import keep_freed_memory
from cnn.checkpoint import CheckpointError
from cnn.engine.executors import WorkerLostError
from pipeline import ranks
from pipeline.config.params import Params, load_params
from pipeline.config.yaml_files import NOT_THE_FOLDER
from pipeline.errors import VALUES_STAY, StoppedError, UserError
from pipeline.paths import EXPORT, MODELS, PARAMS, checkout

RESTORE = (
    "DVC removes a stage's earlier results before it starts the stage. To restore those of the last commit "
    "(this also replaces your params and networks by those of the commit): "
    "git checkout params.yaml architectures.yaml dvc.lock reports && dvc checkout --force"
)

INTERRUPTED = 130  # the exit code after Ctrl-C

app = typer.Typer(
    help="A convolutional network in NumPy: fetch -> preprocess -> train -> evaluate -> report. `dvc repro` "
    "runs the stages that are out of date; each command below runs alone, in the project's folder. The "
    "stages read params.yaml.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Each command imports its module when it runs: importing all of them would add a second to every start.


Settings = Annotated[
    list[str] | None,
    typer.Option(
        "-S",
        "--set-param",
        metavar="KEY=VALUE",
        help="a setting of params.yaml to change on top; may be repeated",
    ),
]


@app.command(short_help="fetch the dataset's files")
def fetch() -> None:
    """Fetch the dataset's files into data/raw, and check the SHA-256 of each.

    Sources are tried in this order: the folder or URL in the environment variable DATASET_MIRROR, which
    holds DATASET/FILE; the folder ../shared/datasets, if it exists; the public mirrors. Your own images stay
    where they are.
    """
    from pipeline.stages import fetch as stage

    stage.fetch(_load_params().data)


@app.command(short_help="convert them to arrays")
def preprocess() -> None:
    """Convert data/raw, or your own images, to arrays in data/processed: bytes of one shape, one-hot labels.

    It splits off test images if there are none, and validation images, with all classes in proportion. It
    applies data.image_size, channels, fit, train_size and standardize.
    """
    from pipeline.stages import preprocess as stage

    params = _load_params()
    stage.preprocess(params.data, params.seed)


@app.command(short_help="train the network")
def train() -> None:
    """Train the network on data/processed; write models/, reports/history.csv and statistics.csv.

    models/model.npz holds the weights of the epoch with the best validation accuracy, or of the last one, as
    train.keep says. An interrupted run continues from its last checkpoint.
    """
    from pipeline.stages import train as stage

    stage.train(load_params())


@app.command(short_help="evaluate it on the test images")
def evaluate() -> None:
    """Evaluate models/ on the test images; write metrics, predictions and a classification report."""
    from pipeline.stages import evaluate as stage

    params = load_params()
    stage.evaluate(params.evaluate, params.device)


@app.command(short_help="show the results on a page")
def report() -> None:
    """Write reports/report.html, a page about the trained network, model_card.md and the figures."""
    # Without a home folder, matplotlib warns of a cache in a temporary folder, which does no harm.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from pipeline.stages import report as stage

    stage.report(load_params())


@app.command(short_help="hand the network on: ONNX, safetensors")
def export(
    formats: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FORMAT",
            help="onnx (images in [0, 1]), onnx_bytes (images as bytes) or safetensors; onnx and safetensors "
            "if left out",
            show_default=False,
        ),
    ] = None,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="where each format gets a folder")] = EXPORT,
) -> None:
    """Write the network in models/ for other tools, with a README that model hubs read, to export/FORMAT.

    onnx: for onnxruntime and others, with the normalisation of pixels inside. The file is judged by
    onnxruntime on all test images before it is put in place. safetensors: the weights by name.

    `dvc repro` does this, too, for the formats in export.formats of params.yaml.
    """
    from pipeline.stages import export as stage

    _check_folder()
    stage.export(stage.known_formats(formats or ["onnx", "safetensors"]), to)


@app.command(short_help="take weights in: safetensors, ONNX")
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a .safetensors or .onnx file")],
) -> None:
    """Put the weights of another tool into the network that params.yaml chooses, as models/.

    The file must hold the same layers, in PyTorch's layout or in this project's. A table shows which array
    became which; whatever does not fit is listed, and nothing changes then. data/processed must be there: the
    weights are tried on its validation images.

    models/ is replaced only if DVC's cache has what is in it.
    """
    from pipeline.apps import import_weights as command

    _check_folder()
    command.import_weights(file)


@app.command(short_help="check your own images before training")
def check_data(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="a folder with a folder of pictures for each class, or an .npz file; data.path if left out",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check your own images before training: what is wrong with them, and what will happen to them.

    All problems are listed, each with its file; the exit code is then 1. reports/check_data.html shows some
    pictures of each class as the network will receive them. The settings are those of the section data in
    params.yaml. Nothing is trained, and your files stay as they are.
    """
    from pipeline.apps import check_data as command

    command.check_data(path)


@app.command(short_help="recognise what is in pictures")
def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="pictures, such as JPEG or PNG")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document, for programs")] = False,
    show: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="save pictures of what the network saw in this folder"),
    ] = None,
) -> None:
    """Recognise what is in each picture, with the network in models/.

    A picture is brought to the network's size and colours as the training images were. It should show one
    thing of the kinds that the network was trained on.

    A network that was trained on MNIST takes photographs and scans of one handwritten digit each, upright,
    dark on light or light on dark. The digit's size and position do not matter, nor does uneven light.

    A .json file with drawings that were saved in the playground counts as that many pictures.

    The chart shows the five most probable classes, or all if there are at most ten; --json has all of them.
    A bad file is reported and skipped; the exit code is then 1.
    """
    from pipeline.apps import predict as command

    _check_folder()
    command.predict(files, as_json=as_json, pictures=show)


@app.command(short_help="rerun everything in a temporary clone and compare")
def verify() -> None:
    """Rerun the last commit's pipeline in a temporary clone, and report whether each file is the same.

    For differences it lists possible reasons: other code, other params, another NumPy, BLAS or processor.
    """
    from pipeline.apps import verify as command

    _check_folder()
    command.verify()


@app.command(short_help="the network and its costs, before training")
def summary() -> None:
    """Show the network that params.yaml chooses, and what training it costs; nothing is trained or written.

    For each layer: output shape, parameters, multiply-adds. For a training step: its memory, and how long it
    takes here, measured for some seconds on random images. No dataset is fetched: its shape is known. Own
    images are looked at where they are.
    """
    from pipeline.apps import summary as command

    command.summary()


@app.command(short_help="all runs in a table")
def runs(
    sort: Annotated[
        Literal["validation", "test", "seconds", "created"] | None,
        typer.Option(help="the best, the fastest or the newest first", show_default=False),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="also write reports/runs.html, with the curves of all runs")
    ] = False,
) -> None:
    """List the last commit and its experiments: what was changed, accuracies, seconds of training.

    The settings are written as `dvc exp run -S` takes them. Seconds are known of what was trained in this
    checkout. An experiment that ran only up to `train` has no test accuracy. All metrics are in: dvc exp show
    """
    from pipeline.apps import runs as command

    _check_folder()
    command.runs(command.Sort(sort) if sort else None, html)


@app.command(short_help="train by a recipe; without a name: which there are")
def recipe(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="a recipe in recipes.yaml", show_default=False),
    ] = None,
    settings: Settings = None,
) -> None:
    """Train by a recipe: a network and settings that belong together. Without NAME, list the recipes.

    It is an ordinary experiment, `dvc exp run -S …`, in the cache and in the table of `runs`. It starts from
    params.yaml as in the last commit, so that what earlier experiments changed does not matter.
    """
    from pipeline.apps import recipe as command

    _check_folder()
    if name is not None:
        command.run_recipe(name, settings or [])
    elif settings:
        raise UserError("-S changes a setting of a recipe. Name the recipe, too: recipe NAME -S KEY=VALUE")
    else:
        command.list_recipes()


@app.command(short_help="one configuration with several seeds; two compared")
def repeat(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="a recipe in recipes.yaml", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="how many seeds")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="the first of them")] = 0,
    settings: Settings = None,
    name: Annotated[
        str,
        typer.Option(help="of the result; the network's and some characters if left out", show_default=False),
    ] = "",
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="run nothing; compare two results by name", show_default=False),
    ] = None,
) -> None:
    """Run a recipe, or params.yaml, with several seeds; give mean, standard deviation, confidence interval.

    Each seed is an experiment NAME-seedN of DVC, in a temporary folder, with what Git tracks as it is now. So
    params.yaml, models/ and reports/ stay as they are. Stopped, it goes on when it is called again. The table
    is also written to reports/repeat/NAME.json, .md and .png.

    --compare lists the differences of two results, seed by seed, with a paired t test.
    """
    from pipeline.apps import repeat as command

    _check_folder()
    if compare is None:
        command.repeat(range(first_seed, first_seed + seeds), settings or [], name, recipe)
    elif recipe or settings or name:
        raise UserError("--compare A B runs nothing, so it takes no recipe, no -S and no --name.")
    else:
        command.compare(*compare)


@app.command(short_help="search for good settings; without a name: which there are")
def search(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="a search in search.yaml", show_default=False),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="how many trials; else as search.yaml says", show_default=False)
    ] = None,
) -> None:
    """Search a space of settings that search.yaml declares, by validation accuracy. Without NAME, list them.

    Each trial is an experiment NAME-trialN of DVC, up to the stage `train`, in a temporary folder. So no test
    image is read, and params.yaml, models/ and reports/ stay as they are. A trial that lags behind the median
    stops early. Stopped, the search goes on when it is called again. The table is also written to
    reports/search/NAME.json, .md and .png.
    """
    from pipeline.apps import search as command

    _check_folder()
    if name is not None:
        command.search(name, trials)
    elif trials is not None:
        raise UserError("--trials is for a search. Name it, too: search NAME --trials N")
    else:
        command.list_searches()


@app.command(short_help="one image through the network and back")
def explain(
    index: int = typer.Option(0, help="the index of the test image, counted from 0"),
) -> None:
    """Explain one test image and one training step on it in numbers: activations, gradients, the change.

    It reads models/ and data/processed, and writes nothing. It draws the image, by its brightness alone. For
    each layer it prints the range of the outputs in the forward pass, and in the backward pass the norm of
    each gradient with a check by finite differences. Then it prints what one step of gradient descent would
    change. docs/mathematics.md derives all of it.
    """
    from pipeline.apps import explain as command

    _check_folder()
    command.explain(index)


@app.command(short_help="a page to draw on, for a browser")
def playground() -> None:
    """Write reports/playground.html: draw, and see how the network in models/ answers, layer by layer.

    The page is one file, which runs in any browser, also offline. Its test images come from data/processed.
    """
    from pipeline.apps import playground as command

    _check_folder()
    command.playground()


@app.command(short_help="answer to pictures over HTTP")
def serve(
    host: Annotated[str, typer.Option(help="the address to listen at; 0.0.0.0: all of this machine")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000,
) -> None:
    """Answer over HTTP what is in pictures, with the network in models/: a page, and JSON for programs.

    Nothing is written to disk, and nothing is sent elsewhere. Ctrl-C or SIGTERM stops it after the requests
    in progress. docs/serve.md lists addresses, limits and answers.
    """
    from pipeline.apps import serve as command

    _check_folder()
    command.serve(host, port)


@app.command(short_help="run the whole pipeline with DVC")
def run() -> None:
    """Run the whole pipeline with DVC, and summarise the result; `make run` does this.

    If MNIST cannot be fetched, it reports that, and runs on the small digits that come with scikit-learn.
    """
    from pipeline.apps import run as stage

    _check_folder()
    stage.run()


def main() -> None:
    """Run the command of the command line; under mpirun, an error of one rank ends all of them."""
    try:
        _run_command()
    except BaseException as ended:
        ranks.end_all(ended)
        raise


def _run_command() -> None:
    """Run the app; report an error that the user can fix as one message, with exit code 1.

    Under mpirun every rank trains and evaluates; of other commands, rank 0 runs alone.
    """
    if sys.argv[1:2] != ["serve"]:  # a service returns the memory that a large picture needed
        keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for a terminal without Greek letters
    try:
        together = sys.argv[1:2] in (["train"], ["evaluate"])
        if together:
            ranks.launch()
        first = ranks.is_first()
        if not together:
            ranks.leave()
        if together or first:
            app(prog_name="python -m pipeline")
    except StoppedError as stopped:
        if ranks.is_first():
            print(f"{stopped}\n{RESTORE}" if _dvc_stage() else stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)  # the convention of shells
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # Typer's answer to Ctrl-C
            if ranks.is_first():
                again = "dvc repro" if _dvc_stage() else "run the same command again"
                print(f"Stopped. To continue: {again}{_where_results_are()}", file=sys.stderr, flush=True)
            ranks.abort(INTERRUPTED)
        raise
    except WorkerLostError as error:
        sys.exit(
            f"error: {error}\n"
            "To continue from the last checkpoint with one process: LOKY_MAX_CPU_COUNT=1 dvc repro"
        )
    except (UserError, CheckpointError) as error:
        sys.exit(f"error: {error}{_where_results_are()}")
    except OSError as error:  # a full disk, a folder without permission
        file = error.filename2 or error.filename
        place = f": {file}" if file else ""
        sys.exit(f"error: {error.strerror or error}{place}{_where_results_are()}")
    except MemoryError as error:
        sys.exit(f"error: There is not enough memory. {error} Try smaller layers or batches.")


def _load_params() -> Params:
    """`load_params`, for a stage without earlier results to restore."""
    try:
        return load_params()
    except UserError as error:
        raise UserError(f"{error}\n{VALUES_STAY}" if _dvc_stage() else str(error)) from None


def _check_folder() -> None:
    """UserError if this is not the project's folder; a folder with models/ alone is enough."""
    if not PARAMS.exists() and not MODELS.exists():
        raise UserError(f"There is no {PARAMS} in this folder. {NOT_THE_FOLDER}")


def _dvc_stage() -> str | None:
    """The stage that DVC runs in the user's files; None if a person runs it, or DVC in a temporary folder."""
    return os.environ.get("DVC_STAGE") if checkout() == Path.cwd() else None


def _where_results_are() -> str:
    """How to restore the outputs that DVC removed before it started this stage; empty if it removed none."""
    return f"\n{RESTORE}" if _dvc_stage() in ("train", "evaluate", "report") else ""


if __name__ == "__main__":
    main()
