"""Decoding on an NVIDIA device (NVDEC): whether it runs, why not, and the way back to the host.

Decoded frames lie in the device's memory as NV12, or P010 for more than 8 bits. Faces are found and
cut out on the host, so the frames that are needed are downloaded and their planes laid out as the
CPU's decoders do: everything behind it sees the same samples. The others are never downloaded.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from dfd_edge.errors import ProviderError, SourceError
from dfd_edge.version import is_allowed, version_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

DecoderName = Literal["auto", "cpu", "cuda"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)

#: PyAV before it loses colours, turns and marks of damage where it downloads a frame.
_PYAV = "av>=18"
#: Layouts of downloaded frames, each with that of the CPU's decoders: the same samples.
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le", "nv16": "yuv422p", "p210le": "yuv422p10le"}


class Fault(NamedTuple):
    """Why a device does not decode, and what to do about it."""

    cause: str
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class DecoderReport:
    """The decoder of a source, and whether it is the one asked for.

    True where it is; for `auto`, where the device decodes. Its text says so in words.

    Attributes:
        requested: The decoder asked for, a `DecoderName`.
        actual: The one that runs: "cpu" or "cuda".
        reason: Why the device does not decode; None where nothing was missed.
        device: Number of the device that was asked for.
    """

    requested: str = "cpu"
    actual: str = "cpu"
    reason: str | None = None
    device: int = 0

    def __bool__(self) -> bool:
        return self.reason is None

    def __str__(self) -> str:
        runs = f"{self.actual} {self.device}" if self.actual == "cuda" else self.actual
        return f"{runs}: {self.reason}" if self.reason else runs

    def without_device(self, fault: Fault) -> DecoderReport:
        """Returns the report of decoding on the CPU instead.

        Raises:
            ProviderError: The device was asked for by name: there is no falling back from it.
        """
        if self.requested == "cuda":
            mend = f"{fault.mend}, or " if fault.mend else ""
            raise ProviderError(
                f"decoder cuda cannot run: {fault.cause}: {mend}leave --decoder cuda out"
            )
        return dataclasses.replace(self, actual="cpu", reason=fault.cause)


ON_CPU = DecoderReport()


def choose_decoder(requested: DecoderName, device: int = 0) -> DecoderReport:
    """Chooses between the device and the CPU, by whether a decoder can be created on the device.

    Whether the device decodes a given film is known once that is open (`open_on`) and its first
    frame decoded (`is_on_device`).

    Args:
        requested: "cpu"; "cuda", which must run; or "auto", which falls back.
        device: Number of the device.

    Raises:
        ProviderError: The device was asked for by name and cannot decode.
    """
    if requested == "cpu":
        return ON_CPU
    report = DecoderReport(requested, "cuda", device=device)
    fault = _device_fault(device)
    return report if fault is None else report.without_device(fault)


def open_on(
    report: DecoderReport, open_with: Callable[[Any], InputContainer]
) -> tuple[InputContainer, DecoderReport]:
    """Opens a container for the chosen decoder.

    Args:
        report: What `choose_decoder` returned.
        open_with: Opens it with PyAV's `hwaccel`, which is None for the CPU.

    Returns:
        The container, and what decodes it.

    Raises:
        av.error.FFmpegError, SourceError: It cannot be opened, whatever decodes it.
        ProviderError: The device was asked for by name and failed meanwhile.
    """
    import av.error  # noqa: PLC0415 - the command line reads the names above before it needs FFmpeg

    if report.actual != "cuda":
        return open_with(None), report
    try:
        return open_with(_hwaccel(report.device)), report
    except (av.error.FFmpegError, SourceError):
        # The device's error or the file's, which look alike: the device is asked once more.
        if (fault := _creation_fault(report.device)) is None:
            raise
        on_cpu = report.without_device(fault)
        return open_with(None), on_cpu


def is_on_device(frame: VideoFrame) -> bool:
    """Returns whether a decoded frame lies in the device's memory; asks PyAV 18 or newer."""
    return frame.sw_format is not None


def downloaded(frame: VideoFrame) -> VideoFrame:
    """Returns a frame in the host's memory, its planes laid out as the CPU's decoders do.

    Args:
        frame: A decoded frame, on the device or downloaded.

    Raises:
        av.error.FFmpegError: The device cannot be read any more.
    """
    form = frame.sw_format or frame.format
    # One thread: with several, swscale leaves wrong samples in some rows of 10-bit frames.
    return frame.reformat(format=_PLANAR.get(form.name, form.name), threads=1)


@functools.cache
def _device_fault(device: int) -> Fault | None:
    """Returns why a device cannot decode, None where a decoder can be created on it."""
    from av.codec.hwaccel import hwdevices_available  # noqa: PLC0415

    version = version_of("av")
    if version is not None and not is_allowed(version, _PYAV):
        cause = f"PyAV {version} loses the colours of the frames that it downloads"
        return Fault(cause, f"run `pip install '{_PYAV}'`")
    if "cuda" not in hwdevices_available():
        return Fault("the installed PyAV is built without CUDA")
    for library, (lacks, mend) in _LIBRARIES[sys.platform == "win32"].items():
        try:
            ctypes.CDLL(library)
        except OSError as error:
            return Fault(f"{lacks} ({error})", mend)
    return _creation_fault(device)


_NO_DRIVER = ("there is no NVIDIA driver", "install it")
#: Libraries of the driver that FFmpeg loads by itself, elsewhere and on Windows, and the mend.
_LIBRARIES = (
    {
        "libcuda.so.1": _NO_DRIVER,
        "libnvcuvid.so.1": (
            "the driver's video library is missing",
            "install libnvidia-decode, or start the container with "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video",
        ),
    },
    {"nvcuda.dll": _NO_DRIVER, "nvcuvid.dll": _NO_DRIVER},
)


def _creation_fault(device: int) -> Fault | None:
    import av.error  # noqa: PLC0415
    from av.codec.context import CodecContext  # noqa: PLC0415

    try:
        context = CodecContext.create("h264", "r", hwaccel=_hwaccel(device))
    except av.error.FFmpegError as error:
        cause = (error.strerror or type(error).__name__).lower()
        cause = f"FFmpeg cannot use device {device} ({cause})"
        return Fault(cause, "see that `nvidia-smi` lists it")
    return None if context.is_hwaccel else Fault("the installed PyAV is built without NVDEC")


def _hwaccel(device: int) -> Any:  # noqa: ANN401 - PyAV's settings, whose types differ by version
    from av.codec.hwaccel import HWAccel  # noqa: PLC0415

    # Owned: frames stay on the device until they are downloaded, in the context that onnxruntime
    # uses too. With the fall-back a film that the device does not decode is recognised by its
    # first frame, instead of by an error that might mean anything.
    return HWAccel("cuda", str(device), allow_software_fallback=True, is_hw_owned=True)
