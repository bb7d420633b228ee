"""The layers, one a file. All of them follow the contract of `cnn.layers.layer.Layer`."""

from cnn.layers.avg_pool import AvgPool2D
from cnn.layers.conv2d import Conv2D
from cnn.layers.dense import Dense
from cnn.layers.flatten import Flatten
from cnn.layers.layer import Layer
from cnn.layers.max_pool import MaxPool2D
from cnn.layers.relu import ReLU
from cnn.layers.softmax import Softmax

__all__ = ["AvgPool2D", "Conv2D", "Dense", "Flatten", "Layer", "MaxPool2D", "ReLU", "Softmax"]
