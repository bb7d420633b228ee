"""Executors: the same bits for any number of workers, processes or threads, and no result is lost."""

import os
import signal
import subprocess
import sys
import threading
from functools import partial
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
    GlobalAvgPool2D,
    MaxPool2D,
    MovingAverage,
    Processes,
    ReLU,
    Sequential,
    Serial,
    Threads,
    augmentation,
    fit,
    softmax_cross_entropy,
)
from cnn.engine import executors
from cnn.engine import replicas as replicas_module
from cnn.engine.passes import plan
from cnn.engine.replicas import Replicas
from cnn.engine.shards import ShardedGradients
from cnn.optimizers import Adam


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


AUGMENT = augmentation.compose(
    partial(augmentation.random_shift, pixels=1.0),
    partial(augmentation.random_rotation, degrees=5.0),
    partial(augmentation.random_crop, padding=1),
    partial(augmentation.alternating_flip, on=True),
    partial(augmentation.random_contrast, fraction=0.2),
    partial(augmentation.random_erasing, probability=0.3),
)
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="workers are threads on this system")


@pytest.fixture
def forking(monkeypatch):
    """Lets Processes copy this process although the threads that run tests in parallel are alive."""
    monkeypatch.setattr(executors, "can_fork", lambda: True)


@pytest.fixture(params=[Processes, Threads])
def kind(request, forking):
    """Runs a test with both kinds of helpers."""
    if request.param is Processes and sys.platform != "linux":
        pytest.skip("workers are threads on this system")
    return request.param


def run(replicas, function, tasks):
    """function(task, replica) for each task; the function is sent to processes by its name."""
    return replicas.map(partial(function, task) for task in tasks)


def shared(task, replica):
    """Apply the function that the replicas share to the task: a closure could not be sent."""
    return replica.shared(task, replica)


def test_an_epoch_gives_the_same_bytes_with_every_executor(forking):
    data, states = examples(100), []
    for executor in (None, Serial(), Threads(2), Threads(4), Processes(2), Processes(3)):
        model = network()
        reports = fit(
            model,
            data,
            data,
            optimizer=Adam(model.parameters(), 0.01),
            epochs=2,
            batch_size=24,
            shard_size=5,
            executor=executor,
            augment=AUGMENT,
            moving_average=MovingAverage(model.parameters(), 0.5),
        )
        states.append((*reports, *(array.tobytes() for array in model.state_dict().values())))
    assert all(state == states[0] for state in states)


def square(task, replica):
    return task * task


def square_slowest_first(task, replica):
    sleep(0.002 * (task % 3 == 0))
    return task * task


def where_am_i(task, replica):
    return os.getpid(), threading.get_ident()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_results_come_in_the_order_of_the_tasks(kind, workers, count):
    with Replicas(network(), kind(workers)) as pool:
        assert list(run(pool, square_slowest_first, range(count))) == [task * task for task in range(count)]


def test_helpers_take_their_part(kind):
    with Replicas(network(), kind(3)) as pool:
        where = list(run(pool, where_am_i, range(12)))
        assert list(run(pool, where_am_i, range(12))) == where  # the same workers each time
    assert len(set(where)) == 3
    assert len({pid for pid, _ in where}) == (3 if kind is Processes else 1)
    assert where[::3] == [(os.getpid(), threading.get_ident())] * 4


def test_serial_is_this_thread_alone():
    with Replicas(network(), Serial()) as pool:
        assert set(run(pool, where_am_i, range(9))) == {(os.getpid(), threading.get_ident())}
    assert Replicas(network())._pool.workers == 1


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_reaches_the_caller_and_the_next_tasks_are_not_touched(kind, workers, failing):
    def fail(task, replica):
        if task >= failing:
            raise ZeroDivisionError(str(task))
        return task

    with Replicas(network(), kind(workers), shared=fail) as pool:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match=f"^{failing}"):
                list(run(pool, shared, range(5)))
        assert list(run(pool, square, range(3))) == [0, 1, 4]


def divide(task, replica):
    return 1 / (1 - task)


@needs_fork
def test_an_error_in_a_worker_process_says_where_it_came_from(forking):
    with Replicas(network(), Processes(2)) as pool, pytest.raises(ZeroDivisionError) as caught:
        list(run(pool, divide, range(2)))
    assert any("in divide" in note for note in caught.value.__notes__)


class AwkwardError(Exception):
    """Pickle can write it, but not read it."""

    def __init__(self, one, other):
        super().__init__(f"{one} {other}")


@needs_fork
@pytest.mark.parametrize("what", ["an error that cannot be read", "an error that cannot be sent", "a lambda"])
def test_what_cannot_be_passed_on_is_reported_and_blocks_nothing(forking, what):
    class LocalError(Exception):
        pass

    def fail(task, replica):
        if task == 1 and what == "an error that cannot be read":
            raise AwkwardError("bad", task)
        if task == 1 and what == "an error that cannot be sent":
            raise LocalError("bad 1")
        return (lambda: None) if task == 1 else task

    expected = r"an error:\n(.|\n)*bad 1" if "error" in what else "its result"
    with Replicas(network(), Processes(2), shared=fail) as pool:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="A worker process cannot send .*" + expected):
                list(run(pool, shared, range(4)))
        assert list(run(pool, square, range(3))) == [0, 1, 4]


class UnreadableTask:
    """Pickle can write it, but not read it."""

    def __call__(self, replica):
        return "unread"

    def __reduce__(self):
        return divide, (1, None)


@needs_fork
def test_a_task_that_cannot_be_read_is_reported_as_such_and_blocks_nothing(forking):
    with Replicas(network(), Processes(2)) as pool:
        for _ in range(2):
            message = r"^A worker process cannot read its task \(ZeroDivisionError: "
            with pytest.raises(RuntimeError, match=message):
                list(pool.map([UnreadableTask()] * 6))
        assert list(run(pool, square, range(3))) == [0, 1, 4]


@needs_fork
def test_a_task_that_cannot_be_sent_is_reported_and_blocks_nothing(forking):
    with Replicas(network(), Processes(3)) as pool:
        for _ in range(2):
            with pytest.raises((AttributeError, TypeError, executors.pickle.PicklingError), match="lambda"):
                list(pool.map([partial(square, 7), partial(square, 8), lambda replica: 9]))
        assert list(run(pool, square, range(4))) == [0, 1, 4, 9]


def test_two_maps_at_once_are_refused(kind):
    with Replicas(network(), kind(2)) as pool:
        one = run(pool, square, range(30))
        assert next(one) == 0
        with pytest.raises(RuntimeError, match="called while these replicas are busy with another map"):
            list(run(pool, square, range(3)))
        assert list(one) == [task * task for task in range(1, 30)]
        assert list(run(pool, square, range(3))) == [0, 1, 4]
    with pytest.raises(RuntimeError, match="called while its workers are stopped"):
        list(run(pool, square, range(3)))


def first_weight(task, replica):
    return float(replica.parameters[0].value.flat[0])


def test_a_map_that_is_refused_changes_nothing_of_the_one_that_goes_on(kind):
    model = network()
    with Replicas(model, kind(2)) as pool:
        one = run(pool, first_weight, range(30))
        before = next(one)
        model.parameters()["0.kernel"].value += 1
        with pytest.raises(RuntimeError, match="busy with another map"):
            list(run(pool, first_weight, range(3)))
        assert set(one) == {before}
        assert set(run(pool, first_weight, range(3))) != {before}


@pytest.mark.parametrize("go_on", [False, True])
def test_a_suspended_map_that_is_ended_after_the_pool_does_not_bring_it_to_life(kind, go_on):
    with Replicas(network(), kind(2)) as pool:
        suspended = run(pool, square, range(30))
        assert next(suspended) == 0
    if go_on:
        with pytest.raises(RuntimeError, match="its workers are stopped"):
            next(suspended)
    suspended.close()
    with pytest.raises(RuntimeError, match="called while its workers are stopped"):
        list(run(pool, square, range(3)))


PIDS = """
import os, sys, threading
sys.path[:0] = ["tests/cnn", "tests", "."]
from cnn import Processes
from cnn.engine.replicas import Replicas
from test_executors import network, run, where_am_i

def pids():
    with Replicas(network(), Processes(2)) as pool:
        return len({pid for pid, _ in run(pool, where_am_i, range(2))})
"""


def printed(program, timeout=60):
    """The output of a Python process of its own: in this one, threads that run tests may be alive."""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout, check=True
    )
    return result.stdout.split()


@needs_fork
def test_processes_are_threads_outside_of_the_main_thread_and_while_other_threads_run():
    alone = printed(PIDS + "print(pids())")
    elsewhere = printed(
        PIDS + "thread = threading.Thread(target=lambda: print(pids())); thread.start(); thread.join()"
    )
    beside = printed(
        PIDS + "end = threading.Event(); threading.Thread(target=end.wait).start(); print(pids()); end.set()"
    )
    assert (alone, elsewhere, beside) == (["2"], ["1"], ["1"])


def test_training_on_processes_ends_while_another_thread_multiplies_matrices():
    """A copy made while another thread held BLAS's lock would wait for the lock forever."""
    program = """
import os, sys, threading
os.environ["OPENBLAS_NUM_THREADS"] = "2"
sys.path[:0] = ["tests/cnn", "tests", "."]
import numpy as np
from cnn import Processes, fit
from test_executors import examples, network

end = threading.Event()

def multiply():
    matrix = np.ones((700, 700))
    while not end.is_set():
        matrix @ matrix

thread = threading.Thread(target=multiply)
thread.start()
try:
    for _ in range(5):
        print(len(fit(network(), examples(60), epochs=2, executor=Processes(2))))
finally:
    end.set()
"""
    assert printed(program, timeout=120) == ["2"] * 5


def test_gradients_keep_the_dtypes_of_their_parameters():
    rng = np.random.default_rng(0)
    layers = [Flatten(), Dense(64, 5, rng=rng), Dense(5, 10, rng=rng, dtype=np.float64)]
    model = Sequential(layers)
    with ShardedGradients(model, softmax_cross_entropy, examples(4), 2, executor=Threads(2)) as compute:
        compute(np.arange(4))
    assert [parameter.grad.dtype for parameter in model.parameters().values()] == [
        *(np.float32, np.float32),
        *(np.float64, np.float64),
    ]


def test_results_that_nobody_took_are_not_taken_for_later_ones(kind):
    with Replicas(network(), kind(2)) as pool:
        next(run(pool, square, range(8)))
        assert list(run(pool, square, range(10, 12))) == [100, 121]


def add_one(task, replica):
    return task + 1


def test_arrays_too_large_for_the_shared_memory_arrive_whole(kind, monkeypatch):
    monkeypatch.setattr(executors, "ROOM", 1000)
    tasks = [np.arange(count, dtype=np.float64) for count in (10, 200, 100_000, 5, 1)]
    with Replicas(network(), kind(2)) as pool:
        results = list(run(pool, add_one, tasks))
    for result, task in zip(results, tasks, strict=True):
        np.testing.assert_array_equal(result, task + 1)


def die(task, replica):
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@needs_fork
def test_a_worker_process_that_is_killed_is_reported(forking):
    with Replicas(network(), Processes(2)) as pool:
        for _ in range(2):
            with pytest.raises(
                executors.WorkerLostError, match=r"A worker process was killed .*fewer workers"
            ):
                list(run(pool, die, range(2)))


@needs_fork
def test_a_worker_process_that_is_killed_while_it_answers_is_reported(forking, monkeypatch):
    monkeypatch.setattr(executors, "ROOM", 1000)
    pids = []

    def answer(task, replica):
        if task == "who":
            return os.getpid()
        if task == "large":  # too large for the pipe: half of it waits to be read
            return np.zeros(2**20)
        sleep(0.5)
        return os.kill(pids[0], signal.SIGKILL)

    with Replicas(network(), Processes(2), shared=answer) as pool:
        pids += set(run(pool, shared, ["who", "who"])) - {os.getpid()}
        with pytest.raises(executors.WorkerLostError, match="A worker process was killed"):
            list(run(pool, shared, ["kill", "large"]))


@needs_fork
def test_workers_end_well_if_the_system_forgets_ended_processes(forking):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Replicas(network(), Processes(2)) as pool:
            assert list(run(pool, square, range(4))) == [0, 1, 4, 9]
    finally:
        signal.signal(signal.SIGCHLD, before)


@needs_fork
@pytest.mark.parametrize("suspended", [False, True])
def test_no_worker_process_is_left_behind(forking, suspended):
    with Replicas(network(), Processes(3)) as pool:
        pids = {pid for pid, _ in run(pool, where_am_i, range(3))} - {os.getpid()}
        assert len(pids) == 2
        if suspended:
            unfinished = run(pool, square, range(30))
            next(unfinished)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@needs_fork
def test_a_pool_that_cannot_be_made_leaves_no_process_behind(forking):
    made = []

    def make_worker():
        if len(made) == 2:
            raise ValueError("no more")
        made.append(1)

    before = children()
    with pytest.raises(ValueError, match="no more"):
        Processes(3).start(make_worker)
    assert children() == before


def children():
    """The child processes of this one that still exist."""
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


@needs_fork
def test_worker_processes_end_with_the_process_they_work_for():
    program = """
import os, sys, time
sys.path[:0] = ["tests/cnn", "tests", "."]
from cnn import Processes
from cnn.engine.replicas import Replicas
from test_executors import network, run, where_am_i
with Replicas(network(), Processes(3)) as pool:
    print(*(pid for pid, _ in run(pool, where_am_i, range(3))), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        pids = {int(pid) for pid in process.stdout.readline().split()} - {process.pid}
        process.kill()
    assert len(pids) == 2
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
    with Replicas(model, kind(2)) as replicas:
        y = replicas.predict(x, batch_size=8)
    np.testing.assert_allclose(y, model.predict(x), rtol=1e-12, atol=1e-15)
    assert y.shape == (count, 10)


def test_replicas_see_weights_that_change_and_averages_that_stand_in_for_them(kind):
    model, x = network(), examples(5).images
    average = MovingAverage(model.parameters(), 0.5)
    with Replicas(model, kind(2), passes=()) as replicas:
        for parameter in model.parameters().values():
            parameter.value += 1
        model.layers[1].running_mean[...] = 3
        np.testing.assert_array_equal(replicas.predict(x), model.predict(x))
        with average.applied():
            averaged = replicas.predict(x)
        np.testing.assert_array_equal(replicas.predict(x), model.predict(x))
        assert not np.array_equal(averaged, model.predict(x))


def forward_in_training(task, replica):
    y = replica.model.forward(examples(5).images, training=True, rng=np.random.default_rng(0))
    return np.concatenate([y.ravel(), *replica.buffers])


def test_a_task_changes_no_state_of_the_model(kind):
    model = network()
    before = model.state_dict()

    with Replicas(model, kind(2)) as replicas:
        one, other, again = run(replicas, forward_in_training, range(3))
    np.testing.assert_array_equal(one, again)  # and none of the replica
    np.testing.assert_array_equal(one, other)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def overflow(task, replica):
    return np.float32(task) * np.array([1e38], np.float32)


def test_numpys_error_state_holds_in_helpers(kind):
    with (
        np.errstate(over="raise"),
        Replicas(network(), kind(2)) as replicas,
        pytest.raises(FloatingPointError),
    ):
        list(run(replicas, overflow, [1, 1e38]))  # the helper runs the second


@pytest.mark.parametrize("executor", [Threads, Processes])
def test_the_number_of_workers_is_a_whole_number(executor):
    for workers in (0, 2.0, True):
        with pytest.raises(ValueError, match=rf"^workers must be a whole number >= 1; received {workers}\.$"):
            executor(workers)


def test_predictions_without_a_change_plan_nothing_again(monkeypatch):
    calls = []
    monkeypatch.setattr(
        replicas_module, "plan", lambda *args, **options: calls.append(options) or plan(*args, **options)
    )
    images = examples(8).images
    with Replicas(network()) as replicas:
        first = replicas.predict(images, 4)
        np.testing.assert_array_equal(replicas.predict(images, 4), first)
        assert calls == [{}, {"evaluation": True}]
        replicas.model.layers[0].kernel.value += 1
        assert (replicas.predict(images, 4) != first).any()
        assert calls == [{}, {"evaluation": True}, {"evaluation": True}]


@pytest.mark.parametrize("executor", [Serial(), Threads(2), Processes(2)])
def test_predictions_follow_each_change_of_parameters_and_buffers(executor):
    rng = np.random.default_rng(0)
    model = Sequential([Conv2D(16, 16, 3, padding=1, rng=rng), BatchNorm(16), GlobalAvgPool2D()])
    images = rng.random((16, 12, 12, 16), dtype=np.float32)
    _, norm, _ = model.layers
    with Replicas(model, executor) as replicas:
        for array in (model.layers[0].kernel.value, norm.beta.value, norm.running_mean, norm.running_var):
            before = replicas.predict(images, 4)
            array += 0.5
            after = replicas.predict(images, 4)
            assert np.abs(after - before).max() > 1e-3
            np.testing.assert_allclose(after, model.predict(images), rtol=1e-4, atol=1e-5)
