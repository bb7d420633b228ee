"""Ranks: several programs that each compute a part, here in threads with a communicator of their own."""

import threading
from collections import defaultdict
from queue import SimpleQueue

import numpy as np
import pytest

from cnn import (
    Adam,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Examples,
    Flatten,
    Ranks,
    ReLU,
    Sequential,
    Threads,
    fit,
)
from cnn.engine.executors import Serial
from cnn.engine.ranks import RankPool
from cnn.engine.replicas import Replicas
from cnn.engine.shards import LANES

PATIENCE = 20  # seconds; if one thread fails, the others would wait forever


class World:
    """What the ranks share: messages, and a place where all meet."""

    def __init__(self, size):
        self.size, self.messages = size, defaultdict(SimpleQueue)
        self.barrier, self.board = threading.Barrier(size, timeout=PATIENCE), [None] * size
        self.sent = 0


class Communicator:
    """The part of mpi4py's interface that `Ranks` uses, for one of several threads."""

    def __init__(self, world, rank):
        self.world, self.rank = world, rank

    def Get_size(self):  # noqa: N802
        return self.world.size

    def Get_rank(self):  # noqa: N802
        return self.rank

    def allgather(self, value):
        self.world.board[self.rank] = value
        self.world.barrier.wait()
        values = list(self.world.board)
        self.world.barrier.wait()
        return values

    def Isend(self, array, to, tag):  # noqa: N802
        assert array.flags.c_contiguous
        self.world.sent += array.nbytes
        self.world.messages[self.rank, to, tag].put(array.copy())
        return Request(lambda: None)

    def Irecv(self, array, source, tag):  # noqa: N802
        assert array.flags.c_contiguous

        def receive():
            array[...] = self.world.messages[source, self.rank, tag].get(timeout=PATIENCE)

        return Request(receive)

    def Allgatherv(self, own, into):  # noqa: N802
        array, counts = into
        parts = self.allgather(own.copy())
        assert [part.size for part in parts] == list(counts)
        array[...] = np.concatenate(parts)


class Request:
    def __init__(self, wait):
        self.Wait = wait


def on_ranks(size, program):
    """[program(communicator) for each rank], all at the same time; the first error is raised."""
    world = World(size)
    outcomes = [None] * size

    def run(rank):
        try:
            outcomes[rank] = program(Communicator(world, rank))
        except BaseException as error:
            outcomes[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def network():
    rng = np.random.default_rng(0)
    layers = [
        Conv2D(1, 3, 3, rng=rng),
        BatchNorm(3),
        ReLU(),
        Flatten(),
        Dropout(0.3),
        Dense(108, 10, rng=rng),
    ]
    return Sequential(layers)


def examples(count):
    rng = np.random.default_rng(1)
    images = rng.random((count, 8, 8, 1), dtype=np.float32)
    return Examples(images, np.eye(10, dtype=np.float32)[rng.integers(0, 10, count)])


def train(executor):
    """The reports and the state's bytes after an epoch whose last batch is smaller, and has one shard."""
    model, data = network(), examples(51)
    reports = fit(
        model,
        data,
        data,
        optimizer=Adam(model.parameters(), 0.01),
        epochs=1,
        batch_size=48,
        shard_size=5,
        executor=executor,
    )
    return (*reports, *(array.tobytes() for array in model.state_dict().values()))


@pytest.mark.parametrize("ranks", [1, 2, 3, LANES, LANES + 1, 8, 13])
def test_every_rank_ends_with_the_bytes_of_one_process(ranks):
    alone = train(None)
    assert on_ranks(ranks, lambda communicator: train(Ranks(communicator))) == [alone] * ranks


def test_ranks_with_workers_of_their_own_give_the_same_bytes():
    assert on_ranks(2, lambda communicator: train(Ranks(communicator, Threads(2)))) == [train(None)] * 2


@pytest.mark.parametrize("ranks", [2, 5])
def test_the_sum_is_taken_in_the_order_of_the_tasks(ranks):
    rng = np.random.default_rng(2)
    rows = [(rng.standard_normal(11) * 10.0 ** rng.integers(-3, 4)).astype(np.float32) for _ in range(7)]

    def add_up(communicator):
        pool = RankPool(communicator, Serial().start(lambda: None))
        own = [
            row.copy() if task % ranks == communicator.rank else np.full_like(row, np.nan)
            for task, row in enumerate(rows)
        ]
        return pool.add_up([own[:3], own[3:5], own[5:]])

    lanes = [(rows[0] + rows[1]) + rows[2], rows[3] + rows[4], rows[5] + rows[6]]
    expected = (lanes[0] + lanes[1]) + lanes[2]
    assert not np.array_equal(expected, sum(rows))  # so that another order would be seen
    for result in on_ranks(ranks, add_up):
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_rank_sends_at_most_its_slices_and_its_part_of_the_sum(ranks):
    world, numbers = World(ranks), 1000 * ranks

    def add_up(rank):
        pool = RankPool(Communicator(world, rank), Serial().start(lambda: None))
        pool.add_up([[np.ones(numbers, np.float32) for _ in range(ranks)]])

    threads = [threading.Thread(target=add_up, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.sent == 4 * numbers * (ranks - 1)  # of all ranks; gathering the sums adds the same


def test_predictions_are_those_of_one_process_on_every_rank():
    model, images = network(), examples(40).images

    def predict(communicator):
        with Replicas(network(), Ranks(communicator)) as replicas:
            return replicas.predict(images, batch_size=7)

    with Replicas(model) as replicas:
        expected = replicas.predict(images, batch_size=7)
    for outputs in on_ranks(3, predict):
        assert np.array_equal(outputs, expected)


class UnsendableError(Exception):
    def __init__(self):
        super().__init__("no")
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("error", "expected"), [(KeyError("7"), KeyError), (UnsendableError(), RuntimeError)]
)
def test_an_error_of_one_rank_is_raised_on_all_in_its_place(error, expected):
    def fail(task, worker):
        if task == 4:
            raise error
        return task

    def program(communicator):
        pool, done = Ranks(communicator).start(lambda: None), []
        with pytest.raises(expected):
            done.extend(pool.map(lambda worker, task=task: fail(task, worker) for task in range(9)))
        return done

    assert on_ranks(3, program) == [[0, 1, 2, 3]] * 3
