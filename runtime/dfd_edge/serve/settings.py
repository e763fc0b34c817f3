"""Settings of the service, and the folder that it keeps everything in."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dfd_edge.arguments import check_number, check_whole
from dfd_edge.errors import UsageError
from dfd_edge.inference.provider_options import NO_OPTIONS, ProviderOptions

_MOST_JOBS = 64
_MOST_DAYS = 36_500.0
_FOLDERS = ("media", "results", "bundles")


def default_folder() -> Path:
    """Returns the folder of the service where none is given."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "dfd-edge"


@dataclass(frozen=True, slots=True)
class CameraSource:
    """A live source that the operator configured.

    Attributes:
        name: Its name in addresses and pages.
        source: Camera number, device file, address or file, as `dfd-edge` takes it.
    """

    name: str
    source: str

    @classmethod
    def parse(cls, text: str) -> CameraSource:
        """Reads `NAME=SOURCE`.

        Raises:
            UsageError: The name is missing, or holds more than letters, digits, `-`, `_` and `.`.
        """
        name, _, source = text.partition("=")
        plain = name.replace("-", "").replace("_", "").replace(".", "")
        if not source or not (plain.isascii() and plain.isalnum()):
            raise UsageError(
                f"--camera {text!r}: give NAME=SOURCE, such as door=rtsp://192.0.2.7/stream; a "
                "name has letters, digits, - and _"
            )
        return cls(name, source)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Settings of the service.

    Attributes:
        data: Folder of the database, originals and results.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        model: Folder of the bundle; None for the shipped one.
        provider, precision, threads, provider_options: As in `Detector.load`.
        jobs: Files judged at once, each in a process of its own.
        keep_days: Days after which originals are deleted; 0 deletes each once it is judged.
        token: Secret that requests have to bring; None asks for none.
        hosts: Names under which the service may be asked for, beside its own address.
        allowed_addresses: Hosts that pasted addresses may name; empty refuses all.
        cameras: Live sources.
        max_bytes: Largest file in bytes.
        max_duration_s: Longest film in seconds.
        max_queue: Most judgements that wait.
        max_seconds: Longest time that a judgement may take.
        memory_mb: Memory that the process which decodes may allocate.
        sandbox: Whether uploads are decoded in a limited process.
        provenance: Whether judgements carry what the files say of their origin.
        trust_list: Certificates that are trusted for that, in PEM; None for the shipped list.

    Raises:
        UsageError: A value is out of range.
    """

    data: Path = field(default_factory=default_folder)
    host: str = "127.0.0.1"
    port: int = 8333
    model: Path | None = None
    provider: str = "auto"
    precision: str = "auto"
    threads: int = 1
    provider_options: ProviderOptions = NO_OPTIONS
    jobs: int = 1
    keep_days: float = 7.0
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    allowed_addresses: tuple[str, ...] = ()
    cameras: tuple[CameraSource, ...] = ()
    max_bytes: int = 2 << 30
    max_duration_s: float = 3600.0
    max_queue: int = 1000
    max_seconds: float = 7200.0
    memory_mb: int = 2048
    sandbox: bool = True
    provenance: bool = False
    trust_list: Path | None = None

    def __post_init__(self) -> None:
        check_whole("port", self.port, least=0, most=65535)
        check_whole("jobs", self.jobs, least=1, most=_MOST_JOBS)
        check_number("days to keep originals", self.keep_days, most=_MOST_DAYS)
        check_whole("largest file in bytes", self.max_bytes, least=1, most=1 << 50)
        check_number("longest film in seconds", self.max_duration_s, above=0.0)
        check_number("longest time of a judgement in seconds", self.max_seconds, above=0.0)
        check_whole("most judgements that wait", self.max_queue, least=1, most=1_000_000)
        names = [camera.name for camera in self.cameras]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"--camera: {twice[0]!r} is given twice; each needs its own name")

    @property
    def media(self) -> Path:
        """Folder of the originals, under random names."""
        return self.data / "media"

    @property
    def results(self) -> Path:
        """Folder of records, crops and evidence."""
        return self.data / "results"

    @property
    def bundles(self) -> Path:
        """Folder of the manifests of the bundles that have judged here."""
        return self.data / "bundles"

    def prepare(self) -> None:
        """Creates the folders, readable by this user alone.

        Raises:
            UsageError: One cannot be created or written.
        """
        try:
            for folder in (self.data, *(self.data / name for name in _FOLDERS)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--data {self.data}: cannot be created ({error.strerror}): give a folder that "
                "this user may write"
            ) from error
        if not os.access(self.data, os.W_OK | os.X_OK):
            raise UsageError(f"--data {self.data}: not writable: give another folder")
