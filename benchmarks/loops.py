"""`baseline` in plain Python loops over lists, straight from the equations, to show what arrays save."""

from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import Conv2D, Dense, Examples, Sequential

Image = list[list[list[float]]]  # image[row][column][channel]


def gradients(model: Sequential, examples: Examples) -> tuple[float, list[NDArray[np.float64]]]:
    """Mean loss, and its gradients in the order of `model.parameters()`.

    `model` is convolution (stride 1, no padding), ReLU, 2x2 max pooling, flatten, dense.
    """
    conv, _, _, _, dense = model.layers
    assert isinstance(conv, Conv2D)
    assert isinstance(dense, Dense)
    kernel, conv_bias = conv.kernel.value.tolist(), conv.bias.value.tolist()
    weight, dense_bias = dense.weight.value.tolist(), dense.bias.value.tolist()
    totals = [np.zeros(parameter.value.shape) for parameter in model.parameters().values()]
    mean_loss = 0.0
    for image, target in zip(examples.images.tolist(), examples.targets.tolist(), strict=True):
        activations = relu(convolution(image, kernel, conv_bias))
        pooled, winners = max_pooling(activations)
        features = [value for row in pooled for pixel in row for value in pixel]
        loss, grad_logits = cross_entropy(affine(features, weight, dense_bias), target)
        mean_loss += loss / len(examples.images)
        grad_features = [sum(w * g for w, g in zip(row, grad_logits, strict=True)) for row in weight]
        grad_activations = max_pooling_gradient(grad_features, winners, activations)
        grad_kernel, grad_bias = convolution_gradient(image, kernel, grad_activations)
        grad_weight = [[feature * g for g in grad_logits] for feature in features]
        for total, gradient in zip(totals, (grad_kernel, grad_bias, grad_weight, grad_logits), strict=True):
            total += np.array(gradient) / len(examples.images)
    return mean_loss, totals


def convolution(image: Image, kernel: Any, bias: list[float]) -> Image:
    """y[p][q][o] = bias[o] + Σ_{i, j, c} x[p + i][q + j][c] · kernel[i][j][c][o]."""
    y = []
    for p in range(len(image) - len(kernel) + 1):
        row = []
        for q in range(len(image[0]) - len(kernel[0]) + 1):
            pixel = []
            for o in range(len(bias)):
                total = bias[o]
                for i in range(len(kernel)):
                    for j in range(len(kernel[0])):
                        for c in range(len(kernel[0][0])):
                            total += image[p + i][q + j][c] * kernel[i][j][c][o]
                pixel.append(total)
            row.append(pixel)
        y.append(row)
    return y


def convolution_gradient(image: Image, kernel: Any, grad_y: Image) -> tuple[Any, list[float]]:
    """dL/dkernel[i][j][c][o] = Σ_{p, q} x[p + i][q + j][c] · dL/dy[p][q][o], and dL/dbias[o] = Σ dL/dy."""
    outputs = range(len(grad_y[0][0]))
    grad_kernel = [[[[0.0 for _ in outputs] for _ in pixel] for pixel in row] for row in kernel]
    grad_bias = [0.0 for _ in outputs]
    for p, row in enumerate(grad_y):
        for q, pixel in enumerate(row):
            for o, gradient in enumerate(pixel):
                grad_bias[o] += gradient
                for i in range(len(kernel)):
                    for j in range(len(kernel[0])):
                        for c in range(len(kernel[0][0])):
                            grad_kernel[i][j][c][o] += image[p + i][q + j][c] * gradient
    return grad_kernel, grad_bias


def relu(x: Image) -> Image:
    """max(x, 0)."""
    return [[[value if value > 0 else 0.0 for value in pixel] for pixel in row] for row in x]


def max_pooling(x: Image) -> tuple[Image, list[tuple[int, int, int]]]:
    """The maximum of each 2x2 block and channel, and its position (row, column, channel)."""
    y, winners = [], []
    for p in range(0, len(x) - 1, 2):
        row = []
        for q in range(0, len(x[0]) - 1, 2):
            pixel = []
            for c in range(len(x[0][0])):
                best = max(
                    ((p, q), (p, q + 1), (p + 1, q), (p + 1, q + 1)), key=lambda at: x[at[0]][at[1]][c]
                )
                winners.append((*best, c))
                pixel.append(x[best[0]][best[1]][c])
            row.append(pixel)
        y.append(row)
    return y, winners


def max_pooling_gradient(
    grad_features: list[float], winners: list[tuple[int, int, int]], activations: Image
) -> Image:
    """Pass each gradient to the position of the maximum, if ReLU let it through; 0 elsewhere."""
    grad = [[[0.0 for _ in pixel] for pixel in row] for row in activations]
    for gradient, (p, q, c) in zip(grad_features, winners, strict=True):
        if activations[p][q][c] > 0:
            grad[p][q][c] = gradient
    return grad


def affine(x: list[float], weight: list[list[float]], bias: list[float]) -> list[float]:
    """y[o] = bias[o] + Σ_i x[i] · weight[i][o]."""
    y = list(bias)
    for value, row in zip(x, weight, strict=True):
        for o, w in enumerate(row):
            y[o] += value * w
    return y


def cross_entropy(logits: list[float], target: list[float]) -> tuple[float, list[float]]:
    """−Σ_k target[k] · log p[k] with p = softmax(logits), and its gradient, p − target."""
    largest = max(logits)
    exponentials = [exp(z - largest) for z in logits]
    p = [e / sum(exponentials) for e in exponentials]
    loss = -sum(t * log(q) for t, q in zip(target, p, strict=True) if t)
    return loss, [q - t for q, t in zip(p, target, strict=True)]
