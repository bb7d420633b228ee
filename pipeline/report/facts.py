"""What the data are, in words: for the page and the model card."""

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
