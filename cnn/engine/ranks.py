"""An executor for several machines: all ranks of MPI run one program, and each computes a part of each batch.

All ranks call `fit` with the same arguments. Rank r of R runs the tasks r, r + R, r + 2R …; the results are
exchanged, so that every rank goes on with the same values, and takes the same step. Gradients are exchanged
in slices: with g_i the gradient of task i and θ_r the r-th of R slices of all parameters, rank r receives the
slice of every g_i and adds them in the order of the tasks, as one process does,

    g[θ_r] = ((g_0[θ_r] + g_1[θ_r]) + g_2[θ_r]) + …

and all ranks gather the sums. With one task a rank sends about twice the bytes of its gradients, however many
ranks there are. The bits are those of one process: `Allreduce` adds in an order that depends on R.

This module needs no MPI: the communicator is an argument, such as mpi4py's `MPI.COMM_WORLD`. Source: Thakur,
Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH" (2005), section 4.5:
reduce by scattering, then gather.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.engine.executors import TASKS_AT_ONCE, Executor, MakeWorker, Serial, Task, TaskPool, attempt


class Ranks:
    """Runs tasks on all ranks of an MPI `communicator`; each rank runs its share on `executor`."""

    def __init__(self, communicator: Any, executor: Executor | None = None) -> None:
        self.communicator = communicator
        self.executor: Executor = executor or Serial()
        workers = communicator.allgather(getattr(self.executor, "workers", 1))
        self.workers, self._most = sum(workers), max(workers)  # of all ranks; of one rank

    def start(self, make_worker: MakeWorker) -> "RankPool":
        """A pool over the workers of all ranks."""
        return RankPool(self.communicator, self.executor.start(make_worker), self._most)


class RankPool:
    """The workers of all ranks. Every rank must call the same methods, in the same order."""

    def __init__(self, communicator: Any, own: TaskPool, workers: int = 1) -> None:
        self.ranks, self._rank = int(communicator.Get_size()), int(communicator.Get_rank())
        self._communicator, self._own = communicator, own
        self._at_once = self.ranks * max(TASKS_AT_ONCE, workers)  # workers: the most that a rank has

    def close(self) -> None:
        """Stop this rank's workers."""
        self._own.close()

    def map(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Yield task(worker) for each task, in order, on every rank; raise a task's error in its place."""
        remaining = iter(tasks)
        while group := list(islice(remaining, self._at_once)):
            share = group[self._rank :: self.ranks]
            own = [outcome.sendable() for outcome in self._own.map(partial(attempt, task) for task in share)]
            everybody = [iter(outcomes) for outcomes in self._communicator.allgather(own)]
            for index in range(len(group)):
                yield next(everybody[index % self.ranks]).result()

    def add_up(self, groups: Sequence[Sequence[NDArray[Any]]]) -> NDArray[Any]:
        """The sum of all rows, group by group, in the first row; row i counts on the rank that ran task i.

        The sums of the groups are added first to last, and so are the rows of a group.
        """
        rows = [row for group in groups for row in group]
        if not rows[0].size:
            return rows[0]
        bounds = [len(rows[0]) * rank // self.ranks for rank in range(self.ranks + 1)]
        slices = [slice(*pair) for pair in pairwise(bounds)]
        own = slices[self._rank]
        parts = [np.empty_like(row[own]) for row in rows]
        requests = []
        for task, (row, part) in enumerate(zip(rows, parts, strict=True)):
            owner = task % self.ranks
            if owner != self._rank:
                requests.append(self._communicator.Irecv(part, owner, task))
                continue
            part[...] = row[own]
            others = (rank for rank in range(self.ranks) if rank != self._rank)
            requests += [self._communicator.Isend(row[slices[rank]], rank, task) for rank in others]
        for request in requests:
            request.Wait()
        remaining = iter(parts)
        total = add_up([[next(remaining) for _ in group] for group in groups])
        self._communicator.Allgatherv(total, [rows[0], np.diff(bounds)])
        return rows[0]


def add_up(groups: Sequence[Sequence[NDArray[Any]]]) -> NDArray[Any]:
    """The sum of all rows, group by group, first to last, in the first row."""
    return _sum([_sum(group) for group in groups])


def _sum(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The sum, first to last, in the first row."""
    total, *others = rows
    for row in others:
        total += row
    return total
