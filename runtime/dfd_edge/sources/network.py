"""Network streams through PyAV, with timeouts and whitelists of formats and protocols."""

from __future__ import annotations

import time

import av.error

from dfd_edge.errors import UnreachableError, UnsupportedError
from dfd_edge.sources.address import PROTOCOLS, redact, scheme_of
from dfd_edge.sources.containers import FORMAT_WHITELIST, open_container
from dfd_edge.sources.decoder import ON_CPU, DecoderReport, open_on
from dfd_edge.sources.decoding import DecodedSource, cause_of
from dfd_edge.sources.frames import MAX_FRAME_PIXELS
from dfd_edge.sources.options import RtspTransport

_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 5.0
_LIVE_FORMATS = "rtsp,sdp,rtp,hls,flv,live_flv,mpjpeg"
_HTTP_SCHEMES = ("http", "https")
_DATAGRAM_SCHEMES = ("udp", "rtp")
#: A burst that comes faster than it is decoded loses packets; by default FFmpeg gives up then.
_DATAGRAM_OPTIONS = {"overrun_nonfatal": "1"}


class NetworkStream(DecodedSource):
    """A network stream, opened.

    A recording of stated length is read to its end; anything else is live. FFmpeg's wait for a
    sender cannot be ended from outside: opening takes 10 s at most, each packet 5 s.

    Args:
        address: `http`, `https`, `rtsp`, `rtsps`, `rtmp`, `udp`, `rtp`, `tcp` or `srt` address.
        threads: Threads that FFmpeg may use.
        rtsp_transport: How RTSP carries its packets.
        max_pixels: Larger frames are refused before they are decoded.
        stream: Number of the stream in the container; by default the film that players show.
        decoder: What decodes it.

    Raises:
        ProviderError: It is to be decoded on a device, which cannot.
        SourceError: The address cannot be reached, or is no video.
    """

    def __init__(
        self,
        address: str,
        *,
        threads: int = 1,
        rtsp_transport: RtspTransport = "tcp",
        max_pixels: int = MAX_FRAME_PIXELS,
        stream: int | None = None,
        decoder: DecoderReport = ON_CPU,
    ) -> None:
        name = redact(address)
        scheme = scheme_of(address) or ""
        if scheme not in PROTOCOLS:
            allowed = ", ".join(sorted(PROTOCOLS))
            raise UnsupportedError(name, f"{scheme} is not supported", f"use one of {allowed}")
        options = {
            "protocol_whitelist": PROTOCOLS[scheme],
            "format_whitelist": f"{FORMAT_WHITELIST},{_LIVE_FORMATS}",
        }
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = rtsp_transport
        if scheme in _DATAGRAM_SCHEMES:
            options |= _DATAGRAM_OPTIONS
        # FFmpeg knows its protocols in lower case only.
        address = scheme + address[len(scheme) :]
        start_s = time.monotonic()
        try:
            container, decoder = open_on(
                decoder,
                lambda hwaccel: open_container(
                    address,
                    options,
                    timeout=(_OPEN_TIMEOUT_S, _READ_TIMEOUT_S),
                    max_pixels=max_pixels,
                    hwaccel=hwaccel,
                ),
            )
        except av.error.FFmpegError as error:
            cause = cause_of(error)
            if time.monotonic() - start_s >= _OPEN_TIMEOUT_S:
                # Whatever FFmpeg makes of it, that is why it stopped.
                cause = f"no video came within {_OPEN_TIMEOUT_S:g} s"
            # Not `from error`: its text holds the address with its password.
            raise UnreachableError(name, f"cannot be opened ({cause})") from None
        super().__init__(
            container,
            name,
            finite=scheme in _HTTP_SCHEMES and bool(container.duration),
            threads=threads,
            threading="SLICE",
            max_pixels=max_pixels,
            stream=stream,
            decoder=decoder,
        )
