from math import sqrt

import numpy as np
import pytest

import cnn
from cnn.optimizers import SGD, Adagrad, Adam, AdamW, Muon, Optimizer, RMSProp, orthogonalize
from cnn.parameter import Parameter
from cnn.registry import OPTIMIZERS, written_options

SHAPES = {"0.kernel": (2, 1, 2, 3), "0.bias": (3,), "1.weight": (3, 2), "1.bias": (2,)}
RATES = [0.1, 0.1, 0.05, 0.2, 0.03, 0.01, 0.1]  # one per step
CLASSES = list(OPTIMIZERS.values())


# The papers' updates for one number θ; `steps` are pairs of a learning rate and dL/dθ.


def sgd(theta, steps, momentum=0.0, nesterov=False, weight_decay=0.0):
    v = 0.0
    for rate, g in steps:
        g = g + weight_decay * theta
        v = momentum * v + g
        theta = theta - rate * (g + momentum * v if nesterov else v)
    return theta


def rmsprop(theta, steps, decay=0.9, epsilon=1e-8, weight_decay=0.0):
    s = 0.0
    for rate, g in steps:
        g = g + weight_decay * theta
        s = decay * s + (1 - decay) * g**2
        theta = theta - rate * g / (sqrt(s) + epsilon)
    return theta


def adagrad(theta, steps, epsilon=1e-10, weight_decay=0.0):
    s = 0.0
    for rate, g in steps:
        g = g + weight_decay * theta
        s = s + g**2
        theta = theta - rate * g / (epsilon + sqrt(s))
    return theta


def adam(theta, steps, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, decoupled=0.0):
    m, v = 0.0, 0.0
    for t, (rate, g) in enumerate(steps, start=1):
        g = g + weight_decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        theta = theta - rate * (m_hat / (sqrt(v_hat) + epsilon) + decoupled * theta)
    return theta


def adamw(theta, steps, weight_decay=0.01, **options):
    return adam(theta, steps, decoupled=weight_decay, **options)


# Muon's update is one of whole matrices: `theta` and the gradients in `steps` are arrays.


def newton_schulz(s, iterations=5):
    """What Muon's iterations make of a singular value."""
    for _ in range(iterations):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def muon(theta, steps, momentum=0.95, nesterov=True, iterations=5, normalize=False, weight_decay=0.0):
    v = np.zeros_like(theta)
    for rate, g in steps:
        v = momentum * v + g
        u = g + momentum * v if nesterov else v
        if theta.ndim > 1:
            paper = np.moveaxis(u, -1, 0)  # (out, in, ...)
            out, fan_in = len(paper), u[..., 0].size
            left, s, right = np.linalg.svd(paper.reshape(out, fan_in), full_matrices=False)
            update = left @ np.diag(newton_schulz(s / sqrt(np.sum(s**2)), iterations)) @ right
            u = np.moveaxis(update.reshape(paper.shape), 0, -1)
            if normalize:
                theta = theta * sqrt(out) / sqrt(np.sum(theta**2))
            else:
                theta, u = theta * (1 - rate * weight_decay), u * sqrt(max(1, out / fan_in))
        theta = theta - rate * u
    return theta


def expected_values(equations, theta, steps, **options):
    """The array θ after `steps`, by equations of one number or, for Muon, of an array."""
    if equations is muon:
        return muon(theta, steps, **options)
    expected = np.empty_like(theta)
    for index in np.ndindex(theta.shape):
        expected[index] = equations(theta[index], [(rate, g[index]) for rate, g in steps], **options)
    return expected


CASES = [
    (SGD, sgd, {}),
    (SGD, sgd, {"momentum": 0.9}),
    (SGD, sgd, {"momentum": 0.9, "nesterov": True}),
    (SGD, sgd, {"weight_decay": 0.1}),
    (SGD, sgd, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (RMSProp, rmsprop, {}),
    (RMSProp, rmsprop, {"decay": 0.7, "epsilon": 0.03, "weight_decay": 0.1}),
    (RMSProp, rmsprop, {"decay": 0.0}),
    (Adagrad, adagrad, {}),
    (Adagrad, adagrad, {"epsilon": 0.03, "weight_decay": 0.1}),
    (Adam, adam, {}),
    (Adam, adam, {"beta1": 0.6, "beta2": 0.8, "epsilon": 0.03, "weight_decay": 0.1}),
    (Adam, adam, {"beta1": 0.0, "beta2": 0.0}),
    (AdamW, adamw, {}),
    (AdamW, adamw, {"beta1": 0.6, "beta2": 0.8, "epsilon": 0.03, "weight_decay": 0.3}),
    (Muon, muon, {}),
    (Muon, muon, {"momentum": 0.6, "iterations": 3, "normalize": True}),
    (Muon, muon, {"momentum": 0.0, "nesterov": False, "weight_decay": 0.3}),
    (Muon, muon, {"momentum": 0.6, "nesterov": False, "iterations": 1}),
]


def make_parameters(rng, dtype=np.float64):
    return {
        name: Parameter(rng.standard_normal(shape).astype(dtype), name.split(".")[1])
        for name, shape in SHAPES.items()
    }


def run(optimizer, rng, rates=RATES):
    """Take a step at each of `rates`, on random gradients; return these, by step and name."""
    history = []
    for rate in rates:
        for parameter in optimizer.parameters.values():
            gradient = rng.standard_normal(parameter.value.shape)
            parameter.grad = gradient.astype(parameter.value.dtype)
        history.append({name: parameter.grad.copy() for name, parameter in optimizer.parameters.items()})
        optimizer.learning_rate = rate
        optimizer.step()
    return history


def one_step(optimizer_class, gradient, value=0.0, learning_rate=0.1, **options):
    """The change of a matrix full of `value` after a first step on `gradient`."""
    parameter = Parameter(np.full(np.shape(gradient), value), "weight")
    parameter.grad = np.array(gradient)
    optimizer_class({"weight": parameter}, learning_rate, **options).step()
    return parameter.value - value


def bytes_of(optimizer):
    values = {name: parameter.value for name, parameter in optimizer.parameters.items()}
    return {name: array.tobytes() for name, array in (values | optimizer.state_dict()).items()}


@pytest.mark.parametrize(("optimizer_class", "equations", "options"), CASES)
def test_steps_follow_the_equations_of_the_paper(rng, optimizer_class, equations, options):
    parameters = make_parameters(rng)
    before = {name: parameter.value.copy() for name, parameter in parameters.items()}
    history = run(optimizer_class(parameters, 9.9, **options), rng)
    for name, parameter in parameters.items():
        exempt = {"weight_decay": 0.0} if name.endswith("bias") else {}
        steps = [(rate, gradients[name]) for rate, gradients in zip(RATES, history, strict=True)]
        expected = expected_values(equations, before[name], steps, **(options | exempt))
        np.testing.assert_allclose(parameter.value, expected, rtol=1e-11, atol=1e-13, err_msg=name)


def test_every_registered_optimizer_and_every_option_of_it_stands_under_its_equations():
    """A new optimiser needs its paper's update above, as a function of one number or array, and cases."""
    unknown = [cls.__name__ for cls, _, _ in CASES if cls not in CLASSES]
    assert not unknown, f"not registered: {unknown}"
    for optimizer_class in CLASSES:
        name, known = optimizer_class.__name__, written_options(optimizer_class)
        cases = [options for cls, _, options in CASES if cls is optimizer_class]
        changed = {key for options in cases for key in options if options[key] != known[key].default}
        missing = sorted(known.keys() - changed - {"learning_rate"})
        assert {} in cases, f"missing in CASES of this file: {name} with its defaults"
        assert not missing, f"missing in CASES of this file: {name} with other values of {missing}"
        assert optimizer_class in [cls for cls, _, _ in MEMORIES], f"missing in MEMORIES of this file: {name}"


def test_every_registered_optimizer_is_exported():
    missing = [x.__name__ for x in CLASSES if getattr(cnn, x.__name__, None) is not x]
    assert not missing, f"not exported by cnn/__init__.py: {missing}"


def test_default_learning_rates_are_those_that_are_usual():
    rates = {name: cls({}).learning_rate for name, cls in OPTIMIZERS.items()}
    usual = {"sgd": 0.1, "adagrad": 0.01, "rmsprop": 0.001, "adam": 0.001, "adamw": 0.001, "muon": 0.02}
    assert rates | usual == rates


GRADIENT = np.array([[3.0, -0.5], [-20.0, 1e-3]])


def test_the_first_step_of_sgd_is_the_gradient_times_the_learning_rate():
    np.testing.assert_array_equal(one_step(SGD, GRADIENT), -0.1 * GRADIENT)


def test_momentum_carries_a_constant_gradient_towards_its_geometric_series():
    parameter = Parameter(np.zeros((1, 1)), "weight")
    parameter.grad = np.ones((1, 1))
    optimizer = SGD({"weight": parameter}, 1.0, momentum=0.5)
    for _ in range(60):
        before = parameter.value.copy()
        optimizer.step()
    np.testing.assert_allclose(parameter.value - before, -2.0, rtol=1e-12)  # 1 + 1/2 + 1/4 + …


@pytest.mark.parametrize("optimizer_class", [Adagrad, Adam])
def test_the_first_step_of_adagrad_and_adam_has_the_length_of_the_learning_rate(optimizer_class):
    np.testing.assert_allclose(one_step(optimizer_class, GRADIENT), -0.1 * np.sign(GRADIENT), rtol=1e-4)


def test_the_first_step_of_rmsprop_is_longer_by_one_over_the_root_of_one_minus_decay():
    expected = -0.1 * np.sign(GRADIENT) / sqrt(1 - 0.75)
    np.testing.assert_allclose(one_step(RMSProp, GRADIENT, decay=0.75), expected, rtol=1e-4)


def test_adagrad_steps_shrink_with_the_root_of_time():
    parameter = Parameter(np.zeros((1, 1)), "weight")
    parameter.grad = np.full((1, 1), 7.0)
    optimizer = Adagrad({"weight": parameter}, 0.1)
    for t in range(1, 10):
        before = parameter.value.copy()
        optimizer.step()
        np.testing.assert_allclose(parameter.value - before, -0.1 / sqrt(t), rtol=1e-9)


@pytest.mark.parametrize("optimizer_class", CLASSES)
def test_without_a_gradient_only_weight_decay_moves_a_weight(optimizer_class):
    assert not one_step(optimizer_class, np.zeros((1, 2)), value=2.0, weight_decay=0.0).any()
    assert not one_step(optimizer_class, np.zeros(2), value=2.0, weight_decay=0.5).any()
    assert (one_step(optimizer_class, np.zeros((1, 2)), value=2.0, weight_decay=0.5) < 0).all()


def test_adamw_decays_by_its_own_factor_whatever_the_gradients_scale():
    change = one_step(AdamW, np.zeros((1, 2)), value=2.0, weight_decay=0.5)
    np.testing.assert_allclose(change, -0.1 * 0.5 * 2.0, rtol=1e-12)
    # while Adam divides the pull by its own size, like any gradient
    change = one_step(Adam, np.zeros((1, 2)), value=2.0, weight_decay=0.5)
    np.testing.assert_allclose(change, -0.1, rtol=1e-6)


def random_orthogonal(rng, rows, columns):
    """Orthonormal columns."""
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


@pytest.mark.parametrize("shape", [(6, 6), (3, 9), (9, 3), (1, 4), (4, 1)])
@pytest.mark.parametrize("iterations", [1, 3, 5])
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_orthogonalize_maps_singular_values_by_its_polynomial_and_keeps_the_vectors(
    rng, shape, iterations, scale
):
    rank = min(shape)
    s = np.geomspace(1, 1e-3, rank)
    left, right = random_orthogonal(rng, shape[0], rank), random_orthogonal(rng, shape[1], rank)
    expected = left @ np.diag(newton_schulz(s / sqrt(np.sum(s**2)), iterations)) @ right.T
    matrix = scale * (left @ np.diag(s) @ right.T)
    np.testing.assert_allclose(orthogonalize(matrix, iterations), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 60), (60, 8)])
def test_five_iterations_in_float32_bring_singular_values_near_one(rng, shape):
    matrix = rng.standard_normal(shape).astype(np.float32)
    made = orthogonalize(matrix, 5)
    assert made.dtype == np.float32
    s = np.linalg.svd(made, compute_uv=False)
    assert 0.65 < s.min() < s.max() < 1.25
    np.testing.assert_allclose(made, orthogonalize(matrix.astype(np.float64), 5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0.0, 1.0, "tiny"])
def test_a_matrix_without_length_or_nearly_so_gives_finite_numbers(dtype, size):
    matrix = np.full((3, 2), np.finfo(dtype).tiny if size == "tiny" else size, dtype)
    made = orthogonalize(matrix, 5)
    assert np.isfinite(made).all()
    assert made.any() == (size != 0)


def test_muons_step_has_the_length_that_the_shape_of_the_kernel_gives_it(rng):
    """sqrt(out / fan_in) if a kernel has more outputs than inputs, and 1 if not."""
    for shape, factor in {(2, 32): 4.0, (32, 2): 1.0, (2, 2, 1, 16): 2.0}.items():
        gradient = rng.standard_normal(shape)
        plain = one_step(Muon, gradient)
        o = orthogonalize((1.95 * gradient).reshape(-1, shape[-1]), 5).reshape(shape)
        np.testing.assert_allclose(plain, -0.1 * factor * o, rtol=1e-12)


def test_normalize_sets_each_kernels_norm_to_the_root_of_its_outputs_and_scales_no_step(rng):
    kernel, zeros = (Parameter(x, "kernel") for x in (rng.random((3, 3, 2, 5)), np.zeros((2, 32))))
    bias = Parameter(np.ones(5), "bias")
    kernel.grad, zeros.grad, bias.grad = np.zeros((3, 3, 2, 5)), np.ones((2, 32)), np.zeros(5)
    optimizer = Muon({"kernel": kernel, "zeros": zeros, "bias": bias}, 0.1, normalize=True)
    optimizer.step()
    assert np.linalg.norm(kernel.value) == pytest.approx(sqrt(5), rel=1e-12)
    np.testing.assert_array_equal(bias.value, 1.0)
    assert np.linalg.norm(zeros.value) == pytest.approx(0.1 * newton_schulz(1.0), rel=1e-12)


def test_muon_moves_parameters_with_one_axis_as_sgd_with_momentum_does(rng):
    moved = []
    for make in (Muon, SGD):
        parameters = {"bias": Parameter(np.ones(4), "bias")}
        run(make(parameters, 0.1, momentum=0.9, nesterov=True), np.random.default_rng(5))
        moved.append(parameters["bias"].value)
    np.testing.assert_array_equal(*moved)


@pytest.mark.parametrize("optimizer_class", CLASSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_keep_their_dtype_and_place_and_gradients_their_values(rng, optimizer_class, dtype):
    parameters = make_parameters(rng, dtype)
    optimizer = optimizer_class(parameters, np.float64(0.1), weight_decay=np.float64(0.1))
    arrays = {name: parameter.value for name, parameter in parameters.items()}
    history = run(optimizer, rng, [np.float64(0.1)] * 3)
    for name, parameter in parameters.items():
        assert parameter.value is arrays[name]
        np.testing.assert_array_equal(parameter.grad, history[-1][name])
    memory = [array for name, array in optimizer.state_dict().items() if name != "step"]
    assert {array.dtype for array in [*arrays.values(), *memory]} == {np.dtype(dtype)}


@pytest.mark.parametrize("optimizer_class", CLASSES)
def test_numpy_scalars_as_arguments_give_the_same_bits_as_python_floats(optimizer_class):
    results = []
    for number in (float, np.float64):
        rng = np.random.default_rng(3)
        optimizer = optimizer_class(make_parameters(rng, np.float32), number(0.1), weight_decay=number(0.1))
        run(optimizer, rng, [number(0.3), number(0.1)])
        results.append(bytes_of(optimizer))
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_without_any_axis_are_changed_in_place_too(dtype):
    for optimizer_class in CLASSES:
        parameter = Parameter(np.array(1.0, dtype), "scale")
        array, parameter.grad = parameter.value, np.array(2.0, dtype)
        optimizer_class({"scale": parameter}, 0.1).step()
        assert parameter.value is array
        assert array < 1
        assert array.dtype == dtype


STATE_CASES = [*((cls, {}) for cls in CLASSES), (SGD, {"momentum": 0.9, "nesterov": True})]


@pytest.mark.parametrize(("optimizer_class", "options"), STATE_CASES)
def test_a_run_that_is_resumed_from_a_state_goes_on_with_the_same_bytes(rng, optimizer_class, options):
    optimizer = optimizer_class(make_parameters(rng, np.float32), 0.1, **options)
    run(optimizer, rng)
    state = optimizer.state_dict()
    copies = {name: Parameter(p.value.copy(), p.name) for name, p in optimizer.parameters.items()}
    resumed = optimizer_class(copies, 0.1, **options)
    resumed.load_state_dict(state)
    run(optimizer, np.random.default_rng(7))
    run(resumed, np.random.default_rng(7))
    assert bytes_of(resumed) == bytes_of(optimizer)
    assert any(array.tobytes() != state[name].tobytes() for name, array in optimizer.state_dict().items())
    np.testing.assert_array_equal(state["step"], len(RATES))  # the state is a copy


MEMORIES = [
    (SGD, {}, []),
    (SGD, {"momentum": 0.9}, ["velocity"]),
    (RMSProp, {}, ["mean_square"]),
    (Adagrad, {}, ["square_sum"]),
    (Adam, {}, ["first_moment", "second_moment"]),
    (AdamW, {}, ["first_moment", "second_moment"]),
    (Muon, {}, ["velocity"]),
]


@pytest.mark.parametrize(("optimizer_class", "options", "kinds"), MEMORIES)
def test_the_state_names_each_memory_after_its_parameter(rng, optimizer_class, options, kinds):
    optimizer = optimizer_class(make_parameters(rng), 0.1, **options)
    state = optimizer.state_dict()
    assert list(state) == ["step", *(f"{kind}.{name}" for name in SHAPES for kind in kinds)]
    assert all(state[f"{kind}.{name}"].shape == shape for name, shape in SHAPES.items() for kind in kinds)
    assert not any(array.any() for array in state.values())
    run(optimizer, rng)
    assert all(array.any() for array in optimizer.state_dict().values())
    assert not any(array.any() for array in state.values())


def test_a_state_that_does_not_fit_is_refused_whole():
    parameters = {"0.kernel": Parameter(np.ones((2, 3)), "kernel"), "0.bias": Parameter(np.ones(3), "bias")}
    optimizer = SGD(parameters, 0.1, momentum=0.9)
    state = {"step": np.array(3.0), "velocity.0.kernel": np.ones((3, 2)), "mean_square.0.bias": np.ones(3)}
    before = bytes_of(optimizer)
    with pytest.raises(ValueError) as error:
        optimizer.load_state_dict(state)
    assert str(error.value) == (
        "The state does not fit this SGD: missing: velocity.0.bias; unexpected: mean_square.0.bias; "
        "step is float64, not int64; velocity.0.kernel has shape (3, 2), not (2, 3)."
    )
    assert bytes_of(optimizer) == before


@pytest.mark.parametrize("optimizer_class", CLASSES)
def test_a_step_before_any_backward_is_refused_and_changes_nothing(rng, optimizer_class):
    optimizer = optimizer_class(make_parameters(rng), 0.1)
    run(optimizer, rng)
    optimizer.parameters["1.bias"].grad = None
    before = bytes_of(optimizer)
    with pytest.raises(RuntimeError) as error:
        optimizer.step()
    assert str(error.value) == "Parameter 1.bias has no gradient: call backward before step."
    assert bytes_of(optimizer) == before


RATE = "learning_rate must be a finite number > 0"
EPSILON = "epsilon must be a finite number > 0"


@pytest.mark.parametrize(
    ("optimizer_class", "arguments", "message"),
    [
        *((cls, {"learning_rate": 0}, f"{RATE}; received 0.") for cls in CLASSES),
        *(
            (cls, {"weight_decay": -1}, "weight_decay must be a finite number >= 0; received -1.")
            for cls in CLASSES
        ),
        *(
            (cls, {"epsilon": 0.0}, f"{EPSILON}; received 0.0.")
            for cls in CLASSES
            if "epsilon" in written_options(cls)
        ),
        (SGD, {"learning_rate": float("nan")}, f"{RATE}; received nan."),
        (SGD, {"learning_rate": float("inf")}, f"{RATE}; received inf."),
        (SGD, {"learning_rate": "0.1"}, f"{RATE}; received '0.1'."),
        (SGD, {"learning_rate": True}, f"{RATE}; received True."),
        (SGD, {"momentum": 1}, "momentum must be in [0, 1); received 1."),
        (
            SGD,
            {"nesterov": True},
            "nesterov looks ahead along the momentum, so it needs momentum > 0; received 0.",
        ),
        (RMSProp, {"decay": 1.0}, "decay must be in [0, 1); received 1.0."),
        (Adam, {"beta1": 1.0}, "beta1 must be in [0, 1); received 1.0."),
        (Adam, {"beta2": -0.1}, "beta2 must be in [0, 1); received -0.1."),
        (AdamW, {"beta1": -0.1}, "beta1 must be in [0, 1); received -0.1."),
        (AdamW, {"beta2": 1}, "beta2 must be in [0, 1); received 1."),
        (Muon, {"momentum": 1.0}, "momentum must be in [0, 1); received 1.0."),
        (Muon, {"iterations": 0}, "iterations must be a whole number from 1 to 100; received 0."),
        (
            Muon,
            {"normalize": True, "weight_decay": 0.1},
            "normalize sets the norm that weight decay would reduce, so it needs weight_decay = 0; received 0.1.",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(optimizer_class, arguments, message):
    with pytest.raises(ValueError) as error:
        optimizer_class({}, **{"learning_rate": 0.1} | arguments)
    assert str(error.value) == message


def test_an_optimizer_without_a_method_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        Optimizer({}, 0.1, weight_decay=0.0)
