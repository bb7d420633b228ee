"""Saves a network, or a whole training run, in one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn import checkpoint
from cnn.checkpoint import CheckpointError
from cnn.layers import Sequential
from cnn.moving_average import Lookahead, MovingAverage
from cnn.optimizers import Optimizer
from cnn.parameter_groups import Group, ParameterGroups
from cnn.registry import OPTIMIZERS, spec
from cnn.specs import from_spec
from cnn.state import Stateful
from cnn.training import Progress

FORMAT = 1


class Saved(NamedTuple):
    """The content of a file written by `save`; a part that was not saved is None."""

    model: Sequential
    optimizer: Optimizer | ParameterGroups | None
    moving_average: MovingAverage | None
    progress: Progress | None


def save(
    path: str | Path,
    model: Sequential,
    optimizer: Optimizer | ParameterGroups | None = None,
    moving_average: MovingAverage | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a network, and optionally what `fit` needs to resume, to `path`: atomically, without pickle.

    Functions are not written, so schedules must be given again: to `fit`, or for `ParameterGroups` by
    `saved.optimizer.groups[0].schedule = …`.

    Args:
        path: the file to write, an ordinary `.npz`; an existing file is replaced.
        model: the network; its layers must be registered (those of this library are).
        optimizer: an optimiser of this model's parameters, or several in `ParameterGroups`.
        moving_average: a moving average of this model's parameters, `MovingAverage` or `Lookahead`.
        progress: the progress that `fit` has updated.

    Raises: ValueError if an object cannot be described, or does not belong to this model.
    """
    dtypes = {str(parameter.value.dtype) for parameter in model.parameters().values()} or {"float32"}
    if len(dtypes) > 1:
        raise ValueError(f"All parameters of a saved network must have one dtype; received {sorted(dtypes)}.")
    metadata: dict[str, Any] = {"format": FORMAT, "model": model.spec(), "dtype": dtypes.pop()}
    parts: dict[str, Stateful | None] = {"model": model, "optimizer": optimizer}
    parts |= {"average": moving_average, "progress": progress}
    if optimizer is not None:
        metadata["optimizer"] = _describe(model, optimizer)
    if moving_average is not None:
        metadata["average"] = {"decay": moving_average.decay, "parameters": _names(model, moving_average)}
        if isinstance(moving_average, Lookahead):
            metadata["average"] |= {"steps": moving_average.steps, "every": moving_average.every}
    arrays = {
        f"{part}.{name}": array
        for part, stateful in parts.items()
        if stateful is not None
        for name, array in stateful.state_dict().items()
    }
    try:
        _rebuild(metadata, arrays)
    except CheckpointError as error:
        raise ValueError(f"This training could not be loaded again, so it is not saved: {error}") from None
    checkpoint.save(Path(path), arrays, metadata)


def load(path: str | Path) -> Saved:
    """Return what `save` wrote: `model, optimizer, moving_average, progress = load(path)`.

    Raises: CheckpointError, and no other error, if anything is wrong with the file.
    """
    arrays, metadata = checkpoint.load(Path(path))
    try:
        return _rebuild(metadata, arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{path} was not written by `cnn.save`: {error}") from None


def _rebuild(metadata: Mapping[str, Any], arrays: Mapping[str, Any]) -> Saved:
    """What the content of a file describes; CheckpointError if it describes nothing."""
    try:
        if metadata["format"] != FORMAT:
            raise ValueError(f"it has format {metadata['format']}, but this library reads format {FORMAT}")
        model = from_spec(metadata["model"], dtype=np.dtype(metadata["dtype"]))
        if not isinstance(model, Sequential):
            raise TypeError("it holds no Sequential")
        _fill(model, "model", arrays)
        optimizer = average = progress = None
        if "optimizer" in metadata:
            optimizer = _optimizer(model, metadata["optimizer"])
            _fill(optimizer, "optimizer", arrays)
        if "average" in metadata:
            options = dict(metadata["average"])
            parameters = _parameters(model, options.pop("parameters"))
            average = (Lookahead if "every" in options else MovingAverage)(parameters, **options)
            _fill(average, "average", arrays)
        if any(name.startswith("progress.") for name in arrays):
            progress = Progress()
            _fill(progress, "progress", arrays)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{error}.") from None
    except (MemoryError, RecursionError) as error:
        raise CheckpointError(f"it describes something too large ({type(error).__name__}).") from None
    return Saved(model, optimizer, average, progress)


def _describe(model: Sequential, optimizer: Optimizer | ParameterGroups) -> Any:
    """An optimiser as a mapping, or several as a list of groups."""
    if isinstance(optimizer, ParameterGroups):
        return [
            {"epochs": group.epochs, "optimizer": _describe(model, group.optimizer)}
            for group in optimizer.groups
        ]
    return spec(OPTIMIZERS, optimizer) | {
        "learning_rate": float(optimizer.learning_rate),
        "parameters": _names(model, optimizer),
    }


def _optimizer(model: Sequential, description: Any) -> Any:
    """What `_describe` has described."""
    if isinstance(description, list):
        return ParameterGroups(
            [Group(_optimizer(model, group["optimizer"]), epochs=group["epochs"]) for group in description]
        )
    options = dict(description)
    make = OPTIMIZERS.find(options.pop("type"))
    parameters = _parameters(model, options.pop("parameters"))
    rate = float(options.pop("learning_rate"))  # a schedule may have left it at 0
    optimizer = make(parameters, 1.0, **options)
    optimizer.learning_rate = rate
    return optimizer


def _fill(stateful: Stateful, part: str, arrays: Mapping[str, Any]) -> None:
    start = f"{part}."
    stateful.load_state_dict(
        {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
    )


def _names(model: Sequential, owner: Optimizer | MovingAverage) -> dict[str, str]:
    """The owner's name of each of its parameters -> the model's name of it."""
    known = {id(parameter): name for name, parameter in model.parameters().items()}
    try:
        return {name: known[id(parameter)] for name, parameter in owner.parameters.items()}
    except KeyError:
        raise ValueError(
            f"The parameters of this {type(owner).__name__} are not this model's. Create it with "
            "model.parameters()."
        ) from None


def _parameters(model: Sequential, names: Mapping[str, str]) -> dict[str, Any]:
    parameters = model.parameters()
    return {name: parameters[original] for name, original in names.items()}
