"""Hashes of operations and of small trainings: `python -m tests.portable_bits` prints them.

WORKERS in the environment is the number of processes that train.
"""

# isort: off
import pipeline  # noqa: F401 - first, since it chooses the code that NumPy runs
# isort: on

import json
import os
from hashlib import sha256

import numpy as np
from threadpoolctl import threadpool_limits

import cnn
from cnn.ops.normal import normal_distribution
from cnn.ops.softmax import softmax

PRODUCTS = (  # of matrices, as networks have them: (m, k, n)
    (676, 9, 8),
    (1352, 9, 32),
    (100, 288, 64),
    (32, 1600, 128),
    (128, 32, 1600),
    (64, 1352, 10),
    (36, 64, 64),
    (7, 5, 3),
    (2048, 576, 64),
    (1, 1000, 1),
)


def digest(*arrays):
    return sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]


def operations():
    """A hash for each operation whose bits may depend on the processor."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal(100_000).astype(np.float32)
    wide = z.astype(np.float64)
    table = z.reshape(-1, 50)
    found = {
        "exp": np.exp(z),
        "log": np.log(np.abs(z) + 1),
        "tanh": np.tanh(z),
        "sqrt": np.sqrt(np.abs(z)),
        "divide": z / (np.abs(z) + 1),
        "exp, float64": np.exp(wide),
        "log, float64": np.log(np.abs(wide) + 1),
        "tanh, float64": np.tanh(wide),
        "sum": z.sum(),
        "sum by column": table.sum(axis=0),
        "sum by row": table.sum(axis=1),
        "mean and variance": np.array([table.mean(), table.var()]),
        "dot": z @ z,
        "einsum": np.einsum("rc,rc->c", table, table),
        "softmax": softmax(table),
        "normal distribution": np.concatenate(normal_distribution(z)),
        "normal": np.random.default_rng(1).standard_normal(1000),
    }
    for m, k, n in PRODUCTS:
        a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
        found[f"product {m}x{k}x{n}"] = a @ b
        found[f"product {m}x{k}x{n}, transposed"] = a.T.copy().T @ b.T.copy().T
        found[f"product {m}x{k}x{n}, float64"] = a.astype(np.float64) @ b
    return {name: digest(value) for name, value in found.items()}


def training(activation, workers):
    """A hash of the weights after an epoch of a network with batch norm, dropout and all kinds of layers.

    A batch has more shards than lanes, and both convolutions are computed in the ways that passes choose.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 600)
    images = rng.random((600, 16, 16, 3), dtype=np.float32)
    examples = cnn.Examples(images, np.eye(10, dtype=np.float32)[labels])
    model = cnn.Sequential(
        [
            cnn.Conv2D(3, 32, 3, rng=rng),
            cnn.BatchNorm(32),
            activation(),
            cnn.MaxPool2D(2),
            cnn.Conv2D(32, 32, 3, padding="same", rng=rng),
            cnn.LayerNorm(32),
            activation(),
            cnn.Dropout(0.1),
            cnn.AvgPool2D(2),
            cnn.Flatten(),
            cnn.Dense(288, 10, rng=rng),
        ]
    )
    executor = cnn.Processes(workers) if workers > 1 else None
    optimizer = cnn.Adam(model.parameters(), 0.003)
    cnn.fit(model, examples, optimizer=optimizer, epochs=1, batch_size=64, shard_size=12, executor=executor)
    return digest(*(parameter.value for parameter in model.parameters().values()))


def hashes(workers):
    """All hashes, computed in this process."""
    with threadpool_limits(1, user_api="blas"):
        activations = (cnn.ReLU, cnn.GELU, cnn.SiLU, cnn.ELU, cnn.Sigmoid, cnn.Tanh)
        trainings = {f"training, {a.__name__}": training(a, workers) for a in activations}
        return operations() | trainings


if __name__ == "__main__":
    print(json.dumps(hashes(int(os.environ.get("WORKERS", "1"))), indent=4))
