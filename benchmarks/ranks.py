"""How training scales over the ranks of MPI: measured here, and predicted for more machines.

`python -m benchmarks.ranks` starts mpirun with 1, 2, 4 and 8 ranks, one BLAS thread each, and prints two
tables. It needs mpi4py and an MPI, such as the package mpich.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.cases import NETWORKS, make_examples, make_network
from benchmarks.timing import Pace, alternate, block, paired_ratio
from cnn import SGD, Processes, Ranks, fit, softmax_cross_entropy
from cnn.engine.executors import Executor, Serial
from cnn.engine.ranks import RankPool
from cnn.engine.shards import LANES, ShardedGradients
from pipeline.cores import count_cores

RANKS = (1, 2, 4, 8)
MEASURED = "CIFAR net"
SIZES = {"14 kB": 3_500, "8 MB": 2_000_000, "100 MB": 25_000_000}  # float32 numbers of a gradient
PACE = Pace(rounds=7, seconds=0.2)
NODES = (8, 64, 512)
LATENCY, BANDWIDTH = 2e-6, 12.5e9  # assumed of a cluster's network: 2 µs, 100 Gbit/s


@dataclass(frozen=True)
class Costs:
    """What a step consists of, in seconds, bytes, and bytes per second."""

    shard: float  # forward and backward of one shard
    rest: float  # what every rank does in each step: copies of the weights, the optimiser
    gradient: float  # bytes
    latency: float  # of a message
    bandwidth: float  # of a rank

    def step(self, shards: int, ranks: int, cores: int | None = None) -> float:
        """The time of a step of this many shards; `cores` are those that all ranks share, if they do.

        A rank computes ⌈tasks / R⌉ tasks of lanes or shards, and sends, in R − 1 messages each, the slices of
        its tasks' gradients and then its slice of the sum:

            T = shards of the busiest rank · t_shard + t_rest + (m + 1)(R − 1) (α + G / (R β))
        """
        tasks = shards if ranks > LANES else min(LANES, shards)
        own = ceil(tasks / ranks)
        busy = max(1.0, ranks / cores) if cores else 1.0
        computed = own * ceil(shards / tasks) * self.shard + self.rest
        sent = (own + 1) * (ranks - 1) * (self.latency + self.gradient / ranks / self.bandwidth)
        return (computed + sent) * busy


def measure() -> dict[str, Any]:
    """On all ranks: the time of a step, of the ordered sum and of `Allreduce`, and the bits of two epochs."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD

    def together(step: Any) -> Any:
        def run(steps: int) -> float:
            world.Barrier()
            return float(world.bcast(block(step)(steps)))

        return run

    found: dict[str, Any] = {"ranks": world.Get_size(), "library": MPI.Get_library_version().split("\n")[0]}
    with threadpool_limits(1):
        network = NETWORKS[MEASURED]
        model, shape = make_network(MEASURED)
        examples = make_examples(network.batch_sizes[0], shape)
        optimizer, batch = SGD(model.parameters(), 0.01), np.arange(len(examples.images))
        with ShardedGradients(
            model, softmax_cross_entropy, examples, network.shard_size, executor=Ranks(world)
        ) as gradients:

            def step() -> None:
                gradients(batch)
                optimizer.step()

            found["step"] = float(np.median(alternate({"": together(step)}, Pace(3, 0.2))[""]))
        found["rest"] = float(np.median(alternate({"": together(optimizer.step)}, PACE)[""]))
        found["sha256"] = weights_after_two_epochs(Ranks(world))
    pool = RankPool(world, Serial().start(lambda: None))
    for name, numbers in SIZES.items():
        rows = [np.zeros(numbers, np.float32) for _ in range(world.Get_size())]
        result = np.empty(numbers, np.float32)
        own = rows[world.Get_rank()]
        times = alternate(
            {
                "ordered": together(lambda rows=rows: pool.add_up([rows])),
                "Allreduce": together(lambda own=own, result=result: world.Allreduce(own, result)),
            },
            PACE,
        )
        ratio = paired_ratio(times["Allreduce"], times["ordered"])
        found[name] = [float(np.median(times["ordered"])), float(np.median(times["Allreduce"])), ratio.median]
    if world.Get_size() > 1:
        found["latency"] = _ping(world, np.zeros(1, np.float32), 200)
        large = np.zeros(2_000_000, np.float32)
        found["bandwidth"] = large.nbytes / _ping(world, large, 20)
    return found


def weights_after_two_epochs(executor: Executor | None) -> str:
    """The SHA-256 of the weights of `sample` and of the CIFAR net, trained by `executor`."""
    digest = hashlib.sha256()
    for name, images, shard_size in (("sample", 1000, 8), (MEASURED, 256, 16)):
        model, shape = make_network(name)
        fit(model, make_examples(images, shape), epochs=2, shard_size=shard_size, executor=executor)
        for array in model.state_dict().values():
            digest.update(array.tobytes())
    return digest.hexdigest()


def _ping(world: Any, message: np.ndarray, times: int) -> float:
    """The seconds of a message from rank 0 to rank 1, or back."""

    def turn() -> None:
        if world.Get_rank() == 0:
            world.Send(message, 1)
            world.Recv(message, 1)
        elif world.Get_rank() == 1:
            world.Recv(message, 0)
            world.Send(message, 0)

    turn()
    world.Barrier()
    return float(world.bcast(block(turn)(times))) / times / 2


def main(mpirun: Sequence[str]) -> None:
    """Measure with each number of ranks, and print what was measured and what the model predicts."""
    found = []
    for ranks in RANKS:
        command = [*mpirun, "-n", str(ranks), sys.executable, "-m", "benchmarks.ranks", "measure"]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found.append(json.loads(output))
    alone, pair = found[0], found[1]
    network = NETWORKS[MEASURED]
    shards = network.batch_sizes[0] // network.shard_size
    gradient = 4 * sum(p.value.size for p in make_network(MEASURED)[0].parameters().values())
    costs = Costs(
        (alone["step"] - alone["rest"]) / shards, alone["rest"], gradient, pair["latency"], pair["bandwidth"]
    )
    print(f"{alone['library']}, {count_cores()} cores; a message takes {costs.latency * 1e6:.1f} µs and")
    with threadpool_limits(1):
        hashes = {weights_after_two_epochs(executor) for executor in (None, Processes(2), Processes(3))}
    same = len(hashes | {row["sha256"] for row in found}) == 1
    print(f"{costs.bandwidth / 1e9:.1f} GB/s. The weights have the same bits on all ranks, and as those of")
    print(f"one process and of 2 and 3 workers: {same}.\n")
    titles = [f"{name}: ordered sum / Allreduce" for name in SIZES]
    print(f"| {' | '.join(['ranks', 'step, ms', 'predicted, ms', *titles])} |")
    print("|---" * (3 + len(SIZES)) + "|")
    for row in found:
        predicted = costs.step(shards, row["ranks"], count_cores())
        sums = (
            f"{row[name][0] * 1e3:.2f} ms / {row[name][1] * 1e3:.2f} ms = {row[name][2]:.2f}"
            for name in SIZES
        )
        print(f"| {row['ranks']} | {row['step'] * 1e3:.0f} | {predicted * 1e3:.0f} | {' | '.join(sums)} |")
    print(
        "\n| nodes | CIFAR net, batch 512 | CIFAR net, 64 images a node | 25 M parameters, 64 images a node |"
    )
    print("|---|---|---|---|")
    for nodes in NODES:
        cells = []
        for bytes_sent, count in ((gradient, shards), (gradient, nodes), (100e6, nodes)):
            cluster = Costs(costs.shard, costs.rest * bytes_sent / gradient, bytes_sent, LATENCY, BANDWIDTH)
            speedup = cluster.step(count, 1) / cluster.step(count, nodes)
            cells.append(f"{speedup:.0f} times, {speedup / nodes:.0%}")
        print(f"| {nodes} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        from mpi4py import MPI

        measured = measure()
        if MPI.COMM_WORLD.Get_rank() == 0:
            print(json.dumps(measured))
    else:
        main(sys.argv[1:] or [str(Path(sys.executable).with_name("mpirun"))])
