"""Pages taken apart for tests, and texts that would do harm if they became markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser

#: As names of files can be.
HOSTILE = [
    "</script><script>document.title='run'</script>.mp4",
    "<img src=x onerror=alert(1)>.mp4",
    "\"' onmouseover=alert(1) x='.mp4",
    "<!--<script>.mp4",
    "{{ 7 * 7 }}{% raw %}.mp4",
    "line\nbreak\x1b[31m\u202egpj.mp4",
    "not utf-8 \udcff\udc80.mp4",
    "a" * 5000 + ".mp4",
]
INLINE = ("a", "code", "strong", "span", "bdi")


class Page(HTMLParser):
    """A page as a browser takes it apart: elements, texts, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in INLINE and not self._inside:
            self.text += " "
        if tag in ("script", "style"):
            self._inside.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data):
        if self._inside == ["script"]:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif not self._inside:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def data(self, end: str) -> list[dict]:
        """JSON of the script elements whose id ends or contains so."""
        return [
            json.loads(text)
            for attributes, text in self.scripts
            if attributes.get("type") == "application/json" and end in (attributes["id"] or "")
        ]

    @property
    def programs(self) -> list[str]:
        return [text for attributes, text in self.scripts if "type" not in attributes]
