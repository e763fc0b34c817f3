"""Addresses of network streams, and their form without secrets."""

from __future__ import annotations

import re
from pathlib import Path

from dfd_edge.errors import SourceNotFoundError

#: Schemes that are opened, each with the protocols that FFmpeg may use for it.
PROTOCOLS = {
    "http": "http,https,tls,tcp,crypto",
    "https": "http,https,tls,tcp,crypto",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "udp": "udp",
    "rtp": "rtp,udp",
    "tcp": "tcp",
    "srt": "srt",
}

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
#: Probably meant as an address: `http:/host`, `rtsp//host`, `user:password@host`.
#: A scheme has two letters at least: `C:/clip.mp4` is a file.
#: An absolute path is a file.
_MISSPELT = re.compile(
    rf"^\s*(?:[a-z][a-z0-9+.-]+:+/|(?:{'|'.join(PROTOCOLS)})//|(?!/[^/]|[a-z]:[\\/]).*:.*@)",
    re.IGNORECASE | re.DOTALL,
)
_START = re.compile(r"^\s*([a-z][a-z0-9+.-]+:*/+)", re.IGNORECASE)


def scheme_of(text: str) -> str | None:
    """Returns the scheme of an address in lower case; None where the text is no address."""
    match = _SCHEME.match(text)
    return match.group(1).lower() if match else None


def is_address(text: str) -> bool:
    """Returns whether the text is an address (`scheme://`) rather than a file name."""
    return scheme_of(text) is not None


def check_spelling(text: str) -> None:
    """Refuses a misspelt address: neither a whole address nor a file.

    Such a text may hold a password, which would be shown as the name of a missing file.

    Raises:
        SourceError: It is such a text; the message leaves out what may be a password.
    """
    if is_address(text) or not _MISSPELT.match(text) or _exists(text):
        return
    raise SourceNotFoundError(
        redact(text),
        "neither a file nor a whole address",
        "write SCHEME://HOST/PATH, such as rtsp://camera.local/stream",
    )


def redact(address: str) -> str:
    """Returns the address without user name, password and query, fit for messages and records.

    Whatever stands before the last @ may be a password, however oddly it is written.
    """
    start = _START.match(address)
    head, rest = (start.group(1), address[start.end() :]) if start else ("", address)
    if "@" in rest and (head or ":" in rest):
        rest = rest.rpartition("@")[2]
    shown, mark, _ = (head.lstrip() + rest).partition("#")[0].partition("?")
    return f"{shown}?..." if mark else shown


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a name, or a zero byte in it
        return False
