"""Sends footage over loopback in real time, as many streams as asked for, in one process.

Run as `python -m dfd_benchmarks.sender '{"path": …}'` with the fields of `Orders`. It prints the
addresses as a line of JSON, sends until its standard input is closed, and prints what it cost as
another. The streams send the same encoded frames, each at its own phase, so that neither key
frames nor due frames of all fall together.

The time of frame n of a stream is that at which a camera would take it: the start of its stream
plus n / fps, by `time.monotonic()`, which all processes of a machine share. A sender that is held
up is late with it, and the frame all the staler.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfd_benchmarks.encoders import Encoder
from dfd_benchmarks.packets import Packets
from dfd_benchmarks.rtsp import RtspClient, rtp_packets

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
class Orders:
    """What is to be sent.

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
        orders: What to send.
    """

    def __init__(self, orders: Orders) -> None:
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
    """Send until standard input is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    sending = Sending(Orders(**json.loads(text)))
    started_s = time.monotonic()
    told = {"addresses": sending.addresses, "starts_s": sending.starts_s}
    print(json.dumps(told), flush=True)
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
