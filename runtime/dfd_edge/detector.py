"""The `Detector`: a loaded bundle that judges files, live sources and pushed frames."""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from dfd_edge.arguments import (
    MOST_THREADS,
    check_calls,
    check_kind,
    check_name,
    check_number,
    check_one_of,
    check_whole,
)
from dfd_edge.bundle.manifest import MANIFEST_NAME
from dfd_edge.closing import Closing
from dfd_edge.errors import BundleError, UnsupportedError, UsageError
from dfd_edge.faces.cropped import CroppedFaces
from dfd_edge.faces.detector import MAX_FACES
from dfd_edge.faces.selection import FacesOption
from dfd_edge.judging.decision import Decision, judge_still
from dfd_edge.judging.recording import (
    OnImage,
    OnProgress,
    OnResult,
    Reading,
    check_scan,
    judge_recording,
    plan_moments,
    undecided,
)
from dfd_edge.judging.results import (
    Event,
    Record,
    Verdict,
)
from dfd_edge.judging.stream import Stream
from dfd_edge.sources.conversion import FEW_COLOURS, few_colours
from dfd_edge.sources.expand import Source, SourceItem, SourceKind
from dfd_edge.sources.frames import Frame
from dfd_edge.sources.image import Colour, as_bgr
from dfd_edge.sources.opening import connector, open_file, open_live, read_still
from dfd_edge.sources.options import SourceOptions
from dfd_edge.sources.seeking import PartSampler
from dfd_edge.version import version_of

if TYPE_CHECKING:
    from dfd_edge.bundle import Bundle
    from dfd_edge.faces.detector import FaceDetector, FaceFinder
    from dfd_edge.inference.provider_options import ProviderOptions
    from dfd_edge.inference.providers import ProviderReport
    from dfd_edge.inference.session import Session
    from dfd_edge.judging.recording import Recording
    from dfd_edge.judging.watch import Watch
    from dfd_edge.sources.live import FrameSource, Policy

logger = logging.getLogger(__name__)


class Detector(Closing):
    """A loaded bundle. May be shared between threads; each source has its own `Stream`.

    Attributes:
        decision: The rules of the variant that runs: thresholds and calibration.

    Example:
        >>> detector = Detector.load()
        >>> detector.analyze("clip.mp4").label
        <Label.REAL: 'real'>
    """

    def __init__(self, session: Session, faces: FaceDetector | None, *, threads: int = 1) -> None:
        from dfd_edge.inference.batcher import Batcher  # noqa: PLC0415

        self.decision = Decision(session.decision)
        self._session = session
        self._batcher = Batcher(session)
        self._faces = faces
        self._threads = threads
        self._closed = False

    @classmethod
    def load(
        cls,
        path: str | Path | Bundle | None = None,
        *,
        provider: str = "auto",
        precision: str = "auto",
        threads: int = 1,
        options: ProviderOptions | None = None,
    ) -> Detector:
        """Loads a bundle and its face detector.

        Args:
            path: Folder of the bundle, or a `Bundle`, which is checked; the shipped one by
                default.
            provider: "auto" (may fall back; `provider` reports it), or one that must run:
                "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml".
            precision: "fp32", "fp16" or "int8" if the bundle has it, or "auto" to choose by
                provider and processor; `provider` reports the choice.
            threads: Threads that each library may use on its own; 1 is fastest on few cores,
                since the stages overlap. OpenCV's, one number for the whole process, stay as
                the application has set them (`cv2.setNumThreads`).
            options: Options of a named provider: device, memory limit, CUDA graphs
                (`dfd_edge.ProviderOptions`).

        Raises:
            BundleError: The bundle is missing, damaged, or does not keep the contract.
            ProviderError: The provider asked for cannot run, or onnxruntime is not installed.
            UsageError: An option is out of range, or the provider does not know it.
        """
        from dfd_edge.bundle import Bundle  # noqa: PLC0415
        from dfd_edge.inference.provider_options import NO_OPTIONS, ProviderOptions  # noqa: PLC0415
        from dfd_edge.inference.session import Session  # noqa: PLC0415

        threads = check_whole("threads", threads, least=1, most=MOST_THREADS)
        check_kind("path", path, (str, os.PathLike, Bundle), "the folder of a bundle")
        check_kind("options", options, ProviderOptions, "ProviderOptions")
        if not isinstance(path, Bundle):
            if path is not None:
                check_name("path", os.fspath(path))
            path = Bundle.described(None if path is None else Path(path))
        bundle = path
        bundle.check(keep=True)
        session = Session.open(
            bundle,
            provider=provider,
            precision=precision,
            threads=threads,
            options=options or NO_OPTIONS,
        )
        bundle.release()
        return cls(session, _load_faces(bundle, threads), threads=threads)

    @property
    def provider(self) -> ProviderReport:
        """The provider that runs: true if it is the requested one; its text says why not."""
        return self._session.provider

    @property
    def bundle(self) -> Bundle:
        """The loaded bundle."""
        return self._session.bundle

    def stream(
        self,
        source: str = "stream",
        *,
        rate_hz: float | None = None,
        faces: FacesOption = "all",
    ) -> Stream:
        """Opens a stream for frames of your own.

        Args:
            source: Name that results carry.
            rate_hz: Sampling rate; the bundle's own by default.
            faces: Which faces are judged: "all", "largest", or those of this many pixels and more.
                The others appear in the results as not judged.

        Raises:
            UsageError: The detector is closed, or the rate or `faces` is out of range.
        """
        check_kind("source", source, str, "a name for it")
        return self._open_stream(source, self._faces, rate_hz=rate_hz, faces=faces)

    def analyze(
        self,
        source: Source | SourceItem | NDArray[np.uint8],
        *,
        colour: Colour = "bgr",
        name: str | None = None,
        on_frame: OnResult | None = None,
        on_image: OnImage | None = None,
        every_image: bool = True,
        on_progress: OnProgress | None = None,
        on_event: Callable[[Event], None] | None = None,
        rate_hz: float | None = None,
        duration_s: float | None = None,
        stop: threading.Event | None = None,
        options: SourceOptions | None = None,
        faces: FacesOption = "all",
        cropped: bool = False,
        max_frames: int | None = None,
        scan: bool = False,
    ) -> Verdict:
        """Judges a video file or an image: a path, the bytes, an open file, or an image's pixels.

        Decoding, face detection and the models overlap. The scores are those of pushing the frames
        one by one to a `Stream`, except that faces are found in a copy that was shrunk before it
        was converted to BGR: boxes differ by about a hundredth of a face, scores with them. With a
        bundle that judges only the first frames, decoding ends with the last of them, unless
        `on_image` needs all; the duration of the verdict is that of the judged frames. Pictures of
        few colours (GIF, palettes, 1 bit) are `unsure` whatever their score, and `reason` says so.

        With `max_frames` a film is judged at so many moments, one near the middle of each of so
        many equal intervals, and decoded from the key frame before each instead of throughout. A
        person is recognised from one moment to the next by looks. The verdict is not `complete`,
        and its duration is the length that the moments are spread over.

        Args:
            source: Path of the file, or "-" for a video on standard input; the bytes of a file; an
                open binary file, which is read from its start; or an image as an array, uint8
                [height, width] or [height, width, 1, 3 or 4], whose fourth channel is left out.
            colour: The order of an array's channels, "bgr" or "rgb".
            name: Name of the source in the verdict and in messages; the path by default.
            on_frame: Called with each result, in order.
            on_image: Called with every decoded frame, due or not, and the newest result, for
                drawing. Frames that are not due have to be converted for it.
            every_image: False calls `on_image` with judged frames only, at no extra cost.
            on_progress: Called with the seconds done and the length of the source, or None.
            on_event: Called with notes on the source, such as a second film in the file.
            rate_hz: Sampling rate; the bundle's own by default.
            duration_s: Judge only this many seconds from the start.
            stop: Set it from another thread or a signal handler to get the verdict so far.
            options: Stream to judge, size limit of pictures, format of raw frames on standard
                input, and whether a limited process decodes (`sandbox`); by default those of a
                `SourceItem`.
            faces: Which faces are judged, as in `stream`.
            cropped: Whether an image is a face crop already. Its face is then searched for with
                more effort, and where none is found, the image itself is judged as one: such an
                image is never `no_face`.
            max_frames: Judge a film at this many moments; all of it where that takes no more
                frames, and where its length is not known, which a note then says.
            scan: Search a film for passages that look fake: at a moment every 2 s first, then
                throughout round those that looked fake or unsure. Results come in two runs then.

        Raises:
            SourceError: The source cannot be read; the message names it and the cause.
            UsageError: The source or an argument is of another kind, or out of range; `cropped` is
                set for a video.
        """
        _check_asked(duration_s, options, stop)
        check_calls(on_frame=on_frame, on_image=on_image, on_progress=on_progress)
        if name is not None:
            check_kind("name", name, str, "a name for the source")
        check_kind("cropped", cropped, bool, "True or False")
        parts = None
        if max_frames is not None:
            parts = plan_moments(
                max_frames,
                self.bundle.manifest,
                least=self.decision.spec.min_steps,
                rate_hz=rate_hz,
                duration_s=duration_s,
            )
        if isinstance(source, np.ndarray):
            image = as_bgr(source, colour)
            return self._judge_image(
                image, name or "array", on_frame, on_image, faces=faces, cropped=cropped
            )
        item = SourceItem.made_of(source, options)
        if name is not None:
            item = dataclasses.replace(item, name=name)
        if item.kind is SourceKind.IMAGE:
            image = read_still(item)
            return self._judge_image(
                image, item.name, on_frame, on_image, faces=faces, cropped=cropped
            )
        if cropped:
            raise UsageError("cropped is for images, this is none: leave it out", source=item.name)
        if item.kind in (SourceKind.CAMERA, SourceKind.ADDRESS):
            raise UnsupportedError(item.name, "a live source", "use `watch`")
        reading = Reading(
            stop=stop or threading.Event(),
            duration_s=duration_s,
            on_frame=on_frame,
            on_image=on_image,
            every_image=every_image,
            on_progress=on_progress,
            on_event=on_event,
        )

        def opened() -> Recording:
            if item.ahead is not None:
                return item.ahead.take()
            return open_file(item, reading.stop, threads=self._threads)

        def judging(parts: PartSampler | None) -> Stream:
            return self._open_stream(
                item.name, self._faces, parts=parts, rate_hz=rate_hz, faces=faces
            )

        if not scan:
            stream = judging(parts)
            return judge_recording(opened(), stream, reading)
        check_scan(
            self.bundle.manifest,
            max_frames=max_frames,
            on_standard_input=item.kind is SourceKind.STANDARD_INPUT,
        )
        from dfd_edge.judging.scanning import scan_recording  # noqa: PLC0415 - few runs need it

        rate_hz = rate_hz or self.bundle.manifest.sequence.rate_hz
        return scan_recording(opened, judging, reading, self.decision, rate_hz)

    def watch(
        self,
        source: Source | SourceItem,
        *,
        policy: Policy | str | None = None,
        rate_hz: float | None = None,
        max_staleness_ms: float | None = None,
        duration_s: float | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_image: OnImage | None = None,
        every_image: bool = True,
        options: SourceOptions | None = None,
        faces: FacesOption = "all",
        wait: bool = True,
    ) -> Watch:
        """Watches a camera, an address or a file; iterate over the results.

        A lost camera or stream is reopened; events report it.

        Args:
            source: Camera index, device file, address (`rtsp://...`), or a video as `analyze`
                takes it.
            policy: "latest" judges only the newest frame, "every" all that are due; by default
                `latest`, and `every` for sources that have an end.
            rate_hz: Sampling rate; the bundle's own by default.
            max_staleness_ms: Frames that waited longer than this are dropped.
            duration_s: Seconds after which to end.
            on_event: Called with gaps, reconnects, drops and notes, from the reader's thread.
            on_image: Called with every frame and the newest result, for display.
            every_image: False calls `on_image` with judged frames only.
            options: How to open it: size and rate of a camera, RTSP transport, for how long to
                retry; by default those of a `SourceItem`.
            faces: Which faces are judged, as in `stream`.
            wait: Whether to wait until it is open. Otherwise the call returns at once, and the
                first `next` raises what went wrong.

        Raises:
            SourceError: The source cannot be opened.
            UsageError: The bundle judges the first frames of a clip alone, or an argument is of
                another kind, or out of range.
        """
        from dfd_edge.judging.watch import Watch  # noqa: PLC0415 - files need none of the two
        from dfd_edge.sources.live import Policy  # noqa: PLC0415

        _check_asked(duration_s, options)
        check_calls(on_event=on_event, on_image=on_image)
        if policy is not None:
            check_one_of("policy", policy, Policy)
        if max_staleness_ms is not None:
            check_number("max_staleness_ms", max_staleness_ms, above=0.0)
        item = SourceItem.made_of(source, options)
        manifest = self.bundle.manifest
        if manifest.sequence.first_frames is not None:
            raise UsageError(
                f"model {manifest.name} judges the first {manifest.sequence.first_frames} frames "
                "of a clip, and would say nothing of what comes later: record a clip and judge "
                "that, or take another --model",
                source=item.name,
            )
        return Watch(
            self.stream(item.name, rate_hz=rate_hz, faces=faces),
            connector(item, self._connect),
            policy=None if policy is None else Policy(policy),
            max_staleness_ms=max_staleness_ms,
            duration_s=duration_s,
            on_event=on_event,
            on_image=on_image,
            every_image=every_image,
            reconnect_s=item.options.reconnect_s,
            wait=wait,
        )

    def run_record(
        self, *, rate_hz: float | None = None, max_frames: int | None = None, scan: bool = False
    ) -> Record:
        """Returns the JSON Lines object that describes this run."""
        from dfd_edge.inference.installation import installed_wheels  # noqa: PLC0415

        report, bundle = self.provider, self.bundle
        return {
            "record": "run",
            "versions": {
                "dfd-edge": version_of("dfd-edge"),
                "python": platform.python_version(),
                "onnxruntime": next(iter(installed_wheels().values()), None),
                "av": version_of("av"),
                "opencv": version_of("opencv-python"),
                "numpy": np.__version__,
            },
            "bundle": {"name": bundle.manifest.name, "hash": bundle.hash},
            "provider": {
                "requested": report.requested,
                "actual": report.actual,
                "sequence": report.sequence_actual,
                "faces": report.face_actual,
                "device": report.device,
                "reason": report.reason,
            },
            "precision": report.precision,
            "rate_hz": rate_hz or bundle.manifest.sequence.rate_hz,
            "first_frames": bundle.manifest.sequence.first_frames,
            "max_frames": max_frames,
            "scan": scan,
        }

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Detector cannot be pickled: load one in each process")

    def close(self) -> None:
        """Refuses new streams; open ones go on. Safe to call twice."""
        self._closed = True

    def _open_stream(
        self,
        source: str,
        finder: FaceFinder | None,
        *,
        parts: PartSampler | None = None,
        rate_hz: float | None = None,
        faces: FacesOption = "all",
    ) -> Stream:
        if self._closed:
            raise UsageError("the detector is closed; load another one", source=source)
        return Stream(
            self._session,
            finder,
            source=source,
            rate_hz=rate_hz,
            decision=self.decision,
            batcher=self._batcher,
            judged_faces=faces,
            parts=parts,
        )

    @property
    def _faces_of_crops(self) -> FaceFinder | None:
        """The finder for images that are face crops; None for models that judge whole frames."""
        if self._faces is None:
            return None
        return CroppedFaces(self._faces, crop_scale=self.bundle.manifest.frame.crop_scale)

    def _connect(self, item: SourceItem, stop: threading.Event) -> FrameSource:
        return open_live(item, threads=self._threads, stop=stop)

    def _judge_image(
        self,
        image: NDArray[np.uint8],
        name: str,
        on_frame: OnResult | None,
        on_image: OnImage | None,
        *,
        faces: FacesOption,
        cropped: bool,
    ) -> Verdict:
        """Judges an image, which has no sequence: each face has one frame score."""
        finder = self._faces_of_crops if cropped else self._faces
        stream = self._open_stream(name, finder, faces=faces)
        (scored,) = stream.score([stream.observe(image, 0.0, thorough=True)])
        result, people, decisive = judge_still(scored, self.decision.for_stills())
        if on_frame is not None:
            on_frame(result)
        if on_image is not None:
            on_image(Frame(image, 0.0, 0), result)
        reasons = [] if stream.fault is None else [stream.fault]
        if len(people) >= MAX_FACES:
            reasons.append(f"only the {MAX_FACES:,} largest faces were judged")
        verdict = Verdict(
            source=name,
            label=result.label,
            p_fake=None if decisive is None else decisive.p_fake,
            coverage=0.0 if decisive is None else 1.0,
            frames=1,
            duration_s=0.0,
            people=people,
            provider=self.provider.actual,
            complete=not reasons,
            reason="; ".join(reasons) or None,
            logit=None if decisive is None else decisive.logit,
        )
        return undecided(verdict, FEW_COLOURS) if few_colours(image) else verdict


def _check_asked(duration_s: object, options: object, stop: threading.Event | None = None) -> None:
    if duration_s is not None:
        check_number("duration_s", duration_s, above=0.0)
    if options is not None:
        check_kind("options", options, SourceOptions, "SourceOptions")
    if stop is not None:
        check_kind("stop", stop, threading.Event, "a threading.Event")


def _load_faces(bundle: Bundle, threads: int) -> FaceDetector | None:
    """Returns the face detector that the bundle was trained with; None for whole-frame models.

    Raises:
        BundleError: The bundle names another detector than the shipped one, or unknown options.
    """
    from dfd_edge.faces.detector import DetectorOptions, FaceDetector  # noqa: PLC0415

    wanted = bundle.manifest.face
    if wanted.detector == "none":
        return None
    if wanted.detector != FaceDetector.name:
        raise BundleError(
            f"{bundle.path}: made with the face detector {wanted.detector!r}, this program has "
            f"{FaceDetector.name!r}; export the bundle again"
        )
    try:
        options = DetectorOptions.from_dict(wanted.options)
    except UsageError as error:
        raise BundleError(f"{bundle.path / MANIFEST_NAME}: face.options: {error}") from error
    faces = FaceDetector(options=options, threads=threads)
    if wanted.sha256 != faces.sha256:
        raise BundleError(
            f"{bundle.path}: made with a {wanted.detector} of sha256 {wanted.sha256[:12]}, this "
            f"program has {faces.sha256[:12]}; export the bundle again"
        )
    return faces
