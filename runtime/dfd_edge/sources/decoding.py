"""Decoding of files and network streams through PyAV.

Frames come upright, with exact timestamps, and what is missing is reported.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import av
import av.error

from dfd_edge.errors import NotMediaError, SourceError, UnreachableError, UnsupportedError
from dfd_edge.sources.bursts import RecentFrames
from dfd_edge.sources.containers import choose_stream, stream_duration_s
from dfd_edge.sources.conversion import (
    Converter,
    Deinterlacer,
)
from dfd_edge.sources.decoder import ON_CPU, DecoderReport, Fault, downloaded, is_on_device
from dfd_edge.sources.frames import (
    BURST_FRAMES,
    MAX_FRAME_PIXELS,
    Burst,
    DueFrames,
    Foreseeable,
    Frame,
    Pixels,
    check_size,
)
from dfd_edge.sources.seeking import PartSampler, PicksParts, Seeker, length_of
from dfd_edge.sources.skimming import CODECS, Skimmer
from dfd_edge.sources.timing import MAX_CLOCK_S, Backlog, Timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

_FALLBACK_RATE = 25.0
#: Above this only an average over the whole file is trusted: other rates are often the ticks of a
#: clock, such as the 90,000 of MPEG-TS.
_MAX_STATED_RATE = 20_000.0
_MAX_RATE = 1e6
#: Frames after a damaged one depend on it until a key frame comes. Encoders without key frames
#: refresh the picture bit by bit, within about this time in seconds.
_DAMAGE_LASTS_S = 10.0
#: A recording counts as cut off if more than this is missing at its end (seconds, share).
_MISSING_S = 0.5
_MISSING_SHARE = 0.02
#: MPEG-TS marks a packet as damaged this many packets before the incomplete one.
_JOIN_PACKETS = 2
#: Undecodable packets in a row after which a source is given up.
_MAX_BAD_PACKETS = 500
#: FFmpeg's names of formats without times. It invents them at a guessed rate.
_UNTIMED_FORMATS = frozenset(
    ["mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo", "yuv4mpegpipe"]
)


class DecodedSource:
    """The video of an open container, decoded once from start to end.

    Frames come upright (display matrix applied), with square pixels and deinterlaced where they are
    flagged as interlaced, HDR and wide gamut as SDR. Frames that are not due are not converted to
    BGR, of others only the parts that are looked at where the format allows that.
    Frames that cannot be decoded, that the decoder patched up, or that depend on a damaged one are
    left out.

    A recording that is skimmed is read some packets ahead, and frames that are neither due nor
    referred to by another are not decoded: the due frames are the same, in less time. With a
    sampler of parts only these are decoded, each from the key frame before it (`seeking`).

    Args:
        container: The container; closed here when it turns out to hold no video.
        name: What messages call the source.
        finite: Whether it is a recording, which has an end, or a live stream.
        threads: Threads that FFmpeg may use.
        threading: How FFmpeg uses them: frame threads ("AUTO") hold frames back, slices do not.
        mend: What to try where nothing could be decoded.
        skim: Whether a recording may be read ahead; a pipe may not.
        max_pixels: Larger frames are refused before they are decoded.
        stream: Number of the stream in the container; by default the film that players show.
        decoder: What the container was opened for.

    Attributes:
        width, height: Size of the upright frames in pixels.
        duration_s: Length that the container states, in seconds, or None.
        frame_rate: Nominal frames per second.
        complete: False once something turned out to be missing, or undecodable when it was needed.
        reason: Why `complete` is False, else None.
        end_s: Time at which the last decoded frame ends, in seconds.
        notes: Remarks for the reader of the verdict, a line each.
        backlog: How far a live stream lags behind; decides which packets are decoded.
        decoder: What decodes it; known for certain once the first frame was decoded.

    Raises:
        SourceError: No video, no decoder for it, no such stream, or too large or small.
        ProviderError: It is to be decoded on a device, which does not decode it.
    """

    def __init__(
        self,
        container: InputContainer,
        name: str,
        *,
        finite: bool,
        threads: int = 1,
        threading: Literal["AUTO", "SLICE"] = "AUTO",
        mend: str = "damaged or cut off",
        skim: bool = False,
        max_pixels: int = MAX_FRAME_PIXELS,
        stream: int | None = None,
        decoder: DecoderReport = ON_CPU,
    ) -> None:
        self.name = name
        self.decoder = decoder
        self._has_device = decoder.actual == "cuda"  # frames may lie in its memory
        self.finite = finite
        self.complete = True
        self.reason: str | None = None
        self.end_s = 0.0
        self.notes: tuple[str, ...] = ()
        self._mend = mend
        self._max_pixels = max_pixels
        self._causes: dict[str, str] = {}
        self._no_memory = False
        self._container = container
        self._consumed = False
        self._decoded_frames = 0
        self._whole_frames = 0
        self._damaged_frames = 0
        self._damaged_until_s: float | None = None
        self._packet_lost = False
        self._skim = skim and finite
        self._skimmer: Skimmer | None = None
        self._spare = False  # whether the frame in hand was decoded for others only
        self._seeker: Seeker | None = None
        self._recent: RecentFrames[VideoFrame] | None = None
        self._deinterlacer = Deinterlacer(threads)
        try:
            self._stream, self.notes = choose_stream(container, name, stream)
            if decoder.reason is not None:
                self._note_decoder()
            self._configure(threads, threading)
        except BaseException:
            container.close()
            raise

    def _configure(self, threads: int, threading: Literal["AUTO", "SLICE"]) -> None:
        stream = self._stream
        context = stream.codec_context
        if context is None:
            raise UnsupportedError(
                self.name, "no decoder for this video codec", "re-encode as H.264"
            )
        if self._has_device:
            if context.is_hwaccel:
                threads = 1  # the device decodes; more threads would only hold more of its memory
            else:
                self._leave_device(f"the device does not decode {context.name}")
                self._has_device = False
        context.thread_count = threads
        context.thread_type = threading if threads > 1 else "NONE"
        context.options = {"max_pixels": str(self._max_pixels)}
        width, height = context.width, context.height
        if (width, height) != (0, 0):
            check_size(self.name, width, height, self._max_pixels)
        self.frame_rate = _frame_rate(stream)
        self.duration_s = _duration_s(self._container, stream)
        self.backlog = Backlog(1.0 / self.frame_rate)
        aspect = _pixel_aspect(stream)
        self._converter = Converter(context, aspect)
        self.width, self.height = round(width * aspect), height

    def frames(
        self, sampler: DueFrames, *, every: bool = False, bursts: bool = False
    ) -> Iterator[Frame]:
        """Decodes the source and yields its due frames in order.

        Args:
            sampler: Says which frames are due.
            every: Whether the other frames are yielded too, for display.
            bursts: Whether due frames carry their `Burst`, for which the frames before them are
                decoded too.

        Raises:
            SourceError: A live stream is lost, nothing of a recording could be decoded, or a
                second pass was requested.
        """
        if self._consumed:
            raise SourceError(self.name, "already read", "open it again for a second pass")
        self._consumed = True
        self._recent = RecentFrames(self._converter.luma) if bursts else None
        timeline = self._start(sampler, every=every)
        untimed = not self.finite and self._container.format.name in _UNTIMED_FORMATS
        awaited = False
        for index, (pts_s, decoded) in enumerate(self._in_order()):
            arrived_s = None if self.finite else time.monotonic()
            time_s = timeline.place(None if untimed else pts_s, arrived_s)
            if arrived_s is not None:
                self.backlog.place(time_s, arrived_s)
            self.end_s = time_s + 1.0 / self.frame_rate
            self._decoded_frames = index + 1
            lost = self._packet_lost
            if self._is_damaged(decoded, time_s):
                self._interrupt()
                self._stop_skimming()
                continue
            self._whole_frames += 1
            frame = self._on_host(decoded)
            self._remember(frame, time_s, lost=lost)
            due = sampler.is_due(time_s) or awaited
            awaited = due and frame is None
            if awaited:
                self._stop_skimming()  # the copy was wrong: the next frame stands in for it
            if (due or every) and frame is not None:
                pixels = self._convert(frame, first=self._whole_frames == 1)
                if pixels is not None:
                    yield Frame(pixels, time_s, index, due, self._burst() if due else None)
        if not self.finite:
            return
        self._check_decoded()
        if self._seeker is None:
            self._check_end()
        else:
            self._check_parts(self._seeker)

    @property
    def doubt(self) -> str | None:
        """Why its pictures cannot be decided on, whatever they score, else None."""
        return self._converter.doubt

    def close(self) -> None:
        """Closes the container. Safe to call twice."""
        self._container.close()

    def _timeline(self) -> Timeline:
        return Timeline(
            self.frame_rate,
            _start_s(self._stream) if self.finite else None,
            self.duration_s if self.finite else None,
        )

    def _start(self, sampler: DueFrames, *, every: bool) -> Timeline:
        """Chooses how packets are read; returns what gives the frames their times."""
        parts = self._placed(sampler)
        timeline = self._timeline()
        if parts is not None:
            self._seeker = self._start_seeking(parts)
        elif not every:
            self._skimmer = self._start_skimming(sampler, timeline)
        return timeline

    def _placed(self, sampler: DueFrames) -> PartSampler | None:
        """Returns the sampler of parts where only parts of the source are wanted.

        A file that states no length is measured by its packets.
        """
        parts = sampler.parts if isinstance(sampler, PicksParts) else None
        if parts is None:
            return None
        origin_s = _start_s(self._stream)
        if self.duration_s is None and self._no_seeking() is None and origin_s is not None:
            self.duration_s = length_of(self._container, self._stream, origin_s)
            if self.duration_s is not None:
                parts.place(self.duration_s)
        return None if parts.throughout else parts

    def _no_seeking(self) -> str | None:
        """Returns why the source cannot be sought in; None where that can be tried."""
        if not self._skim:
            return "it comes through a pipe"
        if self._container.format.name in _UNTIMED_FORMATS or _start_s(self._stream) is None:
            return "its frames carry no times"
        return None

    def _start_seeking(self, parts: PartSampler) -> Seeker | None:
        origin_s, time_base = _start_s(self._stream), self._stream.time_base
        if origin_s is None or not time_base:
            return None
        return Seeker(
            self._container,
            self._stream,
            parts,
            origin_s=origin_s,
            time_base=time_base,
            bursts=self._recent is not None,
            on_jump=self._start_anew,
            fault=self._no_seeking(),
        )

    def _start_anew(self) -> None:
        """Drops what the decoder and its filters hold of the frames before a jump."""
        self._stream.codec_context.flush_buffers()
        for _ in self._deinterlacer.flush():
            pass
        self._interrupt()
        self._packet_lost = True  # unless it begins with a key frame

    def _start_skimming(self, sampler: DueFrames, timeline: Timeline) -> Skimmer | None:
        stream = self._stream
        if not self._skim or not isinstance(sampler, Foreseeable):
            return None
        if stream.codec_context.name not in CODECS or not stream.time_base:
            return None
        packets = self._container.demux(stream)
        before = 0 if self._recent is None else BURST_FRAMES - 1
        return Skimmer(packets, sampler, timeline, stream.time_base, before)

    def _stop_skimming(self) -> None:
        if self._skimmer is not None:
            self._skimmer.stop()

    def _in_order(self) -> Iterator[tuple[float | None, VideoFrame | None]]:
        """Yields all frames in display order with their times; None for one that was left out."""
        skimmer, seeker = self._skimmer, self._seeker
        for decoded in self._whole_pictures():
            pts_s = _pts_seconds(decoded)
            if seeker is not None and not self._is_wanted_part(seeker, decoded, pts_s):
                continue
            if skimmer is not None:
                self._spare = skimmer.is_spare(pts_s)
                yield from ((left_out_s, None) for left_out_s in skimmer.left_out_before(pts_s))
            yield pts_s, decoded
        if skimmer is not None:
            yield from ((left_out_s, None) for left_out_s in skimmer.left_out_before(math.inf))

    def _is_wanted_part(self, seeker: Seeker, decoded: VideoFrame, pts_s: float | None) -> bool:
        """Returns whether a decoded frame may belong to a part, or only led there."""
        if pts_s is None:
            self._missing("frames without times were left out", kind="times")
            return False
        if not seeker.is_early(pts_s):
            return True
        lost = self._packet_lost and not decoded.key_frame
        self._packet_lost = decoded.is_corrupt or lost
        return False

    def _whole_pictures(self) -> Iterator[VideoFrame]:
        for decoded in self._decode():
            if self.decoder.actual == "cuda" and not is_on_device(decoded):
                name = self._stream.codec_context.name
                self._leave_device(f"the device does not decode this kind of {name}")
            if decoded.interlaced_frame:
                self._stop_skimming()  # deinterlacing needs the neighbouring frames
            filtered = self._deinterlacer.used or decoded.interlaced_frame
            yield from self._deinterlacer.feed(self._fetched(decoded) if filtered else decoded)
        yield from self._deinterlacer.flush()

    def _decode(self) -> Iterator[VideoFrame]:
        bad_packets = bad_in_a_row = doubted = 0
        packets = self._packets()
        context = self._stream.codec_context
        while True:
            asked_s = time.monotonic()
            try:
                packet, needed = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self._break_off(error)
                return
            if not self.finite and not self._is_wanted(packet, asked_s):
                continue
            context.skip_frame = "DEFAULT" if needed or context.name not in CODECS else "NONREF"
            doubted = self._doubt(packet, doubted)
            try:
                decoded = packet.decode()
            except av.error.EOFError:
                continue
            except av.error.FFmpegError as error:
                self._stop_skimming()
                self._no_memory |= isinstance(error, MemoryError)
                self._packet_lost = True
                bad_in_a_row += 1
                # The first packets of a live stream joined between key frames cannot be decoded.
                if self.finite or self._decoded_frames:
                    bad_packets += 1
                    many = "packet" if bad_packets == 1 else "packets"
                    cause = f"{bad_packets} {many} could not be decoded: {cause_of(error)}"
                    self._missing(cause, kind="packets")
                if bad_in_a_row >= _MAX_BAD_PACKETS:
                    self._break_off(error)
                    return
                continue
            if decoded:
                bad_in_a_row = 0
            yield from decoded

    def _on_host(self, decoded: VideoFrame | None) -> VideoFrame | None:
        """Returns a frame in the host's memory; None for one that was decoded for others only.

        Such a frame is downloaded from no device, and left alone where it is in memory already.
        """
        if self._spare and decoded is not None and self._is_on_device(decoded):
            return None
        return None if decoded is None else self._fetched(decoded)

    def _is_on_device(self, decoded: VideoFrame) -> bool:
        return self._has_device and is_on_device(decoded)

    def _fetched(self, decoded: VideoFrame) -> VideoFrame:
        """Returns a frame in the host's memory.

        Raises:
            SourceError: The device fails.
        """
        if not self._is_on_device(decoded):
            return decoded
        try:
            return downloaded(decoded)
        except av.error.FFmpegError as error:
            raise SourceError(
                self.name,
                f"device {self.decoder.device} failed while it was decoded ({cause_of(error)})",
                "use --decoder cpu",
            ) from None

    def _leave_device(self, cause: str) -> None:
        """Notes that the CPU decodes after all.

        Raises:
            ProviderError: The device was asked for by name.
        """
        self.decoder = self.decoder.without_device(Fault(cause))
        self._note_decoder()

    def _note_decoder(self) -> None:
        self.notes = (*self.notes, f"decoded on the CPU: {self.decoder.reason}")

    def _packets(self) -> Iterator[tuple[Packet[VideoStream], bool]]:
        """Returns the packets in decoding order, each with whether its frame is needed."""
        if self._seeker is not None:
            return iter(self._seeker)
        if self._skimmer is not None:
            return iter(self._skimmer)
        return ((packet, True) for packet in self._container.demux(self._stream))

    def _is_wanted(self, packet: Packet[VideoStream], asked_s: float) -> bool:
        arrived_s = time.monotonic()
        timed = packet.dts is not None and packet.time_base is not None
        return self.backlog.is_wanted(
            float((packet.dts or 0) * packet.time_base) if timed else None,
            key=packet.is_keyframe,
            waited_s=arrived_s - asked_s,
            arrived_s=arrived_s,
        )

    def _doubt(self, packet: Packet[VideoStream], doubted: int) -> int:
        """Evaluates the container's marks of damage.

        MPEG-TS marks a packet too early, and marks one where recordings were joined too: there the
        next recording begins with a key frame.

        Args:
            packet: The next packet.
            doubted: Packets from here on that may still show a join.

        Returns:
            The same for the packet after it.
        """
        if packet.is_corrupt:
            if self._container.format.name == "mpegts":
                return _JOIN_PACKETS
            self._packet_lost = True
        elif doubted == 1 and not packet.is_keyframe:
            self._packet_lost = True
        return 0 if packet.is_keyframe else max(0, doubted - 1)

    def _break_off(self, error: av.error.FFmpegError) -> None:
        if not self.finite:
            # Not `from error`: its text holds the address with its password.
            raise UnreachableError(self.name, f"lost ({cause_of(error)})") from None
        self._no_memory |= isinstance(error, MemoryError)
        self._missing(f"reading broke off: {cause_of(error)}")

    def _is_damaged(self, decoded: VideoFrame | None, time_s: float) -> bool:
        """Returns whether a frame was patched up by the decoder, or decoded from one that was."""
        if decoded is not None:
            if decoded.is_corrupt or (self._packet_lost and not decoded.key_frame):
                self._damaged_until_s = time_s + _DAMAGE_LASTS_S
            elif decoded.key_frame:
                self._damaged_until_s = None
            self._packet_lost = False
        if self._damaged_until_s is None or time_s >= self._damaged_until_s:
            return False
        # A live stream joined between key frames has lost nothing before its first.
        if self.finite or self._whole_frames:
            self._damaged_frames += 1
            frames = "frame" if self._damaged_frames == 1 else "frames"
            self._missing(f"{self._damaged_frames} damaged {frames} left out", kind="damage")
        return True

    def _remember(self, decoded: VideoFrame | None, time_s: float, *, lost: bool) -> None:
        """Takes the next whole frame for a burst.

        Args:
            decoded: The frame; None where it was left out.
            time_s: Its time.
            lost: Whether something before it is missing.
        """
        if self._recent is None:
            return
        if lost or decoded is None:
            self._recent.interrupt()
        if decoded is not None and not self._deinterlacer.used:
            kind = decoded.width, decoded.height, decoded.format.name
            self._recent.add(decoded, time_s, kind)

    def _interrupt(self) -> None:
        if self._recent is not None:
            self._recent.interrupt()

    def _burst(self) -> Burst | None:
        if self._recent is None or self._deinterlacer.used:
            return None
        try:
            return self._recent.burst()
        except av.error.FFmpegError:  # a frame before the due one states colours of its own
            return None

    def _convert(self, decoded: VideoFrame, *, first: bool) -> Pixels | None:
        width, height = decoded.width, decoded.height
        try:
            check_size(self.name, width, height, self._max_pixels)
            pixels = self._converter.convert(decoded)
        except UnsupportedError as error:
            if first:
                raise
            self._missing(str(error))
            return None
        except av.error.FFmpegError as error:  # it states colours that FFmpeg does not convert
            cause = f"its colours cannot be converted ({cause_of(error)})"
            if first:
                raise UnsupportedError(self.name, cause, "re-encode it as H.264") from None
            self._missing(cause, kind="colours")
            return None
        if first:
            self.height, self.width = pixels.shape[:2]
        return pixels

    def _check_decoded(self) -> None:
        """Refuses a recording of which nothing could be decoded."""
        if self._decoded_frames:
            return
        cause = f" ({self.reason})" if self.reason else ""
        mend = self._mend
        if not self.width:  # no size was stated, and what the decoder found it may not say
            mend += f", or frames of more than {self._max_pixels:,} pixels (see --max-pixels)"
        # Not from FFmpeg's error: its text may hold an address with its password.
        memory = MemoryError() if self._no_memory else None
        raise NotMediaError(self.name, f"no frame could be decoded{cause}", mend) from memory

    def _check_parts(self, seeker: Seeker) -> None:
        """Reports parts that were not reached, and seeking that did not work."""
        if seeker.parts.left:
            reached = f"{seeker.parts.left} of {seeker.parts.planned} parts lie behind"
            self._missing(f"cut off: {reached} {self.end_s:.1f} s, where the last frame ends")
        if seeker.fault is not None:
            note = f"it cannot be sought in ({seeker.fault}): all of it was read"
            self.notes = (*self.notes, note)

    def _check_end(self) -> None:
        """Reports a recording as cut off where everything that the container states says so.

        The frame count alone does not: after a trim without re-encoding, the file still holds
        frames before its new start, which an edit list leaves out.
        """
        lengths_s = []
        missing_s = []
        if self._stream.frames > 0:
            lengths_s.append(self._stream.frames / self.frame_rate)
            missing_s.append((self._stream.frames - self._decoded_frames) / self.frame_rate)
        if self.duration_s is not None:
            lengths_s.append(self.duration_s)
            missing_s.append(self.duration_s - self.end_s)
        if not lengths_s:
            return
        whole_s = min(lengths_s)
        if min(missing_s) > max(_MISSING_S, _MISSING_SHARE * whole_s):
            self._missing(f"cut off: {self.end_s:.1f} s of {whole_s:.1f} s could be decoded")

    def _missing(self, reason: str, *, kind: str = "reading") -> None:
        """Notes why the recording is not complete; the newest reason of each kind stays."""
        if kind not in self._causes:
            logger.info("%s: %s", self.name, reason)
        self._causes[kind] = reason
        self.complete = False
        self.reason = "; ".join(self._causes.values())


def _pts_seconds(decoded: VideoFrame) -> float | None:
    """Returns the presentation time of a frame in seconds of its stream's clock, or None."""
    base = decoded.time_base
    if decoded.pts is None or not base:
        return None
    return int(decoded.pts) * base.numerator / base.denominator  # rounded once, as a Fraction is


def _frame_rate(stream: VideoStream) -> float:
    """Returns the nominal frames per second; 25 where nothing sensible is stated."""
    average = stream.average_rate
    if average and 0.0 < float(average) <= _MAX_RATE:
        return float(average)
    for rate in (stream.guessed_rate, stream.base_rate):
        if rate and 0.0 < float(rate) <= _MAX_STATED_RATE:
            return float(rate)
    return _FALLBACK_RATE


def _start_s(stream: VideoStream) -> float | None:
    if stream.start_time is None or not stream.time_base:
        return None
    return float(stream.start_time * stream.time_base)


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    duration_s = stream_duration_s(stream)
    if duration_s is None and container.duration:
        duration_s = container.duration / av.time_base
    return duration_s if duration_s and 0.0 < duration_s <= MAX_CLOCK_S else None


def _pixel_aspect(stream: VideoStream) -> float:
    """Returns the width of a pixel over its height; 1 where nothing sensible is stated."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return float(aspect) if Fraction(1, 4) <= aspect <= 4 else 1.0


def cause_of(error: av.error.FFmpegError) -> str:
    """Returns FFmpeg's own text for an error, without numbers and file names."""
    if isinstance(error, av.error.ExitError):
        return "nothing came in time"
    return (error.strerror or type(error).__name__).lower()
