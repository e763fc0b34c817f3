"""Network streams through PyAV, with timeouts and whitelists of formats and protocols."""

from __future__ import annotations

import av
import av.error

from dfd_edge.errors import SourceError
from dfd_edge.sources.address import PROTOCOLS, redact, scheme_of
from dfd_edge.sources.decoding import DecodedSource, cause_of
from dfd_edge.sources.formats import FORMAT_WHITELIST

_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 5.0
_LIVE_FORMATS = "rtsp,sdp,rtp,hls,flv,live_flv,mpjpeg"
_HTTP_SCHEMES = ("http", "https")


class NetworkStream(DecodedSource):
    """A network stream, opened.

    A recording of stated length is read to its end; anything else is live.

    Args:
        address: `http`, `https`, `rtsp`, `rtsps`, `rtmp`, `udp`, `rtp`, `tcp` or `srt` address.
        threads: Threads that FFmpeg may use.

    Raises:
        SourceError: The address cannot be reached, or is no video.
    """

    def __init__(self, address: str, *, threads: int = 1) -> None:
        name = redact(address)
        scheme = scheme_of(address) or ""
        if scheme not in PROTOCOLS:
            allowed = ", ".join(sorted(PROTOCOLS))
            raise SourceError(f"{name}: {scheme} is not supported; use one of {allowed}")
        options = {
            "protocol_whitelist": PROTOCOLS[scheme],
            "format_whitelist": f"{FORMAT_WHITELIST},{_LIVE_FORMATS}",
        }
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        try:
            container = av.open(
                address,
                mode="r",
                options=options,
                metadata_errors="replace",
                timeout=(_OPEN_TIMEOUT_S, _READ_TIMEOUT_S),
            )
        except av.error.FFmpegError as error:
            raise SourceError(f"{name}: cannot be opened ({cause_of(error)})") from error
        super().__init__(
            container,
            name,
            finite=scheme in _HTTP_SCHEMES and bool(container.duration),
            threads=threads,
            threading="SLICE",
        )
