"""`dfd-export web`: what is written, from which package, and what is refused."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.errors import DfdError, UsageError
from dfd_edge.faces.detector import DETECTOR_FILE
from dfd_export.cli import main
from dfd_export.web import onnxruntime_web
from dfd_export.web.onnxruntime_web import (
    INTEGRITY,
    VERSION,
    WASM_FILES,
    WEBGPU_FILES,
    integrity_of,
)
from dfd_export.web.site import PAGE, write_site
from web_served import PACKAGE, ROOT, package


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A folder like the npm package's, with small files."""
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"name": "onnxruntime-web"}')
    for name in WASM_FILES + WEBGPU_FILES:
        (folder / "dist" / name).write_text(f"// {name}")
    (folder / "dist" / "ort.all.mjs").write_text("// not needed")
    return folder


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.load(DEFAULT_BUNDLE)


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_the_command_writes_a_whole_page(tmp_path, unpacked):
    out = tmp_path / "site"
    asked = ["web", str(DEFAULT_BUNDLE), "--out", str(out), "--onnxruntime-web", str(unpacked)]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    assert "files" in done.output
    found = names(out)
    assert {p.relative_to(PAGE).as_posix() for p in PAGE.rglob("*") if p.is_file()} <= found
    assert f"bundle/{DETECTOR_FILE}" in found
    vendored = {f"vendor/onnxruntime-web/{name}" for name in WASM_FILES + WEBGPU_FILES}
    assert vendored <= found
    assert "vendor/onnxruntime-web/LICENSE" in found
    assert "vendor/onnxruntime-web/ort.all.mjs" not in found
    frame = out / "bundle" / "frame.onnx"
    assert frame.read_bytes() == (DEFAULT_BUNDLE / "frame.onnx").read_bytes()
    assert "bundle/frame.int8.onnx" not in found


def test_the_docs_show_what_the_command_prints(tmp_path):
    out = tmp_path / "site"
    asked = ["web", str(DEFAULT_BUNDLE), "--out", str(out), "--onnxruntime-web", str(package())]
    done = CliRunner().invoke(main, asked)
    shown = (ROOT / "docs" / "web.md").read_text("utf-8")
    assert done.output.replace(str(out), "build/web") in shown


def test_each_address_that_the_page_names_is_in_the_folder(tmp_path, unpacked, bundle):
    """Imports, links and the service worker's list; nothing comes from another host."""
    out = tmp_path / "site"
    write_site(bundle, out, onnxruntime=unpacked)
    for path in (p for p in out.rglob("*") if p.suffix in {".js", ".html", ".css"}):
        text = path.read_text("utf-8")
        assert not re.findall(r"""["'(](?:https?:)?//[\w.]""", text), path
        for link in re.findall(r"""(?:from|import|href=|src=)\s*\(?"([^"#]+)\"""", text):
            assert (path.parent / link).is_file(), f"{path.name}: {link}"
    worker = (out / "service-worker.js").read_text("utf-8")
    kept = json.loads(re.search(r"const FILES = (\[.*?\]);", worker).group(1))
    assert {"index.html", "config.json", "bundle/frame.onnx", "page.js"} <= set(kept)
    assert set(kept) <= names(out)
    assert not [name for name in kept if name.rpartition("/")[2] in WEBGPU_FILES]
    assert "@" not in re.search(r"const VERSION = (.*);", worker).group(1)


def test_another_precision_takes_its_own_graph_and_decision(tmp_path, unpacked, bundle):
    out = tmp_path / "site"
    write_site(bundle, out, precision="int8", onnxruntime=unpacked, webgpu=False)
    assert names(out) & {"bundle/frame.int8.onnx", "bundle/frame.onnx"} == {
        "bundle/frame.int8.onnx"
    }
    config = json.loads((out / "config.json").read_text("utf-8"))
    decision = bundle.manifest.decision_of("int8")
    assert config["decision"]["thresholds"]["fake"]["probability"] == (
        decision.thresholds["fake"].probability
    )
    assert not names(out) & {f"vendor/onnxruntime-web/{name}" for name in WEBGPU_FILES}


def test_only_its_own_folder_is_replaced(tmp_path, unpacked, bundle):
    out = tmp_path / "site"
    write_site(bundle, out, onnxruntime=unpacked)
    (out / "old.txt").write_text("of an earlier version")
    write_site(bundle, out, onnxruntime=unpacked)
    assert not (out / "old.txt").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("keep me")
    with pytest.raises(UsageError, match="holds other files"):
        write_site(bundle, mine, onnxruntime=unpacked)
    assert names(mine) == {"letter.txt"}
    with pytest.raises(UsageError, match="is a file"):
        write_site(bundle, mine / "letter.txt", onnxruntime=unpacked)


def test_a_package_comes_as_an_archive_too(tmp_path, unpacked):
    archive = tmp_path / "onnxruntime-web.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(unpacked, "package")
    found = onnxruntime_web.vendored(archive, WASM_FILES)
    assert set(found) == {*WASM_FILES, "package.json"}
    assert found == onnxruntime_web.vendored(unpacked, WASM_FILES)
    assert found == onnxruntime_web.vendored(unpacked / "dist", WASM_FILES)


def test_what_is_no_package_is_refused(tmp_path, unpacked, bundle):
    with pytest.raises(UsageError, match="no such file or folder"):
        onnxruntime_web.vendored(tmp_path / "nowhere", WASM_FILES)
    text = tmp_path / "text.tgz"
    text.write_text("no archive")
    with pytest.raises(UsageError, match="no archive of onnxruntime-web"):
        onnxruntime_web.vendored(text, WASM_FILES)
    (unpacked / "dist" / WASM_FILES[1]).unlink()
    with pytest.raises(UsageError, match=re.escape(WASM_FILES[1])):
        write_site(bundle, tmp_path / "site", onnxruntime=unpacked)
    assert not (tmp_path / "site").exists()
    with pytest.raises(UsageError, match="has no fp16, only fp32, int8"):
        write_site(bundle, tmp_path / "site", precision="fp16", onnxruntime=unpacked)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in the place of npm; the cache is empty."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = programs / "npm"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    return script


def test_another_archive_than_the_pinned_one_is_not_used(tmp_path, npm):
    archive = f"onnxruntime-web-{VERSION}.tgz"
    npm.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\necho forged > {archive}\n')
    with pytest.raises(DfdError, match="gave another archive"):
        onnxruntime_web.downloaded()
    assert f"onnxruntime-web@{VERSION}" in (tmp_path / "asked").read_text()
    assert not list((tmp_path / "cache").rglob("*.tgz"))


def test_without_a_network_the_cached_archive_is_used(tmp_path, npm):
    npm.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(DfdError, match="give its path with --onnxruntime-web"):
        onnxruntime_web.downloaded()
    cached = tmp_path / "cache" / "dfd-edge" / PACKAGE.name
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(package().read_bytes())
    assert onnxruntime_web.downloaded() == cached
    assert integrity_of(cached) == INTEGRITY


def test_without_npm_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DfdError, match="npm is not installed"):
        onnxruntime_web.downloaded()
