"""The geometry that all poolings over sliding windows share."""

from cnn.layers.checks import check_image_shape
from cnn.layers.layer import Layer, Shape
from cnn.ops.windows import Padding, Pair, Window


class Pool2D(Layer):
    """Base of poolings: a window that slides over each channel separately.

    Args:
        kernel_size: size of the window in pixels; an int or (height, width).
        stride: step between windows in pixels; None is the kernel size, so that windows tile the image.
        padding: padding around x, in pixels; written as for Conv2D.
        dilation: distance between a window's pixels; an int or (height, width).
        ceil_mode: False leaves out rows and columns beyond the last whole window; True adds a window for
            them, which reaches beyond the image.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        *,
        stride: int | Pair | None = None,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode
        stride = kernel_size if stride is None else stride
        self.window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)

    def output_shape(self, input_shape: Shape) -> Shape:
        """(out_h, out_w, channels)."""
        height, width, channels = check_image_shape(self, input_shape)
        out_h, out_w = self.window.output_size(height, width)
        whole = self.window.padding == ((0, 0), (0, 0)) and not self.ceil_mode  # all windows lie in the image
        if not whole and not self.window.coverage(height, width).all():
            raise ValueError(
                f"Every window needs at least one pixel of the image; with padding "
                f"{self.window.describe_padding()}, {self!r} has a window that lies entirely in the padding "
                f"of {height}x{width} pixels. Use less padding."
            )
        return out_h, out_w, channels
