"""The batch norm after a network's first convolution, by the statistics of the patches."""

from typing import Any

import numpy as np
from jaxtyping import Float

from cnn.layers import BatchNorm, Conv2D, Layer, Sequential
from cnn.layers.layer import Rng, Shape
from cnn.ops.reductions import repeat_for_pixels, sum_over_rows
from cnn.ops.windows import col2im, crop, im2col, pad


class FirstConvBatchNorm(Layer):
    """A convolution of images and the batch norm after it, whose statistics follow from those of the patches.

    As matrices, z = X K, with a patch in each of the m rows of X, of images from which their mean was
    subtracted. With the mean a and the covariance C of the patches,

        E[z] = aᵀ K        σ²_o = K_oᵀ C K_o        y = X (K · scale) + shift

    so the outputs are scaled by scaling the kernels. For gradients, Xᵀ dL/dy suffices, too:

        dL/dgamma = (Σ_i K ⊙ Xᵀ dL/dy − E[z] · Σ dL/dy) / d
        dL/dK = scale · (Xᵀ dL/dy − a · Σ dL/dy − C K · dL/dgamma / d)        d = sqrt(σ² + epsilon)

    since Xᵀ ẑ = m · C K / d. A bias has no effect on y. It pays off if patches are short and dL/dx is not
    needed.
    """

    def __init__(self, conv: Conv2D, norm: BatchNorm) -> None:
        self.conv = conv
        self.norm = norm

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n out_h out_w o"]:
        """Scale the kernels by the statistics of the batch, or by the running ones in evaluation."""
        shape = self.output_shape(x.shape[1:])
        if not training:
            return self.norm.forward(self.conv.forward(x))
        self.norm.check_count((len(x), *shape))
        centre = sum_over_rows(x) / (x.size // x.shape[-1])
        pads = self.conv.window.pads(*x.shape[1:3])
        padded = pad(x - centre, pads, -centre)  # all of the padded image is lower by `centre`
        columns = im2col(padded, self.conv.window)[0]
        kernel, patch_mean = self.conv.kernel_matrix()[0], sum_over_rows(columns) / len(columns)
        covariance = columns.T @ columns / len(columns) - np.outer(patch_mean, patch_mean)
        product, mean = covariance @ kernel, patch_mean @ kernel
        variance = np.maximum((kernel * product).sum(axis=0), 0)  # rounding may make it negative
        true_mean = mean + np.tile(centre, len(kernel) // len(centre)) @ kernel
        if self.conv.bias is not None:
            true_mean += self.conv.bias.value
        inverse_deviation = self.norm.observe(true_mean, variance)
        scale = self.norm.factor() * inverse_deviation
        y = (columns @ (kernel * scale)).reshape(len(x), *shape)
        y += repeat_for_pixels(self.norm.beta.value - mean * scale, shape)
        self._save(y, columns, x.shape, padded.shape, patch_mean, product, mean, inverse_deviation)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> Float[np.ndarray, "n h w c"]:
        """dL/dx by way of dL/dz = scale · (dL/dy − Σ dL/dy / m − ẑ · dL/dgamma / m); and the parameters'."""
        grad_gamma, columns, x_shape, padded_shape, _, _, mean, inverse_deviation = self._backward(grad_y)
        kernel, beta = self.conv.kernel_matrix()[0], self.norm.beta
        normalized = (columns @ kernel - mean) * inverse_deviation
        grad_z = grad_y.reshape(normalized.shape) - (beta.grad + normalized * grad_gamma) / len(columns)
        grad_columns = (grad_z * (self.norm.factor() * inverse_deviation)) @ kernel.T
        grad_padded = col2im(grad_columns[None], padded_shape, self.conv.window)
        return crop(grad_padded, self.conv.window.pads(*x_shape[1:3]))

    def backward_parameters(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> None:
        """Gradients of kernel, gamma and beta, from one product; that of a bias is 0."""
        self._backward(grad_y)

    def _backward(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> tuple[Any, ...]:
        """Assign the gradients of the parameters; return dL/dgamma and what was saved."""
        saved = self._take(grad_y)
        columns, _, _, patch_mean, product, mean, inverse_deviation = saved
        grad_rows = grad_y.reshape(len(columns), -1)
        kernel = self.conv.kernel_matrix()[0]
        total, projection = sum_over_rows(grad_rows), columns.T @ grad_rows
        grad_gamma = ((kernel * projection).sum(axis=0) - mean * total) * inverse_deviation
        self.norm.beta.grad = total
        if self.norm.gamma is not None:
            self.norm.gamma.grad = grad_gamma
        grad_kernel = projection - np.outer(patch_mean, total) - product * (grad_gamma * inverse_deviation)
        grad_kernel *= self.norm.factor() * inverse_deviation
        self.conv.kernel.grad = grad_kernel.reshape(self.conv.kernel.value.shape)
        if self.conv.bias is not None:
            self.conv.bias.grad = np.zeros_like(self.conv.bias.value)
        return grad_gamma, *saved

    def output_shape(self, input_shape: Shape) -> Shape:
        """The output shape of the convolution."""
        return self.norm.output_shape(self.conv.output_shape(input_shape))

    def as_evaluated(self) -> Layer:
        """The two layers, one after the other, as in evaluation."""
        return Sequential([self.conv, self.norm.as_evaluated()])

    def multiply_adds(self, input_shape: Shape) -> int:
        """Those of the convolution."""
        return self.conv.multiply_adds(input_shape)
