"""Parameter groups against separate optimisers run by hand, and the choice of parameters by patterns."""

import numpy as np
import pytest
from test_model import small_network
from test_training import random_examples

from cnn import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    CheckpointError,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Group,
    Lookahead,
    MovingAverage,
    NonFiniteError,
    Parameter,
    ParameterGroups,
    Processes,
    Progress,
    Residual,
    Sequential,
    checkpoint,
    clip_by_norm,
    clip_by_value,
    fit,
    fit_by_epoch,
    load,
    save,
    schedules,
    select_parameters,
    softmax_cross_entropy,
)
from cnn.engine.shards import ShardedGradients
from cnn.inspection import EpochStatistics
from cnn.random import Stream, derive_rng

EXAMPLES = random_examples(20)
STEPS = 3  # of an epoch
SETTINGS = {"epochs": 3, "batch_size": 8, "shard_size": 4}


def halves(model):
    """(all biases, all other parameters)."""
    biases = select_parameters(model, "*.bias")
    return biases, select_parameters(model, "*", without=biases)


def make_groups(model, **options):
    biases, others = halves(model)
    return ParameterGroups(
        [
            Group(Adam(others, weight_decay=0.01), schedules.cosine(0.01, epochs=3)),
            Group(SGD(biases, momentum=0.9), schedules.step(0.3, every=1), **options),
        ]
    )


def bits(*parts):
    return [{name: array.tobytes() for name, array in part.state_dict().items()} for part in parts]


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01, "clip_norm": 0.05}])
def test_groups_train_as_their_optimisers_do_by_hand(clip):
    model, by_hand = small_network(), small_network()
    groups = make_groups(model, epochs=2)
    reports = fit(model, EXAMPLES, optimizer=groups, **SETTINGS, **clip)

    biases, others = halves(by_hand)
    adam, sgd = Adam(others, weight_decay=0.01), SGD(biases, momentum=0.9)
    cosine, stairs = schedules.cosine(0.01, epochs=3), schedules.step(0.3, every=1)
    with ShardedGradients(by_hand, softmax_cross_entropy, EXAMPLES, 4) as gradients:
        for step in range(3 * STEPS):
            epoch, place = divmod(step, STEPS)
            order = derive_rng(0, Stream.SHUFFLE, epoch + 1).permutation(20)
            gradients(order[8 * place : 8 * place + 8], at=(epoch + 1, step))
            trained = {n: p for n, p in by_hand.parameters().items() if epoch < 2 or n in others}
            if "clip_value" in clip:
                clip_by_value(trained, clip["clip_value"])
            if "clip_norm" in clip:
                clip_by_norm(trained, clip["clip_norm"])
            adam.learning_rate = cosine(step / STEPS)
            adam.step()
            if epoch < 2:
                sgd.learning_rate = stairs(step / STEPS)
                sgd.step()
    assert bits(model) == bits(by_hand)
    assert [report.learning_rate for report in reports] == [cosine(t - 1 / 3) for t in (1, 2, 3)]


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.05}])
def test_two_groups_that_are_trained_alike_give_the_bits_of_one_optimiser(clip):
    whole, split = small_network(), small_network()
    schedule = schedules.cosine(0.01, epochs=3)
    fit(whole, EXAMPLES, optimizer=Adam(whole.parameters()), schedule=schedule, **SETTINGS, **clip)
    groups = ParameterGroups([Group(Adam(half), schedule) for half in halves(split)])
    fit(split, EXAMPLES, optimizer=groups, **SETTINGS, **clip)
    assert bits(split) == bits(whole)


def test_a_frozen_group_never_changes_whatever_its_optimiser_would_do():
    model = small_network()
    frozen = select_parameters(model, ["conv2d.*", "*.weight"])
    others = select_parameters(model, "*", without=frozen)
    before = {name: parameter.value.copy() for name, parameter in model.parameters().items()}
    groups = ParameterGroups([Group(AdamW(frozen, 0.5, weight_decay=0.5), epochs=0), Group(SGD(others, 0.1))])
    average = MovingAverage(groups.ever_trained, 0.9)
    reports = fit(model, EXAMPLES, optimizer=groups, moving_average=average, **SETTINGS)
    same = {n for n, p in model.parameters().items() if p.value.tobytes() == before[n].tobytes()}
    assert same == set(frozen)
    assert {name.partition(".")[2] for name in average.state_dict()} == {"", *others}
    assert reports[-1].learning_rate == 0.1  # of the first group that is not frozen
    assert not any(array.any() for name, array in groups.state_dict().items() if name.startswith("0."))


def test_a_group_stops_exactly_at_the_end_of_its_last_epoch():
    model = small_network()
    biases, _ = halves(model)
    groups = make_groups(model, epochs=2)
    values, steps = [], []

    def on_step(at):
        values.append(b"".join(parameter.value.tobytes() for parameter in biases.values()))
        steps.append(int(groups.state_dict()["1.step"]))

    fit(model, EXAMPLES, optimizer=groups, on_step=on_step, **SETTINGS)
    assert len(set(values)) == 2 * STEPS
    assert set(values[2 * STEPS :]) == {values[2 * STEPS - 1]}
    assert steps == [1, 2, 3, 4, 5, 6, 6, 6, 6]


class CutOffError(Exception):
    pass


@pytest.mark.parametrize("step", range(1, 3 * STEPS))
def test_a_run_with_groups_goes_on_from_a_file_with_the_same_bits(tmp_path, step):
    def start():
        model = small_network()
        return model, make_groups(model, epochs=1), MovingAverage(model.parameters(), 0.9), Progress()

    def run(model, optimizer, average, progress, **more):
        options = SETTINGS | {"moving_average": average, "progress": progress, "clip_norm": 0.5}
        return fit(model, EXAMPLES, EXAMPLES, optimizer=optimizer, **options, **more)

    def stop(progress):
        if progress.step == step:
            save(tmp_path / "run.npz", *parts)
            raise CutOffError

    whole, parts = start(), start()
    reports = run(*whole)
    with pytest.raises(CutOffError):
        run(*parts, on_step=stop)
    resumed = load(tmp_path / "run.npz")
    assert [group.epochs for group in resumed.optimizer.groups] == [None, 1]
    for loaded, group in zip(resumed.optimizer.groups, whole[1].groups, strict=True):
        assert repr(loaded.optimizer).split("(")[0] == repr(group.optimizer).split("(")[0]
        loaded.schedule = group.schedule  # a function, which no file holds
    later = run(*resumed)
    assert bits(*resumed) == bits(*whole)
    assert later == reports[-len(later) :]


@pytest.mark.parametrize("wrong", [None, 7, "x", [], [{}], {}, [[]], True, -1, {"type": "adam"}])
def test_a_file_with_anything_else_in_place_of_a_group_is_a_checkpoint_error(tmp_path, wrong):
    model = small_network()
    save(tmp_path / "run.npz", model, make_groups(model))
    arrays, metadata = checkpoint.load(tmp_path / "run.npz")
    first, second = metadata["optimizer"]
    changes = [wrong, [wrong, second], [first, second | {"optimizer": wrong}], [first, first], [first]]
    if wrong not in (None, 7):
        changes.append([first, second | {"epochs": wrong}])
    for changed in changes:
        checkpoint.save(tmp_path / "other.npz", arrays, metadata | {"optimizer": changed})
        with pytest.raises(CheckpointError):
            load(tmp_path / "other.npz")


def test_one_and_two_workers_give_the_same_bytes():
    results = []
    for executor in (None, Processes(1), Processes(2)):
        model = small_network()
        groups = make_groups(model, epochs=2)
        reports = fit(model, EXAMPLES, EXAMPLES, optimizer=groups, executor=executor, **SETTINGS)
        results.append((reports, bits(model, groups)))
    assert results[0] == results[1] == results[2]


def test_gradients_of_a_frozen_group_are_still_seen():
    """They are in the statistics, and one that is not finite stops training: the loss is not sound."""
    model = small_network()
    biases, others = halves(model)
    groups = ParameterGroups([Group(SGD(others)), Group(SGD(biases), epochs=0)])
    statistics = EpochStatistics(model.parameters())
    fit(model, EXAMPLES, optimizer=groups, statistics=statistics, epochs=1)
    assert all(row["gradient_norm"] > 0 for row in statistics.finish_epoch())

    def spoilt(outputs, targets):
        loss, grad = softmax_cross_entropy(outputs, targets)
        return loss, grad * np.float32(np.inf)

    last = list(model.parameters())[-1]
    assert last in biases
    message = rf"first dL/dbias of layer {last.partition('.')[0]}\)"
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=message):
        fit(model, EXAMPLES, optimizer=groups, loss=spoilt)


def test_a_group_without_a_schedule_keeps_its_optimisers_rate():
    model = small_network()
    groups = ParameterGroups([Group(SGD(model.parameters(), 0.25))])
    (report,) = fit(model, EXAMPLES, optimizer=groups, epochs=1)
    assert report.learning_rate == groups.groups[0].optimizer.learning_rate == 0.25


def test_fit_reports_the_rate_of_the_group_that_is_trained_longest():
    model = small_network()
    biases, others = halves(model)
    groups = ParameterGroups([Group(SGD(biases, 0.5), epochs=1), Group(SGD(others, 0.01))])
    assert [report.learning_rate for report in fit(model, EXAMPLES, optimizer=groups, **SETTINGS)] == [
        0.01
    ] * 3
    assert repr(groups) == "ParameterGroups([Group(SGD(0.5), epochs=1), Group(SGD(0.01))])"


def test_fit_refuses_a_lookahead_of_a_run_of_another_length():
    model = small_network()
    with pytest.raises(ValueError, match=r"for all steps of the run, here 3 x 3 = 9; received one for 10\."):
        fit(model, EXAMPLES, moving_average=Lookahead(model.parameters(), 10), **SETTINGS)


def test_a_step_without_a_gradient_changes_no_group():
    one, other = (Parameter(np.ones(2), "weight") for _ in range(2))
    groups = ParameterGroups([Group(SGD({"a": one})), Group(SGD({"b": other}), epochs=1)])
    one.grad = np.ones(2)
    with pytest.raises(RuntimeError, match=r"^Parameter b has no gradient: call backward before step\.$"):
        groups.step()
    assert (one.value == 1).all()
    groups.set_time(1.0)
    groups.step()  # b is no longer trained, and needs none
    assert (one.value < 1).all()
    assert (other.value == 1).all()


def test_groups_that_cannot_be_are_refused():
    model = small_network()
    biases, others = halves(model)
    with pytest.raises(ValueError, match=r"must be in one group; 0\.kernel is in group 0 and in group 2\."):
        ParameterGroups([Group(SGD(others)), Group(SGD(biases)), Group(SGD(model.parameters()))])
    with pytest.raises(ValueError, match=r"must be in one group; other is in group 0 and in group 1\."):
        ParameterGroups([Group(SGD(biases)), Group(SGD({"other": biases["0.bias"]}))])
    with pytest.raises(ValueError, match=r"must be in one group; x is in group 0 and in group 1\."):
        ParameterGroups([Group(SGD({"x": Parameter(np.ones(1), "x")})) for _ in range(2)])
    for groups in ([], [Group(SGD(others), epochs=0)]):
        with pytest.raises(
            ValueError, match=rf"must be trained; received {len(groups)}, none with epochs > 0"
        ):
            ParameterGroups(groups)
    with pytest.raises(ValueError, match=r"^groups must be a list, each item a Group; received "):
        ParameterGroups([SGD(others)])
    for arguments, message in [
        (("adam",), "optimizer must be an Optimizer; received 'adam'"),
        ((SGD(others), 0.1), r"schedule must be a function; received 0\.1"),
        ((SGD(others), None, -1), "epochs must be a whole number >= 0; received -1"),
        ((SGD(others), None, 1.5), r"epochs must be a whole number >= 0; received 1\.5"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            Group(*arguments)


def test_fit_refuses_groups_of_another_model_and_a_schedule_beside_groups():
    model = small_network()
    with pytest.raises(ValueError, match="The parameters of optimizer must be this model's"):
        fit_by_epoch(model, EXAMPLES, optimizer=make_groups(small_network()))
    with pytest.raises(ValueError, match="each group brings its own"):
        fit_by_epoch(model, EXAMPLES, optimizer=make_groups(model), schedule=schedules.constant(0.1))


def nested_network():
    rng = np.random.default_rng(0)
    return Sequential(
        [
            Conv2D(1, 2, 3, rng=rng),
            Residual(
                [Conv2D(2, 2, 1, rng=rng), BatchNorm(2), Sequential([Conv2D(2, 2, 1, bias=False, rng=rng)])],
                [Conv2D(2, 2, 1, rng=rng)],
            ),
            GlobalAvgPool2D(),
            Flatten(),
            Dense(2, 10, rng=rng),
        ]
    )


@pytest.mark.parametrize(
    ("patterns", "without", "names"),
    [
        ("0.kernel", (), ["0.kernel"]),
        ("0.*", (), ["0.kernel", "0.bias"]),
        (
            "conv2d.kernel",
            (),
            ["0.kernel", "1.layers.0.kernel", "1.layers.2.0.kernel", "1.shortcut.0.kernel"],
        ),
        ("batch_norm.*", (), ["1.layers.1.gamma", "1.layers.1.beta"]),
        ("dense.bias", (), ["4.bias"]),
        ("*.bias", (), ["0.bias", "1.layers.0.bias", "1.shortcut.0.bias", "4.bias"]),
        ("*.bias", ["0.bias", "4.bias"], ["1.layers.0.bias", "1.shortcut.0.bias"]),
        ("1.*.kernel", (), ["1.layers.0.kernel", "1.layers.2.0.kernel", "1.shortcut.0.kernel"]),
        (["dense.*", "0.bias"], (), ["0.bias", "4.weight", "4.bias"]),  # in the model's order
        ("[04].bias", (), ["0.bias", "4.bias"]),
        ([], (), []),
    ],
)
def test_parameters_are_selected_by_place_or_type_at_all_depths(patterns, without, names):
    model = nested_network()
    chosen = select_parameters(model, patterns, without=without)
    assert list(chosen) == names
    assert all(parameter is model.parameters()[name] for name, parameter in chosen.items())


@pytest.mark.parametrize("pattern", ["0.Kernel", "kernel", "conv2d", "0.kernel.", "residual.*", ""])
def test_a_pattern_that_matches_nothing_is_refused_with_the_names_there_are(pattern):
    with pytest.raises(ValueError) as error:
        select_parameters(nested_network(), ["*.bias", pattern])
    assert str(error.value).startswith(
        f"No parameter matches {pattern!r}. The parameters are 0.kernel (conv2d.kernel), 0.bias (conv2d.bias), "
        "1.layers.0.kernel (conv2d.kernel), "
    )
    assert str(error.value).endswith(", 4.weight (dense.weight), 4.bias (dense.bias).")


def test_patterns_that_match_only_what_is_left_out_are_refused():
    model = nested_network()
    with pytest.raises(ValueError) as error:
        select_parameters(model, ["0.bias", "dense.bias"], without=select_parameters(model, "*.bias"))
    assert str(error.value) == (
        "All parameters that match '0.bias' or 'dense.bias' are in other groups already: 0.bias, 4.bias."
    )
