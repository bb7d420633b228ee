"""Texts and pages from templates."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def fill(template: Path, **values: object) -> str:
    """The template filled with `values`; in HTML, all text that is not Markup is escaped.

    Besides Jinja's own filters there are `number`: {{ 0.5 | number(".1%") }} gives 50.0%, and `markdown`,
    which escapes what Markdown would take for markup.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = format
    environment.filters["markdown"] = lambda text: re.sub(r"([\\`*_\[\]<>#|$&~])", r"\\\1", text)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment.get_template(template.name).render(values)
