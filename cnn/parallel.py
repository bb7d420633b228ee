"""A batch in shards over worker threads, with the same bits for any number of workers.

NumPy lets go of Python's lock while it computes, so threads run on several cores. What is computed never
depends on which worker does it: each shard is a task of its own, on a replica of the model, and whoever asked
receives the results in the order of the shards. For the same bits, BLAS must stay on one thread
(threadpoolctl); then workers and not BLAS's threads fill the cores.
"""

import copy
import ctypes
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from queue import SimpleQueue
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cnn.checks import check_count
from cnn.layers import Sequential
from cnn.parameter import Parameter
from cnn.plan import plan

SHORT, TRIALS = 0.0015, 8  # seconds, tasks
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # names and numbers of glibc's malloc.h

Task = TypeVar("Task")
Result = TypeVar("Result")


class Replica(NamedTuple):
    """A copy of the model: the same arrays as parameters, all else its own."""

    model: Sequential
    parameters: list[Parameter]
    buffers: list[NDArray[Any]]

    @classmethod
    def of(cls, model: Sequential) -> "Replica":
        """`model` itself, with its parameters and buffers at hand."""
        return cls(model, list(model.parameters().values()), list(model.buffers().values()))


class Workers:
    """Threads that each have a replica of the model: the same parameters, all else its own.

    For the whole process, memory that is freed is kept from then on, see `keep_freed_memory`. Functions given
    to `map` must not use the same Workers: all its replicas may be busy waiting.

    Replicas are planned for speed (`cnn.plan`), which changes roundings; `planned=False` keeps the layers as
    they are, to compare. Use it in a `with` block, at whose end the threads stop.
    """

    def __init__(self, model: Sequential, workers: int = 1, *, planned: bool = True) -> None:
        self.workers = check_count("workers", workers)
        keep_freed_memory()
        self.original = Replica.of(model)
        self._replicas: SimpleQueue[Replica] = SimpleQueue()
        for _ in range(workers):
            values = {id(parameter.value): parameter.value for parameter in self.original.parameters}
            replica = copy.deepcopy(model, dict(values))  # `values` keeps those arrays from being copied
            self._replicas.put(Replica.of(plan(replica) if planned else replica))
        self._threads = ThreadPoolExecutor(workers)
        self._seconds: dict[str, list[float]] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Replica, Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """function(replica, task) for each task, in order; each replica starts from the model's state.

        No more than two tasks for each worker wait for their results to be taken, so that memory stays small.
        Tasks that take less than SHORT seconds are computed one after the other in the calling thread, where
        they are done sooner than threads could pass them on: the first calls of a function tell.
        """

        def run(task: Task) -> Result:
            replica = self._replicas.get()
            try:
                self._refresh(replica)
                return function(replica, task)
            finally:
                self._replicas.put(replica)

        seconds = self._seconds.setdefault(function.__qualname__, [])
        if self.workers == 1 or len(seconds) < TRIALS or min(seconds) < SHORT:
            for task in tasks:
                start = perf_counter()
                result = run(task)
                seconds.append(perf_counter() - start)
                del seconds[:-TRIALS]
                yield result
            return
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            context = copy_context()  # so that np.errstate, say, holds in the threads, too
            waiting.append(self._threads.submit(context.run, run, task))
            if len(waiting) > 2 * self.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def predict(self, x: Float[np.ndarray, "n *shape"], batch_size: int = 256) -> Float[np.ndarray, "n *out"]:
        """`Sequential.predict` on all workers; planned, so that roundings may differ."""
        check_count("batch_size", batch_size)

        def forward(replica: Replica, start: int) -> Float[np.ndarray, "batch *out"]:
            return replica.model.forward(np.asarray(x[start : start + batch_size]), training=False)

        return np.concatenate(list(self.map(forward, range(0, max(len(x), 1), batch_size))))

    def _refresh(self, replica: Replica) -> None:
        """The model's parameters, whose arrays may have been exchanged, and copies of its buffers."""
        for own, parameter in zip(replica.parameters, self.original.parameters, strict=True):
            own.value = parameter.value
        for own_buffer, buffer in zip(replica.buffers, self.original.buffers, strict=True):
            own_buffer[...] = buffer


@cache
def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next step, instead of giving it back to the system.

    A step needs the same arrays as the one before. By default glibc takes each large one from the system and
    gives it back, and the system clears its pages anew every time, which takes longer than many a
    computation on them. For the whole process; other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # large arrays come from the heap, too,
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # which never shrinks,
        mallopt(_M_ARENA_MAX, 1)  # and of which all threads share one
