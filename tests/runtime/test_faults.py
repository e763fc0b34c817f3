"""Faults of the machine and of people: full disks, folders that go, kills, pipes that break.

Each ends in a verdict or one line that names what failed, never in an abort, a traceback or a
half-written file.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from clip_maker import face_frames, write_clip

from dfd_edge.cli import command
from dfd_edge.errors import OutputError, UsageError
from dfd_edge.sinks.csv_file import CsvFile
from dfd_edge.sinks.files import check_outputs, written_whole

resource = pytest.importorskip("resource", reason="limits of Unix")

COMMAND = [sys.executable, "-m", "dfd_edge"]
ROUNDS = 5


@pytest.fixture
def dfd(tiny_bundle: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `dfd-edge` under a limit of the system, if one is given."""

    def run(*arguments: object, limit: tuple[int, int] | None = None, **options: object):
        if limit is not None:
            options["preexec_fn"] = lambda: resource.setrlimit(limit[0], (limit[1], limit[1]))
        return subprocess.run(
            [*COMMAND, "--model", str(tiny_bundle), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return run


def one_line(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """Sees that an error is one line that says all this."""
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    for words in said:
        assert words in line, line


class TestTheEnd:
    """Python ends daemon threads that come back from C++ at the exit, and C++ then aborts."""

    def test_a_reader_that_leaves_ends_the_run_quietly(self, dfd, face_clip, tmp_path):
        for number in range(3):
            shutil.copy(face_clip, tmp_path / f"{number}.mp4")
        command = [*COMMAND, "--json", str(tmp_path)]
        ends: Counter[tuple[int, bytes]] = Counter()
        for _ in range(ROUNDS):
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                process.stdout.readline()
                process.stdout.close()
                ends[process.wait(60), process.stderr.read()] += 1
        assert set(ends) <= {(141, b""), (0, b"")}, ends

    def test_the_exit_waits_for_native_calls_and_starts_no_more(self, tmp_path):
        """Threads that are always inside onnxruntime or OpenCV, as those of a run are."""
        program = textwrap.dedent(
            """
            import sys, threading, time
            import cv2, numpy as np
            from dfd_edge.closing import native_calls
            from dfd_edge.faces import FaceDetector

            faces = FaceDetector()
            picture = np.zeros((1500, 1500, 3), np.uint8)

            def work():
                while True:
                    with native_calls():
                        faces.detect(picture)

            for _ in range(3):
                threading.Thread(target=work, daemon=True).start()
            time.sleep(0.1 + float(sys.argv[1]))
            raise RuntimeError("of the application")
            """
        )
        (tmp_path / "program.py").write_text(program)
        for number in range(ROUNDS):
            done = subprocess.run(
                [sys.executable, str(tmp_path / "program.py"), str(number / 100)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 1, done.stderr
            assert "of the application" in done.stderr
            assert "terminate" not in done.stderr

    @pytest.mark.parametrize(
        "way",
        [
            "callback",
            pytest.param("loop", marks=pytest.mark.slow),
            pytest.param("thread", marks=pytest.mark.slow),
        ],
    )
    def test_an_error_of_the_application_is_its_own(self, tiny_bundle, tmp_path, way):
        clip = write_clip(tmp_path / "large.mp4", face_frames(20, size=(1280, 960)))
        program = textwrap.dedent(
            """
            import sys, threading, time
            from dfd_edge import Detector

            detector = Detector.load(sys.argv[1])

            def fail(*arguments):
                raise RuntimeError("of the application")

            if sys.argv[3] == "callback":
                detector.analyze(sys.argv[2], on_frame=fail)
            elif sys.argv[3] == "loop":
                for result in detector.watch(sys.argv[2], rate_hz=25):
                    fail()
            else:
                begun = threading.Event()

                def work():
                    detector.analyze(sys.argv[2], rate_hz=25, on_frame=lambda result: begun.set())

                threading.Thread(target=work, daemon=True).start()
                begun.wait()
                fail()
            """
        )
        (tmp_path / "program.py").write_text(program)
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, str(tmp_path / "program.py"), str(tiny_bundle), str(clip), way],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 1, done.stderr
            assert "RuntimeError: of the application" in done.stderr
            assert "terminate" not in done.stderr


class TestStandardStreams:
    def shell(self, tiny_bundle, plain_clip, redirection, *options):
        command = f'exec "$@" {redirection}'
        return subprocess.run(
            ["sh", "-c", command, "sh", *COMMAND, "--model", str(tiny_bundle), *options]
            + [str(plain_clip)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @pytest.mark.parametrize("options", [(), ("--json",)])
    @pytest.mark.parametrize(
        ("redirection", "said"),
        [(">&-", "standard output is closed"), (">/dev/full", "No space left on device")],
    )
    def test_output_that_cannot_be_written(
        self, tiny_bundle, plain_clip, redirection, said, options
    ):
        done = self.shell(tiny_bundle, plain_clip, redirection, *options)
        assert done.returncode == 1
        one_line(done, said)

    @pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- <&-"])
    def test_without_standard_error_verdicts_are_printed(
        self, tiny_bundle, plain_clip, redirection
    ):
        done = self.shell(tiny_bundle, plain_clip, redirection, "gone.mp4")
        assert done.returncode == 1, "one source is missing"
        assert done.stdout.startswith("NO_FACE")

    def test_a_live_run_ends_when_its_reader_leaves(self, tiny_bundle, tmp_path):
        program = textwrap.dedent(
            """
            from dfd_edge.cli import main, run
            from dfd_edge.sources import SourceKind

            run.LIVE_KINDS = (SourceKind.VIDEO,)  # files stand in for cameras
            main()
            """
        )
        (tmp_path / "program.py").write_text(program)
        clip = write_clip(tmp_path / "long.mp4", face_frames(500))
        other = shutil.copy(clip, tmp_path / "other.mp4")
        command = [sys.executable, str(tmp_path / "program.py"), "--model", str(tiny_bundle)]
        command += ["--json", "--rate", "25", str(clip), str(other)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.readline()
            process.stdout.close()
            ended, said = process.wait(60), process.stderr.read()
            assert ended == 141, said
            assert b"error" not in said


class TestOneBrokenFile:
    """Whatever one source raises is its own error; the others are done."""

    @pytest.mark.parametrize(
        ("raised", "said"),
        [
            ("ValueError('31 is not a valid Type')", "ValueError: 31 is not a valid Type"),
            ("MemoryError()", "there is not enough memory"),
            pytest.param(
                *("OSError(24, 'Too many open files')", "Too many open files"),
                marks=pytest.mark.slow,
            ),
            pytest.param(
                *("UsageError('a crop of side 0 px is empty')", "a crop of side 0"),
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_any_error_ends_one_source_only(
        self, tiny_bundle, face_clip, plain_clip, tmp_path, raised, said
    ):
        bad = tmp_path / "bad.mp4"
        shutil.copy(face_clip, bad)
        program = textwrap.dedent(
            f"""
            from dfd_edge.cli import main
            from dfd_edge.errors import UsageError
            from dfd_edge.sources.decoding import DecodedSource

            convert = DecodedSource._convert

            def failing(self, decoded, *, first):
                if self.name.endswith("bad.mp4") and not first:
                    raise {raised}
                return convert(self, decoded, first=first)

            DecodedSource._convert = failing
            main()
            """
        )
        (tmp_path / "program.py").write_text(program)
        page, rows, video = (tmp_path / name for name in ("page.html", "rows.csv", "video.mp4"))
        command = [sys.executable, str(tmp_path / "program.py"), "--model", str(tiny_bundle)]
        outputs = ["--json", "--report", str(page), "--csv", str(rows)]
        done = subprocess.run(
            [*command, *outputs, str(bad), str(plain_clip), str(face_clip)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        one_line(done, str(bad), said)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        (error,) = [record for record in records if record["record"] == "event"]
        assert error["kind"] == "error"
        assert error["source"] == str(bad)
        verdicts = [record["source"] for record in records if record["record"] == "verdict"]
        assert verdicts == [str(plain_clip), str(face_clip)]
        assert str(bad) in page.read_text("utf-8")
        assert {row["source"] for row in csv.DictReader(rows.open())} >= {str(face_clip)}
        if raised.startswith("OSError"):
            return
        drawn = subprocess.run(
            [*command, "-v", "--save-video", str(video), str(bad)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert drawn.returncode == 1
        assert not video.exists()
        assert ("Traceback" in drawn.stderr) == (not raised.startswith("UsageError"))


class TestDisk:
    @pytest.mark.parametrize(
        ("option", "name", "most"),
        [("--csv", "o.csv", 600), ("--save-video", "o.mp4", 9000), ("--report", "o.html", 50_000)],
    )
    def test_a_full_disk_leaves_the_file_of_before_and_the_verdicts(
        self, dfd, face_clip, tmp_path, option, name, most
    ):
        out = tmp_path / name
        out.write_text("before")
        limit = (resource.RLIMIT_FSIZE, most)
        done = dfd(option, out, face_clip, limit=limit)
        assert done.returncode == 1, done.stderr
        one_line(done, str(out), "cannot be written")
        assert str(face_clip) in done.stdout, "the verdict is printed all the same"
        assert out.read_text() == "before"
        assert [path.name for path in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("option", ["--csv", "--save-video", "--report"])
    def test_a_folder_where_nothing_may_be_written_is_named_at_once(self, dfd, face_clip, option):
        suffix = {"--csv": "csv", "--save-video": "mp4", "--report": "html"}[option]
        out = f"/sys/out.{suffix}" if Path("/sys/kernel").exists() else f"/out.{suffix}"
        if os.access(Path(out).parent, os.W_OK) and not out.startswith("/sys"):
            pytest.skip("everything may be written here")
        done = dfd(option, out, face_clip)
        assert done.returncode == 2
        assert done.stdout == ""
        one_line(done, out, "cannot be written")

    def test_a_folder_without_permission_is_named(self, tmp_path):
        locked = tmp_path / "locked"
        locked.mkdir()
        (locked / "inner").mkdir()
        locked.chmod(0)
        program = textwrap.dedent(
            """
            import os, sys
            from pathlib import Path
            from dfd_edge.errors import UsageError
            from dfd_edge.sinks.files import check_outputs

            if os.geteuid() == 0:
                os.setuid(65534)
            try:
                check_outputs({"--csv": Path(sys.argv[1])}, [])
            except UsageError as error:
                print(error)
            """
        )
        tmp_path.chmod(0o755)
        out = locked / "inner" / "out.csv"
        try:
            done = subprocess.run(
                [sys.executable, "-c", program, str(out)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            locked.chmod(0o700)
        assert done.returncode == 0, done.stderr
        assert "--csv" in done.stdout
        assert f"{out} cannot be written (Permission denied)" in done.stdout

    def test_a_folder_that_goes_meanwhile_is_named(self, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        with (
            pytest.raises(OutputError, match=r"out\.txt: cannot be put in place \(No such file"),
            written_whole(folder / "out.txt") as partial,
        ):
            partial.write_text("rows")
            shutil.rmtree(folder)
        folder.mkdir()
        with (
            pytest.raises(OutputError, match=r"out\.csv: cannot be put in place"),
            CsvFile(folder / "out.csv"),
        ):
            shutil.rmtree(folder)

    def test_outputs_are_tried_before_anything_is_judged(self, tmp_path):
        before = tmp_path / "out.csv"
        before.write_text("before")
        check_outputs({"--csv": before, "--report": tmp_path / "page.html"}, [])
        assert before.read_text() == "before"
        assert list(tmp_path.iterdir()) == [before]
        with pytest.raises(UsageError, match="gone"):
            check_outputs({"--csv": tmp_path / "gone" / "out.csv"}, [])


class TestKills:
    def test_what_a_killed_run_left_never_gets_the_name(self, tmp_path):
        video = tmp_path / "o.mp4"
        (tmp_path / ".o.partial.mp4").write_bytes(b"half a film")
        check_outputs({"--save-video": video}, [])
        with written_whole(video):
            pass
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
    )
    def test_at_any_moment_nothing_half_written_gets_the_name(
        self, tiny_bundle, tmp_path, number, dfd
    ):
        clip = write_clip(tmp_path / "clip.mp4", face_frames(150))
        folder = tmp_path / "out"
        folder.mkdir()
        outputs = {"--csv": folder / "o.csv", "--save-video": folder / "o.mp4"}
        outputs["--report"] = folder / "o.html"
        arguments = [str(part) for pair in outputs.items() for part in pair]
        command = [*COMMAND, "--model", str(tiny_bundle), *arguments, str(clip)]
        for moment_s in (0.3, 0.9, 1.3, 1.8):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            time.sleep(moment_s)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
            assert b"Traceback" not in said
            assert b"terminate" not in said
            for path in outputs.values():
                if path.exists():
                    assert whole(path), f"{path} after {moment_s} s"
        assert dfd(*arguments, clip).returncode == 0
        left = {path.name for path in folder.iterdir()}
        assert left == {path.name for path in outputs.values()}, "stale partial files are removed"


def whole(path: Path) -> bool:
    """Whether a file reaches its end."""
    if path.suffix == ".csv":
        return path.read_bytes().endswith(b"\n")
    if path.suffix == ".html":
        return path.read_text("utf-8").rstrip().endswith("</html>")
    return b"moov" in path.read_bytes()


class TestLimits:
    @pytest.mark.parametrize("most", [12, 24])
    def test_few_descriptors(self, dfd, face_clip, plain_clip, tmp_path, most):
        out = tmp_path / "out.csv"
        done = dfd("--csv", out, face_clip, plain_clip, limit=(resource.RLIMIT_NOFILE, most))
        assert done.returncode in (0, 1, 2, 5), done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or "error" in done.stderr
        with contextlib.suppress(FileNotFoundError):
            assert done.returncode == 0 or not out.exists()

    @pytest.mark.parametrize("message", ["can't start new thread", "a fault"])
    def test_a_thread_that_cannot_start_is_too_little_memory(self, monkeypatch, capsys, message):
        def fail(**options: object) -> None:
            raise RuntimeError(message)

        monkeypatch.setattr(command, "command", fail)
        with pytest.raises(RuntimeError if message == "a fault" else SystemExit):
            command.main()
        short = "dfd-edge: error: there is not enough memory"
        assert (short in capsys.readouterr().err) == (message != "a fault")

    def test_little_memory(self, dfd, face_clip):
        """From too little to start to enough: a verdict, or an error that says what failed.

        Not between 420 and 600 MB, where libraries in C++ end the process themselves at times.
        """
        ends = []
        for mebibytes in (300, 400, 900, 4000):
            limit = (resource.RLIMIT_AS, mebibytes << 20)
            done = dfd(face_clip, limit=limit)
            assert done.returncode >= 0, f"{mebibytes} MB: {done.stderr}"
            if "dfd-edge" in done.stderr:
                assert "Traceback" not in done.stderr, f"{mebibytes} MB: {done.stderr}"
            ends.append(done.returncode)
        assert ends[-1] == 0
