"""Workers: the same bits for any number of them, be they processes or threads, and nothing lost on the way."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import sleep, time

import numpy as np
import pytest

from cnn import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Examples,
    Flatten,
    MaxPool2D,
    MovingAverage,
    ReLU,
    Sequential,
    augmentation,
    fit,
    parallel,
    softmax_cross_entropy,
)
from cnn.gradients import Gradients
from cnn.optimizers import Adam
from cnn.parallel import Workers
from cnn.schedules import constant


def network(dtype=np.float32):
    rng = np.random.default_rng(0)
    return Sequential(
        [
            Conv2D(1, 4, 3, rng=rng, dtype=dtype),
            BatchNorm(4, dtype=dtype),
            ReLU(),
            MaxPool2D(2),
            Dropout(0.2),
            Flatten(),
            Dense(36, 10, rng=rng, dtype=dtype),
        ]
    )


def examples(count):
    rng = np.random.default_rng(1)
    return Examples(
        rng.random((count, 8, 8, 1), dtype=np.float32), np.eye(10, dtype=np.float32)[np.arange(count) % 10]
    )


needs_fork = pytest.mark.skipif(not parallel.FORK, reason="workers are threads on this system")


@pytest.fixture(params=["processes", "threads"])
def kind(request, monkeypatch):
    """Runs a test with both kinds of helpers."""
    if request.param == "threads":
        monkeypatch.setattr(parallel, "FORK", False)
    elif not parallel.FORK:
        pytest.skip("workers are threads on this system")
    return request.param


def test_an_epoch_gives_the_same_bytes_with_1_2_3_and_4_workers(kind):
    data, states = examples(100), []
    for workers in (1, 2, 3, 4):
        model = network()
        (report,) = fit(
            model,
            softmax_cross_entropy,
            Adam(model.parameters(), 0.01),
            constant(0.01),
            data,
            data,
            epochs=1,
            batch_size=24,
            shard_size=5,
            seed=0,
            workers=workers,
            augment=lambda images, rng: augmentation.random_shift(images, rng, 1.0),
            moving_average=MovingAverage(model.parameters(), 0.5),
        )
        states.append((report, *(array.tobytes() for array in model.state_dict().values())))
    assert states[0] == states[1] == states[2] == states[3]


def square(replica, task):
    return task * task


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_results_come_in_the_order_of_the_tasks(kind, workers, count):
    def slowest_first(replica, task):
        sleep(0.002 * (task % 3 == 0))
        return task * task

    with Workers(network(), workers) as pool:
        assert list(pool.map(slowest_first, range(count))) == [task * task for task in range(count)]


def test_helpers_take_their_part(kind):
    with Workers(network(), 3) as pool:
        where = list(pool.map(lambda replica, task: (os.getpid(), threading.get_ident()), range(12)))
    assert len(set(where)) == 3
    assert where[::3] == [(os.getpid(), threading.get_ident())] * 4


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_reaches_the_caller_and_the_next_tasks_are_not_touched(kind, workers, failing):
    def fail(replica, task):
        if task >= failing:
            raise ZeroDivisionError(str(task))
        return task

    with Workers(network(), workers) as pool:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match=f"^{failing}"):
                list(pool.map(fail, range(5)))
        assert list(pool.map(square, range(3))) == [0, 1, 4]


def test_an_error_in_a_worker_process_says_where_it_came_from():
    with Workers(network(), 2) as pool, pytest.raises(ZeroDivisionError) as caught:
        list(pool.map(lambda replica, task: 1 / (1 - task), range(2)))
    assert any("<lambda>" in note for note in caught.value.__notes__)


class AwkwardError(Exception):
    """Pickle can write it and not read it."""

    def __init__(self, one, other):
        super().__init__(f"{one} {other}")


@needs_fork
@pytest.mark.parametrize("what", ["an error that cannot be read", "an error that cannot be sent", "a lambda"])
def test_what_cannot_be_passed_on_is_told_and_blocks_nothing(what):
    class LocalError(Exception):
        pass

    def fail(replica, task):
        if task == 1 and what == "an error that cannot be read":
            raise AwkwardError("bad", task)
        if task == 1 and what == "an error that cannot be sent":
            raise LocalError("bad 1")
        return (lambda: None) if task == 1 else task

    expected = r"an error:\n(.|\n)*bad 1" if "error" in what else "its result"
    with Workers(network(), 2) as pool:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="A worker process cannot pass on .*" + expected):
                list(pool.map(fail, range(4)))
        assert list(pool.map(square, range(3))) == [0, 1, 4]


def test_two_maps_at_once_are_refused(kind):
    with Workers(network(), 2) as pool:
        one = pool.map(square, range(30))
        assert next(one) == 0
        with pytest.raises(RuntimeError, match="called while these workers are busy with another map"):
            list(pool.map(square, range(3)))
        assert list(one) == [task * task for task in range(1, 30)]
        assert list(pool.map(square, range(3))) == [0, 1, 4]
    with pytest.raises(RuntimeError, match="called while these workers are stopped"):
        list(pool.map(square, range(3)))


def test_no_more_helpers_are_made_than_there_are_tasks(kind):
    with Workers(network(), 16) as pool:
        assert list(pool.map(square, range(3))) == [0, 1, 4]
        assert len(pool._helpers[square]) == 2


@needs_fork
def test_outside_of_the_main_thread_workers_are_threads():
    pids = []

    def work():
        with Workers(network(), 2) as pool:
            pids.extend(pool.map(lambda replica, task: os.getpid(), range(2)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert pids == [os.getpid()] * 2


def test_gradients_keep_the_dtypes_of_their_parameters():
    rng = np.random.default_rng(0)
    layers = [Flatten(), Dense(64, 5, rng=rng), Dense(5, 10, rng=rng, dtype=np.float64)]
    model = Sequential(layers)
    with Workers(model, 2) as pool:
        Gradients(pool, softmax_cross_entropy, examples(4), 2)(np.arange(4))
    assert [parameter.grad.dtype for parameter in model.parameters().values()] == [
        *(np.float32, np.float32),
        *(np.float64, np.float64),
    ]


def test_results_that_nobody_took_are_not_taken_for_later_ones(kind):
    with Workers(network(), 2) as pool:
        next(pool.map(square, range(8)))
        assert list(pool.map(square, range(10, 12))) == [100, 121]


def test_arrays_too_large_for_the_shared_memory_arrive_whole(kind, monkeypatch):
    monkeypatch.setattr(parallel, "ROOM", 1000)
    tasks = [np.arange(count, dtype=np.float64) for count in (10, 200, 100_000, 5, 1)]
    with Workers(network(), 2) as pool:
        results = list(pool.map(lambda replica, task: task + 1, tasks))
    for result, task in zip(results, tasks, strict=True):
        np.testing.assert_array_equal(result, task + 1)


@needs_fork
def test_a_worker_process_that_is_killed_is_reported():
    def die(replica, task):
        if task == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with Workers(network(), 2) as pool:
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"A worker process was killed .*fewer workers"):
                list(pool.map(die, range(2)))


@needs_fork
def test_a_worker_process_that_is_killed_while_it_answers_is_reported(monkeypatch):
    monkeypatch.setattr(parallel, "ROOM", 1000)
    pids = []

    def answer(replica, task):
        if task == "who":
            return os.getpid()
        if task == "large":  # too large for the pipe, where half of it waits to be read
            return np.zeros(2**20)
        sleep(0.5)
        return os.kill(pids[0], signal.SIGKILL)

    with Workers(network(), 2) as pool:
        pids += set(pool.map(answer, ["who", "who"])) - {os.getpid()}
        with pytest.raises(parallel.WorkerLostError, match="A worker process was killed"):
            list(pool.map(answer, ["kill", "large"]))


@needs_fork
def test_workers_end_well_where_the_system_forgets_ended_processes():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Workers(network(), 2) as pool:
            assert list(pool.map(lambda replica, task: task, range(4))) == [0, 1, 2, 3]
    finally:
        signal.signal(signal.SIGCHLD, before)


@needs_fork
def test_no_worker_process_is_left_behind():
    with Workers(network(), 3) as pool:
        pids = set(pool.map(lambda replica, task: os.getpid(), range(3))) - {os.getpid()}
        assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@needs_fork
def test_worker_processes_end_with_the_process_they_work_for():
    program = """
import os, sys, time
sys.path[:0] = ["tests/cnn", "tests", "."]
from test_parallel import network
from cnn.parallel import Workers
with Workers(network(), 3) as pool:
    for function in (lambda replica, task: os.getpid(), lambda replica, task: -os.getpid()):
        print(*pool.map(function, range(3)), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        pids = {abs(int(pid)) for _ in range(2) for pid in process.stdout.readline().split()} - {process.pid}
        process.kill()
    assert len(pids) == 4
    deadline = time() + 10
    while any(is_running(pid) for pid in pids) and time() < deadline:
        sleep(0.01)
    assert not any(is_running(pid) for pid in pids)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("count", [0, 1, 7, 50])
def test_predict_is_that_of_the_model(kind, count):
    model, x = network(np.float64), examples(50).images[:count].astype(np.float64)
    with Workers(model, 2) as workers:
        y = workers.predict(x, batch_size=8)
    np.testing.assert_allclose(y, model.predict(x), rtol=1e-12, atol=1e-15)
    assert y.shape == (count, 10)


def test_replicas_see_weights_that_change_and_averages_that_stand_in_for_them(kind):
    model, x = network(), examples(5).images
    average = MovingAverage(model.parameters(), 0.5)
    with Workers(model, 2, planned=False) as workers:
        for parameter in model.parameters().values():
            parameter.value += 1
        model.layers[1].running_mean[...] = 3
        np.testing.assert_array_equal(workers.predict(x), model.predict(x))
        with average.applied():
            averaged = workers.predict(x)
        np.testing.assert_array_equal(workers.predict(x), model.predict(x))
        assert not np.array_equal(averaged, model.predict(x))


def test_a_task_changes_no_state_of_the_model(kind):
    model = network()
    before = model.state_dict()

    def train(replica, task):
        return replica.model.forward(examples(5).images, training=True, rng=np.random.default_rng(0))

    with Workers(model, 2) as workers:
        one, other = workers.map(train, range(2))
    np.testing.assert_array_equal(one, other)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_numpys_error_state_holds_in_helpers(kind):
    with Workers(network(), 2) as workers, np.errstate(over="raise"), pytest.raises(FloatingPointError):
        list(workers.map(lambda model, task: np.float32(1e38) * np.array([1e38], np.float32), range(2)))


def test_the_number_of_workers_is_a_whole_number():
    with pytest.raises(ValueError, match=r"^workers must be a whole number >= 1; received 0\.$"):
        Workers(network(), 0)
