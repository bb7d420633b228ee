"""Optimisers: the rules that turn gradients into new parameter values, and their state."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from cnn import registry
from cnn.checks import Given, Kept, NotNegative, Positive, Whole, checked
from cnn.parameter import Parameter
from cnn.registry import OPTIMIZERS
from cnn.state import Stateful

Array = NDArray[Any]
Parameters = Mapping[str, Parameter]


class Optimizer(Stateful):
    """Base of all optimisers: changes each θ in place, by its gradient and the arrays kept for it.

        g = dL/dθ + weight_decay · θ          weight decay only if θ has two axes or more
        θ = the method's own update of θ by g

    The state is the number of steps, "step", and the arrays that the method keeps for each θ, of the shape
    of θ and named as in "velocity.0.kernel". All of them start at zero.

    Args:
        parameters: as returned by `Sequential.parameters()`; changed in place by `step`.
        learning_rate: the step size; may be assigned between steps.
        weight_decay: the strength of the pull towards zero.
        memory: the names of the arrays kept for each parameter.

    Raises: ValueError for an argument out of its range.
    """

    @checked
    def __init__(
        self,
        parameters: Parameters,
        learning_rate: Positive,
        *,
        weight_decay: NotNegative,
        memory: Sequence[str] = (),
    ) -> None:
        self.parameters = dict(parameters)
        if len({id(parameter) for parameter in self.parameters.values()}) < len(self.parameters):
            raise ValueError(
                "Layers cannot share parameters, since each layer's backward overwrites the gradient; "
                "received one parameter under two names. Give each layer its own."
            )
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self._step = np.zeros((), np.int64)
        self._memory = {
            name: {kind: np.zeros_like(parameter.value) for kind in memory}
            for name, parameter in self.parameters.items()
        }

    def __repr__(self) -> str:
        """As the constructor was called, without the parameters."""
        return registry.call(self)

    def step(self) -> None:
        """Update every parameter; if one has no gradient yet, raise RuntimeError and change none."""
        gradients = collect_gradients(self.parameters, before="step")
        learning_rate = float(self.learning_rate)
        self._step += 1
        for name, parameter in self.parameters.items():
            value, gradient = parameter.value, gradients[name]
            if self.weight_decay and value.ndim >= 2:
                gradient = self._decay(value, gradient, learning_rate)
            self._update(value, gradient, learning_rate, *self._memory[name].values())

    def _decay(self, value: Array, gradient: Array, learning_rate: float) -> Array:
        """The gradient of L + weight_decay / 2 · |θ|²."""
        return self.weight_decay * value + gradient

    @abstractmethod
    def _update(self, value: Array, gradient: Array, learning_rate: float, *memory: Array) -> None:
        """Change `value` and `memory` in place; leave `gradient` as it is."""

    def _state(self) -> dict[str, Array]:
        return {"step": self._step} | {
            f"{kind}.{name}": array for name, memory in self._memory.items() for kind, array in memory.items()
        }


@OPTIMIZERS.register
class SGD(Optimizer):
    """Stochastic gradient descent: a step against the gradient.

        v = momentum · v + g
        θ = θ − learning_rate · v             or, with nesterov, θ − learning_rate · (g + momentum · v)

    Source: Robbins & Monro (1951); Polyak (1964); for nesterov, Sutskever, Martens, Dahl & Hinton, "On the
    importance of initialization and momentum in deep learning" (2013), with the learning rate outside v.

    Args:
        momentum: the fraction of the velocity v that is kept.
        nesterov: whether to look ahead along v; needs momentum > 0.

    Raises: ValueError for an argument out of its range.
    """

    def __init__(
        self,
        parameters: Annotated[Parameters, Given],
        learning_rate: Positive = 0.1,
        *,
        momentum: Kept = 0.0,
        nesterov: bool = False,
        weight_decay: NotNegative = 0.0,
    ) -> None:
        self.momentum = momentum
        self.nesterov = nesterov
        if nesterov and momentum == 0:
            raise ValueError("nesterov looks ahead along the momentum, so it needs momentum > 0; received 0.")
        memory = ["velocity"] if momentum else []
        super().__init__(parameters, learning_rate, weight_decay=weight_decay, memory=memory)

    def _update(self, value: Array, gradient: Array, learning_rate: float, *memory: Array) -> None:
        for velocity in memory:  # none without momentum
            velocity *= self.momentum
            velocity += gradient
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        value -= learning_rate * gradient


@OPTIMIZERS.register
class Adagrad(Optimizer):
    """Divides the step of each entry by the root of the sum of all its squared gradients so far.

        s = s + g²
        θ = θ − learning_rate · g / (sqrt(s) + epsilon)

    Source: Duchi, Hazan & Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization" (2011), figure 1 with diagonal matrices.

    Args:
        epsilon: a number that keeps the denominator away from zero.

    Raises: ValueError for an argument out of its range.
    """

    def __init__(
        self,
        parameters: Annotated[Parameters, Given],
        learning_rate: Positive = 0.01,
        *,
        epsilon: Positive = 1e-10,
        weight_decay: NotNegative = 0.0,
    ) -> None:
        self.epsilon = epsilon
        super().__init__(parameters, learning_rate, weight_decay=weight_decay, memory=["square_sum"])

    def _update(self, value: Array, gradient: Array, learning_rate: float, *memory: Array) -> None:
        (square_sum,) = memory
        scratch = np.square(gradient, out=np.empty_like(value))
        square_sum += scratch
        _descend(value, gradient, square_sum, learning_rate, self.epsilon, scratch)


@OPTIMIZERS.register
class RMSProp(Optimizer):
    """Divides the step of each entry by the root of a moving average of its squared gradients.

        s = decay · s + (1 − decay) · g²
        θ = θ − learning_rate · g / (sqrt(s) + epsilon)

    Source: Tieleman & Hinton, "Lecture 6.5 - RMSProp" of the course "Neural Networks for Machine Learning"
    (2012).

    Args:
        decay: the fraction of the mean square s that is kept.
        epsilon: a number that keeps the denominator away from zero.

    Raises: ValueError for an argument out of its range.
    """

    def __init__(
        self,
        parameters: Annotated[Parameters, Given],
        learning_rate: Positive = 0.001,
        *,
        decay: Kept = 0.9,
        epsilon: Positive = 1e-8,
        weight_decay: NotNegative = 0.0,
    ) -> None:
        self.decay = decay
        self.epsilon = epsilon
        super().__init__(parameters, learning_rate, weight_decay=weight_decay, memory=["mean_square"])

    def _update(self, value: Array, gradient: Array, learning_rate: float, *memory: Array) -> None:
        (mean_square,) = memory
        scratch = np.square(gradient, out=np.empty_like(value))
        blend(mean_square, scratch, self.decay, scratch)
        _descend(value, gradient, mean_square, learning_rate, self.epsilon, scratch)


@OPTIMIZERS.register
class Adam(Optimizer):
    """Uses moving averages of the gradient and of its square, both corrected for their start at zero.

        m = beta1 · m + (1 − beta1) · g               m̂ = m / (1 − beta1^t)        t = 1 in the first step
        v = beta2 · v + (1 − beta2) · g²              v̂ = v / (1 − beta2^t)
        θ = θ − learning_rate · m̂ / (sqrt(v̂) + epsilon)

    Source: Kingma & Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.

    Args:
        beta1: the fraction of the mean gradient m that is kept.
        beta2: the fraction of the mean square v that is kept.
        epsilon: a number that keeps the denominator away from zero.

    Raises: ValueError for an argument out of its range.
    """

    def __init__(
        self,
        parameters: Annotated[Parameters, Given],
        learning_rate: Positive = 0.001,
        *,
        beta1: Kept = 0.9,
        beta2: Kept = 0.999,
        epsilon: Positive = 1e-8,
        weight_decay: NotNegative = 0.0,
    ) -> None:
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        moments = ["first_moment", "second_moment"]
        super().__init__(parameters, learning_rate, weight_decay=weight_decay, memory=moments)

    def _update(self, value: Array, gradient: Array, learning_rate: float, *memory: Array) -> None:
        first_moment, second_moment = memory
        scratch = np.square(gradient, out=np.empty_like(value))
        blend(second_moment, scratch, self.beta2, scratch)
        blend(first_moment, gradient, self.beta1, scratch)
        # Apply both corrections to scalars, not arrays. With c1 = 1 − beta1^t and root = sqrt(1 − beta2^t),
        #   (m / c1) / (sqrt(v) / root + epsilon) = (root / c1) · m / (sqrt(v) + root · epsilon)
        t = int(self._step)
        root = sqrt(1 - self.beta2**t)
        rate = learning_rate * root / (1 - self.beta1**t)
        _descend(value, first_moment, second_moment, rate, root * self.epsilon, scratch)


@OPTIMIZERS.register
class AdamW(Adam):
    """Adam with weight decay that bypasses the moving averages and acts directly on the parameter.

        θ = θ − learning_rate · weight_decay · θ      only if θ has two axes or more
        θ = Adam's update of θ by g = dL/dθ

    Source: Loshchilov & Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2, where the factor
    of weight_decay is the schedule's multiplier alone; here it is the whole learning rate.

    Arguments and errors are those of `Adam`.
    """

    def __init__(
        self,
        parameters: Annotated[Parameters, Given],
        learning_rate: Positive = 0.001,
        *,
        beta1: Kept = 0.9,
        beta2: Kept = 0.999,
        epsilon: Positive = 1e-8,
        weight_decay: NotNegative = 0.01,
    ) -> None:
        super().__init__(
            parameters, learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay
        )

    def _decay(self, value: Array, gradient: Array, learning_rate: float) -> Array:
        """Decay `value` directly."""
        return _decay_directly(value, gradient, learning_rate * self.weight_decay)


@OPTIMIZERS.register
class Muon(Optimizer):
    """Momentum, whose step along a matrix is made almost orthogonal: all its singular values become about 1.

    A kernel counts as the matrix of its last axis, out, against all others together, fan_in.

        v = momentum · v + g
        u = v                                 or, with nesterov, g + momentum · v
        θ = θ − learning_rate · weight_decay · θ
        θ = θ − learning_rate · sqrt(max(1, out / fan_in)) · orthogonalize(u, iterations)

    With normalize, the length of θ is set before each step instead of being left to weight decay, and the
    step is not scaled by its shape:

        θ = sqrt(out) · θ / |θ|
        θ = θ − learning_rate · orthogonalize(u, iterations)

    A parameter with fewer than two axes, such as a bias, has no singular values and takes the step of
    momentum, θ − learning_rate · u, without weight decay.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), whose matrices
    are transposed, (out, fan_in), and whose code takes the square root of height / width, 1, for the kernels
    of convolutions; for normalize, Jordan's airbench94_muon (2024).

    Args:
        momentum: the fraction of the velocity v that is kept.
        nesterov: whether to look ahead along v.
        iterations: how often the polynomial of `orthogonalize` is applied.
        normalize: whether to set each kernel's norm to sqrt(out) before its step; needs weight_decay = 0.

    Raises: ValueError for an argument out of its range.
    """

    def __init__(
        self,
        parameters: Annotated[Parameters, Given],
        learning_rate: Positive = 0.02,
        *,
        momentum: Kept = 0.95,
        nesterov: bool = True,
        iterations: Annotated[int, Whole(1, 100)] = 5,
        normalize: bool = False,
        weight_decay: NotNegative = 0.0,
    ) -> None:
        self.momentum = momentum
        self.nesterov = nesterov
        self.iterations = iterations
        self.normalize = normalize
        if normalize and weight_decay:
            raise ValueError(
                "normalize sets the norm that weight decay would reduce, so it needs weight_decay = 0; "
                f"received {weight_decay}."
            )
        super().__init__(parameters, learning_rate, weight_decay=weight_decay, memory=["velocity"])

    def _decay(self, value: Array, gradient: Array, learning_rate: float) -> Array:
        """Decay `value` directly, as AdamW does."""
        return _decay_directly(value, gradient, learning_rate * self.weight_decay)

    def _update(self, value: Array, gradient: Array, learning_rate: float, *memory: Array) -> None:
        (velocity,) = memory
        velocity *= self.momentum
        velocity += gradient
        direction = gradient + self.momentum * velocity if self.nesterov else velocity
        if value.ndim >= 2:
            matrix = direction.reshape(-1, value.shape[-1])
            fan_in, out = matrix.shape
            direction = orthogonalize(matrix, self.iterations).reshape(value.shape)
            if not self.normalize:
                learning_rate *= sqrt(max(1, out / fan_in))
            elif norm := float(np.linalg.norm(value)):
                value *= sqrt(out) / norm
        value -= learning_rate * direction


def orthogonalize(matrix: Array, iterations: int) -> Array:
    """Bring the singular values of a matrix near 1, and keep its singular vectors, by Newton-Schulz steps.

        X = matrix / |matrix|                 the norm of all entries, so that no singular value is above 1
        X = a·X + b·(X Xᵀ) X + c·(X Xᵀ)² X    `iterations` times, with (a, b, c) = (3.4445, −4.7750, 2.0315)

    With X = U S Vᵀ, each step replaces every singular value s by a·s + b·s³ + c·s⁵. The coefficients lift
    small ones fast, and let the others end anywhere from 0.7 to 1.2. A matrix of zeros stays as it is.

    Source: Jordan et al. (2024), see `Muon`.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    norm = max(float(np.linalg.norm(matrix)), sqrt(np.finfo(matrix.dtype).tiny))  # no division by zero
    x = matrix / norm
    if tall := x.shape[0] > x.shape[1]:
        x = x.T  # the square matrices have the length of the shorter side
    for _ in range(iterations):
        gram = x @ x.T
        polynomial = c * (gram @ gram)
        polynomial += b * gram
        x = polynomial @ x + a * x
    return x.T if tall else x


def collect_gradients(parameters: Mapping[str, Parameter], *, before: str) -> dict[str, Array]:
    """Every parameter's gradient; RuntimeError if one has none. `before` names the caller in the message."""
    gradients = {}
    for name, parameter in parameters.items():
        if parameter.grad is None:
            raise RuntimeError(f"Parameter {name} has no gradient: call backward before {before}.")
        gradients[name] = parameter.grad
    return gradients


def blend(average: Array, new: Array, decay: float, scratch: Array | None = None) -> None:
    """average = decay · average + (1 − decay) · new, in place; overwrites `scratch`, which may be `new`."""
    average *= decay
    average += np.multiply(new, 1 - decay, out=scratch)


def _decay_directly(value: Array, gradient: Array, fraction: float) -> Array:
    """θ = θ − fraction · θ, in place, past all averages; return the gradient unchanged."""
    value -= fraction * value
    return gradient


def _descend(
    value: Array,
    direction: Array,
    square: Array,
    rate: float,
    epsilon: float,
    scratch: Array,
) -> None:
    """θ = θ − rate · direction / (sqrt(square) + epsilon), in place; overwrites `scratch`."""
    np.sqrt(square, out=scratch)
    scratch += epsilon
    np.divide(direction, scratch, out=scratch)
    scratch *= rate
    value -= scratch
