"""Executors run tasks: in this process alone, in threads, or in copies of this process.

An executor's pool runs tasks, each a function of a worker, and yields the results in the order of the tasks.
Which worker runs which task never changes a result. For the same bits, BLAS must use one thread
(threadpoolctl); the workers, and not BLAS's threads, then use the cores.

Processes are copies of this one (fork). Threads of one process wait for Python's lock, which on small
networks takes longer than the arithmetic. Arrays are passed through shared memory.
"""

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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from itertools import islice
from mmap import mmap
from multiprocessing import Pipe
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from cnn.checks import Count, checked

TASKS_AT_ONCE = 4  # sent to a worker before its results are received
ROOM = 2**26  # bytes of shared memory for arrays in transit; the rest goes through the slower pipe
SPIN = 0.0003  # seconds of polling for a message before sleeping; waking up takes about 50 µs
_ALIGNMENT = 64  # bytes
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h

Task = Callable[[Any], Any]  # called with a worker; for processes, it must be picklable
MakeWorker = Callable[[], Any]


@runtime_checkable
class TaskPool(Protocol):
    """Workers that compute tasks, each worker one at a time."""

    def map(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """task(worker) for each task, in the order of the tasks."""
        ...

    def close(self) -> None:
        """Stop the workers."""
        ...


@runtime_checkable
class Executor(Protocol):
    """What `fit` takes: it starts a pool of workers."""

    def start(self, make_worker: MakeWorker) -> "TaskPool":
        """A pool whose workers `make_worker` creates, one call for each."""
        ...


class Serial:
    """Runs all tasks here, one after the other."""

    def start(self, make_worker: MakeWorker) -> "Pool":
        """A pool of one worker."""
        return Pool(make_worker, 1, _Thread)


class Threads:
    """Runs tasks in this thread and in `workers` − 1 others."""

    @checked
    def __init__(self, workers: Count) -> None:
        self.workers = workers

    def start(self, make_worker: MakeWorker) -> "Pool":
        """A pool of `workers` threads, this one included."""
        return Pool(make_worker, self.workers, _Thread)


class Processes(Threads):
    """Runs tasks in this process and in `workers` − 1 copies of it.

    Threads are used instead if a copy would not be safe: on systems other than Linux, outside of the main
    thread, and while other threads run. Those threads may hold locks (of BLAS, for example) that would never
    be released in the copy. The results are the same.
    """

    def start(self, make_worker: MakeWorker) -> "Pool":
        """A pool of `workers` processes, this one included, or of threads."""
        return Pool(make_worker, self.workers, _Process if can_fork() else _Thread)


def can_fork() -> bool:
    """Whether it is safe to copy this process now, from this thread."""
    alone = threading.current_thread() is threading.main_thread() and threading.active_count() == 1
    return sys.platform == "linux" and alone


class Pool:
    """Workers that run tasks: one here, the others in helpers. Use it in a `with` block.

    Helpers are created with the pool. Copies of this process see closed-over values as of the fork.
    """

    def __init__(self, make_worker: MakeWorker, workers: int, helper: "type[_Process | _Thread]") -> None:
        self.workers = workers
        self._state = "free"
        self._worker = make_worker()
        self._helpers: list[_Process | _Thread] = []
        try:
            for _ in range(workers - 1):
                self._helpers.append(helper(make_worker()))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the helpers."""
        self._state = "stopped"
        for helper in self._helpers:
            helper.close()
        self._helpers.clear()

    def map(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Yield task(worker) for each task, in order; raise a task's error in its place.

        Each worker has at most TASKS_AT_ONCE tasks at a time, so that memory stays small. Only one map can
        run at a time: RuntimeError.
        """
        if self._state != "free":
            raise RuntimeError(f"Pool.map was called while its workers are {self._state}.")
        remaining = iter(tasks)
        self._state = "busy with another map"
        try:
            while group := list(islice(remaining, self.workers * TASKS_AT_ONCE)):
                for number, helper in enumerate(self._helpers, start=1):
                    if share := group[number :: self.workers]:
                        helper.send(share)
                own = deque([attempt(task, self._worker) for task in group[:: self.workers]])
                for index in range(len(group)):
                    number = index % self.workers
                    outcome = self._helpers[number - 1].receive() if number else own.popleft()
                    yield outcome.result()
                    if self._state == "stopped":
                        raise RuntimeError("Pool.map cannot continue: its workers are stopped.")
        finally:  # leave no outcome of this map for the next one
            if self._state != "stopped":
                for helper in self._helpers:
                    helper.drain()
                self._state = "free"


def attempt(task: Task, worker: Any) -> "Outcome":
    """The outcome of task(worker), its error included."""
    try:
        return Outcome(task(worker), None)
    except Exception as error:
        return Outcome(None, error)


class WorkerLostError(RuntimeError):
    """A worker process was killed."""


class Outcome(NamedTuple):
    """The outcome of a task: its value or its error."""

    value: Any
    error: Exception | None

    def result(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value

    def sendable(self) -> "Outcome":
        """This outcome, with a note of where its error was raised; RuntimeError if it cannot be pickled."""
        if self.error is None:
            return self
        text = "".join(traceback.format_exception(self.error))
        try:
            self.error.add_note(text)
            pickle.loads(pickle.dumps(self.error))
        except Exception as error:
            message = f"A worker process cannot send the outcome of a task ({error}): an error:\n{text}"
            return Outcome(None, RuntimeError(message))
        return self


class _Process:
    """A copy of this process with a worker of its own."""

    def __init__(self, worker: Any) -> None:
        self._tasks, self._outcomes, self._waiting = _Channel(), _Channel(), 0
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._serve(worker, parent)
            finally:
                os._exit(0)  # skip the exit handlers, which belong to the parent
        self._tasks.receiver.close()
        self._outcomes.sender.close()

    def _serve(self, worker: Any, parent: int) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles these
            signal.signal(number, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # die with the parent
        if os.getppid() != parent:  # parent already gone
            return
        self._tasks.sender.close()
        self._outcomes.receiver.close()
        while True:
            try:
                message = self._tasks.wait()
            except EOFError:  # closed by the parent, or parent gone
                return
            self._outcomes.rewind()
            count = message[0]
            try:
                tasks = self._tasks.read(message)
            except Exception as error:
                text = f"A worker process cannot read its task ({type(error).__name__}: {error})."
                for _ in range(count):
                    self._send(Outcome(None, RuntimeError(text)))
                continue
            for task in tasks:
                self._send(attempt(task, worker))

    def _send(self, outcome: Outcome) -> None:
        """Send an outcome; if it cannot be pickled, send a RuntimeError that describes it."""
        outcome = outcome.sendable()
        try:
            self._outcomes.send(outcome)
        except Exception as error:
            message = f"A worker process cannot send the outcome of a task ({error}): its result."
            self._outcomes.send(Outcome(None, RuntimeError(message)))

    def send(self, tasks: list[Task]) -> None:
        """Send tasks to the process."""
        self._tasks.rewind()
        try:
            self._tasks.send(tasks, len(tasks))
        except OSError:
            raise self._lost() from None
        self._waiting += len(tasks)

    def receive(self) -> Outcome:
        """The next outcome, in the order of the tasks."""
        try:
            message = self._outcomes.wait()
        except (EOFError, OSError):  # OSError: in the middle of a message
            self._waiting = 0
            raise self._lost() from None
        except BaseException:  # Ctrl-C, perhaps in the middle of a message: nothing after it can be read
            self._waiting = 0
            self._tasks.sender.close()
            raise
        self._waiting -= 1
        outcome: Outcome = self._outcomes.read(message)
        return outcome

    def drain(self) -> None:
        """Wait for the outcomes that were not received, and discard them."""
        while self._waiting:
            self._waiting -= 1
            with suppress(EOFError, OSError):
                self._outcomes.wait()

    def close(self) -> None:
        """Kill the process."""
        self._tasks.sender.close()
        self._outcomes.receiver.close()
        with suppress(ProcessLookupError, ChildProcessError):  # already gone, if SIGCHLD is ignored
            os.kill(self._pid, signal.SIGKILL)  # it holds nothing that must be saved
            os.waitpid(self._pid, 0)

    def _lost(self) -> Exception:
        return WorkerLostError(
            "A worker process was killed before its task was done. The usual cause is a lack of memory: "
            "use fewer workers or smaller shards."
        )


class _Thread:
    """A thread with a worker of its own."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._thread = ThreadPoolExecutor(1)
        self._futures: deque[Future[Outcome]] = deque()

    def send(self, tasks: list[Task]) -> None:
        """Send tasks to the thread."""
        for task in tasks:
            context = copy_context()  # so that np.errstate, for example, also applies in the thread
            self._futures.append(self._thread.submit(context.run, attempt, task, self._worker))

    def receive(self) -> Outcome:
        """The next outcome, in the order of the tasks."""
        return self._futures.popleft().result()

    def drain(self) -> None:
        """Wait for the outcomes that were not received, and discard them."""
        while self._futures:
            self.receive()

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown()


Message = tuple[int, bytes, list[slice]]  # number of tasks or outcomes, pickled data, positions of the arrays


class _Channel:
    """A one-way channel between a process and its copy: a pipe, and shared memory for large arrays."""

    def __init__(self) -> None:
        self.receiver, self.sender = Pipe(duplex=False)
        self._room = memoryview(mmap(-1, ROOM))  # the system allocates pages when they are first written
        self._end = 0
        self._poll = select.poll()
        self._poll.register(self.receiver)

    def rewind(self) -> None:
        """Reuse the memory; everything sent before must have been received."""
        self._end = 0

    def send(self, value: Any, count: int = 1) -> None:
        """Send `value`, which stands for `count` tasks or outcomes; arrays that fit go through the memory."""
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
        self.sender.send((count, pickled, slots))

    def wait(self) -> Message:
        """Wait for a message, which `read` unpacks; EOFError if the other side is gone."""
        deadline = time.perf_counter() + SPIN
        while not self._poll.poll(0) and time.perf_counter() < deadline:
            pass
        message: Message = self.receiver.recv()
        return message

    def read(self, message: Message) -> Any:
        """The value that was sent."""
        _, pickled, slots = message
        return pickle.loads(pickled, buffers=[bytearray(self._room[slot]) for slot in slots])
