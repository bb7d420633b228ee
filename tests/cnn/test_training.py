from functools import partial
from math import log

import numpy as np
import pytest
from test_model import small_network

from cnn import (
    SGD,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Examples,
    Flatten,
    GlobalAvgPool2D,
    Lookahead,
    MovingAverage,
    NonFiniteError,
    Processes,
    Progress,
    Sequential,
    Serial,
    Threads,
    fit,
    fit_by_epoch,
    softmax_cross_entropy,
)
from cnn.augmentation import alternating_flip
from cnn.engine import executors, fused
from cnn.engine.shards import ShardedGradients
from cnn.gradient_check import numeric_gradient, relative_error
from cnn.inspection import EpochStatistics
from cnn.ops.winograd import transform_kernel
from cnn.random import Stream, derive_rng
from cnn.schedules import constant, step


def random_examples(count, seed=1, dtype=np.float32):
    rng = np.random.default_rng(seed)
    images = rng.random((count, 8, 8, 1)).astype(dtype)
    return Examples(images, np.eye(10, dtype=dtype)[np.arange(count) % 10])


def train(model, examples, schedule=None, **options):
    options = {"epochs": 2, "batch_size": 8, "shard_size": 4, "validation": examples} | options
    options = {"optimizer": SGD(model.parameters(), 0.1, momentum=0.9)} | options
    return fit(model, examples, schedule=schedule, **options)


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
    with ShardedGradients(model, softmax_cross_entropy, batch, shard_size) as compute:
        loss, correct = compute(np.arange(10))
    outputs = model.forward(batch.images)
    assert loss == pytest.approx(softmax_cross_entropy(outputs, batch.targets)[0], rel=1e-12)
    assert correct == sum(y.argmax() == t.argmax() for y, t in zip(outputs, batch.targets, strict=True))

    def whole_loss():
        return softmax_cross_entropy(model.forward(batch.images), batch.targets)[0]

    for name, parameter in model.parameters().items():
        if parameter.value.ndim == 1 or name == "0.kernel":
            assert relative_error(parameter.grad, numeric_gradient(whole_loss, parameter.value)) < 1e-6, name


def test_lanes_add_their_shards_in_order_and_then_each_other():
    """With 1/N a power of two, the weight of a shard does not round."""
    batch, model, each = random_examples(16), small_network(), []
    for index in range(16):
        with ShardedGradients(model, softmax_cross_entropy, batch, 1) as compute:
            compute(np.array([index]))
        each.append([parameter.grad / 16 for parameter in model.parameters().values()])
    with ShardedGradients(model, softmax_cross_entropy, batch, 1) as compute:
        compute(np.arange(16))
    lanes = [
        [sum(arrays) for arrays in zip(*each[start : start + 4], strict=True)] for start in (0, 4, 8, 12)
    ]
    for parameter, *sums in zip(model.parameters().values(), *lanes, strict=True):
        np.testing.assert_array_equal(parameter.grad, sum(sums))
    kernel = model.layers[0].kernel.grad
    assert (kernel != sum(arrays[0] for arrays in each)).any()  # the order matters


def test_kernels_are_transformed_once_a_step_and_again_when_they_have_changed(monkeypatch):
    calls = []

    def count(kernel, m):
        calls.append(m)
        return transform_kernel(kernel, m)

    monkeypatch.setattr(fused, "transform_kernel", count)
    rng = np.random.default_rng(0)
    model = Sequential([Conv2D(16, 16, 3, padding=1, rng=rng), GlobalAvgPool2D(), Dense(16, 10, rng=rng)])
    images = rng.random((32, 12, 12, 16), dtype=np.float32)
    examples = Examples(images, random_examples(32).targets)
    with ShardedGradients(model, softmax_cross_entropy, examples, 4) as compute:
        for step in (1, 2):
            compute(np.arange(32))
            assert len(calls) == step
            model.layers[0].kernel.value *= 2
        np.testing.assert_allclose(compute.predict(images, 8), model.predict(images), rtol=1e-4, atol=1e-6)
    assert len(calls) == 3


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own():
    examples, seen = random_examples(21), []

    def watching_loss(outputs, targets):
        seen.append(targets.copy())
        return softmax_cross_entropy(outputs, targets)

    model = small_network()
    marked = Examples(examples.images, np.eye(21, 10, dtype=np.float32) + np.arange(21)[:, None].astype("f4"))
    train(
        model,
        marked,
        constant(1e-9),
        validation=Examples(examples.images[:1], examples.targets[:1]),
        loss=watching_loss,
        shard_size=3,
    )
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
    times = []

    def schedule(t):
        times.append(t)
        return 0.1 / (t + 1)

    reports = train(small_network(), random_examples(20), schedule)  # 3 steps per epoch
    assert list(dict.fromkeys(times)) == [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3]
    assert [report.learning_rate for report in reports] == [schedule(2 / 3), schedule(5 / 3)]


def test_a_loss_that_is_not_finite_stops_training():
    examples = random_examples(20)
    examples.images[7] = np.nan
    with pytest.raises(
        NonFiniteError,
        match=r"^The loss became nan in epoch 1, at step \d of the run, .* are in the images\)\. A",
    ):
        train(small_network(), examples)


def test_the_layer_whose_output_is_not_finite_is_named():
    model = small_network()
    model.layers[0].kernel.value[...] = np.inf
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"the output of layer 0, Conv2D\("):
        train(model, random_examples(20))


def test_a_gradient_that_is_not_finite_stops_training_before_the_weights_change():
    def spoilt(outputs, targets):
        loss, grad = softmax_cross_entropy(outputs, targets)
        return loss, grad * np.float32(np.inf)

    model, examples = small_network(), random_examples(20)
    before = model.state_dict()
    layer = list(model.parameters())[-1].partition(".")[0]
    message = rf"epoch 1, at step 0 .* 0\.1 \(first dL/dbias of layer {layer}\)"
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=message):
        train(model, examples, loss=spoilt)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


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


def recording(calls):
    def augment(images, rng):
        calls.append((images.copy(), rng.random()))
        return images

    return augment


def test_each_shard_is_augmented_with_random_numbers_of_its_own():
    calls = []
    train(small_network(), random_examples(20), augment=recording(calls))
    assert [len(images) for images, _ in calls] == 2 * [4, 4, 4, 4, 4]  # 2 epochs of batches of 8, 8 and 4
    assert calls[0][1] == derive_rng(0, Stream.AUGMENTATION, 1, 0, 0).random()
    assert calls[-1][1] == derive_rng(0, Stream.AUGMENTATION, 2, 5, 0).random()
    assert len({number for _, number in calls}) == 10


def test_an_augmentation_learns_which_images_it_gets_in_which_epoch():
    calls, examples = [], random_examples(20)

    def augment(images, rng, *, seed, examples, epoch):
        calls.append((examples.copy(), epoch, seed, images.copy()))
        return images

    train(small_network(), examples, augment=augment, seed=9)
    for epoch in (1, 2):
        of_epoch = np.concatenate([places for places, at, _, _ in calls if at == epoch])
        np.testing.assert_array_equal(of_epoch, derive_rng(9, Stream.SHUFFLE, epoch).permutation(20))
    for places, _, seed, images in calls:
        assert seed == 9
        np.testing.assert_array_equal(images, examples.images[places])


def test_an_augmentation_receives_only_the_keywords_that_it_has_and_keeps_its_other_defaults():
    calls = []

    def augment(images, rng, examples="default", *, epoch, strength=3):
        calls.append((examples, epoch, strength))
        return images

    train(small_network(), random_examples(8), augment=augment)
    assert calls == [("default", 1, 3)] * 2 + [("default", 2, 3)] * 2


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda images: images, "too many positional arguments"),
        (lambda images, rng, *, strength: images, "missing a required .*argument: 'strength'"),
        (partial(alternating_flip, flip=True), "incorrect arguments"),
    ],
)
def test_an_augmentation_that_cannot_be_called_is_refused_at_the_call(augment, message):
    with pytest.raises(
        ValueError, match=rf"^An augmentation must be a function \(images, rng\), .*{message}"
    ):
        fit_by_epoch(small_network(), random_examples(8), augment=augment)
    with pytest.raises(ValueError, match=message):
        ShardedGradients(small_network(), softmax_cross_entropy, random_examples(8), 4, augment=augment)


def test_what_augmentation_returns_is_trained_on():
    blank, plain = small_network(), small_network()
    examples = random_examples(20)
    train(blank, examples, augment=lambda images, rng: np.zeros_like(images))
    train(plain, Examples(np.zeros_like(examples.images), examples.targets))
    for one, other in zip(blank.state_dict().values(), plain.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_dropout_draws_anew_in_each_step_and_the_same_in_each_run():
    def run():
        rng = np.random.default_rng(0)
        model = Sequential([Flatten(), Dropout(0.5), Dense(64, 10, rng=rng)])
        return [report.train_loss for report in train(model, random_examples(20), epochs=3)]

    first = run()
    assert run() == first
    one, other = (compute_dropped(step) for step in (0, 1))
    assert not np.array_equal(one, other)


def compute_dropped(step):
    """The inputs, of 64, that dropout lets through in a step."""
    model = Sequential([Flatten(), Dropout(0.5), Dense(64, 10, rng=np.random.default_rng(0))])
    batch = Examples(np.ones((1, 8, 8, 1), np.float32), np.eye(10, dtype=np.float32)[:1])
    with ShardedGradients(model, softmax_cross_entropy, batch, 1) as compute:
        compute(np.arange(1), at=(1, step))
    return model.layers[2].weight.grad.any(axis=1)


def test_gradients_are_clipped_before_the_step():
    examples = random_examples(8)
    steps = {}
    for name, options in {
        "free": {},
        "norm": {"clip_norm": 1e-3},
        "value": {"clip_value": 1e-3},
        "both": {"clip_value": 1e-3, "clip_norm": 1e-4},
    }.items():
        model = small_network()
        before = model.state_dict()
        train(model, examples, epochs=1, **options)
        steps[name] = np.concatenate([(before[k] - v).ravel() for k, v in model.state_dict().items()]) / 0.1
    assert np.linalg.norm(steps["free"]) > 0.1
    assert np.linalg.norm(steps["norm"]) == pytest.approx(1e-3, rel=1e-2)
    assert np.abs(steps["value"]).max() == pytest.approx(1e-3, rel=1e-2)
    assert np.linalg.norm(steps["both"]) == pytest.approx(1e-4, rel=1e-1)


def test_the_averaged_weights_are_validated_and_stay_out_of_training():
    model, examples = small_network(), random_examples(20)
    average = MovingAverage(model.parameters(), 0.5)
    options = {"epochs": 2, "batch_size": 8, "shard_size": 4}
    for report in fit_by_epoch(model, examples, examples, moving_average=average, **options):
        with average.applied():
            during = model.state_dict()
            outputs = model.predict(examples.images)
        assert report.validation_loss == softmax_cross_entropy(outputs, examples.targets)[0]
        for name, array in during.items():
            np.testing.assert_array_equal(array, average.state_dict()[f"average.{name}"])
    plain = small_network()
    fit(plain, examples, examples, **options)
    for name, array in plain.state_dict().items():  # the average does not affect the training itself
        np.testing.assert_array_equal(array, model.state_dict()[name])
        assert not np.array_equal(array, during[name])


@pytest.mark.parametrize("executor", [Serial(), Processes(2)])
def test_training_with_lookahead_goes_by_way_of_its_slow_weights_and_ends_on_them(executor):
    model, plain, examples = small_network(), small_network(), random_examples(20)
    average = Lookahead(model.parameters(), 6, every=2, decay=0.9)
    options = {"epochs": 2, "batch_size": 8, "shard_size": 4, "executor": executor}
    for report in fit_by_epoch(model, examples, examples, moving_average=average, **options):
        with average.applied():
            outputs = model.predict(examples.images)
        assert report.validation_loss == softmax_cross_entropy(outputs, examples.targets)[0]
    by_hand = Lookahead(plain.parameters(), 6, every=2, decay=0.9)
    fit(plain, examples, on_step=lambda at: by_hand.update(), **options)
    for name, array in plain.state_dict().items():
        np.testing.assert_array_equal(array, model.state_dict()[name])
        np.testing.assert_array_equal(array, average.state_dict()[f"average.{name}"])


def test_training_stops_when_patience_is_over():
    losing = constant(1e-12)  # learns nothing, so the first epoch stays the best
    assert len(train(small_network(), random_examples(20), losing, epochs=9, patience=3)) == 4
    assert len(train(small_network(), random_examples(20), losing, epochs=3, patience=3)) == 3
    with pytest.raises(ValueError, match="patience must be a whole number >= 1"):
        train(small_network(), random_examples(20), patience=0)


def test_figures_of_an_epoch_are_means_over_examples_with_an_uneven_last_batch_and_shard():
    examples, seen = random_examples(21), []
    model = Sequential([Flatten(), BatchNorm(64), Dense(64, 10, rng=np.random.default_rng(0))])

    def loss(outputs, targets):
        value, gradient = softmax_cross_entropy(outputs, targets)
        seen.append((len(outputs), value, (outputs.argmax(1) == targets.argmax(1)).sum()))
        return value, gradient

    (report,) = train(model, examples, constant(1e-9), loss=loss, epochs=1, shard_size=3)
    shards = seen[:-1]  # the last call is the validation
    assert [count for count, _, _ in shards] == [3, 3, 2, 3, 3, 2, 3, 2]
    assert report.train_loss == pytest.approx(sum(n * value for n, value, _ in shards) / 21)
    assert report.train_accuracy == sum(right for _, _, right in shards) / 21


def test_running_statistics_are_averaged_over_shards_by_their_size():
    x = np.arange(5, dtype=np.float32)[:, None]
    model = Sequential([BatchNorm(1, momentum=0.5), Dense(1, 2, rng=np.random.default_rng(0))])
    batch = Examples(x, np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0]])
    with ShardedGradients(model, softmax_cross_entropy, batch, 3) as compute:
        compute(np.arange(5))
    means, variances = (1.0, 3.5), (2 / 3, 0.25)  # of 0, 1, 2 and of 3, 4
    norm = model.layers[0]
    assert norm.running_mean[0] == pytest.approx(0.5 * (0.6 * means[0] + 0.4 * means[1]))
    assert norm.running_var[0] == pytest.approx(0.5 + 0.5 * (0.6 * variances[0] + 0.4 * variances[1]))


def test_a_validation_loss_that_is_not_finite_stops_training():
    examples = random_examples(20)
    broken = Examples(np.full_like(examples.images, np.inf), examples.targets)
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match=r"^The validation loss became nan"),
    ):
        train(small_network(), examples, validation=broken)


def test_a_schedule_that_overflows_stops_training():
    with pytest.raises(NonFiniteError, match=r"^The schedule's learning rate became infinite 0"):
        train(small_network(), random_examples(20), step(0.1, every=1e-5, factor=10.0))


@pytest.mark.parametrize(("images", "targets"), [(0, 0), (20, 19), (19, 20)])
def test_examples_without_targets_are_refused(images, targets):
    examples = random_examples(20)
    with pytest.raises(
        ValueError, match=rf"^train must have as many images as targets.*received {images} and {targets}"
    ):
        fit(small_network(), Examples(examples.images[:images], examples.targets[:targets]))


def test_layers_cannot_share_parameters():
    one, other = (Dense(64, 64, rng=np.random.default_rng(0)) for _ in range(2))
    other.weight = one.weight
    with pytest.raises(ValueError, match="parameter under two names"):
        SGD(Sequential([one, other]).parameters(), 0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16])
def test_networks_refuse_images_that_are_no_floats(dtype):
    with pytest.raises(
        ValueError, match=r"^Networks compute with NumPy arrays of float32 or float64; received"
    ):
        small_network().forward(np.ones((1, 8, 8, 1), dtype))


# --- errors at the call -----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [fit, fit_by_epoch])
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"epochs": 0}, ["epochs must be a whole number >= 1; received 0."]),
        ({"epochs": 1.5}, ["epochs must be a whole number >= 1; received 1.5."]),
        ({"batch_size": 0}, ["batch_size must be a whole number >= 1; received 0."]),
        ({"shard_size": True}, ["shard_size must be a whole number >= 1; received True."]),
        ({"patience": 0}, ["patience must be a whole number >= 1; received 0."]),
        ({"patience": 3, "validation": None}, ["patience", "validation examples"]),
        ({"clip_norm": 0.0}, ["clip_norm must be a finite number > 0; received 0.0."]),
        ({"clip_value": -1}, ["clip_value must be a finite number > 0; received -1."]),
        ({"train": np.zeros((5, 8, 8, 1))}, ["train must be Examples", "ndarray"]),
        ({"train": None}, ["train must be Examples", "NoneType"]),
        ({"train": Examples([1], [2])}, ["train must be Examples"]),
        ({"train": random_examples(0)}, ["train must have", "at least one", "0 and 0"]),
        ({"validation": random_examples(0)}, ["validation must have", "at least one", "0 and 0"]),
        (
            {"train": Examples(np.zeros((5, 9, 12, 1), "f4"), np.eye(10, dtype="f4")[:5])},
            ["Dense(36, 10) needs", "In layer 4"],
        ),
        (
            {"validation": Examples(np.zeros((5, 9, 12, 1), "f4"), np.eye(10, dtype="f4")[:5])},
            ["Dense(36, 10) needs", "In layer 4"],
        ),
        (
            {"train": Examples(np.zeros((5, 8, 8, 1), "f4"), np.eye(5, dtype="f4"))},
            ["train", "(10,)", "(5,)"],
        ),
        (
            {"validation": Examples(np.zeros((5, 8, 8, 1), "f4"), np.eye(5, dtype="f4"))},
            ["validation", "(10,)", "(5,)"],
        ),
        (
            {"moving_average": MovingAverage(small_network().parameters(), 0.5)},
            ["moving_average", "this model's", "0.kernel, 0.bias, 4.weight are not"],
        ),
        (
            {"statistics": EpochStatistics(small_network().parameters())},
            ["statistics", "this model's", "0.kernel, 0.bias, 4.weight are not"],
        ),
        (
            {"optimizer": SGD(small_network().parameters())},
            ["optimizer", "this model's", "0.kernel, 0.bias, 4.weight are not", "model.parameters()"],
        ),
    ],
)
def test_arguments_without_meaning_are_refused_at_the_call(function, options, parts):
    model, examples = small_network(), random_examples(10)
    before = model.state_dict()
    with pytest.raises(ValueError) as error:
        function(model, **{"train": examples, "validation": examples} | options)  # no epoch is requested
    for part in parts:
        assert part in str(error.value)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("function", [fit, fit_by_epoch])
@pytest.mark.parametrize(
    ("count", "batch_size", "shard_size"),
    [
        (21, 10, 10),  # a last batch of 1
        (20, 10, 3),  # each batch leaves 1 over
        (23, 10, 2),  # the last batch leaves 1 over
        (20, 10, 1),
        (20, 1, 10),
        (1, 64, 32),
    ],
)
def test_a_smallest_shard_that_batch_normalisation_cannot_take_is_refused_at_the_call(
    function, count, batch_size, shard_size
):
    model = Sequential([Flatten(), BatchNorm(64), Dropout(0.5), Dense(64, 10, rng=np.random.default_rng(0))])
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"BatchNorm\(64\) needs at least two") as error:
        function(model, random_examples(count), batch_size=batch_size, shard_size=shard_size)
    assert f"{count} images in batches of {batch_size} and shards of {shard_size}" in str(error.value)
    assert "give a shard of 1." in str(error.value)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_shards_that_batch_normalisation_can_take_are_not_refused():
    for count, batch_size, shard_size in [(22, 10, 10), (20, 10, 4), (2, 64, 32), (20, 10, 99)]:
        model = Sequential([Flatten(), BatchNorm(64), Dense(64, 10, rng=np.random.default_rng(0))])
        before = model.state_dict()
        by_epoch = fit_by_epoch(
            model, random_examples(count), epochs=1, batch_size=batch_size, shard_size=shard_size
        )
        for name, array in model.state_dict().items():  # the trial does not change running statistics
            np.testing.assert_array_equal(array, before[name])
        assert len(list(by_epoch)) == 1


# --- the two calls ----------------------------------------------------------------------------------------


def test_a_network_and_examples_are_enough():
    model = small_network()
    reports = fit(model, random_examples(20))
    assert [report.epoch for report in reports] == list(range(1, 11))
    assert {report.learning_rate for report in reports} == {0.1}
    assert reports[-1].train_loss < reports[0].train_loss
    assert {(report.validation_loss, report.validation_accuracy) for report in reports} == {(None, None)}


def test_epoch_by_epoch_trains_as_far_as_it_is_asked_and_gives_the_same_reports():
    whole, parts, examples = small_network(), small_network(), random_examples(20)
    reports = fit(whole, examples, examples, epochs=3)
    before = parts.state_dict()
    by_epoch = fit_by_epoch(parts, examples, examples, epochs=3)
    for name, array in parts.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert next(by_epoch) == reports[0]
    assert any(not np.array_equal(array, before[name]) for name, array in parts.state_dict().items())
    assert list(by_epoch) == reports[1:]
    for one, other in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fit_has_a_name_and_a_description_of_its_own():
    assert fit.__name__ == "fit"
    assert "generator" not in fit.__doc__
    assert fit.__doc__.startswith("Train `model` in place; return a report for each epoch.")
    assert "epochs: passes over the training set" in fit.__doc__
    assert "a generator" in fit_by_epoch.__doc__


def test_without_validation_training_goes_the_same_way():
    states = []
    for validation in (None, random_examples(5, seed=9)):
        model = small_network()
        reports = fit(model, random_examples(20), validation, epochs=2)
        states.append(
            [report.train_loss for report in reports] + [a.tolist() for a in model.state_dict().values()]
        )
    assert states[0] == states[1]


def test_the_targets_of_any_dtype_give_the_same_training():
    examples = random_examples(20)
    whole_numbers = Examples(examples.images, examples.targets.astype(np.uint8))
    assert fit(small_network(), whole_numbers, epochs=1) == fit(small_network(), examples, epochs=1)


def test_progress_counts_and_on_step_sees_it():
    seen, progress = [], Progress()

    def record(at):
        assert at is progress
        seen.append((int(at.epoch), int(at.step), int(at.examples)))

    reports = fit(
        small_network(), random_examples(20), batch_size=8, epochs=2, progress=progress, on_step=record
    )
    assert seen == [(1, 1, 8), (1, 2, 16), (1, 3, 20), (2, 4, 8), (2, 5, 16), (2, 6, 20)]
    assert (int(progress.epoch), int(progress.step), int(progress.examples)) == (3, 6, 0)
    assert len(reports) == 2
    assert fit(small_network(), random_examples(20), epochs=2, progress=progress) == []  # all done


def test_the_best_epoch_is_the_first_with_the_highest_validation_accuracy():
    progress = Progress()
    for accuracy in (0.5, 0.7, 0.7, 0.6, None):
        progress.finish_epoch(accuracy)
    assert (float(progress.best_accuracy), int(progress.best_epoch)) == (0.7, 2)


# --- gradients: norms and clipping ------------------------------------------------------------------------


def test_gradient_norms_of_an_epoch_are_those_before_clipping():
    examples, rows = random_examples(20), {}
    for name, options in {
        "free": {},
        "norm": {"clip_norm": 1e-3},
        "value": {"clip_value": 1e-4},
        "both": {"clip_norm": 1e-3, "clip_value": 1e-4},
    }.items():
        model = small_network()
        statistics = EpochStatistics(model.parameters())
        fit(model, examples, epochs=1, batch_size=20, statistics=statistics, **options)  # one step
        rows[name] = {row["parameter"]: row["gradient_norm"] for row in statistics.finish_epoch()}
    assert list(rows["free"]) == list(small_network().parameters())
    assert min(rows["free"].values()) > 1e-3
    assert rows["free"] == rows["norm"] == rows["value"] == rows["both"]
    model = small_network()
    with ShardedGradients(model, softmax_cross_entropy, examples, 32) as compute:
        compute(derive_rng(0, Stream.SHUFFLE, 1).permutation(20))
    for name, parameter in model.parameters().items():
        assert rows["free"][name] == pytest.approx(np.linalg.norm(parameter.grad), rel=1e-6)


def test_statistics_change_nothing_of_the_training():
    models = small_network(), small_network()
    fit(models[0], random_examples(20), epochs=1, clip_norm=0.01)
    statistics = EpochStatistics(models[1].parameters())
    fit(models[1], random_examples(20), epochs=1, clip_norm=0.01, statistics=statistics)
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("executor", [Serial(), Threads(2), Processes(2), Processes(3), Processes(5)])
def test_any_executor_gives_the_same_bits(monkeypatch, executor):
    monkeypatch.setattr(executors, "can_fork", lambda: True)
    outcomes = []
    for who in (None, executor):
        rng = np.random.default_rng(0)
        model = Sequential([Flatten(), BatchNorm(64), Dropout(0.5), Dense(64, 10, rng=rng)])
        reports = fit(model, random_examples(50), random_examples(9), epochs=2, shard_size=8, executor=who)
        outcomes.append((reports, [array.tobytes() for array in model.state_dict().values()]))
    assert outcomes[0] == outcomes[1]
