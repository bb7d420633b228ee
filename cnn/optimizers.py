"""Optimisers: they own the rule that turns gradients into new values, and its memory."""

from collections.abc import Mapping

import numpy as np

from cnn.parameter import Parameter


class SGD:
    """Stochastic gradient descent: a step against the gradient.

        g = dL/dθ + weight_decay · θ          weight decay only where θ has two axes or more
        v = momentum · v + g                  v starts at zero
        θ = θ − learning_rate · v             or, with nesterov, θ − learning_rate · (g + momentum · v)

    Source: Robbins & Monro (1951); Polyak (1964); for nesterov, Sutskever, Martens, Dahl & Hinton, "On the
    importance of initialization and momentum in deep learning" (2013), with the learning rate outside v.

    Args:
        parameters: as `Sequential.parameters()` gives them; changed in place by `step`.
        learning_rate: step size, > 0; may be assigned between steps.
        momentum: the fraction of v that is kept, in [0, 1).
        nesterov: look ahead along v; needs momentum > 0.
        weight_decay: strength of the pull to zero, >= 0.

    Raises: ValueError for an argument out of its range.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        learning_rate: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 < learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be a finite number > 0; received {learning_rate!r}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1); received {momentum!r}.")
        if not 0 <= weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be a finite number >= 0; received {weight_decay!r}.")
        if nesterov and momentum == 0:
            raise ValueError("nesterov looks ahead along the momentum, so it needs momentum > 0; received 0.")
        self.parameters = dict(parameters)
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self._velocity = {name: np.zeros_like(p.value) for name, p in self.parameters.items() if momentum}

    def step(self) -> None:
        """Change every parameter by its gradient; RuntimeError if one has none yet."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                raise RuntimeError(f"Parameter {name} has no gradient: call backward before step.")
            gradient = parameter.grad
            if self.weight_decay and parameter.value.ndim >= 2:
                gradient = gradient + self.weight_decay * parameter.value
            if self.momentum:
                velocity = self._velocity[name]
                velocity *= self.momentum
                velocity += gradient
                gradient = gradient + self.momentum * velocity if self.nesterov else velocity
            parameter.value -= self.learning_rate * gradient
