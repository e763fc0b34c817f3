"""Outputs of this program say what they are, and signed ones keep the chain of the judged file."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import sys
import threading

import av
import numpy as np
import pytest
from click.testing import CliRunner
from clip_maker import face_frames, write_clip

from dfd_edge import Detector, read_provenance
from dfd_edge.bundle import Bundle
from dfd_edge.cli.command import command
from dfd_edge.cli.run import Run, RunRequest
from dfd_edge.errors import UsageError
from dfd_edge.provenance.record import Outcome, Provenance
from dfd_edge.provenance.signing import Signer, sidecar_for
from dfd_edge.sinks.console import Printer
from dfd_edge.sinks.note import CopyNote, SourceHashes, file_of, sha256_of
from dfd_edge.sinks.sink import Images, Sink, Sinks
from dfd_edge.sinks.video_file import SUFFIXES, AnnotatedVideo, VideoFileWriter
from dfd_edge.sources import SourceItem, SourceKind
from dfd_edge.view.overlay import Overlay, ViewSettings
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
def credentials(camera, tmp_path_factory):
    """Paths of a certificate and its key."""
    return written(tmp_path_factory.mktemp("credentials"), camera)


def written(folder, signer):
    """Writes the certificate of a signer and its key, and returns the paths."""
    paths = folder / "cert.pem", folder / "key.pem"
    for path, content in zip(paths, (signer.pem, signer.key_pem), strict=True):
        path.write_bytes(content)
    return paths


def tampered(path, inside):
    """Changes one byte of a file within the bytes that are given."""
    from signing import changed

    data = path.read_bytes()
    path.write_bytes(changed(data, data.index(inside) + len(inside) // 2))
    return path


def descriptions(path, manifest=None):
    """What the actions of a file's manifest describe, in order."""
    import c2pa

    kind = "video/mp4" if manifest is None else "text/html"
    with path.open("rb") as file, c2pa.Reader(kind, file, manifest) as reader:
        (actions,) = (
            entry["data"]["actions"]
            for entry in reader.get_active_manifest()["assertions"]
            if entry["label"].startswith("c2pa.actions")
        )
    return [action.get("description") for action in actions]


class TestSigned:
    def test_video_and_report_say_what_was_done_to_which_file(
        self, dfd, clip, credentials, trust, tmp_path
    ):
        out, page = tmp_path / "out.mp4", tmp_path / "out.html"
        done = dfd("--save-video", out, "--report", page, "--sign", *credentials, clip)
        assert done.exit_code == 0, done.output
        sha256 = hashlib.sha256(clip.read_bytes()).hexdigest()

        found = read_provenance(out, trust_list=trust)
        assert found.outcome is Outcome.OTHER
        signature = found.manifest.signature
        assert (signature.holds, signature.bytes_match, signature.trusted) == (True, True, True)
        assert (signature.signer, signature.signed_at) == ("Example Cameras", None)
        assert found.manifest.claim_generator.startswith("dfd-edge")
        names = [action.name for action in found.manifest.actions]
        assert names == ["c2pa.opened", "c2pa.edited", "c2pa.transcoded"]
        assert not found.manifest.source_types
        (parent,) = found.manifest.ingredients
        assert (parent.title, parent.relationship, parent.state) == (
            *("clip.mp4", "parentOf", "unsigned"),
        )
        _, edited, _ = descriptions(out)
        assert sha256 in edited
        assert "no verdict is asserted" in edited
        assert sha256 in tags_of(out)["comment"]

        found = read_provenance(page, trust_list=trust)
        assert (found.outcome, found.manifest.where) == (Outcome.OTHER, "sidecar")
        assert found.manifest.signature.bytes_match
        (created,) = found.manifest.actions
        assert (created.name, created.source_type.code) == ("c2pa.created", "dataDrivenMedia")
        (text,) = descriptions(page, sidecar_for(page).read_bytes())
        assert sha256 in text

        for path, inside in ((out, b"not the original"), (page, b"Deepfake report")):
            found = read_provenance(tampered(path, inside), trust_list=trust)
            assert found.outcome is Outcome.BROKEN
            assert found.manifest.signature.bytes_match is False
        names = {"clip.mp4", "out.mp4", "out.html", "out.html.c2pa"}
        assert {path.name for path in tmp_path.iterdir()} == names

    @pytest.mark.parametrize("algorithm", ["es256", "es384", "es512", "ps256", "ed25519"])
    def test_the_algorithm_is_that_of_the_key(self, algorithm, root, trust, tmp_path):
        signer = Signer.load(*written(tmp_path, root.issue(algorithm=algorithm)))
        assert signer.algorithm == algorithm
        page = tmp_path / "page.html"
        page.write_bytes(b"<p>page")
        sidecar_for(page).write_bytes(signer.sign_page(b"<p>page", "page", "a page"))
        signature = read_provenance(page, trust_list=trust).manifest.signature
        assert (signature.holds, signature.trusted) == (True, True)

    @pytest.fixture
    def signed_copy(self, credentials, tmp_path):
        """Writes and signs an annotated copy of a file."""

        def write(source, suffix=".mp4"):
            path = tmp_path / f"copy{suffix}"
            note = CopyNote(str(source), "3541a8fc46e4", source, SHA256)
            video = AnnotatedVideo(
                path, ViewSettings(), note=note, signer=Signer.load(*credentials)
            )
            overlay = Overlay(0.8, 0.3)
            with video:
                for number, image in enumerate(face_frames(2)):
                    video.image(overlay.scene(image, number / 25, None))
            return path

        return write

    @pytest.mark.parametrize("suffix", [".mov", ".m4v"])
    def test_other_containers(self, suffix, clip, signed_copy, trust):
        signature = read_provenance(signed_copy(clip, suffix), trust_list=trust).manifest.signature
        assert (signature.holds, signature.bytes_match) == (True, True)

    @pytest.mark.parametrize("suffix", ["mp4", "jpg"])
    def test_the_chain_of_a_signed_file_goes_on(
        self, suffix, media, signed_copy, camera, trust, tmp_path
    ):
        from signing import action, sign

        source = tmp_path / f"generated.{suffix}"
        actions = [action("created", "trainedAlgorithmicMedia")]
        sign(media(suffix), source, camera, actions=actions, generator="Generator")
        found = read_provenance(signed_copy(source), trust_list=trust)
        (parent,) = found.manifest.ingredients
        assert (parent.title, parent.state) == (source.name, "signed")
        assert parent.claim_generator.startswith("Generator")
        assert [kind.code for kind in parent.source_types] == ["trainedAlgorithmicMedia"]

    def test_with_a_sandbox_the_file_is_named_without_its_manifest(
        self, dfd, media, credentials, camera, trust, tmp_path
    ):
        from signing import sign

        source, out = tmp_path / "signed.mp4", tmp_path / "out.mp4"
        sign(media("mp4"), source, camera)
        done = dfd("--sandbox", "--save-video", out, "--sign", *credentials, source)
        assert done.exit_code == 0, done.output
        (parent,) = read_provenance(out, trust_list=trust).manifest.ingredients
        assert (parent.title, parent.state) == ("signed.mp4", "unsigned")
        assert hashlib.sha256(source.read_bytes()).hexdigest() in descriptions(out)[1]

    def test_a_file_whose_signature_is_broken_is_named_as_that(
        self, media, signed_copy, camera, trust, tmp_path
    ):
        from signing import sign

        source = tmp_path / "generated.mp4"
        sign(media("mp4"), source, camera)
        found = read_provenance(signed_copy(tampered(source, b"x264 - core")), trust_list=trust)
        assert found.manifest.signature.bytes_match, "the copy itself is as it was signed"
        assert [parent.state for parent in found.manifest.ingredients] == ["broken"]

    @pytest.mark.parametrize("content", [b"", b"\0\0\0\x18ftypisom\xff\xff\xff\xffmoov", None])
    def test_a_file_that_cannot_be_read_is_named_all_the_same(
        self, content, signed_copy, trust, tmp_path
    ):
        source = tmp_path / "odd.mp4"
        if content is not None:
            source.write_bytes(content)
        found = read_provenance(signed_copy(source), trust_list=trust)
        assert found.manifest.signature.holds
        assert [parent.title for parent in found.manifest.ingredients] == ["odd.mp4"]

    def test_a_manifest_beyond_the_bounds_is_not_parsed(
        self, media, signed_copy, camera, trust, tmp_path, monkeypatch
    ):
        from signing import sign

        source = tmp_path / "signed.mp4"
        sign(media("mp4"), source, camera)
        beyond = Provenance(Outcome.ERROR, "", error="it was not read within the 20 s")
        with monkeypatch.context() as patched:
            patched.setattr("dfd_edge.provenance.signing.read_provenance", lambda path: beyond)
            path = signed_copy(source)
        (parent,) = read_provenance(path, trust_list=trust).manifest.ingredients
        assert (parent.title, parent.state) == ("signed.mp4", "unsigned")

    def test_a_manifest_kept_elsewhere_is_not_fetched(
        self, media, signed_copy, camera, trust, tmp_path
    ):
        from signing import served, sign

        asked = []

        def answer(path, _):
            asked.append(path)
            return b""

        source = tmp_path / "remote.mp4"
        with served(answer) as address:
            sign(media("mp4"), source, camera, remote=f"{address}/manifest.c2pa", embedded=False)
            assert address.encode() in source.read_bytes()
            found = read_provenance(signed_copy(source), trust_list=trust)
        assert [parent.title for parent in found.manifest.ingredients] == ["remote.mp4"]
        assert not asked


class TestRefused:
    """One line before anything is judged, without a word of the key."""

    @pytest.fixture
    def files(self, root, camera, tmp_path):
        """Certificates and keys of all kinds, good and bad."""
        from cryptography.hazmat.primitives import serialization

        hidden = serialization.BestAvailableEncryption(b"open sesame")
        pkcs8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        expired = root.issue(start_s=-9e5, end_s=-1e5)
        future, odd = root.issue(start_s=1e5, end_s=9e5), root.issue(algorithm="es256k")
        contents = {
            "good.cert": camera.pem,
            "good.key": camera.key_pem,
            "other.key": root.issue(algorithm="ps256").key_pem,
            "encrypted.key": camera.key.private_bytes(*pkcs8, hidden),
            "expired.cert": expired.pem,
            "expired.key": expired.key_pem,
            "future.cert": future.pem,
            "future.key": future.key_pem,
            "root.cert": root.pem,
            "root.key": root.key_pem,
            "odd.cert": odd.pem,
            "odd.key": odd.key_pem,
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        return tmp_path

    @pytest.mark.parametrize(
        ("certificate", "key", "message"),
        [
            ("good.cert", "other.key", "other.key is not the key of"),
            ("good.cert", "encrypted.key", "encrypted.key is encrypted: take the passphrase off"),
            ("expired.cert", "expired.key", "expired on 20"),
            ("future.cert", "future.key", "is not valid before 20"),
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

    @pytest.mark.parametrize(
        ("name", "outputs"),
        [
            ("key.mp4", ["--save-video", "key.mp4"]),
            ("key.pem", ["--csv", "key.pem", "--report", "page.html"]),
            ("page.html.c2pa", ["--report", "page.html"]),
        ],
    )
    def test_an_output_in_the_place_of_the_key(self, name, outputs, files, dfd, clip, monkeypatch):
        monkeypatch.chdir(files)
        key = (files / "good.key").rename(name)
        content = key.read_bytes()
        done = dfd(*outputs, "--sign", "good.cert", key, clip)
        assert done.exit_code == 2
        assert f"{name} is a file that is read; give another name" in done.stderr
        assert key.read_bytes() == content

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

    @pytest.mark.parametrize(
        ("algorithm", "known", "changed"),
        [
            ("ed25519", bytes.fromhex("06032b6570"), bytes.fromhex("06032b657f")),
            ("es256", bytes.fromhex("034200") + b"\4", bytes.fromhex("034200") + b"\5"),
        ],
        ids=["unknown kind", "no point of its curve"],
    )
    def test_a_certificate_of_a_key_that_is_not_known(
        self, algorithm, known, changed, files, root, dfd, clip
    ):
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        issued = root.issue(algorithm=algorithm)
        certificate, *_ = x509.load_pem_x509_certificates(issued.pem)
        der = certificate.public_bytes(Encoding.DER)
        assert known in der
        odd = base64.encodebytes(der.replace(known, changed)).decode()
        path = files / "unknown.cert"
        path.write_text(f"-----BEGIN CERTIFICATE-----\n{odd}-----END CERTIFICATE-----\n")
        (files / "unknown.key").write_bytes(issued.key_pem)
        done = dfd("--report", files / "page.html", "--sign", path, files / "unknown.key", clip)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert f"the key in {path} is damaged, or of a kind that C2PA does not take" in line

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

    def test_the_part_before_ctrl_c_is_signed(self, run, credentials, trust, tmp_path):
        class Stopping(Sink):
            images = Images.EVERY

            def image(self, scene):
                self.stop.set()

        done = run(Signer.load(*credentials), Stopping())
        assert [verdict.complete for verdict in done.verdicts] == [False]
        found = read_provenance(tmp_path / "out.mp4", trust_list=trust)
        assert found.manifest.signature.bytes_match

    def test_a_certificate_that_expires_meanwhile_leaves_the_file_of_before(
        self, run, root, tmp_path
    ):
        late = root.issue(start_s=-9e5, end_s=-1e5)
        expired = Signer("es256", late.pem, late.key_pem)
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
