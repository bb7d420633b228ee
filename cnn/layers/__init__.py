"""The layers, one per file; a line here exports each. They follow the contract of `cnn.layers.Layer`."""

from typing import TYPE_CHECKING

from cnn.layers.avg_pool import AvgPool2D as AvgPool2D
from cnn.layers.batch_norm import BatchNorm as BatchNorm
from cnn.layers.conv2d import Conv2D as Conv2D
from cnn.layers.dense import Dense as Dense
from cnn.layers.dropout import Dropout as Dropout
from cnn.layers.elu import ELU as ELU
from cnn.layers.flatten import Flatten as Flatten
from cnn.layers.gelu import GELU as GELU
from cnn.layers.global_avg_pool import GlobalAvgPool2D as GlobalAvgPool2D
from cnn.layers.global_max_pool import GlobalMaxPool2D as GlobalMaxPool2D
from cnn.layers.layer import Layer as Layer
from cnn.layers.layer_norm import LayerNorm as LayerNorm
from cnn.layers.leaky_relu import LeakyReLU as LeakyReLU
from cnn.layers.log_softmax import LogSoftmax as LogSoftmax
from cnn.layers.max_pool import MaxPool2D as MaxPool2D
from cnn.layers.relu import ReLU as ReLU
from cnn.layers.residual import Residual as Residual
from cnn.layers.scale import Scale as Scale
from cnn.layers.sequential import Sequential as Sequential
from cnn.layers.sigmoid import Sigmoid as Sigmoid
from cnn.layers.silu import SiLU as SiLU
from cnn.layers.softmax import Softmax as Softmax
from cnn.layers.spatial_dropout import SpatialDropout as SpatialDropout
from cnn.layers.tanh import Tanh as Tanh

if not TYPE_CHECKING:  # which does not follow this: `import *` takes the classes, not the modules
    __all__ = [name for name, value in globals().items() if isinstance(value, type)]
