"""Network streams through PyAV, with timeouts and whitelists of formats and protocols."""

from __future__ import annotations

from collections.abc import Iterator

import av
import av.error
import numpy as np

from dfd_edge.errors import SourceError
from dfd_edge.sources.address import PROTOCOLS, redact, scheme_of
from dfd_edge.sources.formats import FORMAT_WHITELIST
from dfd_edge.sources.frame import Frame, check_size
from dfd_edge.sources.timeline import Timeline
from dfd_edge.sources.video import DueFrames, cause_of, frame_rate_of, pick_stream, pts_seconds

_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 5.0
_LIVE_FORMATS = "rtsp,sdp,rtp,hls,flv,live_flv,mpjpeg"
_HTTP_SCHEMES = ("http", "https")


class NetworkStream:
    """A network stream, opened.

    Args:
        address: `http`, `https`, `rtsp`, `rtsps`, `rtmp`, `udp`, `rtp`, `tcp` or `srt` address.
        threads: Threads that FFmpeg may use.

    Attributes:
        finite: True for a recording of stated length, which is read to its end.

    Raises:
        SourceError: The address cannot be reached, or is no video.
    """

    def __init__(self, address: str, *, threads: int = 1) -> None:
        self.name = redact(address)
        scheme = scheme_of(address) or ""
        if scheme not in PROTOCOLS:
            allowed = ", ".join(sorted(PROTOCOLS))
            raise SourceError(f"{self.name}: {scheme} is not supported; use one of {allowed}")
        options = {
            "protocol_whitelist": PROTOCOLS[scheme],
            "format_whitelist": f"{FORMAT_WHITELIST},{_LIVE_FORMATS}",
        }
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        try:
            self._container = av.open(
                address,
                mode="r",
                options=options,
                metadata_errors="replace",
                timeout=(_OPEN_TIMEOUT_S, _READ_TIMEOUT_S),
            )
        except av.error.FFmpegError as error:
            raise SourceError(f"{self.name}: cannot be opened ({cause_of(error)})") from error
        try:
            self._stream = pick_stream(self._container, self.name)
        except SourceError:
            self._container.close()
            raise
        context = self._stream.codec_context
        context.thread_count = threads
        context.thread_type = "SLICE" if threads > 1 else "NONE"
        self.finite = scheme in _HTTP_SCHEMES and bool(self._container.duration)

    def frames(self, sampler: DueFrames) -> Iterator[Frame]:
        """Yields the frames that `sampler` asks for until the stream ends.

        Raises:
            SourceError: The stream is lost.
        """
        timeline = Timeline(frame_rate_of(self._stream))
        try:
            for index, decoded in enumerate(self._container.decode(self._stream)):
                time_s = timeline.place(pts_seconds(decoded))
                if check_size(self.name, decoded.width, decoded.height) is None and sampler.is_due(
                    time_s
                ):
                    image = decoded.to_ndarray(format="bgr24", threads=1)
                    yield Frame(np.asarray(image, dtype=np.uint8), time_s, index)
        except av.error.FFmpegError as error:
            raise SourceError(f"{self.name}: lost ({cause_of(error)})") from error

    def close(self) -> None:
        """Closes the connection."""
        self._container.close()
