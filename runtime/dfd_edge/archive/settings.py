"""Settings of an archive's judgements, and the limits of its workers."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dfd_edge.faces.selection import FacesOption


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """Settings on which a judgement depends. All clips of one archive share them.

    Attributes:
        model: Folder of the bundle; None for the shipped one.
        precision: Variant of the frame model.
        rate_hz, duration_s, max_frames, scan, faces: As in `dfd_edge.Detector.analyze`.
        cropped: Whether images are face crops already.
        max_pixels: Largest picture or frame that is decoded; None for the default.
        sandbox: Whether a further child process decodes.
        frame_rows: Whether there is a row for each person in each judged frame.
        thumbnails: Whether rows carry a picture of the most suspicious crop.
        provenance: Whether rows carry what the clips say of their origin.
        trust_list: Certificates that are trusted for that, in PEM; None for the shipped list.
    """

    model: str | None = None
    precision: str = "auto"
    rate_hz: float | None = None
    duration_s: float | None = None
    max_frames: int | None = None
    scan: bool = False
    faces: str = "all"
    cropped: bool = False
    max_pixels: int | None = None
    sandbox: bool = False
    frame_rows: bool = False
    thumbnails: bool = False
    provenance: bool = False
    trust_list: str | None = None

    def faces_option(self) -> FacesOption:
        """Returns `faces` as `Detector.analyze` takes it."""
        from dfd_edge.faces.selection import parse_faces  # noqa: PLC0415 - loads numpy

        return parse_faces(self.faces)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Settings of a worker that do not change a judgement by more than rounding.

    Attributes:
        provider: Provider that runs the frame model.
        threads: Threads that each library may use.
        device, gpu_memory_limit_mb, cuda_graphs, engine_cache: As in `dfd_edge.ProviderOptions`.
        clip_time_s: Longest time that a clip may take.
        memory_mb: Memory that a worker may allocate, libraries included; kept on Linux, with the
            provider cpu.
    """

    provider: str = "auto"
    threads: int = 1
    device: str | None = None
    gpu_memory_limit_mb: int | None = None
    cuda_graphs: bool = False
    engine_cache: str | None = None
    clip_time_s: float = 1800.0
    memory_mb: int = 4096


#: Variables of the environment that a worker gets; others may hold credentials.
_VARIABLES = frozenset(
    (*("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME"),)
    + (*("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),)
)
_PREFIXES = ("CUDA_", "NVIDIA_", "ORT_", "OMP_", "OPENVINO_")


def worker_environment() -> dict[str, str]:
    """Returns the part of the environment that a worker gets: no credentials."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith(_PREFIXES)
    }
