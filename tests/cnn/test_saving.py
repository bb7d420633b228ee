"""A network, or a half-finished training, in a file."""

from functools import partial

import numpy as np
import pytest
from test_model import small_network
from test_training import random_examples

from cnn import (
    SGD,
    Adam,
    BatchNorm,
    CheckpointError,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Lookahead,
    MovingAverage,
    Progress,
    ReLU,
    Residual,
    Sequential,
    checkpoint,
    fit,
    load,
    save,
    schedules,
)
from cnn.registry import OPTIMIZERS, written_options


def network(dtype=np.float32):
    rng = np.random.default_rng(0)
    branch = [
        Conv2D(4, 4, 3, padding="same", bias=False, rng=rng, dtype=dtype),
        BatchNorm(4, dtype=dtype),
        ReLU(),
    ]
    return Sequential(
        [
            Conv2D(1, 4, (3, 3), rng=rng, dtype=dtype),
            Residual(branch),
            Dropout(0.2),
            Flatten(),
            Dense(144, 10, rng=rng, dtype=dtype),
        ]
    )


def bits(*parts):
    return [{name: array.tobytes() for name, array in part.state_dict().items()} for part in parts]


def assert_same_model(one, other):
    assert repr(one) == repr(other)
    assert bits(one) == bits(other)


class InterruptedRunError(Exception):
    pass


AVERAGES = {
    "moving_average": partial(MovingAverage, decay=0.9),
    "lookahead": partial(Lookahead, steps=9, every=2),
}


@pytest.mark.parametrize("step", [1, 3, 4])  # in an epoch of 3 steps, at its end, in the next one
@pytest.mark.parametrize("average", AVERAGES)
def test_a_run_that_goes_on_from_a_file_ends_with_the_same_bits_as_one_without_interruption(
    tmp_path, average, step
):
    examples = random_examples(20)

    def run(model, optimizer, average, progress, **more):
        return fit(
            model,
            examples,
            examples,
            optimizer=optimizer,
            moving_average=average,
            progress=progress,
            schedule=schedules.cosine(0.01, epochs=3),
            epochs=3,
            batch_size=8,
            shard_size=4,
            clip_norm=1.0,
            **more,
        )

    def start():
        model = network()
        parameters = model.parameters()
        return model, Adam(parameters, beta2=0.9), AVERAGES[average](parameters), Progress()

    whole, parts = start(), start()
    reports = run(*whole)

    def stop(progress):
        if progress.step == step:
            save(tmp_path / "run.npz", *parts)
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        run(*parts, on_step=stop)
    resumed = load(tmp_path / "run.npz")
    later = run(*resumed)
    assert bits(*resumed) == bits(*whole)
    assert later == reports[-len(later) :]
    assert len(later) == (2 if step == 4 else 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_alone_makes_the_round_trip(tmp_path, dtype):
    model = network(dtype)
    for array in model._state().values():
        array += 0.25
    save(tmp_path / "model.npz", model)
    saved = load(str(tmp_path / "model.npz"))
    assert_same_model(saved.model, model)
    assert saved[1:] == (None, None, None)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_makes_the_round_trip_with_its_options(tmp_path, name):
    model, examples = small_network(), random_examples(20)
    known = {"momentum": 0.5, "nesterov": True, "epsilon": 1e-3}
    options = {key: known[key] for key in written_options(OPTIMIZERS[name]) if key in known}
    optimizer = OPTIMIZERS[name](model.parameters(), 0.02, weight_decay=0.125, **options)
    fit(model, examples, optimizer=optimizer, epochs=1)
    save(tmp_path / "run.npz", model, optimizer)
    again = load(tmp_path / "run.npz").optimizer
    assert type(again) is type(optimizer)
    for option in ("learning_rate", "weight_decay", *options):
        assert getattr(again, option) == getattr(optimizer, option)
    assert bits(again) == bits(optimizer)


def test_the_loaded_optimizer_and_average_are_of_the_loaded_model(tmp_path):
    model = small_network()
    chosen = {"dense": model.parameters()["4.weight"], "bias": model.parameters()["0.bias"]}
    save(tmp_path / "run.npz", model, SGD(chosen, 0.5, momentum=0.5), MovingAverage(chosen, 0.5))
    saved = load(tmp_path / "run.npz")
    parameters = saved.model.parameters()
    for owner in (saved.optimizer, saved.moving_average):
        assert owner.parameters == {"dense": parameters["4.weight"], "bias": parameters["0.bias"]}
    assert list(saved.optimizer.state_dict()) == ["step", "velocity.dense", "velocity.bias"]


def test_a_lookahead_makes_the_round_trip_with_its_options(tmp_path):
    model = small_network()
    average = Lookahead(model.parameters(), 7, every=3, decay=0.5)
    average.update()
    save(tmp_path / "run.npz", model, None, average)
    again = load(tmp_path / "run.npz").moving_average
    assert type(again) is Lookahead
    assert (again.steps, again.every, again.decay) == (7, 3, 0.5)
    assert bits(again) == bits(average)


def test_what_belongs_to_another_model_is_refused_and_nothing_is_written(tmp_path):
    model, other = small_network(), small_network()
    for parts in ([SGD(other.parameters())], [None, MovingAverage(other.parameters(), 0.5)]):
        with pytest.raises(ValueError, match="are not this model's"):
            save(tmp_path / "run.npz", model, *parts)
    model.layers[4].bias.value = model.layers[4].bias.value.astype(np.float64)
    with pytest.raises(ValueError, match=r"one dtype; received \['float32', 'float64'\]"):
        save(tmp_path / "run.npz", model)
    assert list(tmp_path.iterdir()) == []


def test_the_same_training_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        model = network()
        save(tmp_path / name, model, SGD(model.parameters()), None, Progress())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_damaged_file_is_a_checkpoint_error(tmp_path):
    save(tmp_path / "model.npz", small_network())
    content = (tmp_path / "model.npz").read_bytes()
    for place in range(0, len(content), 97):
        (tmp_path / "model.npz").write_bytes(
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
        with pytest.raises(CheckpointError):
            load(tmp_path / "model.npz")
    for cut in (b"", content[:-1], content + b"x", b"no checkpoint"):
        (tmp_path / "model.npz").write_bytes(cut)
        with pytest.raises(CheckpointError):
            load(tmp_path / "model.npz")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "missing.npz")


WRONG = [None, 7, -1, "x", "", [], ["x"], {}, {"type": "relu"}, {"x": "y"}, True, 1e300, "O", "int32"]


def test_whatever_stands_in_place_of_any_part_of_the_description_gives_a_checkpoint_error_or_a_training(
    tmp_path,
):
    """Even with a correct checksum, it may not be what this library wrote."""
    model = small_network()
    parameters = model.parameters()
    save(tmp_path / "run.npz", model, Adam(parameters), MovingAverage(parameters, 0.5), Progress())
    arrays, metadata = checkpoint.load(tmp_path / "run.npz")
    refused, others = 0, []

    def places(value, path=()):
        yield path
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
        )
        for key, item in items:
            yield from places(item, (*path, key))

    def replaced(value, path, new):
        if not path:
            return new
        copied = value.copy()
        copied[path[0]] = replaced(value[path[0]], path[1:], new)
        return copied

    for path in places(metadata):
        for wrong in WRONG:
            checkpoint.save(tmp_path / "other.npz", arrays, replaced(metadata, path, wrong))
            try:
                load(tmp_path / "other.npz")
            except CheckpointError:
                refused += 1
            except Exception as error:
                others.append(f"{wrong!r} at {path}: {error!r}")
    assert not others
    assert refused > 300


def test_arrays_that_are_missing_strange_or_of_another_shape_are_a_checkpoint_error(tmp_path):
    model = small_network()
    save(
        tmp_path / "run.npz",
        model,
        Adam(model.parameters()),
        MovingAverage(model.parameters(), 0.5),
        Progress(),
    )
    arrays, metadata = checkpoint.load(tmp_path / "run.npz")
    for name, array in arrays.items():
        changes = [
            {k: v for k, v in arrays.items() if k != name},
            arrays | {name: np.zeros((7, 7), array.dtype)},
        ]
        changes.append(arrays | {name: array.astype(np.int8)})
        for changed in changes:
            checkpoint.save(tmp_path / "other.npz", changed, metadata)
            with pytest.raises(CheckpointError, match=r"other\.npz"):
                load(tmp_path / "other.npz")


def test_a_file_of_another_format_says_so(tmp_path):
    save(tmp_path / "run.npz", small_network())
    arrays, metadata = checkpoint.load(tmp_path / "run.npz")
    checkpoint.save(tmp_path / "run.npz", arrays, metadata | {"format": 2})
    with pytest.raises(CheckpointError, match="format 2"):
        load(tmp_path / "run.npz")
