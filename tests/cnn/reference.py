"""Definitions written as plain loops, directly from the equations: the reference for the fast code."""

from itertools import product
from math import ceil, exp, log, sqrt

import numpy as np

ZERO = ((0, 0), (0, 0))


def window_starts(size, kernel, stride, pads, dilation=1, ceil_mode=False):
    """Where windows start along one axis, counted from the image's first pixel; [] if none fits.

    These are all windows that end inside the padded image. With ceil_mode, if they leave a part of it uncovered,
    there is one more, provided that it starts inside the image or the padding before it.
    """
    before, after = pads
    extent = (kernel - 1) * dilation + 1
    starts = []
    start = -before
    while start + extent <= size + after:
        starts.append(start)
        start += stride
    if starts and ceil_mode and starts[-1] + extent < size + after and start < size:
        starts.append(start)
    return starts


def same_pads(size, kernel, stride, dilation=1):
    """The least padding with which ceil(size / stride) windows fit; an odd pixel comes after the image."""
    total = 0
    while len(window_starts(size, kernel, stride, (0, total), dilation)) < ceil(size / stride):
        total += 1
    return total // 2, total - total // 2


def windows(shape, kernel_size, stride, pads=ZERO, dilation=(1, 1), ceil_mode=False):
    """For images of `shape` (n, h, w, c), the rows of a table of windows; a window is a list of (row, column).

    Pixels outside the image are included: -1 is the row or column just before it.
    """
    rows, columns = (
        [
            [start + i * dilation[axis] for i in range(kernel_size[axis])]
            for start in window_starts(
                shape[1 + axis], kernel_size[axis], stride[axis], pads[axis], dilation[axis], ceil_mode
            )
        ]
        for axis in (0, 1)
    )
    return [[list(product(r, c)) for c in columns] for r in rows]


def inside(pixel, shape, pads=ZERO):
    """Whether a (row, column) lies in the image, or in the image with `pads` around it."""
    return all(-b <= i < size + a for i, size, (b, a) in zip(pixel, shape[1:3], pads, strict=True))


def convolution(x, kernel, bias, stride=(1, 1), pads=ZERO, dilation=(1, 1), groups=1):
    """y[n, p, q, o] = bias[o] + Σ_{i, j, c} x[n, p·stride_h + i·dilation_h, …, c] · kernel[i, j, c, o].

    With groups, output o sees only the channels of the part that it belongs to.
    """
    kernel_h, kernel_w, channels, outputs = kernel.shape
    table = windows(x.shape, (kernel_h, kernel_w), stride, pads, dilation)
    y = np.zeros((len(x), len(table), len(table[0]), outputs))
    for n, p, q, o in np.ndindex(y.shape):
        group = o // (outputs // groups)
        total = float(bias[o])
        for pixel, (i, j) in zip(table[p][q], np.ndindex(kernel_h, kernel_w), strict=True):
            if inside(pixel, x.shape):
                for c in range(channels):
                    total += x[n, *pixel, group * channels + c] * kernel[i, j, c, o]
        y[n, p, q, o] = total
    return y


def max_pooling(x, kernel_size, stride, pads=ZERO, dilation=(1, 1), ceil_mode=False):
    """y[n, p, q, c] = the largest pixel of the image in window (p, q): padding is −∞."""
    table = windows(x.shape, kernel_size, stride, pads, dilation, ceil_mode)
    y = np.zeros((len(x), len(table), len(table[0]), x.shape[3]))
    for n, p, q, c in np.ndindex(y.shape):
        y[n, p, q, c] = max(x[n, *pixel, c] for pixel in table[p][q] if inside(pixel, x.shape))
    return y


def max_pooling_gradient(x, grad_y, kernel_size, stride, pads=ZERO, dilation=(1, 1), ceil_mode=False):
    """Add each gradient to the first largest pixel of its window, in row-major order."""
    table = windows(x.shape, kernel_size, stride, pads, dilation, ceil_mode)
    grad_x = np.zeros_like(x)
    for n, p, q, c in np.ndindex(grad_y.shape):
        best = None
        for pixel in table[p][q]:
            if inside(pixel, x.shape) and (best is None or x[n, *pixel, c] > x[n, *best, c]):
                best = pixel
        grad_x[n, *best, c] += grad_y[n, p, q, c]
    return grad_x


def avg_pooling(x, kernel_size, stride, pads=ZERO, dilation=(1, 1), ceil_mode=False, count_include_pad=True):
    """y[n, p, q, c] = the sum of window (p, q) over the number of its pixels in the (padded) image."""
    table = windows(x.shape, kernel_size, stride, pads, dilation, ceil_mode)
    y = np.zeros((len(x), len(table), len(table[0]), x.shape[3]))
    for n, p, q, c in np.ndindex(y.shape):
        counted = [
            pixel for pixel in table[p][q] if inside(pixel, x.shape, pads if count_include_pad else ZERO)
        ]
        total = sum(x[n, *pixel, c] for pixel in counted if inside(pixel, x.shape))
        y[n, p, q, c] = total / len(counted)
    return y


def batch_statistics(x):
    """Mean and biased variance of each channel (the last axis) over all other axes, as two arrays."""
    channels = [[float(v) for v in x[..., c].ravel()] for c in range(x.shape[-1])]
    means = [sum(values) / len(values) for values in channels]
    variances = [
        sum((v - mean) ** 2 for v in values) / len(values)
        for values, mean in zip(channels, means, strict=True)
    ]
    return np.array(means), np.array(variances)


def batch_norm(x, gamma, beta, mean, variance, epsilon):
    """y = gamma · (x − mean) / sqrt(variance + epsilon) + beta, for each channel (the last axis)."""
    y = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        c = index[-1]
        y[index] = gamma[c] * (x[index] - mean[c]) / sqrt(variance[c] + epsilon) + beta[c]
    return y


def layer_norm(x, gamma, beta, epsilon):
    """The same, with mean and biased variance over the channels of each position."""
    y = np.zeros(x.shape)
    channels = x.shape[-1]
    for place in np.ndindex(x.shape[:-1]):
        mean = sum(float(v) for v in x[place]) / channels
        variance = sum((float(v) - mean) ** 2 for v in x[place]) / channels
        for c in range(channels):
            y[*place, c] = gamma[c] * (x[*place, c] - mean) / sqrt(variance + epsilon) + beta[c]
    return y


def softmax(z):
    """p_i = exp(z_i) / Σ_j exp(z_j), along the last axis."""
    p = np.zeros(z.shape)
    for place in np.ndindex(z.shape[:-1]):
        exponentials = [exp(v) for v in z[place]]
        for i, e in enumerate(exponentials):
            p[*place, i] = e / sum(exponentials)
    return p


def cross_entropy(logits, targets):
    """−1/N · Σ_n Σ_k targets[n, k] · log softmax(logits)[n, k]."""
    p = softmax(logits)
    return -sum(targets[n, k] * log(p[n, k]) for n, k in np.ndindex(p.shape)) / len(p)
