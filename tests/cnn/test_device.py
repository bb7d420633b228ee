"""On a device: the same results as on the host, from the same lines, with the functions that CuPy has.

Here the device is a double (`device_double.py`), which computes with NumPy: so results have the bits of the
host. `make gpu-check` runs the same tests with CuPy, whose sums have another order.
"""

import copy
import importlib
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import spread
from device_double import FUNCTIONS, DeviceArray, used
from test_augmentation import ALL
from test_layers import CASES, forward, gradient_for, make

import cnn
from cnn import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Examples,
    Flatten,
    Group,
    Lookahead,
    MaxPool2D,
    MovingAverage,
    ParameterGroups,
    Processes,
    Progress,
    ReLU,
    Sequential,
    fit,
    gradient_check,
    move,
    softmax_cross_entropy,
)
from cnn.augmentation import (
    compose,
    cutout,
    horizontal_flip,
    random_contrast,
    random_crop,
    random_rotation,
    random_shift,
)
from cnn.clipping import clip_by_norm, clip_by_value, gradient_squares
from cnn.ops.arrays import place, to_host
from cnn.registry import LOSSES, OPTIMIZERS
from cnn.views import mean_over_views

TOLERANCE = {np.dtype(np.float32): 2e-4, np.dtype(np.float64): 1e-9}  # of CuPy, of the largest number


@pytest.fixture(scope="module")
def device(request):
    """An array on the device, for `like`."""
    if request.config.getoption("device") == "double":
        return DeviceArray(np.empty(0))
    return importlib.import_module("cupy").empty(0)


def on_double(device):
    return isinstance(device, DeviceArray)


def assert_as_on_host(found, expected):
    """An array on the device with the same bits as on the host, or, with CuPy, close numbers."""
    assert type(found) is not np.ndarray
    assert to_host(found).dtype == expected.dtype
    assert found.shape == expected.shape
    assert_close(to_host(found), expected, exactly=on_double(found))


def assert_close(found, expected, exactly):
    if exactly or expected.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected)
    else:
        scale = max(np.abs(expected).max(initial=0.0), 1e-30)
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=TOLERANCE[expected.dtype])


each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.mark.parametrize("name", CASES)
@each_dtype
def test_a_layer_computes_what_it_does_on_the_host(device, name, dtype):
    layer, x = make(name, dtype)
    moved = copy.deepcopy(layer)
    move(moved, like=device)
    assert_as_on_host(
        forward(moved, place(x, like=device), training=False), forward(layer, x, training=False)
    )
    y = forward(layer, x)
    assert_as_on_host(forward(moved, place(x, like=device)), y)
    grad_y = gradient_for(y)
    assert_as_on_host(moved.backward(place(grad_y, like=device)), layer.backward(grad_y))
    for key, parameter in layer.parameters().items():
        assert_as_on_host(moved.parameters()[key].grad, parameter.grad)
    for key, buffer in layer.buffers().items():
        assert_as_on_host(moved.buffers()[key], buffer)


@pytest.mark.parametrize("name", CASES)
def test_gradients_on_the_device_match_finite_differences(device, name):
    layer, x = make(name, batch=2)
    if on_double(device) and "minimal" in name:
        pytest.skip("thousands of numbers; on the double the gradients are those of the host, see above")
    for parameter in layer.parameters().values():
        parameter.value += 0.1 * np.random.default_rng(6).standard_normal(parameter.value.shape)
    move(layer, like=device)
    errors = gradient_check(layer, place(x, like=device), rng=np.random.default_rng(4))
    assert set(errors) == {"x", *layer.parameters()}
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("name", CASES)
def test_the_affine_map_of_evaluation_goes_back_on_the_device(device, name):
    layer, x = make(name)
    moved = copy.deepcopy(layer)
    move(moved, like=device)
    outcomes = []
    for each, images in ((layer.as_evaluated(), x), (moved.as_evaluated(), place(x, like=device))):
        y = forward(each, images)
        outcomes.append(each.backward(place(gradient_for(to_host(y)), like=y)))
    assert_as_on_host(outcomes[1], outcomes[0])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "class_weights": [1.0, 2.0, 0.5]}])
def test_a_loss_is_that_of_the_host(device, name, options):
    if options and name != "softmax_cross_entropy":
        options = {}
    outputs = np.random.default_rng(1).random((4, 3), np.float32) + 0.1
    targets = np.eye(3, dtype=np.uint8)[[0, 2, 1, 1]]
    value, gradient = LOSSES[name](outputs, targets, **options)
    found, gradient_found = LOSSES[name](place(outputs, like=device), place(targets, like=device), **options)
    assert type(found) is float
    assert found == pytest.approx(value, rel=1e-5)
    assert_as_on_host(gradient_found, gradient)


def two_networks(device):
    rng = np.random.default_rng(8)
    layers = [
        Conv2D(1, 8, 3, padding="same", bias=False, rng=rng),
        BatchNorm(8),
        ReLU(),
        Conv2D(8, 16, 3, rng=rng),
        MaxPool2D(2),
        Conv2D(16, 16, 3, padding=1, rng=rng),
        ReLU(),
        MaxPool2D(2),
        Flatten(),
        Dropout(0.2),
        Dense(64, 3, rng=rng),
    ]
    host = Sequential(layers)
    moved = copy.deepcopy(host)
    move(moved, like=device)
    return host, moved


STEPS = [(name, {}) for name in OPTIMIZERS] + [
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("muon", {"normalize": True}),
    ("muon", {"weight_decay": 0.1, "nesterov": False}),
]


@pytest.mark.parametrize(("name", "options"), STEPS)
@pytest.mark.parametrize("kind", [MovingAverage, Lookahead])
def test_an_optimizer_an_average_and_clipping_step_as_on_the_host(device, name, options, kind):
    outcomes = []
    for model in two_networks(device):
        parameters = model.parameters()
        optimizer = OPTIMIZERS[name](parameters, 0.02, **options)
        average = kind(parameters, 0.9) if kind is MovingAverage else Lookahead(parameters, 3, every=2)
        rng = np.random.default_rng(2)
        for _ in range(3):
            for parameter in parameters.values():
                parameter.grad = model.place(
                    rng.standard_normal(parameter.value.shape).astype(parameter.value.dtype)
                )
            clip_by_value(parameters, 1.5)
            clip_by_norm(parameters, 20.0)
            optimizer.step()
            average.update()
        squares = gradient_squares(parameters)
        assert all(type(square) is float for square in squares.values())
        outcomes.append(model.state_dict() | optimizer.state_dict() | average.state_dict())
    for key, expected in outcomes[0].items():
        assert_close(outcomes[1][key], expected, exactly=on_double(device))
        assert type(outcomes[1][key]) is np.ndarray


@pytest.mark.parametrize(("function", "amount"), ALL)
@each_dtype
def test_an_augmentation_gives_the_images_of_the_host(device, function, amount, dtype):
    images = spread(np.random.default_rng(1), (4, 7, 6, 3), dtype)
    expected = function(images, np.random.default_rng(2), amount)
    assert_as_on_host(function(place(images, like=device), np.random.default_rng(2), amount), expected)


@pytest.mark.parametrize("function", [random_shift, random_crop, cutout])
def test_the_colour_beyond_the_border_may_have_a_number_for_each_channel(device, function):
    images = spread(np.random.default_rng(1), (4, 7, 6, 3), np.float32)
    options = {"fill": np.array([0.1, 0.2, 0.3])} | ({"mode": "constant"} if function is random_crop else {})
    expected = function(images, np.random.default_rng(2), 3, **options)
    found = function(place(images, like=device), np.random.default_rng(2), 3, **options)
    assert_as_on_host(found, expected)


def run(model, executor=None):
    """A training in which everything takes part that a step may contain; what it leaves."""
    rng = np.random.default_rng(3)
    images = rng.standard_normal((20, 10, 10, 1)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 20)]
    parameters = model.parameters()
    kernels = {name: p for name, p in parameters.items() if p.value.ndim == 4}
    others = {name: p for name, p in parameters.items() if name not in kernels}
    optimizer = ParameterGroups(
        [
            Group(OPTIMIZERS["muon"](kernels, 0.02, normalize=True)),
            Group(OPTIMIZERS["sgd"](others, 0.1, momentum=0.9, nesterov=True)),
        ]
    )
    average = MovingAverage(parameters, 0.95)
    reports = fit(
        model,
        Examples(images, targets),
        Examples(images[:9], targets[:9]),
        optimizer=optimizer,
        epochs=2,
        batch_size=12,
        shard_size=6,
        loss=partial(softmax_cross_entropy, label_smoothing=0.1),
        augment=compose(
            partial(random_shift, pixels=1.0),
            partial(random_rotation, degrees=5.0),
            partial(horizontal_flip, probability=0.5),
            partial(random_contrast, fraction=0.1),
        ),
        clip_norm=5.0,
        moving_average=average,
        executor=executor,
    )
    state = model.state_dict() | optimizer.state_dict() | average.state_dict()
    return reports, state, mean_over_views(model.predict, images, mirror=True, shift=1)


def test_training_and_prediction_are_those_of_the_host(device):
    (expected, state, outputs), (found, state_found, outputs_found) = map(run, two_networks(device))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-3)
    assert state.keys() == state_found.keys()
    if on_double(device):
        for name, array in state.items():
            np.testing.assert_array_equal(state_found[name], array, err_msg=name)
        np.testing.assert_array_equal(outputs_found, outputs)
    assert type(outputs_found) is np.ndarray


def test_the_same_training_on_one_device_gives_the_same_bits(device):
    results = [run(two_networks(device)[1]) for _ in range(2)]
    for name, array in results[0][1].items():
        np.testing.assert_array_equal(results[1][1][name], array, err_msg=name)
    np.testing.assert_array_equal(results[0][2], results[1][2])


def test_a_network_moves_to_the_device_and_back_and_is_saved_from_there(device, tmp_path):
    host, moved = two_networks(device)
    for name, array in moved.state_dict().items():
        np.testing.assert_array_equal(array, host.state_dict()[name])
    cnn.save(tmp_path / "moved.npz", moved, progress=Progress())
    cnn.save(tmp_path / "host.npz", host, progress=Progress())
    assert (tmp_path / "moved.npz").read_bytes() == (tmp_path / "host.npz").read_bytes()
    moved.load_state_dict(cnn.load(tmp_path / "host.npz").model.state_dict())
    move(moved, like=np.empty(0))
    assert {type(array) for array in moved.buffers().values()} == {np.ndarray}
    x = np.ones((2, 10, 10, 1), np.float32)
    np.testing.assert_array_equal(moved.predict(x), host.predict(x))


def test_a_network_that_does_not_compute_finite_numbers_is_reported_from_the_device(device):
    model = two_networks(device)[1]
    model.parameters()["3.kernel"].value[0] = np.nan
    with pytest.raises(
        cnn.NonFiniteError, match="first numbers that are not finite are the output of layer 3"
    ):
        run(model)


def test_a_layer_whose_arrays_are_hidden_cannot_be_moved(device):
    class Hidden(cnn.ReLU):
        def __init__(self):
            self.kept = {"mean": np.zeros(2)}

        def buffers(self):
            return {"mean": self.kept["mean"]}

    with pytest.raises(ValueError, match=r"could not move: 0\.mean"):
        move(Sequential([Hidden()]), like=device)


def test_several_workers_for_a_network_on_a_device_are_refused(device):
    with pytest.raises(ValueError, match="computed by this process alone; received the executor Processes"):
        run(two_networks(device)[1], executor=Processes(2))


# The double itself.

refused = pytest.mark.parametrize(
    "operation",
    [
        lambda x: np.asarray(x),
        lambda x: x + np.ones(3),
        lambda x: np.ones(3) * x,
        lambda x: np.add(x, [1, 2, 3]),
        lambda x: np.maximum(x, [1, 2, 3]),
        lambda x: np.exp(x, out=np.empty(3)),
        lambda x: np.concatenate([x, np.ones(3)]),
        lambda x: np.concatenate((x, np.ones(3))),
        lambda x: np.add.at(x, 0, 1.0),
        lambda x: np.add.reduce(x),
        lambda x: np.exp(x, where=x > 0),
        lambda x: x.max(initial=0.0),
        lambda x: np.median(x),
        lambda x: x.sort(),
        lambda x: x.take(np.array([0])),
        lambda x: x[np.array([0])],
        lambda x: x.__setitem__(slice(None), np.ones(3)),
        lambda x: range(5)[x.argmax()],
        lambda x: np.empty(3)[x > 0],
        lambda x: memoryview(x),
    ],
)


@refused
def test_the_double_refuses_what_cupy_refuses_and_what_it_does_not_know(operation):
    with pytest.raises((TypeError, AttributeError, IndexError)):
        operation(DeviceArray(np.arange(3.0)))


def test_what_the_double_gives_stays_on_the_device():
    x = DeviceArray(np.arange(6.0).reshape(2, 3))
    for value in (x.sum(), x.max(axis=0), np.exp(x[0, 0]), x[1, 2], x @ x.T, np.zeros(2, like=x), x[0] > 1):
        assert type(value) is DeviceArray
    first = x[0, 0]
    x += 1
    assert float(first) == 1.0  # a view, as with CuPy
    assert type(float(x.sum())) is float


def test_the_functions_that_the_page_lists_are_used(request):
    if request.config.getoption("device") != "double":
        pytest.skip("only the double notes what is used")
    device = DeviceArray(np.empty(0))
    used.clear()
    for name in CASES:
        test_a_layer_computes_what_it_does_on_the_host(device, name, np.float32)
        test_the_affine_map_of_evaluation_goes_back_on_the_device(device, name)
    for name in LOSSES:
        test_a_loss_is_that_of_the_host(device, name, {})
    for function, amount in ALL:
        test_an_augmentation_gives_the_images_of_the_host(device, function, amount, np.float32)
    for name, options in STEPS:
        test_an_optimizer_an_average_and_clipping_step_as_on_the_host(device, name, options, MovingAverage)
    test_training_and_prediction_are_those_of_the_host(device)
    page = (Path(__file__).parents[2] / "docs/gpu.md").read_text()
    table = page[page.index("| functions |") : page.index("`get`, `float()`")]
    listed = set(re.findall(r"`([\w.]+)`", table))
    assert sorted(listed - {name.removeprefix("ndarray.") for name in used}) == []
    assert sorted(FUNCTIONS.keys() - used) == []
