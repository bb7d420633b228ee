"""PyTorch's side: the same networks and layers with the same weights. The only file that imports torch.

It runs in its own process (`benchmarks.processes`), so that the threads and memory settings of one side do
not affect the other. This module keeps what was prepared last, once for each variant: a memory
layout, eager or compiled.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.ours import LEARNING_RATE
from benchmarks.timing import block
from cnn import (
    GELU,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Examples,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    ReLU,
    Sequential,
    SpatialDropout,
)
from cnn.layers.layer import Shape
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}

Wrap = Callable[[nn.Module], Callable[[Tensor], Tensor]]

_make: Callable[[str, Wrap], Callable[[], Any]]  # a step, from the layout and what to do with the network
_steps: dict[str, Callable[[], Any]] = {}
_epochs: dict[str, Callable[[NDArray[np.integer[Any]]], float]] = {}


def names() -> list[str]:
    """The variants of what was prepared last."""
    return [*_steps]


def run(name: str, steps: int) -> float:
    """Seconds for this many steps of a variant of what was prepared last."""
    return block(_steps[name])(steps)


def compile_step(layout: str) -> str:
    """Add the variant that torch.compile makes; return why this failed, or nothing."""
    try:
        step = _make(layout, torch.compile)
        result, expected = step(), _steps[layout]()  # the first step compiles
        if result is not None:
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
        _steps[f"{layout}, compiled"] = step
    except Exception as error:  # no compiler on this machine, for example
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _prepare(make: Callable[[str, Wrap], Callable[[], Any]], threads: int) -> None:
    global _make
    _make = make
    torch.compiler.reset()
    torch.set_num_threads(threads)
    _steps.clear()
    for layout in LAYOUTS:
        _steps[layout] = make(layout, lambda network: network)


def prepare_training(model: Sequential, shape: Shape, examples: Examples, threads: int) -> None:
    """Prepare forward, loss, backward and SGD's step on all of `examples`."""
    labels = torch.from_numpy(examples.targets.argmax(axis=1))

    def make(layout: str, wrap: Wrap) -> Callable[[], None]:
        network = twin(model, shape).to(memory_format=LAYOUTS[layout])
        optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE)
        images = to_tensor(examples.images, layout)
        return partial(training_step, wrap(network), optimizer, images, labels)

    _prepare(make, threads)


def gpu_steps(model: Sequential, shape: Shape, examples: Examples) -> dict[str, Callable[[], None]]:
    """Training steps on the GPU: eager and compiled, in both layouts, with TF32 off and on.

    Each step copies its images and labels to the GPU, as ours does.
    """
    labels = torch.from_numpy(examples.targets.argmax(axis=1))
    steps: dict[str, Callable[[], None]] = {}
    for layout in LAYOUTS:
        for wrap, how in ((_as_it_is, "eager"), (torch.compile, "compiled")):
            for tf32 in (False, True):
                network = twin(model, shape).cuda().to(memory_format=LAYOUTS[layout])
                optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE)
                arguments = wrap(network), optimizer, to_tensor(examples.images, layout), labels
                name = f"PyTorch, {how}, {layout}, TF32 {'on' if tf32 else 'off'}"
                steps[name] = partial(_gpu_step, tf32, *arguments)
    return steps


def _as_it_is(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return network


def _gpu_step(
    tf32: bool,
    network: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    training_step(network, optimizer, images.cuda(), labels.cuda())
    torch.cuda.synchronize()


def training_step(
    network: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    """One step of gradient descent."""
    optimizer.zero_grad(set_to_none=True)
    cross_entropy(network(images), labels).backward()
    optimizer.step()


def prepare_epochs(model: Sequential, batch_size: int, learning_rate: float, threads: int) -> None:
    """Prepare whole epochs of SGD on data/processed, which is held in memory as tensors."""
    torch.set_num_threads(threads)
    description = Description.load()
    for layout in LAYOUTS:
        network = twin(model, description.image_shape).to(memory_format=LAYOUTS[layout])
        optimizer = torch.optim.SGD(network.parameters(), learning_rate)
        train, validation = (
            (
                to_tensor(np.array(examples.images), layout),
                torch.from_numpy(examples.targets.argmax(axis=1)),
            )
            for examples in (load_examples(part, description) for part in ("train", "validation"))
        )
        _epochs[layout] = partial(_epoch, network, optimizer, train, validation, batch_size)


def run_epoch(layout: str, order: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """Seconds for one epoch through the images in `order`, and the validation accuracy after it."""
    start = time.perf_counter()
    accuracy = _epochs[layout](order)
    return time.perf_counter() - start, accuracy


def _epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    batch_size: int,
    order: NDArray[np.integer[Any]],
) -> float:
    """Do what `cnn.fit` does in an epoch, sums for the report included; return the validation accuracy."""
    images, labels = train
    loss_sum, correct = 0.0, 0
    network.train()
    for batch in torch.from_numpy(order).split(batch_size):
        optimizer.zero_grad(set_to_none=True)
        outputs = network(images[batch])
        loss = cross_entropy(outputs, labels[batch])
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(batch)
        correct += int((outputs.argmax(dim=1) == labels[batch]).sum())
    network.eval()
    with torch.inference_mode():
        outputs = torch.cat([network(part) for part in validation[0].split(256)])
        cross_entropy(outputs, validation[1])
    return float((outputs.argmax(dim=1) == validation[1]).double().mean())


def prepare_prediction(model: Sequential, shape: Shape, images: NDArray[np.float32], threads: int) -> None:
    """Prepare the logits of `images`."""

    def make(layout: str, wrap: Wrap) -> Callable[[], Tensor]:
        network = twin(model, shape).to(memory_format=LAYOUTS[layout]).eval()
        return torch.inference_mode()(partial(wrap(network), to_tensor(images, layout)))

    _prepare(make, threads)


def prepare_layer(
    layer: Layer, shape: Shape, x: NDArray[np.float32], grad_y: NDArray[np.float32], threads: int
) -> None:
    """Prepare forward and backward of one layer, dL/dx included."""

    def make(layout: str, wrap: Wrap) -> Callable[[], tuple[Tensor, ...]]:
        module = twin(Sequential([layer]), shape).to(memory_format=LAYOUTS[layout])
        return partial(_layer_step, module, to_tensor(x, layout).requires_grad_(), to_tensor(grad_y, layout))

    _prepare(make, threads)


def _layer_step(module: nn.Module, x: Tensor, grad_y: Tensor) -> tuple[Tensor, ...]:
    """dL/dx and the gradients of the parameters."""
    return torch.autograd.grad(module(x), [x, *module.parameters()], grad_y)


def layer_gradient(layout: str) -> NDArray[np.float32]:
    """dL/dx of what `prepare_layer` prepared, as our side lays it out."""
    grad_x = _steps[layout]()[0]
    return grad_x.permute(0, 2, 3, 1).numpy() if grad_x.ndim == 4 else grad_x.numpy()


def logits(model: Sequential, shape: Shape, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """The twin's logits for `images`, and its number of parameters."""
    network = twin(model, shape).eval()
    with torch.inference_mode():
        y = network(to_tensor(images, "NCHW")).numpy()
    return y, sum(parameter.numel() for parameter in network.parameters())


def twin(model: Sequential, shape: Shape) -> nn.Sequential:
    """`model` in PyTorch, for inputs of `shape` (h, w, c), with copies of its weights."""
    modules: list[nn.Module] = []
    flattened: Shape | None = None  # the shape before Flatten, until a dense layer follows
    for layer in model.layers:
        modules.append(_convert(layer, shape, flattened))
        if isinstance(layer, Flatten | Dense):
            flattened = shape if isinstance(layer, Flatten) else None
        shape = layer.output_shape(shape)
    return nn.Sequential(*modules)


def to_tensor(x: NDArray[np.float32], layout: str) -> Tensor:
    """Images (n, h, w, c) as PyTorch's (n, c, h, w), in a memory layout of LAYOUTS; vectors as they are."""
    tensor = torch.from_numpy(x)
    return tensor.permute(0, 3, 1, 2).contiguous(memory_format=LAYOUTS[layout]) if x.ndim == 4 else tensor


def _convert(layer: Layer, shape: Shape, flattened: Shape | None) -> nn.Module:
    match layer:
        case Conv2D():
            (top, bottom), (left, right) = layer.window.pads(*shape[:2])
            if (top, left) != (bottom, right):
                raise ValueError(f"PyTorch pads both sides equally, but {layer!r} does not.")
            module: nn.Module = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.window.kernel_size,
                stride=layer.window.stride,
                padding=(top, left),
                dilation=layer.window.dilation,
                groups=layer.groups,
                bias=layer.bias is not None,
            )
            values = [layer.kernel.value.transpose(3, 2, 0, 1)]  # (h, w, in, out) to (out, in, h, w)
            values += [] if layer.bias is None else [layer.bias.value]
        case Dense():
            module = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            weight = layer.weight.value
            if flattened is not None:  # rows from the order (h, w, c) to (c, h, w)
                weight = weight.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
            values = [weight.T, *([] if layer.bias is None else [layer.bias.value])]
        case BatchNorm():
            module = nn.BatchNorm2d(layer.channels, eps=layer.epsilon, momentum=1 - layer.momentum)
            values = [layer.gamma.value, layer.beta.value]
            module.running_mean.copy_(torch.from_numpy(layer.running_mean))
            module.running_var.copy_(torch.from_numpy(layer.running_var))
        case MaxPool2D():
            return nn.MaxPool2d(layer.window.kernel_size, layer.window.stride)
        case GlobalAvgPool2D():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case ReLU() | Flatten():
            return nn.ReLU() if isinstance(layer, ReLU) else nn.Flatten()
        case GELU():
            return nn.GELU(approximate="tanh" if layer.approximate else "none")
        case Dropout():
            whole_channels = isinstance(layer, SpatialDropout)
            return nn.Dropout2d(layer.rate) if whole_channels else nn.Dropout(layer.rate)
        case _:
            raise ValueError(f"There is no PyTorch twin of {layer!r} yet.")
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return module
