"""`python -m pipeline summary`: the network and a training step in numbers, before anything is trained."""

import time
import tracemalloc
from math import ceil
from statistics import median

import numpy as np
from rich.table import Table
from threadpoolctl import threadpool_limits

from cnn import Examples, Processes, Sequential
from cnn.clipping import gradient_squares
from cnn.engine.executors import Executor
from cnn.engine.shards import ShardedGradients
from cnn.inspection import multiply_adds
from cnn.layers.trace import trace_shapes
from cnn.registry import name_of
from cnn.state import Stateful
from pipeline.apps.run import known_images
from pipeline.apps.terminal import make_table, open_console, print_table
from pipeline.config.architectures import build_chosen
from pipeline.config.groups import COLUMNS, group_rows, make_optimizer
from pipeline.config.params import Data, Params, load_params
from pipeline.cores import count_cores
from pipeline.data.catalogue import DATASETS
from pipeline.data.dataset import OWN
from pipeline.data.own import survey
from pipeline.data.pictures import Shape, in_words, target_shape
from pipeline.errors import UserError
from pipeline.paths import RAW

SECONDS = 2.0  # of training steps that are measured, after one that is not


def summary() -> None:
    """Print the layers of the network that params.yaml chooses, and what a training step costs."""
    params = load_params()
    shape, classes, source = find_shape(params.data)
    model, _ = build_chosen(params, shape, classes)
    console = open_console()
    console.print(f"Network: {params.model.architecture}")
    console.print(f"Images: {in_words(shape)}, {classes} classes ({source})")
    print_table(console, layers_table(model, shape))
    console.print(
        "Multiply-adds are those of convolutions and dense layers for one image, forward; training takes "
        f"{multiply_adds(model, shape, training=True):,}."
    )
    if rows := group_rows(params.train, model):
        table = make_table("Groups of parameters", *COLUMNS)
        for row in rows:
            table.add_row(*row)
        print_table(console, table)
    step = TrainingStep(params, model, shape, classes)
    try:
        with threadpool_limits(1, user_api="blas"), np.errstate(all="ignore"):  # as training does
            print_table(console, memory_table(step))
            seconds, count = step.measure_seconds()
    except ValueError as error:
        raise UserError(f"{error}\nIn params.yaml: train.batch_size and train.shard_size.") from None
    shards = ceil(step.batch_size / step.options.shard_size)
    workers = min(count_cores(), shards)
    each = f", in each of {workers} processes" if workers > 1 else ""
    console.print(
        "Activations, with temporary arrays, are the largest amount measured in a forward and backward pass"
        f"{each}. The others are counted. Python and its packages come on top."
    )
    console.print(
        f"\nTraining step: {_time(seconds)} for {_number(step.batch_size, 'image')} in "
        f"{_number(shards, 'shard')}, the median of {_number(count, 'step')} measured here on random images."
    )


def find_shape(data: Data) -> tuple[Shape, int, str]:
    """(the shape of the images that preprocess will write, the number of classes, how these are known).

    No files are fetched. Own images are read if params.yaml does not say what they will be.
    """
    shape, classes = known_images(data)
    if data.dataset != OWN:
        source = f"{DATASETS[data.dataset].title}; its files are not needed here"
    elif len(shape) == 3 and classes:
        source = f"own images in {data.path}, with the size and channels of params.yaml"
    else:
        dataset = survey(data).dataset(data)
        shape = target_shape(dataset.read(RAW / OWN).train_images, data)
        classes, source = len(dataset.class_names), f"own images in {data.path}, as they are"
    height, width, channels = shape
    return (height, width, channels), classes, source


def layers_table(model: Sequential, shape: Shape) -> Table:
    """Each layer with its output shape, its own parameters, and the multiply-adds of an image."""
    table = make_table("Layers", "layer", "output shape", "parameters", "multiply-adds")
    table.add_row("image", _by(shape), "", "")
    for name, layer, input_shape, output_shape in trace_shapes(model, shape):
        title = f"{type(layer).__name__}:" if layer.children() else repr(layer)
        counts = layer.count_own_parameters(), layer.multiply_adds(input_shape)
        table.add_row(
            f"{name} {title}", _by(output_shape), *(f"{count:,}" if count else "" for count in counts)
        )
    total = multiply_adds(model, shape, training=False)
    table.add_row("total", "", f"{model.count_parameters():,}", f"{total:,}")
    return table


def memory_table(step: "TrainingStep") -> Table:
    """What a training step keeps in memory."""
    table = make_table("Memory of a training step", "", "MB")
    for name, size in step.measure_memory().items():
        table.add_row(name, f"{size / 1e6:,.2f}")
    return table


class TrainingStep:
    """Training steps as `params` say, on random images; the learning rate is 0, so that nothing can overflow.

    How long a step takes does not depend on what images show.
    """

    def __init__(self, params: Params, model: Sequential, shape: Shape, classes: int) -> None:
        self.options, self._model = params.train, model
        self.batch_size = self.options.batch_size
        self._loss = self.options.loss.make(classes)
        black, white = np.zeros(shape[2], np.float32), np.ones(shape[2], np.float32)
        self._augment = self.options.augmentation.make(black, black, white)
        rng = np.random.default_rng(0)
        images = rng.random((self.batch_size, *shape), dtype=np.float32)
        targets = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, self.batch_size)]
        self._examples = Examples(images, targets)
        self._optimizer = make_optimizer(self.options, model)
        for group in self._optimizer.groups:
            group.optimizer.learning_rate = 0.0
        self._average = self.options.make_average(
            self._optimizer.ever_trained, self.batch_size * max(1, self.options.lookahead.every)
        )

    def measure_memory(self) -> dict[str, int]:
        """Bytes by what they hold; ValueError if a layer refuses shards of this size."""
        shard = np.arange(min(self.batch_size, self.options.shard_size))
        tracemalloc.start()
        try:
            with self._gradients(None) as gradients:
                for _ in range(2):
                    gradients(shard)
                _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        parameters = sum(parameter.value.nbytes for parameter in self._model.parameters().values())
        found = {"parameters": parameters, "gradients": parameters}
        names = dict.fromkeys(name_of(type(group.optimizer)) for group in self._optimizer.groups)
        found[f"state of the optimiser, {', '.join(names)}"] = _size(self._optimizer)
        if self._average is not None:
            found["lookahead" if self.options.lookahead.every else "moving average"] = _size(self._average)
        found[f"activations of a shard of {_number(len(shard), 'image')}"] = max(peak - parameters, 0)
        return found

    def measure_seconds(self) -> tuple[float, int]:
        """(the median seconds of a step, of how many steps), with as many processes as training has."""
        times: list[float] = []
        batch = np.arange(self.batch_size)
        with self._gradients(Processes(count_cores())) as gradients:
            while len(times) < 2 or sum(times) < SECONDS:
                start = time.perf_counter()
                gradients(batch, at=(1, len(times)))
                gradient_squares(self._optimizer.parameters)
                self._optimizer.step()
                if self._average is not None:
                    self._average.update()
                times.append(time.perf_counter() - start)
        return median(times[1:]), len(times) - 1  # the first one also starts the processes

    def _gradients(self, executor: Executor | None) -> ShardedGradients:
        return ShardedGradients(
            self._model,
            self._loss,
            self._examples,
            self.options.shard_size,
            augment=self._augment,
            executor=executor,
        )


def _size(state: Stateful) -> int:
    return sum(array.nbytes for array in state.state_dict().values())


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _number(count: int, of: str) -> str:
    return f"{count:,} {of}{'' if count == 1 else 's'}"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
