"""The other side in processes of its own: PyTorch, JAX, and a neighbour that keeps a core busy.

None of this starts a thread here: while other threads run, `cnn.Processes` could not copy this process.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ctypes.util import find_library
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.timing import Block
from cnn import keep_freed_memory

STOP_SECONDS = 5.0
ALLOCATORS = ("tcmalloc", "tcmalloc_minimal", "jemalloc")  # measured with PyTorch if the machine has them


class Peer:
    """The functions of a module of this package, called in another process, one after the other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, name)

    def _call(self, name: str, *arguments: Any) -> Any:
        self._connection.send((name, arguments))
        value, error = self._connection.recv()
        if error is not None:
            raise error
        return value

    def blocks(self) -> dict[str, Block]:
        """What was prepared last, by the names of its variants; the other process measures the time."""
        return {name: partial(self.run, name) for name in self.names()}


@contextmanager
def peer_process(
    module: str, *, keep_memory: bool = False, preload: str = "", cores: Sequence[int] = ()
) -> Iterator[Peer]:
    """Start `module` in a new process, which ends with the block.

    If wanted, the process keeps freed memory from its start, preloads a library, or may use only some cores.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, module, keep_memory, cores))
    before = os.environ.get("LD_PRELOAD", "")
    os.environ["LD_PRELOAD"] = preload or before
    process.start()
    os.environ["LD_PRELOAD"] = before
    there.close()
    try:
        yield Peer(here)
    finally:
        here.close()  # the process then ends, unless it is at work
        process.join(STOP_SECONDS)
        process.kill()


@contextmanager
def torch_processes() -> Iterator[dict[str, Peer]]:
    """PyTorch with each setting of memory: as it comes, with ours, and with allocators that are installed."""
    with ExitStack() as stack:
        start = partial(peer_process, "theirs")
        settings = {"as it comes": start(), "kept memory": start(keep_memory=True)}
        settings |= {name: start(preload=path) for name in ALLOCATORS if (path := find_library(name))}
        yield {name: stack.enter_context(process) for name, process in settings.items()}


@contextmanager
def jax_processes(threads: Sequence[int]) -> Iterator[dict[int, Peer]]:
    """JAX by the number of threads; none if it is not installed or the system cannot limit it.

    JAX starts as many threads as there are cores that its process may use.
    """
    with ExitStack() as stack:
        if find_spec("jax") is None or not hasattr(os, "sched_setaffinity"):
            yield {}
            return
        cores = sorted(os.sched_getaffinity(0))
        start = partial(peer_process, "theirs_jax", keep_memory=True)
        yield {count: stack.enter_context(start(cores=cores[:count])) for count in threads}


@contextmanager
def busy_neighbour() -> Iterator[Callable[[Block], Block]]:
    """Start a process that computes without end; yield what makes a block run beside it, not alone."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        neighbour.send_signal(signal.SIGSTOP)

        def beside(run: Block) -> Block:
            def run_beside(steps: int) -> float:
                neighbour.send_signal(signal.SIGCONT)
                try:
                    return run(steps)
                finally:
                    neighbour.send_signal(signal.SIGSTOP)

            return run_beside

        try:
            yield beside
        finally:
            neighbour.kill()


def _serve(connection: Connection, module: str, keep_memory: bool, cores: Sequence[int]) -> None:
    if keep_memory:
        keep_freed_memory()
    if cores:
        os.sched_setaffinity(0, cores)
    functions = import_module(f"benchmarks.{module}")
    with suppress(EOFError):  # this side's end
        while True:
            name, arguments = connection.recv()
            try:
                outcome = getattr(functions, name)(*arguments), None
            except Exception as error:
                error.add_note(f"In another process:\n{traceback.format_exc()}")
                outcome = None, error
            connection.send(outcome)
