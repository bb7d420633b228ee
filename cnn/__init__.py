"""A convolutional network written by hand in NumPy: every forward and backward pass beside its equation."""

from cnn import augmentation, initializers, schedules
from cnn.checkpoint import CheckpointError
from cnn.clipping import clip_by_norm, clip_by_value
from cnn.engine.executors import Processes, Serial, Threads
from cnn.engine.memory import keep_freed_memory
from cnn.engine.shards import Examples
from cnn.gradient_check import gradient_check
from cnn.layers import (
    ELU,
    GELU,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    SpatialDropout,
    Tanh,
)
from cnn.losses import cross_entropy, mean_squared_error, softmax_cross_entropy
from cnn.moving_average import MovingAverage
from cnn.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSProp
from cnn.parameter import Parameter
from cnn.saving import Saved, load, save
from cnn.specs import SpecError, from_spec
from cnn.training import EpochReport, NonFiniteError, Progress, fit, fit_by_epoch

__all__ = [
    "ELU",
    "GELU",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "AvgPool2D",
    "BatchNorm",
    "CheckpointError",
    "Conv2D",
    "Dense",
    "Dropout",
    "EpochReport",
    "Examples",
    "Flatten",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "MaxPool2D",
    "MovingAverage",
    "NonFiniteError",
    "Optimizer",
    "Parameter",
    "Processes",
    "Progress",
    "RMSProp",
    "ReLU",
    "Residual",
    "Saved",
    "Sequential",
    "Serial",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SpatialDropout",
    "SpecError",
    "Tanh",
    "Threads",
    "augmentation",
    "clip_by_norm",
    "clip_by_value",
    "cross_entropy",
    "fit",
    "fit_by_epoch",
    "from_spec",
    "gradient_check",
    "initializers",
    "keep_freed_memory",
    "load",
    "mean_squared_error",
    "save",
    "schedules",
    "softmax_cross_entropy",
]
