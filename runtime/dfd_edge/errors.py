"""The program's own errors: one line for the user, with value, cause and mend.

A traceback is for a fault of the program; whatever a user, a file or a machine can cause is
one of these. Each carries the exit code of the command line.
"""

from __future__ import annotations

import logging
import os

logger = logging.getLogger(__name__)

_NO_MEMORY = (
    *("bad_alloc", "Failed to allocate", "annot allocate memory", "Insufficient memory"),
    *("can't start new thread", "failed to map segment"),
)


class DfdError(Exception):
    """Base of all errors that `dfd-edge` raises on purpose.

    Attributes:
        exit_code: Exit code of the command line.
        source: Name of the source that the error is about; None where it is about none.
    """

    exit_code: int = 1
    source: str | None = None


class SourceError(DfdError):
    """A file, camera or stream cannot be read or judged. The other sources are still done.

    Its text is one line: source, cause and mend.

    Args:
        source: Name of the source, credentials taken out.
        cause: Why it cannot be read.
        mend: What to do about it, where that is known.

    Attributes:
        source, cause, mend: As given.
    """

    source: str
    _before_mend = "; "

    def __init__(self, source: str | os.PathLike[str], cause: str, mend: str | None = None) -> None:
        self.source = str(source)
        self.cause = cause
        self.mend = mend
        super().__init__(self.source, cause, mend)

    def __str__(self) -> str:
        """Source, cause and mend in one line."""
        mend = "" if self.mend is None else f"{self._before_mend}{self.mend}"
        return f"{self.source}: {self.cause}{mend}"


class SourceNotFoundError(SourceError):
    """There is no such file, folder or address, or no media in the folder."""


class NotMediaError(SourceError):
    """No picture can be decoded: it is no video or picture at all, empty, damaged or cut off."""


class UnsupportedError(SourceError):
    """The source is media of a kind or size that is not read, or not in this way."""


class UnreachableError(SourceError):
    """A network stream cannot be opened, or was lost."""


class CameraError(SourceError):
    """A camera is missing or in use, or gives no picture."""


class SourceFaultError(SourceError):
    """A source could not be judged through a fault of this program or of a library."""

    _before_mend = ": "


class OutputError(DfdError):
    """Results cannot be written any more: the disk is full, or nobody reads them."""


class BrokenOutput(OutputError):
    """The reader of standard output has left, as `head` does: the run ends without a word."""

    exit_code = 141  # as if SIGPIPE had ended the process


class UsageError(DfdError):
    """The request itself is wrong: an option, an argument, an array of the wrong shape.

    Args:
        cause: What is wrong, and what to give.
        source: Name of the source that it is about, if any; the text starts with it.
    """

    exit_code = 2

    def __init__(self, cause: str, *, source: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.source = source

    def __str__(self) -> str:
        """The cause, after the name of the source where there is one."""
        return self.cause if self.source is None else f"{self.source}: {self.cause}"


class ProviderError(DfdError):
    """The provider asked for cannot run, or no usable onnxruntime is installed."""

    exit_code = 4


class BundleError(DfdError):
    """A model bundle is missing, damaged, or does not keep the contract."""

    exit_code = 5


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, means that there was too little memory.

    Libraries say so in types and words of their own.
    """
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, MemoryError):
            return True
        if not isinstance(at, DfdError) and any(sign in str(at) for sign in _NO_MEMORY):
            return True
        at = at.__cause__ or at.__context__
    return False


def source_error(source: str, error: Exception) -> DfdError:
    """Returns the error of one source in one line, whatever it was that broke it.

    The traceback of anything but the program's own errors goes to the log, at level INFO.

    Args:
        source: Name of the source.
        error: What was raised while it was judged.
    """
    if isinstance(error, DfdError):
        named = error.source is not None or isinstance(error, OutputError)
        return error if named else SourceError(source, str(error))
    logger.info("%s: the traceback of its error", source, exc_info=error)
    if is_out_of_memory(error):
        return SourceError(source, "there is not enough memory to judge it")
    if isinstance(error, OSError) and error.strerror:
        return SourceError(source, f"cannot be judged ({error.strerror})")
    from dfd_edge.libraries import wrong_version  # noqa: PLC0415 - only a fault needs it

    cause = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
    if advice := wrong_version():
        return SourceFaultError(source, f"could not be judged to its end ({cause})", advice)
    return SourceFaultError(
        source,
        f"could not be judged to its end, by a fault of this program ({cause})",
        "run again with -v for the traceback, and report it",
    )
