"""Limits that a process sets itself before it opens a source: memory, files, network, its parent.

Nothing here needs more than the standard library, so that it holds before anything else is loaded.
Limits that the system does not offer are left out: see `docs/sandbox.md`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import sys
from collections.abc import Iterable

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
#: Landlock (Linux 5.13): its system calls have these numbers on every processor.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
_ALL_ACCESS = (1 << 13) - 1
#: Files that libraries read at work: tables of name resolution, certificates, fonts, codecs.
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/etc", "/opt", "/run/systemd/resolve", "/dev/urandom")
#: Room for what is mapped but not allocated: libraries and reserved addresses.
_MAPPED_MB = 4096
_MAX_OPEN_FILES = 128


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def end_with_parent(lifeline: int, *, of_thread: bool = True) -> None:
    """Ends this process, whatever it is doing, as soon as its parent is gone.

    Args:
        lifeline: Descriptor of a pipe's reading end; the parent alone holds the writing end, and
            writes nothing.
        of_thread: Whether it also ends with the thread that started it (Linux).
    """
    import fcntl  # noqa: PLC0415 - not on Windows

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which ends its children
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    with contextlib.suppress(OSError):  # not on macOS, where it ends when it next sends something
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if of_thread:
        end_with_thread()


def end_with_thread() -> None:
    """Ends this process with the thread that started it, as Linux offers it."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def leave_network() -> None:
    """Moves this process to an empty network namespace, where the system allows it.

    To be called before a library has started threads.
    """
    if sys.platform != "linux":
        return
    # In a user namespace, root would lose its right to read other users' files.
    flags = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET
    _libc().unshare(flags)


def die_first() -> None:
    """Lets the system end this process and its children before others where memory runs out.

    Linux; elsewhere it does nothing.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")


def limit_data(memory_mb: int) -> None:
    """Limits what this process may allocate, and leaves no core where it crashes.

    macOS takes the limit and does not keep it.
    """
    import resource  # noqa: PLC0415 - not on Windows

    _limit({resource.RLIMIT_DATA: memory_mb << 20, resource.RLIMIT_CORE: 0})


def limit(memory_mb: int) -> None:
    """Limits memory and open files; files cannot be written to, and a crash leaves no core.

    macOS takes the limit of memory and does not keep it.
    """
    import resource  # noqa: PLC0415 - not on Windows

    limits = {
        resource.RLIMIT_DATA: memory_mb << 20,
        resource.RLIMIT_AS: (memory_mb + _MAPPED_MB) << 20,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
    }
    _limit(limits)


def _limit(limits: dict[int, int]) -> None:
    import resource  # noqa: PLC0415 - not on Windows

    for what, wanted in limits.items():
        _, hard = resource.getrlimit(what)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (allowed, allowed))


def read_only(files: Iterable[str]) -> None:
    """Restricts this process to reading these files, libraries and system settings.

    Files can be neither written nor made nor removed. To be called before a library has started
    threads, since only the calling one and its children are held to it.
    """
    if sys.platform != "linux":
        return
    libc = _libc()
    attributes = struct.pack("Q", _ALL_ACCESS)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return
    folders = {*_SYSTEM_FOLDERS, sys.prefix, sys.base_prefix, *(path for path in sys.path if path)}
    try:
        for path in (*folders, *files):
            _allow_reading(libc, ruleset, path)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            libc.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not on this machine; opening a missing source raises the error
        return
    try:
        access = _READ_FILE | (_EXECUTE | _READ_FOLDER if os.path.isdir(path) else 0)  # noqa: PTH112
        rule = struct.pack("=Qi", access, descriptor)
        libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
