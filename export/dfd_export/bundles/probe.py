"""The probe: an input stored in the bundle, and what came out of it when it was written."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import Manifest, ProbeSpec
from dfd_edge.errors import BundleError
from dfd_edge.inference.installation import load_onnxruntime
from dfd_edge.inference.names import Provider
from dfd_edge.inference.precision import graph_file
from dfd_edge.inference.session import Session

PROBE_FILE = "probe.png"
PROBE_CROPS = 4
PROBE_TOLERANCE = 1e-2
"""In logits. Processors and onnxruntime releases add in another order; a wrong model is far off."""


def make_probe_crops(size: int) -> NDArray[np.uint8]:
    """Draws the probe's crops: soft coloured fields with fine grain. They show nobody.

    Args:
        size: Height and width in pixels.

    Returns:
        uint8 [4, size, size, 3], the same on every machine.
    """
    rng = np.random.default_rng(20)
    crops = []
    for _ in range(PROBE_CROPS):
        coarse = rng.uniform(30, 225, (5, 5, 3)).astype(np.float32)
        field = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        crops.append(np.clip(field + rng.normal(0, 8, field.shape), 0, 255).astype(np.uint8))
    return np.stack(crops)


def write_probe(path: Path, crops: NDArray[np.uint8]) -> None:
    """Writes RGB crops one below the other as PNG."""
    column = crops.reshape(-1, crops.shape[2], 3)
    done, data = cv2.imencode(".png", column[:, :, ::-1])
    assert done
    path.write_bytes(data.tobytes())


def read_probe(bundle: Bundle) -> NDArray[np.uint8]:
    """Reads the crops of a bundle's probe: uint8 [n, S, S, 3], RGB.

    Raises:
        BundleError: The file is no PNG of that size.
    """
    spec, size = bundle.manifest.probe, bundle.manifest.frame.input_size
    data = bundle.read(spec.file)
    wanted = (size, len(spec.fake_logit) * size)
    declared = _png_size(data)
    # Before it is decoded: a few bytes can declare a picture that fills the memory.
    if declared != wanted:
        found = "no PNG" if declared is None else f"a picture of {declared[0]} x {declared[1]} px"
        raise BundleError(
            f"{bundle.path / spec.file}: {found}, but the probe is {wanted[0]} x {wanted[1]} px: "
            "export the bundle again"
        )
    try:
        column = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        column = None
    if column is None or column.shape != (wanted[1], wanted[0], 3):
        raise BundleError(
            f"{bundle.path / spec.file}: a PNG that cannot be decoded: export the bundle again"
        )
    rgb = np.asarray(column[:, :, ::-1], np.uint8, order="C")
    return rgb.reshape(-1, size, size, 3)


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG's header declares; None where the data is no PNG."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or len(data) < 24:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def run_probe(
    session: Session, crops: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Runs the crops through both graphs, as one clip.

    Returns:
        The frame logit of each crop and the sequence logit after each, float32 [n].

    Raises:
        BundleError: A graph fails, or gives other shapes than it declares.
        ProviderError: The frame graph fails on an accelerator.
        DfdError: The frame graph's features are not finite.
    """
    frames = session.run_frame(crops)
    steps = session.run_sequence(
        frames.features[None], np.array([len(crops)], np.int32), session.initial_state(1)
    )
    return frames.fake_logit, steps.fake_logit[0]


def measure_probe(session: Session, crops: NDArray[np.uint8]) -> ProbeSpec:
    """Runs the probe and writes down what came out."""
    frame, step = run_probe(session, crops)
    return ProbeSpec(
        file=PROBE_FILE,
        fake_logit=[float(value) for value in frame],
        step_logit=[float(value) for value in step],
        tolerance=PROBE_TOLERANCE,
    )


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of a probe run.

    Attributes:
        compared: The outputs that the manifest has expectations for, on this variant.
        difference: The largest difference of a logit from them.
        allowed: How large it may be.
        mean: The mean difference over the crops, of the output where it is largest.
        allowed_mean: How large it may be.
    """

    compared: tuple[str, ...]
    difference: float
    allowed: float
    mean: float
    allowed_mean: float


def check_probe(session: Session) -> ProbeResult:
    """Runs a bundle's probe through the session's variant and the sequence graph, and compares.

    fp32 may differ by `tolerance` of the manifest's probe. Another processor rounds the products
    of a variant elsewhere, by no more than the variant itself moved the logits when it was made:
    the mean difference over the crops may be as large as the mean of its `changes`, the largest
    as large as the largest, and either as large as that tolerance. A graph that saturates, or is
    another one, moves all crops, so that the mean shows it.

    Raises:
        BundleError: A logit is not finite, or differs by more than the manifest allows.
    """
    bundle = session.bundle
    path = bundle.path / frame_file(session)
    frame, step = run_probe(session, read_probe(bundle))
    found = {"fake_logit": frame, "step_logit": step}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise BundleError(
                f"{path}: probe crop {int(np.isfinite(values).argmin())} gives {name} that is not "
                f"finite on {session.provider}: the model does not work on this machine"
            )
    precision = session.provider.precision
    expected = _expected(bundle.manifest, precision)
    allowed, allowed_mean = _tolerances(bundle.manifest, precision)
    largest = mean = 0.0
    for name, wanted in expected.items():
        difference = np.abs(found[name] - np.asarray(wanted))
        worst = int(difference.argmax())
        largest = max(largest, float(difference[worst]))
        mean = max(mean, float(difference.mean()))
        if not difference[worst] <= allowed:
            raise BundleError(
                f"{path}: probe crop {worst} gives {name} {found[name][worst]:.4f} on "
                f"{session.provider}, but the manifest says {wanted[worst]:.4f} (allowed "
                f"difference {allowed:g}): the model does not work on this machine as it did "
                "when it was exported"
            )
        if not difference.mean() <= allowed_mean:
            raise BundleError(
                f"{path}: {name} of the probe crops is on average {difference.mean():.4f} from "
                f"the manifest's on {session.provider} (allowed {allowed_mean:g}): the model does "
                "not work on this machine as it did when it was exported"
            )
    return ProbeResult(tuple(expected), largest, allowed, mean, allowed_mean)


def frame_file(session: Session) -> str:
    """Name of the file that a session's frame graph was read from."""
    report = session.provider
    variant = session.bundle.manifest.frame.variants[report.precision]
    return graph_file(variant, Provider(report.actual), load_onnxruntime().__version__)


def _expected(manifest: Manifest, precision: str) -> dict[str, list[float]]:
    """Returns by output the logits that this variant gave when it was written."""
    if precision == "fp32":
        return {
            "fake_logit": manifest.probe.fake_logit,
            "step_logit": manifest.probe.step_logit,
        }
    logits = manifest.frame.variants[precision].probe_logit
    return {"fake_logit": logits} if logits else {}


def _tolerances(manifest: Manifest, precision: str) -> tuple[float, float]:
    """Returns the bounds on the largest and the mean difference of a variant's logits."""
    own = manifest.probe.tolerance
    changes = manifest.frame.variants[precision].changes
    if changes is None:
        return own, own
    return max(own, changes.max_logit), max(own, changes.mean_logit)
