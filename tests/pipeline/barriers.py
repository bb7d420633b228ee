"""What axe-core finds in a page that would keep someone from reading or using it."""

from importlib.resources import files

# Only the contrast depends on the colours: all other rules run once for each width.
LOOKS = [(scheme, width) for width in (1280, 375) for scheme in ("light", "dark")]
RUN = """async ([scheme]) => {
    const runOnly = scheme === "dark" ? { runOnly: ["color-contrast"] } : {};
    const { violations } = await axe.run({ resultTypes: ["violations"], ...runOnly });
    return violations
        .filter(({ impact }) => ["serious", "critical"].includes(impact))
        .map(({ id, nodes }) => [id, nodes.length, nodes[0].html.slice(0, 200), nodes[0].failureSummary]);
}"""


def barriers(browser, file, prepare=lambda page: None):
    """The serious and critical findings, light and dark, on a desktop and a phone, with all that is folded open."""
    context = browser.new_context(
        bypass_csp=True, reduced_motion="reduce"
    )  # the policy allows no other script
    page = context.new_page()
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    prepare(page)
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = []
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        found += [(scheme, width, *finding) for finding in page.evaluate(RUN, [scheme])]
    context.close()
    return found
