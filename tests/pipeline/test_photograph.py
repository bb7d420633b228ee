"""Digits in photographs of all kinds are framed as in MNIST; other images are refused with a reason."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from photographs import drawn_seven, jpeg, to_bytes, uneven_light
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from scipy import ndimage

from pipeline.apps.photograph import find_digit, otsu_threshold, read_photograph
from pipeline.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # as the program does, outside of pytest


@pytest.fixture
def find(tmp_path):
    """find(picture, **options): find_digit's result for the picture, saved as a PNG with these options."""

    def run(picture, **options):
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture)
        picture.save(tmp_path / "digit.png", **options)
        return find_digit(tmp_path / "digit.png")

    return run


@pytest.fixture
def reason(find):
    """reason(picture): why it is refused."""

    def run(picture):
        with pytest.raises(UserError) as raised:
            find(picture)
        return str(raised.value)

    return run


def nearly_the_same(one, other):
    """Whether the strokes agree, except for antialiasing and a shift by one pixel, since centres are rounded.

    The mean difference between a 7 and its mirror image is 0.11.
    """
    shifts = [(rows, columns) for rows in (-1, 0, 1) for columns in (-1, 0, 1)]
    return min(abs(np.roll(one, shift, (0, 1)) - other).mean() for shift in shifts) < 0.03


@pytest.fixture
def seven(find):
    return find(drawn_seven()).image


# What MNIST's images are


def bounds(image):
    rows, columns = np.flatnonzero(image.max(axis=1)), np.flatnonzero(image.max(axis=0))
    return rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


@pytest.mark.parametrize("place", [(0, 0), (-150, -60), (300, 140)])
def test_the_image_is_framed_as_in_mnist_wherever_the_digit_is(find, place):
    image = find(drawn_seven(place=place)).image
    assert image.shape == (28, 28)
    assert image.dtype == np.float32
    assert image.min() == 0
    assert image.max() == 1
    np.testing.assert_allclose(ndimage.center_of_mass(image), (14, 14), atol=0.5)
    height, width = bounds(image)
    assert height == 20
    assert width == pytest.approx(
        20 * (200 + 15) / (300 + 15), abs=1
    )  # as drawn, with half of the pen's 30 pixels


def test_a_digit_that_is_wider_than_high_fills_the_box_sideways(find):
    picture = Image.new("L", (800, 600), 230)
    ImageDraw.Draw(picture).ellipse((200, 200, 560, 400), outline=40, width=30)
    assert bounds(find(picture).image) == (11, 20)


def test_the_box_encloses_the_ink(find):
    digit = find(drawn_seven())
    rows, columns = digit.box
    dark = digit.photograph < 0.5
    np.testing.assert_allclose([rows.start, rows.stop], np.flatnonzero(dark.any(axis=1))[[0, -1]], atol=3)
    np.testing.assert_allclose(
        [columns.start, columns.stop], np.flatnonzero(dark.any(axis=0))[[0, -1]], atol=3
    )


# What must not matter


@pytest.mark.parametrize(("paper", "ink"), [(40, 230), (255, 0), (0, 255), (180, 120), (90, 160)])
def test_polarity_and_contrast_do_not_matter(find, seven, paper, ink):
    assert nearly_the_same(find(drawn_seven(paper=paper, ink=ink)).image, seven)


@pytest.mark.parametrize("width", [80, 160, 2400])
def test_the_number_of_pixels_does_not_matter(find, seven, width):
    assert nearly_the_same(find(drawn_seven().resize((width, width * 3 // 4))).image, seven)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_distance_of_the_camera_does_not_matter(find, seven, share):
    far = drawn_seven().resize((int(800 * share), int(600 * share)), Image.Resampling.LANCZOS)
    sheet = Image.new("L", (800, 600), 230)
    sheet.paste(far, (120, 200))
    assert nearly_the_same(find(sheet).image, seven)


@pytest.mark.parametrize("seed", range(5))
def test_light_noise_and_jpeg_do_not_matter(find, seven, seed):
    rng = np.random.default_rng(seed)
    picture = np.asarray(drawn_seven()) / 255 * uneven_light(600, 800, rng) + rng.normal(0, 0.03, (600, 800))
    assert nearly_the_same(find(jpeg(to_bytes(picture), 50)).image, seven)


def test_a_hard_shadow_across_the_digit_does_not_matter(find, seven):
    picture = np.array(drawn_seven())
    rows, columns = np.indices(picture.shape)
    picture[rows + columns > 600] //= 2
    assert nearly_the_same(find(picture).image, seven)


@pytest.mark.parametrize("table", [30, 120])
def test_a_table_around_the_sheet_does_not_matter(find, seven, table):
    turned = ImageOps.expand(drawn_seven(), 150, table).rotate(3, Image.Resampling.BICUBIC, fillcolor=table)
    assert abs(find(turned).image - seven).mean() < 0.04  # turned by 3 degrees


def test_specks_and_the_edge_of_the_paper_do_not_matter(find, seven):
    picture = drawn_seven()
    draw = ImageDraw.Draw(picture)
    for x, y in ((90, 500), (700, 80), (500, 450)):
        draw.ellipse((x, y, x + 6, y + 6), fill=40)
    draw.line((0, 5, 800, 12), fill=40, width=14)
    draw.polygon([(0, 600), (0, 480), (160, 600)], fill=60)
    assert nearly_the_same(find(picture).image, seven)


@pytest.mark.parametrize("pen", [3, 6, 12, 24])
def test_strokes_of_thin_pens_are_widened(find, pen):
    image = find(drawn_seven(pen=pen)).image
    rows = image[16:22]  # the slanted stroke alone
    assert 1.8 < rows.sum(axis=1).mean() < 3.2  # pixels; in MNIST 1.6 to 4.2
    assert image.max() == 1


@pytest.mark.parametrize("blur", [1, 4, 10])
def test_blur_makes_broad_strokes_neither_thinner_nor_grey(find, blur):
    sharp, blurred = drawn_seven(pen=60), drawn_seven(pen=60).filter(ImageFilter.GaussianBlur(blur))
    image = find(blurred).image
    assert image.max() == 1
    assert image.sum() == pytest.approx(find(sharp).image.sum(), rel=0.05)


def test_a_digit_in_two_parts_stays_whole(find):
    picture = Image.new("L", (600, 600), 230)
    draw = ImageDraw.Draw(picture)
    draw.line([(220, 150), (200, 300), (330, 300), (350, 420), (200, 430)], fill=40, width=25)
    draw.line([(260, 140), (380, 130)], fill=40, width=25)  # the bar of the 5 does not touch it
    rows, columns = find(picture).box
    assert columns.stop == pytest.approx(380 * 640 / 600, abs=12)
    assert rows.start == pytest.approx(120 * 640 / 600, abs=12)


# What Pillow reads


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA"])
def test_the_mode_does_not_matter(find, seven, mode):
    assert nearly_the_same(find(drawn_seven().convert(mode)).image, seven)


def test_sixteen_bits_are_read_in_full(find, seven):
    deep = np.asarray(drawn_seven()).astype(np.uint16) * 257
    assert nearly_the_same(find(deep).image, seven)


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_nothing_is_seen_whatever_its_colour(find, seven, ink):
    picture = Image.new("LA", (800, 600), (ink, 0))
    picture.putalpha(drawn_seven(paper=0, ink=255))
    assert nearly_the_same(find(picture).image, seven)


def test_a_camera_that_was_held_sideways_is_believed(find, seven):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    sideways = drawn_seven().transpose(Image.Transpose.ROTATE_90)
    assert nearly_the_same(find(sideways, exif=exif).image, seven)


# What is refused

BLANK = "no ink stands out from the paper."


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_one_grey_is_blank(reason, grey):
    assert reason(Image.new("L", (300, 200), grey)).startswith(BLANK)


def test_one_pixel_is_blank(reason):
    assert reason(Image.new("L", (1, 1))).startswith(BLANK)


@pytest.mark.parametrize("deviation", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("shape", [(28, 28), (400, 500)])
def test_noise_is_blank(reason, deviation, shape):
    noise = np.random.default_rng(0).normal(0.6, deviation, shape)
    assert reason(to_bytes(noise)).startswith(BLANK)


def test_paper_in_uneven_light_is_blank(reason):
    rng = np.random.default_rng(0)
    light = 0.9 * uneven_light(400, 500, rng) + rng.normal(0, 0.02, (400, 500))
    assert reason(to_bytes(light)).startswith(BLANK)


def test_a_line_at_the_border_is_no_digit(reason):
    picture = Image.new("L", (800, 600), 230)
    ImageDraw.Draw(picture).rectangle((0, 0, 800, 12), fill=30)
    assert re.match("there is ink only at the image's border.*Crop the image to the digit", reason(picture))


def test_a_dot_is_too_small(reason):
    picture = Image.new("L", (800, 600), 230)
    ImageDraw.Draw(picture).ellipse((300, 300, 316, 316), fill=20)
    assert re.search("measures 2.2% .*: too small for a digit. Crop the image to the digit", reason(picture))


@pytest.mark.parametrize("count", [2, 3])
def test_digits_beside_one_another_are_counted(reason, count):
    row = np.hstack([np.asarray(drawn_seven(200))[:, 80:220]] * count)
    assert re.match(f"{count} marks that may be digits .*Crop the image to one of them", reason(row))


@pytest.mark.parametrize("points", [(100, 300, 700, 320), (150, 200, 300, 400, 450, 200, 600, 400)])
def test_what_is_far_wider_than_high_is_no_digit(reason, points):
    picture = Image.new("L", (800, 600), 230)
    ImageDraw.Draw(picture).line(points, fill=30, width=12)
    assert re.search("more than twice as wide as it is high.*Crop the image to one digit", reason(picture))


def refusal(path):
    with pytest.raises(UserError) as raised:
        find_digit(path)
    return str(raised.value)


def test_a_missing_file_a_folder_and_a_device_are_told_apart(tmp_path):
    assert refusal(tmp_path / "a.png") == "it does not exist"
    assert refusal(tmp_path) == "it is a folder: name the image files in it"
    assert refusal(Path("/dev/null")) == "it is not an ordinary file"


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.png").touch()
    assert refusal(tmp_path / "a.png") == "it is empty"


@pytest.mark.parametrize("content", [b"hello", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    said = refusal(path)
    assert said.startswith("it is not an image in a known format: ")
    assert "such as PNG or JPEG" in said


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tiff", "webp", "bmp"])
def test_a_truncated_or_damaged_image_is_refused_or_read_never_a_crash(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    drawn_seven(40).save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    path.write_bytes(content[: len(content) // 2])
    assert refusal(path).startswith("it is damaged, or of a kind that cannot be decoded (")
    for _ in range(25):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        with suppress(UserError):
            read_photograph(path)


def test_a_decompression_bomb_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (10_000, 10_000)).save(path)
    assert path.stat().st_size < 20_000
    assert refusal(path) == "it has more than 89 million pixels: make it smaller, or crop it"


# The threshold


def test_otsus_threshold_has_the_largest_variance_between_its_classes():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.2, 0.05, 3000), rng.normal(0.7, 0.1, 1000)])

    def between(threshold):
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(between(t) for t in np.linspace(values.min() + 0.01, values.max() - 0.01, 500))
    assert between(otsu_threshold(values)) == pytest.approx(best, rel=1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (64, 64)])
@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (60, 255), (120, 255), (255, 0)])
@pytest.mark.parametrize("width", [0.015, 0.06])
def test_a_clean_stroke_is_found_though_there_is_no_ink_of_the_other_kind(tmp_path, size, ink, paper, width):
    """What could then be ink of the other kind is rounding errors, or artefacts of enlarging near edges."""
    picture = Image.new("L", size, paper)
    middle, half = size[0] / 2, width * max(size) / 2
    ImageDraw.Draw(picture).rectangle([middle - half, 0.4 * size[1], middle + half, 0.6 * size[1]], fill=ink)
    picture.save(tmp_path / "one.png")
    rows, columns = find_digit(tmp_path / "one.png").box
    assert (columns.start + columns.stop) / 2 == pytest.approx(320 * size[0] / max(size), abs=10)
    assert rows.stop - rows.start == pytest.approx(128 * size[1] / max(size), abs=20)
