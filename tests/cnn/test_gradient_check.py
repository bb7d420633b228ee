import numpy as np
import pytest
from conftest import spread

from cnn import AvgPool2D, Conv2D, Dense, MaxPool2D, ReLU, Softmax, gradient_check


def conv():
    return Conv2D(2, 3, 3, padding=1, rng=np.random.default_rng(0), dtype=np.float64)


class WrongKernel(Conv2D):
    def backward(self, grad_y):
        grad_x = super().backward(grad_y)
        self.kernel.grad = self.kernel.grad[::-1]  # flipped
        return grad_x


class WrongBias(Conv2D):
    def backward(self, grad_y):
        grad_x = super().backward(grad_y)
        self.bias.grad = self.bias.grad / len(grad_y)  # a mean instead of a sum
        return grad_x


class WrongInput(Conv2D):
    def backward(self, grad_y):
        return np.roll(super().backward(grad_y), 1, axis=1)  # a row too low


class NoBiasGradient(Conv2D):
    def backward(self, grad_y):
        grad_x = super().backward(grad_y)
        self.bias.grad = None
        return grad_x


class WrongSlope(ReLU):
    def backward(self, grad_y):
        (positive,) = self._take(grad_y)
        return grad_y * ~positive


class WrongShare(AvgPool2D):
    def backward(self, grad_y):
        return super().backward(grad_y) * 2


class WrongWinner(MaxPool2D):
    def backward(self, grad_y):
        return super().backward(grad_y)[:, :, ::-1]


class WrongSoftmax(Softmax):
    def backward(self, grad_y):
        (y,) = self._take(grad_y)
        return grad_y * y * (1 - y)  # the diagonal of the Jacobian only


class SlightlyWrong(Dense):
    def backward(self, grad_y):
        grad_x = super().backward(grad_y)
        self.weight.grad[0, 0] *= 1.001
        return grad_x


IMAGES = (2, 5, 4, 2)


@pytest.mark.parametrize(
    ("layer_type", "arguments", "shape", "wrong"),
    [
        (WrongKernel, (2, 3, 3), IMAGES, "kernel"),
        (WrongBias, (2, 3, 3), IMAGES, "bias"),
        (WrongInput, (2, 3, 3), IMAGES, "x"),
        (NoBiasGradient, (2, 3, 3), IMAGES, "bias"),
        (WrongSlope, (), IMAGES, "x"),
        (WrongShare, (2,), IMAGES, "x"),
        (WrongWinner, (2,), IMAGES, "x"),
        (WrongSoftmax, (), (3, 4), "x"),
        (SlightlyWrong, (4, 3), (3, 4), "weight"),
    ],
)
def test_a_wrong_gradient_is_caught_and_named(layer_type, arguments, shape, wrong):
    rng = np.random.default_rng(0)
    has_parameters = issubclass(layer_type, Conv2D | Dense)
    layer = layer_type(*arguments, **({"rng": rng, "dtype": np.float64} if has_parameters else {}))
    errors = gradient_check(layer, spread(rng, shape), rng=rng)
    assert [name for name, error in errors.items() if error > 1e-5] == [wrong]


def test_the_layer_and_the_input_are_as_before(rng):
    layer, x = conv(), rng.standard_normal(IMAGES)
    state, before = layer.state_dict(), x.copy()
    gradient_check(layer, x, rng=rng)
    np.testing.assert_array_equal(x, before)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_float32_is_refused(rng):
    with pytest.raises(ValueError) as error:
        gradient_check(conv(), np.zeros(IMAGES, np.float32), rng=rng)
    assert str(error.value) == "A gradient check needs float64 throughout; x is float32."
