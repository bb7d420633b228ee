"""`python -m pipeline explain`: one test image through the trained network and back, in numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.panel import Panel
from rich.table import Table
from threadpoolctl import threadpool_limits

from cnn import SGD, BatchNorm, Examples, Sequential, cross_entropy, softmax_cross_entropy
from cnn.engine.shards import Loss, assigned
from cnn.gradient_check import numeric_gradient, relative_error
from cnn.layers.layer import Rng, Shape
from cnn.layers.trace import Trace, Traced
from cnn.random import Stream, derive_rng
from pipeline.apps.terminal import make_table, open_console, print_table
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.trained import load_trained, probabilities_of
from pipeline.config.architectures import gives_probabilities
from pipeline.config.params import load_params
from pipeline.errors import UserError

SHADES = " .:-=+*#%@"  # from black to white
WIDEST_PICTURE = 64  # characters, two for a pixel
TOP = 5  # classes that are shown
COMPANIONS = 7  # images besides the explained one, if batch normalisation needs a batch
STEPS = (1e-4, 1e-6, 1e-8)  # ε of difference quotients, see `compare`


def explain(index: int) -> None:
    """Print test image `index`, what the network says, and one training step on it, layer by layer."""
    model, network = load_trained()
    description = network.data
    learning_rate = load_params().train.optimizer.model_dump()["sgd"]["learning_rate"]
    test = load_examples("test", description)
    count = len(test.images)
    if not 0 <= index < count:
        raise UserError(f"--index must be that of a test image, from 0 to {count - 1}; received {index}.")
    loss = cross_entropy if gives_probabilities(model) else softmax_cross_entropy
    probabilities = probabilities_of(model, model.predict(test.images[index : index + 1]))[0]
    names = description.class_names

    # Batch normalisation needs a batch: it would turn a single vector into zeros. The step then takes a few
    # more images; the activations and dL/dx that are shown are still those of the explained image.
    alone = not any(isinstance(layer, BatchNorm) for _, layer in model.walk())
    batch = (index + np.arange(1 if alone else min(1 + COMPANIONS, count))) % count
    step = TrainingStep(model, loss, Examples(test.images[batch], test.targets[batch]))

    console = open_console()
    cells = min(WIDEST_PICTURE, console.width - 4)  # 4 for the frame
    picture = draw(shrink(description.brightness(test.images[index]), cells // 2))
    console.print(Panel.fit(picture, title=f"test image {index}"))
    console.print(f"Its label: {names[test.targets[index].argmax()]}")
    print_table(console, _prediction_table(probabilities, names))
    others = "" if alone else f" and the {len(batch) - 1} after it (for batch normalisation)"
    console.print(f"One training step, in float64, on this image{others}: loss {step.before:.6g}")
    print_table(console, step.forward_table())
    with threadpool_limits(1, user_api="blas"):  # more threads would only wait, as the products are small
        print_table(console, step.backward_table())
    console.print(
        "Each gradient is checked along a random direction v: analytic is Σ gradient · v; numeric is "
        "(L(+εv) − L(−εv)) / 2ε, from forward passes alone. An error above 1e-4 comes from a kink of ReLU or "
        "max pooling, or from a gradient so small that L's rounding hides it. docs/mathematics.md derives "
        "every row."
    )
    table, loss_change = step.sgd_table(learning_rate)
    print_table(console, table)
    console.print(loss_change)


class Nudged(Traced):
    """A traced layer whose input can be nudged."""

    nudge: NDArray[np.float64] | float = 0.0  # added to x

    def forward(self, x: NDArray[Any], *, training: bool = False, rng: Rng = None) -> NDArray[Any]:
        """The layer's output for x + nudge."""
        return super().forward(x + self.nudge, training=training, rng=rng)


class TrainingStep:
    """One step of gradient descent on a few images, in float64; the first image is explained.

    Random layers draw the same numbers in every pass, so that the loss is a function of inputs and
    parameters, and has a gradient. The parameters of `model` become float64, and `sgd_table` changes them.
    """

    def __init__(self, model: Sequential, loss: Loss, examples: Examples) -> None:
        for parameter in model.parameters().values():
            parameter.value = parameter.value.astype(np.float64)
        trace = Trace(model, Nudged)
        self._network = trace.network
        self._network.output_shape(examples.images.shape[1:])
        self._loss, self._targets = loss, examples.targets
        self._images = np.asarray(examples.images, np.float64)
        self._rng = np.random.default_rng(0)  # for directions; any seed will do
        self.parameters = self._network.parameters()

        self.outputs = self._forward()
        self.before, self.grad_outputs = loss(self.outputs, self._targets)
        self._network.backward(self.grad_outputs)
        # Later passes overwrite what the layers hold: keep the values of this pass.
        self._layers = [(layer, layer.x, layer.y, layer.grad_x) for layer in trace.layers]
        self.gradients = {name: assigned(parameter.grad) for name, parameter in self.parameters.items()}

    def _forward(self) -> NDArray[Any]:
        return self._network.forward(self._images, training=True, rng=derive_rng(0, Stream.DROPOUT, 0, 0, 0))

    def loss(self) -> float:
        """The loss with the present values of the parameters."""
        return self._loss(self._forward(), self._targets)[0]

    def forward_table(self) -> Table:
        """Each layer, first to last, with the range of its output for the explained image."""
        table = make_table("Forward", "layer", "output shape", "parameters", "min", "mean", "max")
        image = self._images[0]
        table.add_row("image", _by(image.shape), "", *_range(image))
        for layer, _, y, _ in self._layers:
            composite = bool(layer.children())
            title = f"{type(layer.original).__name__}:" if composite else repr(layer)
            own = layer.count_own_parameters()
            count = "" if composite and not own else f"{own:,}"
            table.add_row(f"{layer.name} {title}", _by(layer.shape), count, *_range(y[0]))
        return table

    def backward_table(self) -> Table:
        """Each layer, last to first, with the norm of each gradient and a check by finite differences."""
        table = make_table("Backward", "layer", "gradient", "norm", "analytic", "numeric", "error")
        rows = [("loss", "dL/dy", self.grad_outputs[0], self._check_outputs())]
        for layer, x, _, grad_x in reversed(self._layers):
            title = f"{layer.name} {type(layer.original).__name__}"
            for part in layer.own_parameters():
                name = f"{layer.name}.{part}"
                rows.append((title, f"dL/d{part}", self.gradients[name], self._check_parameter(name)))
            rows.append((title, "dL/dx", grad_x[0], self._check_input(layer, x, grad_x)))
        for title, what, gradient, (analytic, numeric, error) in rows:
            norm = f"{np.linalg.norm(gradient):.2e}"
            table.add_row(title, what, norm, f"{analytic:.4e}", f"{numeric:.4e}", f"{error:.0e}")
        return table

    def sgd_table(self, learning_rate: float) -> tuple[Table, str]:
        """Make a step of plain gradient descent; return a table of the changes and a sentence on the loss."""
        table = make_table("One step of SGD", "parameter", "shape", "norm", "change", "largest")
        for name, gradient in self.gradients.items():
            self.parameters[name].grad = gradient
            change = learning_rate * np.abs(gradient)
            norms = (np.linalg.norm(self.parameters[name].value), np.linalg.norm(change), change.max())
            table.add_row(name, _by(gradient.shape), *(f"{norm:.3g}" for norm in norms))
        SGD(self.parameters, learning_rate).step()
        squares = sum(float(np.square(gradient).sum()) for gradient in self.gradients.values())
        return table, (
            f"θ = θ − {learning_rate:g} · dL/dθ. The loss goes from {self.before:.6g} to {self.loss():.6g}; "
            f"the slope alone predicts −{learning_rate:g} · Σ (dL/dθ)² = {-learning_rate * squares:.3g}."
        )

    def _check_outputs(self) -> tuple[float, float, float]:
        v = np.zeros_like(self.outputs)
        v[0] = self._rng.standard_normal(v[0].shape)
        return compare(
            lambda t: self._loss(self.outputs + t * v, self._targets)[0], float((self.grad_outputs * v).sum())
        )

    def _check_parameter(self, name: str) -> tuple[float, float, float]:
        value = self.parameters[name].value
        before, v = value.copy(), self._rng.standard_normal(value.shape)

        def loss_at(t: float) -> float:
            value[...] = before + t * v
            return self.loss()

        result = compare(loss_at, float((self.gradients[name] * v).sum()))
        value[...] = before
        return result

    def _check_input(
        self, layer: Nudged, x: NDArray[Any], grad_x: NDArray[Any]
    ) -> tuple[float, float, float]:
        """Check dL/dx of the explained image alone.

        Blank parts give equal numbers, and the maximum of equal numbers has no derivative. So equal numbers
        in a channel are nudged by equal amounts, and similar numbers by similar amounts: v = sin(a·x + b),
        with a and b drawn for each channel.
        """
        a, b = self._rng.uniform(1, 2, x.shape[-1]), self._rng.uniform(0, 2 * np.pi, x.shape[-1])
        v = np.zeros_like(x)
        v[0] = np.sin(a * x[0] / (np.abs(x[0]).max() or 1.0) + b)

        def loss_at(t: float) -> float:
            layer.nudge = t * v
            return self.loss()

        result = compare(loss_at, float((grad_x * v).sum()))
        layer.nudge = 0.0
        return result


def compare(loss_at: Callable[[float], float], analytic: float) -> tuple[float, float, float]:
    """(analytic, numeric, relative error) for dL/dt at t = 0, where L = loss_at(t).

    The difference quotient is computed with several widths, and the one that agrees best counts: a wide one
    may cross a kink, a narrow one is lost in rounding errors, and none makes a wrong derivative agree.
    """
    t = np.zeros(())
    quotients = [numeric_gradient(lambda: loss_at(float(t)), t, step) for step in STEPS]
    # Relative to the analytic one, since a quotient is 0 if rounding has swallowed the difference.
    error, numeric = min((relative_error(q, np.array(analytic)), float(q)) for q in quotients)
    return analytic, numeric, error


def shrink(pixels: NDArray[Any], largest: int) -> NDArray[Any]:
    """An image (h, w, c) with at most `largest` pixels a side: each is the mean of those in its place."""
    height, width, _ = pixels.shape
    scale = min(1, largest / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(pixels, -1, 0)]
    return np.stack([np.asarray(c.resize(size, Image.Resampling.BOX)) for c in channels], axis=-1)


def draw(pixels: NDArray[Any]) -> str:
    """An image (h, w, c), black 0 and white 1, as text: two characters per pixel."""
    levels = np.rint(pixels.mean(axis=2).clip(0, 1) * (len(SHADES) - 1)).astype(int)
    return "\n".join("".join(2 * SHADES[level] for level in row) for row in levels)


def _prediction_table(probabilities: NDArray[Any], names: Sequence[str]) -> Table:
    table = make_table("Prediction", "class", "probability")
    for best in np.argsort(-probabilities, kind="stable")[:TOP]:
        table.add_row(names[best], f"{probabilities[best]:.4%}")
    return table


def _range(y: NDArray[Any]) -> list[str]:
    """Smallest, mean and largest."""
    return [f"{value:.4g}" for value in (y.min(), y.mean(), y.max())]


def _by(shape: Shape) -> str:
    return " x ".join(map(str, shape))
