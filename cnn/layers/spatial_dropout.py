"""Dropout of whole channels."""

from cnn.layers.dropout import Dropout
from cnn.layers.layer import Shape
from cnn.registry import LAYERS


@LAYERS.register
class SpatialDropout(Dropout):
    """Dropout of whole channels of an image, since neighbouring pixels carry similar information.

    The equation is that of `Dropout`, with m drawn for each channel of each example.
    Source: Tompson, Goroshin, Jain, LeCun & Bregler, "Efficient object localization using convolutional
    networks" (2015), section 3.2.

    Args:
        rate: the fraction of channels that become zero.

    Raises: ValueError if rate is out of its range, or for a training forward without `rng`.
    """

    def _mask_shape(self, shape: Shape) -> Shape:
        """One draw for each channel of each example."""
        return (shape[0], *(1 for _ in shape[1:-1]), shape[-1])
