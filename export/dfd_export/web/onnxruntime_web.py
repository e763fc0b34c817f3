"""The npm package onnxruntime-web: from a folder, from its archive, or downloaded once."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from dfd_edge.errors import DfdError, UsageError

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
"""The version that is downloaded, and that the parity tests run."""
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZ"
    "ClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""Hash of that archive, as npm states it."""

WASM_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU_FILES = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
_DOWNLOAD_S = 600
_MOST_BYTES = 200_000_000


def vendored(source: Path | None, names: tuple[str, ...]) -> dict[str, bytes]:
    """Returns files of the package's `dist` folder.

    Args:
        source: Folder of the package, or of its `dist`; or its archive (.tgz) as `npm pack` writes
            it. None for the pinned version, from the cache or from npm.
        names: Files of `dist`.

    Returns:
        Their contents by name, and `package.json` where the package has it.

    Raises:
        UsageError: `source` is neither, or lacks a file.
        DfdError: The package cannot be downloaded, or is not the one that was pinned.
    """
    path = downloaded() if source is None else source
    if path.is_dir():
        return _of_folder(path, names)
    if not path.is_file():
        raise UsageError(f"{path}: no such file or folder: give a package of {PACKAGE}, or none")
    return _of_archive(path, names)


def downloaded() -> Path:
    """Returns the archive of the pinned version, downloaded by `npm pack` where it is not cached.

    Raises:
        DfdError: npm is missing, fails, or gives another archive.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    archive = root / "dfd-edge" / f"{PACKAGE}-{VERSION}.tgz"
    if archive.is_file() and integrity_of(archive) == INTEGRITY:
        return archive
    npm = shutil.which("npm")
    mend = f"download {PACKAGE} {VERSION} elsewhere and give its path with --onnxruntime-web"
    if npm is None:
        raise DfdError(f"{PACKAGE} {VERSION} is not cached, and npm is not installed: {mend}")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        command = [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"]
        try:
            subprocess.run(
                command, cwd=folder, check=True, capture_output=True, timeout=_DOWNLOAD_S
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise DfdError(f"npm cannot download {PACKAGE} {VERSION} ({error}): {mend}") from error
        found = Path(folder) / archive.name
        if not found.is_file() or integrity_of(found) != INTEGRITY:
            raise DfdError(
                f"npm gave another archive of {PACKAGE} {VERSION} than the one of hash "
                f"{INTEGRITY[:20]}…: {mend}"
            )
        found.replace(archive)
    return archive


def integrity_of(archive: Path) -> str:
    """Returns the hash of an archive as npm writes it: sha512 in base64."""
    digest = hashlib.sha512(archive.read_bytes()).digest()
    return f"sha512-{base64.b64encode(digest).decode()}"


def _of_folder(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    dist = folder / "dist" if (folder / "dist").is_dir() else folder
    found = {}
    for name in names:
        try:
            found[name] = (dist / name).read_bytes()
        except OSError as error:
            raise UsageError(
                f"{dist / name}: cannot be read ({error.strerror}): give the folder of {PACKAGE}, "
                f"{VERSION} or one of the same files"
            ) from error
    package = dist.parent / "package.json"
    if package.is_file():
        found[package.name] = package.read_bytes()
    return found


def _of_archive(archive: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    wanted = {f"package/dist/{name}" for name in names} | {"package/package.json"}
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                if member.name in wanted and member.isfile() and member.size <= _MOST_BYTES:
                    stream = opened.extractfile(member)
                    if stream is not None:
                        found[PurePosixPath(member.name).name] = stream.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UsageError(
            f"{archive}: no archive of {PACKAGE} ({error}): give what npm pack writes"
        ) from error
    if missing := [name for name in names if name not in found]:
        raise UsageError(
            f"{archive}: has no dist/{missing[0]}: give {PACKAGE} {VERSION}, or a version with the "
            "same files"
        )
    return found
