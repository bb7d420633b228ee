"""What a learner gets wrong: refused at the call, with the argument, the rule and what was received."""

import inspect
import pickle
from collections.abc import Sequence as ListOf
from typing import Literal

import numpy as np
import pytest

from cnn import (
    SGD,
    Adam,
    Conv2D,
    Dense,
    Dropout,
    EpochReport,
    Examples,
    Flatten,
    Layer,
    Parameter,
    Processes,
    ReLU,
    Residual,
    Sequential,
    SpecError,
    fit,
    from_spec,
    load,
    save,
    schedules,
)
from cnn.checks import Count, checked
from cnn.engine.shards import ShardedGradients
from cnn.losses import softmax_cross_entropy

RNG = np.random.default_rng(0)
IMAGES = RNG.random((30, 6, 6, 1), dtype=np.float32)
TARGETS = np.eye(10, dtype=np.float32)[np.arange(30) % 10]


def network():
    rng = np.random.default_rng(1)
    return Sequential([Conv2D(1, 2, 3, rng=rng), ReLU(), Flatten(), Dense(32, 10, rng=rng)])


class Through(Layer):
    """y = x."""

    def forward(self, x, *, training=False, rng=None):
        return x

    def backward(self, grad_y):
        return grad_y

    def output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("loss", "mse", "a function"),
        ("optimizer", "adam", "an Optimizer"),
        ("optimizer", SGD, "an Optimizer"),
        ("schedule", 0.1, "a function"),
        ("executor", 2, "an Executor"),
        ("executor", Processes, "an Executor"),
        ("progress", 1, "a Progress"),
        ("moving_average", 0.9, "a MovingAverage"),
        ("seed", -1, "a whole number >= 0"),
        ("seed", 1.5, "a whole number >= 0"),
        ("on_step", None, "a function"),
        ("clip_norm", 10**400, "a finite number > 0"),
    ],
)
def test_an_object_of_another_kind_is_refused_by_fit(option, value, rule):
    with pytest.raises(ValueError, match=rf"^{option} must be {rule}; received "):
        fit(network(), Examples(IMAGES, TARGETS), **{option: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequential([Conv2D, ReLU]), "layers must be a list, each item a Layer; received "),
        (lambda: Sequential(None), "layers must be a list, each item a Layer; received None"),
        (lambda: Residual(ReLU()), "layers must be a list, each item a Layer; received "),
        (lambda: Dense(3, 4, rng=0), "rng must be a NumPy generator, such as .* received 0"),
        (lambda: Dense(3, 4, rng=RNG, initializer="he_normal"), "initializer must be a function; received "),
        (lambda: SGD(network()), r"parameters must be a dict, such as model\.parameters\(\) returns"),
        (lambda: Dropout(10**400), r"rate must be in \[0, 1\); received 1000"),
        (lambda: Dropout(np.complex128(0.5)), r"rate must be in \[0, 1\); received "),
    ],
)
def test_an_object_of_another_kind_is_refused_by_a_constructor(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([IMAGES, TARGETS], None, "train must be .* two arrays"),
        ((IMAGES.tolist(), TARGETS), None, "train must be .* two arrays"),
        ((IMAGES, TARGETS), (IMAGES.astype(np.uint8), TARGETS), "validation .* float32 .* received uint8"),
        ((IMAGES, TARGETS.astype(str)), None, "targets numbers; received float32 and <U"),
        ((IMAGES, TARGETS[:, :9]), None, r"targets of train must have .* \(10,\)"),
    ],
)
def test_images_and_targets_that_do_not_fit_are_refused_before_training(train, validation, message):
    with pytest.raises(ValueError, match=message):
        fit(network(), train, validation)


def test_a_schedule_that_goes_uphill_is_refused():
    with pytest.raises(ValueError, match=r"learning rates >= 0; received -0\.1"):
        fit(network(), Examples(IMAGES, TARGETS), schedule=lambda t: -0.1)


def test_a_rule_counts_for_each_item_of_a_list_and_for_none_of_a_union():
    @checked
    def function(
        sizes: ListOf[Count] | None, side: Count | Literal["same"] = "same", flag: bool | None = None
    ):
        return sizes, side, flag

    assert function([3, np.int64(4)]) == ([3, 4], "same", None)
    assert function(None, 2, True) == (None, 2, True)
    with pytest.raises(
        ValueError, match=r"^sizes must be a list, each item a whole number >= 1; received \[3, 0\]"
    ):
        function([3, 0])
    with pytest.raises(ValueError, match=r"^flag must be True or False; received 5"):
        function(None, flag=5)


@pytest.mark.parametrize(
    "hidden", [{"a": Parameter(np.ones(2), "a")}, [[ReLU()]], [Parameter(np.ones(2), "a")]]
)
def test_layers_and_parameters_where_nothing_finds_them_are_refused(hidden):
    layer = Through()
    layer.parts = hidden
    with pytest.raises(ValueError, match="Through keeps layers or parameters in parts"):
        layer.parameters()


def test_a_composite_may_ask_its_layers_for_what_they_have():
    class Asking(Through):
        def __init__(self, body):
            self.body = body

        def forward(self, x, *, training=False, rng=None):
            for layer in self.body:
                x = layer.forward(x, training=training, rng=rng)
            return x

        def backward(self, grad_y):
            for layer in reversed(list(self.body)):
                grad_y = layer.backward(grad_y)
            return grad_y

        def output_shape(self, input_shape):
            return (*self.body.output_shape(input_shape)[:2], self.body[0].out_channels)

    rng = np.random.default_rng(0)
    body = Sequential([Conv2D(1, 2, 3, rng=rng), ReLU()])
    model = Sequential([Asking(body), Flatten(), Dense(32, 10, rng=rng)])
    assert "0.body.0" in model.summary((6, 6, 1))
    (report,) = fit(model, Examples(IMAGES, TARGETS), epochs=1)
    assert np.isfinite(report.train_loss)


def test_buffers_that_cannot_be_averaged_are_refused():
    class Counting(Through):
        def buffers(self):
            return {"steps": np.zeros(1, np.int64)}

    with pytest.raises(ValueError, match=r"steps holds int64\. Convert it to float64"):
        ShardedGradients(Counting(), softmax_cross_entropy, Examples(IMAGES, TARGETS), 4)


def own_initializer(shape, rng, dtype):
    return np.zeros(shape, dtype)


def test_what_could_not_be_loaded_is_not_saved_and_the_old_file_stays(tmp_path):
    path = tmp_path / "net.npz"
    save(path, network())
    before = path.read_bytes()
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="initializer of Conv2D"):
        save(path, Sequential([Conv2D(1, 2, 3, rng=rng, initializer=own_initializer)]))
    with pytest.raises(ValueError, match="could not be loaded again"):
        save(path, Dense(3, 4, rng=rng))
    assert path.read_bytes() == before


def test_an_optimizer_whose_schedule_has_ended_at_zero_is_saved_and_loaded(tmp_path):
    model = network()
    optimizer = Adam(model.parameters())
    end = schedules.cosine(0.01, epochs=1)
    fit(model, Examples(IMAGES, TARGETS), optimizer=optimizer, epochs=3, schedule=end)
    assert optimizer.learning_rate == 0
    save(tmp_path / "run.npz", model, optimizer)
    assert load(tmp_path / "run.npz").optimizer.learning_rate == 0


def test_numpy_numbers_as_arguments_can_be_saved(tmp_path):
    rng = np.random.default_rng(0)
    model = Sequential([Conv2D(1, 2, np.int64(3), stride=(np.int64(2), 1), rng=rng)])
    save(tmp_path / "net.npz", model)
    assert repr(load(tmp_path / "net.npz").model) == "Sequential([Conv2D(1, 2, 3, stride=(2, 1))])"


def test_layers_nested_too_deeply_are_refused_in_words():
    spec = {"type": "relu"}
    for _ in range(60):
        spec = {"type": "sequential", "layers": [spec]}
    with pytest.raises(SpecError, match="nested more than"):
        from_spec(spec)


def test_fit_can_be_pickled_and_says_what_it_returns():
    assert pickle.loads(pickle.dumps(fit)) is fit
    assert inspect.signature(fit).return_annotation == list[EpochReport]
    assert fit.__doc__.startswith("Train `model` in place; return a report for each epoch.")
