"""Readers of provenance that do what a hostile file might do to a parser, for the process of it."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from dfd_edge.provenance.child import Request
from dfd_edge.provenance.record import Mark, Outcome, Provenance


def read(request: Request) -> Any:
    """Does what the file says, and reads its marks where manifests are left alone."""
    told = request.path.read_text()
    if request.marks_only:
        return Provenance(Outcome.NOTHING, "", marks=(Mark("told", told),))
    ill = globals().get(f"_{told.partition(' ')[0]}")
    if ill is not None:
        return ill(told.partition(" ")[2])
    return _said(told)


def _said(text: str, error: str | None = None) -> Provenance:
    return Provenance(Outcome.NOTHING, "", marks=(Mark("said", text),), error=error)


def _hang(_: str) -> None:
    while True:
        time.sleep(0.01)


def _deaf(_: str) -> None:
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    _hang(_)


def _abort(_: str) -> None:
    os.abort()


def _overflow(_: str) -> None:
    os.kill(os.getpid(), 11)


def _fill(_: str) -> Any:
    taken = []
    while True:
        taken.append(bytearray(1 << 24))


def _raise(_: str) -> None:
    raise IndexError("\x1b[31m")


def _babble(_: str) -> Any:
    return Mark("no", "provenance")


def _talk(_: str) -> Any:
    return _said("x" * (64 << 20))


def _escape(_: str) -> Provenance:
    return _said("\x1b[31m\u202ered\n", error="b" * 10_000)


def _lie(_: str) -> Provenance:
    return Provenance(Outcome.CAPTURE, "It is real.")


def _invent(field: str) -> dict[str, Any]:
    """An answer with a word outside the vocabulary of that field."""
    kind = {"code": "c", "meaning": "m", "kind": "x" if field == "kind" else "other"}
    ingredient = {
        **dict.fromkeys(("title", "format", "signer", "claim_generator")),
        **{"relationship": "parentOf", "state": "x" if field == "state" else "signed"},
        **{"source_types": [kind], "ingredients": [], "trusted": True},
    }
    signature = {
        **dict.fromkeys(("signer", "issuer", "signed_at")),
        **dict.fromkeys(("time_stamped", "holds", "bytes_match", "trusted"), True),
        **{"trust_list": "", "problems": [], "codes": []},
    }
    manifest = {
        **{"where": "x" if field == "where" else "sidecar", "claim_generator": None, "title": None},
        **{"signature": signature, "actions": [], "source_types": [], "cut": False},
        "ingredients": [ingredient],
    }
    outcome = "x" if field == "outcome" else "signed_other"
    rest = {"remote": None, "marks": [], "error": None}
    return {"outcome": outcome, "summary": "", "manifest": manifest, **rest}


def _kill_the_server(_: str) -> None:
    os.kill(os.getppid(), 9)
    _hang(_)


def _exit(code: str) -> None:
    os._exit(int(code))


def _open(path: str) -> Provenance:
    try:
        Path(path).read_bytes()
    except OSError as error:
        return _said(type(error).__name__)
    return _said("read")


def _write(path: str) -> Provenance:
    try:
        Path(path).write_text("x")
    except OSError as error:
        return _said(type(error).__name__)
    return _said("written")


def _connect(port: str) -> Provenance:
    try:
        socket.create_connection(("127.0.0.1", int(port)), 1.0).close()
    except OSError:
        return _said("no network")
    return _said("connected")


def _count(_: str) -> Provenance:
    threads = len(threading.enumerate())
    return _said(f"{os.getppid()} {threads}")
