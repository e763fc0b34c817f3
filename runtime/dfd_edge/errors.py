"""The program's own errors: one line for the user, with value, cause and mend.

A traceback is for a fault of the program; whatever a user, a file or a machine can cause is
one of these. Each carries the exit code of the command line.
"""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

_NO_MEMORY = (
    *("bad_alloc", "Failed to allocate", "annot allocate memory", "Insufficient memory"),
    "can't start new thread",
)


class DfdError(Exception):
    """Base of all errors that `dfd-edge` raises on purpose."""

    exit_code: int = 1


class SourceError(DfdError):
    """A file, camera or stream cannot be read. The other sources are still done."""


class OutputError(DfdError):
    """Results cannot be written any more: the disk is full, or nobody reads them."""


class BrokenOutput(OutputError):
    """The reader of standard output has left, as `head` does: the run ends without a word."""

    exit_code = 141  # as if SIGPIPE had ended the process


class UsageError(DfdError):
    """The request itself is wrong: an option, an argument, an array of the wrong shape."""

    exit_code = 2


class ProviderError(DfdError):
    """The provider asked for cannot run, or no usable onnxruntime is installed."""

    exit_code = 4


class BundleError(DfdError):
    """A model bundle is missing, damaged, or does not keep the contract."""

    exit_code = 5


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory could not be had, in the words of any library."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


def source_error(source: str, error: Exception) -> DfdError:
    """The error of one source in one line, whatever it was that broke it.

    The traceback of anything but the program's own errors goes to the log, at level INFO.

    Args:
        source: Name of the source.
        error: What was raised while it was judged.
    """
    if isinstance(error, DfdError):
        named = isinstance(error, SourceError | OutputError) or source in str(error)
        return error if named else SourceError(f"{source}: {error}")
    logger.info("%s: the traceback of its error", source, exc_info=error)
    if is_out_of_memory(error):
        return SourceError(f"{source}: there is not enough memory to judge it")
    if isinstance(error, OSError) and error.strerror:
        return SourceError(f"{source}: cannot be judged ({error.strerror})")
    from dfd_edge.libraries import wrong_version  # noqa: PLC0415 - only a fault needs it

    cause = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
    if advice := wrong_version():
        return SourceError(f"{source}: could not be judged to its end ({cause}): {advice}")
    return SourceError(
        f"{source}: could not be judged to its end, by a fault of this program ({cause}): run "
        "again with -v for the traceback, and report it"
    )
