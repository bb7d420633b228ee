from math import log

import numpy as np
import pytest
from test_model import small_network

from cnn import SGD, Examples, NonFiniteLossError, fit, softmax_cross_entropy
from cnn.gradient_check import numeric_gradient, relative_error
from cnn.random import Stream, derive_rng
from cnn.schedules import constant
from cnn.training import compute_gradients


def random_examples(count, seed=1, dtype=np.float32):
    rng = np.random.default_rng(seed)
    images = rng.random((count, 8, 8, 1)).astype(dtype)
    return Examples(images, np.eye(10, dtype=dtype)[np.arange(count) % 10])


def train(model, examples, schedule=None, **options):
    options = {"epochs": 2, "batch_size": 8, "shard_size": 4, "seed": 0} | options
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    return list(
        fit(model, softmax_cross_entropy, optimizer, schedule or constant(0.1), examples, examples, **options)
    )


def test_the_first_loss_is_about_the_logarithm_of_the_number_of_classes():
    examples = random_examples(200)
    loss, _ = softmax_cross_entropy(small_network().predict(examples.images), examples.targets)
    assert loss == pytest.approx(log(10), rel=0.25)


def test_it_learns_20_random_images_by_heart():
    reports = train(small_network(), random_examples(20), epochs=150)
    assert reports[-1].validation_accuracy == 1
    assert reports[-1].validation_loss < 0.01


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    states = []
    for seed in (0, 0, 1):
        model = small_network()
        train(model, random_examples(50), seed=seed)
        states.append(b"".join(array.tobytes() for array in model.state_dict().values()))
    assert states[0] == states[1] != states[2]


@pytest.mark.parametrize("shard_size", [1, 3, 4, 10, 99])
def test_shards_sum_to_the_gradient_of_the_whole_batch(shard_size):
    batch, model = random_examples(10, dtype=np.float64), small_network(dtype=np.float64)
    loss, correct = compute_gradients(model, softmax_cross_entropy, batch, shard_size)
    outputs = model.forward(batch.images, training=False)
    assert loss == pytest.approx(softmax_cross_entropy(outputs, batch.targets)[0], rel=1e-12)
    assert correct == sum(y.argmax() == t.argmax() for y, t in zip(outputs, batch.targets, strict=True))

    def whole_loss():
        return softmax_cross_entropy(model.forward(batch.images, training=False), batch.targets)[0]

    for name, parameter in model.parameters().items():
        if parameter.value.ndim == 1 or name == "0.kernel":
            assert relative_error(parameter.grad, numeric_gradient(whole_loss, parameter.value)) < 1e-6, name


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own():
    examples, seen = random_examples(21), []

    def watching_loss(outputs, targets):
        seen.append(targets.copy())
        return softmax_cross_entropy(outputs, targets)

    model = small_network()
    marked = Examples(examples.images, np.eye(21, 10, dtype=np.float32) + np.arange(21)[:, None].astype("f4"))
    for _ in fit(
        model,
        watching_loss,
        SGD(model.parameters(), 1e-9),
        constant(1e-9),
        marked,
        Examples(examples.images[:1], examples.targets[:1]),
        epochs=2,
        batch_size=8,
        shard_size=3,
        seed=0,
    ):
        pass
    rows = np.concatenate([targets for targets in seen if targets is not None])
    numbers = rows.min(axis=1).astype(int)
    epochs = numbers[:21], numbers[22:43]  # after each epoch, one validation example
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])


def test_images_that_are_memory_mapped_train_the_same(tmp_path):
    examples = random_examples(30)
    for name, array in examples._asdict().items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = Examples(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in examples._fields))
    assert train(small_network(), mapped) == train(small_network(), examples)


def test_each_step_takes_its_learning_rate_from_the_schedule():
    steps = []

    def schedule(step):
        steps.append(step)
        return 0.1 / (step + 1)

    reports = train(small_network(), random_examples(20), schedule)  # 3 steps to an epoch
    assert steps == [0, 1, 2, 3, 4, 5]
    assert [report.learning_rate for report in reports] == [0.1 / 3, 0.1 / 6]


def test_a_loss_that_is_not_finite_stops_training():
    examples = random_examples(20)
    examples.images[7] = np.nan
    with pytest.raises(NonFiniteLossError, match=r"The loss became nan in epoch 1, at step \d of the run"):
        train(small_network(), examples)


def test_random_streams_depend_on_each_part_of_their_address():
    draws = {
        derive_rng(seed, stream, *counters).integers(2**60)
        for seed in (0, 1)
        for stream in Stream
        for counters in ((), (1,), (2,), (1, 2))
    }
    assert len(draws) == 2 * len(Stream) * 4
    assert derive_rng(0, Stream.SHUFFLE, 3).integers(2**60) == derive_rng(0, Stream.SHUFFLE, 3).integers(
        2**60
    )
