"""HTML files from the templates beside this module: each needs nothing else, no network, no script, no second file."""

import base64
import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from distil.files import write_atomic

PIXELS_PER_INCH = 96
"""Resolution at which a browser shows a picture in its own size."""


@dataclass(frozen=True)
class Picture:
    """A picture that stands in the page itself."""

    description: str
    """What it shows, for those who cannot see it."""
    caption: str
    data: str
    """The PNG file in base64."""
    width: int
    height: int


def picture(figure: Figure, description: str, caption: str) -> Picture:
    """A figure as a picture for a page."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=figure.dpi)
    width, height = (round(side * PIXELS_PER_INCH) for side in figure.get_size_inches())
    return Picture(description, caption, base64.b64encode(buffer.getvalue()).decode(), width, height)


def write_page(path: Path | str, template: str, **values: Any) -> None:
    """Write a template filled with values, atomically; text in them is escaped.

    Raises: DistilError when the file cannot be written.
    """
    pages = Environment(
        loader=PackageLoader("distil.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["as_json"] = lambda value: json.dumps(value, ensure_ascii=False)
    pages.filters["percent"] = lambda value: "-" if value != value else f"{value:.1f}"
    page = pages.get_template(template).render(**values)
    write_atomic(path, lambda temporary: temporary.write_text(page, encoding="utf-8", errors="replace"))
