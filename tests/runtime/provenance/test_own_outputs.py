"""Outputs of this program say what they are, and signed ones keep the chain of the judged file."""

from __future__ import annotations

import hashlib
import http.server
import json
import logging
import os
import sys
import threading

import av
import numpy as np
import pytest
from click.testing import CliRunner
from clip_maker import face_frames, write_clip

from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.cli.command import command
from dfd_edge.cli.run import Run, RunRequest
from dfd_edge.errors import UsageError
from dfd_edge.provenance.signing import Signer, sidecar_for
from dfd_edge.sinks.console import Printer
from dfd_edge.sinks.note import CopyNote, SourceHashes, file_of, sha256_of
from dfd_edge.sinks.sink import Images, Sink, Sinks
from dfd_edge.sinks.video_file import SUFFIXES, AnnotatedVideo, VideoFileWriter
from dfd_edge.sources import SourceItem, SourceKind
from dfd_edge.view.window import save_still

SHA256 = "ab" * 32


def tags_of(path):
    with av.open(str(path)) as container:
        return dict(container.metadata)


@pytest.fixture
def dfd(tiny_bundle):
    """Runs `dfd-edge --model <test bundle> ...` in this process."""

    def run(*arguments):
        return CliRunner().invoke(command, ["--model", str(tiny_bundle), *map(str, arguments)])

    return run


@pytest.fixture
def clip(tmp_path):
    """Ten frames of a face."""
    return write_clip(tmp_path / "clip.mp4", face_frames(10))


class TestNotes:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_players_show_what_an_annotated_video_is(self, suffix, tmp_path):
        path = tmp_path / f"out{suffix}"
        note = CopyNote("films/a\x1b[2J\udcff.mp4", "3541a8fc46e4", sha256=SHA256)
        writer = VideoFileWriter(path, tags=note.tags())
        writer.add(face_frames(1)[0], 0.0)
        writer.close()
        tags = {name.lower(): value for name, value in tags_of(path).items()}
        assert tags["title"] == r"Annotated copy of a\x1b[2J\xff.mp4"
        for part in ("annotated copy by dfd-edge", "not the original", SHA256, "3541a8fc46e4"):
            assert part in tags["comment"]

    def test_a_run_without_the_extra_notes_the_judged_file(
        self, dfd, clip, tiny_bundle, tmp_path, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "c2pa", None)
        out, page = tmp_path / "out.mp4", tmp_path / "out.html"
        done = dfd("--save-video", out, "--report", page, clip)
        assert done.exit_code == 0, done.output
        sha256 = hashlib.sha256(clip.read_bytes()).hexdigest()
        bundle = Bundle.described(tiny_bundle).hash
        assert f"source SHA-256 {sha256}; bundle {bundle}" in tags_of(out)["comment"]
        text = page.read_text("utf-8")
        head, _, body = text.partition("<body>")
        assert f"source SHA-256 {sha256}; bundle {bundle}" in head
        assert "not the judged material" in head
        assert sha256 in body

    def test_a_report_names_the_hash_of_each_file(self, dfd, clip, tmp_path):
        other = write_clip(tmp_path / "other.mp4", face_frames(12))
        page = tmp_path / "out.html"
        assert dfd("--report", page, clip, other).exit_code == 0
        head, _, body = page.read_text("utf-8").partition("<body>")
        assert "2 sources" in head
        for path in (clip, other):
            assert hashlib.sha256(path.read_bytes()).hexdigest() in body

    def test_a_live_source_is_named_without_a_hash(self):
        item = SourceItem(SourceKind.CAMERA, 0, "camera 0")
        assert SourceHashes().add(item, threading.Event()) is None
        assert "source camera 0; bundle 3541" in CopyNote("camera 0", "3541").text("annotated copy")

    def test_hashing_ends_when_the_run_is_stopped(self, clip):
        stop = threading.Event()
        assert sha256_of(clip, stop) == hashlib.sha256(clip.read_bytes()).hexdigest()
        stop.set()
        assert sha256_of(clip, stop) is None

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_pipe_is_not_read_before_it_is_judged(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.mp4")
        item = SourceItem(SourceKind.VIDEO, str(tmp_path / "pipe.mp4"), "pipe.mp4")
        assert file_of(item) is None

    def test_a_still_says_what_it_is(self, tmp_path):
        image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
        pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
        path = save_still(pixels, "films/ünïcode\udcff.mp4", 1.5, tmp_path)
        with image_module.open(path) as still:
            assert (np.asarray(still.convert("RGB"))[:, :, ::-1] == pixels).all()
            comment = still.text["Comment"]
        assert "annotated still by dfd-edge" in comment
        assert r"not the original; source ünïcode\xff.mp4 at 1.50 s" in comment


@pytest.fixture(scope="module")
def authority():
    pytest.importorskip("c2pa", reason="c2pa-python is not installed: the extra provenance has it")
    from certificates import Authority

    return Authority.new()


@pytest.fixture(scope="module")
def credentials(authority, tmp_path_factory):
    """Paths of a certificate and its key."""
    return authority.write(tmp_path_factory.mktemp("credentials"))


def manifests_of(path, manifest=None):
    """All manifests of a file, the state of the active one, and the active one."""
    import c2pa

    kind = "text/html" if manifest is not None else None
    with path.open("rb") as file, c2pa.Reader(kind or "video/mp4", file, manifest) as reader:
        store = json.loads(reader.json())
    return store, store["validation_state"], store["manifests"][store["active_manifest"]]


def actions_of(manifest):
    found = [each for each in manifest["assertions"] if each["label"].startswith("c2pa.actions")]
    return [action for each in found for action in each["data"]["actions"]]


def tampered(path, inside):
    """Changes one byte of a file within the bytes that are given."""
    data = bytearray(path.read_bytes())
    at = data.index(inside) + len(inside) // 2
    data[at] ^= 1
    path.write_bytes(data)
    return path


class TestSigned:
    def test_video_and_report_say_what_was_done_to_which_file(
        self, dfd, clip, credentials, tmp_path
    ):
        out, page = tmp_path / "out.mp4", tmp_path / "out.html"
        done = dfd("--save-video", out, "--report", page, "--sign", *credentials, clip)
        assert done.exit_code == 0, done.output
        sha256 = hashlib.sha256(clip.read_bytes()).hexdigest()

        _, state, manifest = manifests_of(out)
        assert state == "Valid"
        assert manifest["claim_generator_info"][0]["name"] == "dfd-edge"
        opened, edited, transcoded = actions_of(manifest)
        assert opened["action"] == "c2pa.opened"
        assert (edited["action"], transcoded["action"]) == ("c2pa.edited", "c2pa.transcoded")
        assert sha256 in edited["description"]
        assert "no verdict is asserted" in edited["description"]
        assert not any("digitalSourceType" in action for action in actions_of(manifest))
        (parent,) = manifest["ingredients"]
        assert (parent["title"], parent["relationship"]) == ("clip.mp4", "parentOf")
        assert sha256 in tags_of(out)["comment"]

        _, state, manifest = manifests_of(page, sidecar_for(page).read_bytes())
        assert state == "Valid"
        (created,) = actions_of(manifest)
        assert created["action"] == "c2pa.created"
        assert created["digitalSourceType"].endswith("/dataDrivenMedia")
        assert sha256 in created["description"]

        tampered(page, b"Deepfake report")
        assert manifests_of(page, sidecar_for(page).read_bytes())[1] == "Invalid"
        tampered(out, b"not the original")
        assert manifests_of(out)[1] == "Invalid"
        written = {"clip.mp4", "out.mp4", "out.html", "out.html.c2pa"}
        assert {path.name for path in tmp_path.iterdir()} == written

    @pytest.mark.parametrize("algorithm", ["es256", "es384", "es512", "ps256", "ed25519"])
    def test_the_algorithm_is_that_of_the_key(self, algorithm, authority, tmp_path):
        signer = Signer.load(*authority.write(tmp_path, algorithm))
        assert signer.algorithm == algorithm
        page = tmp_path / "page.html"
        page.write_bytes(b"<p>page")
        _, state, manifest = manifests_of(page, signer.sign_page(b"<p>page", "page", "a page"))
        assert (state, manifest["signature_info"]["alg"].lower()) == ("Valid", algorithm)

    @pytest.mark.parametrize("suffix", [".mov", ".m4v"])
    def test_other_containers(self, suffix, signed_copy):
        assert manifests_of(signed_copy(face_frames(2), suffix=suffix))[1] == "Valid"

    @pytest.fixture
    def signed_copy(self, credentials, tmp_path):
        """Writes and signs an annotated copy of a file."""

        def write(frames, *, suffix=".mp4", source=None):
            path = tmp_path / f"copy{suffix}"
            note = CopyNote(str(source), "3541a8fc46e4", source, SHA256)
            video = AnnotatedVideo(path, None, note=note, signer=Signer.load(*credentials))
            with video:
                for number, image in enumerate(frames):
                    video._writer.add(image, number / 25)
                    video.frames += 1
            return path

        return write

    def test_the_chain_of_a_signed_file_goes_on(self, clip, signed_copy, credentials, tmp_path):
        source = sign_as_generated(clip, tmp_path / "generated.mp4", Signer.load(*credentials))
        store, state, manifest = manifests_of(signed_copy(face_frames(2), source=source))
        assert state == "Valid"
        (parent,) = manifest["ingredients"]
        (created,) = actions_of(store["manifests"][parent["active_manifest"]])
        assert created["digitalSourceType"].endswith("/trainedAlgorithmicMedia")

    def test_a_file_whose_signature_is_broken_is_named_as_that(
        self, clip, signed_copy, credentials, tmp_path
    ):
        source = sign_as_generated(clip, tmp_path / "generated.mp4", Signer.load(*credentials))
        tampered(source, b"x264 - core")
        _, state, manifest = manifests_of(signed_copy(face_frames(2), source=source))
        assert state == "Valid", "the copy itself is as it was signed"
        (parent,) = manifest["ingredients"]
        failures = parent["validation_results"]["activeManifest"]["failure"]
        assert "assertion.bmffHash.mismatch" in {failure["code"] for failure in failures}

    @pytest.mark.parametrize("content", [b"", b"\0\0\0\x18ftypisom\xff\xff\xff\xffmoov", None])
    def test_a_file_that_cannot_be_read_is_named_all_the_same(self, content, signed_copy, tmp_path):
        source = tmp_path / "odd.mp4"
        if content is not None:
            source.write_bytes(content)
        _, state, manifest = manifests_of(signed_copy(face_frames(2), source=source))
        assert state == "Valid"
        assert [parent["title"] for parent in manifest["ingredients"]] == ["odd.mp4"]

    def test_a_manifest_kept_elsewhere_is_not_fetched(
        self, clip, signed_copy, credentials, tmp_path
    ):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
            source = sign_as_generated(
                clip, tmp_path / "remote.mp4", Signer.load(*credentials), remote=address
            )
            assert address.encode() in source.read_bytes()
            _, state, manifest = manifests_of(signed_copy(face_frames(2), source=source))
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        assert state == "Valid"
        assert [parent["title"] for parent in manifest["ingredients"]] == ["remote.mp4"]
        assert not asked


def sign_as_generated(unsigned, signed, signer, *, remote=None):
    """Writes a copy with the manifest of a generator, embedded or kept elsewhere."""
    import c2pa

    kinds = "http://cv.iptc.org/newscodes/digitalsourcetype"
    created = {"action": "c2pa.created", "digitalSourceType": f"{kinds}/trainedAlgorithmicMedia"}
    definition = {
        "claim_generator_info": [{"name": "generator", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }
    with c2pa.Builder(definition) as builder:
        if remote is not None:
            builder.set_no_embed()
            builder.set_remote_url(remote)
        with unsigned.open("rb") as plain, signed.open("w+b") as out:
            builder.sign(signer._native(), "video/mp4", plain, out)
    return signed


class TestRefused:
    """One line before anything is judged, without a word of the key."""

    @pytest.fixture
    def files(self, authority, tmp_path):
        """Certificates and keys of all kinds, good and bad."""
        from certificates import KEYS, pem_key
        from cryptography.hazmat.primitives.asymmetric import ec

        key, other = KEYS["es256"](), KEYS["ps256"]()
        odd = ec.generate_private_key(ec.SECP256K1())
        contents = {
            "good.cert": authority.issue(key),
            "good.key": pem_key(key),
            "other.key": pem_key(other),
            "encrypted.key": pem_key(key, b"open sesame"),
            "expired.cert": authority.issue(key, days=(-9, -1)),
            "future.cert": authority.issue(key, days=(1, 9)),
            "root.cert": authority.pem,
            "root.key": pem_key(authority.key),
            "odd.cert": authority.issue(odd),
            "odd.key": pem_key(odd),
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        return tmp_path

    @pytest.mark.parametrize(
        ("certificate", "key", "message"),
        [
            ("good.cert", "other.key", "other.key is not the key of"),
            ("good.cert", "encrypted.key", "encrypted.key is encrypted: take the passphrase off"),
            ("expired.cert", "good.key", "expired on 20"),
            ("future.cert", "good.key", "is not valid before 20"),
            ("root.cert", "root.key", "root.cert cannot sign content: "),
            ("odd.cert", "odd.key", "is of a kind that C2PA does not take"),
            ("good.key", "good.key", "good.key holds no certificate"),
            ("good.cert", "good.cert", "good.cert holds no private key"),
            ("gone.cert", "good.key", "gone.cert cannot be read (No such file or directory)"),
        ],
    )
    def test_certificates_and_keys(self, certificate, key, message, files, dfd, clip, caplog):
        caplog.set_level(logging.DEBUG)
        out = files / "out.mp4"
        done = dfd("-v", "--save-video", out, "--sign", files / certificate, files / key, clip)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert message in line
        assert not done.stdout
        assert not out.exists()
        secret = "".join((files / "good.key").read_text().splitlines()[1:-1])
        said = "".join((done.stderr, caplog.text)).replace("\n", "")
        assert not any(secret[at : at + 16] in said for at in range(0, len(secret) - 16, 16))

    @pytest.mark.parametrize(
        ("outputs", "message"),
        [
            ([], "--sign signs the outputs of --save-video and --report: give one of them"),
            (["--csv", "out.csv"], "--sign signs the outputs of --save-video and --report"),
            (["--save-video", "out.mkv"], "a signed video is written as .mp4, .m4v, .mov"),
            (["--report", "folder/out.html"], "folder/out.html: cannot be written"),
            (["--report", "beside.html"], "'beside.html.c2pa' is no file name"),
        ],
    )
    def test_outputs(self, outputs, message, files, dfd, clip, monkeypatch):
        monkeypatch.chdir(files)
        (files / "beside.html.c2pa").mkdir()
        done = dfd(*outputs, "--sign", "good.cert", "good.key", clip)
        assert done.exit_code == 2
        assert message in done.stderr
        assert not done.stdout

    def test_an_output_in_the_place_of_the_key(self, files, dfd, clip):
        key = files / "key.mp4"
        key.write_bytes((files / "good.key").read_bytes())
        done = dfd("--save-video", key, "--sign", files / "good.cert", key, clip)
        assert done.exit_code == 2
        assert "key.mp4 would be overwritten" in done.stderr
        assert key.read_bytes() == (files / "good.key").read_bytes()

    def test_a_live_source_is_no_file_to_name(self, files, dfd):
        options = ("--save-video", files / "out.mp4", "--sign", files / "good.cert")
        done = dfd(*options, files / "good.key", "--webcam", "7", "--no-window")
        assert done.exit_code == 2
        assert "a live source or standard input is no file" in done.stderr

    def test_without_the_extra_one_line_names_it(self, files, dfd, clip, monkeypatch):
        monkeypatch.setitem(sys.modules, "c2pa", None)
        out = files / "out.mp4"
        done = dfd("--save-video", out, "--sign", files / "good.cert", files / "good.key", clip)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert "pip install 'dfd-edge[provenance]'" in line

    def test_a_signer_does_not_show_its_key(self, files):
        signer = Signer.load(files / "good.cert", files / "good.key")
        assert "PRIVATE" not in repr(signer)
        with pytest.raises(UsageError, match="is not the key of"):
            Signer.load(files / "good.cert", files / "other.key")


class TestEndedEarly:
    @pytest.fixture
    def run(self, tiny_bundle, clip, tmp_path):
        """Judges a clip with a signed annotated video, and gives the run."""

        def start(signer, *sinks):
            request = RunRequest(save_video=tmp_path / "out.mp4")
            run = Run(Detector.load(tiny_bundle), request, Sinks(*sinks), Printer(), signer=signer)
            for sink in sinks:
                sink.stop = run.stop
            run.files([SourceItem.of(clip)])
            return run

        return start

    def test_the_part_before_ctrl_c_is_signed(self, run, credentials, tmp_path):
        class Stopping(Sink):
            images = Images.EVERY

            def image(self, scene):
                self.stop.set()

        done = run(Signer.load(*credentials), Stopping())
        assert [verdict.complete for verdict in done.verdicts] == [False]
        assert manifests_of(tmp_path / "out.mp4")[1] == "Valid"

    def test_a_certificate_that_expires_meanwhile_leaves_the_file_of_before(
        self, run, authority, tmp_path, capsys
    ):
        from certificates import KEYS, pem_key

        key = KEYS["es256"]()
        expired = Signer("es256", authority.issue(key, days=(-9, -1)), pem_key(key))
        (tmp_path / "out.mp4").write_text("before")
        events = Events()
        done = run(expired, events)
        assert len(done.verdicts) == done.failures == 1
        (error,) = events.seen
        assert "out.mp4: the annotated video cannot be signed (" in error.detail
        assert "not valid at time of signing" in error.detail
        assert (tmp_path / "out.mp4").read_text() == "before"
        assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "out.mp4"}


class Events(Sink):
    """Keeps events."""

    def __init__(self):
        self.seen = []

    def event(self, event):
        self.seen.append(event)
