"""Checks that a bundle is whole, keeps the contract and works here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx
from onnx import checker, shape_inference

from dfd_edge.bundle import Bundle, graph_identity
from dfd_edge.bundle.manifest import MANIFEST_NAME
from dfd_edge.bundle.onnx_file import read_onnx
from dfd_edge.errors import BundleError, DfdError, ProviderError
from dfd_edge.inference.installation import load_onnxruntime
from dfd_edge.inference.session import Session
from dfd_export.bundles.probe import check_probe, frame_file

OPSETS = (17, 18)
"""Operator sets that a bundle's graphs may use."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was looked at, whether it is right, and what was found."""

    name: str
    passed: bool
    detail: str


def verify_bundle(bundle: Bundle, *, provider: str = "cpu") -> Iterator[Check]:
    """Goes on checking where loading ends, which has checked schema, hashes and contract.

    Args:
        bundle: A loaded bundle.
        provider: Where the probe runs.

    Yields:
        One result a check; a check that fails does not keep the next from running.

    Raises:
        ProviderError: The provider cannot run.
    """
    manifest = bundle.manifest
    yield Check(
        MANIFEST_NAME,
        True,
        f"schema version {manifest.schema_version}; the paths stay inside the folder",
    )
    yield _run("files", lambda: _check_files(bundle))
    for name in manifest.graphs():
        yield _run(name, partial(_check_graph, bundle, name))
    portable = _without_optimized(bundle)
    for precision, variant in manifest.frame.variants.items():
        yield _run(f"probe {precision}", partial(_check_probe, portable, provider, precision))
        if variant.optimized is not None:
            name = f"probe {precision} optimized"
            yield _run(name, partial(_check_optimized, bundle, provider, precision))


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except ProviderError:
        raise
    except DfdError as error:
        return Check(name, False, str(error))
    except Exception as error:  # ONNX's checker and onnxruntime raise types of their own
        return Check(name, False, f"{name}: {_reason(error)}: export the bundle again")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_files(bundle: Bundle) -> str:
    files = bundle.manifest.files
    listed = {*files, MANIFEST_NAME}
    found = {path.relative_to(bundle.path).as_posix() for path in _walk(bundle.path)}
    if strangers := sorted(found - listed):
        raise BundleError(
            f"{bundle.path}: {', '.join(strangers)!r:.200} is not listed in the manifest, so no "
            "hash covers it and nothing reads it: remove it"
        )
    size = sum(entry.size for entry in files.values())
    return f"{len(files)} files, {size:,} bytes; sizes and sha256 as listed, none besides"


def _walk(folder: Path) -> Iterator[Path]:
    """The files that people see; what systems leave behind begins with a dot."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and not path.is_dir():
            yield path


def _check_graph(bundle: Bundle, name: str) -> str:
    path, data = bundle.path / name, bundle.read(name)
    try:
        model = onnx.load_model_from_string(data)
        checker.check_model(model, full_check=True)
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # types of its own, of protobuf, and whatever its C++ throws
        raise BundleError(
            f"{path}: ONNX's checker refuses it ({_reason(error)}): export the bundle again"
        ) from error
    declared = read_onnx(data)
    opset = declared.opsets.get("ai.onnx", 0)
    if opset not in OPSETS:
        raise BundleError(
            f"{path}: is written in opset {opset}; a bundle's graphs are in "
            f"{' or '.join(map(str, OPSETS))}, which the runtimes have: export the bundle again"
        )
    manifest = bundle.manifest
    identity = graph_identity(manifest.name, manifest.frame, manifest.sequence, manifest.face)[name]
    stated = len(identity.keys() & declared.metadata.keys())
    return (
        f"opset {opset}, IR version {declared.ir_version}; inputs, outputs and axes as in the "
        f"contract; ONNX's checker passes; {stated} of {len(identity)} facts in its metadata, all "
        "as in the manifest"
    )


def _without_optimized(bundle: Bundle) -> Bundle:
    """The bundle as those see it who cannot read its optimised graphs."""
    frame = bundle.manifest.frame
    variants = {name: replace(v, optimized=None) for name, v in frame.variants.items()}
    return replace(
        bundle, manifest=replace(bundle.manifest, frame=replace(frame, variants=variants))
    )


def _check_optimized(bundle: Bundle, provider: str, precision: str) -> str:
    optimized = bundle.manifest.frame.variants[precision].optimized
    assert optimized is not None
    session = Session.open(bundle, provider=provider, precision=precision)
    if frame_file(session) != optimized.file:
        return (
            f"{optimized.file} is not read here: it is for onnxruntime {optimized.onnxruntime} on "
            f"cpu, and this is {load_onnxruntime().__version__} on {session.provider.actual}"
        )
    return _compare_probe(session)


def _check_probe(bundle: Bundle, provider: str, precision: str) -> str:
    return _compare_probe(Session.open(bundle, provider=provider, precision=precision))


def _compare_probe(session: Session) -> str:
    try:
        result = check_probe(session)
    except ProviderError as error:  # it could be opened: other graphs may run
        raise BundleError(str(error)) from error
    runs = f"{frame_file(session)} on {session.provider}"
    if not result.compared:
        return f"{runs}: runs; the manifest stores no logits of it to compare with"
    return (
        f"{runs}: largest difference of {' and '.join(result.compared)} {result.difference:.2g} "
        f"(allowed: {result.allowed:.2g}), mean {result.mean:.2g} (allowed: "
        f"{result.allowed_mean:.2g})"
    )
