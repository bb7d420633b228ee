"""What axe-core finds in a page that would keep someone from reading or using it."""

from importlib.resources import files

LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 375)]
RUN = """async () => (await axe.run({ resultTypes: ["violations"] })).violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => [id, nodes.length, nodes[0].html.slice(0, 200), nodes[0].failureSummary])"""


def barriers(browser, file, prepare):
    """The serious and critical findings, light and dark, on a desktop and a phone; `prepare` opens what is folded."""
    context = browser.new_context(bypass_csp=True, reduced_motion="reduce")  # the policy allows no other script
    page = context.new_page()
    page.goto(file.as_uri())
    prepare(page)
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = []
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        found += [(scheme, width, *finding) for finding in page.evaluate(RUN)]
    context.close()
    return found
