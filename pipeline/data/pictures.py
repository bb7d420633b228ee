"""Pictures in files of any format that Pillow reads: how they become bytes, and how these get one shape."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.data.dataset import Bytes, Fit, Images
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.params import Data

# Pillow warns, for example, of odd EXIF data, which do no harm. This holds for all threads, as a block with
# warnings.catch_warnings would not.
warnings.filterwarnings("ignore", module=r"PIL\.")

Shape = tuple[int, int, int]  # height, width, channels
WHITE = (255, 255, 255)
LARGEST_AREA = Image.MAX_IMAGE_PIXELS or 2**26  # pixels
OVERSAMPLING = 2  # a JPEG file is decoded with at least this many times the pixels that are needed

# Of uploads: formats whose decoders obey the size that they state first, and pixels as of phone cameras.
UPLOAD_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
LARGEST_UPLOAD = 25_000_000  # pixels
MOST_SCANS = 100  # of a progressive JPEG, which decodes all its pixels once for each; usual are 10


@dataclass(frozen=True)
class Upload:
    """A picture from a stranger, in memory: fewer formats and pixels are read than of a file."""

    content: bytes


Source = Path | Upload


def target_shape(images: Images, data: "Data") -> Shape:
    """The shape that preprocess brings each of `images` to: that of the params, else the images' own."""
    height, width, channels = shape_of(images)
    return *(data.size or (height, width)), data.channels or channels


def shape_of(images: Images) -> Shape:
    """The shape of each of `images`; without a channel axis they have one channel."""
    height, width, channels = (*images.shape[1:], 1)[:3]
    return height, width, channels


def say_change(images: Images, shape: Shape) -> str:
    """The shape of `images` and `shape` in words, and which keys set it; empty if they are equal."""
    own = shape_of(images)
    keys = ["data.image_size"] * (own[:2] != shape[:2]) + ["data.channels"] * (own[2] != shape[2])
    if not keys:
        return ""
    return (
        f"images of {in_words(own)} become {in_words(shape)}, since "
        f"{' and '.join(keys)} {'are' if len(keys) > 1 else 'is'} set"
    )


def in_words(shape: Shape) -> str:
    """28x28 pixels in grey, as width x height."""
    height, width, channels = shape
    return f"{width}x{height} pixels in {'grey' if channels == 1 else 'colour'}"


def read_fitted(source: Source, shape: Shape, fit: Fit) -> Bytes:
    """The picture in the file as bytes (height, width, channels), the same for training and for predict."""
    return fit_picture(read_picture(source, OVERSAMPLING * max(shape[:2])), shape, fit)


def read_picture(source: Source, least: int | None = None) -> Image.Image:
    """The picture in the file, upright according to its EXIF data, in mode L (grey) or RGB.

    Of several frames, the first one is read. White lies behind transparent parts. With `least`, a JPEG file
    may be decoded at a fraction of its size, if its shorter side still has at least this many pixels: this
    is several times as fast. UserError, with the reason alone, if the file cannot be read.
    """
    with open_picture(source) as image:
        if least is not None:
            image.draft(None, (least, least))
        ImageOps.exif_transpose(image, in_place=True)
        return to_eight_bits(image)


@contextmanager
def open_picture(source: Source) -> Iterator[Image.Image]:
    """The image in the file or upload, to be decoded in this block.

    UserError, with the reason alone, if it cannot be opened or decoded.
    """
    formats, largest = None, LARGEST_AREA
    if isinstance(source, Upload):
        Image.init()  # imports all formats, if that was not done
        formats, largest = [name for name in UPLOAD_FORMATS if name in Image.OPEN], LARGEST_UPLOAD
    with _problems_as_user_errors(largest), Image.open(_checked(source), formats=formats) as image:
        if image.width * image.height > largest:
            raise _too_large(largest)
        if image.format == "EPS":
            raise UserError("EPS is a program, not a picture: save it as PNG")  # Pillow would run it
        yield image


def _checked(source: Source) -> Path | io.BytesIO:
    """What Pillow can open; UserError if it is nothing that could be a picture."""
    if isinstance(source, Upload):
        if not source.content:
            raise UserError("it is empty")
        if source.content.startswith(b"\xff\xd8") and source.content.count(b"\xff\xda") > MOST_SCANS:
            raise UserError(f"it is a JPEG of more than {MOST_SCANS} scans: save it again")
        return io.BytesIO(source.content)
    if not source.exists():
        raise UserError("it does not exist")
    if not source.is_file():  # a device might never end
        raise UserError(
            "it is a folder: name the image files in it" if source.is_dir() else "it is not an ordinary file"
        )
    if source.stat().st_size == 0:
        raise UserError("it is empty")
    return source


@contextmanager
def _problems_as_user_errors(largest: int) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(
            "it is not an image in a known format: convert it to one, such as PNG or JPEG"
        ) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(largest) from None
    except Exception as error:  # Pillow's decoders raise errors of any type if a file is damaged
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"it cannot be read: {error.strerror}") from None
        raise UserError(f"it is damaged, or of a kind that cannot be decoded ({error})") from None


def _too_large(largest: int) -> UserError:
    limit = f"{largest // 1_000_000} million"
    return UserError(f"it has more than {limit} pixels: make it smaller, or crop it")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """The image in mode L if it is grey, else RGB; UserError if its numbers have no known range."""
    if image.mode.startswith("I"):  # 16 bits, also of formats that Pillow reads into 32
        return Image.fromarray(_scaled(np.asarray(image, np.int64), 65535))
    if image.mode == "F":
        values = np.asarray(image, np.float64)
        return Image.fromarray(_scaled(values, 1 if values.max() <= 1 else 255))
    grey = image.mode in ("1", "L", "LA", "La") or (image.mode in ("P", "PA") and _is_grey(image))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, WHITE)
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return in_mode(image, "L" if grey else "RGB")


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The decoded image in this mode: itself if it has it, since copies of large pictures fill the memory."""
    image.load()
    return image if image.mode == mode else image.convert(mode)


def _scaled(values: NDArray[Any], largest: int) -> Bytes:
    """Numbers from 0 to `largest`, as bytes."""
    if not (values.min() >= 0 and values.max() <= largest):  # also for NaN
        raise UserError(
            f"its numbers run from {values.min():g} to {values.max():g}, not from 0 to {largest}: save it "
            "with 8 or 16 bits"
        )
    return np.rint(values / largest * 255).astype(np.uint8)


def _is_grey(image: Image.Image) -> bool:
    """Whether a picture with a palette uses greys alone."""
    pixels = np.asarray(image.convert("RGB"))
    return bool((pixels == pixels[..., :1]).all())


def fit_picture(image: Image.Image, shape: Shape, fit: Fit) -> Bytes:
    """The picture as bytes (height, width, channels).

    crop keeps the largest middle part that has the proportions of `shape`; pad keeps all of the picture,
    between borders in the median colour of its own border; stretch changes its proportions.
    """
    height, width, channels = shape
    image = in_mode(image, "L" if channels == 1 else "RGB")
    if image.size != (width, height):
        if fit == "pad":
            image = _pad(image, height, width)
        else:
            box = middle(image, height, width) if fit == "crop" else None
            image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image).reshape(shape)


def middle(image: Image.Image, height: int, width: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the largest middle part with these proportions."""
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    return (
        max(left, 0),
        max(top, 0),
        min(left + scale * width, image.width),
        min(top + scale * height, image.height),
    )


def _pad(image: Image.Image, height: int, width: int) -> Image.Image:
    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = image.resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(small)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(border, axis=0).astype(int)
    padded = Image.new(
        image.mode, (width, height), int(colour) if colour.ndim == 0 else tuple(colour.tolist())
    )
    padded.paste(small, ((width - size[0]) // 2, (height - size[1]) // 2))
    return padded


def fit_array(images: Bytes, shape: Shape, fit: Fit) -> Bytes:
    """Images (n, h, w) or (n, h, w, channels), each brought to `shape`; those that have it are not copied."""
    images = images[..., np.newaxis] if images.ndim == 3 else images
    if images.shape[1:] == shape:
        return images
    fitted = [
        fit_picture(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image), shape, fit)
        for image in images
    ]
    return np.stack(fitted) if fitted else np.empty((0, *shape), np.uint8)
