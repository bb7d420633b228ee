"""The layers, one per file. All of them follow the contract of `cnn.layers.layer.Layer`."""

from cnn.layers.avg_pool import AvgPool2D
from cnn.layers.batch_norm import BatchNorm
from cnn.layers.conv2d import Conv2D
from cnn.layers.dense import Dense
from cnn.layers.dropout import Dropout
from cnn.layers.elu import ELU
from cnn.layers.flatten import Flatten
from cnn.layers.gelu import GELU
from cnn.layers.global_avg_pool import GlobalAvgPool2D
from cnn.layers.global_max_pool import GlobalMaxPool2D
from cnn.layers.layer import Layer
from cnn.layers.layer_norm import LayerNorm
from cnn.layers.leaky_relu import LeakyReLU
from cnn.layers.log_softmax import LogSoftmax
from cnn.layers.max_pool import MaxPool2D
from cnn.layers.relu import ReLU
from cnn.layers.residual import Residual
from cnn.layers.sequential import Sequential
from cnn.layers.sigmoid import Sigmoid
from cnn.layers.silu import SiLU
from cnn.layers.softmax import Softmax
from cnn.layers.spatial_dropout import SpatialDropout
from cnn.layers.tanh import Tanh

__all__ = [
    "ELU",
    "GELU",
    "AvgPool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "MaxPool2D",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SpatialDropout",
    "Tanh",
]
