"""`python -m benchmarks`: measure, print tables, write results.json and results.md."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from threadpoolctl import threadpool_limits

BLOCK_SECONDS = 0.2  # long enough that a block is in its stride: caches filled, workers awake
NARROWEST = 120  # columns that the tables need, if the output is not a terminal

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def benchmark(
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Only two threads and each network's first batch size, few rounds: takes some minutes.",
        ),
    ] = False,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Also whole programs on MNIST; needs data/processed, takes minutes."),
    ] = False,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Rounds in which contenders take turns: 11, or 3 with --quick.")
    ] = None,
    only: Annotated[
        str, typer.Option(help="Only cases that contain all these words, as in 'training sample'.")
    ] = "",
    output: Annotated[Path, typer.Option(help="The folder for results.json and results.md.")] = Path(
        "benchmarks"
    ),
) -> None:
    """Measure the library against PyTorch, JAX if installed, the machine and plain Python loops."""
    if find_spec("torch") is None:
        sys.exit("error: PyTorch is not installed. `make benchmark` installs it and runs this.")
    # Imported here: this takes a second, which --help and the message above should not take.
    from benchmarks import cases, machine, parts, report, suite
    from benchmarks.processes import jax_processes, torch_processes
    from benchmarks.timing import Pace
    from cnn import keep_freed_memory

    console = Console() if sys.stdout.isatty() else Console(width=NARROWEST)
    keep_freed_memory()
    pace = Pace(repeats or (3 if quick else 11), BLOCK_SECONDS)
    words = only.lower().split()
    with threadpool_limits(1, user_api="blas"):
        about = machine.describe()
        console.print(", ".join(f"{key} {value}" for key, value in about.items()), highlight=False)
        if report.is_busy(about):
            console.print(report.BUSY_NOTE, style="bold")
        sections: list[report.Section] = []

        def finish(section: report.Section) -> None:
            if section.rows:
                sections.append(section)
                report.print_section(section, console)

        with torch_processes() as torch, jax_processes(cases.THREADS) as jax:
            run = suite.Suite(
                pace,
                quick,
                suite.Peers(torch, jax),
                lambda case: all(word in case.lower() for word in words),
                lambda case: print(case, file=sys.stderr),
            )
            for measure in (suite.training, suite.inference, suite.layers, suite.busy, suite.variants):
                finish(measure(run))
        for measure in (suite.against_machine, parts.two_workers, suite.against_loops, parts.ideas):
            finish(measure(run))
        if whole:
            from benchmarks import whole as programs

            for measure in (programs.training, programs.time_to_accuracy, programs.stages):
                finish(measure(run, quick))
        about[machine.LOAD] = max(about[machine.LOAD], machine.other_load())
    if not sections:
        sys.exit(f"error: No case contains all of the words {only!r}.")
    settings = {
        "rounds": pace.rounds,
        "seconds in a block": pace.seconds,
        "quick": quick,
        "only": only or "all",
    }
    for path in report.write(output, about, settings, sections):
        console.print(f"Written: {path}", highlight=False)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
