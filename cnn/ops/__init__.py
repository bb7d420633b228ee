"""Pure functions on arrays, in adjoint pairs. Images are NHWC: (image, row, column, channel)."""
