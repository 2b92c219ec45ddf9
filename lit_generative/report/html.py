"""The report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

import re
from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lit_generative.report.sections import Sections
from lit_generative.report.statistics import RULE, SPREADS
from lit_generative.report.theme import Theme

__all__ = ["html_report"]


def html_report(sections: Sections) -> str:
    """Return the text of ``report.html``, of the template ``report.html.j2``."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"unbroken": _unbroken, "base64": lambda content: b64encode(content).decode()}
    colours = Theme.of(sections.comparison.by_name()).colours
    template = environment.get_template("report.html.j2")
    return template.render(sections=sections, colours=colours, reading=(SPREADS, RULE))


def _unbroken(text: str) -> str:
    """Return text whose lines do not break before an arrow or around ±."""
    return re.sub(r" (?=[±↓↑→])|(?<=[±→]) ", "\u00a0", text)
