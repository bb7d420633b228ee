"""What the data are, in words: for the page and the model card."""

from math import floor, log10

from cnn import Conv2D, Dense
from cnn.layers.layer import Layer, Shape
from pipeline.artefacts.preprocess import Description
from pipeline.data.dataset import Framing

FRAMINGS: dict[Framing, str] = {
    "digit": "the ink of a digit is found, scaled and centred as in MNIST, bright on dark",
    "crop": "of a picture of another shape, the largest middle part of these proportions is scaled to it",
    "pad": "a picture of another shape is scaled to fit, between borders in the median colour of its edge",
    "stretch": "a picture of another shape is stretched to this size, which changes its proportions",
}


def shape_in_words(data: Description) -> str:
    """The size and the colours of an image."""
    height, width, channels = data.image_shape
    colours = {1: "grey", 3: "colour (red, green, blue)"}.get(channels, f"{channels} channels")
    return f"{width}x{height} pixels (width x height), {colours}"


def scale_in_words(data: Description) -> str:
    """Which numbers the network receives for the pixels."""
    if not any(data.mean) and all(deviation == 1 for deviation in data.deviation):
        return "numbers from 0 (black) to 1"
    means, deviations = (
        ", ".join(f"{number:.4f}" for number in (numbers if len(set(numbers)) > 1 else numbers[:1]))
        for numbers in (data.mean, data.deviation)
    )
    return f"numbers from 0 (black) to 1, less {means} (training images' mean), over {deviations} (deviation)"


def size_in_words(shape: Shape) -> str:
    """Width x height x channels, or a number of features."""
    if len(shape) == 3:
        height, width, channels = shape
        shape = width, height, channels
    return " x ".join(f"{length:,}" for length in shape)


def layer_in_words(layer: Layer) -> str:
    """What a layer is, short enough for a drawing."""
    name = type(layer).__name__
    if isinstance(layer, Conv2D):
        height, width = layer.window.kernel_size
        stride = "x".join(str(step) for step in dict.fromkeys(reversed(layer.window.stride)))
        text = f"{name}: {layer.out_channels:,} kernels {width}x{height}"
        return text if stride == "1" else f"{text}, stride {stride}"
    if isinstance(layer, Dense):
        return f"{name}: {layer.in_features:,} to {layer.out_features:,}"
    if window := getattr(layer, "window", None):
        height, width = window.kernel_size
        return f"{name}: windows {width}x{height}"
    return f"{name}: {rate:g}" if (rate := getattr(layer, "rate", None)) is not None else name


def plain(number: float) -> str:
    """Three digits, without an exponent if the number is neither large nor small."""
    if not number or number != number or abs(number) == float("inf"):
        return f"{number:g}"
    exponent = floor(log10(abs(number)))
    if -4 <= exponent < 6:
        text = f"{float(f'{number:.3g}'):,.10g}"
    else:
        text = f"{number / 10.0**exponent:.3g} · 10{str(exponent).translate(_RAISED)}"
    return text.replace("-", "−")


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
