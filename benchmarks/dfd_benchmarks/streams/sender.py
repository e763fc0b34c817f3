"""Sends footage over loopback in real time, as many streams as asked for, in one process.

Run as `python -m dfd_benchmarks.streams.sender '{"path": …}'` with the fields of `SenderOptions`.
It prints the addresses as a line of JSON, sends until its standard input is closed, and prints
what it cost as another. The streams send the same encoded frames, each at its own phase, so that
neither key frames nor due frames of all fall together.

The time of frame n of a stream is that at which a camera would take it: the start of its stream
plus n / fps, by `time.monotonic()`, which all processes of a machine share. A sender that is held
up is late with it, and the frame all the staler.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from dfd_benchmarks.streams.rtsp import RtspClient, rtp_packets


class Encoder:
    """One ffmpeg that encodes raw pictures from a pipe to H.264 and sends them as MPEG-TS.

    Args:
        ffmpeg: The program.
        path: Footage whose pictures are sent, over and over.
        fps: Frames per second.
        address: Where to: `udp://…`, or `http://…` to serve one receiver there.
    """

    def __init__(self, ffmpeg: str, path: Path, fps: int, address: str) -> None:
        self._pictures = _pictures(path)
        self._ready = next(self._pictures)  # decoded before it is due
        height, width = self._ready.shape[0] * 2 // 3, self._ready.shape[1]
        listen = ["-listen", "1"] if address.startswith("http") else []
        command = [ffmpeg, "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p"]
        command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "-", "-c:v", "libx264"]
        command += ["-preset", "ultrafast", "-tune", "zerolatency", "-g", str(fps), "-crf", "23"]
        command += ["-threads", "1", "-f", "mpegts", "-flush_packets", "1"]
        command += ["-muxdelay", "0", "-muxpreload", "0", *listen, address]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._next = 0

    def send(self, number: int) -> None:
        """Hands frame `number` over; those before it that were not sent are left out.

        Raises:
            OSError: ffmpeg has ended, for its receiver has gone.
        """
        while self._next < number:
            self._advance()
        assert self._process.stdin is not None
        self._process.stdin.write(self._ready.data)
        self._advance()

    def _advance(self) -> None:
        self._ready = next(self._pictures)
        self._next += 1

    def close(self) -> None:
        """Ends ffmpeg."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def _pictures(path: Path) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """The pictures of a footage without end: uint8 [3 / 2 height, width], planes of yuv420p."""
    while True:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield np.ascontiguousarray(frame.to_ndarray(), dtype=np.uint8)


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


#: Bytes of transport packets in a datagram, as ffmpeg's `pkt_size=1316`.
_DATAGRAM = 7 * 188
#: Streams start this share of a second after one another, modulo a second: the golden ratio
#: spreads any number of them.
_PHASE_S = 0.618034
_HTTP_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nTransfer-Encoding: chunked\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class SenderOptions:
    """The footage, and where and how it is sent.

    Attributes:
        path: Footage, MPEG-TS with H.264.
        fps: Frames per second.
        protocol: `http`, `udp` or `rtsp`.
        count: Number of streams.
        ports: One a stream: where receivers of `udp` listen, and others are served; 0 there takes
            any that is free.
        ffmpeg: The program that encodes each stream anew; None sends what was encoded before.
    """

    path: str
    fps: int
    protocol: str
    count: int
    ports: list[int]
    ffmpeg: str | None = None


class Sending:
    """The streams of one process, each in a thread of its own that sleeps until its next frame.

    Args:
        orders: The footage and its addresses.
    """

    def __init__(self, orders: SenderOptions) -> None:
        self.addresses: list[str] = []
        self.late_ms: list[float] = []
        self._orders = orders
        self._packets = Packets(Path(orders.path), orders.fps)
        self._start_s = time.monotonic() + 0.5
        self._stopped = threading.Event()
        self._servers: list[socket.socket] = []
        self._encoders: list[Encoder] = []
        for index in range(orders.count):
            if orders.protocol == "udp":
                address = f"udp://127.0.0.1:{orders.ports[index]}"
                work = _bind(self._send_datagrams, index, orders.ports[index])
            elif orders.ffmpeg is not None:
                address = f"http://127.0.0.1:{orders.ports[index] or _free_port()}/live.ts"
            else:
                server = socket.create_server(("127.0.0.1", orders.ports[index]))
                self._servers.append(server)
                serve = self._send_http if orders.protocol == "http" else self._send_rtsp
                work = _bind(self._accept, index, server, serve)
                path = "live.ts" if orders.protocol == "http" else "cam"
                address = f"{orders.protocol}://127.0.0.1:{server.getsockname()[1]}/{path}"
            if orders.ffmpeg is not None:
                work = _bind(self._encode, index, address)
            self.addresses.append(address)
            threading.Thread(target=work, daemon=True).start()

    @property
    def starts_s(self) -> list[float]:
        """`time.monotonic()` of frame 0, by stream."""
        return [self._start_s + index * _PHASE_S % 1.0 for index in range(self._orders.count)]

    def stop(self) -> None:
        """Ends all streams."""
        self._stopped.set()
        for server in self._servers:
            server.close()
        for encoder in self._encoders:
            encoder.close()

    def _pace(self, index: int, send: Callable[[int], None]) -> None:
        """Calls `send` with the number of each frame at its time, until it fails or `stop`."""
        start_s, fps = self.starts_s[index], self._orders.fps
        number = max(0, int((time.monotonic() - start_s) * fps) + 1)
        while not self._stopped.wait(max(0.0, start_s + number / fps - time.monotonic())):
            self.late_ms.append((time.monotonic() - start_s - number / fps) * 1e3)
            try:
                send(number)
            except OSError:  # the receiver has gone
                return
            number += 1
            if self._orders.ffmpeg is not None:
                # One that is held up leaves frames out, as a camera does.
                number = max(number, int((time.monotonic() - start_s) * fps))

    def _accept(
        self, index: int, server: socket.socket, serve: Callable[[int, socket.socket], None]
    ) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = server.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client, contextlib.suppress(OSError):
                serve(index, client)

    def _send_http(self, index: int, client: socket.socket) -> None:
        while b"\r\n\r\n" not in client.recv(65536):
            pass
        client.sendall(_HTTP_HEAD)

        def send(number: int) -> None:
            muxed = self._packets.mpegts(number)
            if muxed:
                client.sendall(b"%x\r\n%b\r\n" % (len(muxed), muxed))

        self._pace(index, send)

    def _send_datagrams(self, index: int, port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:

            def send(number: int) -> None:
                muxed = self._packets.mpegts(number) or b""
                for first in range(0, len(muxed), _DATAGRAM):
                    with contextlib.suppress(ConnectionRefusedError):  # nobody listens yet
                        sending.sendto(muxed[first : first + _DATAGRAM], ("127.0.0.1", port))

            self._pace(index, send)

    def _encode(self, index: int, address: str) -> None:
        orders = self._orders
        assert orders.ffmpeg is not None
        sent_to = f"{address}?pkt_size={_DATAGRAM}" if orders.protocol == "udp" else address
        encoder = Encoder(orders.ffmpeg, Path(orders.path), orders.fps, sent_to)
        self._encoders.append(encoder)
        self._pace(index, encoder.send)

    def _send_rtsp(self, index: int, client: socket.socket) -> None:
        session = RtspClient(client, self._packets.unit(0))
        session.until_play()
        sequence = 0

        def send(number: int) -> None:
            nonlocal sequence
            ticks = round(number * 90_000 / self._orders.fps)
            sent = rtp_packets(self._packets.unit(number), sequence, ticks)
            sequence += len(sent)
            session.send(sent)

        session.answer_in_background()
        self._pace(index, send)


def _bind(work: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: work(*arguments)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def main(text: str) -> None:
    """Sends until standard input is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    sending = Sending(SenderOptions(**json.loads(text)))
    started_s = time.monotonic()
    message = {"addresses": sending.addresses, "starts_s": sending.starts_s}
    print(json.dumps(message), flush=True)
    sys.stdin.read()
    sending.stop()
    cost = {
        "cpu_s": sum(os.times()[:4]),  # those of ffmpeg too, which has ended
        "elapsed_s": time.monotonic() - started_s,
        "late_ms": sorted(sending.late_ms),
    }
    print(json.dumps(cost), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
