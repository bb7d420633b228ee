"""The playground's page as a reader uses it: numbers are clicked, labels chosen, steps of learning taken."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from barriers import barriers
from test_page_gradients import network, table
from test_playground import DIGITS, SEVEN, build, draw, metadata, settle
from test_playground import browser as browser
from test_playground import shared_tab as shared_tab
from test_playground import visit as visit

from cnn.ops.softmax import softmax
from cnn.registry import LOSSES
from pipeline.apps.playground import TEMPLATE, layers_of_the_page, measured_images, render
from pipeline.apps.predict import pictures_in
from pipeline.errors import UserError

ROOT = Path(__file__).parents[2]
SMALL = [
    {"type": "conv2d", "out_channels": 3, "kernel_size": 3},
    {"type": "relu"},
    {"type": "max_pool2d", "kernel_size": 2},
    {"type": "flatten"},
    {"type": "dense", "out_features": 4},
]


def small(rng, measured=0):
    """A page of a small network with four test images, and `measured` ones to measure by."""
    model = build(SMALL, (10, 10, 1), 4, rng)
    images = rng.integers(0, 256, (4 + measured, 10, 10, 1), np.uint8)
    labelled = [(k % 4, image) for k, image in enumerate(images)]
    about = metadata((10, 10, 1), DIGITS[:4], 0.5, 0.25)
    return model, about, render(model, about, labelled[:4], labelled[4:])


def lens(page):
    """What the lens shows, as soon as it shows all of it: {place, value, sum, terms, slope}."""
    return page.evaluate("playground.lens()")


# Clicks `each` random numbers of every array, and returns what the lens shows of them.
PICK_MANY = """async ([each, seed]) => {
    let state = seed;
    const random = (n) => (state = (state * 48271) % 2147483647) % n;
    const found = [];
    for (const { of, layer, size } of playground.strips()) {
        for (let k = 0; k < each; k++) {
            await playground.pick({ of, layer, index: random(size) });
            const text = document.querySelector("#lens .value-line strong").textContent;
            const isEqual = document.querySelector("#lens .equal")?.textContent.endsWith(", the number shown");
            const frames = document.querySelectorAll("#rows .source, #rows .framed").length;
            found.push({ ...(await playground.lens()), text, isEqual, frames });
        }
    }
    await playground.pick({ of: "loss", layer: "", index: 0 });
    found.push({ ...(await playground.lens()), isEqual: true, frames: 1 });
    return found;
}"""


@pytest.mark.parametrize(
    "name", ["max_pooling", "average_pooling", "normalisation", "nesting", "global_maximum", "baseline"]
)
def test_the_sum_in_the_lens_is_the_number_that_was_clicked(name, visit, rng, record_property):
    model, shape, classes = network(name, rng)
    image = rng.integers(0, 256, shape, np.uint8)
    page = visit(render(model, metadata(shape, DIGITS[:classes], 0.4, 0.3), [(1, image)]))
    found = page.evaluate(PICK_MANY, [7, 12345])
    assert len(found) > 100
    record_property("numbers", len(found))
    kinds = set()
    kinked = 0
    for one in found:
        of, value, total = one["place"]["of"], one["value"], one["sum"]
        kinds.add(of)
        if total is None:  # pixels and weights are given, and what no window reads has no gradient
            assert value == 0 if of.startswith("grad_") else of not in ("y", "loss")
            continue
        assert math.isclose(total, value, rel_tol=1e-6, abs_tol=1e-6), one
        assert one["isEqual"], one
        if of.startswith("grad_"):
            kinked += not math.isclose(one["slope"], value, rel_tol=1e-4, abs_tol=1e-7)
    assert {"x", "y", "grad_x", "grad_y", "loss"} <= kinds
    assert kinked <= 0.05 * len(found)  # where a maximum or ReLU switches within ±ε


def test_a_click_on_a_cell_shows_that_number_and_frames_where_it_comes_from(visit, rng):
    model, _, text = small(rng)
    page = visit(text)
    pixels = np.array(page.evaluate("Array.from(playground.pixels())"), np.float32).reshape(1, 10, 10, 1)
    expected = model.layers[0].forward(pixels)[0]
    canvas = page.locator("[data-layer='0'] .forward canvas").nth(2)
    box = canvas.bounding_box()
    canvas.click(position={"x": 3.5 / 8 * box["width"], "y": 5.5 / 8 * box["height"]})
    shown = lens(page)
    assert shown["place"] == {"of": "y", "layer": "0", "index": (5 * 8 + 3) * 3 + 2}
    assert shown["value"] == pytest.approx(expected[5, 3, 2], rel=1e-5)
    assert "row 5, column 3, channel 2" in page.inner_text("#lens .what")
    frame = page.locator("[data-layer=''] .forward .frame.source").first
    style = frame.evaluate("frame => [frame.style.top, frame.style.left, frame.style.width].map(parseFloat)")
    np.testing.assert_allclose(style, [50, 30, 30])  # rows 5 to 7, columns 3 to 5 of 10
    assert page.locator("#lens .cells .cell").count() == 27  # pixels, kernel, products
    page.locator("#lens .cells").nth(1).locator(".cell").nth(4).click()  # of the kernel
    assert lens(page)["place"] == {"of": "kernel", "layer": "0", "index": 4 * 3 + 2}
    page.locator("#lens .pair-link").click()
    page.locator("#lens").get_by_text("by nudging").wait_for()
    assert lens(page)["place"]["of"] == "grad_kernel"
    page.locator("#lens .back").click()
    assert lens(page)["place"]["of"] == "kernel"


# For `each` random numbers of every array: those that it goes to, and the sources of each.
GO_MANY = """async ([each, seed]) => {
    let state = seed;
    const random = (n) => (state = (state * 48271) % 2147483647) % n;
    const sourcesOf = async (place) => {
        const { explanations: [{ terms, compared }] } = await playground.ask("explain", { places: [place] });
        const factors = [...terms.flatMap((term) => term.factors), ...compared];
        const places = factors.flatMap(({ places }) => places);
        // in the place of dL/d(input) of a branch, those that it comes from
        return (await Promise.all(places.map((one) => one.of === "grad_x" ? sourcesOf(one) : [one]))).flat();
    };
    const found = [];
    for (const { of, layer, size } of playground.strips()) {
        for (let k = 0; k < each; k++) {
            const place = { of, layer, index: random(size) };
            const { goals } = await playground.ask("goals", { place });
            const some = goals.filter((_, j) => j % Math.ceil(goals.length / 5) === 0);
            found.push([place, goals.length, await Promise.all(some.map(sourcesOf)), some]);
        }
    }
    return found;
}"""


@pytest.mark.parametrize("name", ["normalisation", "nesting", "baseline"])
def test_a_number_goes_to_those_that_come_from_it(name, visit, rng):
    model, shape, classes = network(name, rng)
    image = rng.integers(0, 256, shape, np.uint8)
    page = visit(render(model, metadata(shape, DIGITS[:classes], 0.4, 0.3), [(1, image)]))
    reached = set()
    for place, count, sources, goals in page.evaluate(GO_MANY, [2, 4711]):
        kind, is_back = place["of"].removeprefix("grad_"), place["of"].startswith("grad_")
        if is_back and kind not in ("x", "y"):
            assert count == 0  # a weight's gradient is an end
        for goal, found in zip(goals, sources, strict=True):
            reached.add(goal["of"])
            if goal["of"] == "loss":
                assert place["of"] == "y"
            elif goal["of"].startswith("grad_") == is_back:
                assert place in found, (place, goal)
            else:
                raise AssertionError((place, goal))
    assert {"y", "grad_y", "loss"} <= reached
    assert any(of not in ("grad_x", "grad_y") and of.startswith("grad_") for of in reached)


def test_the_number_that_a_chosen_one_goes_to_is_framed_with_dashes_and_linked(visit, rng):
    page = visit(small(rng)[2])
    page.evaluate("playground.pick({of: 'x', layer: '', index: 34})")  # row 3, column 4
    frames = page.locator("[data-layer='0'] .forward .frame.goal")
    assert frames.count() == 3  # of each map the 3 x 3 numbers whose windows it lies in
    style = frames.first.evaluate("({style: s}) => [s.top, s.left, s.width, s.height].map(parseFloat)")
    np.testing.assert_allclose(style, [100 / 8, 200 / 8, 300 / 8, 300 / 8])
    link = page.get_by_role("button", name="27 numbers: output of Conv2D (layer 0)")
    link.click()
    assert lens(page)["place"] == {"of": "y", "layer": "0", "index": (1 * 8 + 2) * 3}
    assert page.locator("[data-layer='1'] .forward .frame.goal").count() == 1
    page.evaluate("playground.pick({of: 'y', layer: '4', index: 2})")
    assert page.locator(".layer.loss.goal").count() == 1
    assert "The loss" in page.inner_text("#lens .goes")


def test_closed_cells_of_relu_are_hatched_and_the_winners_of_windows_marked(visit, rng):
    model, _, text = small(rng)
    page = visit(text)
    pixels = np.array(page.evaluate("Array.from(playground.pixels())"), np.float32).reshape(1, 10, 10, 1)
    y = model.layers[1].forward(model.layers[0].forward(pixels))
    page.locator("[data-layer='1']").scroll_into_view_if_needed()
    script = """canvases => canvases.map((c) => {
        const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        return Array.from(new Uint32Array(data.buffer));
    })"""
    hatched = page.eval_on_selector_all("[data-layer='1'] .backward canvas", script)
    winners = page.eval_on_selector_all("[data-layer='2'] .winners canvas", script)
    for channel in range(3):
        cells = np.array(hatched[channel]).reshape(8, 3, 8, 3).swapaxes(1, 2).reshape(8, 8, 9)
        is_striped = (cells != cells[..., :1]).any(axis=2)
        np.testing.assert_array_equal(is_striped, y[0, ..., channel] == 0)
        won = np.array(winners[channel]).reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(16, 4) > 0
        windows = y[0, ..., channel].reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(16, 4)
        np.testing.assert_array_equal(won, np.eye(4, dtype=bool)[windows.argmax(axis=1)])


def test_the_class_whose_weights_are_shown_is_the_chosen_one_also_beside_a_sum_over_classes(visit, rng):
    page = visit(small(rng)[2])
    chooser = page.locator("[data-layer='4'] select")
    for k in (3, 1):
        page.locator("#labels label").nth(k).click()
        settle(page)
        page.evaluate("playground.pick({of: 'grad_y', layer: '3', index: 7})")
        assert chooser.input_value() == str(k)
    page.evaluate("playground.pick({of: 'y', layer: '4', index: 2})")
    assert chooser.input_value() == "2"


def test_a_gradient_can_be_followed_to_the_loss(visit, rng):
    page = visit(small(rng)[2])
    page.evaluate("playground.pick({of: 'grad_kernel', layer: '0', index: 4})")
    ways = []
    for _ in range(20):
        shown = lens(page)
        ways.append(f"{shown['place']['of']} {shown['place']['layer']}")
        links = page.locator("#lens .terms button.number")
        gradients = [
            k
            for k, text in enumerate(links.evaluate_all("all => all.map(one => one.title)"))
            if "Gradient" in text
        ]
        if not gradients:
            break
        links.nth(gradients[0]).click()
    assert ways == ["grad_kernel 0", "grad_y 0", "grad_y 1", "grad_y 2", "grad_y 3", "grad_y 4"]
    assert "ŷ[k] − t[k]" in page.inner_text("#lens .equation")


def test_every_number_is_reached_by_keyboard(visit, rng):
    page = visit(small(rng)[2])
    page.locator("#shared-scale").focus()
    stops = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        label = page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''")
        if "Arrow keys" in label:
            stops.add(label.split(":")[0])
        if page.evaluate("document.activeElement.closest('#lens') !== null"):
            break
    assert len(stops) == page.evaluate("playground.strips().length")  # one stop for each array
    page.locator("[data-layer='0'] .forward .maps").focus()
    place = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "PageDown", "End", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
        place.append(lens(page)["place"]["index"])
    at = lambda row, column, map_: (row * 8 + column) * 3 + map_  # noqa: E731
    expected = [at(0, 0, 0), at(0, 1, 0), at(1, 1, 0), at(1, 1, 1), at(1, 7, 1), at(1, 0, 2), at(1, 7, 1)]
    assert place == expected
    assert page.inner_text("#lens .spoken").startswith(
        "Output of Conv2D (layer 0): row 1, column 7, channel 1: "
    )
    assert page.evaluate("document.activeElement.classList.contains('maps')")


def test_what_it_should_be_is_the_label_of_a_test_image_and_of_a_drawing_the_answer_until_chosen(visit, rng):
    model, about, text = small(rng)
    page = visit(text)
    images = [np.array(page.evaluate(f"Array.from(examples[{k}].picture.bytes)")) for k in range(4)]
    inputs = np.array([about.data.normalise(x.astype(np.uint8).reshape(10, 10, 1)) for x in images])
    hardest = int(np.diag(softmax(model.predict(inputs))).argmin())  # the page begins with it
    checked = "Number(document.querySelector('#labels input:checked')?.value ?? -1)"
    label = "ladder.pass.label"
    assert page.evaluate(checked) == page.evaluate(label) == hardest
    page.get_by_role("button", name="Test image of class 2").click()
    settle(page)
    assert page.evaluate(checked) == page.evaluate(label) == 2
    draw(page, SEVEN)
    settle(page)
    answer = int(page.inner_text("#verdict"))
    assert page.evaluate(checked) == page.evaluate(label) == answer
    assert "own answer" in page.inner_text("#label-note")
    other = (answer + 1) % 4
    page.locator("#labels label").nth(other).click()
    settle(page)
    assert page.evaluate(checked) == page.evaluate(label) == other
    assert page.evaluate("ladder.pass.grad_y['4'].findIndex((g) => g < 0)") == other
    draw(page, [(0.2, 0.2), (0.3, 0.3)])  # a further stroke
    settle(page)
    assert page.evaluate(label) == other
    page.get_by_role("button", name="Clear").click()
    settle(page)
    assert page.evaluate(checked) == -1
    draw(page, SEVEN)
    settle(page)
    assert page.evaluate(label) == answer


WEIGHTS = "async () => { const { weights } = await playground.ask('weights', {});"
WEIGHTS += (
    " return JSON.stringify(Object.entries(weights).map(([name, array]) => [name, Array.from(array)])); }"
)


def step(page, name):
    page.get_by_role("button", name=name, exact=True).click()
    page.wait_for_timeout(50)
    page.locator("#teach[data-state=idle]").wait_for()
    settle(page)


def test_a_wrong_answer_becomes_right_in_counted_steps_and_undo_and_reset_give_the_first_bytes(visit, rng):
    model, _, text = small(rng, measured=40)
    page = visit(text)
    draw(page, SEVEN)
    settle(page)
    wrong = int(page.inner_text("#verdict"))
    right = (wrong + 1) % 4
    page.locator("#labels label").nth(right).click()
    settle(page)
    first, image = page.evaluate(WEIGHTS), page.evaluate("Array.from(playground.pixels())")
    losses = [page.evaluate("ladder.pass.loss")]
    page.locator("#rate").evaluate("rate => { rate.value = -2.5; rate.dispatchEvent(new Event('input')); }")
    steps = 0
    while int(page.inner_text("#verdict")) != right:
        step(page, "One step")
        steps += 1
        losses.append(page.evaluate("ladder.pass.loss"))
        assert losses[-1] < losses[-2]
        assert steps < 40
    print(f"{steps} steps from {wrong} to {right}; losses {losses[0]:.3f} to {losses[-1]:.3f}")
    assert f"{steps} step" in page.inner_text("#teach .steps")
    assert page.locator(".ghost").first.is_visible()
    assert "old + change = new" in page.inner_text("#teach .moved")
    expected = softmax(model.predict(np.array(image, np.float32).reshape(1, 10, 10, 1)))[0]
    assert expected.argmax() == wrong  # Python's network has not learnt
    cost = page.inner_text("#teach .cost")
    assert re.search(r"of 40 test images .* get \d+ right, and these weights \d+", cost)
    for _ in range(steps):
        step(page, "One step back")
    assert page.evaluate(WEIGHTS) == first
    assert int(page.inner_text("#verdict")) == wrong
    step(page, "Ten steps")
    assert page.locator("#teach .curve svg").count() == 1
    assert page.evaluate(WEIGHTS) != first
    step(page, "Back to the trained weights")
    assert page.evaluate(WEIGHTS) == first
    page.locator("#labels label").nth(right).click()
    settle(page)
    assert page.evaluate("ladder.pass.loss") == losses[0]


def test_the_promise_is_the_slope_and_the_kept_drawings_are_learnt_together(visit, rng):
    page = visit(small(rng)[2])
    for k in (1, 2):
        page.get_by_role("button", name=f"Test image of class {k}").click()
        settle(page)
        page.get_by_role("button", name="Keep the picture above").click()
    assert page.locator("#teach .kept li").count() == 2
    page.locator("#source").select_option("kept")
    page.locator("#rate").evaluate("rate => { rate.value = -4; rate.dispatchEvent(new Event('input')); }")
    step(page, "One step")
    number = r"([−+]?\d+\.?\d*)"
    pattern = rf"Loss {number} → {number}: a change of {number}\. .* −rate · Σg² = {number}\."
    found = re.match(pattern, page.inner_text("#teach .result")).groups()
    before, after, change, promised = (float(text.replace("−", "-")) for text in found)
    assert change == pytest.approx(promised, rel=0.2)
    assert after == pytest.approx(before + change, abs=2e-3 * before)
    page.get_by_role("button", name="Remove the drawing kept as 2").click()
    assert page.locator("#teach .kept li").count() == 1


def test_saved_drawings_can_be_loaded_and_predict_sees_what_the_network_received(visit, rng, tmp_path):
    _, about, text = small(rng)
    page = visit(text)
    draw(page, SEVEN)
    settle(page)
    page.locator("#labels label").nth(3).click()
    page.get_by_role("button", name="Keep the picture above").click()
    image = about.data.brightness(
        np.array(page.evaluate("Array.from(playground.pixels())")).reshape(10, 10, 1)
    )
    page.get_by_role("button", name="Test image of class 1").click()
    settle(page)
    page.get_by_role("button", name="Keep the picture above").click()
    file = tmp_path / "drawings.json"
    file.write_text(page.evaluate("teacher.toText()"), encoding="utf-8")
    found = list(pictures_in(file, about.data))
    assert [str(name.relative_to(file)) for name, _, _ in found] == ["1-3", "2-1"]
    np.testing.assert_allclose(found[0][1] / 255, image, atol=0.51 / 255)
    page.locator("#teach .load-file").set_input_files(file)
    page.locator("#teach .kept li").nth(3).wait_for()
    kept = page.evaluate("teacher.kept.map(({bytes, label}) => [label, ...bytes])")
    assert kept[2:] == kept[:2]
    assert kept[0] == [3, *found[0][1].ravel().tolist()]
    bad = tmp_path / "bad.json"
    bad.write_text('{"type": "something else"}', encoding="utf-8")
    page.locator("#teach .load-file").set_input_files(bad)
    page.get_by_text("bad.json is not a file of drawings").wait_for()
    with pytest.raises(UserError, match="must be one of drawings"):
        list(pictures_in(bad, about.data))


def test_the_walk_leads_from_a_pixel_to_the_loss_and_back_and_can_be_left(visit, rng):
    page = visit(small(rng)[2])
    page.locator("header .start-walk").click()
    page.locator("#walk .next:focus").wait_for()
    seen = []
    while True:
        place = lens(page)["place"]
        seen.append(f"{place['of']} {place['layer']}")
        assert page.inner_text("#walk .walk-text") != ""
        if page.inner_text("#walk .next") == "Teach it":
            break
        page.keyboard.press("Enter")
    there = ["x ", "y 0", "y 1", "y 2", "y 4", "loss "]
    assert seen == [*there, "grad_y 4", "grad_y 3", "grad_y 1", "grad_y 0", "grad_kernel 0", "kernel 0"]
    page.get_by_role("button", name="Test image of class 2").click()
    settle(page)
    assert lens(page)["place"]["of"] == "kernel"
    for _ in range(5):
        page.locator("#walk .previous").click()
        place = lens(page)["place"]
    assert place == {"of": "grad_y", "layer": "4", "index": 2}  # of the class of the new picture
    assert "“2”" in page.inner_text("#walk .walk-text")
    page.locator("#walk .end").click()
    assert not page.locator("#walk").is_visible()
    assert page.evaluate("document.activeElement.id") == "lens-title"


def test_the_walk_ends_at_the_step_of_learning_and_its_weight_is_the_first_of_those_that_moved(visit, rng):
    page = visit(small(rng)[2], reduced_motion="reduce")
    page.locator("header .start-walk").click()
    page.locator("#walk .next:focus").wait_for()
    page.evaluate("walk.go(walk.steps.length - 1)")
    place = lens(page)["place"]
    told = page.inner_text("#walk .walk-text")
    page.locator("#walk .next").click()
    assert not page.locator("#walk").is_visible()
    assert page.evaluate("document.activeElement.textContent") == "One step"
    assert page.evaluate("document.activeElement.getBoundingClientRect().bottom <= innerHeight")
    step(page, "One step")
    first = page.locator("#teach .moved tr").first.inner_text()
    row, rest = divmod(place["index"], 9)
    assert first.startswith(f"kernel[{row}, {rest // 3}, 0, {rest % 3}], layer 0 (chosen)")
    assert first.split("=")[1].strip() == re.search(r"= ([−.\d]+)\. If", told)[1]  # as the walk promised


def test_on_a_phone_the_walk_covers_half_the_screen_at_most_and_never_the_number_it_points_at(visit, rng):
    page = visit(small(rng)[2], width=375, has_touch=True, is_mobile=True, reduced_motion="reduce")
    page.evaluate("walk.start()")
    page.locator("#walk .next:focus").wait_for()
    for _ in range(page.evaluate("walk.steps.length")):
        page.evaluate("playground.lens()")
        sheet, height = page.evaluate(
            "[document.querySelector('#lens').getBoundingClientRect().top, innerHeight]"
        )
        assert sheet >= height / 2
        frame = page.locator("#rows :is(.chosen, .framed)").first
        top, bottom = frame.evaluate(
            "f => { const r = f.getBoundingClientRect(); return [r.top, r.bottom]; }"
        )
        assert 0 < top < sheet
        assert (
            bottom <= sheet or bottom - top > 0.4 * height
        )  # the row of the loss is higher than what is free
        page.locator("#walk .next").tap()
    assert not page.locator("#lens").is_visible()  # so that what a step does is seen
    assert page.evaluate("teacher.chosenWeight(arrays, arrays) !== null")


def test_the_walk_stops_at_each_kind_of_layer_once_on_its_way_there_and_back(visit, rng):
    model, shape, classes = network("nesting", rng)
    image = rng.integers(0, 256, shape, np.uint8)
    page = visit(render(model, metadata(shape, DIGITS[:classes], 0.4, 0.3), [(1, image)]))
    page.evaluate("walk.start()")
    page.locator("#walk .next:focus").wait_for()
    places = page.evaluate("walk.steps.map(([place]) => `${place.of} ${place.layer}`)")
    assert len(places) == len(set(places)) >= 8
    assert places[0] == "x "
    assert "loss " in places
    texts = page.evaluate("walk.steps.map(([, text]) => text)")
    assert all("undefined" not in text and "NaN" not in text for text in texts)


def test_the_page_has_no_barriers_in_light_and_dark_on_a_desktop_and_a_phone(browser, rng, tmp_path):
    def open_all(page):
        settle(page)
        page.evaluate("walk.start()")
        page.locator("#walk .next:focus").wait_for()

    file = tmp_path / "playground.html"
    file.write_text(small(rng)[2], encoding="utf-8")
    assert barriers(browser, file, open_all) == []


def test_on_a_phone_the_columns_are_tabs_and_the_chosen_number_stays(visit, rng):
    page = visit(small(rng)[2], width=375, has_touch=True, is_mobile=True)
    column = "[data-layer='0'] .{}"
    assert page.locator(column.format("forward")).is_visible()
    assert not page.locator(column.format("backward")).is_visible()
    page.locator("[data-layer='0'] .forward canvas").first.tap()
    page.locator("#lens.open").wait_for()
    place = lens(page)["place"]
    page.get_by_role("tab", name="backward").click()
    assert page.locator(column.format("backward")).is_visible()
    assert lens(page)["place"] == place
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.locator("#lens .close").tap()
    assert not page.locator("#lens").is_visible()


def test_each_equation_names_a_section_of_the_mathematics():
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs/mathematics.md").read_text(encoding="utf-8"), re.M)
    text = (TEMPLATE.parent / "lens.js").read_text(encoding="utf-8")
    sections = set(re.findall(r'section: "(.*?)"', text))
    assert len(sections) >= 10
    assert sections <= set(headings)
    backward = (TEMPLATE.parent / "backward.js").read_text(encoding="utf-8")
    activations = set(re.findall(r"^  (\w+): timesDerivative\(", backward, re.M))
    assert set(table("lens.js", "EQUATIONS")) | activations == layers_of_the_page()
    assert set(table("lens.js", "LOSS_EQUATIONS")) == set(LOSSES) - {"mean_squared_error"}  # no page has it


def test_the_images_that_measure_are_others_than_those_to_choose_and_of_all_classes(
    tmp_path, monkeypatch, rng
):
    monkeypatch.chdir(tmp_path)
    data = metadata((2, 2, 1), DIGITS[:3], 0.4, 0.2, examples={"train": 1, "validation": 1, "test": 150}).data
    assert measured_images(data) == []
    data.path.parent.mkdir(parents=True)
    data.path.write_text(data.model_dump_json(), encoding="utf-8")
    images = rng.integers(0, 256, (150, 2, 2, 1), np.uint8)
    labels = np.repeat([0, 1, 2], [10, 60, 80])
    np.save(data.path.with_name("test_images.npy"), images)
    np.save(data.path.with_name("test_targets.npy"), np.eye(3, dtype=np.uint8)[labels])
    found = measured_images(data)
    assert len(found) == 100
    assert np.bincount([label for label, _ in found]).tolist() == [9, 46, 45]
    firsts = {images[k].tobytes() for k in (0, 10, 70)}
    assert not firsts & {image.tobytes() for _, image in found}
