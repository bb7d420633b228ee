"""docs/mathematics.md is true: its numbers are the library's, and what it names and links to exists."""

import ast
import inspect
import math
import re
from functools import partial

import numpy as np
import pytest
from documents import ROOT, names_in_readme
from numpy.lib.stride_tricks import sliding_window_view

from cnn import (
    ELU,
    GELU,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Examples,
    Flatten,
    Group,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    Lookahead,
    MaxPool2D,
    MovingAverage,
    Muon,
    Parameter,
    ParameterGroups,
    ReLU,
    Residual,
    RMSProp,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    SpatialDropout,
    Tanh,
    clip_by_norm,
    clip_by_value,
    cross_entropy,
    initializers,
    mean_squared_error,
    schedules,
    softmax_cross_entropy,
    whiten,
)
from cnn.augmentation import (
    affine,
    alternating_flip,
    compose,
    random_blur,
    random_brightness,
    random_contrast,
    random_crop,
    random_erasing,
    random_gamma,
    random_rotation,
    random_shift,
    random_stroke,
)
from cnn.engine.fused_batch_norm import FirstConvBatchNorm
from cnn.engine.shards import ShardedGradients
from cnn.gradient_check import numeric_gradient
from cnn.ops.normalization import batch_statistics, normalize
from cnn.ops.softmax import softmax
from cnn.ops.windows import Window, col2im, im2col
from cnn.ops.winograd import minimal_filter
from cnn.optimizers import orthogonalize
from cnn.views import mean_over_views, views

PAGE = (ROOT / "docs/mathematics.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
TOLERANCE = 5.1e-5  # numbers are written with four decimals
FUNCTIONS = {name: getattr(math, name) for name in ("exp", "log", "sqrt", "cos", "pi")}
FUNCTIONS |= {"max": max, "min": min}
EXAMPLES = {}  # by name: from the numbers that the page gives to those that the library makes of them


def example(name):
    return lambda function: EXAMPLES.setdefault(name, function)


def array(values):
    return np.array(values, np.float64)


def image(values):
    """A batch of one image of one channel."""
    return array(values)[None, :, :, None]


def with_values(layer, **values):
    for name, value in values.items():
        parameter = layer.parameters()[name]
        parameter.value = array(value).reshape(parameter.value.shape)
    return layer


def both_passes(layer, x, grad_y, **arguments):
    """y, grad_x and the gradients of the parameters, under the names that the page uses."""
    y = layer.forward(x, training=True, **arguments)
    grad_x = layer.backward(array(grad_y).reshape(y.shape))
    gradients = {f"grad_{name}": parameter.grad for name, parameter in layer.parameters().items()}
    return {"y": y, "grad_x": grad_x} | gradients


def make(layer_type, *arguments, **options):
    return layer_type(*arguments, rng=np.random.default_rng(0), dtype=np.float64, **options)


@example("chain")
def _(x):
    gradient = numeric_gradient(lambda: float(3 * theta * theta**2), theta := np.array(float(x)))
    return {"a": 3 * x, "b": x**2, "L": 3 * x**3, "grad_a": x**2, "grad_b": 3 * x, "grad_x": gradient}


@example("softmax_cross_entropy")
def _(logits, targets):
    loss, grad = softmax_cross_entropy(array(logits), array(targets))
    scale = np.exp(logits).sum(axis=1)
    return {"S": scale, "prediction": softmax(array(logits)), "loss": loss, "grad_logits": grad}


@example("smoothed_and_weighted")
def _(logits, targets, label_smoothing, class_weights):
    options = {"label_smoothing": label_smoothing, "class_weights": class_weights}
    loss, grad = softmax_cross_entropy(array(logits), array(targets), **options)

    def gradient_where_all_is_predicted(k):  # ŷ is 1 at k, so that the gradient T·ŷ − t shows t and T
        return softmax_cross_entropy(1e3 * np.eye(3)[[k]], array(targets), **options)[1][0]

    first, last = gradient_where_all_is_predicted(0), gradient_where_all_is_predicted(2)
    t = [-last[0], -last[1], -first[2]]
    total, scale = first[0] + t[0], np.exp(logits).sum()
    return {"t": [t], "T": total, "S": scale, "loss": loss, "grad_logits": grad}


@example("cross_entropy")
def _(probabilities, targets):
    loss, grad = cross_entropy(array(probabilities), array(targets))
    return {"loss": loss, "grad_probabilities": grad}


@example("mean_squared_error")
def _(outputs, targets):
    loss, grad = mean_squared_error(array(outputs), array(targets))
    return {"loss": loss, "grad_outputs": grad}


@example("dense")
def _(x, weight, bias, grad_y):
    layer = with_values(make(Dense, 2, 3), weight=weight, bias=bias)
    return both_passes(layer, array(x), grad_y)


@example("convolution")
def _(x, kernel, bias, grad_y):
    layer = with_values(make(Conv2D, 1, 1, 2), kernel=kernel, bias=bias)
    return both_passes(layer, image(x), grad_y)


@example("convolution_with_stride_and_padding")
def _(x, kernel, grad_y):
    layer = make(Conv2D, 1, 1, (1, 3), stride=(1, 2), padding=(0, 1), bias=False)
    return both_passes(with_values(layer, kernel=kernel), image(x), grad_y)


@example("convolution_with_dilation")
def _(x, kernel):
    layer = with_values(make(Conv2D, 1, 1, (1, 3), dilation=2, bias=False), kernel=kernel)
    return {"y": layer.forward(image(x))}


@example("convolution_with_groups")
def _(x, kernel):
    layer = with_values(make(Conv2D, 4, 4, 1, groups=2, bias=False), kernel=kernel)
    return {"y": layer.forward(array(x)[None, None, None])}


@example("whitening")
def _(patches):
    layer = Conv2D(
        2, 4, 1, initializer=initializers.whitening, rng=np.random.default_rng(0), dtype=np.float64
    )
    x = array(patches).reshape(2, 1, 1, 2)
    whiten(Sequential([layer]), x)
    moments = array(patches).T @ array(patches) / 2
    return {
        "moments": moments,
        "eigenvalues": np.linalg.eigvalsh(moments)[::-1],
        "kernel": layer.kernel.value[0, 0, :, :2],
        "y": layer.forward(x).reshape(2, 4)[:, :2],
    }


@example("im2col")
def _(x, v):
    window = Window.of(2, 1)
    columns, adjoint = im2col(image(x), window), col2im(array(v)[None], image(x).shape, window)
    left, right = (columns * v).sum(), (adjoint * image(x)).sum()
    return {"columns": columns, "image": adjoint, "left": left, "right": right}


@example("max_pool")
def _(x, grad_y):
    return both_passes(MaxPool2D(2), image(x), grad_y)


@example("max_pool_overlapping")
def _(x, grad_y):
    return both_passes(MaxPool2D((1, 2), stride=1), image(x), grad_y)


@example("avg_pool")
def _(x, grad_y):
    return both_passes(AvgPool2D(2), image(x), grad_y)


@example("activations")
def _(x):
    layers = [ReLU(), LeakyReLU(), ELU(), Sigmoid(), Tanh(), SiLU(), GELU()]
    names = ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "silu", "gelu"]
    passes = {
        name: both_passes(layer, array(x), np.ones(len(x))) for name, layer in zip(names, layers, strict=True)
    }
    return {name: made["y"] for name, made in passes.items()} | {
        f"{name}_slope": made["grad_x"] for name, made in passes.items()
    }


@example("softmax")
def _(x, grad_y):
    return both_passes(Softmax(), array([x]), grad_y) | {"S": np.exp(x).sum()}


@example("log_softmax")
def _(x, grad_y):
    return both_passes(LogSoftmax(), array([x]), grad_y) | {"S": np.exp(x).sum()}


@example("batch_norm")
def _(x, gamma, beta, grad_y):
    layer = with_values(BatchNorm(1, dtype=np.float64), gamma=gamma, beta=beta)
    made = both_passes(layer, array(x)[:, None], grad_y)
    _, _, mean, variance = batch_statistics(array(x)[:, None])
    normalized, _ = normalize(array(x), 1e-5)
    g = gamma * array(grad_y)
    return made | layer.buffers() | {
        "mean": mean,
        "variance": variance,
        "normalized": normalized,
        "g": g,
        "mean_g": g.mean(),
        "mean_gx": (g * normalized).mean(),
    }  # fmt: skip


@example("batch_norm_of_patches")
def _(x, kernel, gamma, beta, grad_y):
    conv = Conv2D(1, 1, (1, 2), bias=False, rng=np.random.default_rng(0), dtype=np.float64)
    norm = BatchNorm(1, momentum=0.0, dtype=np.float64)
    for parameter, value in ((conv.kernel, kernel), (norm.gamma, gamma), (norm.beta, beta)):
        parameter.value[...] = np.reshape(value, parameter.value.shape)
    layer = FirstConvBatchNorm(conv, norm)
    y = layer.forward(array(x).reshape(1, 1, -1, 1), training=True)
    layer.backward_parameters(array(grad_y).reshape(y.shape))
    patches = sliding_window_view(array(x), 2)
    return {
        "a": patches.mean(axis=0),
        "covariance": np.cov(patches.T, bias=True),
        "mean": norm.running_mean,
        "variance": norm.running_var,
        "y": y,
        "grad_gamma": norm.gamma.grad,
        "grad_kernel": conv.kernel.grad,
    }


@example("layer_norm")
def _(x, gamma, beta, grad_y):
    layer = with_values(LayerNorm(4, dtype=np.float64), gamma=gamma, beta=beta)
    return both_passes(layer, array([x]), grad_y)


@example("dropout")
def _(x, rate, m, spatial_m, grad_y):
    class Drawn:
        """A generator that draws a mask: numbers below the rate are dropped."""

        def __init__(self, mask):
            self.mask = array(mask)

        def random(self, shape, dtype):
            return self.mask.reshape(shape)

    pixels = array(x)[None, :, None]  # (1, 2, 1, 2): two pixels, two channels
    made = both_passes(Dropout(rate), pixels, grad_y, rng=Drawn(m))
    spatial = both_passes(SpatialDropout(rate), pixels, grad_y, rng=Drawn(spatial_m))
    return made | {f"spatial_{name}": value for name, value in spatial.items()}


@example("residual")
def _(x, weight, grad_y):
    layer = with_values(make(Dense, 2, 2, bias=False), weight=weight)
    made = both_passes(Residual([layer, relu := ReLU()]), array([x]), grad_y)
    h = layer.forward(array([x]))
    relu.forward(h, training=True)
    grad_h = relu.backward(array([grad_y]))
    return {"h": h, "grad_h": grad_h, "grad_weight": layer.weight.grad} | {
        k: made[k] for k in ("y", "grad_x")
    }


@example("network")
def _(x, kernel, bias, weight, targets):
    convolution = with_values(make(Conv2D, 1, 1, 2), kernel=kernel, bias=bias)
    dense = with_values(make(Dense, 1, 2, bias=False), weight=weight)
    layers = [convolution, ReLU(), MaxPool2D(2), Flatten(), dense]
    values = [image(x)]
    for layer in layers:
        values.append(layer.forward(values[-1], training=True))
    loss, grad = softmax_cross_entropy(values[-1], array(targets))
    gradients = [grad]
    for layer in reversed(layers):
        gradients.append(layer.backward(gradients[-1]))
    names = ["x", "convolved", "rectified", "pooled", "flat", "logits"]
    return {
        **dict(zip(names, values, strict=True)),
        **{f"grad_{name}": value for name, value in zip(names[::-1], gradients, strict=True)},
        "prediction": softmax(values[-1]),
        "loss": loss,
        "grad_weight": dense.weight.grad,
        "grad_kernel": convolution.kernel.grad,
        "grad_bias": convolution.bias.grad,
    }


@example("optimizers")
def _(value, gradient, learning_rate, weight_decay):
    def two_steps(optimizer_type, **options):
        parameter = Parameter(array([[value]]), "weight")
        optimizer = optimizer_type({"weight": parameter}, learning_rate, **options)
        values = []
        for _ in range(2):
            parameter.grad = array([[gradient]])
            optimizer.step()
            values.append(parameter.value.item())
        return values

    return {
        "sgd": two_steps(SGD),
        "momentum": two_steps(SGD, momentum=0.9),
        "nesterov": two_steps(SGD, momentum=0.9, nesterov=True),
        "adagrad": two_steps(Adagrad),
        "rmsprop": two_steps(RMSProp),
        "adam": two_steps(Adam),
        "sgd_with_decay": two_steps(SGD, weight_decay=weight_decay),
        "adamw": two_steps(AdamW, weight_decay=weight_decay),
    }


@example("muon")
def _(value, gradient, learning_rate, iterations):
    def step(**options):
        parameter = Parameter(array(value), "weight")
        parameter.grad = array(gradient)
        Muon({"weight": parameter}, learning_rate, iterations=iterations, **options).step()
        return parameter.value

    orthogonal = [orthogonalize(array(gradient), count) for count in (1, iterations)]
    once, twice = ([made[0, 1], -made[1, 0]] for made in orthogonal)
    return {
        "norm": np.linalg.norm(gradient),
        "once": once,
        "twice": twice,
        "o": orthogonal[1],
        "plain": step(),
        "normalised": step(normalize=True),
    }


@example("schedules")
def _(learning_rate):
    triangular = schedules.triangular(learning_rate, epochs=10)
    one_cycle = schedules.one_cycle(learning_rate, epochs=10)
    return {
        "step_at_3": schedules.step(learning_rate, every=3, factor=0.3)(3),
        "exponential_at_2": schedules.exponential(learning_rate, factor=0.7)(2),
        "linear_at_4_of_10": schedules.linear(learning_rate, epochs=10)(4),
        "triangular_at_0_2_3_and_10_of_10": [triangular(t) for t in (0, 2.3, 10)],
        "triangular_at_1_15_of_10": triangular(1.15),
        "cosine_at_5_of_10": schedules.cosine(learning_rate, epochs=10)(5),
        "one_cycle_at_0_3_and_10_of_10": [one_cycle(t) for t in (0, 3, 10)],
        "warm_up_at_1_of_2": schedules.warm_up(schedules.constant(learning_rate), epochs=2)(1),
    }


@example("parameter_groups")
def _(values, gradient, learning_rates, epochs):
    parameters = [Parameter(array([value]), "weight") for value in values]
    groups = ParameterGroups(
        [
            Group(SGD({f"{k}.weight": parameter}, rate), epochs=last)
            for k, (parameter, rate, last) in enumerate(zip(parameters, learning_rates, epochs, strict=True))
        ]
    )
    made = {}
    for t, name in enumerate(["first", "second"]):
        for parameter in parameters:
            parameter.grad = array([gradient])
        groups.set_time(t)
        made.setdefault("norm", clip_by_norm(groups.trained, 1))
        groups.step()
        made[name] = [parameter.value.item() for parameter in parameters]
    return made


@example("clipping")
def _(gradient):
    parameter = Parameter(np.zeros(2), "weight")
    parameter.grad = array(gradient)
    norm = clip_by_norm({"weight": parameter}, 1)
    by_norm, parameter.grad = parameter.grad, array(gradient)
    clip_by_value({"weight": parameter}, 3)
    return {"norm": norm, "by_norm_1": by_norm, "by_value_3": parameter.grad}


@example("moving_average")
def _(start, decay):
    parameter = Parameter(array([start]), "weight")
    average, values = MovingAverage({"weight": parameter}, decay), []
    parameter.value = array([2])
    for _ in range(2):
        average.update()
        values.append(average.state_dict()["average.weight"].item())
    return {"average": values}


@example("lookahead")
def _(start, steps, every, decay):
    parameter = Parameter(array([start]), "weight")
    average, fast, slow = Lookahead({"weight": parameter}, steps, every=every, decay=decay), [], []
    for _ in range(steps):
        parameter.value += 1
        average.update()
        fast.append(parameter.value.item())
        slow.append(average.state_dict()["average.weight"].item())
    return {"fast": fast, "slow": slow, "d": [decay**every * (t / steps) ** 3 for t in (2, 4)]}


@example("shards")
def _(x, theta):
    model = Sequential([with_values(make(Dense, 1, 1, bias=False), weight=theta)])
    examples = Examples(array(x)[:, None], np.zeros((len(x), 1)))

    def loss_and_gradient(batch, shard_size):
        with ShardedGradients(model, mean_squared_error, examples, shard_size) as gradients:
            loss, _ = gradients(np.array(batch))
        return loss, model.layers[0].weight.grad.item()

    loss, grad = loss_and_gradient([0, 1, 2], 3)
    sum_of_losses, sum_of_grads = loss_and_gradient([0, 1, 2], 2)
    losses, grads = zip(loss_and_gradient([0, 1], 2), loss_and_gradient([2], 2), strict=True)
    return {
        "loss": loss,
        "grad": grad,
        "shard_losses": losses,
        "shard_grads": grads,
        "sum_of_losses": sum_of_losses,
        "sum_of_grads": sum_of_grads,
    }


@example("winograd")
def _(d, g):
    a, b, g_matrix = (array([[float(v) for v in row] for row in matrix]) for matrix in minimal_filter(2))
    made = {"transformed_d": b.T @ d, "transformed_g": g_matrix @ g}
    m = made["transformed_d"] * made["transformed_g"]
    return made | {"m": m, "y": a.T @ m}


@example("central_difference")
def _(theta, h):
    value = np.array(float(theta))
    return {"numeric": numeric_gradient(lambda: float(value**3), value, h)}


class Drawing:
    """A generator whose draws are the given values, in turn."""

    def __init__(self, *values):
        self.values = iter(values)

    def uniform(self, low, high, size):
        return np.broadcast_to(next(self.values), size)

    def integers(self, low, high, size=None, endpoint=False):
        return np.broadcast_to(next(self.values), size or np.shape(high))

    def random(self, size, dtype=None):
        return np.broadcast_to(next(self.values), size)


@example("affine_maps")
def _(x, t, degrees):
    shift = affine.shifts(1, Drawing(t), 1)
    rotation, inverse = (affine.rotations(1, Drawing(angle), 180) for angle in (degrees, -degrees))
    both = compose(partial(random_shift, pixels=1), partial(random_rotation, degrees=180))
    return {
        "shift": shift,
        "rotation": rotation,
        "product": shift @ rotation,
        "there_and_back": rotation @ inverse,
        "y": both(image(x), Drawing(t, degrees)),
    }


@example("crop")
def _(x, t):
    modes = {"reflected": "reflect", "constant": "constant"}
    return {name: random_crop(image([x]), Drawing([0, t]), 2, mode=mode) for name, mode in modes.items()}


@example("alternating_flip")
def _(seed, examples):
    images = np.broadcast_to(image([[0, 1]]), (len(examples), 1, 2, 1))

    def flipped(epoch):
        return alternating_flip(images, Drawing(), True, examples=np.array(examples), epoch=epoch, seed=seed)[
            :, 0, 0, 0
        ]

    return {f"flipped_in_epoch_{epoch}": flipped(epoch) for epoch in (1, 2, 3)}


@example("strokes_and_blur")
def _(x, u):
    return {
        "thicker": random_stroke(image([x]), Drawing(u), 1),
        "thinner": random_stroke(image([x]), Drawing(-u), 1),
        "convolved": random_blur(image([x]), Drawing(1), 1),
        "blurred": random_blur(image([x]), Drawing(u), 1),
    }


@example("gamma")
def _(x, u, mean, deviation):
    black, white = -mean / deviation, (1 - mean) / deviation
    standardised = image([(array(x) - mean) / deviation])
    return {
        "darker": random_gamma(image([x]), Drawing(-u), 1),
        "lighter": random_gamma(image([x]), Drawing(u), 1),
        "standardised": standardised,
        "lighter_standardised": random_gamma(standardised, Drawing(u), 1, black=black, white=white),
    }


@example("brightness_and_contrast")
def _(x, factor, mean, deviation):
    standardised, black = (array(x) - mean) / deviation, -mean / deviation
    return {
        "brighter": random_brightness(image([x]), Drawing(factor), 1),
        "sharper": random_contrast(image([x]), Drawing(factor), 1),
        "standardised": standardised,
        "black": black,
        "brighter_standardised": random_brightness(image([standardised]), Drawing(factor), 1, black=black),
    }


@example("erasing")
def _(h, w, s, r):
    chessboard = np.indices((1, h, w, 1)).sum(axis=0) % 2 * 1.0
    draws = Drawing(0, s, math.log(r) / math.log(4), 0, 0.5)  # chosen, area, ratio, corner, noise
    erased = (random_erasing(chessboard, draws, 0.5, largest_ratio=4) == 0.5)[0, :, :, 0]
    return {"height": erased.any(axis=1).sum(), "width": erased.any(axis=0).sum()}


@example("views")
def _(x, shift, f):
    shown = [view.of(image([x])) for view in views(mirror=True, shift=shift)]
    names = ("itself", "mirrored", "right", "right_mirrored", "left", "left_mirrored")

    def outputs(images):
        return images[:][:, 0, :, 0] @ array(f)

    return dict(zip(names, shown, strict=True)) | {
        "with_mirror": mean_over_views(outputs, image([x]), mirror=True),
        "with_shift": mean_over_views(outputs, image([x]), shift=shift),
        "with_both": mean_over_views(outputs, image([x]), mirror=True, shift=shift),
    }


BLOCKS = re.findall(r"^```python\n# example: (\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_a_worked_example_is_what_the_library_computes(name, block):
    """Every `name = …` is compared, be it a calculation or its result; later lines use the first of a name."""
    assigned, values = [], {}
    for statement in ast.parse(block).body:
        assert isinstance(statement, ast.Assign)
        (target,) = statement.targets
        value = eval(ast.unparse(statement.value), FUNCTIONS | values)
        values.setdefault(target.id, value)
        assigned.append((target.id, value))
    given = set(inspect.signature(EXAMPLES[name]).parameters)
    made = EXAMPLES[name](**{key: values[key] for key in given})
    for key, value in assigned:
        if key not in given:
            expected = np.squeeze(array(made[key]))
            assert np.squeeze(array(value)).shape == expected.shape, key
            np.testing.assert_allclose(
                np.squeeze(array(value)), expected, rtol=0, atol=TOLERANCE, err_msg=key
            )


def test_every_example_is_on_the_page_once_and_compared():
    assert sorted(name for name, _ in BLOCKS) == sorted(EXAMPLES)
    assert PAGE.count("```python") == len(BLOCKS)


def test_the_matrices_of_minimal_filtering_are_those_of_the_code():
    written = re.findall(r"([BGA])(\^T)? = \\begin\{pmatrix\} (.*?) \\end\{pmatrix\}", PAGE)
    a, b, g = (array([[float(v) for v in row] for row in matrix]) for matrix in minimal_filter(2))
    expected = {"A": a.T, "B": b.T, "G": g}
    assert [name for name, _, _ in written] == ["B", "G", "A"]
    for name, transposed, rows in written:
        assert bool(transposed) == (name != "G")
        text = rows.replace(r"\tfrac{1}{2}", "0.5")
        matrix = [[float(cell.replace(" ", "")) for cell in row.split("&")] for row in text.split(r"\\")]
        np.testing.assert_array_equal(matrix, expected[name])


def links(path):
    """(text, target) of every link and image."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\[([^\[\]]*)\]\(([^)\s]+)\)", text)
    return found + [("", target) for target in re.findall(r'src="([^"]+)"', text)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_documents_link_to_exists(path):
    found = links(path)
    assert found
    for _, target in found:
        if not target.startswith(("http://", "https://")):
            name, _, title = target.partition("#")
            file = path.parent / name if name else path
            assert file.exists(), target
            assert not title or title in titles(file), target


def titles(path):
    """The titles of a document as links name them."""
    found = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in found]


def defined(path):
    """The names of functions, classes and methods of a Python file, as Class.method."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)
            }
    return names


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_code_and_tests_that_documents_name_are_in_the_files_they_link_to(path):
    for text, target in links(path):
        if target.endswith(".py") and re.fullmatch(r"`[\w.]+`", text):
            assert text.strip("`") in defined(path.parent / target), (text, target)
    linked = {text.strip("`") for text, _ in links(path)}
    for name in re.findall(r"`(test_\w+)`", path.read_text(encoding="utf-8")):
        assert name in linked, f"{name} is named without a link to its file"


def test_the_page_explains_every_layer_loss_optimizer_and_schedule_in_the_readme():
    """Whoever adds one is free to leave both pages as they are."""
    linked = {text.strip("`").split(".")[0].lower() for text, _ in links(ROOT / "docs/mathematics.md")}
    shown = names_in_readme("layers") + names_in_readme("losses") + names_in_readme("optimisers")
    shown += [name for name in names_in_readme("schedules") if name != "constant"]
    assert {"conv2d", "cross_entropy", "adamw", "one_cycle"} <= set(shown)
    assert {name.replace("_", "") for name in shown} <= {name.replace("_", "") for name in linked}


def test_mathematics_is_written_as_git_hosts_render_it():
    """GitHub reads inline mathematics as Markdown first, which takes backslashes, stars and some underscores."""
    assert r"\operatorname" not in PAGE
    assert "$$" not in PAGE
    for formula in re.findall(r"^```math\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        assert r"\\" not in formula or r"\begin{" in formula, formula
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    for line in prose.splitlines():
        outside, inside = line.split("$")[::2], line.split("$")[1::2]
        assert len(outside) == len(inside) + 1, line
        for before, formula, after in zip(outside, inside, outside[1:], strict=False):
            assert formula == formula.strip() != "", line
            assert not re.search(r"[*|]|\\[^a-zA-Z]|[^\w\s]_|<\w", formula), formula
            assert before[-1:] in ("", " ", "("), line
            assert after[:1] in ("", *" .,:;?!)"), line
