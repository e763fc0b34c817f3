"""The program's own errors: one line for the user, with value, cause and mend.

A traceback is for a fault of the program; whatever a user, a file or a machine can cause is
one of these. Each carries the exit code of the command line.
"""

from __future__ import annotations


class DfdError(Exception):
    """Base of all errors that `dfd-edge` raises on purpose."""

    exit_code: int = 1


class SourceError(DfdError):
    """A file, camera or stream cannot be read. The other sources are still done."""


class UsageError(DfdError):
    """The request itself is wrong: an option, an argument, an array of the wrong shape."""

    exit_code = 2


class ProviderError(DfdError):
    """The provider asked for cannot run, or no usable onnxruntime is installed."""

    exit_code = 4


class BundleError(DfdError):
    """A model bundle is missing, damaged, or does not keep the contract."""

    exit_code = 5
