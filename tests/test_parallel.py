"""Worker threads: the same bits for any number of them, and nothing lost on the way."""

import threading
from time import sleep

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
    softmax_cross_entropy,
)
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


def test_an_epoch_gives_the_same_bytes_with_1_2_3_and_4_workers():
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


def test_results_come_in_the_order_of_the_tasks():
    barrier = threading.Event()

    def wait_first(model, task):
        if task == 0:
            barrier.wait(5)
        if task == 1:
            barrier.set()
        return task

    with Workers(network(), 2) as workers:
        assert list(workers.map(wait_first, range(30))) == list(range(30))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_thread_reaches_the_caller(workers):
    def fail(model, task):
        raise ZeroDivisionError(str(task))

    with Workers(network(), workers) as pool:
        with pytest.raises(ZeroDivisionError, match=r"^0$"):
            list(pool.map(fail, range(3)))
        assert list(pool.map(lambda model, task: task, range(3))) == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 1, 7, 50])
def test_predict_is_that_of_the_model(count):
    model, x = network(np.float64), examples(50).images[:count].astype(np.float64)
    with Workers(model, 2) as workers:
        y = workers.predict(x, batch_size=8)
    np.testing.assert_allclose(y, model.predict(x), rtol=1e-12, atol=1e-15)
    assert y.shape == (count, 10)


def test_replicas_see_weights_that_change_and_averages_that_stand_in_for_them():
    model, x = network(), examples(5).images
    average = MovingAverage(model.parameters(), 0.5)
    with Workers(model, planned=False) as workers:
        for parameter in model.parameters().values():
            parameter.value += 1
        model.layers[1].running_mean[...] = 3
        np.testing.assert_array_equal(workers.predict(x), model.predict(x))
        with average.applied():
            averaged = workers.predict(x)
        np.testing.assert_array_equal(workers.predict(x), model.predict(x))
        assert not np.array_equal(averaged, model.predict(x))


def test_a_task_changes_no_state_of_the_model():
    model = network()
    before = model.state_dict()

    def train(replica, task):
        return replica.model.forward(examples(5).images, training=True, rng=np.random.default_rng(0))

    with Workers(model, 2) as workers:
        one, other = workers.map(train, range(2))
    np.testing.assert_array_equal(one, other)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_numpys_error_state_holds_in_the_threads():
    with Workers(network(), 2) as workers, np.errstate(over="raise"), pytest.raises(FloatingPointError):
        list(workers.map(lambda model, task: np.float32(1e38) * np.array([1e38], np.float32), range(2)))


def test_the_number_of_workers_is_a_whole_number():
    with pytest.raises(ValueError, match=r"^workers must be a whole number >= 1; received 0\.$"):
        Workers(network(), 0)


def test_short_tasks_are_computed_in_the_calling_thread_and_long_ones_in_others():
    def short(replica, task):
        return threading.get_ident()

    def long(replica, task):
        sleep(0.01)
        return threading.get_ident()

    with Workers(network(), 2) as workers:
        for _ in range(3):
            assert set(workers.map(short, range(8))) == {threading.get_ident()}
        list(workers.map(long, range(8)))  # the trials
        assert threading.get_ident() not in set(workers.map(long, range(8)))
