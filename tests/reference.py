"""Definitions written as plain loops, straight from the equations: what the fast code is judged by."""

import numpy as np


def convolution(x, kernel, bias, stride, pads):
    """y[n, p, q, o] = bias[o] + Σ_{i, j, c} x[n, p·stride_h + i, q·stride_w + j, c] · kernel[i, j, c, o]."""
    (top, bottom), (left, right) = pads
    n, h, w, channels = x.shape
    kernel_h, kernel_w, _, outputs = kernel.shape
    out_h = (h + top + bottom - kernel_h) // stride[0] + 1
    out_w = (w + left + right - kernel_w) // stride[1] + 1
    y = np.zeros((n, out_h, out_w, outputs))
    for image, p, q, o in np.ndindex(y.shape):
        total = float(bias[o])
        for i, j, c in np.ndindex(kernel_h, kernel_w, channels):
            row, column = p * stride[0] + i - top, q * stride[1] + j - left
            if 0 <= row < h and 0 <= column < w:
                total += x[image, row, column, c] * kernel[i, j, c, o]
        y[image, p, q, o] = total
    return y


def pooling(x, kernel_size, stride, reduce):
    """y[n, p, q, c] = reduce of the list of pixels in window (p, q)."""
    n, h, w, channels = x.shape
    out_h, out_w = (h - kernel_size[0]) // stride[0] + 1, (w - kernel_size[1]) // stride[1] + 1
    y = np.zeros((n, out_h, out_w, channels))
    for image, p, q, c in np.ndindex(y.shape):
        window = [
            x[image, p * stride[0] + i, q * stride[1] + j, c]
            for i in range(kernel_size[0])
            for j in range(kernel_size[1])
        ]
        y[image, p, q, c] = reduce(window)
    return y


def max_pooling_gradient(x, grad_y, kernel_size, stride):
    """Each gradient to the first largest pixel of its window, in row-major order."""
    grad_x = np.zeros_like(x)
    for image, p, q, c in np.ndindex(grad_y.shape):
        best = None
        for i in range(kernel_size[0]):
            for j in range(kernel_size[1]):
                place = (image, p * stride[0] + i, q * stride[1] + j, c)
                if best is None or x[place] > x[best]:
                    best = place
        grad_x[best] += grad_y[image, p, q, c]
    return grad_x
