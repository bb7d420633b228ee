"""The playground's page in a real browser: its network is cnn's, its images are framed as in training.

Playwright drives Debian's Chromium. If it is missing, the tests fail in continuous integration; elsewhere
they are skipped with a message.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_digits

from cnn import SGD, Dense, Flatten, Sequential, checkpoint, softmax_cross_entropy
from cnn.ops.softmax import softmax
from cnn.registry import LAYERS, written_options
from pipeline.apps.playground import PLAYGROUND, example_images, layers_of_the_page, playground, render
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.train import Network
from pipeline.artefacts.trained import load_model
from pipeline.config.architectures import build_model
from pipeline.data.pictures import fit_picture, read_picture
from pipeline.errors import UserError

ROOT = Path(__file__).parents[2]
DIGITS = [str(digit) for digit in range(10)]
CONV = {"type": "conv2d", "kernel_size": 3, "out_channels": 6}
CONV_1X1 = {**CONV, "kernel_size": 1}

# Together they have every layer type with every option. Flatten and dense to four classes follow each.
NETWORKS = {
    "convolutions": [
        {**CONV, "padding": "same", "initializer": "he_normal"},
        {**CONV, "kernel_size": [2, 3], "stride": [2, 1], "padding": [[1, 0], [2, 1]], "bias": False},
        {**CONV, "out_channels": 12, "padding": [3, 2], "dilation": [2, 1], "groups": 3},
        {**CONV, "padding": "same", "stride": 2, "dilation": 2, "groups": 6, "bias": True},
        {**CONV, "kernel_size": [3, 2], "padding": "valid", "out_channels": 1},
    ],
    "max_pooling": [
        {"type": "max_pool2d", "kernel_size": 3, "stride": 1, "padding": [[0, 1], [1, 0]]},
        {"type": "max_pool2d", "kernel_size": [2, 3], "stride": 2, "dilation": [2, 1], "ceil_mode": True},
        {"type": "max_pool2d", "kernel_size": 2, "padding": "same"},
    ],
    "average_pooling": [
        {"type": "avg_pool2d", "kernel_size": 3, "stride": 1, "padding": [1, 0]},
        {"type": "avg_pool2d", "kernel_size": [3, 2], "stride": 2, "padding": 1, "ceil_mode": True},
        {"type": "avg_pool2d", "kernel_size": 2, "stride": 1, "padding": "same", "count_include_pad": False},
        {
            "type": "avg_pool2d",
            "kernel_size": 2,
            "stride": 2,
            "dilation": [2, 3],
            "padding": 1,
            "ceil_mode": True,
        },
    ],
    "normalisation": [
        {"type": "batch_norm", "momentum": 0.5, "epsilon": 0.1},
        {"type": "layer_norm", "epsilon": 0.1},
        {"type": "flatten"},
        {"type": "batch_norm", "scale": False},
        {"type": "layer_norm"},
        {"type": "dropout", "rate": 0.5},
        {"type": "scale", "factor": 0.3},
        {"type": "dense", "out_features": 7, "bias": False, "initializer": "orthogonal"},
    ],
    "activations": [
        {"type": "gelu", "approximate": True},  # on numbers near 0, where it differs from the exact one
        {**CONV, "out_channels": 8},
        {"type": "leaky_relu", "slope": 0.3},
        {"type": "elu", "alpha": 2.0},
        {"type": "gelu"},
        {**CONV, "out_channels": 8},
        {"type": "silu"},
        {**CONV, "out_channels": 8, "padding": 1},
        {"type": "tanh"},
        {"type": "sigmoid"},
        {"type": "log_softmax"},
        {"type": "softmax"},
        {"type": "relu"},
    ],
    "nesting": [
        {"type": "residual", "layers": [{**CONV, "out_channels": 3, "padding": 1}, {"type": "relu"}]},
        {
            "type": "sequential",
            "layers": [
                {"type": "spatial_dropout", "rate": 0.2},
                {
                    "type": "residual",
                    "layers": [
                        {**CONV, "padding": 1, "stride": 2},
                        {"type": "sequential", "layers": [{**CONV, "padding": [[0, 1], [1, 0]]}]},
                    ],
                    "shortcut": [{**CONV, "stride": 2}],
                },
                {"type": "global_avg_pool2d"},
            ],
        },
    ],
    "global_maximum": [CONV, {"type": "log_softmax"}, {"type": "global_max_pool2d"}],  # of negative numbers
}


def flat(specs):
    """The descriptions of layers, including those inside them."""
    for spec in specs:
        yield spec
        yield from flat(spec.get("layers") or [])
        yield from flat(spec.get("shortcut") or [])


def build(specs, image_shape, classes, rng):
    """A network with random values in all of its arrays, also in the running statistics."""
    model = build_model(specs, "test", image_shape, classes, rng)
    state = {name: rng.normal(0.2, 0.5, array.shape) for name, array in model.state_dict().items()}
    for name in state:
        if name.endswith("running_var"):
            state[name] = rng.uniform(0.2, 3, state[name].shape)
    model.load_state_dict({name: array.astype(np.float32) for name, array in state.items()})
    return model


def metadata(image_shape, class_names, mean=0.0, deviation=1.0, **data):
    """train's record; further keywords replace values of the description of the data."""
    channels = image_shape[2]
    defaults = {"dataset": "test", "title": "Test images", "framing": "digit", "background": [0] * channels}
    for name, value in (("mean", mean), ("deviation", deviation)):
        defaults[name] = np.broadcast_to(value, channels).tolist()
    defaults |= {"examples": {"train": 1234, "validation": 10, "test": 20}}
    data = defaults | {"class_names": class_names, "image_shape": image_shape} | data
    about = {"architecture": "test", "layers": [], "data": data}
    about |= {
        "epoch": 1,
        "environment": {"machine": "", "numpy": "", "numpy_simd": "", "pillow": "", "blas": ""},
    }
    return Network.model_validate_json(json.dumps(about))


def layer_outputs(layer, x, name=""):
    """What cnn computes, by the layers' names, including layers inside others; "" is the whole network."""
    outputs, inner = {name: layer.forward(x)}, x
    for key, child in layer.children().items():
        child_name = f"{name}.{key}".lstrip(".")
        outputs |= layer_outputs(child, inner, child_name)
        if isinstance(layer, Sequential):
            inner = outputs[child_name]
    return outputs


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium is missing: apt-get install chromium")
        pytest.skip("Chromium is missing, so the page is not tested: apt-get install chromium")
    with sync_playwright() as playwright:
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


class Tab:
    """A tab of the browser, and what its pages requested and complained of."""

    def __init__(self, browser, width=1280, **options):
        self.requests, self.errors = [], []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.route(re.compile(r"^(?!file:|blob:)"), lambda route: route.abort())

    def visit(self, file):
        self.page.goto(file.as_uri())
        settle(self.page)
        return self.page

    def check(self, file):
        assert [url for url in self.requests if not url.startswith("blob:")] == [file.as_uri()]
        assert self.errors == []


@pytest.fixture(scope="module")
def shared_tab(browser):
    return Tab(browser)


@pytest.fixture
def visit(browser, shared_tab, tmp_path):
    """visit(text): open this page. At the end, check that it requested only itself, and had no error."""
    file = tmp_path / "playground.html"
    tabs = []

    def open_page(text, before="", **options):
        file.write_text(text, encoding="utf-8")
        is_shared = not (before or options)  # a tab of its own takes half a second
        tabs.append(shared_tab if is_shared else Tab(browser, **options))
        if before:
            tabs[0].page.add_init_script(before)
        return tabs[0].visit(file)

    shared_tab.requests.clear()
    shared_tab.errors.clear()
    yield open_page
    for tab in tabs:
        tab.check(file)
        if tab is not shared_tab:
            tab.context.close()


def settle(page):
    """Wait until everything that is shown belongs to the drawing."""
    page.evaluate("""() => Promise.race([
        playground.settled(),
        new Promise((_, reject) => setTimeout(reject, 30_000, new Error("The page does not settle."))),
    ])""")


def pixels(page):
    """What the network receives, as one row; None for an empty canvas."""
    values = page.evaluate("Array.from(playground.pixels() ?? [])")
    return np.array(values, np.float32) if values else None


def draw(page, *strokes):
    """Draw with the mouse; a point is (column, row) as fractions of the canvas."""
    box = page.locator("#drawing").bounding_box()
    for stroke in strokes:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place)
        page.mouse.up()


SEVEN = [(0.25, 0.22), (0.72, 0.2), (0.6, 0.4), (0.5, 0.8)]
BAR = [(0.4, 0.5), (0.68, 0.5)]


def predict_in_page(page, images):
    """The network's last output for each image, computed by the page."""
    script = "async (images) => { const rows = []; for (const x of images)"
    script += ' rows.push(Array.from((await playground.run(x))[""])); return rows; }'
    return np.array(page.evaluate(script, images.reshape(len(images), -1).tolist()))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_layer_computes_what_cnn_computes(name, visit, rng):
    shape = (11, 12, 3)
    specs = [*NETWORKS[name], {"type": "flatten"}, {"type": "dense", "out_features": 4}]
    model = build(specs, shape, 4, rng)
    page = visit(render(model, metadata(shape, ["a", "b", "c", "d"]), []))
    script = """async (image) => Object.fromEntries(
        Object.entries(await playground.run(image)).map(([name, y]) => [name, Array.from(y)]))"""
    for image in rng.standard_normal((3, *shape)).astype(np.float32):
        expected = layer_outputs(model, image[None])
        found = page.evaluate(script, image.ravel().tolist())
        assert found.keys() == expected.keys()
        for layer, y in expected.items():
            close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(y).max(), "err_msg": layer}
            np.testing.assert_allclose(found[layer], y.ravel(), **close)


def test_these_networks_have_every_layer_with_every_option():
    used = {(spec["type"], option) for specs in NETWORKS.values() for spec in flat(specs) for option in spec}
    used |= {("dense", "type"), ("flatten", "type"), ("dense", "out_features")}
    known = layers_of_the_page()
    every = {(kind, "type") for kind in known}
    every |= {(kind, option) for kind in known for option in written_options(LAYERS[kind])}
    assert every - used == set()


def test_the_page_shows_what_cnn_says_of_the_drawing(visit, rng):
    mean, deviation = 0.13, 0.31
    specs = [CONV, {"type": "relu"}, {"type": "flatten"}, {"type": "dense", "out_features": 10}]
    model = build(specs, (28, 28, 1), 10, rng)
    page = visit(render(model, metadata((28, 28, 1), DIGITS, mean, deviation), []))
    draw(page, SEVEN, BAR)
    settle(page)
    received = pixels(page)
    brightness = received * deviation + mean
    assert brightness.min() == pytest.approx(0, abs=1e-6)
    assert 0.9 < brightness.max() < 1 + 1e-6
    expected = softmax(model.predict(received.reshape(1, 28, 28, 1)))[0]
    np.testing.assert_allclose(page.evaluate("playground.probabilities()"), expected, atol=1e-5)
    shown = [float(text.strip("> %")) for text in page.locator("#bars .value").all_inner_texts()]
    np.testing.assert_allclose(shown, np.minimum(100 * expected, 99.9), atol=0.051)  # never 100 %
    best = str(expected.argmax())
    assert page.inner_text("#verdict") == page.inner_text("#bars .best .label") == best
    assert page.inner_text("#announcement").startswith(f"Prediction: {best}, ")
    maps = np.array(
        page.eval_on_selector_all(
            ".layer[data-layer='0'] .forward canvas",
            "canvases => canvases.map(c => Array.from(c.getContext('2d').getImageData(0, 0, 26, 26).data))",
        )
    )  # (channel, then red, green, blue and opacity of each pixel)
    first = model.layers[0].forward(received.reshape(1, 28, 28, 1))[0]
    opacity = 255 * np.abs(first) / np.abs(first).max()
    np.testing.assert_allclose(maps[:, 3::4].T, opacity.reshape(-1, 6), atol=1)
    blue = maps[:, 2::4].T > maps[:, 0::4].T
    strong = opacity.reshape(-1, 6) > 20  # the browser rounds the colours of fainter ones
    np.testing.assert_array_equal(blue[strong], first.reshape(-1, 6)[strong] > 0)


def test_a_network_that_ends_in_softmax_is_not_given_it_twice(visit, rng):
    specs = [{"type": "flatten"}, {"type": "dense", "out_features": 10}, {"type": "softmax"}]
    model = build(specs, (28, 28, 1), 10, rng)
    page = visit(render(model, metadata((28, 28, 1), DIGITS), []))
    draw(page, SEVEN)
    settle(page)
    expected = model.predict(pixels(page).reshape(1, 28, 28, 1))[0]
    np.testing.assert_allclose(page.evaluate("playground.probabilities()"), expected, atol=1e-5)


@pytest.fixture
def two_classes(rng):
    """A linear network, whose log-odds of the first class are weights · pixels + constant; its weights."""
    specs = [{"type": "flatten"}, {"type": "dense", "out_features": 2}]
    model = build(specs, (28, 28, 1), 2, rng)
    weight = model.state_dict()["1.weight"]
    return model, (weight[:, 0] - weight[:, 1]).reshape(28, 28)


def test_a_drawing_is_framed_as_mnist_is(visit, two_classes):
    page = visit(render(two_classes[0], metadata((28, 28, 1), ["a", "b"]), []))

    def frame(ink):
        height, width = ink.shape
        values = page.evaluate(
            "raster => Array.from(playground.frame(raster, 28, 28))",
            {"data": ink.ravel().tolist(), "height": height, "width": width},
        )
        return np.array(values).reshape(28, 28)

    ink = np.zeros((100, 100))
    ink[5:15, 60:80] = 1  # half as high as wide: 10 x 20 pixels, in the middle
    np.testing.assert_allclose(frame(ink), np.pad(np.ones((10, 20)), ((9, 9), (4, 4))), atol=1e-6)
    ink[35:45, 60:80] = 0.5  # now 40 high: two pixels of the canvas per pixel
    framed = frame(ink)
    rows = np.arange(28) + 0.5
    assert framed.sum(axis=1) @ rows / framed.sum() == pytest.approx(14)
    np.testing.assert_allclose(framed.sum(), ink.sum() / 4)
    ink[:] = 0
    ink[0:90, 0:2] = ink[0:2, 0:45] = ink[:20, :30] = (
        1  # its centre of mass is far from the middle of its box
    )
    np.testing.assert_allclose(frame(ink).sum(), ink.sum() / 4.5**2)  # yet nothing is cut off


def test_the_evidence_of_a_linear_network_is_its_weights_times_the_pixels(visit, two_classes):
    model, weights = two_classes
    page = visit(render(model, metadata((28, 28, 1), ["a", "b"]), []))
    draw(page, SEVEN, BAR)
    settle(page)
    image = pixels(page).reshape(28, 28)
    sign = 1 if page.inner_text("#verdict") == "a" else -1
    parts = np.pad(sign * weights * image, 2)
    sums = np.array([[parts[i : i + 4, j : j + 4].sum() for j in range(0, 30, 2)] for i in range(0, 30, 2)])
    expected = np.zeros((32, 32))  # each patch's sum, a quarter to each of its pixels
    for i, row in enumerate(sums):
        for j, weight in enumerate(row):
            expected[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += weight / 4
    evidence = page.evaluate(
        "({...playground.evidence(), perPixel: Array.from(playground.evidence().perPixel)})"
    )
    np.testing.assert_allclose(evidence["perPixel"], expected[2:30, 2:30].ravel(), atol=1e-4)
    shown = np.pad(expected[2:30, 2:30], 2, constant_values=np.nan)
    for name, sign in (("strongest", 1), ("weakest", -1)):
        found = evidence[name]
        top, left = found["patch"]["top"], found["patch"]["left"]
        assert found["weight"] == pytest.approx(sums[top // 2 + 1, left // 2 + 1], abs=1e-4)
        assert sign * found["weight"] > np.log(1.1)
        means = [
            sign * np.nanmean(shown[2 * i : 2 * i + 4, 2 * j : 2 * j + 4])
            for i, j in np.argwhere(sign * sums > np.log(1.1))
        ]
        framed = sign * np.nanmean(shown[top + 2 : top + 6, left + 2 : left + 6])
        assert framed == pytest.approx(max(means), abs=1e-4)  # what is framed is what is coloured
        assert framed > 0
    text = page.inner_text("#evidence-text")
    assert text.count("framed in blue") == text.count("framed in orange") == 1


def test_a_patch_is_blanked_with_the_background_of_each_channel(visit, rng):
    shape = (10, 10, 3)
    statistics = {"mean": [0.5, 0.4, 0.3], "deviation": [0.2, 0.3, 0.4], "background": [0.9, 0.2, 0.6]}
    about = metadata(shape, ["a", "b"], framing="crop", **statistics)
    model = linear(shape, 2, rng)
    image = rng.integers(0, 256, shape, np.uint8)
    page = visit(render(model, about, [(0, image)]))
    weight = model.state_dict()["1.weight"]
    weights = (weight[:, 0] - weight[:, 1]).reshape(shape)
    sign = 1 if page.inner_text("#verdict") == "a" else -1
    change = sign * weights * (about.data.normalise(image) - about.data.normalised_background)
    parts = np.pad(change.sum(axis=-1), 1)
    sums = np.array([[parts[i : i + 2, j : j + 2].sum() for j in range(11)] for i in range(11)])
    expected = (sums[:-1, :-1] + sums[1:, :-1] + sums[:-1, 1:] + sums[1:, 1:]) / 4
    found = page.evaluate("Array.from(playground.evidence().perPixel)")
    np.testing.assert_allclose(found, expected.ravel(), atol=1e-3)


def test_patches_that_hardly_change_the_odds_have_no_frame(visit, two_classes):
    model, _ = two_classes
    model.load_state_dict({name: array / 100 for name, array in model.state_dict().items()})
    page = visit(render(model, metadata((28, 28, 1), ["a", "b"]), []))
    draw(page, SEVEN)
    settle(page)
    assert page.evaluate("[playground.evidence().strongest, playground.evidence().weakest]") == [None, None]
    assert "framed" not in page.inner_text("#evidence-text")
    for side in (1, 8, 28, 32, 100, 224):
        patches = page.evaluate(f"patchesOf({side}, 3 * {side})")
        assert len(patches) <= 16 * 16
        covered = np.zeros((side, 3 * side))
        for patch in patches:
            top, left = max(0, patch["top"]), max(0, patch["left"])
            covered[top : patch["top"] + patch["height"], left : patch["left"] + patch["width"]] += 1
        assert (covered == 4).all()


def test_examples_go_in_as_they_are_and_undo_and_clear_work_from_the_keyboard(visit, rng):
    specs = [{"type": "flatten"}, {"type": "dense", "out_features": 10}]
    model = build(specs, (9, 7, 1), 10, rng)
    about = metadata((9, 7, 1), DIGITS, 0.1307, 0.3081)
    images = rng.integers(0, 256, (2, 9, 7, 1), np.uint8)
    inputs = about.data.normalise(images)
    page = visit(render(model, about, [(3, images[0]), (8, images[1])]))
    undo, clear = page.get_by_role("button", name="Undo"), page.get_by_role("button", name="Clear")
    np.testing.assert_array_equal(pixels(page), inputs[0].ravel())  # the page begins with the first one
    assert undo.is_disabled()
    draw(page, SEVEN)
    drawn = pixels(page)
    assert drawn.shape == (9 * 7,)
    assert page.locator("[aria-pressed=true]").count() == 0
    page.get_by_role("button", name="Test image of class 8").click()
    settle(page)
    np.testing.assert_array_equal(pixels(page), inputs[1].ravel())
    assert page.locator("[aria-pressed=true]").get_attribute("aria-label") == "Test image of class 8"
    assert page.inner_text("#shown") == "Test image: 8."
    assert page.inner_text("#verdict") == str(model.predict(inputs[1:]).argmax())
    undo.focus()
    page.keyboard.press("Enter")
    np.testing.assert_array_equal(pixels(page), drawn)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # clear
    settle(page)
    assert pixels(page) is None
    assert page.evaluate("playground.probabilities()") is None
    assert page.inner_text("#verdict") == "–"
    assert clear.is_disabled()
    page.get_by_role("button", name="Test image of class 3").focus()
    page.keyboard.press("Space")
    np.testing.assert_array_equal(pixels(page), inputs[0].ravel())
    for _ in range(9):  # more often than there are steps to undo
        page.keyboard.press("Control+z")
    settle(page)
    np.testing.assert_array_equal(pixels(page), inputs[0].ravel())
    assert undo.is_disabled()


def test_a_small_drawing_becomes_what_a_large_one_becomes_and_a_dot_stays_one(visit, two_classes):
    page = visit(render(two_classes[0], metadata((28, 28, 1), ["a", "b"]), []))
    draw(page, SEVEN)
    large = pixels(page).reshape(28, 28)
    page.get_by_role("button", name="Clear").click()
    draw(page, [(0.7 + x / 6, 0.1 + y / 6) for x, y in SEVEN])
    small = pixels(page).reshape(28, 28)
    assert np.abs(large - small).mean() < 0.02
    assert np.ptp(np.argwhere(small > 0), axis=0).max() in (19, 20)
    page.get_by_role("button", name="Clear").click()
    draw(page, [(0.9, 0.9)])
    dot = pixels(page).reshape(28, 28)
    assert dot.sum() == pytest.approx(np.pi * 1.25**2, rel=0.1)  # the pen: 2.5 pixels wide
    assert dot[13:15, 13:15].min() > 0.9


def test_other_drawings_are_made_smaller_as_a_whole_and_ink_is_the_opposite_of_the_background(visit, rng):
    about = metadata((20, 40, 1), ["a", "b"], 0.5, 0.25, framing="pad", background=[0.95])
    model = build([{"type": "flatten"}, {"type": "dense", "out_features": 2}], (20, 40, 1), 2, rng)
    page = visit(render(model, about, []))
    draw(page, [(0.1, 0.75), (0.4, 0.75)])
    image = about.data.brightness(pixels(page).reshape(20, 40))
    assert image[14:16, 5:15].max() < 0.01
    image[12:18, 1:19] = 0.95
    np.testing.assert_allclose(image, 0.95, atol=1e-6)
    text = page.inner_text("body")
    assert "Test images" in text
    assert "1,234" in text
    assert not re.search("MNIST|digit", text)


def linear(shape, classes, rng):
    return build([{"type": "flatten"}, {"type": "dense", "out_features": classes}], shape, classes, rng)


def photograph(rng, height, width, mode):
    """Smooth shapes and sharp edges, as bytes."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(x / a + y / b) for a, b in ((9, 31), (40, 11), (17, 90))]
    image = np.stack(waves, axis=-1)
    image[height // 3 : height // 2, width // 4 : width // 2] = [250, 10, 60]
    return Image.fromarray((image + rng.uniform(-5, 5, image.shape)).clip(0, 255).astype(np.uint8)).convert(
        mode
    )


def given(page, path):
    """What the network receives for a file, as bytes."""
    page.locator("#file").set_input_files(path)
    page.get_by_text(path.name).wait_for()
    return 255 * pixels(page)


@pytest.mark.parametrize("framing", ["crop", "pad", "stretch"])
def test_a_picture_is_fitted_as_in_training(framing, visit, rng, tmp_path):
    mean, deviation = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    shape = (30, 24, 3)
    about = metadata(shape, ["a", "b"], framing=framing, mean=mean, deviation=deviation)
    page = visit(render(linear(shape, 2, rng), about, []))
    for number, (height, width, mode) in enumerate(
        [(301, 200, "RGB"), (60, 333, "RGB"), (13, 11, "RGB"), (40, 32, "L"), (30, 24, "RGB")]
    ):
        path = tmp_path / f"{number}.png"
        photograph(rng, height, width, mode).save(path)
        given(page, path)
        found = 255 * about.data.brightness(pixels(page).reshape(shape))
        expected = fit_picture(read_picture(path), shape, framing).astype(float)
        np.testing.assert_allclose(found, expected, atol=1.01)  # rounding
        assert np.abs(found - expected).mean() < 0.1


COLOUR_AT = """([x, y]) => {
    const canvas = document.getElementById("drawing");
    const context = makeCanvas(1, 1).getContext("2d");
    context.drawImage(canvas, -Math.floor(x * canvas.width), -Math.floor(y * canvas.height));
    return Array.from(context.getImageData(0, 0, 1, 1).data);
}"""


@pytest.mark.parametrize("channels", [1, 3])
def test_a_padded_picture_is_shown_between_the_borders_that_the_network_receives(
    channels, visit, rng, tmp_path
):
    shape = (30, 24, channels)
    about = metadata(shape, ["a", "b"], framing="pad", background=[0.5] * channels)
    page = visit(render(linear(shape, 2, rng), about, []))
    for size in ((200, 10), (10, 200)):
        path = tmp_path / f"{size[0]}.png"
        Image.new("RGB", size, (250, 40, 160)).save(path)
        image = given(page, path).reshape(shape)
        border = [round(float(value)) for value in image[0, 0]]
        for place in ((0.02, 0.02), (0.98, 0.98)):
            assert page.evaluate(COLOUR_AT, place) == [*(border * 3)[:3], 255]
        assert page.evaluate(COLOUR_AT, (0.5, 0.5)) == [250, 40, 160, 255]
    page.get_by_role("button", name="Clear").click()
    assert page.evaluate(COLOUR_AT, (0.02, 0.02)) == [128, 128, 128, 255]
    settle(page)


@pytest.mark.parametrize(
    ("shape", "framing", "said", "hint"),
    [
        ((28, 28, 1), "digit", "Draw one, or show it a picture", "Draw here, or drop a picture"),
        ((32, 24, 1), "crop", "Show it a picture, or draw one", "Drop a picture, or draw here"),
        ((24, 24, 3), "crop", "Show it a picture.", "Drop a picture here"),
    ],
)
def test_the_page_asks_for_what_the_network_was_trained_on(visit, rng, shape, framing, said, hint):
    page = visit(render(linear(shape, 2, rng), metadata(shape, ["a", "b"], framing=framing), []))
    assert said in page.inner_text("header")
    assert page.inner_text("#hint") == hint
    text = " ".join(page.inner_text(".views").split())
    assert f"{shape[1]}x{shape[0]} pixels" in text
    if framing == "crop":
        part = "of square shape" if shape[0] == shape[1] else "with the proportions 24:32"
        assert f"its largest middle part {part}, made smaller" in text


def test_its_own_test_images_are_not_said_to_be_something_else(visit, rng):
    model = linear((9, 7, 1), 2, rng)
    model.load_state_dict({name: array / 1000 for name, array in model.state_dict().items()})
    image = rng.integers(0, 256, (9, 7, 1), np.uint8)
    page = visit(render(model, metadata((9, 7, 1), ["a", "b"], framing="crop"), [(0, image)]))
    assert page.inner_text("#doubt") == "The network is not sure."
    draw(page, SEVEN)
    settle(page)
    assert "Perhaps this is something else" in page.inner_text("#doubt")


def test_a_picture_for_a_network_of_grey_images_becomes_grey_and_transparent_parts_white(
    visit, rng, tmp_path
):
    about = metadata((24, 24, 1), ["a", "b"], framing="crop")
    page = visit(render(linear((24, 24, 1), 2, rng), about, []))
    path = tmp_path / "transparent.png"
    picture = photograph(rng, 90, 120, "RGB")
    picture.putalpha(Image.fromarray((np.mgrid[:90, :120][1] * 2).astype(np.uint8)))
    picture.save(path)
    expected = fit_picture(read_picture(path), (24, 24, 1), "crop")
    np.testing.assert_allclose(given(page, path), expected.ravel(), atol=3)


def test_a_photograph_is_turned_upright_and_a_broken_file_gets_a_message(visit, rng, tmp_path):
    shape = (20, 20, 3)
    page = visit(render(linear(shape, 2, rng), metadata(shape, ["a", "b"], framing="stretch"), []))
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    photograph(rng, 150, 220, "RGB").save(path, exif=exif, quality=95, subsampling=0)
    before = given(page, path)
    assert np.abs(before - fit_picture(read_picture(path), shape, "stretch").ravel()).mean() < 2
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    page.locator("#file").set_input_files(broken)
    page.get_by_text("broken.png is not an image that this browser can read").wait_for()
    np.testing.assert_array_equal(255 * pixels(page), before)


GIVE_FILE = """async ([type, bytes]) => {
    const transfer = new DataTransfer();
    if (bytes) transfer.items.add(new File([new Uint8Array(bytes)], `by ${type}.png`, {type: "image/png"}));
    const options = {bubbles: true, cancelable: true};
    document.getElementById("drawing").dispatchEvent(type === "paste"
        ? new ClipboardEvent(type, {...options, clipboardData: transfer})
        : new DragEvent(type, {...options, dataTransfer: transfer}));
}"""


def test_pictures_are_dropped_and_pasted_and_a_network_of_coloured_images_takes_no_strokes(
    visit, rng, tmp_path
):
    shape = (8, 8, 3)
    page = visit(render(linear(shape, 2, rng), metadata(shape, ["a", "b"], framing="crop"), []))
    draw(page, SEVEN)
    assert pixels(page) is None
    for way in ("drop", "paste"):
        picture = photograph(rng, 8, 8, "RGB")
        picture.save(tmp_path / "picture.png")
        page.evaluate(GIVE_FILE, [way, list((tmp_path / "picture.png").read_bytes())])
        page.get_by_text(f"by {way}.png").wait_for()
        np.testing.assert_allclose(255 * pixels(page), np.asarray(picture).ravel(), atol=1e-3)
    page.evaluate(GIVE_FILE, ["drop", None])
    assert "not a file" in page.inner_text("#problem")
    assert not page.locator("#undo").is_visible()
    page.keyboard.press("Control+z")
    assert page.inner_text("#shown") == "by drop.png."
    settle(page)


def test_a_picture_of_a_digit_is_framed_as_a_drawing_whatever_its_ink(visit, two_classes, tmp_path):
    page = visit(render(two_classes[0], metadata((28, 28, 1), ["a", "b"]), []))
    expected = np.pad(np.ones((20, 10)), ((4, 4), (9, 9))) * 255
    for ink, paper in ((20, 240), (200, 30)):
        image = np.full((300, 200), paper, np.uint8)
        image[100:200, 100:150] = ink
        path = tmp_path / f"{ink}.png"
        Image.fromarray(image).save(path)
        np.testing.assert_allclose(given(page, path).reshape(28, 28), expected, atol=1)
    path = tmp_path / "plain.png"
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(path)
    page.locator("#file").set_input_files(path)
    page.get_by_text("holds no ink").wait_for()
    settle(page)


def test_the_camera_takes_a_picture_and_stops(visit, rng):
    shape = (8, 8, 3)
    page = visit(render(linear(shape, 2, rng), metadata(shape, ["a", "b"], framing="crop"), []))
    page.get_by_role("button", name="Camera").click()
    page.locator(".take:focus").wait_for()  # it has the focus once pictures arrive
    track = page.evaluate_handle("document.querySelector('video').srcObject.getTracks()[0]")
    page.get_by_role("button", name="Take the picture").click()
    page.get_by_text("From the camera.").wait_for()
    settle(page)
    assert track.evaluate("track => track.readyState") == "ended"
    assert not page.locator("#preview").is_visible()
    assert np.ptp(pixels(page)) > 0.2
    page.evaluate("""() => {
        navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("no", "NotAllowedError"); };
    }""")
    page.get_by_role("button", name="Camera").click()
    page.get_by_text("does not allow this page to use the camera").wait_for()
    assert not page.locator("#preview").is_visible()


def test_without_a_camera_there_is_no_button_for_it(visit, two_classes):
    text = render(two_classes[0], metadata((28, 28, 1), ["a", "b"]), [])
    page = visit(
        text, before="Object.defineProperty(Navigator.prototype, 'mediaDevices', {value: undefined})"
    )
    assert not page.locator("#camera").is_visible()


def test_of_a_thousand_classes_the_likeliest_five_are_shown(visit, rng):
    shape = (6, 6, 3)
    names = [
        f"緑 class with the number {number} and a very_long_name_without_any_spaces" for number in range(1000)
    ]
    about = metadata(shape, names, framing="crop")
    model = linear(shape, 1000, rng)
    image = rng.integers(0, 256, shape, np.uint8)
    text = render(model, about, [(500, image)])
    page = visit(text, width=375)
    expected = softmax(model.predict(about.data.normalise(image[None])))[0]
    order = np.argsort(-expected)[:5]
    assert page.locator("#bars .label").all_inner_texts() == [names[k] for k in order]
    assert page.inner_text("#verdict") == names[order[0]]
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    assert "990 more" in page.inner_text("header")


def test_the_page_says_when_an_answer_may_mean_nothing(visit, two_classes):
    model, _ = two_classes
    page = visit(render(model, metadata((28, 28, 1), ["a", "b"]), []))
    strokes = "Float32Array.from({length: 784}, (_, k) => k % 4 ? 0 : 1)"
    assert page.evaluate(f"doubt({strokes}, 0.81)") == ""
    assert "not sure. Perhaps this is something else" in page.evaluate(f"doubt({strokes}, 0.79, false)")
    assert page.evaluate(f"doubt({strokes}, 0.79, true)") == "The network is not sure."  # a test image
    assert "one colour" in page.evaluate("doubt(new Float32Array(784).fill(0.5), 1)")
    assert "all is ink" in page.evaluate("doubt(Float32Array.from({length: 784}, (_, k) => k % 2), 1)")
    draw(page, *([(0.1, y), (0.9, y)] for y in np.linspace(0.1, 0.9, 11)))  # a square
    settle(page)
    assert "all is ink" in page.inner_text("#doubt")


def test_a_layer_that_the_page_does_not_know_gives_a_message(visit, two_classes):
    text = render(two_classes[0], metadata((28, 28, 1), ["a", "b"]), [])
    assert '"type": "flatten"' in text
    page = visit(text.replace('"type": "flatten"', '"type": "unheard"'))
    draw(page, SEVEN)
    settle(page)
    assert "The network failed: this page has no layer unheard." in page.inner_text("#problem")


def test_no_more_than_24_test_images_are_in_the_page(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    names = [str(number) for number in range(30)]
    data = metadata((2, 2, 3), names, 0.4, 0.2, examples={"train": 1, "validation": 1, "test": 60}).data
    data.path.parent.mkdir(parents=True)
    data.path.write_text(data.model_dump_json(), encoding="utf-8")
    images = rng.integers(0, 256, (60, 2, 2, 3), np.uint8)
    np.save(data.path.with_name("test_images.npy"), images)
    np.save(data.path.with_name("test_targets.npy"), np.eye(30, dtype=np.uint8)[np.repeat(range(30), 2)])
    found = example_images(data)
    assert [label for label, _ in found] == list(range(24))
    np.testing.assert_array_equal([image for _, image in found], images[:48:2])


def test_what_is_shown_in_the_end_is_the_last_picture(visit, rng):
    model = build([{"type": "flatten"}, {"type": "dense", "out_features": 10}], (9, 9, 1), 10, rng)
    images = rng.integers(0, 256, (2, 9, 9, 1), np.uint8)
    about = metadata((9, 9, 1), DIGITS)
    page = visit(render(model, about, [(0, images[0]), (1, images[1])]))
    page.evaluate("""() => new Promise((resolve) => {
        const [first, second] = document.querySelectorAll("#examples button");
        first.click();
        requestAnimationFrame(() => resolve(second.click())); // the worker computes the first one now
    })""")
    settle(page)
    expected = softmax(model.predict(about.data.normalise(images[1:])))[0]
    np.testing.assert_allclose(page.evaluate("playground.probabilities()"), expected, atol=1e-5)


def test_a_phone_can_draw_and_needs_no_scrolling_sideways(visit, rng):
    block = {"type": "residual", "layers": [{**CONV, "padding": [[1, 1], [1, 1]]}], "shortcut": [CONV_1X1]}
    specs = [{"type": "residual", "layers": [block], "shortcut": [CONV_1X1]}, {"type": "flatten"}]
    model = build([*specs, {"type": "dense", "out_features": 10}], (28, 28, 1), 10, rng)
    names = ["a class with a long name", *DIGITS[1:]]
    page = visit(render(model, metadata((28, 28, 1), names), []), width=375, has_touch=True, is_mobile=True)
    page.locator("#drawing").tap()
    settle(page)
    assert pixels(page) is not None
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_nothing_in_the_page_can_reach_a_network(browser, tmp_path, two_classes):
    text = render(two_classes[0], metadata((28, 28, 1), ["a", "</script><script>alert(1)</script>"]), [])
    assert "http:" not in text
    assert "https:" not in text
    assert "<script>alert" not in text
    (tmp_path / "playground.html").write_text(text, encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "playground.html").as_uri())
    refused = page.evaluate("""() => new Promise((resolve) => {
        const refused = [];
        addEventListener("securitypolicyviolation", (event) => {
            refused.push(event.effectiveDirective);
            if (refused.length === 5) resolve(refused);
        });
        setTimeout(resolve, 5000, refused);
        const nowhere = "http://127.0.0.1:9/";
        fetch(nowhere).catch(() => {});
        for (const [tag, properties] of [
            ["img", {src: nowhere}],
            ["iframe", {src: nowhere}],
            ["script", {src: nowhere}],
            ["link", {rel: "stylesheet", href: nowhere}],
        ]) document.body.append(Object.assign(document.createElement(tag), properties));
    })""")
    assert sorted(refused) == ["connect-src", "frame-src", "img-src", "script-src-elem", "style-src-elem"]
    assert "</script><script>" in page.locator("#bars .label").last.inner_text()
    page.close()


def test_the_command_writes_the_same_page_each_time(tmp_path, monkeypatch, capsys, two_classes):
    monkeypatch.chdir(tmp_path)
    layers = [{"type": "flatten"}, {"type": "dense", "out_features": 2}]
    about = metadata((28, 28, 1), ["a", "b"]).model_dump(mode="json") | {"layers": layers}
    checkpoint.save(Path("models/model.npz"), two_classes[0].state_dict(), about)
    playground()
    first = PLAYGROUND.read_bytes()
    playground()
    assert PLAYGROUND.read_bytes() == first
    output = capsys.readouterr().out
    assert "no test images" in output
    assert str(PLAYGROUND) in output


def agreement(page, model, images, labels, record_property):
    """Require that the page predicts the same as Python for each image; return the accuracy of both."""
    expected = model.predict(images)
    found = predict_in_page(page, images)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    same = int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
    accuracy = float((found.argmax(axis=1) == labels).mean())
    record_property("same_predictions", same)
    record_property("accuracy", accuracy)
    print(f"{same} of {len(images)} predictions are Python's; {accuracy:.1%} are right")
    assert same == len(images)
    return accuracy


def test_a_network_trained_on_small_digits_recognises_them_as_in_python(visit, rng, record_property):
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[digits.target]
    specs = [CONV, {"type": "relu"}, {"type": "flatten"}, {"type": "dense", "out_features": 10}]
    model = build_model(specs, "test", (8, 8, 1), 10, rng)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(150):
        batch = rng.integers(0, len(images) - 200, 64)
        _, grad = softmax_cross_entropy(model.forward(images[batch], training=True), targets[batch])
        model.backward(grad)
        optimizer.step()
    page = visit(render(model, metadata((8, 8, 1), DIGITS), []))
    assert agreement(page, model, images[-200:], digits.target[-200:], record_property) > 0.8


@pytest.fixture
def trained_here(visit, monkeypatch):
    """(page, model, description, images, labels) of the network in this checkout, if it is one of MNIST."""
    monkeypatch.chdir(ROOT)
    if not Path("models/model.npz").exists() or not Path("data/processed/dataset.json").exists():
        pytest.skip("There is no trained network here, or no data: dvc repro makes them.")
    model, about = load_model()
    examples = example_images(about.data)
    if about.data.dataset != "mnist" or not examples:
        pytest.skip("The trained network here is not one of the MNIST images here: dvc repro makes it.")
    test = load_examples("test", about.data)
    images, labels = np.array(test.images[:200]), test.targets[:200].argmax(axis=1)
    return visit(render(model, about, examples)), model, about.data, images, labels


def test_the_trained_network_recognises_mnist_as_in_python(trained_here, record_property):
    page, model, _, images, labels = trained_here
    agreement(page, model, images, labels, record_property)
    assert page.locator("#examples button").count() == 10


def test_the_network_of_the_last_commit_reads_ink_on_the_canvas_nearly_as_well(trained_here, record_property):
    """The test images, 280 pixels wide, framed by the page; one of an experiment may be worse at that."""
    page, model, data, images, labels = trained_here
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "dvc.lock"], cwd=ROOT).returncode:
        pytest.skip(
            "The trained network here is that of an experiment: git checkout dvc.lock && dvc checkout"
        )
    accuracy = float((model.predict(images).argmax(axis=1) == labels).mean())
    ink = np.round(255 * data.brightness(images)).astype(int).reshape(200, -1).tolist()
    framed = page.evaluate(
        """images => images.map(image => {
            const large = Float32Array.from({length: 280 * 280},
                (_, k) => image[28 * Math.floor(k / 2800) + Math.floor(k % 280 / 10)] / 255);
            return Array.from(playground.frame({ data: large, height: 280, width: 280 }, 28, 28));
        })""",
        ink,
    )
    again = data.normalise(np.array(framed, np.float32).reshape(images.shape))
    as_ink = float((model.predict(again).argmax(axis=1) == labels).mean())
    record_property("accuracy_as_ink", as_ink)
    print(f"as ink: {as_ink:.1%} of 200 are right")
    assert as_ink >= accuracy - 0.03


def test_a_layer_that_the_page_cannot_compute_is_refused_by_name(rng):
    class Unheard(Flatten):
        pass

    model = Sequential([Unheard(), Dense(4, 4, rng=rng)])
    with pytest.raises(UserError, match=r"layer 0, Unheard\(\): page/network\.js has no unheard") as error:
        render(model, metadata((2, 2, 1), ["a", "b", "c", "d"]), [])
    assert "network.js: add it to LAYERS" in str(error.value)


def test_the_page_computes_layers_of_the_library():
    assert layers_of_the_page() <= set(LAYERS)
    assert len(layers_of_the_page()) >= 22
