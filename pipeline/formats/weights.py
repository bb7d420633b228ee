"""Weights from a file of another tool, fitted to a network here: names, layouts, and what does not fit.

A file's arrays are grouped by layer. If every layer of the network finds a group of its own name and kind,
names decide. If not, each layer gets the first group of its kind and shapes that is not taken, in the order
of the file's graph (ONNX) or of its names, with numbers compared as numbers (safetensors).

PyTorch and ONNX keep kernels as (out, in, height, width), the library as (height, width, in, out); PyTorch
keeps dense weights as (out, in), the library as (in, out). And they flatten images channel by channel, the
library pixel by pixel: the weights behind a Flatten are reordered.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn import BatchNorm, Conv2D, Dense, Flatten, Layer, LayerNorm, Residual, Sequential
from cnn.layers.layer import Shape
from pipeline.errors import UserError, printable
from pipeline.formats import safetensors

Arrays = dict[str, NDArray[Any]]
LARGEST = 2**31  # bytes of a file
NETWORK = "network"  # the key of the metadata that this project's exports have
KINDS: dict[type[Layer], str] = {
    Conv2D: "conv2d",
    Dense: "dense",
    BatchNorm: "batch_norm",
    LayerNorm: "layer_norm",
}
FROM_TORCH = {  # kind -> the library's name for PyTorch's
    "conv2d": {"weight": "kernel", "bias": "bias"},
    "dense": {"weight": "weight", "bias": "bias"},
    "batch_norm": {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "running_mean",
        "running_var": "running_var",
    },
    "layer_norm": {"weight": "gamma", "bias": "beta"},
}


class Group(NamedTuple):
    """The arrays of one layer, in the library's layout; `names` are those in the file."""

    name: str
    kind: str
    arrays: Arrays  # by the library's names
    names: dict[str, str]
    epsilon: float | None = None

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each array, which a layer must have to get it."""
        return {name: array.shape for name, array in self.arrays.items()}


class Source(NamedTuple):
    """What a file holds."""

    groups: list[Group]
    left: list[str]  # arrays of no layer that is known
    layout: str  # in words
    pixel_by_pixel: bool  # whether images are flattened as the library does
    own: Arrays | None  # all arrays, if this project has written the file
    network: str | None  # the record of the network, if this project has written the file


class Taken(NamedTuple):
    """An array of the network, and where it comes from."""

    name: str
    shape: Shape
    source: str
    note: str


def read(path: Path) -> Source:
    """What the .safetensors or .onnx file holds; UserError if it cannot be used."""
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", ".onnx"):
        raise UserError(
            f"Weights are read from .safetensors and .onnx files; received {printable(path)}. In PyTorch: "
            'safetensors.torch.save_file(model.state_dict(), "weights.safetensors")'
        )
    if not path.is_file():
        raise UserError(f"There is no file {printable(path)}.")
    if (size := path.stat().st_size) > LARGEST:
        raise UserError(f"{printable(path)} has {size:,} bytes; at most {LARGEST:,} are read.")
    try:
        if suffix == ".safetensors":
            return from_safetensors(*safetensors.from_bytes(path.read_bytes()))
        from pipeline.formats import onnx_weights

        return onnx_weights.read(path)
    except safetensors.FormatError as error:
        raise UserError(f"{printable(path)} cannot be used: {printable(error)}.") from None


def from_safetensors(arrays: Arrays, metadata: Mapping[str, str]) -> Source:
    """What the arrays of a safetensors file are, by their names and axes."""
    own = NETWORK in metadata
    as_here = own or any(_leaf(name) == "kernel" for name in arrays)
    groups, left = [], []
    by_layer: dict[str, Arrays] = {}
    for name in sorted(arrays, key=_natural):
        if _leaf(name) != "num_batches_tracked":  # it only counts
            by_layer.setdefault(name.rpartition(".")[0], {})[_leaf(name)] = arrays[name]
    for layer, parts in by_layer.items():
        group = _as_here(layer, parts) if as_here else _from_torch(layer, parts)
        if group is None:
            left += [_join(layer, part) for part in parts]
        else:
            groups.append(group)
    layout = "this project's" if as_here else "PyTorch's"
    return Source(
        groups, left, layout, as_here, dict(arrays) if own else None, metadata.get(NETWORK) if own else None
    )


def _from_torch(layer: str, parts: Arrays) -> Group | None:
    """The arrays of a layer of PyTorch; None if it is of no known kind."""
    axes = parts["weight"].ndim if "weight" in parts else 0
    kind = "batch_norm" if "running_mean" in parts else {4: "conv2d", 2: "dense", 1: "layer_norm"}.get(axes)
    if kind is None or not parts.keys() <= FROM_TORCH[kind].keys():
        return None
    names = {here: _join(layer, there) for there, here in FROM_TORCH[kind].items() if there in parts}
    arrays = {here: parts[there] for there, here in FROM_TORCH[kind].items() if there in parts}
    if kind in ("conv2d", "dense"):
        name = FROM_TORCH[kind]["weight"]
        arrays[name] = to_layout(arrays[name])
    return Group(layer, kind, arrays, names)


def _as_here(layer: str, parts: Arrays) -> Group | None:
    """The arrays of a layer of this library; None if it is of no known kind."""
    if "kernel" in parts:
        kind = "conv2d"
    elif "weight" in parts:
        kind = "dense"
    elif "beta" in parts:
        kind = "batch_norm" if "running_mean" in parts else "layer_norm"
    else:
        return None
    return Group(layer, kind, parts, {part: _join(layer, part) for part in parts})


def to_layout(weight: NDArray[Any]) -> NDArray[Any]:
    """(out, in, height, width) as (height, width, in, out), and (out, in) as (in, out)."""
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T


def fit(model: Sequential, image_shape: Shape, source: Source) -> tuple[Arrays, list[Taken]]:
    """The state of the network with the file's arrays, and a list of them.

    UserError with all that does not fit: arrays that are missing, that are left over, that have other shapes.
    """
    own = model.state_dict()
    if source.own is not None and own.keys() <= source.own.keys():
        state = {name: source.own[name] for name in own}
        taken = [Taken(name, array.shape, name, "") for name, array in own.items()]
        problems = [
            f"{name} has shape {state[name].shape} in the file, and {array.shape} here"
            for name, array in own.items()
            if state[name].shape != array.shape
        ]
    else:
        state, taken, problems = _match(model, image_shape, source)
    if problems:
        raise UserError(
            "\n".join(["The weights do not fit the network:", *(f"- {printable(line)}" for line in problems)])
        )
    converted = {name: _float32(name, state[name]) for name in own}
    return converted, sorted(taken, key=lambda row: list(own).index(row.name))


def _match(model: Sequential, image_shape: Shape, source: Source) -> tuple[Arrays, list[Taken], list[str]]:
    """(state, what it is taken from, problems)."""
    layers = {name: layer for name, layer in model.walk() if type(layer) in KINDS}
    images = {} if source.pixel_by_pixel else flattened(model, image_shape)
    free = list(source.groups)
    by_name = {group.name: group for group in free}
    named = all(name in by_name and by_name[name].kind == KINDS[type(layers[name])] for name in layers)
    state: Arrays = {}
    taken, problems = [], []
    for name, layer in layers.items():
        wanted = {n: parameter.value.shape for n, parameter in layer.own_parameters().items()}
        wanted |= {n: buffer.shape for n, buffer in layer.buffers().items()}
        candidates = [by_name[name]] if named else [g for g in free if g.kind == KINDS[type(layer)]]
        fitting = [g for g in (_without_ones(g, wanted) for g in candidates) if g.shapes == wanted]
        if not fitting:
            problems.append(f"missing: {name} ({KINDS[type(layer)]}): {_list(wanted.items())}")
            continue
        group = fitting[0]
        free = [other for other in free if other.name != group.name]
        if group.epsilon is not None and not np.isclose(
            group.epsilon, getattr(layer, "epsilon", 0), rtol=1e-5
        ):
            here = getattr(layer, "epsilon", 0.0)
            problems.append(f"{group.name} has epsilon {group.epsilon:g}, and {name} here {here:g}")
        for part, array in group.arrays.items():
            reordered = name in images and part != "bias"
            state[f"{name}.{part}"] = channels_to_pixels(array, images[name]) if reordered else array
            note = "reordered for Flatten" if reordered else ""
            taken.append(Taken(f"{name}.{part}", array.shape, group.names[part], note))
    problems += [f"left over: {g.name} ({g.kind}): {_list(g.shapes.items())}" for g in free]
    problems += [f"left over: {name}" for name in source.left]
    return state, taken, problems


def _without_ones(group: Group, wanted: Mapping[str, Shape]) -> Group:
    """Without gamma if the network has none, and the file's is 1 everywhere, which is the same."""
    if "gamma" in wanted or "gamma" not in group.arrays or (group.arrays["gamma"] != 1).any():
        return group
    arrays = {name: array for name, array in group.arrays.items() if name != "gamma"}
    return group._replace(arrays=arrays)


def flattened(model: Sequential, image_shape: Shape) -> dict[str, Shape]:
    """For each layer with arrays whose input vectors are flattened images: the shape of these images."""
    found: dict[str, Shape] = {}
    _follow(model, "", image_shape, None, found)
    return found


def _follow(
    layer: Layer, name: str, shape: Shape, image: Shape | None, found: dict[str, Shape]
) -> Shape | None:
    """Follow vectors whose numbers are those of an image of this shape; return that of the layer's output."""
    if isinstance(layer, Sequential):
        for index, child in layer.children().items():
            image = _follow(child, f"{name}.{index}" if name else index, shape, image, found)
            shape = child.output_shape(shape)
        return image
    if isinstance(layer, Residual):
        branches = [_follow(layer.layers, f"{name}.layers", shape, image, found)]
        if layer.shortcut is not None:
            branches.append(_follow(layer.shortcut, f"{name}.shortcut", shape, image, found))
        else:
            branches.append(image)
        if branches[0] != branches[1]:
            raise UserError(
                f"The Residual {name} adds a flattened image to other numbers, so the order of its weights "
                "cannot be converted. Name the arrays as here, in this library's layout."
            )
        return image if branches[0] is not None else None
    if isinstance(layer, Flatten):
        return shape if len(shape) == 3 else image
    if image is not None and type(layer) in KINDS:
        found[name] = image
    return image if layer.output_shape(shape) == shape and not isinstance(layer, Dense) else None


def channels_to_pixels(array: NDArray[Any], image: Shape) -> NDArray[Any]:
    """The first axis, in the order (channel, row, column), in the order (row, column, channel)."""
    height, width, channels = image
    rest = array.shape[1:]
    ordered = np.moveaxis(array.reshape(channels, height, width, *rest), 0, 2)
    return ordered.reshape(array.shape)


def _float32(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """The array as float32; UserError if it holds anything but finite floating-point numbers."""
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"The file's array for {name} is {array.dtype}; weights are floating-point numbers.")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(converted).all():
        raise UserError(f"The file's array for {name} holds numbers that are not finite, or too large.")
    if name.endswith("running_var") and (converted < 0).any():
        raise UserError(f"The file's array for {name} holds negative numbers, which no variance is.")
    return converted


def _list(shapes: Iterable[tuple[str, Shape]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _join(layer: str, part: str) -> str:
    return f"{layer}.{part}" if layer else part


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in names by their size: layer2 before layer10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
