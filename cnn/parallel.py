"""A batch in shards over worker processes, with the same bits for any number of workers.

What is computed never depends on which worker does it: each shard is a task of its own, on a replica of the
model, and whoever asked receives the results in the order of the shards. For the same bits, BLAS must stay on
one thread (threadpoolctl); then workers and not BLAS's threads fill the cores.

Workers are processes, copies of this one (fork): threads of one process take turns with Python's lock, which
on small networks takes longer than the arithmetic. Arrays pass through memory that both share. Where a
process cannot safely be copied (macOS, Windows, outside of the main thread), workers are threads.
"""

import copy
import ctypes
import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import cache, partial
from itertools import islice
from mmap import mmap
from multiprocessing import Pipe
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cnn.checks import check_count
from cnn.layers import Sequential
from cnn.parameter import Parameter
from cnn.plan import plan

FORK = sys.platform == "linux"
TASKS_AT_ONCE = 4  # that a worker is given before results are taken
ROOM = 2**24  # bytes of arrays on their way to or from a helper; what is beyond takes the slower pipe
SPIN = 0.0003  # seconds of asking for a message before sleeping, from which it takes some 50 µs to wake
_ALIGNMENT = 64  # bytes
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # names and numbers of glibc's malloc.h

Task = TypeVar("Task")
Result = TypeVar("Result")


class Replica(NamedTuple):
    """A copy of the model, with its parameters and buffers at hand."""

    model: Sequential
    parameters: list[Parameter]
    buffers: list[NDArray[Any]]

    @classmethod
    def of(cls, model: Sequential) -> "Replica":
        """`model` itself."""
        return cls(model, list(model.parameters().values()), list(model.buffers().values()))


class Workers:
    """Several replicas of the model at work: one here, the others in helpers.

    For the whole process, memory that is freed is kept from then on, see `keep_freed_memory`. Replicas are
    planned for speed (`cnn.plan`), which changes roundings; `planned=False` keeps the layers as they are, to
    compare. Use it in a `with` block, at whose end the helpers stop.
    """

    def __init__(self, model: Sequential, workers: int = 1, *, planned: bool = True) -> None:
        self.workers = check_count("workers", workers)
        keep_freed_memory()
        self.original = Replica.of(model)
        self._planned = planned
        self._values = _shared_copies([parameter.value for parameter in self.original.parameters])
        self._buffers = _shared_copies(self.original.buffers)
        self._replica = self._make_replica()
        self._helpers: dict[Callable[..., Any], list[_Process | _Thread]] = {}
        self._state = "free"

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for helpers in self._helpers.values():
            for helper in helpers:
                helper.close()
        self._helpers.clear()
        self._state = "stopped"

    def map(self, function: Callable[[Replica, Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """function(replica, task) for each task, in order; each replica starts from the model's state.

        A function's helpers are made when it first comes, and stay, so give the same one each time. They
        know what it refers to as it was then; tasks and results are passed by pickle. Each worker has up to
        TASKS_AT_ONCE tasks at a time, so that memory stays small. One map at a time: RuntimeError.
        """
        if self._state != "free":
            raise RuntimeError(f"Workers.map was called while these workers are {self._state}.")
        for value, parameter in zip(self._values, self.original.parameters, strict=True):
            value[...] = parameter.value
        for copied, buffer in zip(self._buffers, self.original.buffers, strict=True):
            copied[...] = buffer
        helpers = self._helpers.setdefault(function, [])
        remaining = iter(tasks)
        self._state = "busy with another map"
        try:
            while group := list(islice(remaining, self.workers * TASKS_AT_ONCE)):
                busy = min(self.workers, len(group))
                while len(helpers) < busy - 1:
                    helpers.append(_helper(partial(self._run, function, self._make_replica())))
                for number in range(1, busy):
                    helpers[number - 1].send(group[number::busy])
                own = deque([self._run(function, self._replica, task) for task in group[::busy]])
                for index in range(len(group)):
                    number = index % busy
                    outcome = helpers[number - 1].receive() if number else own.popleft()
                    yield outcome.result()
        finally:  # whatever happened, the next map finds no outcome of this one
            for helper in helpers:
                helper.drain()
            self._state = "free"

    def predict(self, x: Float[np.ndarray, "n *shape"], batch_size: int = 256) -> Float[np.ndarray, "n *out"]:
        """`Sequential.predict` on all workers; planned, so that roundings may differ."""
        check_count("batch_size", batch_size)
        starts = range(0, max(len(x), 1), batch_size)
        batches = (np.asarray(x[start : start + batch_size]) for start in starts)
        return np.concatenate(list(self.map(_forward, batches)))

    def _make_replica(self) -> Replica:
        values = zip(self.original.parameters, self._values, strict=True)
        model = copy.deepcopy(  # to which these arrays pass for copied already
            self.original.model, {id(parameter.value): value for parameter, value in values}
        )
        return Replica.of(plan(model) if self._planned else model)

    def _run(self, function: Callable[[Replica, Task], Result], replica: Replica, task: Task) -> "_Outcome":
        for own, buffer in zip(replica.buffers, self._buffers, strict=True):
            own[...] = buffer
        try:
            return _Outcome(function(replica, task), None)
        except Exception as error:
            return _Outcome(None, error)


class WorkerLostError(RuntimeError):
    """A worker process was killed."""


class _Outcome(NamedTuple):
    """What a task came to."""

    value: Any
    error: Exception | None

    def result(self) -> Any:
        """The value; the error is raised."""
        if self.error is not None:
            raise self.error
        return self.value


class _Process:
    """A copy of this process that computes `run(task)` for tasks it is sent, until it is closed."""

    def __init__(self, run: Callable[[Any], _Outcome]) -> None:
        self._tasks, self._outcomes, self._waiting = _Channel(), _Channel(), 0
        front = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._serve(run, front)
            finally:
                os._exit(0)  # nothing of what this process would do at its end is the copy's to do
        self._tasks.receiver.close()
        self._outcomes.sender.close()

    def _serve(self, run: Callable[[Any], _Outcome], front: int) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # they are for the process in front,
            signal.signal(number, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # with which this one ends, too
        if os.getppid() != front:  # it already has
            return
        self._tasks.sender.close()
        self._outcomes.receiver.close()
        while True:
            try:
                tasks = self._tasks.read(self._tasks.wait())
            except EOFError:  # the process in front closed it, or is no more
                return
            self._outcomes.rewind()
            for task in tasks:
                self._send(run(task))

    def _send(self, outcome: _Outcome) -> None:
        """Also what pickle cannot carry, in words; and an error's traceback, which it never carries."""
        text = "" if outcome.error is None else "".join(traceback.format_exception(outcome.error))
        try:
            if outcome.error is not None:
                outcome.error.add_note(text)
                pickle.loads(pickle.dumps(outcome.error))
            self._outcomes.send(outcome)
        except Exception as error:
            what = f"an error:\n{text}" if text else "its result."
            message = f"A worker process cannot pass on what came of a task ({error}): {what}"
            self._outcomes.send(_Outcome(None, RuntimeError(message)))

    def send(self, tasks: list[Any]) -> None:
        """Begin with these."""
        self._tasks.rewind()
        try:
            self._tasks.send(tasks)
        except OSError:
            raise self._lost() from None
        self._waiting += len(tasks)

    def receive(self) -> _Outcome:
        """The next outcome, in the order of the tasks."""
        try:
            message = self._outcomes.wait()
        except (EOFError, OSError):  # the latter in the midst of a message
            self._waiting = 0
            raise self._lost() from None
        self._waiting -= 1
        outcome: _Outcome = self._outcomes.read(message)
        return outcome

    def drain(self) -> None:
        """Wait for the outcomes that nobody took."""
        while self._waiting:
            self._waiting -= 1
            with suppress(EOFError, OSError):
                self._outcomes.wait()

    def close(self) -> None:
        """End the process."""
        self._tasks.sender.close()
        self._outcomes.receiver.close()
        with suppress(ProcessLookupError, ChildProcessError):  # gone, where SIGCHLD is ignored
            os.kill(self._pid, signal.SIGKILL)  # it holds nothing that could be lost
            os.waitpid(self._pid, 0)

    def _lost(self) -> Exception:
        return WorkerLostError(
            "A worker process was killed before its task was done. Often the system has run out of memory: "
            "fewer workers, or smaller shards, need less."
        )


class _Thread:
    """The same in a thread."""

    def __init__(self, run: Callable[[Any], _Outcome]) -> None:
        self._run = run
        self._thread = ThreadPoolExecutor(1)
        self._futures: deque[Future[_Outcome]] = deque()

    def send(self, tasks: list[Any]) -> None:
        """Begin with these."""
        for task in tasks:
            context = copy_context()  # so that np.errstate, say, holds in the thread, too
            self._futures.append(self._thread.submit(context.run, self._run, task))

    def receive(self) -> _Outcome:
        """The next outcome, in the order of the tasks."""
        return self._futures.popleft().result()

    def drain(self) -> None:
        """Wait for the outcomes that nobody took."""
        while self._futures:
            self.receive()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


def _helper(run: Callable[[Any], _Outcome]) -> _Process | _Thread:
    """A process where copies are safe: on Linux, and in the main thread, since others may be busy in BLAS."""
    safe = FORK and threading.current_thread() is threading.main_thread()
    return _Process(run) if safe else _Thread(run)


class _Channel:
    """One way from a process to its copy or back: a pipe, and beside it memory of both for large arrays."""

    def __init__(self) -> None:
        self.receiver, self.sender = Pipe(duplex=False)
        self._room = memoryview(mmap(-1, ROOM))  # the system gives pages as they are first written
        self._end = 0
        self._poll = select.poll()
        self._poll.register(self.receiver)

    def rewind(self) -> None:
        """Use the memory anew; what was sent before must have been received."""
        self._end = 0

    def send(self, value: Any) -> None:
        """Send what pickle can; arrays through the memory as long as there is room."""
        slots: list[slice] = []

        def takes_pipe(array: pickle.PickleBuffer) -> bool:
            raw = array.raw()
            slot = slice(self._end, self._end + raw.nbytes)
            if slot.stop > len(self._room):
                return True
            self._room[slot] = raw
            self._end = -(-slot.stop // _ALIGNMENT) * _ALIGNMENT
            slots.append(slot)
            return False

        pickled = pickle.dumps(value, protocol=5, buffer_callback=takes_pipe)
        self.sender.send((pickled, slots))

    def wait(self) -> tuple[bytes, list[slice]]:
        """Wait for what was sent, for `read` to unpack; EOFError when the other side is no more."""
        deadline = time.perf_counter() + SPIN
        while not self._poll.poll(0) and time.perf_counter() < deadline:
            pass
        message: tuple[bytes, list[slice]] = self.receiver.recv()
        return message

    def read(self, message: tuple[bytes, list[slice]]) -> Any:
        """What was sent."""
        pickled, slots = message
        return pickle.loads(pickled, buffers=[bytearray(self._room[slot]) for slot in slots])


def _shared_copies(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Arrays like these, in memory that copies of this process share with it."""
    shared = []
    for array in arrays:
        room = mmap(-1, max(array.nbytes, 1))
        shared.append(np.frombuffer(room, array.dtype, array.size).reshape(array.shape))
    return shared


def _forward(replica: Replica, x: NDArray[Any]) -> NDArray[Any]:
    return replica.model.forward(x, training=False)


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
