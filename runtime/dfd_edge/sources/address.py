"""Addresses of network streams, and what of them may be shown."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

#: Schemes that are opened, each with the protocols that FFmpeg may use for it.
PROTOCOLS = {
    "http": "http,https,tls,tcp",
    "https": "http,https,tls,tcp",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "udp": "udp",
    "rtp": "rtp,udp",
    "tcp": "tcp",
    "srt": "srt",
}

_USER = re.compile(r"^([a-z][a-z0-9+.-]*:/+).*@", re.IGNORECASE)
_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def scheme_of(text: str) -> str | None:
    """Scheme of an address in lower case; None where the text is no address."""
    match = _SCHEME.match(text)
    return match.group(1).lower() if match else None


def is_address(text: str) -> bool:
    """Whether the text is an address (`scheme://`) rather than a file name."""
    return scheme_of(text) is not None


def redact(address: str) -> str:
    """Returns the address without user name, password and query, fit for messages and records."""
    # Whatever stands before the last @ may be a password, however oddly it is written.
    without_user = _USER.sub(r"\1", address)
    try:
        parts = urlsplit(without_user)
    except ValueError:  # brackets that are no IPv6 address
        return without_user.partition("?")[0]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(
        (parts.scheme, host, parts.path, "...", "")
        if parts.query
        else (parts.scheme, host, parts.path, "", "")
    )
