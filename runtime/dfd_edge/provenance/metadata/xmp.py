"""XMP packets (ISO 16684-1), read for what they state about a file's origin.

The packet is XML from a stranger: no document type and no entity of its own is accepted, nothing
outside is read, and size, depth and count of elements are bounded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from xml.parsers import expat

from dfd_edge.provenance.metadata.statements import MOST_VALUE_BYTES, Statement

_MOST_DEPTH = 64
_MOST_ELEMENTS = 20_000
_MOST_STATEMENTS = 1_000

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP, _DC = "http://ns.adobe.com/xap/1.0/", "http://purl.org/dc/elements/1.1/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_EXIF, _TIFF = "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/tiff/1.0/"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"

#: Properties that are read, by namespace. IPTC's are those of its Photo Metadata Standard 2025.1,
#: TC260's is China's label of generated content (GB 45438-2025).
_READ = {
    _IPTC: (
        *("DigitalSourceType", "DigitalSourceFileType", "AISystemUsed", "AISystemVersionUsed"),
        *("AIPromptInformation", "AIPromptWriterName"),
    ),
    _XMP: ("CreatorTool",),
    _DC: ("title", "description", "creator"),
    _PHOTOSHOP: ("Credit", "Source"),
    _EXIF: ("UserComment",),
    _TIFF: ("Make", "Model", "Software", "Artist", "ImageDescription"),
    _EVENT: ("softwareAgent", "digitalSourceType"),
    "http://www.tc260.org.cn/ns/AIGC/1.0/": ("AIGC",),
}
_FIELDS = {
    f"{namespace} {name}": f"xmp.{name}" for namespace, names in _READ.items() for name in names
}


class _Refused(Exception):
    """The packet is larger or other than what is read."""


class _Reader:
    """Collects the properties of one packet, each from an attribute, an element or a list."""

    def __init__(self) -> None:
        self.found: list[Statement] = []
        self._elements = self._depth = 0
        self._field: tuple[str, int] | None = None  # and the depth of its element
        self._text: list[str] = []

    def parse(self, packet: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.ExternalEntityRefHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.Parse(packet, True)

    def _refuse(self, *_: object) -> int:
        raise _Refused

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        self._depth += 1
        if self._depth > _MOST_DEPTH or self._elements > _MOST_ELEMENTS:
            raise _Refused
        for attribute, value in attributes.items():
            self._add(_FIELDS.get(attribute), value)
        if name in _FIELDS:
            self._field, self._text = (_FIELDS[name], self._depth), []
            self._add(_FIELDS[name], attributes.get(f"{_RDF} resource", ""))

    def _characters(self, text: str) -> None:
        if self._field is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        if self._field is not None:
            field, depth = self._field
            # An entry of a list is a value of its own; white space between them is none.
            if self._depth == depth or name == f"{_RDF} li":
                self._add(field, "".join(self._text))
                self._text = []
            if self._depth == depth:
                self._field = None
        self._depth -= 1

    def _add(self, field: str | None, value: str) -> None:
        if field is None or not value.strip():
            return
        self.found.append(Statement(field, value.strip()))
        if len(self.found) >= _MOST_STATEMENTS:
            raise _Refused


def read_xmp(packet: bytes) -> Iterator[Statement]:
    """Yields the statements of a packet, in a damaged one those before the damage.

    Args:
        packet: The packet as it lies in the file, padding included; larger ones than
            `MOST_VALUE_BYTES` are passed over.
    """
    packet = packet.strip(b"\0 \t\r\n")
    if not packet or len(packet) > MOST_VALUE_BYTES:
        return
    reader = _Reader()
    # LookupError and ValueError: an encoding that Python or expat does not know.
    with contextlib.suppress(_Refused, expat.ExpatError, LookupError, ValueError):
        reader.parse(packet)
    yield from reader.found
