"""A convolutional network written by hand in NumPy: every forward and backward pass beside its equation."""

from cnn.gradient_check import gradient_check
from cnn.layers import AvgPool2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU, Softmax
from cnn.losses import softmax_cross_entropy
from cnn.model import Sequential
from cnn.optimizers import SGD
from cnn.parameter import Parameter
from cnn.training import EpochReport, Examples, NonFiniteLossError, fit

__all__ = [
    "SGD",
    "AvgPool2D",
    "Conv2D",
    "Dense",
    "EpochReport",
    "Examples",
    "Flatten",
    "Layer",
    "MaxPool2D",
    "NonFiniteLossError",
    "Parameter",
    "ReLU",
    "Sequential",
    "Softmax",
    "fit",
    "gradient_check",
    "softmax_cross_entropy",
]
