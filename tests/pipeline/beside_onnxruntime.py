"""How long the library and onnxruntime take for the same images, and how far their outputs differ.

`python -m tests.pipeline.beside_onnxruntime` measures some networks of architectures.yaml, untrained, in turns.
"""

import sys
from statistics import median
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from cnn import Processes, keep_freed_memory
from cnn.engine.replicas import Replicas
from pipeline.config.architectures import build_model, load_layers
from pipeline.formats.judge import open_session
from pipeline.formats.onnx import INPUT, LOGITS, to_bytes, to_onnx
from tests.pipeline.networks import description, disturb

NETWORKS = ["baseline", "sample", "residual", "mnist_quick", "cifar10_quick"]
IMAGES, SHARD, REPEATS, LONGEST = 256, 64, 31, 10.0  # seconds for a row


def seconds(call):
    start = perf_counter()
    call()
    return perf_counter() - start


def measure(name, threads):
    """(median seconds here, median of onnxruntime's time over ours, largest difference / largest output)."""
    rng = np.random.default_rng(0)
    data = description((32, 32, 3) if "cifar" in name else (28, 28, 1))
    model = disturb(build_model(load_layers(name), name, data.image_shape, 10, rng), rng)
    images = rng.random((IMAGES, *data.image_shape), dtype=np.float32)
    session = open_session(to_bytes(to_onnx(model, data, {})), threads)
    with threadpool_limits(1, user_api="blas"), Replicas(model, Processes(threads)) as replicas:

        def ours():
            return replicas.predict(images, SHARD)

        def theirs():
            return session.run([LOGITS], {INPUT: images})[0]

        difference = abs(ours() - theirs()).max() / abs(ours()).max()
        pairs, end = [], perf_counter() + LONGEST
        while len(pairs) < REPEATS and (len(pairs) < 3 or perf_counter() < end):
            pairs.append((seconds(ours), seconds(theirs)))
    return median(own for own, _ in pairs), median(other / own for own, other in pairs), difference


def main():
    keep_freed_memory()
    print(
        "| network, 256 images | threads | here | onnxruntime's time / ours | largest difference / output |"
    )
    print("|---|---|---|---|---|")
    for name in sys.argv[1:] or NETWORKS:
        for threads in (1, 2):
            own, ratio, difference = measure(name, threads)
            print(
                f"| {name} | {threads} | {1000 * own:.1f} ms | {ratio:.2f} | {difference:.1e} |", flush=True
            )


if __name__ == "__main__":
    main()
