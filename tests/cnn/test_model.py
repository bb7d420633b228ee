import numpy as np
import pytest

from cnn import Conv2D, Dense, Flatten, MaxPool2D, ReLU, Sequential


def small_network(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return Sequential(
        [
            Conv2D(1, 4, 3, rng=rng, dtype=dtype),
            ReLU(),
            MaxPool2D(2),
            Flatten(),
            Dense(36, 10, rng=rng, dtype=dtype),
        ]
    )


def test_parameters_and_state_are_named_by_layer():
    names = ["0.kernel", "0.bias", "4.weight", "4.bias"]
    assert list(small_network().parameters()) == names
    assert list(small_network().state_dict()) == names


def test_predict_equals_forward_whatever_the_batch_size(rng):
    model, x = small_network(dtype=np.float64), rng.standard_normal((7, 8, 8, 1))
    expected = model.forward(x)
    for batch_size in (1, 3, 7, 100):
        np.testing.assert_allclose(model.predict(x, batch_size), expected, rtol=1e-12)


def test_predict_of_nothing_is_nothing():
    assert small_network().predict(np.zeros((0, 8, 8, 1), np.float32)).shape == (0, 10)


def test_the_summary_lists_layers_shapes_and_parameters():
    assert small_network().summary((8, 8, 1)) == "\n".join(
        [
            "   layer            output shape  parameters",
            "   input            8 x 8 x 1               ",
            "0  Conv2D(1, 4, 3)  6 x 6 x 4             40",
            "1  ReLU()           6 x 6 x 4              0",
            "2  MaxPool2D(2)     3 x 3 x 4              0",
            "3  Flatten()        36                     0",
            "4  Dense(36, 10)    10                   370",
            "   total                                 410",
        ]
    )


def test_an_input_that_does_not_fit_names_the_layer():
    with pytest.raises(ValueError) as error:
        small_network().output_shape((9, 12, 1))
    text = str(error.value)
    assert text.startswith("Dense(36, 10) needs vectors of shape (36,); received (60,).")
    assert text.endswith("In layer 4, Dense(36, 10), whose input has shape (60,).")


def test_a_sequential_of_nothing_changes_nothing():
    empty, x = Sequential([]), np.ones((2, 3))
    assert empty.forward(x, training=True) is x
    assert empty.backward(x) is x
    assert empty.output_shape((3,)) == (3,)
