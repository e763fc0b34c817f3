"""Writes the static folder: the page, the bundle's graphs, and onnxruntime-web."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.faces.detector import DETECTOR_FILE, DETECTOR_NAME
from dfd_edge.faces.onnx_model import FACE_MODELS_DIR, face_model_sha256
from dfd_edge.report import page
from dfd_edge.schema import dump_json, to_plain
from dfd_edge.version import version_of
from dfd_export.web import onnxruntime_web
from dfd_export.web.rules import rules, verdict_names

PAGE = Path(__file__).resolve().parent / "page"
REPORT_STYLE = Path(page.__file__).with_name("page.css")
CONFIG = "config.json"
_VENDOR = "vendor/onnxruntime-web"
_SERVICE_WORKER = "service-worker.js"
#: Written into a folder, so that only one that this command wrote is replaced.
_MARK = "written-by-dfd-export"


@dataclass(frozen=True, slots=True)
class Site:
    """A written folder.

    Attributes:
        path: The folder.
        precision: Variant of the frame graph in it.
        files: Number of files.
        size: Their bytes.
        first_load: Bytes of those that a browser loads before it judges, in WebAssembly.
    """

    path: Path
    precision: str
    files: int
    size: int
    first_load: int


def write_site(
    bundle: Bundle,
    out: Path,
    *,
    precision: str = "fp32",
    onnxruntime: Path | None = None,
    webgpu: bool = True,
) -> Site:
    """Writes a bundle as a folder for a web server; whole, or not at all.

    Args:
        bundle: The bundle.
        out: The folder; replaced where this function wrote it, else it has to be new or empty.
        precision: Variant of the frame graph, "fp32" or "int8".
        onnxruntime: Package of onnxruntime-web, as of `onnxruntime_web.vendored`.
        webgpu: Whether the build for GPUs goes along, which browsers without one never load.

    Raises:
        UsageError: The folder holds something else, the bundle lacks the variant or is of a kind
            that the page does not judge, or the package lacks a file.
        DfdError: onnxruntime-web cannot be had.
        BundleError: A file of the bundle changed since it was checked.
    """
    check_folder(out)
    files = {**_page_files(), **_bundle_files(bundle, precision)}
    names = onnxruntime_web.WASM_FILES + (onnxruntime_web.WEBGPU_FILES if webgpu else ())
    for name, data in onnxruntime_web.vendored(onnxruntime, names).items():
        files[f"{_VENDOR}/{name}"] = data
    files[CONFIG] = dump_json(site_config(bundle, precision, webgpu=webgpu)).encode()
    first = sorted(name for name in files if name.rpartition("/")[2] not in _on_demand())
    files[_SERVICE_WORKER] = _service_worker(files[_SERVICE_WORKER], files, first)
    files[_MARK] = b"dfd-export web replaces this folder, and no folder without this file.\n"
    _write(out, files)
    return Site(
        path=out,
        precision=precision,
        files=len(files),
        size=sum(map(len, files.values())),
        first_load=sum(len(files[name]) for name in first),
    )


def check_folder(out: Path) -> None:
    """Refuses a folder that holds something else than an earlier site.

    Raises:
        UsageError: It does, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file: give a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise UsageError(f"{out}: holds other files: give a new or an empty folder with --out")


def site_config(bundle: Bundle, precision: str, *, webgpu: bool) -> dict[str, Any]:
    """Returns all that the page's modules take as data.

    Raises:
        UsageError: The bundle lacks the variant, or is of a kind that the page does not judge.
    """
    manifest = bundle.manifest
    variant = manifest.frame.variants.get(precision)
    if variant is None:
        raise UsageError(
            f"{bundle.path}: has no {precision}, only {', '.join(manifest.frame.variants)}: give "
            "one of these with --precision"
        )
    if manifest.sequence.first_frames is not None:
        raise UsageError(
            f"{bundle.path}: judges the first {manifest.sequence.first_frames} frames of a clip "
            "alone; the page judges bundles that go on"
        )
    _check_detector(bundle)
    plain = json.loads(manifest.to_json())
    return {
        "name": manifest.name,
        "hash": bundle.hash,
        "version": version_of("dfd-edge"),
        "precision": precision,
        "webgpu": webgpu,
        "onnxruntime": onnxruntime_web.VERSION,
        "files": {
            "frame": f"bundle/{variant.file}",
            "sequence": f"bundle/{manifest.sequence.file}",
            "faces": None if manifest.face.detector == "none" else f"bundle/{DETECTOR_FILE}",
        },
        "manifest": {key: plain[key] for key in ("frame", "sequence", "face")},
        "decision": to_plain(manifest.decision_of(precision)),
        "probe": {
            "file": f"bundle/{manifest.probe.file}",
            "logits": variant.probe_logit or manifest.probe.fake_logit,
            "tolerance": manifest.probe.tolerance,
        },
        "rules": rules(),
        "words": verdict_names(),
        "limits": manifest.card.limits,
    }


def _check_detector(bundle: Bundle) -> None:
    face = bundle.manifest.face
    if face.detector == "none":
        return
    if (face.detector, face.sha256) != (DETECTOR_NAME, face_model_sha256(DETECTOR_FILE)):
        raise UsageError(
            f"{bundle.path}: was trained with another face detector than {DETECTOR_NAME} as this "
            "program has it; export the bundle again"
        )


def _page_files() -> dict[str, bytes]:
    files = {
        path.relative_to(PAGE).as_posix(): path.read_bytes()
        for path in sorted(PAGE.rglob("*"))
        if path.is_file()
    }
    return {**files, "report.css": REPORT_STYLE.read_bytes()}


def _bundle_files(bundle: Bundle, precision: str) -> dict[str, bytes]:
    config = site_config(bundle, precision, webgpu=False)
    names = {config["files"]["frame"], config["files"]["sequence"], config["probe"]["file"]}
    files = {name: bundle.read(name.removeprefix("bundle/")) for name in sorted(names)}
    if "CARD.md" in bundle.manifest.files:
        files["bundle/CARD.md"] = bundle.read("CARD.md")
    if config["files"]["faces"] is not None:
        files[config["files"]["faces"]] = (FACE_MODELS_DIR / DETECTOR_FILE).read_bytes()
        files["bundle/FACE-MODELS-NOTICE"] = (FACE_MODELS_DIR / "NOTICE").read_bytes()
    return files


def _on_demand() -> frozenset[str]:
    """Names of files that are loaded where they are needed alone."""
    return frozenset(
        (*onnxruntime_web.WEBGPU_FILES, _SERVICE_WORKER, "CARD.md", "probe.png", "package.json")
    )


def _service_worker(source: bytes, files: dict[str, bytes], first: list[str]) -> bytes:
    """Returns the service worker with its list of files and a version that follows their bytes."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    text = source.decode()
    values = {"VERSION": digest.hexdigest()[:16], "FILES": first}
    for name, value in values.items():
        text = text.replace(f'"@{name}@"', json.dumps(value))
    return text.encode()


def _write(out: Path, files: dict[str, bytes]) -> None:
    target = out.resolve()
    folder = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if target.is_dir():
            shutil.rmtree(target)
        folder.replace(target)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UsageError(f"{out}: cannot be written ({error.strerror})") from error
