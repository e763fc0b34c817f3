"""As much of an RTSP server (RFC 2326) as one camera needs, H.264 in RTP (RFC 6184) over TCP."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import struct
import threading

_START_CODE = re.compile(rb"\x00\x00\x00?\x01")
_PAYLOAD_TYPE = 96
_SSRC = 0x0DFD0DFD
#: Bytes of a NAL unit in one RTP packet.
_FRAGMENT = 1400
_SPS, _PPS, _DELIMITER, _FU_A = 7, 8, 9, 28


def nal_units(unit: bytes) -> list[bytes]:
    """The NAL units of an access unit in annex B's format, without delimiters."""
    parts = [part for part in _START_CODE.split(unit) if part]
    return [part for part in parts if part[0] & 0x1F != _DELIMITER]


def rtp_packets(unit: bytes, sequence: int, ticks: int) -> list[bytes]:
    """An access unit in RTP packets.

    Args:
        unit: H.264 in annex B's format.
        sequence: Number of the first packet.
        ticks: Its time at 90 kHz.
    """
    payloads: list[bytes] = []
    for nal in nal_units(unit):
        if len(nal) <= _FRAGMENT:
            payloads.append(nal)
            continue
        header, body = nal[0], nal[1:]
        starts = range(0, len(body), _FRAGMENT)
        for start in starts:
            end = start + _FRAGMENT >= len(body)
            marks = (0x80 if start == 0 else 0) | (0x40 if end else 0) | header & 0x1F
            fragment = bytes([header & 0xE0 | _FU_A, marks]) + body[start : start + _FRAGMENT]
            payloads.append(fragment)
    packets = []
    for offset, payload in enumerate(payloads):
        marker = 0x80 if offset == len(payloads) - 1 else 0
        number, time = (sequence + offset) & 0xFFFF, ticks & 0xFFFFFFFF
        head = struct.pack("!BBHII", 0x80, marker | _PAYLOAD_TYPE, number, time, _SSRC)
        packets.append(head + payload)
    return packets


class RtspClient:
    """A receiver that is connected; gets its packets interleaved in the connection.

    Args:
        connection: The receiver.
        key_unit: An access unit with the parameter sets.
    """

    def __init__(self, connection: socket.socket, key_unit: bytes) -> None:
        self._connection = connection
        self._input = connection.makefile("rb")
        self._sending = threading.Lock()
        self._description = _describe(key_unit)

    def until_play(self) -> None:
        """Answers requests until the receiver wants the stream.

        Raises:
            ConnectionError: It has gone.
        """
        while self._answer() != "PLAY":
            pass

    def answer_in_background(self) -> None:
        """Answers what is asked while the stream runs, and reads the receiver's reports."""

        def follow() -> None:
            with contextlib.suppress(OSError, ValueError):
                while self._answer() != "TEARDOWN":
                    pass

        threading.Thread(target=follow, daemon=True).start()

    def send(self, packets: list[bytes]) -> None:
        """Sends RTP packets on channel 0."""
        framed = b"".join(b"$\x00" + struct.pack("!H", len(p)) + p for p in packets)
        with self._sending:
            self._connection.sendall(framed)

    def _answer(self) -> str:
        while (first := self._input.read(1)) == b"$":  # a report on channel 1
            (length,) = struct.unpack("!xH", self._input.read(3))
            self._input.read(length)
        if not first:
            raise ConnectionError("the receiver has gone")
        line = first + self._input.readline()
        method, url = line.decode("latin-1").split()[:2]
        headers = {}
        while (header := self._input.readline().decode("latin-1").strip()) != "":
            name, _, value = header.partition(":")
            headers[name.strip().lower()] = value.strip()
        answer = [f"RTSP/1.0 200 OK\r\nCSeq: {headers.get('cseq', '0')}\r\n"]
        body = ""
        if method == "OPTIONS":
            answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n")
        elif method == "DESCRIBE":
            body = self._description
            answer.append(f"Content-Type: application/sdp\r\nContent-Base: {url}/\r\n")
        elif method == "SETUP":
            answer.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")
        answer.append(f"Session: 1;timeout=60\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        with self._sending:
            self._connection.sendall("".join(answer).encode("latin-1"))
        return method


def _describe(key_unit: bytes) -> str:
    """The session description of a stream that starts with this access unit."""
    sets = {nal[0] & 0x1F: nal for nal in nal_units(key_unit) if nal[0] & 0x1F in (_SPS, _PPS)}
    encoded = ",".join(base64.b64encode(sets[kind]).decode() for kind in (_SPS, _PPS))
    return (
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=dfd-bench\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
        f"m=video 0 RTP/AVP {_PAYLOAD_TYPE}\r\na=rtpmap:{_PAYLOAD_TYPE} H264/90000\r\n"
        f"a=fmtp:{_PAYLOAD_TYPE} packetization-mode=1;sprop-parameter-sets={encoded}\r\n"
        "a=control:track1\r\n"
    )
