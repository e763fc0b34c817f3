"""Self-contained HTML pages: one renderer, one set of styles and one script for all of them.

A page is a jinja2 template that extends `base.html` and may use the macros of `macros.html`. It
carries its styles, scripts, pictures and records, and loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfd_edge.sinks.files import written_whole
from dfd_edge.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

#: An interval in brackets, which no line break divides.
_INTERVAL = re.compile(r"\[[^\]]*\]")
_FOLDER = Path(__file__).resolve().parent
#: Characters that would end or reopen a script element, escaped so that JSON reads the same.
_IN_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def render_page(
    template: Path,
    values: Mapping[str, Any],
    *,
    records: str,
    charts: bool,
    filters: Mapping[str, Callable[..., object]] | None = None,
) -> str:
    """Fills in a template.

    Args:
        template: The file; templates beside it can be included.
        values: What the template takes. No value can become markup or a script.
        records: JSON that the page carries and offers to save.
        charts: Whether there are any; without them plotly is left out.
        filters: More filters for the template.
    """
    from markupsafe import Markup  # noqa: PLC0415 - comes with jinja2
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    scripts = [(_FOLDER / "page.js").read_text("utf-8")]
    if charts:
        scripts.insert(0, str(get_plotlyjs()))
    environment = page_environment(template.parent)
    environment.filters.update(filters or {})
    return environment.get_template(template.name).render(
        policy=_content_policy(scripts),
        css=Markup((_FOLDER / "page.css").read_text("utf-8")),  # our own file
        scripts=[Markup(script) for script in scripts],  # ours and plotly's
        records=records,
        written=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        **values,
    )


def write_page(
    path: Path, template: Path, values: Mapping[str, Any], *, records: str, charts: bool
) -> None:
    """Fills in a template and writes the page, whole or not at all.

    Args:
        path: Path of the page.
        template: See `render_page`, as for the other arguments.
        values: What the template takes.
        records: JSON that the page carries.
        charts: Whether there are any.
    """
    text = render_page(template, values, records=records, charts=charts)
    with written_whole(path) as partial:
        partial.write_text(text, "utf-8", newline="\n")


def data_uri(encoded: bytes, kind: str = "image/jpeg") -> str:
    """Returns an address that holds the bytes themselves; `kind` is their media type."""
    return f"data:{kind};base64,{base64.b64encode(encoded).decode('ascii')}"


def page_environment(folder: Path) -> Environment:
    """Creates an environment in which every value is escaped, and a missing one is an error."""
    import jinja2  # noqa: PLC0415
    from markupsafe import Markup, escape  # noqa: PLC0415

    def spelt_out(value: object) -> object:
        """Spells out control characters, lone surrogates and turns of the writing direction."""
        if isinstance(value, str) and not isinstance(value, Markup):
            return printable(value)
        return value

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        finalize=spelt_out,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["in_script"] = lambda text: Markup(str(text).translate(_IN_SCRIPT))
    environment.filters["unbroken"] = lambda text: Markup(
        _INTERVAL.sub(r'<span class="number">\g<0></span>', str(escape(printable(str(text)))))
    )
    environment.filters["titled"] = lambda text: f"{text[0].upper()}{text[1:]}"
    return environment


def _content_policy(scripts: list[str]) -> str:
    """Returns a policy that runs these scripts and no others, and loads nothing from anywhere."""
    hashes = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(hash_).decode('ascii')}'" for hash_ in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; media-src data:; base-uri 'none'; form-action 'none'"
    )
