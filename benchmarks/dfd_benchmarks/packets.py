"""Encoded frames of a footage without end, as MPEG-TS or as they are, each muxed once for all."""

from __future__ import annotations

import io
import threading
from collections import deque
from fractions import Fraction
from pathlib import Path

import av

_TICKS_HZ = 90_000
#: Muxed frames that are kept for streams that send later than others, in seconds.
_KEPT_S = 4.0


class Packets:
    """Frame n of a footage that is repeated without end; safe to ask from several threads.

    Args:
        path: MPEG-TS with H.264 that starts with a key frame.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: int) -> None:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            found = [packet for packet in container.demux(stream) if packet.size]
            self._units = [bytes(packet) for packet in found]
            self._keys = [packet.is_keyframe for packet in found]
            self._sink = io.BytesIO()
            # No packet waits for another one in the muxer: a camera does not either.
            options = {"flush_packets": "1", "mpegts_flags": "resend_headers"}
            self._muxer = av.open(self._sink, "w", format="mpegts", container_options=options)
            self._stream = self._muxer.add_stream_from_template(stream)
        self._fps = fps
        self._kept: deque[bytes] = deque(maxlen=round(_KEPT_S * fps))
        self._muxed = 0
        self._lock = threading.Lock()

    def unit(self, number: int) -> bytes:
        """The access unit of frame `number`, in the byte stream format of H.264's annex B."""
        return self._units[number % len(self._units)]

    def mpegts(self, number: int) -> bytes | None:
        """Frame `number` in transport packets of 188 bytes; None when it was too long ago."""
        with self._lock:
            while self._muxed <= number:
                self._kept.append(self._mux(self._muxed))
                self._muxed += 1
            back = self._muxed - number
            return self._kept[-back] if back <= len(self._kept) else None

    def _mux(self, number: int) -> bytes:
        index = number % len(self._units)
        packet = av.Packet(self._units[index])
        packet.stream = self._stream
        packet.pts = packet.dts = round(number * _TICKS_HZ / self._fps)
        packet.time_base = Fraction(1, _TICKS_HZ)
        packet.is_keyframe = self._keys[index]
        self._muxer.mux(packet)
        muxed = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return muxed
