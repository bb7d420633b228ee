"""CIFAR-10: small colour photographs. Source: Krizhevsky, "Learning multiple layers of features from tiny
images" (2009).
"""

from pipeline.data.dataset import DataFile, Dataset
from pipeline.data.readers.cifar import read_cifar_archive

DATASET = Dataset(
    title="CIFAR-10, small photographs",
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    read_files=read_cifar_archive,
    files=(
        DataFile(
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            size=170_052_171,
        ),
    ),
    image_shape=(32, 32, 3),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
)
