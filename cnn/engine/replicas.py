"""Copies of a model on the workers of an executor."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from mmap import mmap
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cnn.checks import Whole
from cnn.engine.executors import Executor, Serial
from cnn.engine.fused import FusedConv2D
from cnn.engine.passes import PASSES, Pass, plan
from cnn.engine.ranks import RankPool, add_up
from cnn.layers import Layer
from cnn.ops.arrays import is_on_host, place, to_host, zeros


@runtime_checkable
class Rows(Protocol):
    """An array, or what gives arrays when it is indexed: for example images that are decoded when needed."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


class Replica:
    """A copy of a model on one worker, rewritten by passes; all replicas share the values of parameters."""

    def __init__(
        self, copied: Layer, passes: Sequence[Pass], states: list[NDArray[Any]], shared: Any
    ) -> None:
        self.model = plan(copied, passes)
        self.parameters = list(self.model.parameters().values())
        self.buffers = list(self.model.buffers().values())
        self.shared = shared
        self._like = next(iter([*(p.value for p in self.parameters), *self.buffers]), np.empty(0))
        self._copied, self._passes, self._states = copied, passes, states
        self._fused = _fused(self.model)
        self._version = 0

    def place(self, x: NDArray[Any]) -> NDArray[Any]:
        """x where the model is."""
        return place(x, like=self._like)

    def restore(self) -> None:
        """Return to the model's current state."""
        for own, state in zip(self.buffers, self._states, strict=True):
            own[...] = state

    def update(self, version: int) -> None:
        """Return to the model's current state; forget what depends on another version of it."""
        self.restore()
        if version != self._version:
            self._version = version
            self.__dict__.pop("for_evaluation", None)
            for layer in self._fused:
                layer.prepare()

    @cached_property
    def for_evaluation(self) -> Layer:
        """The current version of the model, for evaluation only."""
        model = plan(self._copied, self._passes, evaluation=True)
        for layer in _fused(model):
            layer.prepare()
        return model


def _fused(model: Layer) -> list[FusedConv2D]:
    return [layer for _, layer in model.walk() if isinstance(layer, FusedConv2D)]


Task = Callable[[Replica], Any]


class Replicas:
    """Copies of `model`, one on each worker of `executor`. Each task starts from the model's current state.

    `passes` (`cnn.engine.passes`) rewrite the copies, which changes rounding; without passes the layers stay
    as they are. `shared` holds what tasks refer to but cannot receive, because it is too large or cannot be
    pickled: workers see it as of the start. Use this in a `with` block; the workers stop at its end.
    """

    def __init__(
        self,
        model: Layer,
        executor: Executor | None = None,
        *,
        shared: Any = None,
        passes: Sequence[Pass] = PASSES,
    ) -> None:
        self.model = model
        self.parameters = list(model.parameters().values())
        self.buffers = list(model.buffers().values())
        self._shared, self._passes = shared, passes
        # In memory shared with copies of this process, so that they see the weights change.
        self._values = shared_copies([parameter.value for parameter in self.parameters])
        self._states = shared_copies(self.buffers)
        self._version = 0
        self._busy = False
        arrays = [*self._values, *self._states]
        if not (executor is None or isinstance(executor, Serial) or all(map(is_on_host, arrays))):
            raise ValueError(
                "A network on a device is computed by this process alone; received the executor "
                f"{type(executor).__name__}. Leave it out, or move the network to the host."
            )
        self._pool = (executor or Serial()).start(self._make_replica)
        self.add_up = self._pool.add_up if isinstance(self._pool, RankPool) else add_up

    def __enter__(self) -> "Replicas":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.close()

    def map(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Yield task(replica) for each task, in order; each starts from the model's current state.

        Only one map can run at a time: RuntimeError, at the first result.
        """
        return self._map(tasks, changed=True)

    def predict(self, x: Rows, batch_size: int = 256) -> Float[np.ndarray, "n *out"]:
        """`Sequential.predict` on all workers; the rewritten copies may round differently."""
        Whole().check("batch_size", batch_size)
        starts = range(0, max(len(x), 1), batch_size)
        batches = (partial(_predict, np.asarray(x[start : start + batch_size])) for start in starts)
        changed = not all(np.array_equal(shared, own) for shared, own in self._pairs())
        return np.concatenate(list(self._map(batches, changed=changed)))

    def _pairs(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Each array that the replicas share, and the model's own."""
        own = [*(parameter.value for parameter in self.parameters), *self.buffers]
        return zip([*self._values, *self._states], own, strict=True)

    def _map(self, tasks: Iterable[Task], *, changed: bool) -> Iterator[Any]:
        """As `map`; unless the model has changed, the replicas keep what they derived from it."""
        if self._busy:
            raise RuntimeError("Replicas.map was called while these replicas are busy with another map.")
        if changed:
            self._version += 1
            for shared, own in self._pairs():
                shared[...] = own
        self._busy = True
        try:
            yield from self._pool.map(partial(_run, task, self._version) for task in tasks)
        finally:
            self._busy = False

    def _make_replica(self) -> Replica:
        values = zip(self.parameters, self._values, strict=True)
        memo: dict[int, Any] = {id(parameter.value): shared for parameter, shared in values}
        copied = copy.deepcopy(self.model, memo)  # memo: replicas share these arrays
        return Replica(copied, self._passes, self._states, self._shared)


def _run(task: Task, version: int, replica: Replica) -> Any:
    replica.update(version)
    return task(replica)


def _predict(x: NDArray[Any], replica: Replica) -> NDArray[Any]:
    return to_host(replica.for_evaluation.forward(replica.place(x)))


def shared_copies(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Arrays of these shapes and dtypes: in memory shared with copies of this process, or on the device."""
    shared: list[NDArray[Any]] = []
    for array in arrays:
        if not is_on_host(array):
            shared.append(zeros(array.shape, like=array))
            continue
        room = mmap(-1, max(array.nbytes, 1))
        shared.append(np.frombuffer(room, array.dtype, array.size).reshape(array.shape))
    return shared
