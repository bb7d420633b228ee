"""PyTorch in a process of its own."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from benchmarks.timing import Block


class Torch:
    """The functions of `benchmarks.theirs`, called in another process, one after the other."""

    def __init__(self, process: ProcessPoolExecutor) -> None:
        self._process = process

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: self._process.submit(_call, name, arguments).result()

    def blocks(self) -> dict[str, Block]:
        """What was prepared last, once for each memory layout; the other process measures the time."""
        return {
            layout: lambda steps, layout=layout: self.run(layout, steps)
            for layout in ("NCHW", "channels_last")
        }


@contextmanager
def torch_process() -> Iterator[Torch]:
    """Start PyTorch in a new process, which ends with the block."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield Torch(process)


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(import_module("benchmarks.theirs"), name)(*arguments)
