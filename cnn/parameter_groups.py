"""Parameter groups: parts of a network that are trained differently from the rest, or not at all."""

from collections.abc import Container, Sequence
from fnmatch import fnmatchcase
from itertools import combinations
from math import inf, isfinite
from typing import Annotated, Any

from numpy.typing import NDArray

from cnn.checks import Whole, checked
from cnn.layers import Layer
from cnn.optimizers import Optimizer, collect_gradients
from cnn.parameter import Parameter
from cnn.registry import name_of
from cnn.schedules import Schedule
from cnn.state import Stateful


class NonFiniteError(ArithmeticError):
    """A loss or gradient became infinite or not a number: the weights are useless, or would become so."""


class Group:
    """The parameters of an optimiser, with their learning rate by time, and how long they are trained.

    Args:
        optimizer: the optimiser of these parameters alone.
        schedule: the learning rate by the time in epochs; None keeps the optimiser's.
        epochs: the parameters are trained in this many epochs, counted from the start of the run, and stay
            as they are from then on; 0 freezes them; None trains them to the end.

    Raises: ValueError for an argument of another kind or out of its range.
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule | None = None,
        epochs: Annotated[int, Whole(0)] | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.epochs = epochs

    def is_trained(self, t: float) -> bool:
        """Whether the parameters are trained at time `t` in epochs."""
        return self.epochs is None or t < self.epochs

    def learning_rate(self, t: float) -> float:
        """The learning rate at time `t` in epochs; NonFiniteError, or ValueError if it is negative."""
        if self.schedule is None:
            return float(self.optimizer.learning_rate)
        try:
            rate = self.schedule(t)
        except OverflowError:
            rate = inf
        if not isfinite(rate):
            raise NonFiniteError(
                f"The schedule's learning rate became infinite {t:.3g} epochs after the start. "
                "A smaller factor, or a longer time between steps, helps."
            )
        if rate < 0:
            raise ValueError(
                f"A schedule must give learning rates >= 0; received {rate:g} at {t:.3g} epochs."
            )
        return rate


class ParameterGroups(Stateful):
    """Several optimisers, each of some of a network's parameters; stands for an optimiser in `fit`.

        biases = select_parameters(model, "*.bias")
        others = select_parameters(model, "*", without=biases)
        optimizer = ParameterGroups([Group(Adam(others)), Group(SGD(biases, 0.1), epochs=3)])

    At time t, group k takes its step, at its own learning rate, if t < epochs_k:

        θ = step_k(θ, dL/dθ, rate_k(t))       for every θ of group k

    At other times it changes nothing, neither by weight decay nor by momentum. (`Lookahead` still returns to
    its slow weights, unless it is made of other parameters.) `fit` sets the time; in a loop of your own, call
    `set_time` before each step.
    The state is that of each optimiser, after the number of its group, as in "0.velocity.4.weight".

    Args:
        groups: at least one that is trained; no parameter may be in two of them.

    Raises: ValueError if a parameter or a name is in two groups, or if no group is ever trained.
    """

    @checked
    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = list(groups)
        self._time = 0.0
        for (i, one), (j, other) in combinations(enumerate(g.optimizer.parameters for g in self.groups), 2):
            shared = {id(parameter) for parameter in one.values()}
            both = [name for name in other if name in one or id(other[name]) in shared]
            if both:
                raise ValueError(
                    f"Each parameter must be in one group; {both[0]} is in group {i} and in group {j}. "
                    "To leave out what other groups have: select_parameters(model, patterns, without=…)"
                )
        if all(group.epochs == 0 for group in self.groups):
            raise ValueError(
                f"At least one group must be trained; received {len(self.groups)}, none with epochs > 0."
            )

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters of all groups, by name."""
        return {name: p for group in self.groups for name, p in group.optimizer.parameters.items()}

    @property
    def main(self) -> Group:
        """The group that is trained longest, of equals the first, whose learning rate `fit` reports."""
        return max(self.groups, key=lambda group: inf if group.epochs is None else group.epochs)

    @property
    def ever_trained(self) -> dict[str, Parameter]:
        """The parameters that are not frozen; for `MovingAverage`, which would round frozen ones."""
        groups = [group for group in self.groups if group.epochs != 0]
        return {name: p for group in groups for name, p in group.optimizer.parameters.items()}

    @property
    def trained(self) -> dict[str, Parameter]:
        """The parameters that the next step changes."""
        return {name: p for group in self._active() for name, p in group.optimizer.parameters.items()}

    def __repr__(self) -> str:
        """The groups' optimisers, and how long each is trained."""
        groups = (
            f"Group({group.optimizer!r}{'' if group.epochs is None else f', epochs={group.epochs}'})"
            for group in self.groups
        )
        return f"ParameterGroups([{', '.join(groups)}])"

    def set_time(self, t: float) -> None:
        """Set the time of the next step, in epochs, and with it which groups are trained, and their rates."""
        self._time = t
        for group in self._active():
            group.optimizer.learning_rate = group.learning_rate(t)

    def step(self) -> None:
        """Update all that is trained; if a gradient is missing, raise RuntimeError and change nothing."""
        collect_gradients(self.trained, before="step")
        for group in self._active():
            group.optimizer.step()

    def _active(self) -> list[Group]:
        return [group for group in self.groups if group.is_trained(self._time)]

    def _state(self) -> dict[str, NDArray[Any]]:
        return {
            f"{number}.{name}": array
            for number, group in enumerate(self.groups)
            for name, array in group.optimizer._state().items()
        }


def select_parameters(
    model: Layer, patterns: str | Sequence[str], without: Container[str] = ()
) -> dict[str, Parameter]:
    """The parameters of `model` that match one of `patterns`, by name, in the model's order.

    A parameter has a name by its place, "4.layers.0.kernel", as in `model.parameters()`, and one by the type
    of its layer, "conv2d.kernel"; either may match, as a whole. In a pattern, * stands for any text, ? for a
    character, and [ab] for one of some characters.

    Args:
        model: the network.
        patterns: a pattern, or several.
        without: names, by place, of parameters to leave out.

    Raises: ValueError if a pattern matches no parameter, or if all that match are left out.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    layers = {"": model, **{f"{name}.": layer for name, layer in model.walk()}}
    types = {
        f"{place}{name}": f"{name_of(type(layer))}.{name}"
        for place, layer in layers.items()
        for name in layer.own_parameters()
    }
    found: set[str] = set()
    for pattern in patterns:
        matching = {
            name for name, other in types.items() if any(fnmatchcase(n, pattern) for n in (name, other))
        }
        if not matching:
            known = ", ".join(f"{name} ({other})" for name, other in types.items())
            raise ValueError(f"No parameter matches {pattern!r}. The parameters are {known or 'none'}.")
        found |= matching
    chosen = {name: p for name, p in model.parameters().items() if name in found and name not in without}
    if patterns and not chosen:
        raise ValueError(
            f"All parameters that match {' or '.join(map(repr, patterns))} are in other groups already: "
            f"{', '.join(name for name in types if name in found)}."
        )
    return chosen
