"""Test-time augmentation: which views there are, their mean, and that it is as exact as the outputs are."""

from functools import partial

import numpy as np
import pytest

from cnn import Conv2D, Dense, Flatten, Processes, ReLU, Sequential
from cnn.engine.replicas import Replicas
from cnn.views import mean_over_views, views

CHOICES = [(False, 0), (True, 0), (False, 1), (True, 2), (True, 9)]


def mirrored(i, size):
    """The pixel at position i of a row that is mirrored at its ends, as often as needed."""
    while size > 1 and not 0 <= i < size:
        i = -i if i < 0 else 2 * (size - 1) - i
    return i if size > 1 else 0


def seen(images, shift, flipped):
    """The images shifted down and right, then mirrored left to right, by plain loops."""
    shifted = np.empty_like(images)
    _, h, w, _ = images.shape
    for n, i, j, k in np.ndindex(images.shape):
        shifted[n, i, j, k] = images[n, mirrored(i - shift, h), mirrored(j - shift, w), k]
    return np.flip(shifted, axis=2) if flipped else shifted


def tiny_network():
    rng = np.random.default_rng(0)
    return Sequential(
        [
            Conv2D(3, 4, 3, rng=rng, dtype=np.float32),
            ReLU(),
            Flatten(),
            Dense(64, 5, rng=rng, dtype=np.float32),
        ]
    )


@pytest.mark.parametrize("shape", [(3, 5, 8, 3), (2, 1, 4, 1), (2, 1, 1, 2), (0, 4, 4, 1)])
@pytest.mark.parametrize(("mirror", "shift"), CHOICES)
def test_the_mean_over_views_matches_plain_loops(rng, shape, mirror, shift):
    images = rng.standard_normal(shape)
    weights = rng.standard_normal((np.prod(shape[1:]), 4))

    def outputs(images):
        return np.tanh(np.asarray(images[:]).reshape(len(images), len(weights)) @ weights)

    expected = outputs(images)
    if shift:
        expected = outputs(images) / 2 + outputs(seen(images, shift, False)) / 4
        expected += outputs(seen(images, -shift, False)) / 4
    if mirror:
        other = outputs(seen(images, 0, True))
        if shift:
            other = other / 2 + outputs(seen(images, shift, True)) / 4
            other += outputs(seen(images, -shift, True)) / 4
        expected = (expected + other) / 2
    y = mean_over_views(outputs, images, mirror=mirror, shift=shift)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mirror", "shift"), CHOICES)
def test_weights_add_up_to_one_and_the_first_view_is_the_image_itself(rng, mirror, shift):
    images = rng.standard_normal((2, 4, 5, 3)).astype(np.float32)
    found = views(mirror, shift)
    assert sum(view.weight for view in found) == 1
    assert len(found) == (3 if shift else 1) * (2 if mirror else 1)
    np.testing.assert_array_equal(found[0].of(images), images)


def test_without_views_the_images_are_predicted_once_and_have_the_same_bytes(rng):
    images = rng.standard_normal((7, 6, 6, 3)).astype(np.float32)
    asked = []
    with Replicas(tiny_network()) as replicas:

        def predict(rows):
            asked.append(rows)
            return replicas.predict(rows, 4)

        y = mean_over_views(predict, images)
        assert y.tobytes() == replicas.predict(images, 4).tobytes()
    assert len(asked) == 1
    assert asked[0] is images


def test_the_mean_is_the_same_at_one_worker_and_at_two(rng):
    images = rng.standard_normal((23, 6, 6, 3)).astype(np.float32)
    found = []
    for workers in (1, 2):
        with Replicas(tiny_network(), Processes(workers)) as replicas:
            predict = partial(replicas.predict, batch_size=5)
            found.append(mean_over_views(predict, images, mirror=True, shift=1))
    assert found[0].dtype == np.float32
    assert found[0].tobytes() == found[1].tobytes()


class Watched:
    """Images that may only be read a few at a time, and that are no array."""

    def __init__(self, images, most):
        self.images, self.most = images, most
        self.shape, self.dtype = images.shape, images.dtype

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        assert len(self.images[rows]) <= self.most
        return self.images[rows]


def test_views_are_made_a_batch_at_a_time(rng):
    images = rng.standard_normal((23, 6, 6, 3)).astype(np.float32)
    before = images.copy()
    with Replicas(tiny_network()) as replicas:
        predict = partial(replicas.predict, batch_size=5)
        y = mean_over_views(predict, Watched(images, 5), mirror=True, shift=1)
        assert y.tobytes() == mean_over_views(predict, images, mirror=True, shift=1).tobytes()
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": -1}, "shift must be a whole number from 0 to 1000; received -1."),
        ({"shift": 1.0}, "shift must be a whole number from 0 to 1000; received 1.0."),
        ({"shift": True}, "shift must be a whole number from 0 to 1000; received True."),
        ({"mirror": 1}, "mirror must be True or False; received 1."),
    ],
)
def test_what_is_no_choice_of_views_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        mean_over_views(lambda rows: rows, np.zeros((1, 2, 2, 1)), **options)
    assert str(error.value) == message


def test_what_are_no_images_is_refused():
    with pytest.raises(ValueError, match=r"^images must have shape .*; received \(3, 4\)\.$"):
        mean_over_views(lambda rows: rows, np.zeros((3, 4)), mirror=True)
