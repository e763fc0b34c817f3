"""Archives in object storage: a real S3 server on this machine, behind a proxy that cuts."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: it is of the extra `archive`")
pytest.importorskip("fsspec", reason="fsspec is not installed: it is of the extra `archive`")

from dfd_edge.archive import ledger, storage
from dfd_edge.archive.dataset import read_clips
from dfd_edge.archive.ledger import Ledger, RunFacts
from dfd_edge.archive.rows import Clip, Failure
from dfd_edge.archive.run import ArchiveRequest, bundle_hash, run_archive
from dfd_edge.archive.settings import JudgeSettings
from dfd_edge.archive.storage import Store, fetch, open_filesystem, retried
from dfd_edge.errors import OutputError, SourceNotFoundError, UnreachableError, UsageError
from dfd_edge.schema import to_plain


class CuttingProxy:
    """Forwards connections, and cuts some of them in the middle.

    Attributes:
        cuts: Connections cut so far.
    """

    def __init__(self, port: int) -> None:
        self.cuts = 0
        self._server_port = port
        self._cut_after = [0, 0]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, down: int = 0, up: int = 0) -> None:
        """Cuts the next connection that brings so many bytes in one of the directions."""
        self._cut_after = [down, up]

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            for direction, ends in enumerate([(server, client), (client, server)]):
                threading.Thread(target=self._forward, args=(*ends, direction), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, direction: int) -> None:
        passed = 0
        try:
            while data := source.recv(1 << 14):
                passed += len(data)
                limit = self._cut_after[direction]
                if limit and passed >= limit:
                    self._cut_after[direction] = 0
                    self.cuts += 1
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            # The other thread waits for its next bytes: closing alone would not end that.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[CuttingProxy]:
    """An S3 server with an empty bucket `archive`, reached through the proxy alone."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    running = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    reset = urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()  # its objects outlast a server
    proxy = CuttingProxy(port)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(storage, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(ledger, "_SETTLE_S", 0.05)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        filesystem, _ = open_filesystem("s3://archive")
        filesystem.mkdir("archive")
        yield proxy
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.close()
        running.stop()


def upload(folder: Path, address: str) -> None:
    filesystem, path = open_filesystem(address)
    for file in folder.rglob("*.*"):
        filesystem.pipe_file(f"{path}/{file.relative_to(folder)}", file.read_bytes())


def judge_within(
    bucket: str, media: Path, archived: Path, sources: frozenset[str], scratch: Path
) -> None:
    """Judges the small archive from a bucket into it: the rows are those of the local one."""
    upload(media, f"{bucket}/media")
    settings = JudgeSettings(frame_rows=True, thumbnails=True, duration_s=1.0)
    request = ArchiveRequest(
        inputs=(f"{bucket}/media",),
        out=f"{bucket}/results",
        judge=settings,
        jobs=2,
        scratch=str(scratch),
    )
    run_archive(request, threading.Event())
    columns = ["source", "sha256", "label", "p_fake", "failure"]

    def rows(out: str, root: str) -> dict[str, tuple[object, ...]]:
        return {
            row["source"].removeprefix(root): tuple(row[name] for name in columns[1:])
            for batch in read_clips(Store(out), columns)
            for row in batch.to_pylist()
        }

    there = rows(f"{bucket}/results", f"{bucket}/media/")
    assert set(there) == sources
    assert there == rows(str(archived), f"{media}/")
    assert list(scratch.iterdir()) == [], "copies are removed"
    again = run_archive(request, threading.Event())
    assert (again.judged, again.before) == (0, len(sources))
    assert Store(f"{bucket}/results").read("_ledger/lock-1") is None


def test_an_archive_in_s3_is_judged_into_s3_with_a_cut_connection(
    proxy: CuttingProxy, media: Path, archived: Path, sources, tmp_path: Path
):
    proxy.cut(down=60_000)  # in the middle of a clip: everything else is smaller
    judge_within("s3://archive", media, archived, sources, tmp_path)
    assert proxy.cuts == 1


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> Iterator[str]:
    """An Azure Blob server with an empty container; gives its address."""
    pytest.importorskip("adlfs", reason="adlfs is not installed")
    program = os.environ.get("AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no azurite-blob: run `npm install azurite` and set AZURITE to its path")
    port = free_port()
    server = subprocess.Popen(
        [program, "--silent", "--inMemoryPersistence", "--disableTelemetry"]
        + ["--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", str(port)],
        cwd=tmp_path_factory.mktemp("azurite"),
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        # The account that every Azurite has, whose key is in its documentation.
        name = "devstoreaccount1"
        key = (
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsu"
            "Fq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
        )
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"DefaultEndpointsProtocol=http;AccountName={name};AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{name};",
        )
        open_filesystem("az://archive")[0].mkdir("archive")
        yield "az://archive"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Google Cloud Storage server with an empty bucket; gives its address."""
    pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
    )
    port = free_port()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="archive")
    server.start()
    try:
        yield "gs://archive"
    finally:
        server.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    until_s = time.monotonic() + 30.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < until_s, "the server does not answer"
            time.sleep(0.05)
        else:
            return


@pytest.mark.slow
@pytest.mark.parametrize("server", ["azure", "google"])
def test_archives_in_other_storage_are_judged_where_they_are(
    server: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    media: Path,
    archived: Path,
    sources,
    tmp_path: Path,
):
    monkeypatch.setattr(ledger, "_SETTLE_S", 0.05)
    judge_within(request.getfixturevalue(server), media, archived, sources, tmp_path)


def test_a_cut_upload_leaves_the_whole_object(proxy: CuttingProxy):
    store = Store("s3://archive/results")
    contents = bytes(range(256)) * 2000
    proxy.cut(up=200_000)
    store.write("clips/part.parquet", contents)
    assert proxy.cuts == 1
    assert store.read("clips/part.parquet") == contents
    assert store.names("clips") == ["clips/part.parquet"]


def test_clips_of_several_pieces_come_whole(
    proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, face_clip: Path
):
    upload(face_clip.parent, "s3://archive/clips")
    monkeypatch.setattr(storage, "PIECE_BYTES", 10_000)
    fetched = fetch(Clip(f"s3://archive/clips/{face_clip.name}"), str(tmp_path))
    assert fetched.path is not None
    assert Path(fetched.path).read_bytes() == face_clip.read_bytes()
    fetched.discard()
    assert list(tmp_path.iterdir()) == []


def test_missing_objects_and_a_server_that_is_gone_are_told_apart(
    proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    missing = fetch(Clip("s3://archive/none.mp4"), str(tmp_path))
    assert missing.error is not None
    assert missing.error.failure is Failure.NOT_FOUND
    filesystem, _ = open_filesystem("s3://archive")

    def gone(path: str) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(filesystem, "info", gone)
    unreachable = fetch(Clip("s3://archive/some.mp4"), str(tmp_path))
    assert unreachable.error is not None
    assert unreachable.error.failure is Failure.UNREACHABLE
    assert "not reached in 5 attempts (refused)" in str(unreachable.error.error)


def test_a_lock_in_s3_refuses_a_second_run_and_is_void_once_it_is_old(
    proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
):
    settings = JudgeSettings()
    facts = RunFacts(bundle_hash(settings), to_plain(settings), 1)
    store = Store("s3://archive/results")
    with Ledger(store, facts) as first:
        with pytest.raises(UsageError, match="another run writes to it"):
            Ledger(store, facts)
        monkeypatch.setattr(ledger, "_VOID_S", 0.0)
        with Ledger(store, facts) as second:
            second.check_held()
            with pytest.raises(OutputError, match="the lock of this run was lost"):
                first.check_held()


def test_calls_are_tried_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "_FIRST_WAIT_S", 0.0)
    failures = [OSError("cut"), TimeoutError("late")]

    def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert retried(call, "s3://x") == "done"
    with pytest.raises(SourceNotFoundError):
        retried(lambda: Path("/no/such/file").read_text(), "s3://x")

    def refused() -> None:
        raise PermissionError("denied")

    with pytest.raises(UnreachableError, match="access refused"):
        retried(refused, "s3://x")


@pytest.mark.parametrize(
    ("address", "advice"),
    [("gs://bucket/x", "pip install gcsfs"), ("nothing://x", "this kind of storage is unknown")],
)
def test_storage_without_its_package_says_what_to_install(address: str, advice: str):
    if address.startswith("gs"):
        try:
            import gcsfs  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("gcsfs is installed")
    with pytest.raises(UsageError, match=advice):
        open_filesystem(address)
